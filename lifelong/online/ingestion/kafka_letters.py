"""Dead letters in a topic of their own."""

from __future__ import annotations

import json
from typing import Any

from lifelong.errors import StreamUnavailableError, require
from lifelong.online.ingestion.dead_letters import DeadLetter
from lifelong.online.ingestion.kafka_client import KafkaAddress, partitions_of

_ANSWER = 30.0
"""Seconds that the brokers have to accept what was added."""


class TopicLetters:
    """Dead letters in a topic: the message as it was, with headers that say where it was and what is wrong with it.

    Args:
        address: of the topic, which must exist.

    Raises:
        MissingExtraError: the package is not installed.
        StreamUnavailableError: no broker answers.
        StreamError: there is no such topic.
    """

    def __init__(self, address: KafkaAddress) -> None:
        kafka = require("confluent_kafka", extra="kafka", purpose="keeping dead letters in a topic")
        self._address, self._problem = address, ""
        self._producer: Any = kafka.Producer(address.settings() | {"acks": "all", "enable.idempotence": True})
        partitions_of(self._producer, address, timeout=_ANSWER / 3)

    def put(self, letter: DeadLetter) -> None:
        """Add one."""
        value = letter.value
        self._producer.produce(
            self._address.topic,
            key=letter.key,
            value=value if isinstance(value, bytes | None) else json.dumps(dict(value), default=str).encode(),
            headers=[
                ("source", letter.source),
                ("partition", str(letter.partition)),
                ("offset", str(letter.offset)),
                ("reason", letter.reason),
            ],
            on_delivery=self._delivered,
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the brokers have all of them.

        Raises:
            StreamUnavailableError: the brokers do not accept them.
        """
        left = self._producer.flush(_ANSWER)
        if left or self._problem:
            raise StreamUnavailableError(
                f"{self._address.name} did not accept {left or 'some'} dead letters: {self._problem or 'no answer'}",
                expected="brokers that accept them",
                fix="fix the brokers or the topic, then run again: nothing after the last position was applied",
            )

    def close(self) -> None:
        """Nothing is left to do after `flush`."""

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._problem = error.str()
