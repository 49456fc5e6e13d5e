"""The address of a Kafka topic, a consumer for it, and its errors as ours.

    kafka://[user:password@]host[:port][,host[:port]]/topic

    ?group=NAME         consumer group, also the name under which the lag can be watched; "lifelong" if left out
    ?start=beginning    or end, or UTC seconds (the first message from then on): where to start if the store has no
                        position in the topic; "beginning" if left out
    ?session=SECONDS    after which the partitions of a process that died are assigned to others; 10 if left out
    ?security=plaintext       or ssl, sasl_plaintext, sasl_ssl; sasl_ssl if left out and there is a user
    ?sasl=PLAIN               or SCRAM-SHA-256, SCRAM-SHA-512
    ?ca=FILE            certificate authority of the brokers, where the system does not know it

The password can be given in `LIFELONG_KAFKA_PASSWORD` instead (its user in `LIFELONG_KAFKA_USER`). No message shows it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lifelong.errors import StreamError, StreamUnavailableError, require
from lifelong.online.store.server_url import ServerUrl

EXPECTED = "kafka://host:port,host:port/topic?group=NAME"
_CHOICES = {
    "start": ("beginning", "end"),
    "security": ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
    "sasl": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
}
_OPTIONS = ("group", *_CHOICES, "session", "ca")
_PORT = 9092
_REFRESH = 10
"""Seconds after which new partitions are found."""

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A parsed URL.

    Args:
        hosts: `host:port` of the brokers.
        topic: name of the topic.
        group: consumer group.
        start: "beginning", "end", or UTC seconds.
        session: seconds after which a silent process counts as dead.
        security: protocol of the connection.
        sasl: mechanism of the login.
        ca: file of the certificate authority.
        user: user to log in as, None without a login.
        password: password of the user.
    """

    hosts: tuple[str, ...]
    topic: str
    group: str = "lifelong"
    start: str = "beginning"
    session: float = 10.0
    security: str = "plaintext"
    sasl: str = "PLAIN"
    ca: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The address for messages, without user and password."""
        return f"kafka://{','.join(self.hosts)}/{self.topic}"

    def settings(self) -> dict[str, Any]:
        """Settings of every client of these brokers."""
        chosen: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.hosts),
            "client.id": "lifelong",
            "security.protocol": self.security,
            # Errors are raised or passed to a callback; librdkafka would also log each attempt.
            "log_level": 2,
            "logger": logging.getLogger("lifelong.kafka"),
        }
        if self.user is not None:
            chosen |= {"sasl.mechanism": self.sasl, "sasl.username": self.user, "sasl.password": self.password or ""}
        if self.ca is not None:
            chosen["ssl.ca.location"] = self.ca
        return chosen


def is_kafka(url: str) -> bool:
    """Whether a text names a topic rather than a file."""
    return url.startswith("kafka://")


def parse(url: str, environment: Mapping[str, str] = os.environ) -> KafkaAddress:
    """The topic that a URL names.

    Args:
        url: see the module.
        environment: where user and password are looked up if the URL does not give them.

    Raises:
        UsageError: the URL is wrong; says what is wrong, without the password.

    >>> parse("kafka://ada:secret@broker/events?group=memories", {}).name
    'kafka://broker:9092/events'
    """
    fix = "correct it, as in kafka://localhost:9092/events?group=shop"
    parts = ServerUrl.of(url, _OPTIONS, what="stream", server="broker", expected=EXPECTED, fix=fix)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", parts.path):
        raise parts.bad(f"a topic {parts.path!r}" if parts.path else "no topic")
    user, password = parts.login("KAFKA", environment)
    options = {name: _checked(name, value, parts) for name, value in parts.options.items() if name != "session"}
    return KafkaAddress(
        hosts=tuple(_host(text, parts) for text in parts.hosts),
        topic=parts.path,
        user=user,
        password=password,
        session=parts.seconds("session", 10, above=3),
        **({"security": "sasl_ssl"} if user else {}) | options,
    )


def consumer(address: KafkaAddress, *, on_error: Callable[[Any], None]) -> Any:
    """A consumer that keeps no positions of its own.

    Args:
        address: of the topic.
        on_error: called with each error from which librdkafka recovers by itself, such as a lost broker.

    Raises:
        MissingExtraError: the package is not installed.
        StreamError: the settings cannot be used.
    """
    kafka = require("confluent_kafka", extra="kafka", purpose="following a topic")
    settings = address.settings() | {
        "group.id": address.group,
        "partition.assignment.strategy": "cooperative-sticky",
        # Positions are in the store, and the group has them only when the store does.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # A position that is gone must be reported instead of replaced.
        "auto.offset.reset": "error",
        # What a producer has taken back must not be applied.
        "isolation.level": "read_committed",
        "topic.metadata.refresh.interval.ms": _REFRESH * 1000,
        "session.timeout.ms": round(1000 * address.session),
        # Three in the shortest session, so that one that is late costs no partition.
        "heartbeat.interval.ms": 1_000,
        # A broker that is back is found soon, however long it was away.
        "reconnect.backoff.max.ms": 2_000,
        # Where few messages come, each counts soon.
        "fetch.wait.max.ms": 100,
        "error_cb": on_error,
    }
    try:
        return kafka.Consumer(settings)
    except kafka.KafkaException as error:
        raise StreamError(f"{address.name} cannot be followed: {error.args[0].str()}", fix="check the URL") from error


def partitions_of(client: Any, address: KafkaAddress, *, timeout: float) -> list[int]:
    """The partitions of the topic.

    Raises:
        StreamUnavailableError: no broker answers.
        StreamError: there is no such topic.
    """
    kafka = require("confluent_kafka", extra="kafka", purpose="following a topic")
    try:
        topics = client.list_topics(address.topic, timeout=timeout).topics
    except kafka.KafkaException as error:
        raise silent(address, error) from error
    found = topics.get(address.topic)
    if found is None or found.error is not None or not found.partitions:
        raise StreamError(
            f"there is no topic {address.topic!r} at {', '.join(address.hosts)}"
            + (f" ({found.error.str()})" if found is not None and found.error is not None else ""),
            fix="check the name, or make the topic",
        )
    return sorted(found.partitions)


def silent(address: KafkaAddress, error: Any) -> StreamUnavailableError:
    """The error where no broker answers."""
    return StreamUnavailableError(
        f"no broker of {address.name} answers: {error.args[0].str()}",
        expected=f"a Kafka broker at {', '.join(address.hosts)}",
        fix="check that it runs, and the host, port and login of the URL; then start again: nothing is lost",
    )


def _checked(name: str, value: str, parts: ServerUrl) -> str:
    """An option that has its own words, or any."""
    choices = _CHOICES.get(name, (value,))
    if not value:
        raise parts.bad(f"an empty {name}=")
    if value not in choices and not (name == "start" and value.isascii() and value.isdigit()):
        more = " or UTC seconds" if name == "start" else ""
        raise parts.bad(f"{name}={value}", expected=f"one of: {', '.join(choices)}{more}")
    return value


def _host(text: str, parts: ServerUrl) -> str:
    host, port = parts.host(text, _PORT)
    # librdkafka takes an IPv6 address in brackets alone.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
