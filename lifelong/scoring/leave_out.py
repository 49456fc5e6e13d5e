"""What a single past event does to a score: the score less that of the memory without this event.

    events 1 .. p - 1 --------> memory --p, p + 1 .. n--> memory with all events --> score --.
                                  `----------p + 1 .. n--> memory without event p --> score --difference--> effect of p

Events are folded again by the graphs and the codec that made the memory. A memory without an event begins as a copy of
that of the events before it, so the events before the first one that is left out are folded once. Effects of several
events need not sum to anything: of two purchases that say the same, each alone changes little.

Shapes: N events, K of them left out, C candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import RequestError
from lifelong.memory.event import EventTable
from lifelong.memory.rounds import make_rounds
from lifelong.memory.state import States
from lifelong.memory.writer import MemoryWriter
from lifelong.scoring.answer import ScoreRequest
from lifelong.scoring.earlier import REPLAYED, MomentError
from lifelong.scoring.past import Past
from lifelong.scoring.scorer import Scorer

LEFT_OUT = 20
"""Events that are left out for one request, at most: each needs a memory of its own."""


def checked_positions(positions: Sequence[int], count: int) -> list[int]:
    """The different ones of some positions, ascending.

    Args:
        positions: of events; 1 is the user's first.
        count: events in the memory.

    Raises:
        RequestError: there are more than `LEFT_OUT`, or one is below 1.
        MomentError: the memory does not have so many events, or more than are folded again for one request.

    >>> checked_positions([7, 2, 7], count=9)
    [2, 7]
    """
    found = sorted(set(positions))
    if len(found) > LEFT_OUT:
        raise RequestError(
            f"{len(found)} events to leave out",
            expected=f"at most {LEFT_OUT} events for one request",
            fix="ask for the others with a second request",
        )
    if found and not 1 <= found[0] <= found[-1] <= count:
        # A position that the memory does not have now is of the moment; one below 1 is never right.
        kind, wrong = (RequestError, found[0]) if found[0] < 1 else (MomentError, found[-1])
        expected = f"positions from 1 to {count:,}" if count else "nothing to leave out: the memory has no events"
        raise kind(f"event {wrong:,} to leave out of a memory of {count:,} events", expected=expected)
    if found and count > REPLAYED:
        raise MomentError(
            f"effects of single events of a memory of {count:,} events",
            expected=f"a memory of at most {REPLAYED:,} events, which are folded again without one of them",
            fix="ask without leave_out, or for an earlier moment (after_events)",
        )
    return found


def event_effects(
    scorer: Scorer,
    request: ScoreRequest,
    past: Past,
    positions: Sequence[int],
    *,
    count: int,
    writer: MemoryWriter | None = None,
) -> FloatArray:
    """What each of some events does to the score of each candidate: `[C, K]`.

    The score with all events is that of a memory that was folded again, too. It differs from the stored memory's where
    fields of items were changed online since.

    Args:
        scorer: artifact and store; or that of an earlier moment.
        request: of one user, with its time.
        past: her events, as far as they are known.
        positions: of the K events, as `checked_positions` gives them.
        count: events in her memory.
        writer: of the scorer's artifact and codec; one is made if None.

    Raises:
        MomentError: not all of her events are known.
    """
    if not positions:
        return np.zeros((len(request.items), 0))
    if len(past.items) < count:
        raise MomentError(
            f"{count - len(past.items):,} of {count:,} events of user {request.user!r} are not known: the memory"
            " without one of them cannot be folded",
            expected="an event log that goes back to the first event, or a dataset with the events before it",
            fix="serve with the event log on and with --data",
        )
    states = _without(writer or MemoryWriter(scorer.artifact, scorer.identity.codec, scorer.store), past, positions)
    # One after another: of many candidates, all memories at once would take as many times the RAM.
    answers = [scorer.answer_from(states.take(np.array([row])), [True], [request])[0] for row in range(len(states))]
    score_BC = np.array([[score.score for score in answer.scores] for answer in answers])
    effect_CK: FloatArray = (score_BC[0] - score_BC[1:]).T
    return effect_CK


def _without(writer: MemoryWriter, past: Past, positions: Sequence[int]) -> States:
    """Memories of all events, then of all but each of some: `1 + K` of them."""
    states, count = writer.runtime.empty(1), len(past.items)
    # Up to each event that is left out all memories take in the same events; then one more memory begins, as a copy of
    # the first one, which lacks no event, and skips this one.
    bounds = [0, *(position - 1 for position in positions), count]
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        if number:
            states = states.take(np.append(np.arange(len(states)), 0))
        place_M = np.arange(start, end)
        user_N = np.repeat(np.arange(len(states)), len(place_M))
        place_N = np.tile(place_M, len(states))
        # The newest memory skips the event that this part begins with.
        kept_N = (user_N < number) | (place_N > start) if number else np.ones(len(place_N), bool)
        states = _folded(writer, states, past, user_N[kept_N], place_N[kept_N])
    return states


def _folded(writer: MemoryWriter, states: States, past: Past, user_N: IntArray, place_N: IntArray) -> States:
    """Memories after the events of some places, each event for one of the memories."""
    if not len(place_N):
        return states
    places, fields, known = place_N.tolist(), past.fields, writer.artifact.catalogue.only_known
    events = EventTable(
        user=[str(user) for user in user_N.tolist()],
        item=[past.items[place] for place in places],
        time_N=past.time_N[place_N],
        event_type=[past.types[place] for place in places],
        fields=[given and known(given) for given in (fields[place] for place in places)],
    )
    plan = make_rounds(user_N, events.time_N, states.last_time_B, refuse=False)
    return writer.fold(states, plan, writer.numbers(events, plan))
