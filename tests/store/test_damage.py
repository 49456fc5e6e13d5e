"""Damage on the disk: it is found, it is named, and it stays where it is."""

from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import StoreCorruptError, StoreError, StoreUnavailableError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.contract import Commit
from lifelong.online.store.rocksdb import RocksDbStore

START = 1_700_000_000


@pytest.fixture
def store(tmp_path):
    opened = RocksDbStore(tmp_path / "store")
    yield opened
    opened.close()


def damage(store: RocksDbStore, user: str) -> None:
    """Turn one bit of a user's memory, behind the back of the checks."""
    (record,) = store.read_many([user])
    assert record is not None
    store.commit(Commit(records={0: {user: record[:-1] + bytes([record[-1] ^ 1])}}))


def test_a_damaged_memory_is_named_and_the_other_users_go_on(artifact, store):
    updater, scorer = Updater(artifact, store), Scorer(artifact, store)
    updater.apply([UserEvent(user, "i1", START) for user in ("good", "bad")])
    damage(store, "bad")
    for ask in (lambda: scorer.score("bad", ["i1"]), lambda: updater.apply([UserEvent("bad", "i2", START)])):
        with pytest.raises(StoreCorruptError, match="the memory of user 'bad' fails its checksum"):
            ask()
    assert scorer.score("good", ["i1"], time=START)
    assert updater.apply([UserEvent("good", "i2", START)]).applied == 1


def test_a_user_with_a_damaged_memory_can_be_erased_and_begins_anew(artifact, store):
    updater = Updater(artifact, store)
    updater.apply([UserEvent("bad", "i1", START)])
    damage(store, "bad")
    store.commit(Commit(deleted=["bad"]))
    assert updater.apply([UserEvent("bad", "i2", START)]).applied == 1


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_file_of_the_database_is_found_and_named(tmp_path):
    store = RocksDbStore(tmp_path / "store")
    store.commit(Commit(records={0: {f"u{number}": b"%0200d" % number for number in range(5_000)}}))
    store.close()
    (file,) = (tmp_path / "store" / "db").glob("*.sst")
    flip(file, file.stat().st_size // 3)
    with pytest.raises(StoreCorruptError, match=str(tmp_path / "store")):
        opened = RocksDbStore(tmp_path / "store", read_only=True)
        try:
            assert list(opened.scan())
        finally:
            opened.close()


def test_users_in_other_blocks_of_a_damaged_file_are_read(tmp_path):
    store = RocksDbStore(tmp_path / "store")
    states = {f"u{number}": b"%0200d" % number for number in range(5_000)}
    store.commit(Commit(records={0: states}))
    store.close()
    (file,) = (tmp_path / "store" / "db").glob("*.sst")
    flip(file, file.stat().st_size // 3)
    opened, lost = RocksDbStore(tmp_path / "store", read_only=True), 0
    for user, state in states.items():
        try:
            assert opened.read_many([user]) == [state]
        except StoreError:
            lost += 1
    opened.close()
    assert 0 < lost < 1_000


def test_after_a_sync_that_failed_neither_writes_nor_reads_go_on_until_it_is_opened_again(tmp_path, monkeypatch):
    store = RocksDbStore(tmp_path / "store")
    store.commit(Commit(records={0: {"a": b"1"}}))

    class Failing:
        def __init__(self, database):
            self.database = database

        def __getattr__(self, name):
            return getattr(self.database, name)

        def flush_wal(self, sync):
            raise Exception("IO error: fsync failed")

    whole = store._db
    monkeypatch.setattr(store, "_db", Failing(whole))
    with pytest.raises(StoreUnavailableError, match="may or may not be there"):
        store.commit(Commit(records={0: {"a": b"2"}}))
    for ask in (lambda: store.read_many(["a"]), lambda: store.commit(Commit(records={0: {"a": b"3"}}))):
        with pytest.raises(StoreUnavailableError, match="opens its store again"):
            ask()
    store._db = whole
    store.close()
    again = RocksDbStore(tmp_path / "store")
    assert again.read_many(["a"]) in ([b"1"], [b"2"])
    again.close()
