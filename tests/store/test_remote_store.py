"""A store that another process owns, against the whole contract; and what this process keeps of it in RAM."""

import gc
import itertools
from contextlib import closing

import pytest
from support.remote import Owner, open_remote

from lifelong.errors import StoreUnavailableError
from lifelong.store.contract import ITEMS, Commit
from lifelong.store.remote import RemoteStore
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
    with closing(RemoteStore(owner)) as store:
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
        patch.setattr(remote, "calls", lambda *_: pytest.fail("it is asked for again"))
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
