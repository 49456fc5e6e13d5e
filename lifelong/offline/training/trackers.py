"""Callbacks by name: TensorBoard, MLflow, and those of other packages.

    train(callbacks="mlflow"), lifelong train --track mlflow --checked_callbacks--> names --made--> a tracker a run

Trackers write at every validation, so that curves can be watched while a run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, UsageError, require
from lifelong.offline.training.callbacks import Callback, RunInfo
from lifelong.offline.training.checkpoint import CurvePoint
from lifelong.plugins import Registry

logger: logging.Logger = logging.getLogger(__name__)
_EXAMPLE = 'callbacks=["tensorboard", Watch()], where Watch is a subclass of lifelong.Callback'
_CALLBACK = "a subclass of lifelong.Callback, or a function without arguments that gives a Callback"

AnyCallbacks = Callback | str | Sequence[Callback | str]


def checked_callbacks(callbacks: AnyCallbacks) -> tuple[Callback | str, ...]:
    """Callbacks and names of `TRACKERS`, as a tuple.

    Each named one is made once, so that what it needs is missed before the first of many trainings.

    Raises:
        UsageError: one is neither, or a name stands for something else.
        MissingExtraError: a tracker is not installed.

    >>> checked_callbacks([Callback()]) == checked_callbacks("nothing")
    Traceback (most recent call last):
    lifelong.errors.UsageError: the callback 'nothing'. Expected: a lifelong.Callback, or one of tensorboard, mlflow. \
To do: callbacks=["tensorboard", Watch()], where Watch is a subclass of lifelong.Callback.
    """
    given = (callbacks,) if isinstance(callbacks, str | Callback) else callbacks
    if not isinstance(given, Sequence):
        raise UsageError(f"callbacks of type {type(callbacks).__name__}", expected=_expected(), fix=_EXAMPLE)
    for one in given:
        if not (isinstance(one, Callback) or (isinstance(one, str) and one in TRACKERS)):
            raise UsageError(f"the callback {one!r}", expected=_expected(), fix=_EXAMPLE)
    made(given)
    return tuple(given)


def made(callbacks: Sequence[Callback | str]) -> list[Callback]:
    """Callbacks, with new ones in the places of their names.

    Raises:
        UsageError: a name stands for something else.
        MissingExtraError: a tracker is not installed.
    """
    return [_made(one) if isinstance(one, str) else one for one in callbacks]


def _made(name: str) -> Callback:
    part: Any = TRACKERS[name]
    found = part() if callable(part) else part
    if not isinstance(found, Callback):
        raise UsageError(
            f"{name!r} gives an object of type {type(found).__name__}",
            expected=_CALLBACK,
            fix="return Watch() from it, where Watch is a subclass of lifelong.Callback",
        )
    return found


def _expected() -> str:
    return f"a lifelong.Callback, or one of {', '.join(TRACKERS)}"


def _numbers(point: CurvePoint) -> dict[str, float]:
    """What trackers write of a validation."""
    found = {"validation/auc": point.auc, "validation/log_loss": point.log_loss}
    if point.train_loss is not None:
        found["train/loss"] = point.train_loss
    return found | {
        f"validation/{task}/{name}": value for task, measured in point.tasks.items() for name, value in measured.items()
    }


class TensorBoard(Callback):
    """Curves for TensorBoard, in `<artifact>.tensorboard`; its x axis is labelled examples.

    Args:
        folder: of event files instead; each run has a folder in it.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        require("tensorboard", extra="tensorboard", purpose="writing for TensorBoard")
        self._folder = folder
        self._writer: Any = None

    def begun(self, run: RunInfo) -> None:
        """Open the file, and write the settings."""
        from torch.utils.tensorboard import SummaryWriter

        usual = run.folder.with_name(f"{run.folder.name}.tensorboard")
        self._writer = SummaryWriter(str(usual if self._folder is None else Path(self._folder) / run.name))
        lines = [f"    {name} = {value!r}" for name, value in run.settings.items()]
        self._writer.add_text("settings", "\n".join([run.model, "", *lines]))

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """Write the validation, and flush it."""
        for name, value in _numbers(point).items():
            self._writer.add_scalar(name, value, point.examples)
        self._writer.flush()

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """Close the file."""
        self._writer.close()


class MlFlow(Callback):
    """A run of MLflow for each training, in the experiment and at the tracking server that MLflow is set to.

    Inside a run that is active already it is a nested one. A run cannot begin where MLflow cannot be used; one that has
    begun does not end because MLflow fails, as hours of training are worth more than their curve.

    Raises:
        LifelongError: MLflow cannot use its tracking server or database.
    """

    def __init__(self) -> None:
        self._mlflow = require("mlflow", extra="mlflow", purpose="tracking with MLflow")
        try:
            self._client = self._mlflow.MlflowClient()
            # Also makes the tables of a new database, before several processes do so at once.
            self._client.search_experiments(max_results=1)
        except Exception as error:
            raise LifelongError(
                f"MLflow cannot use {self._mlflow.get_tracking_uri()}: {error}",
                expected="a tracking server that answers, or a database that MLflow can open",
                fix="set MLFLOW_TRACKING_URI, as in http://127.0.0.1:5000; sqlite:///mlflow.db needs `pip install "
                "sqlalchemy alembic`",
            ) from error

    def begun(self, run: RunInfo) -> None:
        """Start the run, with all settings."""
        active = self._mlflow.active_run()
        experiment = self._mlflow.tracking.fluent._get_experiment_id() if active is None else active.info.experiment_id
        tags = {"lifelong.model": run.model, "mlflow.source.name": "lifelong"}
        tags |= {} if active is None else {"mlflow.parentRunId": active.info.run_id}
        self._id: str = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        for name, value in {"model": run.model, "folder": run.folder, **run.settings}.items():
            self._client.log_param(self._id, name, str(value)[:500])

    def validated(self, point: CurvePoint, *, best: bool) -> None:
        """Log the validation."""
        self._log(_numbers(point), point.examples)

    def ended(self, measured: Mapping[str, float] | None) -> None:
        """Log what was measured, and end the run."""
        self._log({f"final/{name}": value for name, value in (measured or {}).items()}, 0)
        with _warned():
            self._client.set_terminated(self._id, "FAILED" if measured is None else "FINISHED")

    def _log(self, values: Mapping[str, float], examples: int) -> None:
        now = int(1000 * time.time())
        with _warned():
            metrics = [self._mlflow.entities.Metric(name, value, now, examples) for name, value in values.items()]
            self._client.log_batch(self._id, metrics=metrics)


@contextmanager
def _warned() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("MLflow: numbers are not written: %s", error)


TRACKERS: Registry[Callable[[], Callback]] = Registry("callbacks", {"tensorboard": TensorBoard, "mlflow": MlFlow})
"""Name -> what makes the callback; also those of other packages, see `lifelong.plugins`."""
