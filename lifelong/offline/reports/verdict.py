"""The first lines of a comparison's page: which model to use, what it costs, where not to use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lifelong.offline.evaluation.compare import Comparison, ComparisonRow, DifferenceEstimate
from lifelong.offline.evaluation.results import Result, SliceResult, best_first, value_of
from lifelong.offline.evaluation.significance import LEAST_SEEDS
from lifelong.offline.reports.comparison_tables import usual_length
from lifelong.offline.reports.tables import brief, first_seeds, milliseconds, text

SURE = 0.05
"""A difference with a smaller p-value is called a difference."""
TREES = "gbdt"
"""LightGBM, which a reader will ask about."""
SUBJECTS = ("tally", "hpmn")
"""The models that a page is about, in this order."""
FLOOR = "popularity"
"""The model without a user: one that is no better has learned nothing from histories."""


def subject(models: Iterable[str]) -> str:
    """The model that a page is about: the flagship if it is compared, else HPMN, else the first.

    >>> subject(["hpmn", "tally"]), subject(["din", "sim"])
    ('tally', 'din')
    """
    given = list(models)
    return next((name for name in SUBJECTS if name in given), given[0])


def verdict(comparison: Comparison, lifelong: str, pair: DifferenceEstimate | None = None) -> list[str]:
    """The sentences for a reader who reads nothing else.

    Args:
        comparison: the record.
        lifelong: name of the model that the reader wants to use.
        pair: its AUC minus that of the best other model; None if that was not tested.
    """
    mine, other = rivals(comparison, lifelong)
    if mine is None or other is None:
        return _alone(comparison, mine or other)
    shown = [mine, other, *(row for row in comparison.rows if row.model == TREES and row not in (mine, other))]
    said = [_claim(mine, other, pair, comparison), *_trees(comparison, shown), _cost(comparison, shown)]
    return [*filter(None, said), *_not_for(comparison, mine), *_without_learning(comparison, said_of=mine)]


def rivals(comparison: Comparison, lifelong: str) -> tuple[ComparisonRow | None, ComparisonRow | None]:
    """The lifelong model's row and that of the best other model; None where there is none with an AUC."""
    ranked = [row for row in best_first(comparison.rows) if value_of(row) is not None]
    mine = next((row for row in ranked if row.model == lifelong), None)
    return mine, next((row for row in ranked if row.model != lifelong), None)


def learned_nothing(row: ComparisonRow, comparison: Comparison) -> str:
    """Why a model counts as one that has learned nothing; empty if it has learned.

    >>> from lifelong.offline.evaluation.results import Estimate
    >>> guess = Estimate(value=0.5, low=0.49, high=0.51)
    >>> row = ComparisonRow(model="din", title="DIN", seeds=1, metrics={"auc": guess}, spread={}, differences=None,
    ...                     mann_whitney_p=None, t_p=None)
    >>> learned_nothing(row, Comparison(reference="din", resamples=9, seed=0, rows=[row], results=[]))
    'not above guessing, 0.5'
    """
    auc, floor = row.metrics.get("auc"), next((of for of in comparison.rows if of.model == FLOOR), None)
    if row.model == FLOOR or auc is None or auc.value is None:
        return ""
    least = None if floor is None else value_of(floor)
    # Few seeds that differ make the interval wide: it says nothing against a training that is above by its own.
    sure = max((_low(of) for of in comparison.results if of.model == row.model), default=0.0)
    if (auc.value if auc.low is None else auc.low) <= 0.5 and sure <= 0.5:
        return "not above guessing, 0.5"
    lower = least is not None and auc.value <= least and sure <= least
    return f"not above item popularity, {least:.3f}" if lower else ""


def _alone(comparison: Comparison, only: ComparisonRow | None) -> list[str]:
    """What can be said where there is nothing to compare with."""
    if only is None:
        return ["No model has an AUC here, so nothing can be said: the targets are all positive or all negative."]
    return [
        f"Only {only.title} was compared (AUC {brief(only.metrics['auc'])}), so this page cannot say whether to use "
        "it. Compare it with simple models: --models tally,gbdt,counts,popularity.",
        *filter(None, [_cost(comparison, [only])]),
        *_without_learning(comparison),
    ]


def _claim(mine: ComparisonRow, other: ComparisonRow, pair: DifferenceEstimate | None, comparison: Comparison) -> str:
    first, second = best_first([mine, other])
    values = f"AUC {brief(first.metrics['auc'])} against {brief(second.metrics['auc'])}"
    # The corrected one where there is one: the best other model was chosen among several.
    p = None if pair is None else pair.p_value if pair.family_p is None else pair.family_p
    if why := learned_nothing(mine, comparison):
        return (
            f"Do not use {mine.title} as it was trained here: it learned nothing from histories (AUC "
            f"{brief(mine.metrics['auc'])} is {why}). The best model is {other.title}."
        )
    few = min(mine.seeds, other.seeds) < LEAST_SEEDS
    more = f"It takes {LEAST_SEEDS} trainings of each to claim that: `lifelong compare` with --seeds {LEAST_SEEDS}."
    if p is not None and pair is not None and p >= SURE:
        return (
            f"{mine.title} and {other.title}, the best other model, are level: {values}, difference {_signed(pair)}. "
            f"{more if few else 'Choose by cost.'}"
        )
    if few:
        shown = "" if pair is None else f" ({mine.title} minus {other.title}: {_signed(pair)})"
        return f"{first.title} is ahead of {second.title}, {values}{shown}. {more}"
    if p is None or pair is None:
        return f"No verdict: {first.title} is ahead of {second.title}, {values}, but their difference was not tested."
    best_other = ", the best other model" if mine is first else ""
    gap = f"{mine.title} minus {other.title}: {_signed(pair)}"
    return f"Use {first.title}: {values} for {second.title}{best_other}. {gap}."


def _signed(pair: DifferenceEstimate) -> str:
    """A difference with its interval and p-value, without the corrected one."""
    return text(pair.model_copy(update={"family_p": None}))


def _trees(comparison: Comparison, shown: Sequence[ComparisonRow]) -> list[str]:
    """The AUC of LightGBM where the claim does not name it, or that it is missing."""
    trees = next((row for row in comparison.rows if row.model == TREES), None)
    if trees is None:
        return ["LightGBM, the usual baseline, was not compared (--models ...,gbdt)."]
    return [] if trees in shown[:2] else [f"{trees.title} has AUC {brief(trees.metrics['auc'])}."]


def _cost(comparison: Comparison, rows: Sequence[ComparisonRow]) -> str:
    if not any(cost.latency_ms for cost in comparison.costs.values()):
        return ""
    at, said = usual_length(comparison.costs.values()), []
    for row in rows:
        cost = comparison.costs.get(row.model)
        latency = None if cost is None else (cost.latency_ms or {}).get(at)
        parts = [] if latency is None else [milliseconds(latency, 2)]
        parts += [] if cost is None or cost.state_bytes is None else [f"{cost.state_bytes:,} bytes a user"]
        said += [f"{row.title} {' and '.join(parts) or 'cannot be served'}"]
    return f"Cost of 100 candidates after {at:,} events: {'; '.join(said)}."


def _not_for(comparison: Comparison, mine: ComparisonRow) -> list[str]:
    """Lengths of history at which another model's interval lies above."""
    results = first_seeds(comparison.results)
    own = next((result for result in results if result.model == mine.model), None)
    worse = [] if own is None else [_better_at(own, results, place) for place in range(len(own.slices))]
    lengths = [name for name in worse if name]
    if lengths:
        return [f"Do not use {mine.title} for users with {'; '.join(lengths)} (first seed)."]
    return [f"At no length of history is another model clearly better than {mine.title} (first seed)."] if own else []


def _better_at(own: Result, results: Sequence[Result], place: int) -> str:
    own_slice = own.slices[place]
    high = own_slice.metrics["auc"].high if "auc" in own_slice.metrics else None
    rest = [result for result in results if result is not own and "auc" in result.slices[place].metrics]
    # Intervals apart, which is stricter than a test of the difference: advice against a model should be sure.
    better = [result for result in rest if high is not None and _low(result.slices[place]) > high]
    if not better:
        return ""
    best = max(better, key=lambda result: result.slices[place].metrics["auc"].value or 0.0)
    values = f"{brief(best.slices[place].metrics['auc'])} against {brief(own_slice.metrics['auc'])}"
    return f"{own_slice.name} events, where {best.title} is better ({values})"


def _low(part: Result | SliceResult) -> float:
    """The lower end of the AUC's interval, 0 where there is none."""
    return (part.metrics["auc"].low or 0.0) if "auc" in part.metrics else 0.0


def _without_learning(comparison: Comparison, *, said_of: ComparisonRow | None = None) -> list[str]:
    """One sentence for all models that learned nothing; the first sentence of the page has said it of one."""
    unlearned = [(row, why) for row in comparison.rows if (why := learned_nothing(row, comparison))]
    named = [f"{row.title} (AUC {brief(row.metrics['auc'])} is {why})" for row, why in unlearned if row is not said_of]
    listed = ", ".join(named[:-1]) + " and " * (len(named) > 1) + "".join(named[-1:])
    said = [f"Learned nothing from histories here: {listed}."] if named else []
    more = "More examples or other settings may change that: such figures say nothing about the models themselves."
    return [*said, more] if unlearned else []
