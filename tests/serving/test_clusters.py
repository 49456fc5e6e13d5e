"""A service on a cluster that grows, or loses a primary, while events and requests for scores come all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("redis")

from support.events import assert_equal_to_a_replay
from support.processes import until
from support.serving import Service
from support.valkey import cluster, grown, url_of_cluster, wait_for_takeover

from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import open_store

pytestmark = pytest.mark.usefixtures("needs_valkey")

USERS, BATCH = 120, 40
START = 1_700_000_000


@dataclass(slots=True)
class Traffic:
    """Batches of events, each sent until it is acknowledged, and requests for the score of each user in turn.

    Args:
        service: who gets them.
    """

    service: Service
    acknowledged: list[UserEvent] = field(default_factory=list)
    answers: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {"events": 0, "score": 0})
    over: threading.Event = field(default_factory=threading.Event)
    problems: list[BaseException] = field(default_factory=list)

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Send inside of the context."""
        threads = [threading.Thread(target=self._until_over, args=[each]) for each in (self._events, self._score)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()
        assert not self.problems, self.problems

    def _until_over(self, send: Any) -> None:
        try:
            # The machine is shared with the servers.
            while not self.over.wait(0.02):
                send()
        except BaseException as problem:
            self.problems.append(problem)

    def _events(self) -> None:
        first = len(self.acknowledged)
        rows = [
            {"user": f"u{k % USERS}", "item": f"i{k % 50}", "time": START + k, "event_type": "view", "event_id": f"{k}"}
            for k in range(first, first + BATCH)
        ]
        if (answer := self.service.ask("/v1/events", {"events": rows})) is None:
            self.refused["events"] += 1
            return
        assert answer["applied"] + answer["duplicates"] == BATCH
        self.acknowledged += [UserEvent(**row) for row in rows]

    def _score(self) -> None:
        body = {"user": f"u{self.answers % USERS}", "items": ["i1", "i2"]}
        if self.service.ask("/v1/score", body) is None:
            self.refused["score"] += 1
        else:
            self.answers += 1

    def wait(self, true: Callable[[], bool], why: str) -> None:
        """Return when something is true, or sending has ended by an error."""
        until(lambda: bool(self.problems) or true(), why)

    def scores(self) -> None:
        """Wait until each user's score has come once more."""
        wanted = self.answers + USERS
        self.wait(lambda: self.answers >= wanted, "no scores")

    def goes_on(self) -> None:
        """Wait until more events are acknowledged, and all scores have come."""
        wanted = len(self.acknowledged) + 2 * BATCH
        self.wait(lambda: len(self.acknowledged) >= wanted, "no events")
        self.scores()


def test_a_cluster_grows_and_is_rebalanced_and_no_request_fails(artifact, tmp_path):
    with cluster(tmp_path) as some, Service.started(artifact, url_of_cluster(some)) as service, ExitStack() as stack:
        traffic = Traffic(service)
        with traffic.sent():
            traffic.goes_on()
            new = stack.enter_context(grown(tmp_path / "new", some))
            traffic.goes_on()
        assert traffic.refused == {"events": 0, "score": 0}
        assert int(new.call("dbsize")) > 0
        with closing(open_store(url_of_cluster(some))) as store:
            assert_equal_to_a_replay(Updater(artifact, store), traffic.acknowledged)


def test_a_primary_of_a_cluster_is_killed_and_all_that_was_acknowledged_is_there(artifact, tmp_path):
    waiting = "&replicas=1&replica_timeout=0.5&timeout=3"
    with (
        cluster(tmp_path, "--cluster-node-timeout", "1000", replicas=1) as some,
        Service.started(artifact, url_of_cluster(some, waiting)) as service,
        closing(open_store(url_of_cluster(some))) as store,
    ):
        traffic = Traffic(service)
        with traffic.sent():
            traffic.goes_on()
            some[1].kill()
            traffic.wait(lambda: traffic.refused["events"] > 0, "no batch is refused")
            wait_for_takeover(some, some[1])
            # Its users can be read, and not be written: the one that took over has no replica.
            traffic.scores()
            acknowledged = list(traffic.acknowledged)
            for user in {event.user for event in acknowledged}:
                items = [event.item for event in acknowledged if event.user == user]
                assert [decode_event(value).item for value in store.events(user)][: len(items)] == items
            some[1].start()
            traffic.goes_on()
        assert_equal_to_a_replay(Updater(artifact, store), traffic.acknowledged)
