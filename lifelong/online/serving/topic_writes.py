"""Events and erasures of a node: into its topic alone, and from there into each process that follows the partition.

    POST /v1/events --message, its user as the key---.--> partition --> this node | another one, and their standbys
    DELETE a user   --message without a value-------'

A request is answered when the brokers have all of it and, if its partitions are followed here, when the memories do.
"""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, slots=True)
class Queued(Applied):
    """What became of events that are in the topic.

    Args:
        queued: how many.
        ends: partition -> offset of the last of them.
    """

    queued: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)


class TopicWrites:
    """Puts a node's events and erasures into the topic that it follows.

    Args:
        stream: follows the topic.
        share: the node's shards.
    """

    def __init__(self, stream: Stream, share: Share) -> None:
        self._kit: Any = require("confluent_kafka", extra="kafka", purpose="a node of several")
        self._stream, self._share, self._rows = stream, share, stream.rows
        self._column = {**self._rows.column, "event_id": str(self._rows.reading["event_id"])}
        self._producer: Any = self._made()

    def _made(self) -> Any:
        settings = {"enable.idempotence": True, "linger.ms": _LINGER, "delivery.timeout.ms": round(1000 * _DELIVERY)}
        return self._kit.Producer(self._stream.address.settings() | settings)

    def fold(self, parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[Applied | Exception]:
        """Send the events of several requests.

        Args:
            parts: of each request what a `UserEvent` holds, by name.

        Returns:
            Of each request what became of it, or why nothing of it was sent.

        Raises:
            StreamUnavailableError: the brokers did not take all; some may be in the topic.
        """
        outcomes: list[Queued | Exception] = []
        messages: list[tuple[str, bytes | None]] = []
        for rows in parts:
            try:
                messages += [(row["user"], self._message(number, row)) for number, row in enumerate(rows)]
                outcomes.append(Queued(queued=len(rows), no_dedup=sum(row.get("event_id") is None for row in rows)))
            except RequestError as error:
                outcomes.append(error)
        ends = self._send(messages)
        return [replace(one, ends=ends) if isinstance(one, Queued) else one for one in outcomes]

    def _message(self, number: int, row: Mapping[str, Any]) -> bytes:
        """An event as the topic's messages are.

        Raises:
            RequestError: they are written otherwise, or a reader would stop at it.
        """
        column, fields = self._column, row.get("fields") or {}
        if not self._rows.plain_times:
            raise RefusedError(
                "events are taken through a topic with times of its own format", fix="send them to the topic"
            )
        values = {**fields, **{name: row.get(name) for name in column if name not in self._rows.fields}}
        message = {column[name]: value for name, value in values.items() if name in column and value is not None}
        if isinstance(problem := self._rows.event(message), Problem):
            fix = "correct it; nothing of the request was kept"
            raise RequestError(f"event {number}: {problem.column} {problem.found}", expected=problem.expected, fix=fix)
        return msgspec.json.encode(message)

    def _send(self, messages: Sequence[tuple[str, bytes | None]], **options: Any) -> dict[int, int]:
        """Send messages of users; partition -> offset of the last one, when the brokers have all.

        Raises:
            StreamUnavailableError: they do not.
        """
        ends: dict[int, int] = {}
        errors: list[str] = []

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                errors.append(error.str())
            else:
                ends[message.partition()] = max(message.offset(), ends.get(message.partition(), -1))

        # The partition is named: whatever the client's own rule is, readers find a user's messages in her own.
        parts = self._share.parts([user for user, _ in messages]).tolist()
        try:
            for (user, value), partition in zip(messages, parts, strict=True):
                options |= {"key": user.encode(), "partition": partition, "on_delivery": delivered}
                self._producer.produce(self._stream.address.topic, value, **options)
            left = self._producer.flush(_DELIVERY)
        except (BufferError, self._kit.KafkaException) as error:
            left = str(error)
        if left or errors:
            # What is left in this one would come later, after what is sent again; some errors end it for good.
            self._producer = self._made()
            why = errors[0] if errors else left
            raise StreamUnavailableError(
                f"the brokers of {self._stream.address.name} did not take all messages: {why}",
                fix="send them again: events with an event_id count once",
            )
        return ends

    def erase(self, user: str, *, files: bool) -> Queued:
        """Send a message that erases a user.

        Args:
            user: her id.
            files: whether what is left of her in files goes, too.

        Raises:
            StreamUnavailableError: the brokers did not take it.
        """
        return Queued(ends=self._send([(user, None)], headers=[(FORGET, b"")] if files else []))

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
