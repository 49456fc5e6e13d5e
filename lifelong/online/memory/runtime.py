"""Runs the graphs of an artifact: numbers in, memories and logits out. No torch.

    number_BF --tables--> event_BE --write graph--> memory
    number_BCF --tables--> target_BCE --read graph, with memory--> interest --head graph, with context--> logit_BCT

The memory of a history model is the recent history itself: a write appends the event, and the read graph takes the
unrolled events, embedded. Its attention is over these events, the oldest first, and padding has no weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import Artifact, FieldLayout, Graph, is_recent
from lifelong.artifact.manifest import AGAIN
from lifelong.dataset.events import NO_TIME
from lifelong.dtypes import Float32Array, IntArray
from lifelong.errors import ArtifactError, StoreCorruptError, require
from lifelong.online.memory.codec import Codec, make_codec
from lifelong.online.memory.compiling import compile_reads
from lifelong.online.memory.state import Counting, States, append, unroll
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import MemoryStore

_USERS = 512
"""Memories that go through the write graph at once: what it works on then stays in the processor's cache."""
_CELLS = 8_192
"""Targets that go through the read graph at once."""
_PAIRS = 1_048_576
"""Pairs of a target and an event of a recent history that go through the read graph at once."""


class Read(NamedTuple):
    """What is read of B memories, for one target each."""

    logit_BT: Float32Array
    readout_BI: Float32Array


class Session:
    """A graph that can be run. Threads may share it.

    Args:
        artifact: of a model that is served.
        name: of the graph.
        threads: of one run; one is the fastest for single requests.

    Raises:
        ArtifactError: the graph cannot be run.
    """

    def __init__(self, artifact: Artifact, name: Graph, threads: int) -> None:
        runtime = require("onnxruntime", extra="serve", purpose="running a model's graphs")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Waiting threads sleep: spinning ones cost other processes their cores, and the slowest requests most.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = artifact.graph(name)
        try:
            self.session: Any = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(f"{path} cannot be run: {error}", fix="train again with this release") from error
        self.taken: frozenset[str] = frozenset(part.name for part in self.session.get_inputs())

    def __call__(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Run the graph on those of the inputs that it takes; gives the named outputs."""
        inputs = {name: np.ascontiguousarray(value) for name, value in feed.items() if name in self.taken}
        results: list[npt.NDArray[Any]] = self.session.run(list(outputs), inputs) if outputs else []
        return results


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

    layout: tuple[FieldLayout, ...]

    def __init__(self, artifact: Artifact, threads: int = 1, *, codec: str | None = None) -> None:
        self.layout, schema = artifact.require_memory(), artifact.config.dataset_schema
        self.codec: Codec = make_codec(codec or artifact.config.codec, self.layout)
        self._item, self._event = schema.item_fields, schema.history_fields
        self.context_fields: tuple[str, ...] = artifact.config.input_spec.context_fields
        # A mapped array as a plain one: each look-up in the subclass costs as much as the look-up itself.
        self._tables = {field: np.asarray(table) for field, table in artifact.tables.items()}
        self._recent = is_recent(self.layout)
        self._sessions: dict[Graph, Session] = {name: Session(artifact, name, threads) for name in ("read", "head")}
        self.counting: Counting | None = Counting.of(artifact, self._tables)
        if self.counting is not None:
            # No request is to wait for it.
            compile_reads()
        counted = () if self.counting is None else self.counting.names
        self._learned = [part for part in self.layout if part.name not in counted]
        if self._learned and not self._recent:
            # A memory of counts alone has no graph that writes.
            self._sessions["write"] = Session(artifact, "write", threads)
        read = self._sessions["read"].session
        given = {part.name for part in read.get_outputs()} & {"attention", "weight"}
        self._attention = next(iter(given), None)
        contexts = [part.shape[1] for part in self._sessions["head"].session.get_inputs() if part.name == "context"]
        self._one_context = contexts == [1]
        # A graph for histories of one length alone names it; else the axis is free.
        sizes = [part.shape[1] for part in read.get_inputs() if part.name == "history"]
        self._window = sizes[0] if sizes and isinstance(sizes[0], int) else 1
        self._try(artifact)

    def _try(self, artifact: Artifact) -> None:
        """Run the graphs once, on the memory of a user without events: a foreign graph fails here, not at a request.

        Raises:
            ArtifactError: a graph cannot be run on this layout, or gives something else.
        """
        users, tasks = self.empty(1), len(artifact.config.dataset_schema.tasks)
        number_BF = np.zeros((1, len(self._event) + len(self._item)), np.int64)
        found: dict[str, tuple[str | int, ...]] = {}
        try:
            if not self._recent:
                written = self._write(users, number_BF, slice(0, 1))
                found = {name: (str(value.dtype), *value.shape[1:]) for name, value in written.items()}
            logit_BCT, _ = self._nothing(1, 0, ["interest"])
        except Exception as error:
            raise ArtifactError(
                f"the graphs of {artifact.path} cannot be run on its layout: {error}", fix=AGAIN
            ) from error
        wanted = {part.name: (part.dtype, *part.shape) for part in self._learned} if found else {}
        if found != wanted or logit_BCT.shape[2] != tasks:
            raise ArtifactError(
                f"the graphs of {artifact.path} give memories of {found} and {logit_BCT.shape[2]} logits",
                expected=f"{wanted} and {tasks}, as in its config",
                fix=AGAIN,
            )

    @property
    def attends_to(self) -> Literal["slots", "events"] | None:
        """What the model's attention is over, None if it has none."""
        if self._attention is None:
            return None
        return "events" if self._recent else "slots"

    @property
    def free_weights(self) -> bool:
        """Whether attention weights may have any size and sign, instead of summing to 1."""
        return self._attention == "weight"

    @property
    def steady(self) -> bool:
        """Whether a score takes equally long whatever the length of the user's history."""
        return not self._recent

    def append(
        self, states: States, user_N: IntArray, rank_N: IntArray, number_NF: IntArray, time_N: IntArray
    ) -> States:
        """Recent histories after N more events; see `lifelong.online.memory.state.append`."""
        count_B = states.count_B + np.bincount(user_N, minlength=len(states))
        last_time_B = states.last_time_B.copy()
        # Not `last_time_B[user_N] = ...`: of several events of a user one alone would count.
        np.maximum.at(last_time_B, user_N, time_N)
        fields = append(states, user_N, rank_N, number_NF[:, : len(self._event)], time_N)
        return self.codec.round(States(count_B, last_time_B, fields))

    def stored(self, count: int) -> int:
        """Events that a recent history holds after this many events; 0 for a memory of another kind."""
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
            users: ids, so that an error can name the user.

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
        """The error of the first record that cannot be decoded, with the user's name."""
        for user, record in zip(users, records, strict=True):
            try:
                self.codec.decode([record])
            except StoreCorruptError as error:
                found = error.found.removeprefix("memory 0 of those that were read ")
                fix = "restore a backup (`lifelong backup --restore`), or erase this user: all others are as they were"
                return StoreCorruptError(f"the memory of user {user!r} {found}", expected=error.expected, fix=fix)
        return StoreCorruptError("a memory cannot be decoded", fix="restore a backup (`lifelong backup --restore`)")

    def write(self, states: States, number_BF: IntArray, time_B: IntArray) -> States:
        """Memories after one more event of each user, without the fields that `counting` keeps.

        Args:
            states: memories of B users; not changed.
            number_BF: numbers of `schema.history_fields`, followed by the items' keys.
            time_B: times of the events.

        Returns:
            Memories after the event, as the codec keeps them: count one higher, last time the later of the two.

        Raises:
            StoreError: the codec cannot keep a number.
        """
        parts = [self._write(states, number_BF, chosen) for chosen in _slices(len(states), _USERS)]
        fields = {
            part.name: np.concatenate([np.zeros((0, *part.shape), part.dtype), *(new[part.name] for new in parts)])
            for part in self._learned
        }
        return self.codec.round(States(states.count_B + 1, np.maximum(states.last_time_B, time_B), fields))

    def write_run(self, states: States, number_LF: IntArray, time_L: IntArray) -> States:
        """Fold L events of one user in, one after another: what `write` gives L times, at half its time.

        Args:
            states: the memory of one user; not changed.
            number_LF: numbers of `schema.history_fields`, followed by the items' keys.
            time_L: times of the events.

        Raises:
            StoreError: the codec cannot keep a number.
        """
        if not self._learned or not len(time_L):
            last = np.maximum(states.last_time_B, time_L.max(initial=NO_TIME))
            return States(states.count_B + len(time_L), last, states.fields)
        event_LE, session = self._embed(number_LF, self._event), self._sessions["write"]
        names, taken = [part.name for part in self._learned], session.taken
        outputs, last = [f"new_{name}" for name in names], int(states.last_time_B[0])
        # Row k is the count before event k: what the graph is given at that step.
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

    def _write(self, states: States, number_BF: IntArray, chosen: slice) -> dict[str, Float32Array]:
        names, feed = [part.name for part in self._learned], self._memory(states, chosen)
        if not names:
            return {}
        if "event" in self._sessions["write"].taken:
            feed["event"] = self._embed(number_BF[chosen], self._event)
        return dict(zip(names, self._run("write", [f"new_{name}" for name in names], feed), strict=True))

    def score(
        self,
        states: States,
        number_BCF: IntArray,
        context_BCF: IntArray,
        time_B: IntArray,
        *,
        attention: bool = False,
    ) -> tuple[Float32Array, Float32Array | None]:
        """Score C targets per user.

        Args:
            states: memories of B users; not changed.
            number_BCF: numbers of `schema.item_fields`, followed by their keys.
            context_BCF: numbers of `context_fields`, `[B, 1, F]`: all candidates of a user have the same moment.
            time_B: that moment, UTC seconds.
            attention: whether it is wanted, too.

        Returns:
            Logits `[B, C, T]`, and the first-hop attention `[B, C, S]`, over the slots or the events of the longest
            recent history; or None.
        """
        asked = ["interest", self._attention] if attention and self._attention else ["interest"]
        users, candidates = number_BCF.shape[:2]
        cells_at_once = self._cells_at_once(states)
        wide = min(max(candidates, 1), cells_at_once)
        # Attention of all users is put together: over equally many events.
        size = self._longest(states) if len(asked) > 1 else 1
        rows = []
        # As many users together as fit side by side with so many targets each; a wide request goes by itself.
        for chosen in _slices(users, max(1, cells_at_once // wide)):
            memory = self._readable(states, chosen, time_B, size)
            cells = [
                self._score(states, chosen, memory, number_BCF[chosen, some], context_BCF[chosen], asked)
                for some in _slices(candidates, wide)
            ]
            # Without the interest, which nobody asked for.
            rows.append([_joined(part, axis=1) for part in zip(*(cell[::2] for cell in cells), strict=True)])
        if not rows or not candidates:
            return self._nothing(users, candidates, asked)
        whole = [_joined(part, axis=0) for part in zip(*rows, strict=True)]
        return whole[0], whole[1] if len(asked) > 1 else None

    def read(self, states: States, number_BF: IntArray, context_BF: IntArray, time_B: IntArray) -> Read:
        """Score one target per user, and give what the head is given of the memory: its read-out.

        Args:
            states: memories of B users; not changed.
            number_BF: numbers of `schema.item_fields`, followed by their keys.
            context_BF: numbers of `context_fields`.
            time_B: the moments, UTC seconds.
        """
        logits, readouts = [], []
        for chosen in _slices(len(states), min(_CELLS, self._cells_at_once(states))):
            memory = self._readable(states, chosen, time_B, 1)
            target_BCF, context_BCF = number_BF[chosen, None], context_BF[chosen, None]
            logit_BCT, interest_BCI, *_ = self._score(states, chosen, memory, target_BCF, context_BCF, ["interest"])
            logits.append(logit_BCT[:, 0])
            readouts.append(interest_BCI[:, 0])
        return Read(np.concatenate(logits), np.concatenate(readouts))

    def _score(
        self,
        states: States,
        chosen: slice,
        memory: dict[str, Any],
        number_BCF: IntArray,
        context_BCF: IntArray,
        asked: list[str],
    ) -> list[Float32Array]:
        """Logits, and what the read graph is asked for: the interest first."""
        target = self._embed(number_BCF, self._item)
        found = self._run("read", asked, memory | self._asked(states, chosen, number_BCF, target))
        feed = {"interest": found[0], "target": target}
        if self.context_fields:
            context = self._embed(context_BCF, self.context_fields)
            if not self._one_context:
                context = np.repeat(context, number_BCF.shape[1], axis=1)
            feed["context"] = context
        (logit,) = self._run("head", ["logit"], feed)
        return [logit.reshape(*target.shape[:2], -1), *found]

    def _asked(self, states: States, chosen: slice, number_BCF: IntArray, target: Float32Array) -> dict[str, Any]:
        """What the read graph is given of targets, and of what memories counted of them."""
        found = {} if self.counting is None else self.counting.find(states, chosen, number_BCF, target)
        return {"target": target, "target_number": number_BCF[..., : len(self._item)], **found}

    def _nothing(self, users: int, candidates: int, asked: list[str]) -> tuple[Float32Array, Float32Array | None]:
        """The answer where there is nothing to score: the axes that the graphs would give."""
        nobody, first, number_BCF = self.empty(1), slice(0, 1), np.zeros((1, 1, 2 * len(self._item)), np.int64)
        memory = self._readable(nobody, first, np.zeros(1, np.int64), 1)
        no_context = np.zeros((1, 1, len(self.context_fields)), np.int64)
        one = self._score(nobody, first, memory, number_BCF, no_context, asked)[::2]
        empty = [np.zeros((users, candidates, part.shape[2]), np.float32) for part in one]
        return empty[0], empty[1] if len(asked) > 1 else None

    def _cells_at_once(self, states: States) -> int:
        """Targets that go through the read graph at once: few where histories are long."""
        if not self._recent:
            return _CELLS
        # At least one target, however long the history is.
        return max(1, min(_CELLS, _PAIRS // self._longest(states)))

    def _longest(self, states: States) -> int:
        """Events of the longest recent history, at least 1."""
        return max(1, self.stored(int(states.count_B.max(initial=0))))

    def _readable(self, states: States, chosen: slice, time_B: IntArray, size: int) -> dict[str, Any]:
        """The read graph's inputs besides the targets; recent histories are padded to `size` at least."""
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
        return {"count": states.count_B[chosen]} | {name: value[chosen] for name, value in states.fields.items()}

    def _embed(self, number: IntArray, fields: Sequence[str]) -> Float32Array:
        """Look up `number[..., F]` and put the vectors one after another: `[..., F * E]`."""
        vectors = [self._tables[field][number[..., place]] for place, field in enumerate(fields)]
        return np.concatenate(vectors, axis=-1)

    def _run(self, graph: Graph, outputs: list[str], feed: dict[str, Any]) -> list[Float32Array]:
        return self._sessions[graph](outputs, feed)


def identity_of(artifact: Artifact, store: MemoryStore, codec: str | None = None) -> StoreIdentity:
    """The identity by which a store is to know its artifact.

    Args:
        artifact: of a memory model.
        store: its own codec is taken, if it is not new.
        codec: of a new store, the artifact's own if None; a store that has another one will refuse it.

    Raises:
        ArtifactError: the model cannot be served, and why.
        UsageError: there is no such codec in this release.
    """
    artifact_list = store.artifact_list()
    stored = artifact_list.find(artifact.id) or artifact_list.served
    return identity_with(artifact, codec or (artifact.config.codec if stored is None else stored.identity.codec))


def identity_with(artifact: Artifact, codec: str) -> StoreIdentity:
    """The identity by which a store is to know an artifact, for memories in a codec.

    Raises:
        ArtifactError: the model cannot be served, and why.
        UsageError: there is no such codec in this release.
    """
    layout = make_codec(codec, artifact.require_memory()).layout
    text = json.dumps([part.model_dump() for part in layout], separators=(",", ":"))
    return StoreIdentity(artifact.id, codec, text, str(artifact.path.resolve()))


def _joined(parts: Sequence[Float32Array], axis: int) -> Float32Array:
    """Parts one after another; a single one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _slices(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))
