"""Folds events, given by ids, into the memories of one artifact.

events --numbers of the artifact's vocabularies--> write graph, the k-th events of all users together
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.events import gap_numbers
from lifelong.memory.runtime import Runtime
from lifelong.memory.state import States

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.event_table import EventTable
    from lifelong.memory.plan import Plan
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
_GIVEN = 65_536
"""Items with fields of their own whose numbers are kept at hand."""
_LONG = 64
"""Events of one user in a batch that are a long run, where the artifact has a graph for such."""
_FEW = 2
"""Users of whom a run of events is folded in by itself, and not the k-th events of all together."""


class Folder:
    """Folds events into memories of an artifact.

    Args:
        artifact: of a model that is served.
        codec: of its memories.
        store: where items were put online.

    Raises:
        ArtifactError: the model cannot be served, and why.
    """

    def __init__(self, artifact: Artifact, codec: str, store: MemoryStore) -> None:
        self.artifact, self.store, self.runtime = artifact, store, Runtime(artifact, codec=codec)
        self.schema = artifact.config.dataset_schema
        self._given: dict[tuple[object, ...], IntArray] = {}

    def known(self, fields: Mapping[str, str | None]) -> dict[str, str | None]:
        """Those of an item's fields that the artifact has."""
        return self.artifact.catalogue.only_known(fields)

    def numbers(self, events: EventTable, plan: Plan) -> tuple[IntArray, IntArray]:
        """Numbers `[N, F]` of `schema.history_fields`, and which of the N have a new event type."""
        unknown_N = np.zeros(0, np.int64)
        columns = [self._item_numbers(events)]
        types = self.artifact.event_types
        if types is not None:
            values = list(dict.fromkeys(events.event_type or [None] * min(len(events), 1)))
            of_type = dict(zip(values, types.numbers(values).tolist(), strict=True))
            kinds = events.event_type or [None] * len(events)
            number_N = np.fromiter(map(of_type.__getitem__, kinds), np.int64, len(events))
            new = {value for value in values if value is not None and of_type[value] < types.first_known}
            if new:
                unknown_N = np.array([place for place, kind in enumerate(kinds) if kind in new], np.int64)
            columns.append(number_N[:, None])
        if "gap" in self.schema.event_fields:
            columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
        return np.concatenate(columns, axis=1), unknown_N

    def _item_numbers(self, events: EventTable) -> IntArray:
        """Numbers `[N, F]` of the item fields."""
        catalogue, online = self.artifact.catalogue, self._put_online(events.item) if self.store.has_items else {}
        given = [online.get(item) for item in events.item] if online else None
        number_NF = catalogue.numbers(events.item, given)
        if events.fields is not None:
            some = [place for place, fields in enumerate(events.fields) if fields]
            rows = [self._given_numbers(events, place, online.get(events.item[place])) for place in some]
            number_NF[some] = np.reshape(rows, (-1, number_NF.shape[1]))
        return number_NF

    def _put_online(self, items: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Fields of those items that were put online; of fields that another artifact has and this one not, none."""
        distinct = list(dict.fromkeys(items))
        return {
            item: self.artifact.catalogue.only_known(json.loads(value))
            for item, value in zip(distinct, self.store.read_items(distinct), strict=True)
            if value is not None
        }

    def _given_numbers(self, events: EventTable, place: int, online: Mapping[str, str | None] | None) -> IntArray:
        """Numbers `[F]` of an item whose event brought fields; these win over those put online."""
        assert events.fields is not None
        item, fields = events.item[place], {**(online or {}), **(events.fields[place] or {})}
        key = (item, *fields.items())
        row = self._given.get(key)
        if row is None:
            row = self.artifact.catalogue.numbers([item], [fields])[0]
            if len(self._given) >= _GIVEN:
                self._given.clear()
            self._given[key] = row
        return row

    def fold(self, states: States, plan: Plan, number_NF: IntArray) -> tuple[States, IntArray]:
        """Memories after all events, and each event's place in its user's history (from 1)."""
        count_N = states.count_B[plan.user_N] + plan.rank_N + 1
        stride = self.runtime.stride
        if stride is None or not len(plan.rank_N) or plan.rank_N.max() < max(_LONG, 2 * stride):
            return self._in_rounds(states, plan, number_NF), count_N
        # Of users with many events those up to a whole stride, then as many strides as there are, then the rest.
        size_U = np.bincount(plan.user_N, minlength=len(states))
        head_U = -states.count_B % stride
        run_U = np.where(size_U > max(_LONG, 2 * stride), (size_U - head_U) // stride * stride, 0)
        head_U = np.where(run_U > 0, head_U, size_U)
        past_N = plan.rank_N - head_U[plan.user_N]
        before, behind = np.flatnonzero(past_N < 0), np.flatnonzero(past_N >= run_U[plan.user_N])
        states = self._in_rounds(states, plan.take(before), number_NF[before])
        for user in np.flatnonzero(run_U).tolist():
            place_N, user_B = np.flatnonzero(plan.user_N == user), np.array([user])
            place_N = place_N[head_U[user] : head_U[user] + run_U[user]]
            after = self.runtime.write_long_run(states.take(user_B), number_NF[place_N], plan.time_N[place_N])
            states.put(user_B, after)
        rest = plan.take(behind)
        rest = replace(rest, rank_N=rest.rank_N - (head_U + run_U)[rest.user_N])
        return self._in_rounds(states, rest, number_NF[behind]), count_N

    def _in_rounds(self, states: States, plan: Plan, number_NF: IntArray) -> States:
        """Memories after all events: the first ones of all users together, then the second ones ..."""
        rounds = plan.rounds()
        wide = next((at for at, place_N in enumerate(rounds) if len(place_N) <= _FEW), len(rounds))
        everyone = wide > 0 and np.array_equal(plan.user_N[rounds[0]], np.arange(len(states)))
        if everyone:
            states = self.runtime.write(states, number_NF[rounds[0]], plan.time_N[rounds[0]])
        else:
            states = states.take(np.arange(len(states)))
        for place_N in rounds[1 if everyone else 0 : wide]:
            user_B = plan.user_N[place_N]
            states.put(user_B, self.runtime.write(states.take(user_B), number_NF[place_N], plan.time_N[place_N]))
        # What is left are runs of a few users, each of which goes on by itself.
        left_N = np.flatnonzero(plan.rank_N >= wide)
        for user in np.unique(plan.user_N[left_N]).tolist():
            place_N, user_B = left_N[plan.user_N[left_N] == user], np.array([user])
            states.put(user_B, self.runtime.write_run(states.take(user_B), number_NF[place_N], plan.time_N[place_N]))
        return states
