"""A topic of Kafka -> memories: each message is applied once, whichever process is killed.

    topic --consume--> messages --rows--> events --updater--> memories and position, one commit --> store
                           `--- not an event: dead letter, or stop      `--> group's offset, only to watch the lag

The position in each partition is kept in the store, in one write with the memories; Kafka's own offset of the group
follows it and is never read. When a partition is assigned, reading starts after the position in the store.

With a shared store, several processes of one group share the partitions, and Kafka assigns them. A process that still
holds messages of a partition that another process has by now does no harm: its write is refused if the other one was
first, and then its messages are at or below the position. An embedded store has one owner, so this process reads all
partitions itself, whatever other members the group has; of a node, those that are its shards. There a message without a
value erases the user that its key names, in a commit of its own.

The producer's key should be the user's id: then all events of a user are in one partition, in order.
"""

from __future__ import annotations

import logging
import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from lifelong.dataset.events import Schema
from lifelong.dataset.mapping import TableMapping
from lifelong.dtypes import IntArray
from lifelong.errors import SourceError, StoreBehindError, StreamError, StreamUnavailableError, UsageError, require
from lifelong.online.background import Patience
from lifelong.online.ingestion.dead_letters import DeadLetter, DeadLetters
from lifelong.online.ingestion.kafka_client import KafkaAddress, consumer, partitions_of, silent
from lifelong.online.ingestion.rows import EventRows, Problem, json_row
from lifelong.online.memory.event import MAX_AHEAD, EventTable, UserEvent, latest_time
from lifelong.online.memory.forgetting import erase
from lifelong.online.memory.updater import Applied
from lifelong.online.opening import check_word
from lifelong.online.store.contract import Commit, MemoryStore
from lifelong.online.store.part import Share

logger: logging.Logger = logging.getLogger(__name__)

BATCH, FILLING = 4_096, 16_384
"""Messages of one commit at most: in a service, where other events wait for it, and in `ingest`, where none do."""
MOST = 1_000_000
"""The largest `batch`: all messages of a commit are in RAM."""
PATIENCE = 60.0
"""Seconds to wait for a broker at the start, and for a shared store at any time."""
_PIECE = 1_024
"""Messages that are read at once."""
_WAIT, _GATHER = 0.1, 0.01
"""Seconds that a poll waits for the first message, and for the messages after it."""
_LOOK = 10.0
"""Seconds between two checks for new partitions."""
_REMIND = 30.0
"""Seconds between two warnings that brokers do not answer."""
_ANSWER = 5.0
"""Seconds that a broker has to answer."""
FORGET = "lifelong-forget"
"""Header of a message that also takes an erased user out of the files."""
Erasure = tuple[str, bool]
"""A user, and whether also the files are rewritten."""


class Apply(Protocol):
    """Folds events in: `Updater.apply_table`, or something that calls it in another thread."""

    def __call__(
        self,
        table: EventTable,
        *,
        source: str,
        partition: int,
        offsets: Sequence[int] | IntArray,
        through: int,
        after: int,
    ) -> Applied:
        """See `Updater.apply_table`."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a topic is followed.

    Args:
        source: name of the source in the store; "kafka:TOPIC" by default.
        columns: our name -> the messages' name, for values with other names; see `EventRows`.
        on_bad: what to do at a message that is not an event: "stop", or "skip", which leaves it out.
        on_gap: what to do where Kafka has deleted messages that were not read: "stop", or "skip", which continues after
            them.
        patience: seconds; see `PATIENCE`.
        idle: end when no message has come for this many seconds, once the group has assigned partitions and the brokers
            have said where each of them ends (or have not within `patience`); None: never.
        max_ahead: days that an event may be ahead of the clock; one further ahead is a bad message.
        batch: messages of one commit at most; larger ones write a user's memory less often.
        mapping: names columns and times, as in files of the log; each message is an event.
        share: of a node: the shards of its store, each of which is the partition of its number.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad: str = "stop"
    on_gap: str = "stop"
    patience: float = PATIENCE
    idle: float | None = None
    max_ahead: float = MAX_AHEAD
    batch: int = BATCH
    mapping: TableMapping | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        if self.mapping is not None and (self.mapping.query or self.mapping.labels):
            raise UsageError(
                f"a mapping with {'a query' if self.mapping.query else 'labels'} for a topic",
                expected="a mapping that says which value of a message is what: each message is an event",
                fix="give the topic a mapping of its own, and let its producer send what is an event",
            )
        for name in ("on_bad", "on_gap"):
            check_word(name, getattr(self, name), stop="ends there", skip="goes on without what cannot be applied")
        if not 1 <= self.batch <= MOST:
            raise UsageError(
                f"batch = {self.batch!r}",
                expected=f"1 to {MOST:,} messages of one commit",
                fix=f"batch={FILLING}, or leave it out",
            )


@dataclass(frozen=True, slots=True)
class Place:
    """How far a partition is read.

    Args:
        offset: offset of the last message that is in the store, -1 for none.
        lag: number of messages after it, None while that is not known.
    """

    offset: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a topic's messages in this process.

    Args:
        applied: events by outcome, and messages that are not events.
        lost: messages that Kafka had deleted before they were read.
        places: partition -> how far it is read, for the partitions that this process has now.
    """

    applied: Applied = field(default_factory=Applied)
    lost: int = 0
    places: Mapping[int, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    """What messages of one partition hold.

    Args:
        table: the events.
        offsets: of the events.
        through: offset of the last message, -1 if there is none.
        bad: messages that are not events, and are left out.
        stopped: the error of one that is not left out, after them.
        erased: users that the messages erase, and whether also from the files; then there are no events.
    """

    table: EventTable
    offsets: Sequence[int] | IntArray
    through: int
    bad: int = 0
    stopped: SourceError | None = None
    erased: Sequence[Erasure] = ()

    @classmethod
    def joined(cls, reads: Sequence[_Read]) -> _Read:
        """What messages hold that were read in several pieces."""
        return cls(
            EventTable.joined([read.table for read in reads]),
            np.concatenate([np.asarray(read.offsets, np.int64) for read in reads]),
            max(read.through for read in reads),
            sum(read.bad for read in reads),
            reads[-1].stopped,
            [erasure for read in reads for erasure in read.erased],
        )


class Stream:
    """Follows one topic.

    Args:
        address: of the topic.
        store: where the positions are; the one that `apply` writes.
        apply: folds events in.
        schema: of the artifact.
        settings: see `StreamSettings`.
        letters: where messages that were left out are kept; not closed here.

    Raises:
        MissingExtraError: the package is not installed.
        UsageError: the settings map a column that does not exist.
    """

    address: KafkaAddress
    settings: StreamSettings
    rows: EventRows
    """Makes events of messages."""
    on_erased: list[Callable[[Sequence[Erasure]], object]]
    """Called with users that messages have erased."""

    def __init__(
        self,
        address: KafkaAddress,
        store: MemoryStore,
        apply: Apply,
        schema: Schema,
        *,
        settings: StreamSettings | None = None,
        letters: DeadLetters | None = None,
    ) -> None:
        self._kafka: Any = require("confluent_kafka", extra="kafka", purpose="following a topic")
        self.address, self.settings = address, settings or StreamSettings()
        self.source: str = self.settings.source or f"kafka:{address.topic}"
        self._store, self._apply, self._letters = store, apply, letters
        # A node's own messages have the ids that clients gave.
        ids = {"event_id": "event_id"} if self.settings.share is not None else {}
        self.rows = EventRows(schema, ids | dict(self.settings.columns), self._latest, self.settings.mapping)
        self.on_erased = []
        # Set by a signal handler or another thread, in the middle of any wait.
        self._stopping = threading.Event()
        # A store that this process owns does not come back by waiting; a server does.
        self._patiently = Patience(self.settings.patience if store.shared else 0, stopping=self._stopping)
        self._applied, self._lost, self._warned = Applied(), 0, False
        self._place_of: dict[int, Place] = {}
        # The same for messages that are gathered: their partition may be given back before they are applied.
        self._before: dict[int, Place] = {}
        # So that the first trouble is logged at once.
        self._trouble, self._reminded = "", -_REMIND

    def _latest(self) -> int:
        return latest_time(self.rows.time_unit, self.settings.max_ahead, clock.time())

    def stop(self) -> None:
        """End `run` after the current batch; may be called from any thread or a signal handler."""
        self._stopping.set()

    def report(self) -> Followed:
        """What became of the messages so far; may be called from any thread."""
        # Copied in one step, since the thread that follows goes on changing it.
        return Followed(self._applied, self._lost, dict(self._place_of))

    def run(self, progress: Callable[[Followed], None] | None = None) -> Followed:
        """Follow the topic until `stop`, or until it was idle for long enough.

        Args:
            progress: called after each batch, and when more is known about the lag.

        Raises:
            SourceError: a message is not an event; the messages before it are applied.
            StreamUnavailableError: no broker answered at the start.
            StreamError: there is no such topic, the user may not read it, or a position in it is gone.
            StoreError: the store accepts no writes; what it holds is whole, and a later run continues from there.
        """
        client = consumer(self.address, on_error=self._note)
        # What an earlier run had, this one need not get again.
        self._place_of = {}
        try:
            self._begin(client)
            reader = _Group(self, client) if self._store.shared else _Everything(self, client)
            self._follow(client, reader, progress)
            self._commit_offsets(client, wait=True)
            return self.report()
        finally:
            client.close()

    def _begin(self, client: Any) -> None:
        """Wait for the brokers, and set the positions of a store that starts at the end of the topic."""
        partitions = Patience(self.settings.patience, stopping=self._stopping)(lambda: self._partitions(client))
        if self.address.start != "beginning" and all(self.position(partition) < 0 for partition in partitions):
            self._skip_what_is_there(client, partitions)

    def _partitions(self, client: Any) -> list[int]:
        try:
            # One question takes no longer than all patience; within less than a second no broker answers.
            return self.partitions(client, timeout=min(_ANSWER, max(self.settings.patience, 1)))
        except StreamUnavailableError as error:
            found = error.found + (f" ({self._trouble})" if self._trouble else "")
            raise StreamUnavailableError(found, expected=error.expected, fix=error.fix) from error

    def partitions(self, client: Any, *, timeout: float) -> list[int]:
        """The partitions that this process may read.

        Raises:
            StreamUnavailableError: no broker answers.
            StreamError: there is no such topic, or its partitions are not the shards of the store.
        """
        found, share = partitions_of(client, self.address, timeout=timeout), self.settings.share
        if share is None:
            return found
        if len(found) != share.of:
            raise StreamError(
                f"{self.address.name} has {len(found)} partitions, and the store {share.of} shards",
                expected="a partition for each shard",
                fix=f"make a topic of {share.of} partitions, or a new store with ?shards={len(found)}",
            )
        return list(share.numbers)

    def _skip_what_is_there(self, client: Any, partitions: Sequence[int]) -> None:
        """Start after the last message, or at a time. The places are stored: partitions added later are read whole."""
        if self.address.start == "end":
            found = {partition: self._bounds(client, partition)[1] for partition in partitions}
        else:
            found = self._offsets_from(client, partitions, int(self.address.start))
        # A position is the last offset that is done, and not the next one.
        marks = {(self.source, partition): offset - 1 for partition, offset in found.items() if offset > 0}
        if marks:
            self._patiently(lambda: self._store.commit(Commit(watermarks=marks)))

    def _offsets_from(self, client: Any, partitions: Sequence[int], second: int) -> dict[int, int]:
        """Partition -> offset of the first message of a time or later; the end of the partition if there is none.

        Raises:
            StreamUnavailableError: no broker answers.
        """
        kit = self._kafka
        # Kafka counts in milliseconds.
        asked = [kit.TopicPartition(self.address.topic, partition, 1_000 * second) for partition in partitions]
        try:
            # Without a limit a broker that is gone would hold up the start for ever.
            found = client.offsets_for_times(asked, timeout=_ANSWER)
        except kit.KafkaException as error:
            raise silent(self.address, error) from error
        return {
            place.partition: place.offset if place.offset >= 0 else self._bounds(client, place.partition)[1]
            for place in found
        }

    def _follow(self, client: Any, reader: _Group | _Everything, progress: Callable[[Followed], None] | None) -> None:
        began = last = looked = clock.monotonic()
        reported: Followed | None = None
        while not self._stopping.is_set():
            parts, failed = self._gather(client)
            now = clock.monotonic()
            if parts:
                self._take(client, parts)
            for message in failed:
                # Only now: where a partition goes on depends on what the store has.
                self._handle(client, message)
            # Idle is only who could have had a message: a member of the group that knows where partitions end.
            if parts or not reader.joined or (self._unheard() and now - began < self.settings.patience):
                last = now
            elif self.settings.idle is not None and now - last > self.settings.idle:
                return
            if now - looked > _LOOK:
                reader.look()
                looked = now
            self._measure(client)
            if progress is not None and reader.joined and (report := self.report()) != reported:
                progress(report)
                reported = report

    def _gather(self, client: Any) -> tuple[Mapping[int, Sequence[_Read]], Sequence[Any]]:
        """What the next message and the ones after it hold, by partition, as soon as there is one.

        A piece is read and dropped before the next one comes: it fits into the processor's cache.

        Returns:
            What messages hold, and the errors that ended them, which came in a message's place.
        """
        self._before = dict(self._place_of)
        reads: dict[int, list[_Read]] = {}
        failed: Sequence[Any] = ()
        left = self.settings.batch
        # The wait is short, so that `stop` is noticed; a message that is there ends it.
        first, asked = client.poll(_WAIT), min(_PIECE, left)
        messages = [] if first is None else [first, *client.consume(asked - 1, _GATHER)]
        while messages:
            failed = [message for message in messages if message.error() is not None]
            for partition, part in _by_partition([one for one in messages if one.error() is None], reads).items():
                reads.setdefault(partition, []).extend(self._read(part))
            left -= len(messages)
            if failed or len(messages) < asked or left == 0 or any(part[-1].stopped for part in reads.values()):
                break
            asked = min(_PIECE, left)
            messages = client.consume(asked, _GATHER)
        # An erasure stays between the events before and after it.
        runs = {
            at: [list(run) for _, run in groupby(part, lambda read: bool(read.erased))] for at, part in reads.items()
        }
        return {partition: list(map(_Read.joined, some)) for partition, some in runs.items()}, failed

    def _handle(self, client: Any, message: Any) -> None:
        """Act on an error that came in a message's place.

        Raises:
            StreamError: waiting cannot fix the error.
        """
        error, kinds = message.error(), self._kafka.KafkaError
        if error.code() == kinds._AUTO_OFFSET_RESET:
            self._over_a_gap(client, message.partition())
        elif error.fatal() or error.code() in (
            kinds.TOPIC_AUTHORIZATION_FAILED,
            kinds.GROUP_AUTHORIZATION_FAILED,
            kinds._AUTHENTICATION,
        ):
            raise StreamError(f"{self.address.name} cannot be read: {error.str()}", fix="check the rights of the user")
        else:
            self._note(error)

    def _over_a_gap(self, client: Any, partition: int) -> None:
        """Continue after messages that Kafka has deleted, if the settings say so.

        Raises:
            StreamError: they do not, or the partition ends before the store's position.
        """
        wanted = self._patiently(partial(self.position, partition)) + 1
        first, end = self._bounds(client, partition)
        place = f"{self.address.name}, partition {partition}"
        if wanted > end:
            raise StreamError(
                f"{place} ends at offset {end}, before {wanted}, where the store continues: it was recreated, or has"
                " lost messages",
                expected="the topic that the store has followed",
                fix="if it is another topic of that name, name it with --source (source=NAME); all of its "
                "messages are then applied",
            )
        if wanted >= first:
            # The message is there after all.
            self.begin_again(client, partition)
            return
        if self.settings.on_gap == "stop":
            raise StreamError(
                f"{place} begins at offset {first}; Kafka has deleted {first - wanted} messages from {wanted} on, which"
                " were not applied",
                expected="a retention that is longer than any pause of the updater",
                fix='apply them from another copy, or leave them out with --on-gap skip (on_gap="skip")',
            )
        logger.warning("%s: %d messages from offset %d on were deleted and are left out", place, first - wanted, wanted)
        # As if the last message that is gone had been applied.
        self._patiently(lambda: self._store.commit(Commit(watermarks={(self.source, partition): first - 1})))
        self._lost += first - wanted
        self.begin_again(client, partition)

    def _bounds(self, client: Any, partition: int) -> tuple[int, int]:
        """First offset of a partition, and the one after the last.

        Raises:
            StreamUnavailableError: no broker answers.
        """
        try:
            place = self._kafka.TopicPartition(self.address.topic, partition)
            first, end = client.get_watermark_offsets(place, timeout=_ANSWER)
        except self._kafka.KafkaException as error:
            raise silent(self.address, error) from error
        return int(first), int(end)

    def _take(self, client: Any, parts: Mapping[int, Sequence[_Read]]) -> None:
        """Apply messages, partition by partition."""
        for partition, reads in parts.items():
            try:
                for read in reads:
                    self._take_part(partition, read)
            except StoreBehindError as error:
                logger.warning("%s Reading from there.", error.found)
                self.begin_again(client, partition)
        # After the store: a group that is further than the memories would hide the lag.
        self._commit_offsets(client, list(parts))

    def _take_part(self, partition: int, read: _Read) -> None:
        """Apply messages of one partition, in one commit.

        Raises:
            SourceError: one is not an event; the messages before it are applied.
        """
        if read.bad and self._letters is not None:
            self._letters.flush()
        if read.erased:
            marks = {(self.source, partition): read.through}
            self._patiently(lambda: erase(self._store, [user for user, _ in read.erased], marks))
            self._place_of[partition] = Place(read.through, None)
            for take in self.on_erased:
                take(read.erased)
        elif read.through >= 0:
            place = self._before.get(partition)
            apply = partial(
                self._apply,
                read.table,
                source=self.source,
                partition=partition,
                offsets=read.offsets,
                through=read.through,
                after=-1 if place is None else place.offset,
            )
            applied = self._patiently(apply)
            self._applied += applied + Applied(bad=read.bad)
            self._place_of[partition] = Place(read.through, None)
        if read.stopped is not None:
            raise read.stopped

    def _read(self, messages: Sequence[Any]) -> list[_Read]:
        """What messages of one partition hold; erasures by themselves."""
        if self.settings.share is None:
            return [self._at_once(messages) or self._one_by_one(messages)]
        reads: list[_Read] = []
        for erasing, run in groupby(messages, self._erases):
            some = list(run)
            if erasing:
                users = [(message.key().decode(), (FORGET, b"") in (message.headers() or [])) for message in some]
                offsets = [message.offset() for message in some]
                reads.append(_Read(EventTable.of([], time_unit=self.rows.time_unit), [], offsets[-1], erased=users))
            else:
                reads.append(self._at_once(some) or self._one_by_one(some))
            if reads[-1].stopped is not None:
                break
        return reads

    def _erases(self, message: Any) -> bool:
        """Whether a message of a node's topic erases a user."""
        key, share = message.key(), self.settings.share
        if message.value() is not None or not key or share is None:
            return False
        with suppress(UnicodeDecodeError):
            return bool(share.parts([key.decode()])[0] == message.partition())
        return False

    def _at_once(self, messages: Sequence[Any]) -> _Read | None:
        """What messages hold; None if one may not be an event and has to be checked by itself."""
        read = [json_row(message.value() or b"") for message in messages]
        rows = [row for row in read if not isinstance(row, Problem)]
        table = self.rows.table_of(rows) if len(rows) == len(read) else None
        if table is None:
            return None
        share = self.settings.share
        if share is not None:
            if (share.parts(table.user) != messages[0].partition()).any():
                return None
        elif not self._warned and [message.key() for message in messages] != list(map(str.encode, table.user)):
            for message, user in zip(messages, table.user, strict=True):
                self._check_key(message, user)
        offsets = [message.offset() for message in messages]
        return _Read(table, offsets, offsets[-1])

    def _one_by_one(self, messages: Sequence[Any]) -> _Read:
        """The messages before the first one that ends the run; those that are left out are kept."""
        events: list[UserEvent] = []
        offsets: list[int] = []
        through, bad = -1, 0
        stopped: SourceError | None = None
        for message in messages:
            event = self._event(message)
            if isinstance(event, Problem) and self.settings.on_bad == "stop":
                stopped = self._no_event(message, event)
                break
            if isinstance(event, Problem):
                bad += 1
                self._keep(message, event)
            else:
                events.append(event)
                offsets.append(message.offset())
            through = message.offset()
        return _Read(EventTable.of(events, time_unit=self.rows.time_unit), offsets, through, bad, stopped)

    def _event(self, message: Any) -> UserEvent | Problem:
        value = message.value()
        if value is None:
            return Problem("a message without value", "a JSON object")
        row = json_row(value)
        event = row if isinstance(row, Problem) else self.rows.event(row)
        if not isinstance(event, UserEvent):
            return event
        if (share := self.settings.share) is None:
            self._check_key(message, event.user)
        elif (meant := share.parts([event.user])[0]) != message.partition():
            return Problem(
                f"the event of a user of partition {meant} (of {share.of}, by {share.partitioner})",
                "the user's id as the key, and producers whose partitioner is the store's: `consistent` of librdkafka"
                " is crc32, the default of Java, Spark and Flink is murmur2 (rocksdb:///path?partitioner=murmur2)",
                self.rows.column["user"],
            )
        return event

    def _check_key(self, message: Any, user: str) -> None:
        """Warn once that a key is not the user's id."""
        if not self._warned and message.key() != user.encode():
            self._warned = True
            logger.warning(
                "%s, partition %d, offset %d: the key is not the user's id; if events of a user are in several"
                " partitions, they are applied in any order",
                self.address.name,
                message.partition(),
                message.offset(),
            )

    def _no_event(self, message: Any, problem: Problem) -> SourceError:
        return SourceError(
            problem.found,
            file=f"{self.address.name}, partition {message.partition()}, offset {message.offset()}",
            column=problem.column,
            expected=problem.expected,
            fix='the messages before it are applied; leave such messages out with --on-bad skip (on_bad="skip"), '
            "and keep them as dead letters",
        )

    def _keep(self, message: Any, problem: Problem) -> None:
        logger.info("partition %d, offset %d is left out: %s", message.partition(), message.offset(), problem)
        if self._letters is not None:
            self._letters.put(
                DeadLetter(
                    self.source,
                    message.partition(),
                    message.offset(),
                    str(problem),
                    key=message.key(),
                    value=message.value(),
                )
            )

    def _commit_offsets(self, client: Any, partitions: Sequence[int] | None = None, *, wait: bool = False) -> None:
        """Commit the group's offsets, which only serve to watch the lag."""
        some = list(self._place_of) if partitions is None else partitions
        places = [
            # A group notes the next offset.
            self._kafka.TopicPartition(self.address.topic, partition, self._place_of[partition].offset + 1)
            for partition in some
            if partition in self._place_of and self._place_of[partition].offset >= 0
        ]
        if not places:
            return
        try:
            client.commit(offsets=places, asynchronous=not wait)
        except self._kafka.KafkaException as error:
            logger.debug("the group's offset was not kept: %s", error)

    def _measure(self, client: Any) -> None:
        """Note the lag of each partition, as far as the brokers have reported it."""
        for partition, place in list(self._place_of.items()):
            # As the last fetch said: a question to the broker after each batch would hold up the next one.
            _, end = client.get_watermark_offsets(
                self._kafka.TopicPartition(self.address.topic, partition), cached=True
            )
            # The end is the offset that the next message will get.
            self._place_of[partition] = Place(place.offset, max(0, end - place.offset - 1) if end >= 0 else None)

    def _unheard(self) -> bool:
        """Whether the first answer of a partition is still to come, so that nothing says that it has no messages."""
        return any(place.lag is None for place in self._place_of.values())

    def _note(self, error: Any) -> None:
        """Log an error from which librdkafka recovers by itself, but not each of its attempts."""
        self._trouble, now = error.str(), clock.monotonic()
        if now - self._reminded > _REMIND:
            self._reminded = now
            logger.warning("%s: %s; waiting", self.address.name, self._trouble)

    def position(self, partition: int) -> int:
        """Offset of a partition that the store has reached."""
        return self._store.watermark(self.source, partition)

    def starts(self, partitions: Sequence[int]) -> list[Any]:
        """From where partitions that are assigned to this process are read."""
        found = {partition: self._patiently(partial(self.position, partition)) for partition in partitions}
        places = {partition: Place(offset, None) for partition, offset in found.items()}
        # The later one: to read again what is applied does no harm, and to pass over what the store has lost would.
        later = {
            partition: max(place, self._before.get(partition, place), key=lambda one: one.offset)
            for partition, place in places.items()
        }
        self._place_of, self._before = self._place_of | places, self._before | later
        return [
            self._kafka.TopicPartition(
                self.address.topic, partition, offset + 1 if offset >= 0 else self._kafka.OFFSET_BEGINNING
            )
            for partition, offset in found.items()
        ]

    def begin_again(self, client: Any, partition: int) -> None:
        """Read a partition from the store's position on."""
        # Given back first: one that is assigned already goes on where it was.
        client.incremental_unassign([self._kafka.TopicPartition(self.address.topic, partition)])
        client.incremental_assign(self.starts([partition]))

    def drop(self, partitions: Sequence[int]) -> None:
        """Drop partitions that another process has now."""
        for partition in partitions:
            self._place_of.pop(partition, None)


def _by_partition(messages: Sequence[Any], reads: Mapping[int, Sequence[_Read]]) -> Mapping[int, Sequence[Any]]:
    """Partition -> its messages, without those that come again, also after what was read.

    A partition that was lost and assigned again meanwhile is read again from the store's position.
    """
    partitions, offsets = [message.partition() for message in messages], [message.offset() for message in messages]
    last = {partition: part[-1].through for partition, part in reads.items()}
    parts: dict[int, list[Any]] = {}
    for message, partition, offset in zip(messages, partitions, offsets, strict=True):
        if offset > last.get(partition, -1):
            parts.setdefault(partition, []).append(message)
            last[partition] = offset
    return parts


class _Group:
    """Reads the partitions that Kafka assigns to this member of the group."""

    def __init__(self, stream: Stream, client: Any) -> None:
        self._stream, self.joined = stream, False
        client.subscribe(
            [stream.address.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def look(self) -> None:
        """Do nothing: Kafka assigns new partitions by itself."""

    def _assigned(self, client: Any, places: Sequence[Any]) -> None:
        numbers = [place.partition for place in places]
        logger.info("takes the partitions %s", numbers)
        self.joined = True
        client.incremental_assign(self._stream.starts(numbers))

    def _revoked(self, client: Any, places: Sequence[Any]) -> None:
        numbers = [place.partition for place in places]
        logger.info("gives the partitions %s back", numbers)
        self._stream.drop(numbers)


class _Everything:
    """Reads all partitions that it may, including those that are added later."""

    def __init__(self, stream: Stream, client: Any) -> None:
        self._stream, self._client = stream, client
        self._taken: list[int] = []
        self.joined = True
        self.look()

    def look(self) -> None:
        """Add new partitions."""
        try:
            # An error stops the search alone; what is assigned is read on.
            found = self._stream.partitions(self._client, timeout=_ANSWER)
        except StreamError as error:
            logger.warning("%s", error)
            return
        new = [partition for partition in found if partition not in self._taken]
        if new:
            self._client.incremental_assign(self._stream.starts(new))
            self._taken += new
