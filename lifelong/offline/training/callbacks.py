"""What is called while a training runs.

Loop --every batch--> stepped     --every validation--> validated     before and after: begun, ended
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import UsageError
from lifelong.offline.training.checkpoint import CurvePoint


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A training that begins.

    Args:
        name: of the run: its folder's, as in `hpmn-seed0` of a comparison and `tuned-trial1` of a search.
        model: name.
        folder: where its artifact will be, or of a trial its curve.
        settings: `train.x` or `model.x` -> value.
    """

    name: str
    model: str
    folder: Path
    settings: Mapping[str, Any]


class Callback:
    """Called while a model is trained, in the process that trains it; override what you need.

    An error in a callback ends the run. With several processes for one model, only the first one calls.
    """

    def begun(self, run: RunInfo) -> None:
        """A run begins, or goes on after an interruption."""

    def stepped(self, examples: int, speed: float, loss: float) -> None:
        """A batch was trained on: examples so far, examples per second, mean loss since the last validation."""

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """A validation; `best` says whether its weights are kept."""

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """The run has ended, with its metrics on validation; None if it failed or was interrupted."""


AnyCallbacks = Callback | Sequence[Callback]


def as_callbacks(callbacks: AnyCallbacks) -> tuple[Callback, ...]:
    """One callback or several, as a tuple.

    Raises:
        UsageError: one is something else.
    """
    given = (callbacks,) if isinstance(callbacks, Callback) else callbacks
    if not isinstance(given, list | tuple) or not all(isinstance(callback, Callback) for callback in given):
        raise UsageError(
            f"callbacks = {callbacks!r}",
            expected="objects of subclasses of lifelong.Callback",
            fix="callbacks=Watch(), where Watch is a subclass of lifelong.Callback",
        )
    return tuple(given)


class Callbacks(Callback):
    """Several callbacks as one; those that have begun hear of the end once, however it comes."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks, self._open = list(callbacks), list[Callback]()

    def begun(self, run: RunInfo) -> None:
        """A run begins."""
        for callback in self._callbacks:
            self._open.append(callback)
            callback.begun(run)

    def stepped(self, examples: int, speed: float, loss: float) -> None:
        """A batch was trained on."""
        for callback in self._callbacks:
            callback.stepped(examples, speed, loss)

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """A validation."""
        for callback in self._callbacks:
            callback.validated(point, best=best)

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """The run has ended."""
        while self._open:
            self._open.pop(0).ended(measured)

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended(None)
