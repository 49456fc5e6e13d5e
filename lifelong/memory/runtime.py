"""Runs the graphs of an artifact: numbers in, memories and logits out. No torch.

number_BF --tables--> event_BE --write graph--> memory
number_BCF --tables--> target_BCE --read graph, with memory--> interest --head graph, with context--> logit_BCT

The memory of a history model is the recent history itself: a write appends the event, and the read graph takes the
unrolled events, embedded. Its attention is over these events, the oldest first, and padding has no weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import GRAPHS, RUN, STRIDE, Graph, is_recent
from lifelong.data.events import NO_TIME
from lifelong.errors import StoreCorruptError
from lifelong.memory.codec import make_codec
from lifelong.memory.graphs import Session
from lifelong.memory.item_memory import ItemMemories
from lifelong.memory.recent import append, unroll
from lifelong.memory.state import States
from lifelong.memory.store import StoreIdentity

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
_USERS = 512
"""Memories that go through the write graph at once: what it works on then stays in the processor's cache."""
_RUN = 8_192
"""Events of one user that go through the run graph at once."""
_CELLS = 8_192
"""Targets that go through the read graph at once."""
_PAIRS = 1_048_576
"""Pairs of a target and an event of a recent history that go through the read graph at once."""


class Runtime:
    """Writes to and reads from memories with the graphs of an artifact.

    Threads may share it. Results depend on the size of a batch in the last bits of fp32 only.

    Args:
        artifact: of a memory model.
        threads: threads of one graph; one is the fastest for single requests.
        codec: of the store; the artifact's own if None.

    Raises:
        ArtifactError: the model cannot be served, and why; or a graph does not fit its layout.
        UsageError: there is no such codec.
    """

    def __init__(self, artifact: Artifact, threads: int = 1, *, codec: str | None = None) -> None:
        self.layout, schema = artifact.require_memory(), artifact.config.dataset_schema
        self.codec = make_codec(codec or artifact.config.codec, self.layout)
        self._item, self._event = schema.item_fields, schema.history_fields
        self.context_fields = artifact.config.input_spec.context_fields
        # A mapped array as a plain one: each look-up in the subclass costs as much as the look-up itself.
        self._tables = {field: np.asarray(table) for field, table in artifact.tables.items()}
        self._recent = is_recent(self.layout)
        graphs: list[Graph] = [name for name in GRAPHS if name != "write" or not self._recent]
        self._sessions = {name: Session(artifact, name, threads) for name in graphs}
        self._run_session, self.stride = self._runs(artifact, threads)
        read = self._sessions["read"].session
        given = {part.name for part in read.get_outputs()} & {"attention", "weight"}
        self._attention = next(iter(given), None)
        # A graph for histories of one length alone names it; else the axis is free.
        sizes = [part.shape[1] for part in read.get_inputs() if part.name == "history"]
        self._window = sizes[0] if sizes and isinstance(sizes[0], int) else 1
        self.items = None if artifact.config.items is None else ItemMemories(artifact, threads)

    items: ItemMemories | None
    """Of a model with a side of items."""

    def _runs(self, artifact: Artifact, threads: int) -> tuple[Any, int | None]:
        """The graph for runs of events, and the multiple that they begin at and are of; None where each is folded in.

        A codec that rounds does so after each event.
        """
        if self.codec.rounds or not artifact.graph(RUN).exists():
            return None, None
        session = Session(artifact, RUN, threads).session
        return session, int(session.get_modelmeta().custom_metadata_map[STRIDE])

    @property
    def attends_to(self) -> Literal["slots", "events"] | None:
        """What the model's attention is over, None if it has none."""
        if self._attention is None:
            return None
        return "events" if self._recent else "slots"

    @property
    def free_weights(self) -> bool:
        """Whether its attention is of any size and sign, and no share of 1."""
        return self._attention == "weight"

    @property
    def steady(self) -> bool:
        """Whether a score takes equally long whatever the length of the user's history."""
        return not self._recent

    def stored(self, count: int) -> int:
        """Events that a recent history holds after so many; 0 for a memory of another kind."""
        return min(count, self.layout[0].shape[0]) if self._recent else 0

    def empty(self, num_users: int) -> States:
        """Memories of users without events."""
        return States.empty(self.layout, num_users)

    def encode(self, states: States) -> list[bytes]:
        """Memories as a store keeps them."""
        return self.codec.encode(states)

    def decode(self, records: Sequence[bytes | None], users: Sequence[str] | None = None) -> States:
        """Memories from a store; empty ones where a user is absent.

        Args:
            records: as the store gave them.
            users: whose they are, so that an error can say it.

        Raises:
            StoreCorruptError: a record cannot be decoded.
        """
        try:
            return self.codec.decode(records)
        except StoreCorruptError:
            if users is None:
                raise
            raise self._damaged(records, users) from None

    def _damaged(self, records: Sequence[bytes | None], users: Sequence[str]) -> StoreCorruptError:
        """The error of the first record that cannot be decoded, with her name."""
        for user, record in zip(users, records, strict=True):
            try:
                self.codec.decode([record])
            except StoreCorruptError as error:
                found = error.found.removeprefix("memory 0 of those that were read ")
                fix = "restore a backup, or erase this user: all others are as they were"
                return StoreCorruptError(f"the memory of user {user!r} {found}", expected=error.expected, fix=fix)
        return StoreCorruptError("a memory cannot be decoded", fix="restore a backup")

    def write(self, states: States, number_BF: IntArray, time_B: IntArray) -> States:
        """Fold one event per user in.

        Args:
            states: memories of B users; not changed.
            number_BF: numbers of `schema.history_fields`.
            time_B: times of the events.

        Returns:
            Memories after the event, as the codec keeps them: count one higher, last time the later of the two.

        Raises:
            StoreError: the codec cannot keep a number.
        """
        if self._recent:
            fields = append(states, number_BF, time_B)
        else:
            parts = [self._write(states, number_BF, chosen) for chosen in _slices(len(states), _USERS)]
            fields = {
                part.name: np.concatenate(
                    [np.zeros((0, *part.shape), part.dtype), *(found[part.name] for found in parts)]
                )
                for part in self.layout
            }
        return self.codec.round(States(states.count_B + 1, np.maximum(states.last_time_B, time_B), fields))

    def write_run(self, states: States, number_LF: IntArray, time_L: IntArray) -> States:
        """Fold L events of one user in, one after another: what `write` gives L times, at half its time.

        Args:
            states: the memory of one user; not changed.
            number_LF: numbers of `schema.history_fields`.
            time_L: times of the events.

        Raises:
            StoreError: the codec cannot keep a number.
        """
        if self._recent or not self.layout or not len(time_L):
            for place in range(len(time_L)):
                states = self.write(states, number_LF[place : place + 1], time_L[place : place + 1])
            return states
        event_LE, session = self._embed(number_LF, self._event), self._sessions["write"]
        names, taken = [part.name for part in self.layout], session.taken
        outputs, last = [f"new_{name}" for name in names], int(states.last_time_B[0])
        fields, counts = dict(states.fields), states.count_B + np.arange(len(time_L) + 1)[:, None]
        for place in range(len(time_L)):
            feed = {name: value for name, value in fields.items() if name in taken}
            if "count" in taken:
                feed["count"] = counts[place]
            if "event" in taken:
                feed["event"] = event_LE[place : place + 1]
            fields = dict(zip(names, session.session.run(outputs, feed), strict=True))
            if self.codec.rounded and self.codec.name != "fp32":
                fields = dict(self.codec.round(States(counts[place], states.last_time_B, fields)).fields)
        time = np.array([max(last, int(time_L.max()))], np.int64)
        return self.codec.round(States(counts[-1], time, fields))

    def write_long_run(self, states: States, number_LF: IntArray, time_L: IntArray) -> States:
        """`write_run` at a fiftieth of the time of `write`, where `stride` divides the count and the number of events.

        Sums are in another order.

        Args:
            states: the memory of one user; not changed.
            number_LF: numbers of `schema.history_fields`.
            time_L: times of the events.

        Raises:
            StoreError: the codec cannot keep a number.
        """
        assert self.stride is not None and len(time_L) % self.stride == states.count_B[0] % self.stride == 0
        ((name, memory),) = states.fields.items()
        for chosen in _slices(len(time_L), max(1, _RUN // self.stride) * self.stride):
            event_BLE = self._embed(number_LF[chosen], self._event)[None]
            feed = {name: memory, "event": event_BLE, "length": np.array([event_BLE.shape[1]], np.int64)}
            (memory,) = self._run_session.run([f"new_{name}"], feed)
        last_time_B = np.maximum(states.last_time_B, time_L.max(initial=NO_TIME))
        return self.codec.round(States(states.count_B + len(time_L), last_time_B, {name: memory}))

    def _write(self, states: States, number_BF: IntArray, chosen: slice) -> dict[str, FloatArray]:
        feed = self._memory(states, chosen)
        if "event" in self._sessions["write"].taken:
            feed["event"] = self._embed(number_BF[chosen], self._event)
        names = [part.name for part in self.layout]
        return dict(zip(names, self._run("write", [f"new_{name}" for name in names], feed), strict=True))

    def score(
        self,
        states: States,
        number_BCF: IntArray,
        context_BCF: IntArray,
        time_B: IntArray,
        *,
        seen_BCX: FloatArray | None = None,
        attention: bool = False,
    ) -> tuple[FloatArray, FloatArray | None]:
        """Score C targets per user.

        Args:
            states: memories of B users; not changed.
            number_BCF: numbers of `schema.item_fields`.
            context_BCF: numbers of `context_fields`; its second axis may be 1, for one moment per user.
            time_B: that moment, UTC seconds.
            seen_BCX: what the side of items gives the targets (`ItemMemories.seen`), zeros if None; of a model that has
                one.
            attention: whether it is wanted, too.

        Returns:
            Logits `[B, C, T]`, and the first-hop attention `[B, C, S]`, over the slots or the events of the longest
            recent history; or None.
        """
        asked = ["interest", self._attention] if attention and self._attention else ["interest"]
        users, candidates = number_BCF.shape[:2]
        context_BCF = np.broadcast_to(context_BCF, (users, candidates, context_BCF.shape[2]))
        if self.items is not None and seen_BCX is None:
            seen_BCX = np.zeros((users, candidates, self.items.width), np.float32)
        cells_at_once = self._cells_at_once(states)
        wide = min(max(candidates, 1), cells_at_once)
        # Attention of all users is put together: over equally many events.
        size = self._longest(states) if len(asked) > 1 else 1
        rows = []
        for chosen in _slices(users, max(1, cells_at_once // wide)):
            memory = self._readable(states, chosen, time_B, size)
            cells = [
                self._score(
                    memory,
                    number_BCF[chosen, some],
                    context_BCF[chosen, some],
                    asked,
                    None if seen_BCX is None else seen_BCX[chosen, some],
                )
                for some in _slices(candidates, wide)
            ]
            rows.append([np.concatenate(part, axis=1) for part in zip(*cells, strict=True)])
        if not rows or not candidates:
            return self._nothing(users, candidates, asked)
        found = [np.concatenate(part) for part in zip(*rows, strict=True)]
        return found[0], found[1] if len(asked) > 1 else None

    def _score(
        self,
        memory: dict[str, Any],
        number_BCF: IntArray,
        context_BCF: IntArray,
        asked: list[str],
        seen_BCX: FloatArray | None,
    ) -> list[FloatArray]:
        """Logits, and what the read graph is asked for beside the interest."""
        target = self._embed(number_BCF, self._item)
        interest, *attention = self._run("read", asked, memory | {"target": target, "target_number": number_BCF})
        feed = {"interest": interest, "target": target}
        context = [self._embed(context_BCF, self.context_fields)] if self.context_fields else []
        if seen_BCX is not None:
            context.append(seen_BCX)
        if context:
            feed["context"] = np.concatenate(context, axis=-1)
        return [*self._run("head", ["logit"], feed), *attention]

    def _nothing(self, users: int, candidates: int, asked: list[str]) -> tuple[FloatArray, FloatArray | None]:
        """The answer where there is nothing to score: the axes that the graphs would give."""
        one = self._score(
            self._readable(self.empty(1), slice(0, 1), np.zeros(1, np.int64), 1),
            np.zeros((1, 1, len(self._item)), np.int64),
            np.zeros((1, 1, len(self.context_fields)), np.int64),
            asked,
            None if self.items is None else np.zeros((1, 1, self.items.width), np.float32),
        )
        empty = [np.zeros((users, candidates, part.shape[2]), np.float32) for part in one]
        return empty[0], empty[1] if len(asked) > 1 else None

    def _cells_at_once(self, states: States) -> int:
        """Targets that go through the read graph at once: few where histories are long."""
        if not self._recent:
            return _CELLS
        return max(1, min(_CELLS, _PAIRS // self._longest(states)))

    def _longest(self, states: States) -> int:
        """Events of the longest recent history, at least 1."""
        return max(1, self.stored(int(states.count_B.max(initial=0))))

    def _readable(self, states: States, chosen: slice, time_B: IntArray, size: int) -> dict[str, Any]:
        """What the read graph takes of users, beside the targets; recent histories are padded to `size` at least."""
        if not self._recent:
            return {name: value[:, None] for name, value in self._memory(states, chosen).items()}
        recent = unroll(states.take(np.arange(len(states))[chosen]), max(size, self._window))
        return {
            "history": self._embed(recent.number_BLF, self._event),
            "history_number": recent.number_BLF,
            "history_time": recent.time_BL,
            "length": recent.length_B,
            "moment": time_B[chosen],
        }

    def _memory(self, states: States, chosen: slice) -> dict[str, Any]:
        return {"count": states.count_B[chosen]} | {part.name: states.fields[part.name][chosen] for part in self.layout}

    def _embed(self, number: IntArray, fields: Sequence[str]) -> FloatArray:
        """Look up `number[..., F]` and put the vectors one after another: `[..., F * E]`."""
        vectors = [self._tables[field][number[..., place]] for place, field in enumerate(fields)]
        return np.concatenate(vectors, axis=-1)

    def _run(self, graph: Graph, outputs: list[str], feed: dict[str, Any]) -> list[FloatArray]:
        return self._sessions[graph](outputs, feed)


def identity_of(artifact: Artifact, store: MemoryStore, codec: str | None = None) -> StoreIdentity:
    """How a store is to know its artifact.

    Args:
        artifact: of a memory model.
        store: its own codec is taken, if it is not new.
        codec: of a new store, the artifact's own if None; a store that has another one will refuse it.

    Raises:
        ArtifactError: the model cannot be served, and why.
        UsageError: there is no such codec in this release.
    """
    roster = store.roster()
    known = roster.find(artifact.id) or roster.served
    return identity_with(artifact, codec or (artifact.config.codec if known is None else known.identity.codec))


def identity_with(artifact: Artifact, codec: str) -> StoreIdentity:
    """How a store is to know an artifact whose memories it keeps in a codec.

    Raises:
        ArtifactError: the model cannot be served, and why.
        UsageError: there is no such codec in this release.
    """
    layout = make_codec(codec, artifact.require_memory()).layout
    text = json.dumps([part.model_dump() for part in layout], separators=(",", ":"))
    return StoreIdentity(artifact.id, codec, text, str(artifact.path.resolve()))


def _slices(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))
