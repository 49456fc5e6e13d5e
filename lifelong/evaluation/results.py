"""The record of one evaluation: what was measured, on what, how, and how sure it is. JSON in and out."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lifelong.data.dataset import NegativeRule
from lifelong.data.examples import Split
from lifelong.errors import DataError, UsageError
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import FloatArray, Sample
from lifelong.evaluation.significance import interval

FORMAT_VERSION = 1
Kind = Literal["score", "probability"]
_PACKAGES = ("lifelong", "numpy", "scipy", "torch", "lightning", "onnxruntime", "duckdb", "lightgbm")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Record):
    """A metric with its 95 % bootstrap interval over users; `value` is None where it is not defined, `reason` why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class SliceResult(_Record):
    """The metrics of some of the examples."""

    name: str
    examples: int
    positives: int
    users: int
    metrics: dict[str, Estimate]


class DelayResult(_Record):
    """The metrics when events younger than `delay` seconds are not yet in the memory."""

    delay: int
    metrics: dict[str, Estimate]


class Counts(_Record):
    """What was scored, and what grouped AUC had to leave out."""

    examples: int
    positives: int
    users: int
    one_class_users: int
    one_class_examples: int

    @property
    def one_class_share(self) -> float:
        """Share of users without both classes; GAUC says nothing of them."""
        return self.one_class_users / self.users if self.users else 0.0


class Result(_Record):
    """One model on one split of one dataset.

    `kind` says what the numbers are: "score" where negatives were sampled (log loss and calibration then refer to the
    sampled mixture, not to a rate of response), "probability" where labels are logged.
    """

    format_version: int = FORMAT_VERSION
    model: str
    title: str
    artifact_id: str | None
    data_hash: str
    dataset: str
    protocol: str
    negatives: NegativeRule
    split: Split
    task: str
    kind: Kind
    delay: int
    """Seconds; the youngest events hidden from the model."""
    metrics: dict[str, Estimate]
    """Of the raw logits."""
    calibrated: dict[str, Estimate] | None = None
    """Of the logits after the artifact's calibrator, at the sampled base rate."""
    slices: list[SliceResult]
    """By number of events before the target; half-open bounds."""
    unseen: SliceResult
    """Targets whose item was not known in training."""
    delays: list[DelayResult] = []
    other_tasks: dict[str, dict[str, Estimate]] = {}
    graded: dict[str, Estimate] = {}
    """Of the expected rating, where all steps of one are tasks; see `lifelong.evaluation.graded`."""
    counts: Counts
    resamples: int
    seed: int
    seconds: float
    """Wall time of scoring."""
    peak_memory: int
    """Bytes; the largest resident size of the process so far."""
    versions: dict[str, str]
    config: dict[str, Any] = {}
    """Settings of the training run."""

    def save(self, path: Path) -> None:
        """Write JSON; numbers are kept exactly."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} is not a result record: {error}", fix="run `lifelong evaluate` anew") from error


def parse_duration(text: str) -> int:
    """Seconds of "0s", "1m", "1h", "1d" or a plain number.

    Raises:
        UsageError: it is something else.
    """
    match = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration", expected="a number with s, m, h or d, such as 0s, 1m, 1h or 1d")
    return int(match[1]) * _UNITS[match[2] or "s"]


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads as these seconds."""
    unit = next((name for name in "dhm" if seconds and seconds % _UNITS[name] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def estimate(name: str, value: float, drawn: FloatArray, sample: Sample) -> Estimate:
    """Point estimate and interval of one metric of a sample."""
    if math.isnan(value):
        return Estimate(value=None, reason=metrics.undefined_reason(name, sample) or "not defined on these examples")
    low, high = interval(drawn)
    return Estimate(value=value, low=_number(low), high=_number(high))


def estimates(sample: Sample, drawn: Mapping[str, FloatArray], names: Sequence[str]) -> dict[str, Estimate]:
    """The named metrics of a sample, with intervals from its resampled values."""
    values = metrics.all_metrics(sample)
    return {name: estimate(name, values[name], drawn[name], sample) for name in names}


def slice_result(name: str, sample: Sample, drawn: Mapping[str, FloatArray]) -> SliceResult:
    """The record of some of the examples."""
    return SliceResult(
        name=name,
        examples=len(sample),
        positives=int(sample.positive.sum()),
        users=sample.users,
        metrics=estimates(sample, drawn, metrics.METRICS),
    )


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return size if sys.platform == "darwin" else size * 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
