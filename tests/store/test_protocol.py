"""What a store's owner and its readers say to each other, in thousands of simulated worlds.

`LIFELONG_SEED=17 pytest tests/store/test_protocol.py` runs the world of one seed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support import simulated_owner
from support.simulated_owner import OwnerProcess, Parts
from support.simulation import SEEDS, assert_no_world_breaks, first_broken, seeds

from lifelong.errors import StoreUnavailableError
from lifelong.online.serving.writer import Notices, functions_of
from lifelong.online.store import record_cache
from lifelong.online.store.contract import ITEMS
from lifelong.online.store.protocol import Ask, Connection, Number, Owner, Reader
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.record_cache import PackedRecords, RecordCache
from lifelong.online.store.remote import Channel, RemoteStore


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """A commit of two users has two pieces, of which each is kept as one."""
    monkeypatch.setattr(record_cache, "PIECE", 1)
    monkeypatch.setattr(record_cache, "_SMALL", 1)


def test_nothing_breaks_in_any_world():
    assert_no_world_breaks(simulated_owner.run, seeds())


@pytest.mark.soak
@pytest.mark.parametrize("part", range(100))
def test_nothing_breaks_in_a_million_worlds(part):
    assert_no_world_breaks(simulated_owner.run, range((part + 1) * SEEDS, (part + 2) * SEEDS))


class AcknowledgedBeforeSync(OwnerProcess):
    def kept(self, write, *told, events=()):
        write(self.store)
        end = self.world.disk.write((write, events))
        self.tell(*told)
        self.world.soon(lambda: setattr(self.world.disk, "synced", max(self.world.disk.synced, end)))
        yield 0


class OpenedWithoutSync(OwnerProcess):
    def open(self):
        before = self.world.disk.synced
        super().open()
        self.world.disk.synced = before


class DuplicateInDoubt(OwnerProcess):
    def seen(self, event):
        return self.store.seen([event], now=0)[0]


class AppliedAgainAfterRetry(OwnerProcess):
    def seen(self, event):
        return False


class ToldAfterTheAnswer(OwnerProcess):
    def tell(self, *told):
        self.world.clock.after(0.02, lambda: super(ToldAfterTheAnswer, self).tell(*told))


class JoinedAfterLooking(OwnerProcess):
    def _join(self, link):
        self.world.clock.after(0.05, lambda: self.owner.join(link))
        return 0, not self.store.read_many(["i"], space=ITEMS)[0]


class SilentReopening(OwnerProcess):
    def tell(self, what, written):
        if what != "forgotten":
            super().tell(what, written)


class NeverLeft(OwnerProcess):
    def lost(self, link):
        self.connections.pop(link, None)


class NeverCounted(Owner):
    def changed(self, what, written):
        return Owner(None).changed(what, written)


class NumberedWithTheFirstPiece(Owner):
    def changed(self, what, written):
        changes = list(super().changed(what, written))
        number = changes[-1][2]
        return [(what, piece, number) for what, piece, _ in changes]


class NothingIsLeft(Connection):
    def receive(self, call):
        return super().receive((call[0], (), *call[2:]))


class KeepsCopiesOfAnEarlierConnection(Reader):
    def connected(self):
        self.copies.forget = lambda: None
        super().connected()
        del self.copies.forget


class KeepsItsListOfAnEarlierConnection(Reader):
    def connected(self):
        before = self._list
        super().connected()
        self._list = before


class ForgetsToReplaceACopy(Reader):
    def _changed(self, what, written, number):
        super()._changed(what, {} if what == "kept" else written, number)


class SeenBeforeItIsCopied(Reader):
    def _changed(self, what, written, number):
        super()._changed(what, written, number + 1 if number else 0)


class ReadsWithoutCatchingUp(Reader):
    current = True


class TakesAnOldList(Reader):
    def receive(self, message):
        if isinstance(message[0], int) and message[0] in self._open:
            ticket, name, _ = self._open[message[0]]
            self._open[message[0]] = ticket, name, self._lists
        return super().receive(message)


class ItemsThatCameAreForgotten(Reader):
    def receive(self, message):
        self._items = False
        return super().receive(message)


class OpenCallsAreForgotten(Reader):
    def ended(self):
        super().ended()
        return []


class OffersWhatIsOld(Reader):
    def __init__(self, cache, count=None):
        super().__init__(cache, count)
        steps = self.copies.steps

        def late(names, space):
            found = yield from steps(names, space)
            cache = self.copies.of(space)._asked
            RecordCache.offer(cache, cache.moment, [name.encode() for name in names], found)
            return found

        self.copies.steps = late


MISTAKES = {
    **{kind.__name__: Parts(process=kind) for kind in OwnerProcess.__subclasses__()},
    **{kind.__name__: Parts(owner=kind) for kind in (NeverCounted, NumberedWithTheFirstPiece)},
    "NothingIsLeft": Parts(connection=NothingIsLeft),
    **{
        kind.__name__: Parts(reader=kind)
        for kind in (
            KeepsCopiesOfAnEarlierConnection,
            KeepsItsListOfAnEarlierConnection,
            ForgetsToReplaceACopy,
            SeenBeforeItIsCopied,
            ReadsWithoutCatchingUp,
            TakesAnOldList,
            ItemsThatCameAreForgotten,
            OpenCallsAreForgotten,
            OffersWhatIsOld,
        )
    },
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_within_the_seeds_of_an_ordinary_run(name):
    found = first_broken(partial(simulated_owner.run, parts=MISTAKES[name]), range(SEEDS))
    assert found is not None


@pytest.fixture
def reader():
    """A reader that has joined."""
    one = Reader(2**20, Number())
    one.connected()
    answer(one, one.call("ticket", "join", ()), (0, True))
    return one


def answer(reader, call, value):
    return reader.receive(Connection().answer(call[0], True, value))


def asks(reader, names=("i",), space=ITEMS):
    """Whether a reader has to ask the owner for records."""
    return list(itertools.islice(reader.read(list(names), space), 1)) != []


def test_a_scan_of_an_earlier_connection_closes_none_of_the_next(reader):
    earlier = reader.held(reader.call("ticket", "scan", (0,)))
    reader.ended()
    reader.connected()
    later = reader.held(reader.call("ticket", "scan", (0,)))
    assert later.number != earlier.number
    del earlier
    assert reader.call("ticket", "clock", ())[1] == []
    number = later.number
    del later
    assert reader.call("ticket", "clock", ())[1] == [number]


def test_a_list_that_was_asked_for_before_a_change_is_asked_for_again(reader):
    call = reader.call("ticket", "artifact_list", ())
    reader.receive(("listed", {}, 0))
    assert answer(reader, call, "old") == ("ticket", True, "old")
    assert list(itertools.islice(reader.artifact_list(), 1)) == [Ask("artifact_list")]


@pytest.mark.parametrize("change", [("forgotten", {}, 0), ("kept", {ITEMS: PackedRecords.of({b"i": b"{}"})}, 0)])
def test_items_are_never_taken_for_absent_where_some_may_have_come(reader, change):
    assert not asks(reader)
    reader.ended()
    reader.connected()
    assert asks(reader), "what the owner has is not known before it has answered"
    call = reader.call("ticket", "join", ())
    reader.receive(change)
    answer(reader, call, (0, True))
    assert reader.copies.holds(["i"], ITEMS) == (change[0] == "kept") and asks(reader, ["other"])


def test_after_a_write_in_doubt_items_and_the_list_are_asked_for_again(reader):
    answer(reader, reader.call("ticket", "artifact_list", ()), "a list")
    assert list(reader.artifact_list()) == [] and not asks(reader)
    reader.receive(("forgotten", {}, 0))
    assert list(itertools.islice(reader.artifact_list(), 1)) == [Ask("artifact_list")] and asks(reader)


def test_a_store_that_answers_nothing_before_its_writes_are_checked_lets_a_reader_join():
    class InDoubt(InMemoryStore):
        def scan(self, space=0):
            raise StoreUnavailableError("the last write is in doubt")

    with ThreadPoolExecutor(1) as threads:
        join, _ = functions_of(InDoubt(), None, Connection(), threads, Notices(Number()))["join"]
        assert join() == (0, False)


def test_an_owner_whose_first_answer_is_an_error_is_left_so_that_another_one_may_begin():
    left, here = [], []

    def connect():
        mine, there = map(Channel, socket.socketpair())
        connection = Connection()
        here.append(there)

        def work():
            number, _, _ = connection.receive(there.receive())
            there.send((number, False, StoreUnavailableError("no")))
            with contextlib.suppress(EOFError):
                there.receive()
            left.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        return mine, thread.join

    with pytest.raises(StoreUnavailableError, match="no"):
        RemoteStore(connect, Number())
    assert left == [True]
    here[0].close()
