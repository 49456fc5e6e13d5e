"""Opening stores, and what is particular to the one on disk."""

import contextlib
import json
import os
from functools import partial
from pathlib import Path

import pytest

from lifelong.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    UsageError,
)
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.sharded import ShardedStore

pytest.importorskip("rocksdict")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"rocksdb://{tmp_path / 'store'}"


def fill(url: str) -> str:
    with contextlib.closing(open_store(url)) as store:
        store.commit(Commit(records={0: {"u": b"1"}}, events={("u", 1): b"e"}))
    return url


@pytest.fixture
def filled(url: str) -> str:
    return fill(url)


@pytest.fixture(params=["", "?shards=3"])
def any_filled(request, url: str) -> str:
    """One database, or several shards."""
    return fill(url + request.param)


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found


@pytest.mark.parametrize("make", [RocksDbStore, partial(ShardedStore, shards=2)], ids=["one", "sharded"])
def test_a_store_opens_at_a_path_that_is_text(make, tmp_path: Path) -> None:
    store = make(str(tmp_path / "store"))
    store.commit(Commit(records={0: {"u": b"1"}}))
    assert store.read_many(["u"]) == [b"1"] and store.path == tmp_path / "store"
    store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("store", "not the URL"),
        ("rocksdb://", "no folder"),
        ("redis://", "no server"),
        ("mongo://host", "no store mongo"),
        ("memory://x", "no place"),
    ],
)
def test_a_url_that_names_no_store_says_what_would(url, said):
    with pytest.raises(UsageError, match=said) as caught:
        open_store(url)
    assert "://" in caught.value.expected


def test_memory_urls_open_separate_stores():
    one, other = open_store("memory://"), open_store("memory://")
    one.commit(Commit(records={0: {"u": b"1"}}))
    assert isinstance(one, InMemoryStore)
    assert other.read_many(["u"]) == [None]


def test_a_second_writer_is_told_who_owns_the_store(any_filled):
    store = open_store(any_filled)
    with pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
        open_store(any_filled)
    store.close()
    open_store(any_filled).close()


def test_reading_alone_works_beside_the_owner_and_shows_the_moment_of_opening(any_filled):
    owner, reader = open_store(any_filled), open_store(any_filled, read_only=True)
    owner.commit(Commit(records={0: {"u": b"2"}}))
    assert reader.read_many(["u"]) == [b"1"]
    with pytest.raises(StoreError, match="reading only"):
        reader.commit(Commit(records={0: {"u": b"3"}}))
    reader.close()
    owner.close()


def test_reading_sees_what_a_living_owner_has_committed_but_not_flushed(url):
    owner = open_store(url)
    owner.commit(Commit(records={0: {"u": b"1"}}))
    reader = open_store(url, read_only=True)
    assert reader.read_many(["u"]) == [b"1"]
    reader.close()
    owner.close()


@pytest.mark.parametrize("option", ["", "?shards=2"])
def test_reading_a_store_that_is_not_there_makes_none(url, tmp_path, option):
    with pytest.raises(StoreError, match="no store"):
        open_store(url + option, read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [63, 64, 65, 200])
def test_many_users_are_read_in_pieces_and_come_in_the_order_of_the_question(url, number):
    with contextlib.closing(open_store(url)) as store:
        store.commit(Commit(records={0: {f"u{at}": b"%d" % at for at in range(0, number, 2)}}))
    with contextlib.closing(open_store(url)) as store:
        found = store.read_many([f"u{at}" for at in range(number)])
    assert found == [b"%d" % at if at % 2 == 0 else None for at in range(number)]


def test_closing_leaves_no_open_file(any_filled, tmp_path):
    def names() -> set[str]:
        return {name for name in open_files() if str(tmp_path) in name}

    store = open_store(any_filled)
    view = store.scan()
    next(view)
    assert names()
    store.close()
    assert names() == set()
    del view


@pytest.mark.parametrize("option", ["", "?shards=2"])
def test_a_folder_with_other_things_is_not_touched(tmp_path, option):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreCorruptError, match="not a store"):
        open_store(f"rocksdb://{tmp_path}{option}")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("left", [None, "", '{"raw_mo'])
def test_a_process_that_was_killed_while_it_opened_a_store_leaves_it_whole(filled, left):
    settings = Path(filled.removeprefix("rocksdb://")) / "db" / "rocksdict-config.json"
    for read_only in (True, False):
        if left is None:
            settings.unlink()
        else:
            settings.write_text(left)
        store = open_store(filled, read_only=read_only)
        assert [user for user, _ in store.scan()]
        store.close()
    assert json.loads(settings.read_text())["raw_mode"] is True


def test_a_database_of_another_program_is_refused_before_it_is_opened(filled):
    settings = Path(filled.removeprefix("rocksdb://")) / "db" / "rocksdict-config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "raw_mode": False}))
    before = settings.read_bytes()
    with pytest.raises(StoreCorruptError, match="another program"):
        open_store(filled)
    assert settings.read_bytes() == before


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_damaged_store_says_so(filled, name):
    damaged = list((Path(filled.removeprefix("rocksdb://")) / "db").glob(name))
    for path in damaged:
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert damaged
    with pytest.raises(StoreCorruptError, match="store"):
        open_store(filled)


def test_a_store_whose_list_of_files_is_gone_is_damaged(filled):
    for path in (Path(filled.removeprefix("rocksdb://")) / "db").glob("MANIFEST-*"):
        path.unlink()
    with pytest.raises(StoreCorruptError, match=r"MANIFEST-\d+.*restore a backup"):
        open_store(filled)


def test_a_store_without_its_first_file_is_not_taken_for_a_new_one(filled):
    (Path(filled.removeprefix("rocksdb://")) / "db" / "CURRENT").unlink()
    with pytest.raises(StoreCorruptError, match="CURRENT is missing"):
        open_store(filled)


def test_a_store_of_a_newer_format_is_refused(filled):
    path = Path(filled.removeprefix("rocksdb://")) / "store.json"
    path.write_text(json.dumps({"format": "lifelong-store", "version": 99}))
    with pytest.raises(StoreError, match="99"):
        open_store(filled)


def test_a_path_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        open_store(f"rocksdb://{tmp_path / 'file' / 'store'}")
