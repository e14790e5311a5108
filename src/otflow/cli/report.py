"""`otflow report`: a page of pictures and numbers from a model file or a study's folder."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def report(
    target: Annotated[
        Path, typer.Argument(metavar="MODEL_OR_STUDY", help="Model file, or folder of a study.")
    ],
    data: Annotated[
        Path | None,
        typer.Argument(help="Table the model was not trained on; of a study of data, its table."),
    ] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Also draw every plot as a PDF into this folder.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Rows are grey images of HEIGHTxWIDTH pixels, as 8x8.")
    ] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Certify MODEL on DATA (about a minute).")
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="What `otflow certify --json` printed, in a file.")
    ] = None,
    truth: Annotated[
        float | None, typer.Option(help="1/2 W2^2 where it is known, for the certificate.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time that --certify may fit for.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write one HTML file that opens offline: what was trained or studied, and how good it is."""
    from otflow.report.page import write_page
    from otflow.studies.store import study_files
    from otflow.support.extras import require
    from otflow.support.files import check_apart, check_writable

    start = time.perf_counter()
    require("plotly", "report")
    if figures is not None:
        require("matplotlib", "report")
    check_writable(out)
    pictures = None if figures is None else list(figures.glob("*.pdf"))
    read = study_files(target) if target.is_dir() else target
    inputs = {"MODEL_OR_STUDY": read, "DATA": data, "--certificate": certificate}
    check_apart({"--out": out, "--figures": pictures}, inputs)
    options = {"image": image, "certificate": certificate, "truth": truth}
    if target.is_dir():
        given = [name for name, value in options.items() if value is not None]
        if given or certify:
            names = ", ".join(f"--{name}" for name in [*given, *["certify"] * certify])
            raise ValueError(f"{names}: expected with a model; {target} is a folder.")
        document = _study(target, data, seed)
    else:
        document = _model(target, data, options, certify, seconds, seed)
    write_page(document, out)
    if figures is not None:
        from otflow.report.figures import save_figures

        save_figures(document, figures)
    size, took = out.stat().st_size, time.perf_counter() - start
    if as_json:
        typer.echo(json_text({"out": str(out), "bytes": size, "seconds": took}))
    else:
        also = "" if figures is None else f", figures in {figures}"
        typer.echo(f"{out}: {size / 1e6:.1f} MB, {took:.0f} s{also}.")


def _study(folder: Path, data: Path | None, seed: int) -> Any:
    from otflow.cli.tables import read_input
    from otflow.report.study_report import study_document

    X = None if data is None else read_input(data).values
    return study_document(folder, X, name=folder.resolve().name, seed=seed)


def _model(
    path: Path,
    data: Path | None,
    options: dict[str, Any],
    certify: bool,
    seconds: float,
    seed: int,
) -> Any:
    from otflow.certificates import certify_model
    from otflow.cli.tables import matching, read_input
    from otflow.data.tabular import check_data
    from otflow.estimator.loading import load
    from otflow.model.modelfile import read_model_header
    from otflow.report.model_report import model_document

    if certify and (data is None or options["certificate"] is not None):
        raise ValueError("--certify: expected with DATA and without --certificate.")
    image, certificate = _image(options["image"]), _certificate(options["certificate"])
    model = load(path)
    rows = None
    if data is not None:
        rows = matching(model, read_input(data, flow=model))
    if certify:
        certificate = certify_model(model, check_data(model, rows), seconds=seconds, seed=seed)
    return model_document(
        model,
        rows,
        name=path.name,
        data_name="the data" if data is None else data.name,
        versions=read_model_header(path).document.get("versions"),
        certificate=certificate,
        truth=options["truth"],
        image=image,
        seed=seed,
    )


def _image(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ValueError(f"--image: expected HEIGHTxWIDTH, as 8x8; got {text!r}.") from error
    return height, width


def _certificate(path: Path | None) -> Any:
    from otflow.certificates import Certificate

    if path is None:
        return None
    try:
        return Certificate.from_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: not a certificate that otflow wrote ({error}).") from error
