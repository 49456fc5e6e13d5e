"""Reading next to the owner: what the process that owns a store and those that read it say to each other, and when.

One process opens the store, and it alone writes. Each process of a service that answers requests has one reader of it;
a store that a process opens for itself has none. The binding of the database holds the interpreter while it writes, so
that in one process all scores would wait for events.

    reader                                                  owner
    apart     what is copied still answers                  (starting, or ended: it is started again)
      | connection made: all copies are dropped
    joining   --call "join"-------------------------------> is sent all changes from here on
      | <--answer: number of the last change, whether there are items put online
    joined
      | --call--------------------------------------------> work, in any order --> store --durable--.
      | <--change: what a commit wrote, in pieces, the last one with its number <-------------------|
      | <--answer: after the change that it made <--------------------------------------------------'
      | connection lost: open calls fail                    forgets what it holds for this reader
    apart

    a read:  all announced changes received? --no--> waits for them   (another reader may have acknowledged one)
                `--yes--> copied here? --yes--> RAM
                              `--no--> call to the owner --> disk

A message is never overtaken by a later one of the same connection. So a reader has a change in its copies before it has
the answer that acknowledges it. The owner counts changes in memory that all readers see: a reader that has not received
the last one waits for it before it reads from its copies. A read thus includes every write that was acknowledged before
it began, by whichever reader.

Nothing here knows of sockets and threads: `lifelong.online.store.remote` drives it with them, and tests do with a
clock, links and a disk of their own.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from lifelong.online.store.artifact_list import ArtifactList
from lifelong.online.store.contract import ITEMS
from lifelong.online.store.record_cache import Notice, PackedRecords, RecordCaches, RecordCopies, Written, pieces_of

T = TypeVar("T")
V = TypeVar("V")
Call = tuple[int, Sequence[int], str, tuple[Any, ...]]
"""Number, numbers of earlier calls whose results the owner need no longer hold, name of the function, its arguments."""
Answer = tuple[int, bool, Any]
"""Number of the call, whether it went well, its result or error."""
Change = tuple[Notice, Mapping[int, PackedRecords], int]
"""What has changed, a piece of what was written, and the number of the change with its last piece, otherwise 0."""


class Count(Protocol):
    """A number in memory that the owner and all readers see: of the changes that were announced."""

    value: int


class Number:
    """A `Count` that nobody else sees. The only reader of an owner has one that stays 0, and so never waits."""

    value: int = 0


class Ask(NamedTuple):
    """A reader wants the result of a call."""

    name: str
    arguments: tuple[Any, ...] = ()


class Wait(NamedTuple):
    """A reader wants to have received all changes up to this one."""

    goal: int


Steps = Generator[Ask | Wait, Any, V]
"""What a reader does: it stops where it wants something, and is sent it."""


class Held:
    """Something that waits at the owner until it is asked for, or nobody here refers to this any more.

    Args:
        number: of the call that made it.
        left: gets the number then.
    """

    number: int

    def __init__(self, number: int, left: deque[int]) -> None:
        self.number, self._left = number, left

    def __del__(self) -> None:
        # Nothing called here may wait for a lock: the garbage collector may run this while the same thread holds it.
        self._left.append(self.number)


class Reader(Generic[T]):
    """A reader's side, from one connection to the next.

    One thread receives; calls begin and end one at a time; any thread may read, and take a step, at any time.

    Args:
        cache: bytes of records of a space that are copied, about.
        count: of the changes.

    Example:
        >>> count = Number()
        >>> reader, connection, owner = Reader[str](2**20, count), Connection(), Owner[str](count)
        >>> reader.connected()
        >>> number, name, arguments = connection.receive(reader.call("my ticket", "join", ()))
        >>> reader.receive(connection.answer(number, True, (owner.join("a reader"), True)))
        ('my ticket', True, (0, True))
        >>> [reader.receive(change) for change in owner.changed("kept", {0: {"ann": b"1"}})], reader.state
        ([None], 'joined')
        >>> list(reader.read(["ann"], 0)), next(reader.read(["eve"], 0))
        ([], Ask(name='read_many', arguments=(['eve'], 0)))
    """

    state: Literal["apart", "joining", "joined"]
    copies: RecordCaches[PackedRecords]

    def __init__(self, cache: int, count: Count) -> None:
        self.state, self.copies = "apart", RecordCaches(cache, RecordCopies)
        # Calls of an earlier connection must not be taken for those of this one: the numbers go on.
        self._numbers, self._open = itertools.count(), dict[int, tuple[T, str, int]]()
        self._left = deque[int]()
        # Number of the last change that is in the copies.
        self._count, self._seen = count, 0
        self._list: ArtifactList | None = None
        self._lists, self._items = 0, False

    def connected(self) -> None:
        """Begin a connection; "join" is to be called first. What was copied before may be old."""
        self.state, self._left, self._items = "joining", deque(), False
        self.copies.forget()
        self._relisted()

    def call(self, ticket: T, name: str, arguments: tuple[Any, ...]) -> Call:
        """The message that calls a function; `ticket` comes back with the answer, or from `ended`."""
        number = next(self._numbers)
        self._open[number] = ticket, name, self._lists
        # As many as there are now: the garbage collector may add some meanwhile, which go with the next call.
        return number, [self._left.popleft() for _ in range(len(self._left))], name, arguments

    def unsent(self, call: Call) -> None:
        """Take back a call that could not be sent."""
        self._left.extend(call[1])
        self._open.pop(call[0], None)

    def held(self, call: Call) -> Held:
        """What the owner holds after a call."""
        return Held(call[0], self._left)

    def receive(self, message: Answer | Change) -> tuple[T, bool, Any] | None:
        """Take a message in: the ticket and the result of the call that it answers, if it answers one."""
        first, well, value = cast("tuple[Any, Any, Any]", message)
        if isinstance(first, str):
            self._changed(cast("Notice", first), well, value)
            return None
        ticket, name, lists = self._open.pop(first)
        if well and name == "join":
            self.state, (number, no_items) = "joined", value
            # Changes that came before the answer may be later than that number.
            self._seen = max(self._seen, number)
            # Items may have come since the owner looked.
            if no_items and not self._items:
                self.copies.empty.add(ITEMS)
        elif well and name == "artifact_list" and lists == self._lists:
            self._list = value
        return ticket, bool(well), value

    def _changed(self, what: Notice, written: Mapping[int, PackedRecords], number: int) -> None:
        self._items = self._items or what == "forgotten" or ITEMS in written
        if what == "kept":
            self.copies.kept(written)
        if what == "forgotten":
            # A write that was in doubt, also one of the list, may be there or not.
            self.copies.forget()
        if what != "kept":
            self._relisted()
        # At last: whoever finds all changes here reads the copies next.
        self._seen = max(self._seen, number)

    def _relisted(self) -> None:
        # An answer to a call that was made before holds an old list.
        self._lists += 1
        self._list = None

    def ended(self) -> list[T]:
        """The connection is lost: the tickets of the calls that fail."""
        self.state = "apart"
        tickets = [ticket for ticket, _, _ in self._open.values()]
        self._open.clear()
        return tickets

    def has_seen(self, goal: int) -> bool:
        """Whether all changes up to this one are in the copies."""
        return self._seen >= goal

    @property
    def current(self) -> bool:
        """Whether all changes that were announced until now are in the copies."""
        return self._seen >= self._count.value

    def read(self, names: Sequence[str], space: int) -> Steps[list[bytes | None]]:
        """The record of each name, None if there is none."""
        if not self.current:
            yield Wait(self._count.value)
        steps = self.copies.steps(names, space)
        try:
            unknown = next(steps)
            steps.send((yield Ask("read_many", (unknown, space))))
        except StopIteration as done:
            return cast("list[bytes | None]", done.value)
        raise AssertionError("unreachable")

    def artifact_list(self) -> Steps[ArtifactList]:
        """The list of artifacts; the owner is asked once until it changes."""
        if not self.current:
            yield Wait(self._count.value)
        artifacts = self._list
        if artifacts is None:
            artifacts = yield Ask("artifact_list")
        return artifacts


class Hold(NamedTuple):
    """Result of a call of which a part waits at the owner."""

    held: object
    answer: object


class Connection:
    """The owner's side of one connection."""

    held: dict[int, Any]
    """Number of a call -> what it left here."""

    def __init__(self) -> None:
        self.held = {}

    def receive(self, call: Call) -> tuple[int, str, tuple[Any, ...]]:
        """Take a call in: its number, the function and the arguments."""
        number, left, name, arguments = call
        for number_left in left:
            self.held.pop(number_left, None)
        return number, name, arguments

    def answer(self, number: int, well: bool, value: object) -> Answer:
        """The message that answers a call, to be sent after the change that it made."""
        if isinstance(value, Hold):
            self.held[number] = value.held
            value = value.answer
        return number, well, value


class Owner(Generic[T]):
    """The owner's side towards all its readers. Readers may join and leave at any moment of a change.

    Args:
        count: of the changes.
    """

    readers: dict[T, None]
    """Connections that have joined."""

    def __init__(self, count: Count) -> None:
        self.readers, self._count = {}, count

    def join(self, reader: T) -> int:
        """Tell one more of changes; the number of the last one before.

        What it does not get of that one is durable, and is read for it later than this.
        """
        self.readers[reader] = None
        return self._count.value

    def leave(self, reader: T) -> None:
        """Tell one no more, whose connection is lost."""
        self.readers.pop(reader, None)

    def changed(self, what: Notice, written: Written) -> Iterator[Change]:
        """The messages that announce a durable change, each to be sent to all readers."""
        # Before anything is sent: a reader that knows of it and has not got it waits.
        number = self._count.value = self._count.value + 1
        pieces = list(pieces_of(written)) or [{}]
        for piece in pieces[:-1]:
            yield what, piece, 0
        # Whoever has got the last one has got all of the change.
        yield what, pieces[-1], number
