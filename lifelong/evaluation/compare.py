"""Several models, several seeds, one split: who is better, by how much, and how sure that is.

A model's value is the mean over its seeds; its interval and the p-value of a difference come from the paired bootstrap
over users, with the seeds' mean computed inside each resample. The spread over seeds stands beside them: users and
seeds are two sources of doubt.

    Runs of each model (`lifelong.evaluation.runs`) --compare--> rows --> Comparison, in OUT/comparison.json
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lifelong.errors import DataError, UsageError
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import FloatArray, Sample
from lifelong.evaluation.results import Estimate, Result, estimate
from lifelong.evaluation.significance import (
    RESAMPLES,
    bootstrap,
    family_p_values,
    interval,
    p_value,
    paper_tests,
)

FORMAT_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DifferenceEstimate(_Record):
    """A metric minus the reference's, with 95 % interval and two-sided p-value; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    family_p: float | None = None
    """The p-value corrected for the number of models that are compared with the reference."""


class Spread(_Record):
    """A metric over the seeds of one model."""

    values: list[float | None]

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds, None for a single one."""
        known = [value for value in self.values if value is not None]
        return float(np.std(known, ddof=1)) if len(known) > 1 else None


class ComparisonRow(_Record):
    """One model of a comparison."""

    model: str
    title: str
    seeds: int
    metrics: dict[str, Estimate]
    spread: dict[str, Spread]
    differences: dict[str, DifferenceEstimate] | None
    """Against the reference; None for the reference itself."""
    mann_whitney_p: float | None
    """Of the first seed, as the HPMN paper tests: scores of positives above scores of negatives."""
    t_p: float | None
    """Of the first seeds' losses against the reference's."""


class Cost(_Record):
    """What one model took to train, and what it takes to serve; None where that is not measured or does not apply."""

    parameters: int | None
    examples_seen: int | None
    train_seconds: float
    examples_per_second: float | None
    stopped_by: str
    """As in the artifact's metrics: patience, examples, time, fitted."""
    hit_limit: bool
    """Whether a limit ended the training while validation still rose."""
    state_bytes: int | None
    """Of one user in a store."""
    latency_ms: dict[int, float] | None
    """Events of the history -> median milliseconds of one request with 100 candidates."""


class SweepPoint(_Record):
    """One model that sees only the most recent events before each target; None = all of them."""

    model: str
    title: str
    events: int | None
    examples: int
    metrics: dict[str, Estimate]
    difference: DifferenceEstimate | None = None
    """Of AUC against all events; None for all of them."""


class AblationRow(_Record):
    """A variant of the lifelong model beside its base."""

    name: str
    settings: dict[str, Any]
    """What differs from the base; empty for the base."""
    metrics: dict[str, Estimate]
    difference: DifferenceEstimate | None
    """Of AUC against the base; None for the base itself."""


class Comparison(_Record):
    """What `lifelong compare` found; JSON in and out."""

    format_version: int = FORMAT_VERSION
    reference: str
    resamples: int
    seed: int
    rows: list[ComparisonRow]
    results: list[Result]
    """One per model and seed."""
    equal_rows: list[ComparisonRow] = []
    """The same models after equally many labelled examples, where that was asked for."""
    equal_examples: int | None = None
    costs: dict[str, Cost] = {}
    """Model -> cost of its first seed."""
    sweep: list[SweepPoint] = []
    sweep_at_least: int | None = None
    """Events that every example of the sweep has before it."""
    ablations: list[AblationRow] = []
    command: str | None = None
    """What made it, to be typed again."""
    notes: list[str] = []
    """What was left out or did not succeed, and why."""

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read what `save` wrote.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} is not a comparison: {error}", fix="run `lifelong compare` anew") from error


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
        reference: whom the others are compared with.
        resamples: of the users.
        seed: of the resampling.

    Raises:
        UsageError: the reference is not among the models, or a model has no run.
        DataError: two runs scored different examples.
    """
    _check_runs(runs, reference)
    drawn = {model: _drawn(run, resamples, seed) for model, run in runs.items()}
    differences = _differences(drawn, reference)
    return [
        _row(model, run, drawn[model], differences.get(model), None if model == reference else runs[reference])
        for model, run in runs.items()
    ]


def _row(
    model: str, run: Runs, drawn: _Drawn, differences: dict[str, DifferenceEstimate] | None, reference: Runs | None
) -> ComparisonRow:
    first = run.samples[0]
    tests = paper_tests(first, None if reference is None else reference.samples[0])
    return ComparisonRow(
        model=model,
        title=run.title,
        seeds=len(run.samples),
        metrics={name: estimate(name, _mean(drawn.values[name]), drawn.resampled[name], first) for name in _NAMES},
        spread={name: Spread(values=[_number(value) for value in drawn.values[name]]) for name in _NAMES},
        differences=differences,
        mann_whitney_p=_number(tests.mann_whitney_p),
        t_p=_number(tests.t_p),
    )


_NAMES = metrics.METRICS


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Metric -> value per seed, and metric -> mean over seeds in each resample."""

    values: Mapping[str, Sequence[float]]
    resampled: Mapping[str, FloatArray]


def _drawn(run: Runs, resamples: int, seed: int) -> _Drawn:
    values = [metrics.all_metrics(sample) for sample in run.samples]
    # One at a time, to hold one sample's sorted arrays at once; equal users and seed give equal draws.
    draws = [bootstrap({"": sample}, resamples=resamples, seed=seed)[""] for sample in run.samples]
    return _Drawn(
        {name: [value[name] for value in values] for name in _NAMES},
        {name: np.mean([draw[name] for draw in draws], axis=0) for name in _NAMES},
    )


def _differences(drawn: Mapping[str, _Drawn], reference: str) -> dict[str, dict[str, DifferenceEstimate]]:
    """Model -> metric -> its difference to the reference's, for all models but that one."""
    base, found = drawn[reference], {model: dict[str, DifferenceEstimate]() for model in drawn if model != reference}
    for name in _NAMES:
        gaps = {
            model: (
                _mean(drawn[model].values[name]) - _mean(base.values[name]),
                drawn[model].resampled[name] - base.resampled[name],
            )
            for model in found
        }
        family = family_p_values(gaps)
        for model, (value, gap) in gaps.items():
            low, high = interval(gap)
            found[model][name] = DifferenceEstimate(
                value=_number(value),
                low=_number(low),
                high=_number(high),
                p_value=_number(p_value(gap)),
                family_p=_number(family[model]),
            )
    return found


def _check_runs(runs: Mapping[str, Runs], reference: str) -> None:
    if reference not in runs:
        raise UsageError(f"the reference {reference!r} is not compared", expected=f"one of {', '.join(runs)}")
    for model, run in runs.items():
        if not run.samples:
            raise UsageError(f"the model {model!r} has no run", expected="at least one seed")
    whole = runs[reference].samples[0]
    for model, run in runs.items():
        for sample in run.samples:
            if not (np.array_equal(sample.user, whole.user) and np.array_equal(sample.label, whole.label)):
                raise DataError(
                    f"{model!r} and {reference!r} scored different examples", fix="score one split of one dataset"
                )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
