"""Memories of earlier moments: a user's first events, folded again by the graphs and the codec that made her memory.

    event log (and DATA before it) --first n events--> write graph --> memory after n events --> scores, cells, slots

So the scores are those that were given after these events, as far as items are what they were then:
fields of items that were put online are seen as they are now.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lifelong.data.dataset import Dataset
from lifelong.errors import RequestError
from lifelong.memory.replaying import Replayer
from lifelong.memory.state import States
from lifelong.memory.writer import MemoryWriter
from lifelong.scoring.scorer import Scorer


class MomentError(RequestError):
    """The memory of an earlier moment is not known, or too many events would have to be folded again."""


REPLAYED = 5_000
"""Events that are folded again for one user, at most."""


def earlier(scorer: Scorer, events: int, *, replayer: Replayer | None = None, dataset: Dataset | None = None) -> Scorer:
    """A scorer that reads each memory as it was after the user's first events; whatever takes a scorer takes it.

        >>> from importlib.resources import files
        >>> from lifelong import Scorer, Updater, UserEvent, open_artifact, open_store
        >>> artifact = open_artifact(files("lifelong.cli") / "shop" / "artifact")
        >>> store = open_store("memory://")
        >>> scorer, now = Scorer(artifact, store), 1_700_000_000
        >>> before = scorer.score("Eve", ["gouda"], time=now)[0].score
        >>> done = Updater(artifact, store).apply([UserEvent("Eve", "gouda", now - 60)])
        >>> scorer.score("Eve", ["gouda"], time=now)[0].score > before
        True
        >>> earlier(scorer, 0).score("Eve", ["gouda"], time=now)[0].score == before
        True

    Args:
        scorer: artifact and store; with their event log, unless the dataset has all events.
        events: how many of the first events; 0 for the empty memory.
        replayer: folds them, of this artifact and store; one is made if None.
        dataset: for one that is made: each user's first events, where the log lacks them.

    Raises:
        MomentError: there are too many events to fold them again. Its methods raise it too: for a user who has fewer
            events, or events that are not known any more.
        MismatchError: the dataset has other fields or vocabularies than the artifact.
    """
    if not 0 <= events <= REPLAYED:
        raise MomentError(
            f"a memory after {events:,} events",
            expected=f"0 to {REPLAYED:,} events, which are folded again",
            fix="look at an earlier moment, or at the present memory",
        )
    folds = replayer or Replayer(
        scorer.store, MemoryWriter(scorer.artifact, scorer.identity.codec, scorer.store), dataset
    )
    return scorer.reading(lambda users, states: _after(folds, users, states, events))


def _after(replayer: Replayer, users: Sequence[str], states: States, events: int) -> States:
    """The memories after so many events, of users with these memories now."""
    for user, count in zip(users, states.count_B.tolist(), strict=True):
        if count < events:
            raise MomentError(
                f"user {user!r} has {count:,} events",
                expected=f"at least {events:,}, to fold these again",
                fix="give a smaller number of events",
            )
    wanted = States(np.full(len(users), events, np.int64), states.last_time_B, {})
    replayed = replayer.replay(users, replayer.writer.runtime.empty(len(users)), wanted)
    for place, why in replayed.unknown.items():
        raise MomentError(
            f"the memory of user {users[place]!r} after {events:,} events is not known: {why}",
            expected="an event log that goes back to the first event, or a dataset with the events before it",
            fix="serve with the event log on and with --data",
        )
    return replayed.states
