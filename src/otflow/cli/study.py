"""`otflow study`: the limits of the theory, measured."""

import inspect
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from otflow.cli.errors import clean_errors, fail
from otflow.support.jsontext import json_text

_WIDTH = 150  # columns of the tables; a narrower terminal wraps them

study = typer.Typer(
    help="Measure what the theory promises, with intervals and verdicts.", no_args_is_help=True
)

Problem = Annotated[str, typer.Option(help="product, gaussian or mixture.")]
Dim = Annotated[int, typer.Option(help="Dimension of the problem.")]
Data = Annotated[
    Path | None, typer.Option(help="Your own table instead of --problem; columns are standardised.")
]
Out = Annotated[Path, typer.Option(help="Folder of the study: results, weights, figure.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the study in the folder.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="With --resume: failed cells again.")]
Seeds = Annotated[int | None, typer.Option(help="Replicates a cell.")]
Budget = Annotated[float | None, typer.Option(help="Minutes after which no cell is started.")]
Demo = Annotated[bool, typer.Option("--demo", help="A small size, under three minutes.")]
BackendName = Annotated[str, typer.Option(help="local, or ray: units are tasks of a cluster.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; none starts Ray here.")]
Cpus = Annotated[int | None, typer.Option(help="Of Ray's CPUs a task takes; all devices.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _options(
    out: Out,
    problem: Problem = "product",
    dim: Dim = 2,
    data: Data = None,
    resume: Resume = False,
    retry_failed: Retry = False,
    seeds: Seeds = None,
    budget: Budget = None,
    demo: Demo = False,
    backend: BackendName = "local",
    address: Address = None,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """What every kind of study takes; `data` only those that make sense of rows."""


def _add(kind: str, text: str, *, of_data: bool) -> None:
    """Add the command of a kind."""

    def command(**given: Any) -> None:
        _run(kind, **{"data": None} | given)

    options = inspect.signature(_options).parameters.values()
    taken = [option for option in options if of_data or option.name != "data"]
    command.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in taken}
    study.command(kind, help=text)(clean_errors(command))


_ALPHA = "The penalty: J_alpha, KL and the map against optimal transport as alpha grows."
_add("alpha", _ALPHA, of_data=True)
_add("samples", "The sample number: the loss over N samples and its minimisers.", of_data=True)
_add("width", "The width: the loss that a class of networks reaches.", of_data=False)
_add("steps", "The time steps: integration error of rk4, none of conforming.", of_data=False)
_add("density", "The density: its integral on its way, the tails included.", of_data=False)
_add("jko", "The JKO scheme: chains of flows against the gradient flow of the KL.", of_data=False)
_add("growth", "Growth: optimal transport as delta grows, exact answers as rows do.", of_data=False)


@study.command("all")
@clean_errors
def every(
    out: Out,
    problem: Problem = "product",
    dim: Dim = 2,
    resume: Resume = False,
    retry_failed: Retry = False,
    seeds: Seeds = None,
    budget: Budget = None,
    demo: Demo = False,
    as_json: Json = False,
) -> None:
    """All studies of an exact problem, and the whole theory on one page, OUT/theory.html."""
    from otflow.report.page import write_page
    from otflow.report.theory import theory_document
    from otflow.studies.presets import KINDS, make_study
    from otflow.support.checks import check_number
    from otflow.support.extras import require

    require("plotly", "report")
    if budget is not None:
        check_number("budget", budget, positive=True)
    studies = {kind: make_study(kind, _problem(problem, dim, None), seeds, demo) for kind in KINDS}
    if not resume and (there := [kind for kind in studies if (out / kind).exists()]):
        raise FileExistsError(f"{out} holds {', '.join(there)}: go on with --resume.")
    start = time.monotonic()
    results: dict[str, Any] = {}
    for kind, planned in studies.items():
        known = resume and (out / kind).exists()
        options: dict[str, Any] = {"resume": known, "retry_failed": known and retry_failed}
        if budget is not None:
            left = budget - (time.monotonic() - start) / 60
            options["budget_minutes"] = max(left, 1e-6) / (len(studies) - len(results))
        results[kind] = _measure(planned, kind, out / kind, **options)
    write_page(theory_document(results), out / "theory.html")
    if as_json:
        told = {kind: result.to_dict() for kind, result in results.items()}
        typer.echo(json_text({"page": str(out / "theory.html"), "studies": told}))
        return
    for result in results.values():
        _print(result, False)
    typer.echo(f"{out / 'theory.html'}: all of it on one page.")


@study.command()
@clean_errors
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.")], as_json: Json = False
) -> None:
    """Print the table and the verdicts of a study, finished or not."""
    from otflow.studies.runner import load_study

    _print(load_study(folder), as_json)


def _run(
    kind: str,
    out: Path,
    problem: str,
    dim: int,
    data: Path | None,
    resume: bool,
    retry_failed: bool,
    seeds: int | None,
    budget: float | None,
    demo: bool,
    backend: str,
    address: str | None,
    cpus: int | None,
    as_json: bool,
) -> None:
    from otflow.studies.presets import make_study
    from otflow.support.files import check_apart

    check_apart({"--out": out / f"{kind}.png"}, {"--data": data})
    where = _backend(backend, address, cpus)
    study = make_study(kind, _problem(problem, dim, data), seeds, demo)
    options = {"resume": resume, "retry_failed": retry_failed, "backend": where}
    _print(_measure(study, kind, out, budget_minutes=budget, **options), as_json)


def _measure(study: Any, kind: str, out: Path, **options: Any) -> Any:
    """Run a study with a bar and draw its figure."""
    from otflow.report.study_report import draw_study
    from otflow.studies.runner import run_study

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(kind, total=None)

        def progress(done: int, total: int, unit: str, steps: int) -> None:
            text = f"{unit}, step {steps}" if steps else unit
            bar.update(task, completed=done, total=total, description=text)

        try:
            result = run_study(study, out, progress=progress, **options)
        except KeyboardInterrupt:
            fail(f"interrupted; finished cells are in {out}: continue with --resume.")
            raise typer.Exit(130) from None
    if result.rows and any(s.x for s in result.series):
        draw_study(result, out / f"{kind}.png")
    return result


def _backend(name: str, address: str | None, cpus: int | None) -> Any:
    if name not in ("local", "ray"):
        raise ValueError(f"backend: expected local or ray; got {name!r}.")
    if name == "local":
        if address is not None or cpus is not None:
            raise ValueError("address, cpus: expected with --backend ray only.")
        return None
    from otflow.studies.ray_backend import RayBackend

    return RayBackend(address, cpus)


def _problem(name: str, dim: int, data: Path | None) -> Any:
    from otflow.studies.problems import DataProblem, make_problem

    if data is None:
        return make_problem(name, dim)
    from otflow.data.preprocessing import Standardizer
    from otflow.data.tables import read_table

    values = read_table(data).values
    if len(values) < 8:
        raise ValueError(f"{data}: expected at least 8 rows; got {len(values)}.")
    return DataProblem(Standardizer.fit(values).forward(values))


def _print(result: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json_text(result.to_dict()))
        return
    console = Console()
    console.width = max(console.width, _WIDTH)
    title = f"{result.settings['kind']} study, {result.settings['problem']}"
    table = Table(title=f"{title}, d = {result.settings['dim']}")
    for column in result.columns:
        table.add_column(column.replace("_", " "), justify="right")
    for texts in result.texts():
        table.add_row(*texts)
    console.print(table)
    verdicts = Table(title="what the theory promises")
    for column in ("statement", "verdict", "evidence"):
        verdicts.add_column(column)
    colours = {"holds": "green", "violated": "red"}
    for s in result.statements:
        colour = colours.get(s.verdict, "yellow")
        verdicts.add_row(escape(s.claim), f"[{colour}]{s.verdict}[/]", escape(s.evidence))
    console.print(verdicts)
    if result.planned is not None and result.cells < result.planned:
        console.print(f"partial: {result.cells} of {result.planned} cells; go on with --resume")
    for name, error in result.failed:
        console.print(f"[red]failed:[/] {escape(name)}: {escape(error)}", highlight=False)
