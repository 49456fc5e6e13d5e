"""Events and erasures of a node: into its topic alone, and from there into each process that follows the partition.

    POST /v1/events --message, its user as the key---.--> partition --> this node | another one, and their standbys
    DELETE a user   --message without a value-------'

A request is answered when the brokers have all of it and, if its partitions are followed here, when the memories do.
"""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lifelong.errors import RequestError, StreamUnavailableError, require
from lifelong.online.ingestion.kafka import FORGET, Stream
from lifelong.online.ingestion.rows import Problem
from lifelong.online.memory.updater import Applied
from lifelong.online.serving.errors import RefusedError
from lifelong.online.store.part import Share

_DELIVERY = 10.0
"""Seconds that the brokers have to take a message."""
_LINGER = 1
"""Milliseconds that a message waits for others to be sent with."""
_STEP = 0.005
"""Seconds between two looks at how far the topic is followed."""
_FIX = "send them again: events with an event_id count once"


@dataclass(frozen=True, slots=True)
class Queued(Applied):
    """What became of events that are in the topic.

    Args:
        queued: how many.
        ends: partition -> offset of the last of them.
    """

    queued: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Sending:
    """Messages of one request, until the brokers have each.

    Args:
        wanted: how many there are.
        unnamed: events without an id.
    """

    wanted: int
    unnamed: int = 0
    taken: int = 0
    error: str = "they do not answer"
    ends: dict[int, int] = field(default_factory=dict)

    def delivered(self, error: Any, message: Any) -> None:
        """Note what became of a message; called by the client."""
        if error is not None:
            self.error = error.str()
            return
        self.taken += 1
        self.ends[message.partition()] = max(message.offset(), self.ends.get(message.partition(), -1))

    def outcome(self, topic: str) -> Queued | StreamUnavailableError:
        """What it came to, when no more is heard."""
        if self.taken == self.wanted:
            return Queued(no_dedup=self.unnamed, queued=self.wanted, ends=self.ends)
        return StreamUnavailableError(
            f"the brokers of {topic} took {self.taken} of {self.wanted} messages: {self.error}", fix=_FIX
        )


class TopicWrites:
    """Puts a node's events and erasures into the topic that it follows.

    Args:
        stream: follows the topic.
        share: the node's shards.
    """

    def __init__(self, stream: Stream, share: Share) -> None:
        kit: Any = require("confluent_kafka", extra="kafka", purpose="a node of several")
        settings = {"enable.idempotence": True, "linger.ms": _LINGER, "delivery.timeout.ms": round(1000 * _DELIVERY)}
        self._producer: Any = kit.Producer(stream.address.settings() | settings)
        self._stream, self._share, self._rows = stream, share, stream.rows

    def fold(self, parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[Applied | Exception]:
        """Send the events of several requests.

        Args:
            parts: of each request what a `UserEvent` holds, by name.

        Returns:
            Of each request what became of it, or its error; then some of it may be in the topic.
        """
        sent = [self._sent(rows) for rows in parts]
        self._producer.flush(_DELIVERY)
        return [one.outcome(self._stream.address.name) if isinstance(one, _Sending) else one for one in sent]

    def _sent(self, rows: Sequence[Mapping[str, Any]]) -> _Sending | RequestError:
        """Begin to send a request; its error if the topic's readers would not take it."""
        try:
            messages = [self._message(number, row) for number, row in enumerate(rows)]
        except RequestError as error:
            return error
        sending = _Sending(len(rows), unnamed=sum(row.get("event_id") is None for row in rows))
        for row, message in zip(rows, messages, strict=True):
            self._put(row["user"], msgspec.json.encode(message), sending)
        return sending

    def _message(self, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """An event as the topic's messages are.

        Raises:
            RequestError: they are written otherwise, or a reader would stop at it.
        """
        column = {**self._rows.column, "event_id": str(self._rows.reading["event_id"])}
        if not self._rows.plain_times:
            raise RefusedError(
                "events are taken through a topic with times of its own format", fix="send them to the topic"
            )
        values = {
            **(row.get("fields") or {}),
            **{name: row.get(name) for name in column if name not in self._rows.fields},
        }
        message = {column[name]: value for name, value in values.items() if name in column and value is not None}
        if isinstance(problem := self._rows.event(message), Problem):
            raise RequestError(f"event {number}: {problem.column} {problem.found}", expected=problem.expected)
        return message

    def _put(
        self, user: str, value: bytes | None, sending: _Sending, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        # The partition is named: whatever the client's own rule is, a user's messages are where readers look for them.
        partition = int(self._share.parts([user])[0])
        options: dict[str, Any] = {"key": user.encode(), "partition": partition, "headers": list(headers)}
        options["on_delivery"] = sending.delivered
        topic = self._stream.address.topic
        try:
            self._producer.produce(topic, value, **options)
        except BufferError:
            # As many wait as the client keeps: they have to go first.
            self._producer.flush(_DELIVERY)
            self._producer.produce(topic, value, **options)

    def erase(self, user: str, *, files: bool) -> Queued:
        """Send a message that erases a user.

        Args:
            user: her id.
            files: whether what is left of her in files goes, too.

        Raises:
            StreamUnavailableError: the brokers did not take it.
        """
        sending = _Sending(1)
        self._put(user, None, sending, [(FORGET, b"")] if files else [])
        self._producer.flush(_DELIVERY)
        outcome = sending.outcome(self._stream.address.name)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def seen(self, queued: Queued, *, patience: float) -> bool:
        """Wait until the memories have what is of the partitions that are followed here; False if they do not in time.

        Args:
            queued: what was sent.
            patience: seconds.
        """
        until, own = clock.monotonic() + patience, set(queued.ends) & set(self._share.numbers)
        while True:
            places = self._stream.report().places
            if all(at in places and places[at].offset >= queued.ends[at] for at in own):
                return True
            if clock.monotonic() > until:
                return False
            # The thread that follows the topic tells nobody, and the event loop must go on meanwhile.
            await asyncio.sleep(_STEP)
