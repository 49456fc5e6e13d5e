"""A topic of Kafka -> memories: each message once, whatever dies.

    topic --consume--> messages --rows--> events --updater--> memories and position, one commit --> store
                           `--- no event: dead letter, or stop          `--> group's offset, for the lag alone

The place in each partition is kept in the store, in the same write as the memories; Kafka's own offset of the group
follows it and is never read. When a partition is taken, reading starts behind the store's position of it.

Over a shared store several processes of one group share the partitions, and Kafka says which has which. A process that
still holds messages of a partition that another one has taken does no harm: what it writes is refused where the other
one was first, and then its messages are at or below the position. An embedded store has one owner, so this process
reads all partitions itself, whatever other members the group has.

The producer's key is the user's id: then all events of a user stand in one partition, in order.
"""

from __future__ import annotations

import logging
import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lifelong.errors import SourceError, StoreBehindError, StreamError, StreamUnavailableError, UsageError, require
from lifelong.memory.dead_letters import DeadLetter, DeadLetters
from lifelong.memory.kafka_client import KafkaAddress, consumer, partitions_of
from lifelong.memory.patience import Patience
from lifelong.memory.rows import EventRows, Problem, json_row
from lifelong.memory.store import Commit
from lifelong.memory.updater import Applied, UserEvent

if TYPE_CHECKING:
    from lifelong.data.events import Schema
    from lifelong.memory.store import MemoryStore

logger = logging.getLogger(__name__)

BATCH = 4_096
"""Messages of one commit at most."""
PATIENCE = 60.0
"""Seconds for which a broker at the start, and a shared store at any time, are waited for."""
_WAIT, _GATHER = 0.5, 0.01
"""Seconds that one look for messages waits for the first one, and for those behind it."""
_LOOK = 10.0
"""Seconds between two looks for new partitions, and for what else no message tells."""
_REMIND = 30.0
"""Seconds between two warnings that something is waited for."""
_ANSWER = 5.0
"""Seconds for one answer of a broker."""


class Apply(Protocol):
    """What folds events in: `Updater.apply`, or what does it in another thread."""

    def __call__(
        self,
        events: Sequence[UserEvent],
        *,
        source: str,
        partition: int,
        offsets: Sequence[int],
        through: int,
        after: int,
    ) -> Applied:
        """See `Updater.apply`."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a topic is followed.

    Args:
        source: name of the source in the store; "kafka:TOPIC" by default.
        columns: our name -> the messages' name, for values that are called otherwise; see `EventRows`.
        on_bad: what happens at a message that is no event: "stop", or "skip" leaves it out.
        on_gap: what happens where Kafka has deleted messages that were not read: "stop", or "skip" goes on behind them.
        patience: seconds; see `PATIENCE`.
        idle: end when no message has come for so many seconds, once the group has given partitions; None goes on.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad: str = "stop"
    on_gap: str = "stop"
    patience: float = PATIENCE
    idle: float | None = None

    def __post_init__(self) -> None:
        for name in ("on_bad", "on_gap"):
            if getattr(self, name) not in ("stop", "skip"):
                raise UsageError(f"{name} = {getattr(self, name)!r}", expected='"stop" or "skip"')


@dataclass(frozen=True, slots=True)
class Place:
    """How far a partition is read.

    Args:
        offset: of the last message that is in the store, -1 for none.
        lag: messages behind it, None while that is not known.
    """

    offset: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a topic's messages in this process.

    Args:
        applied: events by outcome, and messages that are none.
        lost: messages that Kafka had deleted before they were read.
        places: partition -> how far it is read, of those that this process has now.
    """

    applied: Applied = field(default_factory=Applied)
    lost: int = 0
    places: Mapping[int, Place] = field(default_factory=dict)


class Stream:
    """Follows one topic.

    Args:
        address: of the topic.
        store: where the positions are; the one that `apply` writes.
        apply: folds events in.
        schema: of the artifact.
        settings: see `StreamSettings`.
        letters: where messages are kept that were left out; not closed here.

    Raises:
        MissingExtraError: the package is not installed.
        UsageError: the settings name a column that there is not.
    """

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
        self.source = self.settings.source or f"kafka:{address.topic}"
        self._store, self._apply, self._letters = store, apply, letters
        self._rows = EventRows(schema, self.settings.columns)
        self._stopping = threading.Event()
        self._patiently = Patience(self.settings.patience if store.shared else 0, stopping=self._stopping)
        self._applied, self._lost, self._warned = Applied(), 0, False
        self._place_of: dict[int, Place] = {}
        self._trouble, self._told = "", -_REMIND

    def stop(self) -> None:
        """Let `run` end after the batch in hand; from any thread or a signal handler."""
        self._stopping.set()

    def report(self) -> Followed:
        """What became of the messages so far; from any thread."""
        return Followed(self._applied, self._lost, dict(self._place_of))

    def run(self, progress: Callable[[Followed], None] | None = None) -> Followed:
        """Follow the topic until `stop`, or until it was idle for long enough.

        Args:
            progress: called after each batch.

        Raises:
            SourceError: a message is no event; those before it are applied.
            StreamUnavailableError: no broker answered at the start.
            StreamError: no topic, no right to read it, or a place in it that is gone.
            StoreError: the store takes no writes; what it holds is whole, and a later run goes on from there.
        """
        client = consumer(self.address, on_error=self._note)
        try:
            self._begin(client)
            reader = _Group(self, client) if self._store.shared else _Everything(self, client)
            self._follow(client, reader, progress)
            self._commit_offsets(client, wait=True)
            return self.report()
        finally:
            client.close()

    def _begin(self, client: Any) -> None:
        """Wait for the brokers, and keep where a store begins that starts at the end of the topic."""
        end = clock.monotonic() + self.settings.patience
        while True:
            try:
                partitions = partitions_of(client, self.address, timeout=min(_ANSWER, max(self.settings.patience, 1)))
                break
            except StreamUnavailableError as error:
                if clock.monotonic() > end or self._stopping.is_set():
                    raise StreamUnavailableError(
                        error.found + (f" ({self._trouble})" if self._trouble else ""),
                        expected=error.expected,
                        fix=error.fix,
                    ) from error
                logger.warning("%s Trying again.", error)
        if self.address.start == "end" and all(self.position(partition) < 0 for partition in partitions):
            self._skip_what_is_there(client, partitions)

    def _skip_what_is_there(self, client: Any, partitions: Sequence[int]) -> None:
        """Begin behind the last message. The position is kept, so that partitions that come later are read whole."""
        marks = {}
        for partition in partitions:
            end = self._bounds(client, partition)[1]
            if end > 0:
                marks[self.source, partition] = end - 1
        if marks:
            self._patiently(lambda: self._store.commit(Commit(watermarks=marks)))

    def _follow(self, client: Any, reader: _Group | _Everything, progress: Callable[[Followed], None] | None) -> None:
        last = looked = clock.monotonic()
        while not self._stopping.is_set():
            messages = self._next(client)
            now = clock.monotonic()
            if messages:
                self._take(client, messages)
                last = now
                if progress is not None:
                    progress(self.report())
            elif not reader.joined:
                last = now
            elif self.settings.idle is not None and now - last > self.settings.idle:
                return
            if now - looked > _LOOK:
                reader.look()
                looked = now
            self._measure(client)

    def _next(self, client: Any) -> list[Any]:
        """Some messages; as soon as there is one, those that stand behind it."""
        first = client.poll(_WAIT)
        if first is None:
            return []
        return [message for message in (first, *client.consume(BATCH - 1, _GATHER)) if self._is_data(client, message)]

    def _is_data(self, client: Any, message: Any) -> bool:
        """Whether it is a message; what else there is, is looked after.

        Raises:
            StreamError: it says what cannot be mended by waiting.
        """
        error = message.error()
        if error is None:
            return True
        kinds = self._kafka.KafkaError
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
        return False

    def _over_a_gap(self, client: Any, partition: int) -> None:
        """Go on behind messages that Kafka has deleted, if that is wanted.

        Raises:
            StreamError: it is not, or the partition ends before the store's position.
        """
        wanted = self._patiently(partial(self.position, partition)) + 1
        first, end = self._bounds(client, partition)
        place = f"{self.address.name}, partition {partition}"
        if wanted > end:
            raise StreamError(
                f"{place} ends at offset {end}, before {wanted}, where the store goes on: it was made anew, or has"
                " lost messages",
                expected="the topic that the store has followed",
                fix="if it is another topic of that name, name it with --source; all of its messages are then applied",
            )
        if wanted >= first:
            # It was there again in between.
            self.begin_again(client, partition)
            return
        if self.settings.on_gap == "stop":
            raise StreamError(
                f"{place} begins at offset {first}; Kafka has deleted {first - wanted} messages from {wanted} on, which"
                " were not applied",
                expected="a retention that is longer than the updater is ever away",
                fix="apply them from another copy, or leave them out with --on-gap skip",
            )
        logger.warning("%s: %d messages from offset %d on were deleted and are left out", place, first - wanted, wanted)
        self._patiently(lambda: self._store.commit(Commit(watermarks={(self.source, partition): first - 1})))
        self._lost += first - wanted
        self.begin_again(client, partition)

    def _bounds(self, client: Any, partition: int) -> tuple[int, int]:
        """First offset of a partition, and the one behind the last.

        Raises:
            StreamUnavailableError: no broker answers.
        """
        try:
            place = self._kafka.TopicPartition(self.address.topic, partition)
            first, end = client.get_watermark_offsets(place, timeout=_ANSWER)
        except self._kafka.KafkaException as error:
            raise StreamUnavailableError(f"no broker of {self.address.name} answers: {error.args[0].str()}") from error
        return int(first), int(end)

    def _take(self, client: Any, messages: Sequence[Any]) -> None:
        """Apply messages, partition by partition."""
        parts: dict[int, list[Any]] = {}
        for message in messages:
            part = parts.setdefault(message.partition(), [])
            # A partition that was lost and taken again meanwhile is read anew.
            if not part or message.offset() > part[-1].offset():
                part.append(message)
        for partition, part in parts.items():
            try:
                self._take_part(partition, part)
            except StoreBehindError as error:
                logger.warning("%s Reading from there.", error.found)
                self.begin_again(client, partition)
        self._commit_offsets(client, list(parts))

    def _take_part(self, partition: int, messages: Sequence[Any]) -> None:
        """Apply messages of one partition, in one commit.

        Raises:
            SourceError: one is no event; those before it are applied.
        """
        events, offsets, bad = [], [], 0
        stopped: SourceError | None = None
        through = -1
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
        if bad and self._letters is not None:
            self._letters.flush()
        if through >= 0:
            place = self._place_of.get(partition)
            apply = partial(
                self._apply,
                events,
                source=self.source,
                partition=partition,
                offsets=offsets,
                through=through,
                after=-1 if place is None else place.offset,
            )
            applied = self._patiently(apply)
            self._applied += applied + Applied(bad=bad)
            self._place_of[partition] = Place(through, None)
        if stopped is not None:
            raise stopped

    def _event(self, message: Any) -> UserEvent | Problem:
        value = message.value()
        if value is None:
            return Problem("a message without value", "a JSON object")
        row = json_row(value)
        event = row if isinstance(row, Problem) else self._rows.event(row)
        if isinstance(event, UserEvent) and not self._warned and message.key() != event.user.encode():
            self._warned = True
            logger.warning(
                "%s, partition %d, offset %d: the key is not the user's id; events of a user that stand in several"
                " partitions are applied in any order",
                self.address.name,
                message.partition(),
                message.offset(),
            )
        return event

    def _no_event(self, message: Any, problem: Problem) -> SourceError:
        return SourceError(
            problem.found,
            file=f"{self.address.name}, partition {message.partition()}, offset {message.offset()}",
            column=problem.column,
            expected=problem.expected,
            fix="those before it are applied; leave such messages out with --on-bad skip, and keep them with"
            " --dead-letter",
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
        """Tell Kafka how far the group is, for those who watch its lag; nobody else reads it."""
        some = list(self._place_of) if partitions is None else partitions
        places = [
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
        """Note how much is left of each partition, as far as the brokers have said it."""
        for partition, place in list(self._place_of.items()):
            _, end = client.get_watermark_offsets(
                self._kafka.TopicPartition(self.address.topic, partition), cached=True
            )
            self._place_of[partition] = Place(place.offset, max(0, end - place.offset - 1) if end >= 0 else None)

    def _note(self, error: Any) -> None:
        """What librdkafka mends itself, said now and then: it tells each of its attempts."""
        self._trouble, now = error.str(), clock.monotonic()
        if now - self._told > _REMIND:
            self._told = now
            logger.warning("%s: %s; waiting", self.address.name, self._trouble)

    def position(self, partition: int) -> int:
        """Offset of a partition that the store has reached."""
        return self._store.watermark(self.source, partition)

    def starts(self, partitions: Sequence[int]) -> list[Any]:
        """Where partitions that this process takes are read from."""
        found = {partition: self._patiently(partial(self.position, partition)) for partition in partitions}
        self._place_of |= {partition: Place(offset, None) for partition, offset in found.items()}
        return [
            self._kafka.TopicPartition(
                self.address.topic, partition, offset + 1 if offset >= 0 else self._kafka.OFFSET_BEGINNING
            )
            for partition, offset in found.items()
        ]

    def begin_again(self, client: Any, partition: int) -> None:
        """Read a partition, or with it all that this process has, from the store's position on."""
        if self._store.shared and self.address.assignment == "range":
            # The group's protocol allows no change of one alone; what comes twice is known by its offset.
            client.assign(self.starts([place.partition for place in client.assignment()]))
        else:
            client.incremental_unassign([self._kafka.TopicPartition(self.address.topic, partition)])
            client.incremental_assign(self.starts([partition]))

    def drop(self, partitions: Sequence[int]) -> None:
        """Forget partitions that another process has now."""
        for partition in partitions:
            self._place_of.pop(partition, None)


class _Group:
    """Takes the partitions that Kafka gives to this member of the group."""

    def __init__(self, stream: Stream, client: Any) -> None:
        self._stream, self.joined = stream, False
        client.subscribe(
            [stream.address.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def look(self) -> None:
        """Nothing: Kafka gives new partitions out by itself."""

    def _assigned(self, client: Any, places: Sequence[Any]) -> None:
        numbers = [place.partition for place in places]
        logger.info("takes the partitions %s", numbers)
        self.joined = True
        starts = self._stream.starts(numbers)
        if self._stream.address.assignment == "cooperative":
            client.incremental_assign(starts)
        else:
            client.assign(starts)

    def _revoked(self, client: Any, places: Sequence[Any]) -> None:
        numbers = [place.partition for place in places]
        logger.info("gives the partitions %s back", numbers)
        self._stream.drop(numbers)


class _Everything:
    """Takes all partitions, those too that are added later."""

    def __init__(self, stream: Stream, client: Any) -> None:
        self._stream, self._client = stream, client
        self._taken: list[int] = []
        self.joined = True
        self.look()

    def look(self) -> None:
        """Take the partitions that are new."""
        try:
            found = partitions_of(self._client, self._stream.address, timeout=_ANSWER)
        except StreamError as error:
            logger.warning("%s", error)
            return
        new = [partition for partition in found if partition not in self._taken]
        if new:
            self._client.incremental_assign(self._stream.starts(new))
            self._taken += new
