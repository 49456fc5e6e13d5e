"""Which model can know which planted world, and why.

    model, its settings --sight_of--> what it sees of a user --can_know, by the world's dials--> can or cannot, and why

A model that can know reaches at least `SHARE` of the possible lift in AUC, given time to train. One that cannot is at
AUC .5: in these worlds nothing that it sees depends on the answer, so it stays within `MARGIN` of that. Both follow
from what a model sees and from how a world is made (`offline.preparation.sources.worlds`), not from measurements;
those are in `docs/results/planted-worlds.md`, made by `support.planted`. Where a model sees what decides in some cases
only, or hardly, no bar can be given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log2
from typing import Any

from lifelong.dataset.events import USUAL_CONTEXT
from lifelong.offline.models import check_config, model_class
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.preparation.sources.synthetic import STEP
from lifelong.offline.preparation.sources.worlds import WorldSettings

SHARE = 0.8
"""Of the lift in AUC that is possible: what a model that can know has at least."""
MARGIN = 0.02
"""In AUC: how far from .5 a model that cannot know is at most."""
ALL = sys.maxsize
"""A window that holds every event."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a model can know of a world.

    Args:
        can: None where it sees what decides in some cases only, or hardly, so that no bar holds.
        reason: in words.
    """

    can: bool | None
    reason: str

    def holds(self, auc: float, best: float) -> bool:
        """Whether a measured AUC keeps the promise, where `best` is that of an oracle."""
        if self.can is None:
            return True
        return auc - 0.5 >= SHARE * (best - 0.5) if self.can else abs(auc - 0.5) <= MARGIN


@dataclass(frozen=True, slots=True)
class Sight:
    """What a model sees of a user when it is asked about a target. Nothing by default.

    Args:
        user: a vector of the user herself, made of her answers in training.
        ordered: so many last events, in order.
        blurred: their order shows in the weights of one mean alone.
        pooled: windows of so many last events whose order is lost.
        aged: of so many last events those that the model finds, each with its age in powers of two.
        counts_events: the age is known in events, too.
        finds_like: only events that are like the target are found for sure.
        counted: how often, and how long ago, the target's own values were there.
        gaps: how many events lay between the last visits of the target's item, if it was there at all.
        clock: the hour of the question; None where hardly.
        formula: whatever it sees, it ranks by a formula that no training changes.
    """

    user: bool = False
    ordered: int = 0
    blurred: bool = False
    pooled: tuple[int, ...] = ()
    aged: int = 0
    counts_events: bool = False
    finds_like: bool = False
    counted: bool = False
    gaps: bool = False
    clock: bool | None = False
    formula: bool = False


def _short(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The window of a short term next to a search, if there is one."""
    return (min(settings["short"], settings.get("recent", ALL)),) if settings["short"] else ()


def _sim(settings: Mapping[str, Any], events: int) -> Sight:
    """A search by category finds all events of one; the others find what is near, unless they take everything."""
    everything = {
        "hard": True,
        "soft": settings["hits"] >= events,
        "cluster": settings["near"] >= settings["buckets"],
    }
    return Sight(aged=settings["recent"], finds_like=not everything[settings["search"]], pooled=_short(settings))


def _fixed(sight: Sight) -> Callable[[Mapping[str, Any], int], Sight]:
    return lambda settings, events: sight


def _recent(settings: Mapping[str, Any], events: int) -> Sight:
    return Sight(ordered=settings["recent"])


def _recent_pooled(settings: Mapping[str, Any], events: int) -> Sight:
    return Sight(pooled=(settings["recent"],))


_WHOLE = _fixed(Sight(ordered=ALL))
_BAG = _fixed(Sight(pooled=(ALL,)))
_COUNTS = _fixed(Sight(counted=True))
_FORMULA = _fixed(Sight(formula=True))

SIGHTS: dict[str, Callable[[Mapping[str, Any], int], Sight]] = {
    "Popularity": _fixed(Sight()),
    "TopFreq": _FORMULA,
    "Upcf": _FORMULA,
    "TifuKnn": _FORMULA,
    # Her own vector is read with items that she had alone.
    "Recanet": _fixed(Sight(gaps=True)),
    "Counts": _COUNTS,
    # How well the last moment's vectors agree with the target's tells what was there, where items are few.
    "Gbdt": _fixed(Sight(ordered=1, counted=True, clock=True)),
    "Lr": _BAG,
    "Fm": _BAG,
    "Mf": _fixed(Sight(user=True)),
    "Fpmc": _fixed(Sight(ordered=1)),
    "FpmcUsers": _fixed(Sight(user=True, ordered=1)),
    "Dnn": _BAG,
    "Svdpp": _BAG,
    "Gru4Rec": _WHOLE,
    "Caser": _recent,
    "Hstu": lambda settings, events: Sight(
        ordered=settings["layers"] * ((settings["recent"] - 1) // settings["layers"]) + 1
    ),
    "Shan": lambda settings, events: Sight(pooled=(min(settings["short"], settings["recent"]), settings["recent"])),
    "MemN2N": _recent,
    "AttRec": lambda settings, events: Sight(
        ordered=min(settings["window"], settings["recent"]), blurred=True, pooled=(settings["recent"],)
    ),
    "Din": _recent_pooled,
    "Dien": _recent,
    "Hpmn": _WHOLE,
    "HpmnDynamic": _WHOLE,
    "HpmnAuthors": lambda settings, events: Sight(user=True, ordered=settings["sequence"] - 1),
    "Tally": lambda settings, events: Sight(ordered=ALL if settings["periods"] else 0, counted=True),
    "Sim": _sim,
    "Ubr4Ctr": _recent_pooled,
    "Eta": lambda settings, events: Sight(pooled=(*_short(settings), settings["recent"])),
    "Sdim": lambda settings, events: Sight(pooled=(*_short(settings), ALL)),
    "Twin": lambda settings, events: Sight(aged=settings["recent"], counts_events=True, pooled=_short(settings)),
    "Lstm": _WHOLE,
    "MinGru": _WHOLE,
    "GatedDelta": _WHOLE,
    "Mimn": _WHOLE,
    "RumItem": lambda settings, events: Sight(pooled=(settings["slots"],)),
    "RumFeature": _WHOLE,
}
"""Class of a model -> what it sees, by its settings and the number of events of a user."""


def sight_of(model: str, settings: Mapping[str, Any] | None = None, *, events: int = ALL) -> Sight:
    """What a model sees.

    Args:
        model: a model or preset.
        settings: of the model; those left out have their defaults.
        events: of a user.

    Raises:
        ConfigError: no such model, or settings unknown or out of range.
    """
    given = dict(settings or {})
    entry, checked = model_class(model, given), check_config(model, given)
    sight, clock = SIGHTS[entry.__name__](checked, events), _clock(entry, checked.get("context"))
    return replace(sight, clock=sight.clock or clock, counted=sight.counted or checked.get("counts", False))


def _clock(entry: type[Model] | type[FittedModel], context: Sequence[str] | None) -> bool | None:
    """Whether a model reads the hour of the question."""
    if not issubclass(entry, Model) or not entry.reads_context:
        return False
    context = USUAL_CONTEXT if context is None else context
    if {"hour", "time_of_day"} & set(context):
        return True
    return None if "time_of_week" in context else False


def can_know(model: str, world: WorldSettings, settings: Mapping[str, Any] | None = None) -> Knowledge:
    """What a model can know of a world, and why.

    Args:
        model: a model or preset.
        world: the world, with all its dials.
        settings: of the model; those left out have their defaults.

    Raises:
        ConfigError: no such model, or settings unknown or out of range.
    """
    sight = sight_of(model, settings, events=world.events)
    if sight.formula and world.world != "noise":
        return Knowledge(None, "ranks by a formula, which fits a world or does not")
    return _RULES[world.world](sight, world)


def _checkerboard(sight: Sight, world: WorldSettings) -> Knowledge:
    if sight.user:
        return Knowledge(True, "her own vector: she answers by her parity, in training as ever after")
    if replace(sight, clock=False) == Sight():
        return Knowledge(False, "sees nothing of the user, and every item has as many friends as enemies")
    if sight.gaps:
        return Knowledge(None, "an item that she had has her parity, and one that she had not yet may have it")
    return Knowledge(True, "any event of hers shows her parity, by its group")


def _daytime(sight: Sight, world: WorldSettings) -> Knowledge:
    reasons = {
        True: "reads the hour",
        False: "knows nothing of the hour",
        None: "reads an hour of the week in slow waves",
    }
    return Knowledge(sight.clock, reasons[sight.clock])


def _noise(sight: Sight, world: WorldSettings) -> Knowledge:
    return Knowledge(False, "answers are coins")


def _markov(sight: Sight, world: WorldSettings) -> Knowledge:
    if sight.blurred and sight.ordered > 1:
        return Knowledge(None, "both of the last two events are in one mean, and place moves their weights a little")
    if sight.ordered:
        return Knowledge(True, "sees which event is the last")
    if sight.aged and sight.finds_like:
        return Knowledge(None, "finds events that are like the target, which the item before it need not be")
    if sight.aged:
        return Knowledge(True, "the last event and the one before differ in age")
    if 1 in sight.pooled:
        return Knowledge(True, "a window that holds the last event alone")
    if sight.pooled:
        return Knowledge(False, "sees both of the last two events, and not which came last")
    if sight.counted or sight.gaps:
        return Knowledge(False, "counts the target's own item, and when that was seen tells nothing of its predecessor")
    return _unseen(sight)


def _period(sight: Sight, world: WorldSettings) -> Knowledge:
    half, burst = world.period // 2, world.burst
    due = [world.period - burst + 1, 2 * world.period - burst + 1]
    other = [half - burst + 1, half + world.period - burst + 1]
    if sight.counted or sight.gaps:
        return Knowledge(True, "the item due was last seen a period ago, the other half a period ago")
    if max(sight.ordered, sight.aged) >= other[0]:
        return Knowledge(True, f"sees the other item, last there {other[0]} events ago, and the one due was not since")
    if any(_in_window(due, burst, size) != _in_window(other, burst, size) for size in sight.pooled):
        return Knowledge(True, "a window that holds more of the other item's visits than of those of the one due")
    if sight.ordered or sight.aged:
        return Knowledge(False, f"sees too few events: neither item was there for {other[0]}")
    if sight.pooled:
        return Knowledge(False, "sees both items equally often, or neither, and no order")
    return _unseen(sight)


def _lag(sight: Sight, world: WorldSettings) -> Knowledge:
    lag, burst = world.lag, world.burst
    if sight.gaps:
        return Knowledge(None, "knows when the target's item was last there, and not when its colour was")
    # Where the earlier burst may end, in events ago.
    nearest = lag + world.spread - burst + 1
    earlier = range(nearest - (world.spread - 2 * burst) // 2, nearest + 1)
    if sight.counted:
        return Knowledge(True, "how long ago the target's colour was last seen is shorter if that burst was the later")
    if sight.ordered >= lag:
        return Knowledge(True, f"sees {_size(sight.ordered)} in order, the one that decides, {lag} ago, among them")
    parts = [
        _some(_in_window([lag], burst, size) != _in_window([end], burst, size) for end in earlier)
        for size in sight.pooled
    ]
    if True in parts:
        return Knowledge(True, "a window that holds more of the later burst than of the earlier one")
    if None in parts:
        return Knowledge(None, "a window that ends between the bursts in some cases")
    if sight.aged:
        return _lag_by_age(sight, world, earlier)
    if sight.ordered:
        return Knowledge(False, f"sees {_size(sight.ordered)}, and no colour was there for {lag} events")
    if sight.pooled:
        return Knowledge(False, "sees both colours equally often, or neither, and no order")
    return _unseen(sight)


def _lag_by_age(sight: Sight, world: WorldSettings, earlier: range) -> Knowledge:
    if sight.aged < world.lag:
        return Knowledge(False, f"sees {_size(sight.aged)}, and no colour was there for {world.lag} events")
    later = _ages(world.lag, sight)
    if any(later[clock] < _ages(earlier[0], sight)[clock] for clock in later):
        return Knowledge(True, "the later burst falls into a lower power of two of ages than the earlier one")
    if later == _ages(world.lag + world.spread, sight):
        return Knowledge(False, "both bursts fall into the same power of two of ages")
    return Knowledge(None, "the bursts fall into different powers of two of ages in some cases")


def _ages(distance: int, sight: Sight) -> dict[str, int]:
    """Power of two of the age of the event so many events ago, by each clock that a model has."""
    # A question comes half a step after the last event.
    seconds = {"seconds": floor(log2(distance * STEP - STEP // 2))}
    return seconds | {"events": floor(log2(distance))} if sight.counts_events else seconds


def _in_window(ends: list[int], burst: int, size: int) -> int:
    """How many events of bursts that end so many events ago are among the last `size`."""
    return sum(min(burst, max(0, size - end + 1)) for end in ends)


def _some(found: Any) -> bool | None:
    """True if all, False if none, None if some."""
    values = set(found)
    return values.pop() if len(values) == 1 else None


def _size(events: int) -> str:
    return {1: "the last event alone", ALL: "all events"}.get(events, f"the last {events} events")


def _unseen(sight: Sight) -> Knowledge:
    if sight.user:
        return Knowledge(False, "knows her from earlier answers, and each answer is drawn anew")
    return Knowledge(False, "sees nothing of the user, and items are asked about with either answer equally often")


_RULES: dict[str, Callable[[Sight, WorldSettings], Knowledge]] = {
    "checkerboard": _checkerboard,
    "markov": _markov,
    "period": _period,
    "lag": _lag,
    "daytime": _daytime,
    "noise": _noise,
}
