"""Histories of what clients were told, and whether a store could have told it.

    clients --write, read--> services that are killed and paused --> Operation, ... --check--> what cannot be

A write appends one event with a token of its own to a user's log; a read gives the user's whole log; an erasure empties
it. From the outside, a user is then a list that only grows between two erasures, and all that was told of it has to fit
one order of all operations (it is linearisable):

    lost          an acknowledged write is missing from a read that began after the acknowledgement
    twice         a token is in a list more than once
    invented      a token that nobody wrote, or whose write began after the read had ended
    backwards     a later read does not begin with what an earlier one showed
    out of order  a write that began after another was acknowledged stands before it
    skewed        the memory counts other events than the log holds, in a read while nobody writes
    returned      an event that was acknowledged before an erasure began is in a read that began after it

What clients do is drawn from a seed (`Features`): a schedule in which only some things happen has more of each.

Where the answer is missing or an error, the write may have happened or not, until the end of time. This is what the
checkers of Jepsen do for lists, without a search: a list shows the order of its writes itself.

Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020; Groce,
Zhang, Eide, Chen and Regehr, "Swarm Testing", ISSTA 2012.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any, Literal, Self

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Features:
    """What happens in a schedule besides writes, reads and faults.

    Args:
        ids: events have ids, and are sent until they are acknowledged; otherwise each is sent once.
        late: events come in any order of their times.
        erase: users are erased.
        impressions: users are scored, and what was scored is logged.
        switch: another artifact is built and served.
        backup: backups are made; what is in one is a read, too.
        topic: events come from a topic, too.
        workers: the service has two of them.
    """

    ids: bool = True
    late: bool = False
    erase: bool = False
    impressions: bool = False
    switch: bool = False
    backup: bool = False
    topic: bool = False
    workers: bool = False

    @classmethod
    def of(cls, seed: int, allowed: Iterable[str]) -> Self:
        """Some features, by chance; those that are not allowed are off, but for ids, which are on.

        A store with one owner has several workers or a topic.
        """
        chance, names = random.Random(f"features {seed}"), [one.name for one in fields(cls)]
        chosen = {name: chance.random() < 0.5 for name in names}
        chosen[chance.choice(["topic", "workers"])] &= not (chosen["topic"] and chosen["workers"])
        return cls(**{name: chosen[name] if name in allowed else name == "ids" for name in names})

    def __str__(self) -> str:
        return " ".join(one.name for one in fields(self) if getattr(self, one.name)) or "nothing more"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked and was told.

    Args:
        kind: of it.
        user: whose list.
        start: seconds, by the clock of the test.
        end: when the answer came; `FOREVER` for a write of which nobody knows whether it happened.
        token: of a write.
        seen: of a read: the tokens, oldest first.
        counted: of a read while nobody writes: events in the memory; of a memory that counts others, if there is one.
        client: who asked, for people.
        tries: of a write: how often it was sent. An earlier one may still be on its way when a later one is answered.
    """

    kind: Literal["write", "read", "erase"]
    user: str
    start: float
    end: float
    token: str = ""
    seen: tuple[str, ...] = ()
    counted: int | None = None
    client: str = ""
    tries: int = 1

    def meets(self, start: float, end: float) -> bool:
        """Whether it may happen within a time."""
        return self.start < end and self.end > start

    def __str__(self) -> str:
        until = "?" if self.end == FOREVER else f"{self.end:.3f}"
        what = f"{list(self.seen)} counted {self.counted}" if self.kind == "read" else self.token
        return f"[{self.start:.3f}, {until}] {self.client} {self.kind}s {self.user}: {what}"


@dataclass(frozen=True, slots=True)
class Violation:
    """What cannot be, and the fewest operations that show it."""

    name: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return "\n  ".join([self.name, *map(str, sorted(self.operations, key=lambda one: one.start))])


def check(operations: Iterable[Operation]) -> list[Violation]:
    """The violations of a history: at most one of each kind for each user."""
    users: dict[str, list[Operation]] = {}
    for one in operations:
        users.setdefault(one.user, []).append(one)
    return [violation for user in sorted(users) for violation in _of_user(users[user])]


def _of_user(operations: Sequence[Operation]) -> list[Violation]:
    writes = {one.token: one for one in operations if one.kind == "write"}
    reads = sorted((one for one in operations if one.kind == "read"), key=lambda one: one.end)
    erased = [one for one in operations if one.kind == "erase"]
    found = [*_twice(reads), *_skewed(reads), *_invented(writes, reads), *_lost(writes, reads, erased)]
    found += [*_backwards(reads, erased), *_returned(writes, reads, erased)]
    # A write that was sent again may have been done again after an erasure.
    ordered = {token: write for token, write in writes.items() if not erased or write.tries == 1}
    found += _out_of_order(ordered, reads)
    return list({one.name: one for one in reversed(found)}.values())


def _twice(reads: Sequence[Operation]) -> Iterable[Violation]:
    return (Violation("twice", (read,)) for read in reads if max(Counter(read.seen).values(), default=0) > 1)


def _skewed(reads: Sequence[Operation]) -> Iterable[Violation]:
    return (Violation("skewed", (read,)) for read in reads if read.counted not in (None, len(read.seen)))


def _invented(writes: dict[str, Operation], reads: Sequence[Operation]) -> Iterable[Violation]:
    for read in reads:
        for token in read.seen:
            write = writes.get(token)
            if write is None or write.start > read.end:
                yield Violation("invented", (read,) if write is None else (write, read))


def _lost(writes: dict[str, Operation], reads: Sequence[Operation], erased: Sequence[Operation]) -> Iterable[Violation]:
    for read in reads:
        for token, write in writes.items():
            missing = write.end < read.start and token not in read.seen
            if missing and not any(one.meets(write.start, read.end) for one in erased):
                yield Violation("lost", (write, read))


def _returned(
    writes: dict[str, Operation], reads: Sequence[Operation], erased: Sequence[Operation]
) -> Iterable[Violation]:
    for read in reads:
        for token in read.seen:
            write = writes.get(token)
            for one in erased:
                if write is not None and write.tries == 1 and write.end < one.start and one.end < read.start:
                    yield Violation("returned", (write, one, read))


def _backwards(reads: Sequence[Operation], erased: Sequence[Operation]) -> Iterable[Violation]:
    for place, later in enumerate(reads):
        # The longest of those that ended before it began is enough: the others are its beginnings, or backwards too.
        earlier = max(
            (one for one in reads[:place] if one.end < later.start), key=lambda one: len(one.seen), default=None
        )
        if earlier is None or any(one.meets(earlier.start, later.end) for one in erased):
            continue
        if later.seen[: len(earlier.seen)] != earlier.seen:
            yield Violation("backwards", (earlier, later))


def _out_of_order(writes: dict[str, Operation], reads: Sequence[Operation]) -> Iterable[Violation]:
    for read in reads:
        known = [writes[token] for token in read.seen if token in writes]
        # Of neighbours at least one pair is in the wrong order where any pair is, for acknowledged writes; and the
        # earliest end of all that come later says it for the others.
        for place, write in enumerate(known):
            later = min(known[place + 1 :], key=lambda one: one.end, default=None)
            if later is not None and later.end < write.start:
                yield Violation("out of order", (later, write, read))


@dataclass
class Clients:
    """Clients that write and read until they are told to stop, and write down what they were told.

    Args:
        addresses: (host, port) of each service; any of them may answer for any user.
        users: their ids; each client writes to some and reads any.
        seed: of what they do.
        patience: seconds that a client waits for an answer.
        features: what they do.
    """

    addresses: Sequence[tuple[str, int]]
    users: Sequence[str]
    seed: int
    patience: float = 5.0
    features: Features = Features()
    operations: list[Operation] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    _acknowledged: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, number: int) -> None:
        """Begin, with so many clients."""
        for place in range(number):
            thread = threading.Thread(target=self._work, args=(place,), name=f"client-{place}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End, when each has its answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def read_all(self) -> None:
        """Read every user once from every service, at the end."""
        for address in self.addresses:
            for user in self.users:
                until = time.monotonic() + 300
                while not self._read(f"end-{address[1]}", address, user, last=True):
                    assert time.monotonic() < until, f"a service does not answer at the end: {self.refused}"

    def acknowledged(self) -> int:
        """Number of writes so far that were acknowledged."""
        with self._lock:
            return self._acknowledged

    def _work(self, place: int) -> None:
        rng, name, number = random.Random(f"{self.seed} {place}"), f"client-{place}", count()
        while not self._stop.is_set():
            address, user, what = rng.choice(self.addresses), rng.choice(self.users), rng.random()
            if what < 0.3:
                self._read(name, address, user)
            elif what < 0.35 and self.features.erase:
                self.erase(name, address, user)
            elif what < 0.5 and self.features.impressions:
                self._ask(address, "POST", "/v1/score", {"user": user, "items": ["i1", "i2"]})
            else:
                self._write(name, rng, user, f"{name}.{next(number)}")
            time.sleep(rng.random() * 0.01)

    def _write(self, name: str, rng: random.Random, user: str, token: str) -> None:
        """Send one event: with an id until it is acknowledged, or it is time to stop; without one once."""
        spread = 1_000_000 if self.features.late else 0
        event = {"user": user, "item": token, "time": 1_700_000_000 + rng.randint(-spread, spread)}
        if self.features.ids:
            event["event_id"] = token
        start, end, tries = time.monotonic(), FOREVER, 0
        while not self._stop.is_set() and (self.features.ids or tries == 0):
            tries += 1
            answer = self._ask(rng.choice(self.addresses), "POST", "/v1/events", {"events": [event]})
            if answer is not None:
                end = time.monotonic()
                break
            time.sleep(0.02)
        self.add(Operation("write", user, start, end, token=token, client=name, tries=tries))

    def erase(self, name: str, address: tuple[str, int], user: str) -> None:
        """Erase a user, once; whether it happened may never be known."""
        start = time.monotonic()
        answer = self._ask(address, "DELETE", f"/v1/admin/users/{user}", None)
        self.add(Operation("erase", user, start, FOREVER if answer is None else time.monotonic(), client=name))

    def _read(self, name: str, address: tuple[str, int], user: str, *, last: bool = False) -> bool:
        start = time.monotonic()
        found = self._ask(address, "GET", f"/v1/admin/users/{user}", None)
        if found is None:
            return False
        seen = tuple(event["item"] for event in found["events"])
        counts = [one["count"] for one in found["memories"] if one.get("phase", "ready") == "ready"] or [0]
        counted = next((one for one in counts if one != len(seen)), len(seen)) if last else None
        self.add(Operation("read", user, start, time.monotonic(), seen=seen, counted=counted, client=name))
        return True

    def _ask(self, address: tuple[str, int], method: str, path: str, body: Any) -> Any | None:
        """The answer, or None where there is none or it is an error."""
        connection = http.client.HTTPConnection(*address, timeout=self.patience)
        headers = {"Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.refused[type(error).__name__] += 1
            return None
        finally:
            connection.close()
        if answer.status != 200:
            self.refused[str(answer.status)] += 1
            return None
        return json.loads(text)

    def add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)
            self._acknowledged += operation.kind == "write" and operation.end < FOREVER
