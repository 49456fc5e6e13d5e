"""A store is opened for reading while its owner flushes and compacts: no commit is missing, nothing seems damaged."""

import multiprocessing
from contextlib import closing
from pathlib import Path

import pytest

from lifelong.errors import StoreCorruptError, StoreUnavailableError
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store

pytest.importorskip("rocksdict")
import rocksdict

from lifelong.online.store import rocksdb_opening

USERS = [f"u{number}" for number in range(200)]
OPENED = 150
"""Openings while an owner is busy; of so many about ten would miss something if it were not seen to."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"rocksdb://{tmp_path / 'store'}"


class Between:
    """Replaces rocksdict, and lets the owner do something at each opening for reading."""

    def __init__(self, done, error=None):
        self.done, self.error, self.calls, self.last = done, error, 0, None

    def __getattr__(self, name):
        return getattr(rocksdict, name)

    def Rdict(self, *words, **named):  # noqa: N802 (its name)
        self.calls += 1
        if self.last is not None:
            with pytest.raises(rocksdict.DbClosedError):
                self.last.get(b"s")
        self.last = found = rocksdict.Rdict(*words, **named)
        self.done(self.calls)
        if self.error is not None and self.calls == 1:
            found.close()
            raise self.error
        return found


def reads(monkeypatch, kit):
    """Let stores that are opened from now on have this for rocksdict."""
    monkeypatch.setattr(rocksdb_opening, "require", lambda *words, **named: kit)


def flushed(store, value):
    store.commit(Commit(records={0: dict.fromkeys(USERS, value)}))
    store._db.flush()


@pytest.mark.parametrize("error", [None, Exception("Corruption: Can't access /000064.sst: No such file or directory")])
def test_an_opening_into_which_a_flush_falls_is_made_again(url, monkeypatch, error):
    with closing(open_store(url)) as owner:
        flushed(owner, b"1")
        kit = Between(lambda call: flushed(owner, b"2") if call == 1 else None, error)
        reads(monkeypatch, kit)
        with closing(open_store(url, read_only=True)) as reader:
            assert reader.read_many(USERS) == [b"2"] * len(USERS)
    assert kit.calls == 2


def test_an_error_at_which_nothing_changed_is_damage(url, monkeypatch):
    with closing(open_store(url)) as owner:
        flushed(owner, b"1")
        kit = Between(lambda call: None, Exception("Corruption: Can't access /000064.sst: No such file or directory"))
        reads(monkeypatch, kit)
        with pytest.raises(StoreCorruptError, match=r"000064\.sst"):
            open_store(url, read_only=True)
    assert kit.calls == 1


def test_files_that_never_rest_are_given_up_and_said(url, monkeypatch):
    monkeypatch.setattr(rocksdb_opening, "_PATIENCE", 0.2)
    with closing(open_store(url)) as owner:
        flushed(owner, b"1")
        reads(monkeypatch, Between(lambda call: flushed(owner, b"%d" % call)))
        with pytest.raises(StoreUnavailableError, match="changed each time") as caught:
            open_store(url, read_only=True)
    assert caught.value.fix == "try again when it has less to write, or ask the service that owns it, over HTTP"


def test_no_opening_beside_a_busy_owner_misses_a_commit(url):
    processes = multiprocessing.get_context("forkserver")
    written, enough = processes.Value("q", 0), processes.Event()
    owner = processes.Process(target=write_without_rest, args=(url, written, enough))
    owner.start()
    try:
        while written.value < 3:
            assert owner.is_alive()
        for _ in range(OPENED):
            before = written.value
            with closing(open_store(url, read_only=True)) as reader:
                found = {int(value) for _, value in reader.scan()}
            assert len(found) == 1 and found.pop() >= before
    finally:
        enough.set()
        owner.join()
    assert owner.exitcode == 0


def write_without_rest(url, written, enough):
    with closing(open_store(url)) as store:
        number = 0
        while not enough.is_set():
            number += 1
            store.commit(Commit(records={0: dict.fromkeys(USERS, b"%d" % number)}))
            written.value = number
            if number % 3 == 0:
                store._db.flush()
            if number % 15 == 0:
                store._db.compact_range(None, None)
