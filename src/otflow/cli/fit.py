"""`otflow fit`: train on a table and write a model file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from otflow.cli.config import load_config, to_toml
from otflow.cli.errors import clean_errors, fail, how_to_go_on
from otflow.support.jsontext import json_text

_NOT_SETTINGS = {
    *("data", "out", "seed", "columns", "blocks", "checkpoint", "checkpoint_every", "resume"),
    *("log", "tensorboard", "mlflow", "config", "as_json", "stream", "distributed"),
    *("context", "condition", "weights", "preset"),
}
_NOT_SHOWN = ("context", "config", "as_json", "resume")


@clean_errors
def fit(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            help="Table: .csv (with header), .parquet, .npy or .npz; - is CSV piped in. "
            "With --stream a folder or a quoted pattern of .parquet or .npy files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model file to write.")],
    blocks: Annotated[
        str | None,
        typer.Option(help="A chain of so many flows, or auto: held-out rows decide. No alpha."),
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="With --blocks: a block's weight of the nll.")
    ] = None,
    joint_iter: Annotated[
        int | None, typer.Option(help="With --blocks: steps of all together at the end; 2000.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help='Columns to use, by name: a,b,"c, d".')
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="Columns that the density is conditioned on, by name.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Column of the rows' weights.")] = None,
    bounds: Annotated[
        str | None, typer.Option(help="Bounded columns: income=0:,share=0:1.")
    ] = None,
    dequantize: Annotated[
        str | None, typer.Option(help="Rounded columns: auto, a step, or children=1,age=0.5.")
    ] = None,
    arcsinh: Annotated[
        str | None, typer.Option(help="Heavy-tailed columns: auto, or profit,loss=100 with scales.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="density, map or quick: settings that no flag gives.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Weight of the nll.")] = 30.0,
    beta: Annotated[
        float | None, typer.Option(help="Weight of what is 0 on optimal paths; see OTFlow.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Ridges a stage, or units a layer; the data decide.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Residual layers.")] = 1,
    potential: Annotated[
        str | None,
        typer.Option(help="convex: a bijection whatever the data (default), or resnet (rk4)."),
    ] = None,
    scheme: Annotated[str, typer.Option(help="conforming or rk4.")] = "conforming",
    n_steps: Annotated[
        int | None, typer.Option(help="Time steps; 4 for conforming, 8 for rk4.")
    ] = None,
    n_probes: Annotated[
        int, typer.Option(help="Random directions of the trace while rk4 trains; 0 is exact.")
    ] = 0,
    max_iter: Annotated[int, typer.Option(help="Most optimiser steps.")] = 4000,
    natural_iter: Annotated[int, typer.Option(help="Natural-gradient steps after those.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = 512,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; 0.05, or 0.01 of a resnet.")
    ] = None,
    patience: Annotated[int, typer.Option(help="Validations without improvement.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    checkpoint: Annotated[
        Path | None, typer.Option(help="File for the run's state, to resume it from.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between its writes.")] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint where there is one.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Read DATA piece by piece, never whole.")
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", help="Join the job that OTFLOW_* or SLURM's variables describe."
        ),
    ] = False,
    log: Annotated[Path | None, typer.Option(help="JSON lines, one a validation.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard.")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Metrics to MLflow's run.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of these options; flags win over it.",
            callback=load_config,
            is_eager=True,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a flow on the rows of DATA; a tenth of them is held out to stop in time.

    The effective options are printed as TOML that --config reads, the result as its comments.
    """
    options = {k: v for k, v in locals().items() if k not in _NOT_SHOWN}
    from otflow.cli.column_options import by_column, preset_values

    options |= preset_values(context, preset)
    settings = {k: v for k, v in options.items() if k not in _NOT_SETTINGS}
    settings |= by_column(bounds, dequantize, arcsinh)
    from otflow.data.shards import shard_files
    from otflow.estimator.estimator import TrainingDivergedError
    from otflow.parallel.job import is_first
    from otflow.support.files import check_apart, check_writable
    from otflow.training.checkpoint import sigterm_interrupts

    check_writable(out)
    if blocks is not None and distributed:
        raise ValueError("distributed: expected without --blocks, whose chains one process trains.")
    if blocks is not None and preset is not None:
        raise ValueError("preset: expected without --blocks, a chain has settings of its own.")
    outputs = {"--out": out, "--log": log, "--checkpoint": checkpoint}
    check_apart(outputs, {"DATA": shard_files(data) if stream else data, "--config": config})
    with _job() if distributed else contextlib.nullcontext():
        parts = _rows(data, columns, condition, weights, stream)
        model = _model(blocks, seed, settings, context)
        used = model.get_params() | _texts(options)  # what was not asked for too
        options = {k: used.get(k, v) for k, v in options.items() if k in used or k not in settings}
        watch: dict[str, Any] = {"resume": resume}
        if checkpoint is not None:
            watch |= {"checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
        first = not distributed or is_first()
        asked = options if first else options | {"log": None, "tensorboard": None, "mlflow": False}
        with _logs(asked, resume) as logs, sigterm_interrupts():
            if first and not as_json:
                logs.insert(0, _once(lambda: typer.echo(to_toml(options), nl=False)))
            try:
                beside = {"condition": parts.condition, "sample_weight": parts.sample_weight}
                told = {"on_validation": lambda row: [f(row) for f in logs]}
                model.fit(parts.rows, **beside, **watch, **told)
            except (KeyboardInterrupt, TrainingDivergedError):
                if first and hasattr(model, "flow_"):
                    model.save(out)
                    kept = f"training stopped early; the best weights so far are in {out}"
                    fail(f"{kept}. {how_to_go_on(checkpoint)}")
                raise
        if not first:
            return
        model.save(out)
        found = _summary(model, parts.size, out)
        typer.echo(json_text(found | {"options": _plain(options)}) if as_json else _text(found))


def _model(blocks: str | None, seed: int, settings: dict[str, Any], context: typer.Context) -> Any:
    """The estimator; a chain has defaults of its own for what was not asked for."""
    from otflow.estimator.chain import OTFlowChain
    from otflow.estimator.estimator import OTFlow

    sources = {k: getattr(context.get_parameter_source(k), "name", "DEFAULT") for k in settings}
    asked = {k: v for k, v in settings.items() if sources[k] != "DEFAULT"}
    kind = OTFlow if blocks is None else OTFlowChain
    known = kind().get_params()
    if unknown := [f"--{name.replace('_', '-')}" for name in asked if name not in known]:
        told = "without" if blocks is None else "with"
        raise ValueError(f"{', '.join(unknown)}: expected not to be set {told} --blocks.")
    if blocks is None:
        return OTFlow(random_state=seed, **{k: v for k, v in settings.items() if k in known})
    number = int(blocks) if blocks.isdecimal() else blocks
    return OTFlowChain(number, random_state=seed, **asked)


@contextlib.contextmanager
def _job() -> Iterator[None]:
    """One process of a job: an error ends it without waiting for the others."""
    from otflow.parallel import join_processes
    from otflow.parallel.job import errors_end_the_job

    with _only_python_prints():
        join_processes()
        with errors_end_the_job():
            yield


@contextlib.contextmanager
def _only_python_prints() -> Iterator[None]:
    """Gloo, which carries sums between processes, would say on standard output that it runs."""
    if sys.__stdout__ is None or sys.stdout is not sys.__stdout__:
        yield
        return
    sys.__stdout__.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        with open(kept, "w", closefd=False) as output, contextlib.redirect_stdout(output):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _rows(
    data: Path, columns: str | None, condition: str | None, weights: str | None, stream: bool
) -> Any:
    """What to fit, its condition and its weights, as `column_options.Parts`."""
    from otflow.cli.column_options import Parts, cut
    from otflow.cli.tables import join_names, read_input, split_names

    if not stream:
        beside = None if weights is None else join_names([weights])
        chosen = filter(None, [columns, condition, beside])  # --columns are those to fit
        names = None if columns is None else ",".join(chosen)
        return cut(read_input(data, names), condition, weights)
    if condition is not None or weights is not None:
        raise ValueError("--condition, --weights: expected none with --stream; got some.")
    from otflow.data.shards import ShardedTable

    shards = ShardedTable(data, None if columns is None else split_names(columns))
    return Parts(shards, (shards.n, shards.dim))


@contextlib.contextmanager
def _logs(options: dict[str, Any], resume: bool) -> Any:
    """The callbacks that the options ask for."""
    from otflow.training import logs

    with contextlib.ExitStack() as stack:
        found = []
        if options["log"] is not None:
            found.append(stack.enter_context(logs.json_lines(options["log"], append=resume)))
        if options["tensorboard"] is not None:
            found.append(stack.enter_context(logs.tensorboard(options["tensorboard"])))
        if options["mlflow"]:
            found.append(stack.enter_context(logs.mlflow(_plain(options))))
        yield found


def _once(function: Any) -> Any:
    """A callback for the first row: by then the data and all options have been checked."""
    left = [function]
    return lambda row: left and left.pop()()


def _texts(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are texts here and mappings in Python."""
    from otflow.data.columns import BY_COLUMN

    return {name: options[name] for name in BY_COLUMN}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}


def _summary(model: Any, size: tuple[int, int], out: Path) -> dict[str, Any]:
    from otflow.flow.objective import costs_at

    last = model.history_["iteration"].index(model.n_iter_)
    rows, columns = size
    ended = {"iterations": model.n_iter_, "status": model.status_}
    costs = costs_at(model.history_, last)
    return {"model": str(out), "rows": rows, "columns": columns} | ended | {"validation": costs}


def _text(found: dict[str, Any]) -> str:
    units = {"nll": " nats"}
    costs = (f"{k} {v:.4f}{units.get(k, '')}" for k, v in found["validation"].items())
    return (
        f"# {found['model']}: {found['rows']} rows, {found['columns']} columns, "
        f"{found['iterations']} iterations kept ({found['status']}).\n"
        f"# validation: {', '.join(costs)} (in the standardised space; "
        "`otflow score` is in the data's own units)."
    )
