"""What a person sees on stderr while a model is trained: a progress bar, and one line per validation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.checkpoint import CurvePoint

logger: logging.Logger = logging.getLogger(__name__)


def say_to(enabled: bool | Callable[[str], None], message: str, console: Console | None = None) -> None:
    """Log one line, and print it on stderr or give it to a function; see `Display`."""
    logger.info(message)
    if callable(enabled):
        enabled(message)
    elif enabled:
        (console or Console(stderr=True, soft_wrap=True)).print(message, markup=False, highlight=False)


class Display:
    """A progress bar with speed, time left, loss and the last validation; only log lines where it is switched off.

    Args:
        total: the largest number of examples of the run.
        enabled: False only logs; a function takes the lines instead of stderr.
        callback: called for every batch and validation.
    """

    def __init__(self, total: int, *, enabled: bool | Callable[[str], None], callback: Callback | None = None) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % at most"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]} {task.fields[loss]} {task.fields[validation]}"),
            console=self._console,
            disable=not (enabled is True and self._console.is_terminal),
        )
        self._enabled, self._callback = enabled, callback
        self._task = self._bar.add_task("training", total=total, speed="", loss="", validation="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # rich before 14.3 ends a bar that was never shown with an empty line.
        if not self._bar.disable:
            self._bar.stop()

    def step(self, examples: int, speed: float, loss: float) -> None:
        """Show the state after a batch: examples so far, examples per second, mean loss since the last validation."""
        self._update(completed=examples, speed=f"{speed:,.0f} examples/s", loss=f"loss {loss:.4f}")
        if self._callback is not None:
            self._callback.stepped(examples, speed, loss)

    def stage(self, name: str) -> None:
        """Show what is being done now."""
        self._update(description=name)

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """Show the outcome of a validation."""
        self._update(validation=f"validation AUC {point.auc:.4f}")
        if self._callback is not None:
            self._callback.validated(point, best=best)
        loss = "before training" if point.train_loss is None else f"loss {point.train_loss:.4f}"
        self.say(
            f"{point.examples:>12,} examples  {point.seconds:7.1f} s  {loss}  "
            f"validation: AUC {point.auc:.4f}  log loss {point.log_loss:.4f}{'  best' if best else ''}"
        )

    def say(self, message: str) -> None:
        """Print and log one line."""
        say_to(self._enabled, message, self._console)

    def _update(self, **changes: Any) -> None:
        self._bar.update(self._task, **changes)
