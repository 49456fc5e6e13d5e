"""Every user's memory at once, by the batch path: the fast way to fill a store from a prepared dataset.

dataset --batches of similar length--> encode at each user's last event --> records --commits--> store
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import StoreForeignError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.export.graphs import field_name
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import require_served
from lifelong.offline.models.base import History, HistoryModel
from lifelong.online.memory.codec import Codec, make_codec
from lifelong.online.memory.event import check_user
from lifelong.online.memory.filled import note_filled
from lifelong.online.memory.replaying import HistoryFold, counts_until
from lifelong.online.memory.runtime import Runtime, identity_of
from lifelong.online.memory.state import States, roll
from lifelong.online.memory.updater import LoggedEvent, encode_event
from lifelong.online.store.contract import Commit, MemoryStore

_EVENTS = 65_536
"""Events of one batch at most, padding included; one longer history is a batch of its own."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill did.

    Args:
        users: memories written.
        events: folded into them.
        newer: users left alone, since the store holds more of their events.
        empty: users without an event before the time.
        bytes: of the memories written.
        seconds: wall time.
        until: UTC second before which the store has everything that DATA has; None for ordinals.
    """

    users: int
    events: int
    newer: int
    empty: int
    bytes: int
    seconds: float
    until: int | None = None


def backfill(
    artifact: Artifact,
    dataset: Dataset,
    store: MemoryStore,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    event_log: bool = False,
    codec: str | None = None,
) -> BackfillReport:
    """`lifelong.backfill`, for an opened artifact, dataset and store.

    A second run writes the same memories again. A user is left alone if the store holds more of her events than the
    dataset. When all are written, the store notes until when it is filled: see `lifelong.online.memory.filled`.
    A codec that rounds does so at every event, as an updater does: then the events go through the write graph.
    """
    identity = identity_of(artifact, store, codec)
    check_fits(artifact, dataset)
    count_U = counts_until(dataset, until)
    users = np.flatnonzero(count_U)
    for user in users.tolist():
        check_user(dataset.users.id_at(user))
    space = store.bind(identity)
    if len(store.artifact_list().artifacts) > 1:
        raise StoreForeignError(
            "the store keeps memories of several artifacts, and this would fill one artifact's alone",
            expected="a new store, or one of a single artifact",
            fix="drop the others with `lifelong switch --drop`, or send the events with `lifelong ingest`",
        )
    started = time.perf_counter()
    done, newer, events, size = 0, 0, 0, 0
    chosen = make_codec(identity.codec, artifact.require_memory())
    writer = _Writer(artifact, dataset, store, space=space, codec=chosen, event_log=event_log)
    for batch in evaluation_batches(dataset, _examples(users, count_U[users]), max_events=_EVENTS):
        written = writer.write(batch)
        done += len(batch.user_B)
        newer += len(batch.user_B) - written.users
        events, size = events + written.events, size + written.bytes
        if progress is not None:
            progress(done, len(users))
    moment = _moment(dataset, until)
    if moment is not None:
        note_filled(store, moment)
    seconds = time.perf_counter() - started
    return BackfillReport(done - newer, events, newer, dataset.histories.num_users - len(users), size, seconds, moment)


def _moment(dataset: Dataset, until: int | None) -> int | None:
    """The second before which the store has everything: no later than the one after the last event of all."""
    offset_U = np.asarray(dataset.histories.offset_U, np.int64)
    end_U = offset_U[1:][np.diff(offset_U) > 0]
    if dataset.schema.time_unit != "seconds" or not len(end_U):
        return None
    last = int(dataset.histories.time_N[end_U - 1].max())
    return last + 1 if until is None else min(until, last + 1)


def _examples(users: IntArray, count: IntArray) -> Examples:
    """One target per user after her last event; what is asked there does not matter."""
    size = len(users)
    return Examples(
        users.astype(np.int32),
        np.zeros(size, np.int32),
        np.zeros(size, np.int64),
        count.astype(np.int32),
        np.zeros((size, 1), np.float32),
    )


@dataclass(frozen=True, slots=True)
class _Written:
    users: int
    events: int
    bytes: int


class _Writer:
    """Encodes batches and writes them."""

    def __init__(
        self, artifact: Artifact, dataset: Dataset, store: MemoryStore, *, space: int, codec: Codec, event_log: bool
    ) -> None:
        self.model = require_served(load_model(artifact), purpose="backfill")
        self.dataset, self.store, self.space = dataset, store, space
        self.codec, self.event_log = codec, event_log
        runtime = Runtime(artifact, codec=codec.name)
        self.rounding = HistoryFold(artifact, runtime, dataset) if codec.rounds else None

    def write(self, batch: Batch) -> _Written:
        """Memories of one batch of users, in one commit."""
        user_B = batch.user_B.numpy() - 2
        states = self._encode(batch, user_B)
        names = [self.dataset.users.id_at(int(user)) for user in user_B]
        known = self.codec.decode(self.store.read_many(names, space=self.space)).count_B
        records = self.codec.encode(states)
        chosen = np.flatnonzero(known <= states.count_B).tolist()
        events: dict[tuple[str, int], bytes] = {}
        if self.event_log:
            for place in chosen:
                events.update(self._log(names[place], int(user_B[place]), int(states.count_B[place])))
        new = {names[place]: records[place] for place in chosen}
        self.store.commit(Commit(records={self.space: new}, events=events))
        return _Written(len(chosen), int(states.count_B[chosen].sum()), sum(map(len, new.values())))

    def _encode(self, batch: Batch, user_B: IntArray) -> States:
        count_B, histories = batch.position_BC[:, 0].numpy(), self.dataset.histories
        if self.rounding is not None:
            return self.rounding.fold(user_B, count_B.astype(np.int64))
        if isinstance(self.model, HistoryModel):
            fields = roll(batch.history_BLF.numpy(), batch.time_BL.numpy(), count_B, self.model.recent)
        else:
            with torch.inference_mode():
                history = History(batch.history_BLF, batch.time_BL, batch.length_B)
                memory = self.model.encode(history, batch.position_BC)
            named = memory._asdict().items()
            fields = {field_name(name): value[:, 0].numpy() for name, value in named if name != "count_B"}
        last_time_B = histories.time_N[histories.offset_U[user_B] + count_B - 1]
        return States(count_B, np.asarray(last_time_B, np.int64), fields)

    def _log(self, name: str, user: int, count: int) -> dict[tuple[str, int], bytes]:
        """The user's first events, as the updater would have logged them."""
        start = self.dataset.histories.of(user).start
        events = map(self.dataset.event, range(start, start + count))
        return {(name, position): encode_event(LoggedEvent(*event)) for position, event in enumerate(events, start=1)}
