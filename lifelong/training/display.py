"""What a person sees while a model is trained: one bar, and one line per validation. On stderr."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lifelong.training.checkpoint import CurvePoint

logger = logging.getLogger(__name__)


class Display:
    """A progress bar with speed, time left, loss and the last validation; a log line where it is switched off.

    Args:
        total: examples until the run ends at the latest.
        enabled: False = only log.
    """

    def __init__(self, total: int, *, enabled: bool) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % at most"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]} {task.fields[loss]} {task.fields[validation]}"),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._enabled = enabled
        self._task = self._bar.add_task("training", total=total, speed="", loss="", validation="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, examples: int, speed: float, loss: float) -> None:
        """After a batch: examples so far, examples per second, mean loss since the last validation."""
        self._update(completed=examples, speed=f"{speed:,.0f} examples/s", loss=f"loss {loss:.4f}")

    def stage(self, name: str) -> None:
        """What is going on now."""
        self._update(description=name)

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """After a validation."""
        self._update(validation=f"validation AUC {point.auc:.4f}")
        loss = "before training" if point.train_loss is None else f"loss {point.train_loss:.4f}"
        self.say(
            f"{point.examples:>12,} examples  {point.seconds:7.1f} s  {loss}  "
            f"validation: AUC {point.auc:.4f}  log loss {point.log_loss:.4f}{'  best' if best else ''}"
        )

    def say(self, message: str) -> None:
        """One line."""
        logger.info(message)
        if self._enabled:
            self._console.print(message, markup=False, highlight=False)

    def _update(self, **changes: Any) -> None:
        self._bar.update(self._task, **changes)
