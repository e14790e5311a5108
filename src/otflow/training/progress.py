"""A progress bar with the three costs; silent when nobody is looking."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from otflow.flow.objective import Costs


class TrainingProgress:
    """A Rich bar on standard error while training; does nothing where that is no terminal.

    Args:
        total: steps in all.
        show: False silences it in any case.
        name: what is going on.
    """

    def __init__(self, total: int, show: bool = True, name: str = "training"):
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[costs]}"),
            console=console,
            disable=not (show and console.is_terminal),
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total, costs="")

    def update(self, iteration: int, costs: Costs) -> None:
        """Move to an iteration and show its validation costs."""
        text = "  ".join(f"{name} {float(cost):.3f}" for name, cost in costs.named().items())
        self._bar.update(self._task, completed=iteration, costs=text)

    def advance_to(self, iteration: int) -> None:
        """Move to an iteration that has no costs."""
        self._bar.update(self._task, completed=iteration)

    def __enter__(self) -> "TrainingProgress":
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, value, traceback)
