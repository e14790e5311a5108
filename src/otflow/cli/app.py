"""The command line: `otflow` and `python -m otflow`."""

import warnings
from typing import Any

import typer

import otflow
from otflow.cli.between import between
from otflow.cli.certify import certify
from otflow.cli.demo import demo
from otflow.cli.doctor import doctor
from otflow.cli.environment import prepare_environment
from otflow.cli.export import export
from otflow.cli.fit import fit
from otflow.cli.info import info
from otflow.cli.report import report
from otflow.cli.sample import sample
from otflow.cli.score import score
from otflow.cli.study import study

app = typer.Typer(
    name="otflow",
    help="OT-Flow with proof: train, score and sample optimal-transport normalizing flows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(between)
app.command()(certify)
app.command()(demo)
app.command()(doctor)
app.command()(export)
app.command()(fit)
app.command()(info)
app.command()(report)
app.command()(sample)
app.command()(score)
app.add_typer(study, name="study")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otflow {otflow.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    prepare_environment()
    warnings.showwarning = _show
    app()


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in the library that it came from."""
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)
