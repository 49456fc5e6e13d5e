"""The record of one evaluation: what was measured, on which examples, and how certain it is. Written as JSON."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from lifelong.atomic import replace_text
from lifelong.config import Record
from lifelong.dataset.examples import Split
from lifelong.dataset.folder import NegativeRule
from lifelong.dataset.times import UNITS
from lifelong.dtypes import FloatArray
from lifelong.errors import DataError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.significance import interval
from lifelong.tables import frame_of, html_table

FORMAT_VERSION = 1
Kind = Literal["score", "probability"]
_PACKAGES = ("lifelong", "numpy", "scipy", "torch", "onnxruntime", "duckdb", "lightgbm")


class RecordFile(Record):
    """A record with a file of its own."""

    _what: ClassVar[str]
    _made_by: ClassVar[str]

    def save(self, path: Path) -> None:
        """Write JSON; numbers are kept exactly."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} is not a {cls._what}: {error}", fix=f"run `{cls._made_by}` again") from error


class Estimate(Record):
    """A metric with its 95 % bootstrap interval over users; where it is not defined, `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class SliceResult(Record):
    """The metrics of some of the examples."""

    name: str
    examples: int
    positives: int
    users: int
    metrics: dict[str, Estimate]


class DelayResult(Record):
    """The metrics when events younger than `delay` seconds are not yet in the memory."""

    delay: int
    metrics: dict[str, Estimate]


class RankingPart(Record):
    """How well the items of baskets are found among all items: those of one part (`all`, `repeat`, `explore`)."""

    name: str
    baskets: int
    """Baskets that hold such an item."""
    targets: int
    metrics: dict[str, Estimate]
    """`recall@K`, `ndcg@K` and `mrr@K`: means over the baskets."""


class RankingResult(Record):
    """A ranking of the whole catalogue for the baskets of some users; see `lifelong.offline.evaluation.ranking`."""

    items: int
    """Items of the catalogue."""
    users: int
    users_in_split: int
    """Users with a basket in the split; `users` of them were drawn."""
    popular: int | None = None
    """How many of the most popular items were ranked, next to those that the user had before; null: all items."""
    cutoffs: list[int]
    parts: list[RankingPart]
    seed: int
    """Of the choice of users, and of the order of items with equal scores."""
    seconds: float
    by_popularity: bool = False
    """Whether scores were made comparable over the catalogue by how often each item is drawn as a negative."""
    by_counts: bool = False
    """Whether that and counts of each item's values were added with the weights of the artifact."""


class Counts(Record):
    """What was scored, and what GAUC leaves out."""

    examples: int
    positives: int
    users: int
    one_class_users: int
    one_class_examples: int

    @property
    def one_class_share(self) -> float:
        """Share of users without both classes, about whom GAUC says nothing."""
        return self.one_class_users / self.users if self.users else 0.0


class Result(RecordFile):
    """One model on one split of one dataset.

    `kind` says what a model's numbers mean: "score" where negatives were sampled (then log loss and calibration refer
    to the sampled mixture, not to a response rate), "probability" where labels are logged.
    """

    _what: ClassVar = "result record"
    _made_by: ClassVar = "lifelong evaluate"

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
    """Seconds: events younger than this are hidden from the model."""
    metrics: dict[str, Estimate]
    """Metrics of the raw logits."""
    calibrated: dict[str, Estimate] | None = None
    """Metrics of the logits after the artifact's calibrator, at the sampled base rate."""
    slices: list[SliceResult]
    """By number of events before the target; half-open bounds."""
    repeats: list[SliceResult]
    """`repeat` and `explore`: targets whose item the user had before, and others."""
    unseen: SliceResult
    """Targets with an item that was not known in training."""
    delays: list[DelayResult] = Field(default=[])
    other_tasks: dict[str, dict[str, Estimate]] = Field(default={})
    counts: Counts
    resamples: int
    seed: int
    seconds: float
    """Wall time of scoring."""
    peak_memory: int
    """Bytes; the largest resident size of the process so far."""
    versions: dict[str, str]
    config: dict[str, Any] = Field(default={})
    """Settings of the training run."""
    ranking: RankingResult | None = None
    """The ranks of baskets' items among all items, if that was asked for."""
    in_sample: bool | None = None
    """Whether the model was trained or selected on the period of these examples; None where that is not known."""
    in_sample_note: str = ""
    """Why, in words."""

    def __repr__(self) -> str:
        return f"Result({self.title} on {self.split} of {self.dataset}: {in_short(self.metrics)})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """Its metrics, as notebooks show them."""
        rows = [[name, *shown(measured)] for name, measured in self.metrics.items()]
        return html_table(["metric", "value", "95 % interval"], rows, caption=f"{self.title} on {self.split}")

    def to_frame(self) -> Any:
        """All metrics as a `pandas.DataFrame`: part, metric, value, low, high (a 95 % interval), reason.

        The parts are `all`, `calibrated`, `length <bounds>`, `repeat`, `explore` and `unseen` items, `delay
        <duration>` and `task <name>`. A metric that is not defined has no value but a reason.
        """
        parts: dict[str, Mapping[str, Estimate]] = {"all": self.metrics, "calibrated": self.calibrated or {}}
        parts |= {f"length {measured.name}": measured.metrics for measured in self.slices}
        parts |= {measured.name: measured.metrics for measured in (*self.repeats, self.unseen)}
        parts |= {f"delay {format_duration(measured.delay)}": measured.metrics for measured in self.delays}
        parts |= {f"task {task}": found for task, found in self.other_tasks.items()}
        rows = (
            {"part": part, "metric": metric, **estimate.model_dump()}
            for part, found in parts.items()
            for metric, estimate in found.items()
        )
        return frame_of(rows, ("part", "metric", "value", "low", "high", "reason"))


def in_short(metrics: Mapping[str, Estimate]) -> str:
    """AUC and log loss in words.

    >>> in_short({"auc": Estimate(value=0.75, low=0.7, high=0.8)})
    'auc 0.7500 (0.7000 to 0.8000)'
    """
    reported = {name: metrics[name] for name in ("auc", "log_loss") if name in metrics}
    return ", ".join(
        f"{name} {value} ({interval})"
        for name, (value, interval) in zip(reported, map(shown, reported.values()), strict=True)
    )


def shown(found: Estimate) -> tuple[str, str]:
    """A value and its interval in words."""
    if found.value is None:
        return "-", found.reason or ""
    interval = "" if found.low is None or found.high is None else f"{found.low:.4f} to {found.high:.4f}"
    return f"{found.value:.4f}", interval


class Measured(Protocol):
    """Something with metrics."""

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Name -> value."""


M = TypeVar("M", bound=Measured)


def value_of(of: Measured, metric: str = "auc") -> float | None:
    """A metric's value, None where it was not measured or is not defined."""
    return of.metrics[metric].value if metric in of.metrics else None


def best_first(measured: Iterable[M], metric: str = "auc") -> list[M]:
    """By a metric that is better the higher it is; those without a value come last."""
    return sorted(measured, key=lambda of: -value if (value := value_of(of, metric)) is not None else math.inf)


def readable_duration(seconds: float) -> str:
    """Seconds, minutes or hours as people read them.

    >>> readable_duration(8.2), readable_duration(300), readable_duration(750), readable_duration(9000)
    ('8.2 s', '5 min', '12.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    number, unit = (seconds / 60, "min") if seconds < 3600 else (seconds / 3600, "h")
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads as these seconds.

    >>> format_duration(7200)
    '2h'
    """
    unit = next((name for name in "dhm" if seconds and seconds % UNITS[name] == 0), "s")
    return f"{seconds // UNITS[unit]}{unit}"


def estimate(name: str, value: float, drawn: FloatArray, sample: Sample) -> Estimate:
    """Point estimate and interval of one metric of a sample."""
    if math.isnan(value):
        return Estimate(value=None, reason=metrics.undefined_reason(name, sample) or "not defined on these examples")
    # Few seeds widen the interval, perhaps beyond what the metric can be.
    least, most = metrics.RANGES.get(name, (-math.inf, math.inf))
    low, high = np.clip(interval(drawn), least, most).tolist()
    return Estimate(value=value, low=defined(low), high=defined(high))


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
        metrics=estimates(sample, drawn, metrics.metric_names()),
    )


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return size if sys.platform == "darwin" else size * 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    version_of = {"python": platform.python_version()}
    for package in _PACKAGES:
        # Packages of extras may be missing, and then no number depends on them.
        with suppress(importlib.metadata.PackageNotFoundError):
            version_of[package] = importlib.metadata.version(package)
    return version_of


def defined(value: float) -> float | None:
    """NaN as None, which JSON can write."""
    return None if math.isnan(value) else value
