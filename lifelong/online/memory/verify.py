"""Folds events again through the write graph, one by one, and compares with what a store holds.

    DATA, the event log --fold, rounding at every event as the store does--> memory  ==  memory <--decode-- store
                                                                               |           |
                                                                               `- scores ==-'

With DATA, the store must hold DATA's events and no others. Without it, each memory must be what its own user's log
gives: as many events as the memory has, in the order in which they arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.events import NO_TIME, context_numbers
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import BoolArray
from lifelong.errors import StoreCorruptError, UsageError
from lifelong.online.memory.expected import FromData, FromLog
from lifelong.online.memory.replaying import counts_until as counts_until
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.redis import RedisStore
from lifelong.online.store.redis_check import check

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
        events: folded again.
        missing: users with events who are not in the store.
        corrupt: users with a record that cannot be decoded.
        count: users with another number of events.
        extra: of those, users with more events in the store.
        last_time: users with another last time, but as many events.
        memory: users with a memory that differs by more than sums in another order explain.
        score: users with a score that differs by more than that.
        unverifiable: users with events that neither DATA nor the log has: neither equal nor different.
        exact: users with a memory that is equal bit for bit.
        memory_difference: the largest.
        score_difference: the largest, in logits.
        reasons: some of the users who differ or are not known, and why.
    """

    users: int = 0
    events: int = 0
    missing: int = 0
    corrupt: int = 0
    count: int = 0
    extra: int = 0
    last_time: int = 0
    memory: int = 0
    score: int = 0
    unverifiable: int = 0
    exact: int = 0
    memory_difference: float = 0.0
    score_difference: float = 0.0
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether the store holds what the events give, of every user."""
        differs = self.missing or self.corrupt or self.count or self.last_time or self.memory or self.score
        return not (differs or self.unverifiable)

    @property
    def examples(self) -> list[str]:
        """Some of the users who differ."""
        return list(self.reasons)


def verify(
    artifact: Artifact,
    dataset: Dataset | None,
    store: MemoryStore,
    *,
    until: int | None = None,
    users: int | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare the memories and scores of a store with a replay.

    Counts and times must be equal. The replay rounds at every event, as the store's codec does, so memories may differ
    only by what sums in another order make. Items that were put online are seen as they are now, and not in DATA at
    all: users who had such items may differ.

    Where no user differs, all names and sums of a Redis or Valkey server are checked, too: see
    `lifelong.online.store.redis_check`, which raises StoreCorruptError. A sample of users leaves that out.

    Arguments and errors are those of `lifelong.verify`, with artifact, dataset and store opened (the store at least for
    reading).
    """
    identity = identity_of(artifact, store)
    if dataset is not None:
        # Before the store is claimed, in case that it is new.
        check_fits(artifact, dataset)
    space, rng = store.bind(identity), np.random.default_rng(seed)
    writer = MemoryWriter(artifact, identity.codec, store)
    compare = _Comparison(writer, rng)
    expected: FromData | FromLog
    if dataset is not None:
        expected = FromData(writer, dataset, store, until)
    elif until is not None:
        raise UsageError(
            "until without a dataset",
            expected="a dataset, to leave out its later events",
            fix="give the dataset, or leave out until",
        )
    else:
        expected = FromLog(writer, store, space)
    names, report, done = expected.choose(users, rng), VerifyReport(), 0
    for start in range(0, len(names), _USERS):
        some = names[start : start + _USERS]
        records = store.read_many(some, space=space)
        report = _merge(report, compare.of(some, records, expected))
        done += len(some)
        if progress is not None:
            progress(done, len(names))
    # Users whose events are not known say nothing of the server.
    if replace(report, unverifiable=0).equal and users is None and isinstance(store, RedisStore):
        check(store, space)
    return report


class _Comparison:
    """Compares memories and scores of one artifact."""

    def __init__(self, writer: MemoryWriter, rng: np.random.Generator) -> None:
        self.runtime, self.catalogue = writer.runtime, writer.artifact.catalogue
        self.rng = rng

    def of(self, users: Sequence[str], records: Sequence[bytes | None], expected: FromData | FromLog) -> VerifyReport:
        """Compare some users with what is expected of them."""
        held, reasons = self._decoded(records)
        corrupt_B = np.isin(np.arange(len(users)), list(reasons))
        wanted, unknown = expected.states(users, held)
        reasons |= {at: why for at, why in unknown.items() if at not in reasons}
        checked_B = ~np.isin(np.arange(len(users)), list(reasons))
        absent_B = np.array([record is None for record in records], bool)
        missing_B = checked_B & absent_B & (wanted.count_B > 0)
        count_B = checked_B & ~absent_B & (held.count_B != wanted.count_B)
        same_B = checked_B & ~absent_B & ~count_B
        time_B = same_B & (held.last_time_B != wanted.last_time_B)
        memory_B, memory_difference = self._memories(held, wanted, same_B)
        score_B, score_difference = self._scores(held, wanted, same_B & ~time_B)
        exact = zip(records, self.runtime.encode(wanted), same_B.tolist(), strict=True)
        for at in np.flatnonzero(missing_B | count_B | time_B | memory_B | score_B).tolist()[:_NAMED]:
            one = np.array([at])
            if missing_B[at]:
                reasons[at] = f"the store lacks the user and {int(wanted.count_B[at])} events"
            elif count_B[at]:
                reasons[at] = expected.why(users[at], held.take(one), wanted.take(one))
            elif time_B[at]:
                reasons[at] = f"the last time is {int(held.last_time_B[at])}, and not {int(wanted.last_time_B[at])}"
            else:
                reasons[at] = f"the {'memory' if memory_B[at] else 'score'} is not what the events give"
                reasons[at] += expected.differing(users[at], int(held.count_B[at]))
        differ = {"missing": missing_B, "corrupt": corrupt_B, "count": count_B, "last_time": time_B}
        differ |= {"memory": memory_B, "score": score_B, "extra": count_B & (held.count_B > wanted.count_B)}
        counts: dict[str, Any] = {name: int(differs_B.sum()) for name, differs_B in differ.items()}
        return VerifyReport(
            **counts,
            users=len(users),
            events=int(wanted.count_B[checked_B].sum()),
            unverifiable=len(set(unknown) - set(np.flatnonzero(corrupt_B).tolist())),
            exact=sum(same and one == other for one, other, same in exact),
            memory_difference=memory_difference,
            score_difference=score_difference,
            reasons=dict(islice(((users[at], why) for at, why in sorted(reasons.items())), _NAMED)),
        )

    def _decoded(self, records: Sequence[bytes | None]) -> tuple[States, dict[int, str]]:
        """Memories, and which of them cannot be decoded."""
        try:
            return self.runtime.decode(records), {}
        except StoreCorruptError:
            bad = {at: why for at, why in enumerate(map(self._damage, records)) if why is not None}
            return self.runtime.decode([None if at in bad else record for at, record in enumerate(records)]), bad

    def _damage(self, record: bytes | None) -> str | None:
        try:
            self.runtime.decode([record])
        except StoreCorruptError as error:
            return f"corrupt: {error.found.replace('memory 0 of those that were read', 'the record')}"
        return None

    def _memories(self, kept: States, wanted: States, same_B: BoolArray) -> tuple[BoolArray, float]:
        differs_B, largest = np.zeros(len(kept), bool), 0.0
        for name, value in wanted.fields.items():
            found = kept.fields[name]
            difference = np.where(same_B.reshape(-1, *[1] * (value.ndim - 1)), np.abs(found - value), 0)
            # So that NaN, which is not less than anything, is a difference.
            beyond = ~(difference <= self.runtime.codec.allowed(name, value))
            differs_B |= beyond.reshape(len(kept), -1).any(axis=1)
            largest = max(largest, float(difference.max(initial=0)))
        return differs_B, largest

    def _scores(self, kept: States, wanted: States, same_B: BoolArray) -> tuple[BoolArray, float]:
        size, catalogue = len(kept), self.catalogue
        # A catalogue may have no item at all, but the rows that every one has.
        row_BC = self.rng.integers(min(FIRST_ROW, len(catalogue) - 1), len(catalogue), (size, _TARGETS))
        number_BCF = catalogue.of_rows(row_BC)
        last_B = wanted.last_time_B
        # Any moment after the last event will do: both memories are asked at the same one.
        time_B = np.where(last_B == NO_TIME, 0, last_B) + 3600
        context_BCF = context_numbers(self.runtime.context_fields, time_B, last_B)[:, None]
        difference_BCT = np.abs(
            self.runtime.score(kept, number_BCF, context_BCF, time_B)[0]
            - self.runtime.score(wanted, number_BCF, context_BCF, time_B)[0]
        )
        difference_B = np.where(same_B, difference_BCT.reshape(size, -1).max(axis=1, initial=0), 0)
        return ~(difference_B <= self.runtime.codec.logit_tolerance), float(difference_B.max(initial=0))


def _merge(one: VerifyReport, other: VerifyReport) -> VerifyReport:
    largest = ("memory_difference", "score_difference")
    merged = {name: max(getattr(one, name), getattr(other, name)) for name in largest}
    counts = [part.name for part in fields(VerifyReport) if part.name not in (*largest, "reasons")]
    merged |= {name: getattr(one, name) + getattr(other, name) for name in counts}
    return VerifyReport(**merged, reasons=dict(islice({**one.reasons, **other.reasons}.items(), _NAMED)))
