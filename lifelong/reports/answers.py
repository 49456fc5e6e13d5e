"""Answers in words to the research questions of the HPMN paper, computed from the numbers, each with its test.

Does the whole history help? Is the lifelong model the best? What do its slots hold?
"""

from __future__ import annotations

from collections.abc import Sequence

from lifelong.evaluation.attention import SlotContents
from lifelong.evaluation.compare import Comparison, ComparisonRow, DifferenceEstimate, SweepPoint
from lifelong.evaluation.results import Estimate, best_first, value_of
from lifelong.evaluation.significance import LEAST_SEEDS
from lifelong.reports.sections import Answer
from lifelong.reports.tables import brief, p_text, text
from lifelong.reports.timeline import slot_name

SURE = 0.05
"""A difference with a smaller p-value is called a difference."""
WEAK = 0.1
"""A rank correlation below this is called weak."""
WITHOUT_EVENTS = ("popularity", "mf")
"""Models that read no events of a user: the number of recent events means nothing for them."""
SHORT = 50
"""The largest number of recent events that counts as a short window."""
WHOLE, BEST, SLOTS = (
    "Does the whole history help?",
    "Is it better than every other model?",
    "What do the slots of its memory hold?",
)


def whole_history(comparison: Comparison, lifelong: str) -> Answer:
    """Compare all events with each shorter window, by the paired test of the sweep."""
    points = _points(comparison, lifelong)
    whole = next((point for point in points if point.events is None), None)
    shorter = [point for point in points if point.events is not None]
    if whole is None or not shorter:
        return Answer(
            WHOLE, f"Not measured: no sweep over numbers of recent events holds {_title(comparison, lifelong)}."
        )
    details = "; ".join(f"with the last {point.events:,} {brief(_auc(point))}{_against(point)}" for point in shorter)
    least = f" with at least {comparison.sweep_at_least:,} events before them" if comparison.sweep_at_least else ""
    return Answer(
        WHOLE,
        f"{_verdict(shorter)} With all events {whole.title} has AUC {brief(_auc(whole))}; {details}. Paired bootstrap "
        f"over users, two-sided, on the same {whole.examples:,} test examples{least}. "
        f"{pays_from(comparison, lifelong)}",
    )


def pays_from(comparison: Comparison, lifelong: str) -> str:
    """From how many events on the lifelong model pays: where its lower bound exceeds the best short window's AUC."""
    every = [point for point in comparison.sweep if value_of(point) is not None]
    mine = [point for point in _points(comparison, lifelong) if point.events is None or point.events > SHORT]
    short = [
        point
        for point in every
        if point.events is not None and point.events <= SHORT and point.model not in WITHOUT_EVENTS
    ]
    if not short or not mine:
        return "From how many events on it pays was not measured."
    best = max(short, key=lambda point: value_of(point) or 0.0)
    bar = value_of(best) or 0.0
    to_beat = (
        f"The best with at most {SHORT} recent events is {best.title} with the last {best.events:,}, AUC {bar:.3f}."
    )
    first = next((point for point in mine if (_auc(point).low or 0.0) > bar), None)
    if first is None:
        top = max(mine, key=lambda point: _auc(point).low or 0.0)
        return (
            f"{to_beat} The lower bound of {top.title} exceeds that at no number of events (highest: "
            f"{_auc(top).low or 0.0:.3f} with {_events(top)}), so it is not shown to pay here."
        )
    return (
        f"{to_beat} {first.title} pays from {_events(first)} on: the lower bound of its interval there, "
        f"{_auc(first).low:.3f}, exceeds that."
    )


def best(comparison: Comparison, lifelong: str, pair: DifferenceEstimate | None) -> Answer:
    """Compare the lifelong model with the best other one.

    Args:
        comparison: with both rows.
        lifelong: name of the lifelong model.
        pair: AUC of the lifelong model minus that of the best other one; None if it was not tested.
    """
    mine, other = rivals(comparison, lifelong)
    if mine is None or other is None:
        missing = "it was not compared" if mine is None else "no other model has an AUC"
        return Answer(BEST, f"Not measured: {_title(comparison, lifelong)}: {missing}.")
    ranked, value = _ranked(comparison), value_of(mine) or 0.0
    ahead = value > (value_of(other) or 0.0)
    rank = 1 + sum((value_of(row) or 0.0) > value for row in ranked)
    corrected = pair is not None and pair.family_p is not None
    p = None if pair is None else pair.family_p if corrected else pair.p_value
    few = min(mine.seeds, other.seeds) < LEAST_SEEDS
    sure = p is not None and p < SURE and not few
    open_because = f"fewer than {LEAST_SEEDS} seeds carry no claim" if few else "the difference may be chance"
    verdict = {
        (True, True): f"Yes: {mine.title} is better than every other model.",
        (True, False): f"Not shown: {mine.title} has the highest AUC, but {open_because}.",
        (False, True): f"No: {other.title} is better.",
        (False, False): f"Not shown: {other.title} has the higher AUC, but {open_because}.",
    }[ahead, sure]
    if p is None:
        verdict = f"By value {'yes' if ahead else 'no'}, but the two were not tested against each other."
    gap = "" if pair is None or pair.value is None else f" Difference {signed(pair)}."
    return Answer(
        BEST,
        f"{verdict} {mine.title} has AUC {brief(mine.metrics['auc'])}, place {rank} of {len(ranked)}; "
        f"the best other model, {other.title}, has {brief(other.metrics['auc'])}.{gap} Paired bootstrap over users, "
        f"two-sided; {_correction(pair)} for choosing the best of the others on these examples."
        f"{_limits(comparison, mine, other)}",
    )


def slots(contents: SlotContents | None, title: str, why_not: str) -> Answer:
    """Say how attention to slots depends on the ages of related events."""
    if contents is None:
        return Answer(SLOTS, f"Not measured: {why_not}.")
    if contents.correlation is None or contents.p_value is None:
        return Answer(SLOTS, f"Not measurable: too few targets of {title} have filled slots and related events.")
    interval = f"{contents.correlation:+.3f} [{contents.low or 0.0:+.3f}, {contents.high or 0.0:+.3f}]"
    return Answer(
        SLOTS,
        f"{_slots_verdict(contents)} Rank correlation of the latest related event's age with the mean log period that "
        f"is attended to: {interval.replace('-', '−')}, p {p_text(contents.p_value, equals=True)} (bootstrap over "
        f"users), on {contents.examples:,} test targets with all slots filled.{_extremes(contents)}",
    )


def rivals(comparison: Comparison, lifelong: str) -> tuple[ComparisonRow | None, ComparisonRow | None]:
    """The lifelong model's row and that of the best other model; None where there is none with an AUC."""
    ranked = _ranked(comparison)
    mine = next((row for row in ranked if row.model == lifelong), None)
    return mine, next((row for row in ranked if row.model != lifelong), None)


def _correction(pair: DifferenceEstimate | None) -> str:
    if pair is None or pair.family_p is None:
        return "not corrected"
    return f"corrected (p {p_text(pair.family_p, equals=True)})"


def _verdict(shorter: Sequence[SweepPoint]) -> str:
    tested = [point for point in shorter if point.difference is not None and point.difference.p_value is not None]
    if not tested:
        return "Not tested: the windows have no paired differences."
    sure = [point for point in tested if (_p(point) or 0.0) < SURE]
    losing = [point for point in sure if _gap(point) < 0]
    winning = [point for point in sure if _gap(point) > 0]
    if winning:
        named = ", ".join(f"{point.events:,}" for point in winning)
        return f"{'Not always' if losing else 'No'}: it does better with the last {named} alone."
    if len(losing) == len(tested):
        return "Yes: all events are better than every shorter window."
    if losing:
        named = ", ".join(f"{point.events:,}" for point in tested if point not in losing)
        return (
            f"In part: better than the last {max(point.events or 0 for point in losing):,}, no difference to {named}."
        )
    return "Not shown: no shorter window is measurably worse."


def _limits(comparison: Comparison, *rows: ComparisonRow) -> str:
    costs = {row.title: comparison.costs.get(row.model) for row in rows}
    cut = [title for title, cost in costs.items() if cost is not None and cost.hit_limit]
    return f" A limit ended the training of {' and '.join(cut)} while validation still rose." if cut else ""


def _slots_verdict(contents: SlotContents) -> str:
    correlation, p = contents.correlation or 0.0, contents.p_value
    weakly = ", but weakly" if abs(correlation) < WEAK else ""
    if p is None or p >= SURE:
        return "No link between a slot's period and the age of related events was found."
    if correlation > 0:
        return f"Time scales: the older the related events, the more the slower slots are read{weakly}."
    return f"Not the time scales of the paper: slower slots are read more where related events are younger{weakly}."


def _extremes(contents: SlotContents) -> str:
    """The attention to the fastest and the slowest slot in the youngest and the oldest age class."""
    aged = [part for part in contents.classes if part.name != "none"]
    if len(aged) < 2:
        return ""
    young, old = aged[0], aged[-1]
    fast, slow = slot_name(contents.periods[0]), slot_name(contents.periods[-1])
    return (
        f" Where the latest related event is {young.name} events old, the slot written {slow} gets "
        f"{young.attention_S[-1]:.2f} of the attention and the one written {fast} {young.attention_S[0]:.2f}; where it "
        f"is {old.name}, {old.attention_S[-1]:.2f} and {old.attention_S[0]:.2f}."
    )


def _points(comparison: Comparison, model: str) -> list[SweepPoint]:
    points = [point for point in comparison.sweep if point.model == model and value_of(point) is not None]
    return sorted(points, key=lambda point: (point.events is None, point.events or 0))


def _title(comparison: Comparison, model: str) -> str:
    return next((row.title for row in comparison.rows if row.model == model), model)


def _ranked(comparison: Comparison) -> list[ComparisonRow]:
    return [row for row in best_first(comparison.rows) if value_of(row) is not None]


def _auc(point: SweepPoint) -> Estimate:
    return point.metrics["auc"]


def _gap(point: SweepPoint) -> float:
    return (point.difference.value if point.difference else None) or 0.0


def _p(point: SweepPoint) -> float | None:
    return point.difference.p_value if point.difference else None


def _against(point: SweepPoint) -> str:
    if point.difference is None or point.difference.value is None:
        return " (not tested)"
    return f" ({signed(point.difference)})"


def _events(point: SweepPoint) -> str:
    return "all events" if point.events is None else f"{point.events:,} events"


def signed(of: DifferenceEstimate) -> str:
    """A difference with its interval and p-value, without the corrected one."""
    return text(of.model_copy(update={"family_p": None}))
