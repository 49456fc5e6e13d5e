"""Replays a log through the write graph, event by event, and compares with what a store holds.

dataset --fold, one event of each user at a time--> memory  ==  memory <--decode-- store
                                                      |           |
                                                      `- scores ==-'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.events import NO_TIME, context_numbers
from lifelong.errors import UsageError
from lifelong.memory.histories import HistoryFold, check_fits
from lifelong.memory.histories import counts_until as counts_until
from lifelong.memory.runtime import Runtime, identity_of

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.memory.state import States
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_USERS = 1_024
"""Users who are folded together."""
_TARGETS = 8
"""Targets that each user is scored on."""
_NAMED = 10
"""Users who are named in a report at most."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a replay found.

    Args:
        users: compared.
        events: folded anew.
        missing: users with events whom the store does not hold.
        count: users whose number of events differs.
        last_time: users whose last time differs, counts being equal.
        memory: users whose memory differs by more than the codec's tolerance.
        score: users with a score that differs by more than that.
        memory_difference: the largest.
        score_difference: the largest, in logits.
        examples: some of the users who differ.
    """

    users: int = 0
    events: int = 0
    missing: int = 0
    count: int = 0
    last_time: int = 0
    memory: int = 0
    score: int = 0
    memory_difference: float = 0.0
    score_difference: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the store holds what the log gives."""
        return not (self.missing or self.count or self.last_time or self.memory or self.score)


def verify(
    artifact: Artifact,
    dataset: Dataset,
    store: MemoryStore,
    *,
    until: int | None = None,
    users: int | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare the memories and scores of a store with a replay of a log.

    Counts and times must be equal, memories and scores within the tolerances of the store's codec: the replay rounds at
    every event, and a backfill rounded once. Items that were put online are not in the log: users who had such items
    after that differ.

    Args:
        artifact: that wrote the store.
        dataset: the log; with the fields of training.
        store: opened, for reading alone is enough.
        until: only events with an earlier time are in the store; None for all.
        users: how many users, drawn at random, or which; None for all.
        seed: of the draw, and of the targets that are scored.
        progress: called with (users done, users in all).

    Raises:
        ArtifactError: the model cannot be served, and why.
        MismatchError: the dataset has other fields or vocabularies than the model.
        StoreForeignError: another artifact wrote the store.
        StoreCorruptError: a memory cannot be decoded.
    """
    check_fits(artifact, dataset)
    identity = identity_of(artifact, store)
    slot = store.bind(identity)
    rng = np.random.default_rng(seed)
    chosen = _choose(dataset, users, rng)
    replay = _Replay(artifact, Runtime(artifact, codec=identity.codec), dataset, until)
    # Users of similar length together: long ones do not wait for short ones.
    chosen = chosen[np.argsort(replay.count_U[chosen], kind="stable")]
    report, done = VerifyReport(), 0
    for start in range(0, len(chosen), _USERS):
        some = chosen[start : start + _USERS]
        report = _merge(report, replay.compare(some, store, slot, rng))
        done += len(some)
        if progress is not None:
            progress(done, len(chosen))
    return report


def _choose(dataset: Dataset, users: int | Sequence[str] | None, rng: np.random.Generator) -> IntArray:
    every = dataset.histories.num_users
    if users is None:
        return np.arange(every)
    if isinstance(users, int):
        return np.sort(rng.choice(every, min(users, every), replace=False))
    found = dataset.users.find(users)
    if len(found) and found.min() < 0:
        raise UsageError(f"user {users[int(found.argmin())]!r} is not in the dataset", fix="check the id")
    return found


class _Replay:
    """Folds users of a dataset and compares."""

    def __init__(self, artifact: Artifact, runtime: Runtime, dataset: Dataset, until: int | None) -> None:
        self.runtime, self.dataset, self.schema = runtime, dataset, dataset.schema
        self.histories = HistoryFold(artifact, runtime, dataset)
        self.count_U = counts_until(dataset, until)

    def compare(self, user_B: IntArray, store: MemoryStore, slot: int, rng: np.random.Generator) -> VerifyReport:
        """Fold some users anew, and compare each with the store."""
        names = [self.dataset.users.id_at(int(user)) for user in user_B]
        records = store.read_many(names, slot=slot)
        kept, wanted = self.runtime.decode(records), self.histories.fold(user_B, self.count_U[user_B])
        absent_B = np.array([record is None for record in records], bool)
        missing_B = absent_B & (wanted.count_B > 0)
        count_B = ~absent_B & (kept.count_B != wanted.count_B)
        time_B = ~absent_B & ~count_B & (kept.last_time_B != wanted.last_time_B)
        same_B = ~absent_B & ~count_B
        memory_B, memory_difference = self._memories(kept, wanted, same_B)
        score_B, score_difference = self._scores(kept, wanted, same_B & ~time_B, rng)
        differs_B = missing_B | count_B | time_B | memory_B | score_B
        return VerifyReport(
            users=len(user_B),
            events=int(wanted.count_B.sum()),
            missing=int(missing_B.sum()),
            count=int(count_B.sum()),
            last_time=int(time_B.sum()),
            memory=int(memory_B.sum()),
            score=int(score_B.sum()),
            memory_difference=memory_difference,
            score_difference=score_difference,
            examples=[names[place] for place in np.flatnonzero(differs_B)[:_NAMED]],
        )

    def _memories(self, kept: States, wanted: States, same_B: BoolArray) -> tuple[BoolArray, float]:
        differs_B, largest = np.zeros(len(kept), bool), 0.0
        for name, value in wanted.fields.items():
            found = kept.fields[name]
            difference = np.where(same_B.reshape(-1, *[1] * (value.ndim - 1)), np.abs(found - value), 0)
            beyond = ~(difference <= self.runtime.codec.allowed(value))
            differs_B |= beyond.reshape(len(kept), -1).any(axis=1)
            largest = max(largest, float(difference.max(initial=0)))
        return differs_B, largest

    def _scores(
        self, kept: States, wanted: States, same_B: BoolArray, rng: np.random.Generator
    ) -> tuple[BoolArray, float]:
        size, catalogue = len(kept), self.dataset.catalogue
        row_BC = rng.integers(min(FIRST_ROW, len(catalogue) - 1), len(catalogue), (size, _TARGETS))
        number_BCF = np.asarray(catalogue.number_VF[row_BC], np.int64)
        last_B = wanted.last_time_B
        time_B = np.where(last_B == NO_TIME, 0, last_B) + 3600
        context_BCF = context_numbers(self.schema, time_B, last_B)[:, None]
        difference_BCT = np.abs(
            self.runtime.score(kept, number_BCF, context_BCF, time_B)[0]
            - self.runtime.score(wanted, number_BCF, context_BCF, time_B)[0]
        )
        difference_B = np.where(same_B, difference_BCT.reshape(size, -1).max(axis=1, initial=0), 0)
        return ~(difference_B <= self.runtime.codec.logit_tolerance), float(difference_B.max(initial=0))


def _merge(one: VerifyReport, other: VerifyReport) -> VerifyReport:
    totals = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("users", "events", "missing", "count", "last_time", "memory", "score")
    }
    return VerifyReport(
        **totals,
        memory_difference=max(one.memory_difference, other.memory_difference),
        score_difference=max(one.score_difference, other.score_difference),
        examples=[*one.examples, *other.examples][:_NAMED],
    )
