"""Protocols: which events are targets, and to which split each target belongs.

    temporal      every event (of the wanted types) is a target; two global cut times
    paper         the last event of each user, replaced by another item on a coin flip; users split by its time
    impressions   logged labels; two cut times over the impressions
    given         logged labels; the source says which are for training and which for testing

A third cut time puts the targets from it on into the vault; where a protocol does not cut by time, the targets of some
users are (`of_users`).

A protocol gives a `Plan`: what the training period is, and the targets in chunks. Cut times are exact order statistics,
`sorted(times)[int(q * n)]`. A target at the cut itself belongs to the later split (temporal, impressions) or to
training (paper).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import CHUNK, event_chunks, is_first, ranks, read_slice
from lifelong.dataset.examples import SPLITS, VAULT, Examples, Split
from lifelong.dataset.histories import Histories
from lifelong.dataset.negatives import row_counts
from lifelong.dtypes import BoolArray, IntArray
from lifelong.errors import DataError
from lifelong.offline.preparation.numbering import SPLIT_CODES

TEST_CUT = 0.7
VALIDATION_SHARE = 0.1
PERIODS: tuple[Split, ...] = (*SPLITS, VAULT)
"""All splits, in order of time."""
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Plan:
    """What a protocol makes of a log.

    Args:
        cut_times: as the manifest keeps them.
        split_of: the split (place in `PERIODS`, -1 for none) that an event's period belongs to, from its user and time.
            Split 0 is the training period, from which all statistics come.
        targets: yields the targets of each split chunk by chunk, users in order.
        extra_count: rows of labelled training targets that are not events (impressions), to count with the events.
    """

    cut_times: tuple[int, ...]
    split_of: Callable[[IntArray, IntArray], IntArray]
    targets: Callable[[], Iterator[Mapping[Split, Examples]]]
    extra_count: Callable[[int], IntArray] | None = None

    def training_counts(
        self, histories: Histories, num_rows: int, *, values: npt.NDArray[np.integer] | None = None
    ) -> IntArray:
        """How often each catalogue row (or other value of the events) occurs in the training period."""
        count = row_counts(histories, num_rows, lambda user, time: self.split_of(user, time) == 0, values=values)
        return count + self.extra_count(num_rows) if self.extra_count and values is None else count


@dataclass(frozen=True, slots=True)
class Moments:
    """Chunks of the histories in which each event knows its position.

    Args:
        folder: of the histories.
        target_codes: codes of event types that make a target; None = every event.
        type_code: file with the code of each event.
        tasks: codes of the event types of each task; () = one task, with label 1 for every target.
        ties_seen: whether a target sees the events of its own time that come before it, and not those of earlier times
            alone.
    """

    folder: Path
    target_codes: tuple[int, ...] | None = None
    type_code: Path | None = None
    tasks: tuple[tuple[int, ...], ...] = ()
    ties_seen: bool = False

    def targets(self) -> Iterator[Examples]:
        """Every target of the log as a positive, users in order."""
        offset_U = np.load(self.folder / "offset.npy")
        for user_N, events in event_chunks(offset_U):
            row_N, time_N = (read_slice(self.folder / f"{name}.npy", events) for name in ("row", "time"))
            # A target sees the events before its moment: a place in the chunk, made one in the user's history.
            seen_N = np.arange(len(user_N)) if self.ties_seen else moment_starts(user_N, time_N)
            position_N = (events.start + seen_N - offset_U[user_N]).astype(np.int32)
            one_N1 = np.ones((len(user_N), 1), np.float32)
            yield self._labelled(Examples(user_N.astype(np.int32), row_N, time_N, position_N, one_N1), events)

    def _labelled(self, examples: Examples, events: slice) -> Examples:
        """The examples of the wanted types, one for each event, with a label for each task."""
        if self.type_code is None or not (self.tasks or self.target_codes is not None):
            return examples
        code_N = read_slice(self.type_code, events)
        if self.target_codes is not None:
            wanted_N = np.isin(code_N, self.target_codes)
            examples, code_N = examples.take(wanted_N), code_N[wanted_N]
        if not self.tasks:
            return examples
        label_NT = np.stack([np.isin(code_N, codes) for codes in self.tasks], axis=1).astype(np.float32)
        return joined(replace(examples, label_NT=label_NT))


def joined(examples: Examples) -> Examples:
    """One example for each item of a moment, at the place of its first event, with the labels of all its events.

    Args:
        examples: of whole users, in order; one for each event.
    """
    columns = (examples.row_N, examples.position_N, examples.user_N)
    order_N = np.lexsort(columns)
    start_G = np.flatnonzero(is_first(*(column[order_N] for column in columns)))
    if not len(start_G):
        return examples
    # The sort is stable, so the first of a group is its first event; `back_G` restores the order of the events.
    label_GT = np.maximum.reduceat(examples.label_NT[order_N], start_G, axis=0)
    first_G = order_N[start_G]
    back_G = np.argsort(first_G)
    return replace(examples.take(first_G[back_G]), label_NT=label_GT[back_G])


def moment_starts(user_N: npt.NDArray[np.integer], time_N: IntArray) -> IntArray:
    """For sorted events: the place of the first event with that user and time.

    >>> moment_starts(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 6])).tolist()
    [0, 0, 2, 3]
    """
    return np.arange(len(user_N)) - ranks(is_first(user_N, time_N))


def temporal(moments: Moments, cut_times: tuple[int, ...]) -> Plan:
    """Targets before the first cut are training, before the second validation, before the third test, then vault.

    Raises:
        DataError: two cuts are equal.
    """
    _check_cuts(cut_times, "events")

    def targets() -> Iterator[Mapping[Split, Examples]]:
        for examples in moments.targets():
            yield _by_window(examples, cut_times)

    return Plan(cut_times, _split_by_time(cut_times), targets)


def paper(moments: Moments, num_users: int) -> Plan:
    """The last target of each user; the latest 30 % of the users are test, 10 % of the others validation.

    Targets at the cut are training. The validation users are the latest of the training users, by (time, user id).
    Where the moments say so (`ties_seen`), a target sees all events of its user but itself, as in the authors' code.

    Raises:
        DataError: a split would be empty.
    """
    last = _last_targets(moments)
    if len(last) < 2:
        raise DataError(f"{len(last)} users have a target", expected="many users", fix="check files and event types")
    cut = int(np.sort(last.time_N)[int(TEST_CUT * len(last))])
    before = np.flatnonzero(last.time_N <= cut)
    # Stable on users in the order of their ids: of equal times the larger id is the later one.
    before = before[np.argsort(last.time_N[before], kind="stable")]
    split_N = np.full(len(last), SPLITS.index("test"))
    split_N[before] = SPLITS.index("train")
    split_N[before[len(before) - max(int(VALIDATION_SHARE * len(before)), 1) :]] = SPLITS.index("validation")
    if len(np.unique(split_N)) < len(SPLITS):
        raise DataError(
            f"cut at {cut}, the last events of {len(last)} users leave a split empty",
            expected="last events at different times, of at least three users",
            fix="choose the temporal protocol",
        )
    # -1 for users without a target: their events are in no period.
    split_U = np.full(num_users, -1)
    split_U[last.user_N] = split_N

    def targets() -> Iterator[Mapping[Split, Examples]]:
        yield {split: last.take(np.flatnonzero(split_N == place)) for place, split in enumerate(SPLITS)}

    return Plan((cut,), lambda user, time: split_U[user], targets)


def impressions(histories: Histories, work: Path, cut_times: tuple[int, ...]) -> Plan:
    """Logged labels, cut by time.

    Raises:
        DataError: two cuts are equal.
    """
    _check_cuts(cut_times, "impressions")

    def targets() -> Iterator[Mapping[Split, Examples]]:
        for examples, _ in _logged(histories, work):
            yield _by_window(examples, cut_times)

    return Plan(cut_times, _split_by_time(cut_times), targets, _training_rows(targets))


def _check_cuts(cut_times: tuple[int, ...], what: str) -> None:
    # With many events at one time, two shares of the log can end at the same second.
    equal = [place for place in range(1, len(cut_times)) if cut_times[place - 1] == cut_times[place]]
    if equal:
        raise DataError(
            f"both cut times are {cut_times[equal[0]]}, so {PERIODS[equal[0]]} would be empty",
            expected=f"{what} at enough different times",
            fix="choose other cuts, or a protocol that does not cut by time",
        )


def _split_by_time(cut_times: tuple[int, ...]) -> Callable[[npt.NDArray[np.integer], IntArray], IntArray]:
    # From the right: an event at a cut time belongs to the later split.
    return lambda user_N, time_N: np.searchsorted(np.array(cut_times), time_N, side="right")


def given(histories: Histories, work: Path, hash_U: npt.NDArray[np.uint64]) -> Plan:
    """Logged labels with a split by the source.

    Validation is the tenth of the training users with the smallest id hashes, unless the source names validation rows
    itself. The training period of each training user is the time before her last training target.

    Args:
        histories: all events.
        work: impressions, as `numbering` wrote them.
        hash_U: `id_hash` of each user.

    Raises:
        DataError: a split would be empty.
    """
    code_of = {split: SPLIT_CODES[split] for split in SPLITS}
    held_SU = np.zeros((len(SPLITS), histories.num_users), bool)
    for examples, code_N in _logged(histories, work):
        held_SU[code_N, examples.user_N] = True
    moved_U = np.zeros(histories.num_users, bool)
    if not held_SU[code_of["validation"]].any():
        training = np.flatnonzero(held_SU[code_of["train"]])
        number = max(int(VALIDATION_SHARE * len(training)), 1)
        # By hash and not by draw: whether a user is chosen hardly depends on which others a file holds.
        moved_U[training[np.argsort(hash_U[training], kind="stable")[:number]]] = True
    if not (held_SU[code_of["train"]] & ~moved_U).any() or not held_SU[code_of["test"]].any():
        raise DataError(
            "the given split leaves training, validation or test empty",
            expected="rows of at least two training users, and test rows",
            fix="give the training and the test file",
        )

    def targets() -> Iterator[Mapping[Split, Examples]]:
        for examples, code_N in _logged(histories, work):
            moved = (code_N == code_of["train"]) & moved_U[examples.user_N]
            split_N = np.where(moved, code_of["validation"], code_N)
            yield {split: examples.take(np.flatnonzero(split_N == code_of[split])) for split in SPLITS}

    # A user without a training target has no training period: no event of hers comes before this time.
    last_U = np.full(histories.num_users, NEVER)
    for chunk in targets():
        # A user occurs once per target; plain indexing would keep only one of the times.
        np.maximum.at(last_U, chunk["train"].user_N, chunk["train"].time_N)

    def split_of(user_N: IntArray, time_N: IntArray) -> IntArray:
        return np.where(time_N < last_U[user_N], 0, -1)

    return Plan((), split_of, targets, _training_rows(targets))


def _by_window(examples: Examples, cut_times: tuple[int, ...]) -> Mapping[Split, Examples]:
    split_N = _split_by_time(cut_times)(examples.user_N, examples.time_N)
    return {split: examples.take(split_N == place) for place, split in enumerate(PERIODS[: len(cut_times) + 1])}


def of_users(targets: Callable[[], Iterator[Examples]], chosen_U: BoolArray) -> Plan:
    """The targets of some users are the vault; there is no other split.

    Args:
        targets: all targets, users in order.
        chosen_U: whether a user is one of them.
    """

    def split_of(user_N: IntArray, time_N: IntArray) -> IntArray:
        return np.where(chosen_U[user_N], PERIODS.index(VAULT), -1)

    def chosen() -> Iterator[Mapping[Split, Examples]]:
        for examples in targets():
            yield {VAULT: examples.take(chosen_U[examples.user_N])}

    return Plan((), split_of, chosen)


def last_targets(moments: Moments) -> Iterator[Examples]:
    """The last target of each user, as `paper` has it."""
    yield _last_targets(moments)


def given_for_testing(histories: Histories, work: Path) -> Iterator[Examples]:
    """Logged labels that the source gave for testing."""
    for examples, code_N in _logged(histories, work):
        yield examples.take(code_N == SPLIT_CODES["test"])


def _last_targets(moments: Moments) -> Examples:
    # Read backwards, the first target of a user is her last one.
    return concatenate([part.take(is_first(part.user_N[::-1])[::-1]) for part in moments.targets()])


def _logged(histories: Histories, work: Path) -> Iterator[tuple[Examples, npt.NDArray[np.int8]]]:
    length = len(np.load(work / "user.npy", mmap_mode="r"))
    for start in range(0, length, CHUNK):
        user_N, row_N, time_N, label_NT, split_N = (
            read_slice(work / f"{name}.npy", slice(start, start + CHUNK))
            for name in ("user", "row", "time", "label", "split")
        )
        position_N = histories.positions(user_N, time_N).astype(np.int32)
        yield Examples(user_N, row_N, time_N, position_N, label_NT), split_N


def _training_rows(targets: Callable[[], Iterator[Mapping[Split, Examples]]]) -> Callable[[int], IntArray]:
    def count(num_rows: int) -> IntArray:
        counts = np.zeros(num_rows, np.int64)
        for chunk in targets():
            counts += np.bincount(chunk["train"].row_N, minlength=num_rows)
        return counts

    return count


def concatenate(parts: list[Examples]) -> Examples:
    """Examples one after another."""
    return Examples(*map(np.concatenate, zip(*(part.columns() for part in parts), strict=True)))
