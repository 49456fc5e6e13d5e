"""A store that another process owns, against the whole contract; and what this process keeps of it in RAM."""

import gc
import itertools
import socket
import struct
import threading
from contextlib import closing

import pytest
from support.processes import until
from support.remote import Owner, open_remote

from lifelong.errors import StoreUnavailableError
from lifelong.online.serving.writer import Notices
from lifelong.online.store import remote as remotely
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.protocol import Number
from lifelong.online.store.record_cache import PIECE
from lifelong.online.store.remote import Calls, ChangeCount, Channel, RemoteStore
from lifelong.testing.store_contract import IDENTITY, OTHER, checks_for

pytest.importorskip("rocksdict")


@pytest.mark.parametrize("options", ["", "?shards=3"])
@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_contract_holds_through_another_process(check, options, tmp_path):
    check(lambda: open_remote(f"rocksdb://{tmp_path / 'store'}{options}"))


@pytest.fixture
def owner(tmp_path):
    return Owner(f"rocksdb://{tmp_path / 'store'}")


@pytest.fixture
def remote(owner):
    with closing(RemoteStore(owner, Number())) as store:
        yield store


def test_what_the_owner_writes_is_in_the_ram_of_the_reader_when_the_write_returns(owner, remote):
    for number in range(20):
        owner.store.commit(Commit(records={0: {"ann": b"%d" % number}}))
        # The next answer comes after what was said of the commit.
        remote.clock()
        assert remote.holds(["ann"]) and remote.read_many(["ann"]) == [b"%d" % number]
    owner.store.commit(Commit(deleted=["ann"]))
    remote.clock()
    assert remote.holds(["ann"]) and remote.read_many(["ann"]) == [None]


def test_an_item_that_the_owner_puts_online_is_seen(owner, remote):
    assert remote.holds(["i"], space=ITEMS) and remote.read_many(["i"], space=ITEMS) == [None]
    owner.store.commit(Commit(records={ITEMS: {"i": b"{}"}}))
    remote.clock()
    assert remote.read_many(["i", "j"], space=ITEMS) == [b"{}", None]


def test_the_list_of_artifacts_is_asked_for_once_until_it_changes(owner, remote, monkeypatch):
    remote.bind(IDENTITY)
    before = remote.artifact_list()
    with monkeypatch.context() as patch:
        patch.setattr(Calls, "__call__", lambda *_: pytest.fail("it is asked for again"))
        assert remote.artifact_list() is before
    owner.store.change_artifact_list(before, before.add(OTHER, "building"))
    remote.clock()
    assert remote.artifact_list().find(OTHER.artifact_id) is not None


def test_a_scan_that_is_left_before_its_end_is_closed_by_the_owner(owner, remote):
    remote.commit(Commit(records={0: {f"u{number:04}": b"1" for number in range(1_000)}}))
    scan = remote.scan()
    assert [name for name, _ in itertools.islice(scan, 2)] == ["u0000", "u0001"]
    assert len(owner.store._scans) == 1
    del scan
    remote.purge()
    gc.collect()
    assert len(owner.store._scans) == 0


def test_when_its_owner_has_ended_a_store_answers_from_ram_alone_until_its_writes_are_checked(owner, remote):
    remote.commit(Commit(records={0: {"ann": b"1"}}))
    owner.end()
    for ask in (lambda: remote.read_many(["bob"]), lambda: remote.commit(Commit(records={0: {"ann": b"2"}}))):
        with pytest.raises(StoreUnavailableError, match="has ended"):
            ask()
    assert remote.read_many(["ann"]) == [b"1"] and remote.figures() == {}
    remote.check_writes()
    # What the owner had written last may not have been said here.
    assert not remote.holds(["ann"]) and remote.read_many(["ann", "bob"]) == [b"1", None]


@pytest.fixture
def one_of_several(tmp_path):
    """The owner, and a reader whose changes wait until they are let through."""
    count, through = ChangeCount(tmp_path / "count"), threading.Event()
    owner = Owner(f"rocksdb://{tmp_path / 'store'}", count)
    through.set()
    with closing(RemoteStore(owner, ChangeCount(tmp_path / "count"), shared=True)) as store:
        kept = store._reader.copies.kept

        def kept_later(written):
            assert through.wait(30)
            kept(written)

        store._reader.copies.kept = kept_later
        yield owner, store, through
        through.set()


def test_one_of_several_readers_waits_for_what_was_kept_by_way_of_another(one_of_several):
    owner, reader, through = one_of_several
    assert reader.shared
    owner.store.commit(Commit(records={0: {"ann": b"1"}}))
    until(lambda: reader.holds(["ann"]))
    assert reader.read_many(["ann"]) == [b"1"]
    through.clear()
    owner.store.commit(Commit(records={0: {"ann": b"2"}}))
    assert not reader.holds(["ann"])
    found = []
    thread = threading.Thread(target=lambda: found.append(reader.read_many(["ann"])))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    through.set()
    thread.join()
    assert found == [[b"2"]] and reader.holds(["ann"])


def test_a_reader_waits_for_all_pieces_of_a_change(one_of_several):
    owner, reader, _ = one_of_several
    names, may, taken = [f"u{number}" for number in range(2 * PIECE + 1)], threading.Semaphore(0), []
    kept = reader._reader.copies.kept

    def kept_when_it_may(written):
        assert may.acquire(timeout=30)
        kept(written)
        taken.append(written)

    reader._reader.copies.kept = kept_when_it_may
    owner.store.commit(Commit(records={0: dict.fromkeys(names, b"1")}))
    for number in (1, 2):
        may.release()
        until(lambda number=number: len(taken) == number)
        assert not reader.holds(names[:1]), "an answer could hold a part of a commit that another reader knows all of"
    may.release()
    until(lambda: reader.holds(names))
    assert reader.read_many(names) == [b"1"] * len(names)


def test_a_reader_that_does_not_get_the_changes_says_so_and_answers_again_when_it_has_them(one_of_several, monkeypatch):
    owner, reader, through = one_of_several
    monkeypatch.setattr(remotely, "BEHIND_SECONDS", 0.05)
    through.clear()
    owner.store.commit(Commit(records={0: {"ann": b"1"}}))
    for ask in (lambda: reader.read_many(["ann"]), reader.artifact_list):
        with pytest.raises(StoreUnavailableError, match="have not come to this process"):
            ask()
    through.set()
    until(lambda: reader.holds(["ann"]))
    assert reader.read_many(["ann"]) == [b"1"]


def test_a_reader_that_joins_again_has_seen_all_until_then_and_keeps_nothing_older(one_of_several, tmp_path):
    owner, reader, _ = one_of_several
    owner.store.commit(Commit(records={0: {"ann": b"1"}}))
    until(lambda: reader.holds(["ann"]))
    owner.end()
    # What the owner announced last has reached nobody.
    ChangeCount(tmp_path / "count").value += 1
    with pytest.raises(StoreUnavailableError, match="have not come to this process"):
        reader.read_many(["ann"])
    reader.check_writes()
    assert not reader.holds(["ann"])
    assert reader.read_many(["ann"]) == [b"1"] and reader.holds(["ann"])


def test_a_reader_that_reads_nothing_is_cut_off_and_the_others_get_all(tmp_path):
    notices, count = Notices(ChangeCount(tmp_path / "count")), ChangeCount(tmp_path / "count")
    pairs = [tuple(map(Channel, socket.socketpair())) for _ in range(2)]
    for here, _ in pairs:
        here._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50_000))
        notices.join(here)
    (_, deaf), (_, reading) = pairs
    for number in range(1, 31):
        notices.say("kept", {0: {"ann": bytes(50_000)}})
        what, written, seen = reading.receive()
        assert (what, written[0].get(b"ann"), seen, count.value) == ("kept", bytes(50_000), number, number)
    with pytest.raises(EOFError):
        for _ in range(30):
            deaf.receive()
    for channel in itertools.chain(*pairs):
        channel.close()
