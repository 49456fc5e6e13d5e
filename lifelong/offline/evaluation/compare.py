"""Several models, several seeds, one split: who is better, by how much, and how sure that is.

A model's value is the mean over its seeds; its interval and the p-value of a difference come from a paired bootstrap
over users and seeds: other users and another training would both have given other figures. The spread over seeds is
given as well. Fewer than three seeds carry no claim (`cautions`).

    Runs of each model (`lifelong.offline.training.runs`) --compare--> rows --> Comparison, in OUT/comparison.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lifelong.config import Record
from lifelong.dtypes import FloatArray
from lifelong.errors import DataError, UsageError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.results import Estimate, RecordFile, Result, defined, estimate, in_short, shown
from lifelong.offline.evaluation.significance import (
    LEAST_SEEDS,
    RESAMPLES,
    bootstrap,
    detectable,
    family_p_values,
    interval,
    over_seeds,
    p_value,
    paper_tests,
)
from lifelong.tables import frame_of, html_table

FORMAT_VERSION = 1


class DifferenceEstimate(Record):
    """A metric minus the reference's, with 95 % interval and two-sided p-value; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    family_p: float | None = None
    """The p-value corrected for the number of models that are compared with the reference."""
    detectable: float | None = None
    """The smallest difference that these examples and seeds show at 5 % in 80 % of repetitions."""

    @classmethod
    def of(cls, value: float, drawn: FloatArray, family_p: float | None = None) -> DifferenceEstimate:
        """From a difference and its values under resampled users and seeds."""
        low, high = interval(drawn)
        p = p_value(drawn)
        return cls(
            value=defined(value),
            low=defined(low),
            high=defined(high),
            p_value=defined(p),
            family_p=family_p,
            detectable=defined(detectable(drawn)),
        )


class Spread(Record):
    """A metric over the seeds of one model."""

    values: list[float | None]

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds, None for a single one."""
        defined_values = [value for value in self.values if value is not None]
        return float(np.std(defined_values, ddof=1)) if len(defined_values) > 1 else None


class ComparisonRow(Record):
    """One model of a comparison."""

    model: str
    title: str
    seeds: int
    metrics: dict[str, Estimate]
    spread: dict[str, Spread]
    differences: dict[str, DifferenceEstimate] | None
    """Against the reference; None for the reference itself."""
    mann_whitney_p: float | None
    """The HPMN paper's test, on the first seed: scores of positives above scores of negatives."""
    t_p: float | None
    """The paper's t test of the losses against the reference's, on the first seeds."""


class Cost(Record):
    """What one model took to train, and what it takes to serve; None where it is not measured or does not apply."""

    parameters: int | None
    examples_seen: int | None
    train_seconds: float
    examples_per_second: float | None
    stopped_by: str
    """As in the artifact's metrics: patience, examples, time, fitted."""
    hit_limit: bool
    """Whether a limit ended the training while the validation metric still rose."""
    state_bytes: int | None
    """Bytes of one user in a store."""
    latency_ms: dict[int, float] | None
    """Length of the history in events -> median milliseconds of one request with 100 candidates."""


class Comparison(RecordFile):
    """What `lifelong compare` found; JSON in and out."""

    _what: ClassVar = "comparison"
    _made_by: ClassVar = "lifelong compare"

    format_version: int = FORMAT_VERSION
    reference: str
    resamples: int
    seed: int
    rows: list[ComparisonRow]
    results: list[Result]
    """One per model and seed."""
    costs: dict[str, Cost] = Field(default_factory=dict)
    """Model -> cost of its first seed."""
    command: str | None = None
    """The command that made it."""
    notes: list[str] = Field(default_factory=list)
    """What was left out or failed, and why."""

    def __repr__(self) -> str:
        rows = "; ".join(f"{row.title} {in_short(row.metrics)}" for row in self.rows)
        return f"Comparison(with {self.reference}: {rows})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """Its rows, as notebooks show them."""
        rows = [
            [row.title, row.seeds, *(" ".join(filter(None, (value, f"({interval})"))) for value, interval in cells)]
            for row in self.rows
            for cells in [[shown(row.metrics[name]) for name in ("auc", "gauc", "log_loss") if name in row.metrics]]
        ]
        return html_table(["model", "seeds", "AUC", "GAUC", "log loss"], rows, caption="Comparison on the test split")

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with a row per model and metric.

        Columns: model, title, seeds, metric, value, low, high, difference (to the reference), difference_low,
        difference_high, p_value, family_p.
        """
        rows = (
            {
                "model": row.model,
                "title": row.title,
                "seeds": row.seeds,
                "metric": metric,
                **estimate.model_dump(include={"value", "low", "high"}),
                **_difference_columns(row, metric),
            }
            for row in self.rows
            for metric, estimate in row.metrics.items()
        )
        differences = ("difference", "difference_low", "difference_high", "p_value", "family_p")
        return frame_of(rows, ("model", "title", "seeds", "metric", "value", "low", "high", *differences))


def _difference_columns(row: ComparisonRow, metric: str) -> dict[str, float | None]:
    if row.differences is None or metric not in row.differences:
        return {}
    of = row.differences[metric]
    columns = {"difference": of.value, "difference_low": of.low, "difference_high": of.high}
    return {**columns, "p_value": of.p_value, "family_p": of.family_p}


@dataclass(frozen=True, slots=True)
class Runs:
    """The seeds of one model, all on the same examples."""

    title: str
    samples: Sequence[Sample]


def compare(
    runs: Mapping[str, Runs], *, reference: str, resamples: int = RESAMPLES, seed: int = 0
) -> list[ComparisonRow]:
    """Rows of a comparison, in the order given.

    Args:
        runs: model name -> its scores, one sample per seed.
        reference: the model that the others are compared with.
        resamples: of users and seeds.
        seed: of the resampling.

    Raises:
        UsageError: the reference is not among the models, or a model has no run.
        DataError: two runs scored different examples.

    >>> good, guess = (Sample.of([1, 0, 1, 0], logit_N, [7, 7, 8, 8]) for logit_N in ([2, 1, 2, 1], [0, 0, 0, 0]))
    >>> rows = compare({"good": Runs("Good", [good]), "guess": Runs("Guess", [guess])}, reference="guess", resamples=9)
    >>> rows[0].differences["auc"].value
    0.5
    """
    _check_runs(runs, reference)
    drawn = {model: _drawn(run, resamples, seed) for model, run in runs.items()}
    differences = _differences(drawn, reference, seed)
    return [
        _row(model, run, drawn[model], differences.get(model), None if model == reference else runs[reference], seed)
        for model, run in runs.items()
    ]


def _row(
    model: str,
    run: Runs,
    drawn: _Drawn,
    differences: dict[str, DifferenceEstimate] | None,
    reference: Runs | None,
    seed: int,
) -> ComparisonRow:
    first = run.samples[0]
    tests = paper_tests(first, None if reference is None else reference.samples[0])
    return ComparisonRow(
        model=model,
        title=run.title,
        seeds=len(run.samples),
        metrics={
            name: estimate(name, _mean(drawn.values[name]), over_seeds(drawn.resampled[name], seed=seed), first)
            for name in metrics.metric_names()
        },
        spread={
            name: Spread(values=[defined(value) for value in drawn.values[name]]) for name in metrics.metric_names()
        },
        differences=differences,
        mann_whitney_p=defined(tests.mann_whitney_p),
        t_p=defined(tests.t_p),
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Metric -> value per seed, and metric -> value of each seed under resampled users, `[K, R]`."""

    values: Mapping[str, Sequence[float]]
    resampled: Mapping[str, FloatArray]


def _drawn(run: Runs, resamples: int, seed: int) -> _Drawn:
    values = [metrics.all_metrics(sample) for sample in run.samples]
    # One at a time, to hold one sample's sorted arrays at once; equal users and seed give equal draws.
    draws = [bootstrap({"": sample}, resamples=resamples, seed=seed)[""] for sample in run.samples]
    return _Drawn(
        {name: [value[name] for value in values] for name in metrics.metric_names()},
        {name: np.stack([draw[name] for draw in draws]) for name in metrics.metric_names()},
    )


def _differences(drawn: Mapping[str, _Drawn], reference: str, seed: int) -> dict[str, dict[str, DifferenceEstimate]]:
    """Model -> metric -> its difference to the reference's, for all other models."""
    base = drawn[reference]
    differences = {model: dict[str, DifferenceEstimate]() for model in drawn if model != reference}
    for name in metrics.metric_names():
        gaps = {
            model: (
                _mean(drawn[model].values[name]) - _mean(base.values[name]),
                over_seeds(drawn[model].resampled[name], base.resampled[name], seed=seed),
            )
            for model in differences
        }
        # A family for each metric: the correction is for the number of models that were tried.
        family = family_p_values(gaps)
        for model, (value, gap) in gaps.items():
            differences[model][name] = DifferenceEstimate.of(value, gap, defined(family[model]))
    return differences


def cautions(rows: Sequence[ComparisonRow], reference: str) -> list[str]:
    """What must be said with a comparison: who has too few seeds for a claim, and which differences it can show."""
    said, few = list[str](), [row.title for row in rows if row.seeds < LEAST_SEEDS]
    if few and len(rows) > 1:
        said.append(
            f"Fewer than {LEAST_SEEDS} seeds: {', '.join(few)}. Their intervals do not say what another training would "
            f"give, so claim no difference (`lifelong compare --seeds {LEAST_SEEDS})"
        )
    shown = [row.differences["auc"].detectable for row in rows if row.differences is not None]
    sizes = sorted(value for value in shown if value)
    if sizes:
        span = f"{sizes[0]:.4f}" if sizes[0] == sizes[-1] else f"{sizes[0]:.4f} to {sizes[-1]:.4f}, by model"
        said.append(
            f"The smallest difference in AUC from {reference} that these users, examples and seeds show at 5 % in 80 % "
            f"of repetitions, before any correction: {span}. That a smaller one was not found says nothing"
        )
    return said


def _check_runs(runs: Mapping[str, Runs], reference: str) -> None:
    if reference not in runs:
        raise UsageError(
            f"the reference {reference!r} is not compared",
            expected=f"one of {', '.join(runs)}",
            fix="add it to the models, or name another reference",
        )
    for model, run in runs.items():
        if not run.samples:
            raise UsageError(f"the model {model!r} has no run", expected="at least one seed", fix="seeds=1 or more")
    whole = runs[reference].samples[0]
    for model, run in runs.items():
        for sample in run.samples:
            # By users and labels: logits of other examples would be paired without an error.
            if not (np.array_equal(sample.user, whole.user) and np.array_equal(sample.label, whole.label)):
                raise DataError(
                    f"{model!r} and {reference!r} scored different examples", fix="score one split of one dataset"
                )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
