"""A server that comes back empty, or with another store, under a store that is open."""

import contextlib

import pytest
from support.valkey import cluster, server, url_of_cluster

from lifelong.errors import StoreForeignError, StoreUnavailableError
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store

pytestmark = pytest.mark.usefixtures("needs_valkey")

ONE, OTHER = StoreIdentity("one", "fp32", "[]"), StoreIdentity("other", "fp32", "[]")
CHANGE = Commit(records={0: {"ann": b"1"}}, events={("ann", 1): b"e"}, event_ids={("ann", "x"): 2**40})
READS = {
    "bind": lambda store: store.bind(ONE),
    "artifact_list": lambda store: store.artifact_list(),
    "read_many": lambda store: store.read_many(["ann", "bob"]),
    "items": lambda store: store.read_many(["i"], space=ITEMS),
    "scan": lambda store: list(store.scan()),
    "scan of items": lambda store: list(store.scan(ITEMS)),
    "watermark": lambda store: store.watermark("s", 0),
    "positions": lambda store: store.positions("s", 0, ["ann"]),
    "seen": lambda store: store.seen([("ann", "x")], now=1),
    "events": lambda store: store.events("ann"),
    "event_ids": lambda store: store.event_ids("ann"),
    "logs": lambda store: store.logs([("ann", 0)]),
    "check_writes": lambda store: store.check_writes(),
    "commit": lambda store: store.commit(CHANGE),
    "watermarks": lambda store: store.commit(Commit(watermarks={("s", 0): 9})),
    "clear": lambda store: store.clear(1),
}


def refused(store, names=tuple(READS)):
    """Whether each way to use a store says that it is not there any more."""
    for name in names:
        with pytest.raises(StoreUnavailableError, match="does not hold the store that was opened"):
            READS[name](store)
            raise AssertionError(f"{name} went on")
    return True


def test_a_server_that_was_emptied_is_neither_read_nor_written(tmp_path):
    with server(tmp_path) as one, contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}")) as store:
        store.bind(ONE)
        store.commit(CHANGE)
        with contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}", read_only=True)) as reader:
            assert reader.read_many(["ann"]) == [b"1"]
            one.call("flushall")
            assert refused(store)
            assert refused(reader, ["read_many", "scan", "events", "artifact_list"])
        left = one.call("keys", "*").split()
        assert left in ([], ["lifelong:{0}:probe"]), "something was written to a server that is not the store's"


def test_a_server_that_is_started_again_without_its_files_is_not_shared_with_another_artifact(tmp_path):
    with server(tmp_path) as one, contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}")) as store:
        store.bind(ONE)
        store.commit(CHANGE)
        one.kill()
        one.start()
        with contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}")) as other:
            other.bind(OTHER)
            other.commit(Commit(records={0: {"ann": b"other"}}))
            assert refused(store)
            assert other.read_many(["ann"]) == [b"other"] and other.events("ann") == []
        with (
            contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}")) as again,
            pytest.raises(StoreForeignError, match="written by artifact other"),
        ):
            again.bind(ONE)


def test_a_server_that_is_emptied_between_reading_and_writing_keeps_nothing(tmp_path):
    with server(tmp_path) as one, contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}")) as store:
        store.bind(ONE)
        parts = store._parts(CHANGE)
        one.call("flushall")
        with pytest.raises(StoreUnavailableError):
            store._apply(parts)
        assert one.call("dbsize").strip() == "0"


def test_one_server_of_a_cluster_that_comes_back_empty_is_noticed_by_its_users(tmp_path):
    with cluster(tmp_path) as some, contextlib.closing(open_store(url_of_cluster(some))) as store:
        store.bind(ONE)
        users = [f"u{number}" for number in range(60)]
        store.commit(Commit(records={0: dict.fromkeys(users, b"1")}))
        some[1].call("flushall")
        kept = 0
        for user in users:
            with contextlib.suppress(StoreUnavailableError):
                assert store.read_many([user]) == [b"1"]
                kept += 1
        assert 0 < kept < len(users)
        assert refused(store, ["scan", "check_writes"])
