"""Protocols: which events are targets, and to which split each target belongs.

    temporal      every event (of the wanted types) is a target; two global cut times
    paper         the last event of each user, by a coin flip replaced by another item; users split by its time
    impressions   logged labels; two cut times over the impressions
    given         logged labels; the source says which are for training and which for testing

A protocol gives a `Plan`: what the training period is, and the targets in chunks. Times of cuts are exact order
statistics: `sorted(times)[int(q * n)]`; a target at the cut itself belongs to the later split (temporal, impressions)
or to training (paper).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import CHUNK, read_slice, user_chunks
from lifelong.data.examples import SPLITS, Examples, Split
from lifelong.data.histories import Histories
from lifelong.data.negatives import row_counts, time_window
from lifelong.data.numbering import SPLIT_CODES
from lifelong.errors import DataError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TEST_CUT = 0.7
VALIDATION_SHARE = 0.1
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Plan:
    """What a protocol makes of a log.

    Args:
        cut_times: as the manifest keeps them.
        split_of: split number (place in `SPLITS`) of events, from their user and time, -1 for none; it says in whose
            period an event lies. Number 0 is the training period, from which all statistics come.
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
        """How often each catalogue row (or other value of the events) stands in the training period."""
        count = row_counts(histories, num_rows, lambda user, time: self.split_of(user, time) == 0, values=values)
        return count + self.extra_count(num_rows) if self.extra_count and values is None else count


@dataclass(frozen=True, slots=True)
class Moments:
    """Chunks of the histories in which each event knows its position.

    Args:
        folder: histories.
        target_codes: codes of event types that make a target; None = every event.
        type_code: file of the codes.
        tasks: codes of the event types of each task; () = one task, 1 for every target.
    """

    folder: Path
    target_codes: tuple[int, ...] | None = None
    type_code: Path | None = None
    tasks: tuple[tuple[int, ...], ...] = ()

    def targets(self) -> Iterator[Examples]:
        """Every target of the log as a positive, users in order."""
        offset_U = np.load(self.folder / "offset.npy")
        for first, last in user_chunks(offset_U):
            low, high = int(offset_U[first]), int(offset_U[last])
            user_N = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(offset_U[first : last + 1]))
            time_N = read_slice(self.folder / "time.npy", low, high)
            position_N = moment_starts(user_N, time_N) + low - offset_U[user_N]
            row_N = read_slice(self.folder / "row.npy", low, high)
            examples = Examples(
                user_N, row_N, time_N, position_N.astype(np.int32), np.ones((len(user_N), 1), np.float32)
            )
            if self.type_code is not None and (self.tasks or self.target_codes is not None):
                code_N = read_slice(self.type_code, low, high)
                wanted = np.ones(len(code_N), bool)
                if self.target_codes is not None:
                    wanted = np.isin(code_N, self.target_codes)
                if self.tasks:
                    examples, code_N = examples.take(np.flatnonzero(wanted)), code_N[wanted]
                    label_NT = np.stack([np.isin(code_N, codes) for codes in self.tasks], axis=1).astype(np.float32)
                    yield joined(replace(examples, label_NT=label_NT))
                    continue
                examples = examples.take(np.flatnonzero(wanted))
            yield examples


def joined(examples: Examples) -> Examples:
    """One example for each item of a moment, at the place of its first event: with the labels of all its events.

    Args:
        examples: of whole users, in order; one for each event.
    """
    columns = (examples.row_N, examples.position_N, examples.user_N)
    order_N = np.lexsort(columns)
    fresh_N = np.ones(len(order_N), bool)
    fresh_N[1:] = np.logical_or.reduce([column[order_N][1:] != column[order_N][:-1] for column in columns])
    start_G = np.flatnonzero(fresh_N)
    if not len(start_G):
        return examples
    # The sort is stable: the first of a group is its first event.
    label_GT = np.maximum.reduceat(examples.label_NT[order_N], start_G, axis=0)
    first_G = order_N[start_G]
    back_G = np.argsort(first_G)
    return replace(examples.take(first_G[back_G]), label_NT=label_GT[back_G])


def moment_starts(user_N: npt.NDArray[np.integer], time_N: IntArray) -> IntArray:
    """For sorted events: place of the first event that has the same user and time."""
    place_N = np.arange(len(user_N))
    new_N = np.ones(len(user_N), bool)
    new_N[1:] = (user_N[1:] != user_N[:-1]) | (time_N[1:] != time_N[:-1])
    starts: IntArray = np.maximum.accumulate(np.where(new_N, place_N, 0))
    return starts


def temporal(moments: Moments, cut_times: tuple[int, int]) -> Plan:
    """Targets before the first cut are training, before the second validation, then test."""
    if cut_times[0] == cut_times[1]:
        raise DataError(
            f"both cut times are {cut_times[0]}, so validation would be empty",
            expected="events at enough different times",
            fix="choose other cuts, or a protocol that does not cut by time",
        )

    def targets() -> Iterator[Mapping[Split, Examples]]:
        for examples in moments.targets():
            yield _by_window(examples, cut_times)

    return Plan(cut_times, lambda user, time: np.searchsorted(np.array(cut_times), time, side="right"), targets)


def paper(moments: Moments, num_users: int) -> Plan:
    """The last target of each user; the latest 30 % of the users are test, 10 % of the others validation.

    Ties at the cut are training. The validation users are the latest of the training users, by (time, user id).

    Raises:
        DataError: a split would be empty.
    """
    last = _last_targets(moments)
    if len(last) < 2:
        raise DataError(f"{len(last)} users have a target", expected="many users", fix="check files and event types")
    cut = int(np.sort(last.time_N)[int(TEST_CUT * len(last))])
    before = np.flatnonzero(last.time_N <= cut)
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
    split_U = np.full(num_users, -1)
    split_U[last.user_N] = split_N

    def targets() -> Iterator[Mapping[Split, Examples]]:
        yield {split: last.take(np.flatnonzero(split_N == place)) for place, split in enumerate(SPLITS)}

    return Plan((cut,), lambda user, time: split_U[user], targets)


def impressions(histories: Histories, work: Path, cut_times: tuple[int, int]) -> Plan:
    """Logged labels, cut by time.

    Raises:
        DataError: both cuts are the same.
    """
    if cut_times[0] == cut_times[1]:
        raise DataError(
            f"both cut times are {cut_times[0]}, so validation would be empty",
            expected="impressions at enough different times",
            fix="choose other cuts",
        )

    def targets() -> Iterator[Mapping[Split, Examples]]:
        for examples, _ in _logged(histories, work):
            yield _by_window(examples, cut_times)

    def split_of(user_N: IntArray, time_N: IntArray) -> IntArray:
        return np.searchsorted(np.array(cut_times), time_N, side="right")

    return Plan(cut_times, split_of, targets, _training_rows(targets))


def given(histories: Histories, work: Path, hash_U: npt.NDArray[np.uint64]) -> Plan:
    """Logged labels with a split of the source; validation = the tenth of the training users with the smallest id hash.

    A source that names validation rows itself keeps them. The training period is, for each training user, the time
    before her last training target.

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

    last_U = np.full(histories.num_users, NEVER)
    for chunk in targets():
        np.maximum.at(last_U, chunk["train"].user_N, chunk["train"].time_N)

    def split_of(user_N: IntArray, time_N: IntArray) -> IntArray:
        return np.where(time_N < last_U[user_N], 0, -1)

    return Plan((), split_of, targets, _training_rows(targets))


def _by_window(examples: Examples, cut_times: tuple[int, int]) -> Mapping[Split, Examples]:
    windows = {split: time_window(cut_times, split) for split in SPLITS}
    time_N = examples.time_N
    return {
        split: examples.take(np.flatnonzero((time_N >= low) & (time_N < high)))
        for split, (low, high) in windows.items()
    }


def _last_targets(moments: Moments) -> Examples:
    parts = []
    for examples in moments.targets():
        is_last = np.ones(len(examples), bool)
        is_last[:-1] = examples.user_N[1:] != examples.user_N[:-1]
        parts.append(examples.take(np.flatnonzero(is_last)))
    return concatenate(parts)


def _logged(histories: Histories, work: Path) -> Iterator[tuple[Examples, npt.NDArray[np.int8]]]:
    length = len(np.load(work / "user.npy", mmap_mode="r"))
    for start in range(0, length, CHUNK):
        user_N, row_N, time_N, label_NT, split_N = (
            read_slice(work / f"{name}.npy", start, start + CHUNK) for name in ("user", "row", "time", "label", "split")
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
    return Examples(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("user_N", "row_N", "time_N", "position_N", "label_NT")
        )
    )
