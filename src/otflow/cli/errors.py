"""Errors a user can mend become one line on standard error and exit code 2."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")
_EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)


def clean_errors(command: Callable[P, R]) -> Callable[P, R]:
    """The command with expected errors reported in one line (exit 2), Ctrl-C as exit 130."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # the reader of our output has left: the shell's business
            raise
        except _EXPECTED as error:
            fail(str(error))
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            fail("interrupted.")
            raise typer.Exit(130) from error

    return wrapped


def fail(message: str) -> None:
    """Print one error line to standard error."""
    message = " ".join(message.split())
    Console(stderr=True, highlight=False).print("[bold red]error:[/]", end=" ")
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(message)


def how_to_go_on(checkpoint: Path | None) -> str:
    """What to do when training was stopped."""
    if checkpoint is None:
        return "With --checkpoint FILE a run can be gone on with."
    return f"Go on with the same command and --resume (the state is in {checkpoint})."
