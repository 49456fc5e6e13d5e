"""A store's owner and its readers in a simulated world; both sides of `online.store.protocol` are the real ones.

    operations --> readers --links--> owner --> InMemoryStore, disk          kills, power cuts, errors, holds, cuts

Clients write events with ids, each until it is acknowledged, put items, change the list of artifacts, and read all of
it. What must never be seen is in the text of each `BrokenError`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.protocol import Ask, Connection, Hold, Number, Owner, Reader
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.record_cache import ABSENT, OVERHEAD
from support.simulation import BrokenError, Clock, Disk, Link

USERS, ITEM, ROWS, TROUBLE = ("ann", "bob", "eve"), "i", 2, 6.0
V = TypeVar("V")
Done = Callable[[Any], object]
Wish = Callable[[Done], object]
Operation = Generator[Wish, Any, None]


def gone() -> StoreUnavailableError:
    """The error where nothing was kept, as far as anybody knows."""
    return StoreUnavailableError("the owner is gone", fix="again")


class OwnerProcess:
    """The process that owns the store, from its start to its end.

    Args:
        world: it lives in.
    """

    def __init__(self, world: World) -> None:
        self.world, self.alive, self.writing = world, True, False
        self.owner: Owner[Link] = world.parts.owner(world.count)
        self.connections = dict[Link, Connection]()
        self.waiting = deque[tuple[Link, int, str, tuple[Any, ...]]]()
        self.open()

    def open(self) -> None:
        """Open the store again, with what is on the disk."""
        self.store, self.ill = InMemoryStore(), False
        for write, _ in self.world.disk.read():
            write(self.store)

    def kill(self) -> None:
        """End."""
        self.alive = False
        for link in list(self.connections):
            link.hang_up()

    def accept(self, link: Link) -> None:
        """Take one more connection."""
        self.connections[link] = self.world.parts.connection()

    def lost(self, link: Link) -> None:
        """Nothing comes any more from a connection."""
        self.owner.leave(link)
        self.connections.pop(link, None)

    def receive(self, link: Link, message: Any) -> None:
        """Take in what a reader asks."""
        if not self.alive or link not in self.connections:
            return
        number, name, arguments = self.connections[link].receive(message)
        if name in ("fold", "put", "change_artifact_list", "check_writes"):
            self.waiting.append((link, number, name, arguments))
            self.write_next()
        else:
            # Several threads read: what was read may be sent later than what was read after it.
            self.world.soon(lambda: self.read(link, number, name, arguments))

    def read(self, link: Link, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        """Read, and send what was read."""
        if link not in self.connections:
            return
        try:
            if self.ill and name not in ("join", "parse"):
                raise gone()
            well, value = True, getattr(self, f"_{name}")(link, *arguments)
        except StoreError as error:
            well, value = False, error
        late = self.world.chance.random() * (0.3 if self.world.chance.random() < 0.1 else 0.01)
        self.world.clock.after(late, lambda: self.answer(link, number, well, value))

    def answer(self, link: Link, number: int, well: bool, value: object) -> None:
        """Send an answer."""
        if self.alive and link in self.connections:
            self.send(link, self.connections[link].answer(number, well, value))

    def send(self, link: Link, message: object) -> None:
        """Send a message; a connection that does not take it is ended."""
        try:
            link.send(1, message)
        except OSError:
            link.hang_up()

    def write_next(self) -> None:
        """Begin with the next write, when the one before has ended."""
        if self.waiting and not self.writing:
            self.writing = True
            link, number, name, arguments = self.waiting.popleft()
            self.write(getattr(self, f"_{name}")(link, *arguments), link, number)

    def write(self, steps: Generator[float, None, Any], link: Link, number: int) -> None:
        """Go on with a write."""
        if not self.alive:
            return
        try:
            seconds = next(steps)
        except StopIteration as done:
            self.answer(link, number, True, done.value)
        except StoreError as error:
            self.answer(link, number, False, error)
        else:
            self.world.clock.after(seconds, lambda: self.write(steps, link, number))
            return
        self.writing = False
        self.write_next()

    def kept(
        self, write: Callable[[InMemoryStore], None], *told: Any, events: Sequence[tuple[str, str]] = ()
    ) -> Generator[float, None, None]:
        """Write, wait for the disk, and tell the readers."""
        if self.ill:
            raise gone()
        write(self.store)
        end = self.world.disk.write((write, events))
        yield self.world.chance.random() * (0.5 if self.world.slow else 0.02)
        if self.world.failing:
            self.ill = True
            raise gone()
        self.world.disk.synced = max(self.world.disk.synced, end)
        self.tell(*told)

    def tell(self, *told: Any) -> None:
        """Announce a change."""
        for message in self.owner.changed(*told):
            for link in list(self.owner.readers):
                self.send(link, message)

    def _fold(self, link: Link, number: int) -> Generator[float, None, None]:
        connection = self.connections.get(link)
        events = None if connection is None else connection.held.pop(number, None)
        if events is None:
            raise gone()
        new = [one for one in events if not self.seen(one)]
        if new:
            users = [user for user, _ in new]
            before = dict(zip(users, self.store.read_many(users), strict=True))
            records = {user: (before[user] or b"") + token.encode() + b" " for user, token in new}
            change = Commit(records={0: records}, bases={0: before}, event_ids=dict.fromkeys(new, 2**60))
            yield from self.kept(lambda store: store.commit(change), "kept", {0: records}, events=new)

    def seen(self, event: tuple[str, str]) -> bool:
        """Whether an event is kept; a store whose last write is in doubt does not say."""
        if self.ill:
            raise gone()
        return self.store.seen([event], now=0)[0]

    def _put(self, _: Link, value: bytes) -> Generator[float, None, None]:
        change = Commit(records={ITEMS: {ITEM: value}}) if value else Commit(removed=[ITEM])
        yield from self.kept(lambda store: store.commit(change), "kept", {ITEMS: {ITEM: value or ABSENT}})

    def _change_artifact_list(self, _: Link, before: ArtifactList, after: ArtifactList) -> Generator[float, None, None]:
        yield from self.kept(lambda store: store.change_artifact_list(before, after), "listed", {})

    def _check_writes(self, _: Link) -> Generator[float, None, None]:
        if self.ill:
            yield 0.01
            if self.world.failing:
                raise gone()
            # A write that was not acknowledged may be there or not.
            self.world.disk.lose()
            self.open()
            self.tell("forgotten", {})

    def _join(self, link: Link) -> tuple[int, bool]:
        number = self.owner.join(link)
        return number, not self.ill and not self.store.read_many([ITEM], space=ITEMS)[0]

    def _parse(self, _: Link, events: Sequence[tuple[str, str]]) -> Hold:
        return Hold(events, None)

    def _read_many(self, _: Link, names: Sequence[str], space: int) -> list[bytes | None]:
        return self.store.read_many(names, space=space)

    def _artifact_list(self, _: Link) -> ArtifactList:
        return self.store.artifact_list()

    def _scan(self, _: Link) -> Hold:
        return Hold(self.store.scan(0), None)

    def _rows(self, link: Link, number: int, most: int) -> list[tuple[str, bytes]]:
        # Of an earlier connection, or closed too early.
        rows: Any = self.connections[link].held.get(number)
        if not hasattr(rows, "__next__"):
            raise BrokenError("a scan that is still read was closed")
        return [row for _, row in zip(range(most), rows, strict=False)]


class ReaderProcess:
    """A process that reads, and sends what clients write.

    Args:
        world: it lives in.
    """

    def __init__(self, world: World) -> None:
        nobody: Any = (lambda *_: None), (lambda *_: None)
        self.world, self.link = world, Link(world.clock, world.chance, nobody, nobody)
        self.waiting = list[tuple[int, Callable[[], object]]]()
        self.reader: Reader[Done] = world.parts.reader(world.cache, world.count if world.several else Number())
        self.alive, self.healing = True, False
        self.heal()

    def heal(self) -> None:
        """Connect where there is no connection, until the store takes writes again."""
        if not self.healing:
            self.healing = True
            self.world.soon(self._heal)

    def _heal(self) -> None:
        owner = self.world.owner
        if not self.alive:
            return
        if self.reader.state == "apart" and owner.alive:
            ends = (lambda link: owner.lost(link)), (lambda link: self._ended(link))
            self.link = Link(self.world.clock, self.world.chance, (owner.receive, self._receive), ends)
            owner.accept(self.link)
            self.reader.connected()
            self._send(self._joined, "join")
        elif self.reader.state == "joined":
            self._send(self._healed, "check_writes")
        else:
            self.world.clock.after(0.1, self._heal)

    def _joined(self, found: tuple[bool, Any]) -> None:
        if found[0]:
            # Nobody else may know that the store takes no writes.
            self._heal()
        else:
            self._healed(found)

    def _healed(self, found: tuple[bool, Any]) -> None:
        if found[0]:
            self.healing = False
        else:
            if self.reader.state == "joining":
                # The first call of a connection has failed.
                self.link.hang_up()
            self.world.clock.after(0.1, self._heal)

    def _send(self, done: Done, name: str, *arguments: Any) -> Any:
        message = self.reader.call(done, name, arguments)
        try:
            self.link.send(0, message)
        except OSError:
            # The end comes.
            self.link.hang_up()
        return message

    def _receive(self, link: Link, message: Any) -> None:
        if link is self.link and self.alive:
            answered = self.reader.receive(message)
            self._look()
            if answered is not None:
                done, well, value = answered
                done((well, value))

    def _ended(self, link: Link) -> None:
        if link is self.link and self.alive:
            open_calls = self.reader.ended()
            self._look()
            for done in open_calls:
                done((False, gone()))
            self.heal()

    def _look(self) -> None:
        """Let those go on who have waited for enough."""
        waiting, self.waiting = self.waiting, []
        for goal, go_on in waiting:
            if self.reader.has_seen(goal) or self.reader.state == "apart":
                go_on()
            else:
                self.waiting.append((goal, go_on))

    def ask(self, name: str, *arguments: Any) -> Wish:
        """Wish for the result of a call, as (whether it went well, the result)."""

        def wish(done: Done) -> None:
            if self.reader.state == "joined":
                self._send(partial(self._answered, done), name, *arguments)
            else:
                done((False, gone()))

        return wish

    def held(self, name: str, *arguments: Any) -> Wish:
        """Wish for what the owner holds after a call, as (whether it went well, the result, what it holds)."""

        def wish(done: Done) -> None:
            if self.reader.state == "joined":
                place = list[Any]()
                message = self._send(lambda found: self._answered(done, (*found, place.pop())), name, *arguments)
                place.append(self.reader.held(message))
            else:
                done((False, gone(), None))

        return wish

    def _answered(self, done: Done, found: tuple[Any, ...]) -> None:
        if not found[0]:
            self.heal()
        done(found)

    def run(self, steps: Generator[Any, Any, Any]) -> Wish:
        """Wish for the result of steps of the reader, as (whether they went well, the result)."""
        return lambda done: self._step(steps, done, (True, None))

    def _step(self, steps: Generator[Any, Any, Any], done: Done, found: tuple[bool, Any]) -> None:
        if not found[0]:
            done(found)
            return
        try:
            wish = steps.send(found[1])
        except StopIteration as end:
            done((True, end.value))
            return
        if isinstance(wish, Ask):
            self.ask(wish.name, *wish.arguments)(partial(self._step, steps, done))
            return
        came = lambda: self._step(steps, done, (self.reader.has_seen(wish.goal), None))  # noqa: E731
        self.waiting.append((wish.goal, came))
        self.world.clock.after(2.0, lambda: self._late((wish.goal, came)))

    def _late(self, one: tuple[int, Callable[[], object]]) -> None:
        if one in self.waiting:
            self.waiting.remove(one)
            one[1]()

    def kill(self) -> None:
        """End; another process takes its place."""
        self.alive = False
        self.world.readers[self.world.readers.index(self)] = ReaderProcess(self.world)
        self.link.hang_up()
        for done in self.reader.ended():
            done((False, gone()))
        self._look()


@dataclass(frozen=True)
class Parts:
    """What a world is made of; tests put parts with a mistake in their place."""

    process: type[OwnerProcess] = OwnerProcess
    owner: Callable[..., Owner[Link]] = Owner
    connection: Callable[[], Connection] = Connection
    reader: Callable[..., Reader[Done]] = Reader


@dataclass
class World:
    """One world: some clients do something, some faults happen, then all is well, and everything is looked at.

    Args:
        seed: of all chance.
        parts: see `Parts`.
    """

    seed: int
    parts: Parts = Parts()
    clock: Clock = field(default_factory=Clock)
    slow: bool = False
    failing: bool = False
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: {user: [] for user in USERS})
    epoch: int = 0
    item_now: bytes = b""
    item_known: bool = True
    under_way: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.disk = Disk(self.chance)
        self.several, self.count = self.chance.random() < 0.7, Number()
        self.cache = self.chance.choice([0, 3_000, 2**20])
        self.owner = self.parts.process(self)
        self.readers = [ReaderProcess(self) for _ in range(self.chance.randint(2, 3) if self.several else 1)]

    def soon(self, what: Callable[[], object]) -> None:
        """Do something within a moment."""
        self.clock.after(self.chance.random() * 0.01, what)

    def run(self) -> None:
        """Let the world run.

        Raises:
            BrokenError: something was seen that must not be.
        """
        # A world in which only some things happen has more of each, and finds what a mixture of all hides.
        kinds = self.some([self.write, self.read, self.put, self.item, self.switch, self.listed, self.scan])
        for number in range(self.chance.randint(8, 24)):
            operation = self.chance.choice(kinds)(number)
            self.clock.after(self.chance.random() * TROUBLE, partial(self.begin, operation))
        faults = [self.kill_owner, self.kill_reader, self.cut_power, self.hold, self.cut, self.fail, self.be_slow]
        for fault in self.chance.choices(self.some(faults), k=self.chance.randint(0, 6)):
            self.clock.after(self.chance.random() * TROUBLE, fault)
        self.clock.run()
        self.end()

    def some(self, of: list[V]) -> list[V]:
        """Some of a list, by chance, and at least two."""
        return self.chance.sample(of, self.chance.randint(2, len(of)))

    def begin(self, operation: Operation) -> None:
        """Begin with an operation of a client."""
        self.under_way += 1
        self.go_on(operation)

    def go_on(self, operation: Operation, found: Any = None) -> None:
        """Go on with an operation of a client."""
        try:
            wish = operation.send(found)
        except StopIteration:
            self.under_way -= 1
            return
        wish(partial(self.go_on, operation))

    def rest(self) -> Wish:
        """Wish for a pause."""
        most = 1.0 if self.chance.random() < 0.2 else 0.1
        return lambda done: self.clock.after(self.chance.random() * most, partial(done, None))

    def some_reader(self) -> ReaderProcess:
        """A reader, by chance."""
        return self.chance.choice(self.readers)

    # Operations of clients.

    def write(self, number: int) -> Operation:
        """Write an event of one or two users until it is acknowledged."""
        events = [(user, f"{number}") for user in self.chance.sample(USERS, self.chance.randint(1, 2))]
        while True:
            reader = self.some_reader()
            well, _, held = yield reader.held("parse", events)
            if well and self.chance.random() < 0.9:
                if self.chance.random() < 0.5:
                    yield self.rest()
                well, _ = yield reader.ask("fold", held.number)
                if well:
                    break
            held = None
            yield self.rest()
        self.disk_has(events)
        for user, token in events:
            self.acknowledged[user].append(token)

    def disk_has(self, events: Sequence[tuple[str, str]]) -> None:
        """What survives a power cut now has these events."""
        there = {event for _, some in self.disk.log[: self.disk.synced] for event in some}
        if not there.issuperset(events):
            raise BrokenError(f"{events} are acknowledged and not on the disk")

    def read(self, _: int) -> Operation:
        """Read users."""
        users = self.chance.sample(USERS, self.chance.randint(1, 3))
        must = {user: list(self.acknowledged[user]) for user in users}
        reader = self.some_reader()
        well, found = yield reader.run(reader.reader.read(users, 0))
        if well:
            self.compare(must, dict(zip(users, found, strict=True)))

    @staticmethod
    def compare(must: dict[str, list[str]], found: dict[str, bytes | None]) -> None:
        """Compare what was read with what was acknowledged before."""
        for user, tokens in must.items():
            seen = (found.get(user) or b"").decode().split()
            if len(seen) != len(set(seen)):
                raise BrokenError(f"{user} has an event twice: {seen}")
            if not set(tokens) <= set(seen):
                raise BrokenError(f"{user} had {tokens} acknowledged, and {seen} are read")

    def scan(self, _: int) -> Operation:
        """Scan, to the end or not."""
        must = {user: list(tokens) for user, tokens in self.acknowledged.items()}
        reader, rows = self.some_reader(), list[tuple[str, bytes]]()
        well, _, held = yield reader.held("scan")
        link = reader.link
        while well:
            if self.chance.random() < 0.2:
                yield self.rest()
            if link is not reader.link:
                # A scan ends with its connection.
                return
            well, some = yield reader.ask("rows", held.number, ROWS)
            if self.chance.random() < 0.1:
                return
            rows += some if well else []
            if well and len(some) < ROWS:
                self.compare(must, dict(rows))
                return

    def put(self, number: int) -> Operation:
        """Put an item online, or take it away, when no other change of it is under way or in doubt."""
        if not self.item_known:
            return
        self.item_known, value = False, self.chance.choice([b"", b"%d" % number])
        well, _ = yield self.some_reader().ask("put", value)
        if well:
            self.item_known, self.item_now = True, value

    def item(self, _: int) -> Operation:
        """Read the item, where none of its changes is under way or in doubt meanwhile."""
        must, reader, known = self.item_now, self.some_reader(), self.item_known
        well, found = yield reader.run(reader.reader.read([ITEM], ITEMS))
        if well and known and self.item_known and must == self.item_now and (found[0] or b"") != must:
            raise BrokenError(f"the item is {must!r}, and {found[0]!r} is read")

    def switch(self, _: int) -> Operation:
        """Change the list of artifacts."""
        for _ in range(5):
            reader = self.some_reader()
            well, before = yield reader.run(reader.reader.artifact_list())
            if well:
                after = replace(before, epoch=before.epoch + 1)
                well, _ = yield reader.ask("change_artifact_list", before, after)
            if well:
                self.epoch = max(self.epoch, after.epoch)
                return
            yield self.rest()

    def listed(self, _: int) -> Operation:
        """Read the list of artifacts."""
        must, reader = self.epoch, self.some_reader()
        well, found = yield reader.run(reader.reader.artifact_list())
        if well and found.epoch < must:
            raise BrokenError(f"the list of artifacts has epoch {found.epoch} after {must} was acknowledged")

    # Faults.

    def kill_owner(self) -> None:
        """Kill the owner; another one starts."""
        self.owner.kill()
        self.clock.after(self.chance.random(), self.restart)

    def restart(self) -> None:
        """Start an owner where there is none."""
        if not self.owner.alive:
            self.owner = self.parts.process(self)

    def kill_reader(self) -> None:
        """Kill a reader; another one takes its place."""
        self.some_reader().kill()

    def cut_power(self) -> None:
        """Everything ends, and what was not synced may be lost."""
        self.owner.kill()
        self.disk.lose()
        if self.count is not None:
            self.count = Number()
        self.owner = self.parts.process(self)
        for reader in list(self.readers):
            reader.kill()

    def hold(self) -> None:
        """Let nothing arrive at one end of a link for a while."""
        self.some_reader().link.hold(self.chance.randint(0, 1), self.chance.choice([0.1, 1.0, 3.0]))

    def cut(self) -> None:
        """Break a link."""
        self.some_reader().link.hang_up()

    def fail(self) -> None:
        """Let the disk fail for a while."""
        self.failing = True
        self.clock.after(self.chance.random(), lambda: setattr(self, "failing", False))

    def be_slow(self) -> None:
        """Let the disk be slow for a while."""
        self.slow = True
        self.clock.after(self.chance.random(), lambda: setattr(self, "slow", False))

    def end(self) -> None:
        """Look at everything, when nothing happens any more."""
        if self.under_way:
            raise BrokenError(f"{self.under_way} clients wait for ever")
        for reader in self.readers:
            if reader.reader.state != "joined":
                raise BrokenError("a reader does not come back")
        for reader in self.readers:
            self.begin(self.last(reader))
        self.clock.run()
        if self.under_way:
            raise BrokenError(f"{self.under_way} clients wait for ever")
        if any(connection.held for connection in self.owner.connections.values()):
            raise BrokenError("the owner holds what nobody will ask for")
        if set(self.owner.owner.readers) != {reader.link for reader in self.readers}:
            raise BrokenError("the owner tells changes to readers that are gone, or not to one that is there")

    def last(self, reader: ReaderProcess) -> Operation:
        """Read everything, and compare what is copied with it."""
        well, found = yield reader.run(reader.reader.read(USERS, 0))
        if not well:
            raise BrokenError(f"at the end a reader does not answer: {found}")
        self.compare(self.acknowledged, dict(zip(USERS, found, strict=True)))
        if found != self.owner.store.read_many(USERS):
            raise BrokenError(f"at the end {found} is read, and {self.owner.store.read_many(USERS)} is there")
        _, (item,) = yield reader.run(reader.reader.read([ITEM], ITEMS))
        if [item] != self.owner.store.read_many([ITEM], space=ITEMS):
            raise BrokenError(f"at the end the item {item!r} is read")
        for copies in reader.reader.copies._of.values():
            asked = copies._asked  # type: ignore[attr-defined]
            if asked._bytes + OVERHEAD * len(asked._records) > max(self.cache, 0):
                raise BrokenError("more is copied than allowed")
        _, found = yield reader.run(reader.reader.artifact_list())
        if found.epoch != self.owner.store.artifact_list().epoch:
            raise BrokenError("at the end an old list of artifacts is read")
        # What nobody refers to any more goes with the next call.
        yield reader.ask("artifact_list")


def run(seed: int, parts: Parts = Parts()) -> None:
    """Run a world of a seed."""
    World(seed, parts).run()
