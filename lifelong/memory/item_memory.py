"""The side of items in a service: the last events of each item, over all its users, and what a candidate gets of them.

    event --user's number and profile, type, gap--> the item's window (a ring, in the same commit as the user's memory)
    candidate --its item's window--> item_write graph, event by event --> item_read graph, the user as query --> head

What is kept of an item is what a training sees of it: its last `recent` events, a window of which starts at a multiple
of the largest period. So a score is the one that the evaluation gives, at a price that does not grow with the history.

Shapes: B users, C candidates, I items, L events of a window, F fields, X what a candidate gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import ITEM_RUN, NUMBER, TIME, recent_layout
from lifelong.data.events import gap_numbers
from lifelong.data.item_windows import ItemReader, ItemSpan
from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import StoreError, StoreForeignError
from lifelong.memory.codec import make_codec
from lifelong.memory.graphs import Session
from lifelong.memory.plan import Plan, make_plan
from lifelong.memory.recent import unroll
from lifelong.memory.state import States

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.data.known_users import KnownUsers
    from lifelong.memory.event_table import EventTable
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
ITEMS: Final = 2**31
"""Slot of the records of items; those of artifacts are counted from 0."""
_FOLDED = 64 * 2**20
"""Bytes of the windows that are kept with what they were folded into, about."""
_WINDOWS = 512
"""Windows that go through the write graph at once."""
_CELLS = 8_192
"""Candidates that go through the read graph at once."""


class ItemMemories:
    """Writes and reads the windows of items, with the graphs of an artifact. Threads may share it.

    Args:
        artifact: of a model that has a side of items.
        threads: threads of one graph.
    """

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        side, inputs = artifact.config.items, artifact.config.input_spec.item_side
        assert side is not None
        self.span = ItemSpan(side.recent, side.period)
        self.users: KnownUsers = artifact.known_users
        self._memory = side.memory
        self._query = tuple(inputs.item)
        self._event = (*inputs.item, *inputs.event)
        # Whole numbers are kept bit for bit, whatever the codec of the memories of users.
        self.codec = make_codec("fp32", recent_layout(side.recent, len(self._event)))
        self._tables = {field: np.asarray(table) for field, table in artifact.item_tables.items()}
        self._write, self._read = Session(artifact, "item_write", threads), Session(artifact, "item_read", threads)
        has_runs = artifact.graph(ITEM_RUN).exists()
        self._runs = Session(artifact, ITEM_RUN, threads) if has_runs else None
        self._typed = "event_type" in inputs.event
        self._item_fields = len(artifact.config.dataset_schema.item_fields)
        self.profile_fields = self._query[1:]
        """Context fields of a profile that are part of the query."""
        self._folded: dict[bytes, tuple[npt.NDArray[Any], ...]] = {}
        self._most = max(1, _FOLDED // (self.codec.size + sum(4 * part.size for part in side.memory)))
        nothing = self._fold(np.zeros((1, 1, len(self._event)), np.int64), np.zeros(1, np.int64))
        interest = self._ask(nothing, np.full((1, len(self._query)), UNKNOWN, np.int64))
        self.width = interest.shape[-1] + self._tables["gap"].shape[1]
        """Of what a candidate gets: the interest, and the time since its item's last event."""

    def after(self, before: States, item_N: IntArray, events: EventTable, number_NF: IntArray) -> States:
        """The windows of items after more events, in their order.

        Args:
            before: of I items.
            item_N: place of each event's item.
            events: they.
            number_NF: their numbers of `schema.history_fields`.
        """
        time_N = np.asarray(events.time_N, np.int64)
        plan = make_plan(item_N, time_N, before.last_time_B, refuse=False)
        columns = [self.users.numbers(events.user)]
        if self._typed:
            columns.append(number_NF[:, self._item_fields, None])
        columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
        return self._appended(before, plan, np.concatenate(columns, axis=1))

    def _appended(self, before: States, plan: Plan, number_NF: IntArray) -> States:
        states = before.take(np.arange(len(before)))
        place_N = before.count_B[plan.user_N] + plan.rank_N
        np.add.at(states.count_B, plan.user_N, 1)
        np.maximum.at(states.last_time_B, plan.user_N, plan.time_N)
        # Of many events of one item the last ones stay: so no place of a ring is written twice.
        kept_N = place_N >= states.count_B[plan.user_N] - self.span.recent
        self._put(states, plan.user_N[kept_N], place_N[kept_N], number_NF[kept_N], plan.time_N[kept_N])
        return states

    def _put(self, states: States, item_N: IntArray, place_N: IntArray, number_NF: IntArray, time_N: IntArray) -> None:
        """Write events into windows, each at its place in the item's history."""
        ring_N = place_N % self.span.recent
        states.fields[NUMBER][item_N, ring_N], states.fields[TIME][item_N, ring_N] = number_NF, time_N

    def of_dataset(self, dataset: Dataset, row_I: IntArray, until: int | None) -> States:
        """The windows of items as a dataset has them: what its events give, written in the order of their times.

        Args:
            dataset: with item histories.
            row_I: catalogue rows.
            until: only events with an earlier time; None for all.

        Raises:
            DatasetError: it was prepared without item histories.
        """
        moment = np.iinfo(np.int64).max if until is None else until
        windows = ItemReader(dataset, self.span).until(row_I, np.full(len(row_I), moment))
        number_ILF, time_IL, start_I, end_I = windows
        states = States.empty(self.codec.layout, len(row_I))
        states.count_B[:] = end_I
        place_IL = start_I[:, None] + np.arange(time_IL.shape[1])
        item_N, step_N = np.nonzero(place_IL < end_I[:, None])
        event = item_N, step_N
        self._put(states, item_N, place_IL[event], number_ILF[event], time_IL[event])
        some = end_I > 0
        states.last_time_B[some] = time_IL[some, (end_I - start_I - 1)[some]]
        return states

    def query(self, users: Sequence[str], profiles: Sequence[Mapping[str, int]]) -> IntArray:
        """Numbers `[B, F]` by which users read.

        Args:
            users: ids.
            profiles: context field -> number, of those fields that came with the request.
        """
        number_BF = self.users.numbers(users)
        for place, profile in enumerate(profiles):
            for field, number in profile.items():
                number_BF[place, self._query.index(field)] = number
        return number_BF

    def seen(
        self, records: Sequence[bytes | None], item_BC: IntArray, query_BF: IntArray, time_B: IntArray
    ) -> FloatArray:
        """What candidates get of their items: `[B, C, X]`.

        Args:
            records: the windows of I items, as a store keeps them.
            item_BC: place of each candidate's item among them.
            query_BF: see `query`.
            time_B: moment of the request.

        Raises:
            StoreCorruptError: a record cannot be decoded.
        """
        if not item_BC.size:
            return np.zeros((*item_BC.shape, self.width), np.float32)
        states = self.codec.decode(records)
        memory = self._memories(records, states)
        item_N, user_N = item_BC.ravel(), np.repeat(np.arange(len(item_BC)), item_BC.shape[1])
        parts = []
        for start in range(0, len(item_N), _CELLS):
            chosen = slice(start, start + _CELLS)
            of_cells = {name: value[item_N[chosen]] for name, value in memory.items()}
            parts.append(self._ask(of_cells, query_BF[user_N[chosen]]))
        gap_N = gap_numbers(time_B[user_N], states.last_time_B[item_N])
        found = np.concatenate([np.concatenate(parts), self._tables["gap"][gap_N]], axis=1)
        return found.reshape(*item_BC.shape, self.width)

    def _memories(self, records: Sequence[bytes | None], states: States) -> dict[str, npt.NDArray[Any]]:
        """Folded windows of I items, those of records that were folded lately from there."""
        keys, kept = [record or b"" for record in records], self._folded
        missing = [place for place, key in enumerate(keys) if key not in kept]
        if missing:
            chosen = states.take(np.array(missing, np.int64))
            start_M = self.span.starts(chosen.count_B)
            recent = unroll(chosen)
            # The ring holds `recent` events, and a window starts behind the first of them.
            skip_M = start_M - (chosen.count_B - recent.length_B)
            length_M = recent.length_B - skip_M
            place_ML = skip_M[:, None] + np.arange(max(1, int(length_M.max(initial=0))))
            place_ML = np.minimum(place_ML, recent.number_BLF.shape[1] - 1)
            number_MLF = np.take_along_axis(recent.number_BLF, place_ML[..., None], axis=1)
            folded = self._fold(number_MLF, length_M)
            rows_M = dict(zip([keys[place] for place in missing], zip(*folded.values(), strict=True), strict=True))
            if len(missing) == len(keys):
                self._keep(rows_M)
                return folded
            # A copy: another thread may empty what is kept.
            kept = {key: kept[key] for key in keys if key in kept} | rows_M
            self._keep(rows_M)
        rows = [kept[key] for key in keys]
        names = ["count", *(part.name for part in self._memory)]
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def _keep(self, folded: Mapping[bytes, tuple[npt.NDArray[Any], ...]]) -> None:
        if len(self._folded) + len(folded) > self._most:
            self._folded = {}
        self._folded.update(folded)

    def _fold(self, number_MLF: IntArray, length_M: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Memories of windows: their whole periods at once, where there is a graph for it, the rest event by event."""
        size = len(length_M)
        found = {part.name: np.zeros((size, *part.shape), part.dtype) for part in self._memory}
        count_M = np.zeros(size, np.int64)
        names = [f"new_{name}" for name in found]
        if self._runs is not None:
            count_M = length_M // self.span.period * self.span.period
            for place in _parts(np.flatnonzero(count_M), _WINDOWS):
                event_MLE = self._embed(number_MLF[place, : count_M[place].max()], self._event)
                feed = {name: value[place] for name, value in found.items()}
                found_M = self._runs(names, {**feed, "event": event_MLE, "length": count_M[place]})
                for name, value in zip(found, found_M, strict=True):
                    found[name][place] = value
        left_M = length_M - count_M
        for some in _parts(np.argsort(-left_M, kind="stable"), _WINDOWS):
            for step in range(int(left_M[some].max(initial=0))):
                place = some[: int(np.searchsorted(-left_M[some], -step, side="left"))]
                feed = {"count": count_M[place], **{name: value[place] for name, value in found.items()}}
                feed["event"] = self._embed(number_MLF[place, count_M[place]], self._event)
                for name, value in zip(found, self._write(names, feed), strict=True):
                    found[name][place] = value
                count_M[place] += 1
        return {"count": count_M, **found}

    def _ask(self, memory: Mapping[str, npt.NDArray[Any]], query_NF: IntArray) -> FloatArray:
        """What N users read of N memories: `[N, D]`."""
        feed = {name: value[:, None] for name, value in memory.items()}
        feed["target"] = self._embed(query_NF, self._query)[:, None]
        return self._read(["interest"], feed)[0][:, 0]

    def _embed(self, number_NF: IntArray, fields: Sequence[str]) -> FloatArray:
        vectors = [self._tables[field][number_NF[..., place]] for place, field in enumerate(fields)]
        return np.concatenate(vectors, axis=-1)

    def times_of(self, states: States, number: int) -> list[list[int]]:
        """Times of one user's events in each of the windows, in no order."""
        pairs = zip(states.fields[NUMBER][..., 0], states.fields[TIME], strict=True)
        return [time_L[number_L == number].tolist() for number_L, time_L in pairs]

    def unlinked(self, states: States, number_U: IntArray) -> IntArray:
        """Makes users unknown in windows, in place; which of the windows had them."""
        theirs_IL = np.isin(states.fields[NUMBER][..., 0], number_U)
        states.fields[NUMBER][theirs_IL, : len(self._query)] = UNKNOWN
        found: IntArray = np.flatnonzero(theirs_IL.any(axis=1))
        return found


def _parts(place_N: IntArray, size: int) -> Iterator[IntArray]:
    return (place_N[start : start + size] for start in range(0, len(place_N), size))


def require_items(artifact: Artifact, store: MemoryStore) -> None:
    """Refuse a store that cannot keep the windows of items with the memories of users.

    Raises:
        StoreError: a commit of it is not one for all keys.
        StoreForeignError: it keeps memories of several artifacts.
    """
    if artifact.config.items is None:
        return
    if not store.whole:
        raise StoreError(
            f"{artifact.config.title} keeps an item's events beside a user's memory, and this store writes them apart",
            expected="a store in which a commit of several records is all there or not at all",
            fix="a folder of one database: --store rocksdb:///path, without shards",
        )
    if len(store.roster().members) > 1:
        raise StoreForeignError(
            f"{artifact.config.title} keeps events of items, which no other artifact of a store can share",
            expected="a store of this artifact alone",
            fix="fill a new store with `lifelong backfill ARTIFACT DATA`",
        )
