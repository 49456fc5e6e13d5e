"""What is called while a training runs: callbacks of your own, TensorBoard and MLflow.

    Loop --every batch--> stepped     --every validation--> validated     before and after: begun, ended

A tracker writes at every validation, so that curves can be watched while a run goes on.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import UsageError, require
from lifelong.training.checkpoint import CurvePoint

logger = logging.getLogger(__name__)
_EVERY = 1.0
"""Seconds between two losses of batches that trackers write."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A training that begins.

    Args:
        name: of the run: its folder's.
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


AnyCallbacks = Callback | str | Sequence[Callback | str]


def checked_callbacks(callbacks: AnyCallbacks) -> tuple[Callback | str, ...]:
    """Callbacks and names of trackers, as a tuple.

    Raises:
        UsageError: one is neither.

    >>> checked_callbacks("tensorboard")
    ('tensorboard',)
    """
    given = (callbacks,) if isinstance(callbacks, str | Callback) else callbacks
    if not isinstance(given, Sequence):
        raise UsageError(f"callbacks of type {type(callbacks).__name__}", expected=_EXPECTED)
    for one in given:
        if not (isinstance(one, Callback) or (isinstance(one, str) and one in TRACKERS)):
            raise UsageError(f"the callback {one!r}", expected=_EXPECTED)
    return tuple(given)


def made(callbacks: Sequence[Callback | str]) -> list[Callback]:
    """Callbacks, with new trackers in the places of their names.

    Raises:
        MissingExtraError: a tracker is not installed.
    """
    return [TRACKERS[one]() if isinstance(one, str) else one for one in callbacks]


class Callbacks(Callback):
    """Several callbacks as one; those that have begun hear of the end once, however it comes."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks, self._open = list(callbacks), list[Callback]()

    def begun(self, run: RunInfo) -> None:
        """A run begins."""
        for one in self._callbacks:
            self._open.append(one)
            one.begun(run)

    def stepped(self, examples: int, speed: float, loss: float) -> None:
        """A batch was trained on."""
        for one in self._callbacks:
            one.stepped(examples, speed, loss)

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """A validation."""
        for one in self._callbacks:
            one.validated(point, best=best)

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """The run has ended."""
        while self._open:
            self._open.pop(0).ended(measured)

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended(None)


class _Tracker(Callback, ABC):
    """Writes numbers under names: losses of batches at most once a second, validations at once."""

    def __init__(self) -> None:
        self._last = 0.0

    def stepped(self, examples: int, speed: float, loss: float) -> None:
        """Write the loss, if a second has passed."""
        if (now := time.monotonic()) - self._last >= _EVERY:
            self._last = now
            self.write({"train/loss": loss, "train/examples_per_second": speed}, examples)

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """Write the validation."""
        found = {"validation/auc": point.auc, "validation/log_loss": point.log_loss}
        if point.train_loss is not None:
            found["train/loss"] = point.train_loss
        for task, measured in point.tasks.items():
            found |= {f"validation/{task}/{name}": value for name, value in measured.items()}
        self.write(found, point.examples)

    @abstractmethod
    def write(self, values: Mapping[str, float], examples: int) -> None:
        """Write numbers at this number of labelled examples."""


class TensorBoard(_Tracker):
    """Curves for TensorBoard, in `<artifact>.tensorboard`; its x axis is labelled examples.

    Args:
        folder: of event files instead; each run has a folder in it.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        super().__init__()
        require("tensorboard", extra="tensorboard", purpose="writing for TensorBoard")
        self._folder = None if folder is None else Path(folder)
        self._writer: Any = None

    def begun(self, run: RunInfo) -> None:
        """Open the file."""
        from torch.utils.tensorboard import SummaryWriter

        usual = run.folder.with_name(f"{run.folder.name}.tensorboard")
        self._writer = SummaryWriter(str(usual if self._folder is None else self._folder / run.name))
        lines = [f"    {name} = {value!r}" for name, value in run.settings.items()]
        self._writer.add_text("settings", "\n".join([f"{run.model}", "", *lines]))

    def write(self, values: Mapping[str, float], examples: int) -> None:
        """Write numbers, and flush them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, examples)
        self._writer.flush()

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """Close the file."""
        self._writer.close()


class MlFlow(_Tracker):
    """A run of MLflow per training, in the experiment and at the tracking server that MLflow is set to.

    Inside a run that is active already it is a nested one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mlflow = require("mlflow", extra="mlflow", purpose="tracking with MLflow")
        self._id = ""

    def begun(self, run: RunInfo) -> None:
        """Start the run, with all settings."""
        client, active = self._mlflow.MlflowClient(), self._mlflow.active_run()
        experiment = self._mlflow.tracking.fluent._get_experiment_id() if active is None else active.info.experiment_id
        tags = {"lifelong.model": run.model, "mlflow.source.name": "lifelong"}
        if active is not None:
            tags["mlflow.parentRunId"] = active.info.run_id
        self._id = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        for name, value in run.settings.items():
            client.log_param(self._id, name, str(value)[:500])
        client.log_param(self._id, "model", run.model)

    def write(self, values: Mapping[str, float], examples: int) -> None:
        """Log numbers."""
        client = self._mlflow.MlflowClient()
        for name, value in values.items():
            client.log_metric(self._id, name, value, step=examples)

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """Log what was measured, and end the run."""
        client = self._mlflow.MlflowClient()
        for name, value in (measured or {}).items():
            client.log_metric(self._id, f"final/{name}", value)
        client.set_terminated(self._id, "FAILED" if measured is None else "FINISHED")


TRACKERS: Mapping[str, Callable[[], Callback]] = {"tensorboard": TensorBoard, "mlflow": MlFlow}
"""Name -> what makes the tracker."""
_EXPECTED = f"a lifelong.Callback, or one of {', '.join(map(repr, TRACKERS))}"
