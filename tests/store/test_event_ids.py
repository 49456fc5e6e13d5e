"""Event ids are known for a day of real time, whatever clocks say, and no commit looks for old ones."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import StoreUnavailableError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.store.contract import Commit, Elapsed
from lifelong.online.store.opening import open_store
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.sharded import ShardedStore

DAY, START = 86_400, 1_700_000_000


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store", sync=False)) as opened:
        yield opened


def at(store, seconds):
    """Let the store's clock be where a test says."""
    store._ids.clock = Elapsed(START, passed=lambda: seconds[0])


def ids_on_disk(store):
    return sum(1 for _ in store._scan(b"n"))


def test_no_commit_scans_and_ids_of_two_days_at_most_take_space(store, monkeypatch):
    seconds, scanned = [0.0], []
    at(store, seconds)
    with monkeypatch.context() as patch:
        for part in (store, store._ids):
            patch.setattr(part, "_scan", lambda *arguments, **more: scanned.append(arguments) or iter(()))
        for hour in range(6 * 24):
            seconds[0] = hour * 3_600.0
            keys = [("u", f"{hour}-{number}") for number in range(10)]
            assert not any(store.seen(keys, now=store.clock()))
            store.commit(Commit(event_ids=dict.fromkeys(keys, store.clock() + DAY)))
    assert scanned == []
    assert 240 <= ids_on_disk(store) <= 490 and len(store._ids.buckets) == 2


@pytest.mark.parametrize("kind", ["memory", "rocksdb", "shards", "redis"])
def test_a_system_clock_that_is_wrong_makes_nothing_count_twice(request, artifact, tmp_path, monkeypatch, kind):
    urls = {
        "memory": "memory://",
        "rocksdb": f"rocksdb://{tmp_path}/one",
        "shards": f"rocksdb://{tmp_path}/two?shards=2",
    }
    url = request.getfixturevalue("redis_url") if kind == "redis" else urls[kind]
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    with contextlib.closing(open_store(url)) as opened:
        updater = Updater(artifact, opened)
        event = UserEvent("u", "i1", START, event_id="first")
        assert updater.apply([event]).applied == 1
        for number, wrong in enumerate((25 * 3_600, 400 * DAY, -25 * 3_600, 0)):
            ahead[0] = wrong
            # Another event, so that what is taken for old would be taken out.
            assert updater.apply([UserEvent("u", "i2", START, event_id=f"{number}")]).applied == 1
            assert updater.apply([event]).duplicates == 1


def test_a_store_that_is_opened_under_a_wrong_clock_knows_its_ids(tmp_path, monkeypatch):
    key = ("u", "first")
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as opened:
        opened.commit(Commit(event_ids={key: opened.clock() + DAY}))
    real = time.time
    for wrong in (25 * 3_600, -400 * DAY, 3 * DAY):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: real() + wrong)
        with contextlib.closing(RocksDbStore(tmp_path / "store")) as opened:
            assert opened.seen([key], now=opened.clock()) == [True]
            opened.commit(Commit(event_ids={("u", f"at {wrong}"): opened.clock() + DAY}))
            assert opened.seen([key], now=opened.clock()) == [True]
    with contextlib.closing(RocksDbStore(tmp_path / "store", read_only=True)) as opened:
        assert opened.seen([key], now=opened.clock()) == [True]


def test_an_id_is_forgotten_after_a_day_in_which_the_store_was_open(tmp_path):
    key, seconds = ("u", "first"), [0.0]
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as opened:
        at(opened, seconds)
        opened.commit(Commit(event_ids={key: opened.clock() + DAY}))
        seconds[0] = DAY / 2
        opened.commit(Commit(event_ids={("u", "second"): opened.clock() + DAY}))
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as opened:
        begun = opened.clock()
        assert START + DAY / 2 <= begun < START + DAY / 2 + 100
        seconds[0] = 0.0
        opened._ids.clock = Elapsed(begun, passed=lambda: seconds[0])
        seconds[0] = DAY / 2 - 101
        assert opened.seen([key], now=opened.clock()) == [True]
        seconds[0] = DAY / 2
        assert opened.seen([key], now=opened.clock()) == [False]
        assert opened.seen([("u", "second")], now=opened.clock()) == [True]
        seconds[0] = 2.5 * DAY
        opened.seen([], now=opened.clock())
        opened.commit(Commit(event_ids={("u", "third"): opened.clock() + DAY}))
        assert opened.event_ids("u") == [("third", opened.clock() + DAY)] and ids_on_disk(opened) == 1


def test_an_id_whose_write_was_in_doubt_is_looked_for_when_the_store_is_back(tmp_path):
    key = ("u", "first")
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as opened:
        whole = opened._db

        class Failing:
            def __getattr__(self, name):
                return getattr(whole, name)

            def flush_wal(self, sync):
                raise Exception("IO error: fsync failed")

        opened._db = Failing()
        with pytest.raises(StoreUnavailableError, match="may or may not"):
            opened.commit(Commit(event_ids={key: opened.clock() + DAY}))
        opened.check_writes()
        # The disk has it after all; sent again it must not count twice.
        assert opened.seen([key], now=opened.clock()) == [True]


def test_shards_agree_on_the_clock(tmp_path):
    with contextlib.closing(ShardedStore(tmp_path / "store", 2)) as opened:
        first = opened._shards[0]
        first._ids.clock = Elapsed(opened.clock() + 1_000)
        assert opened.clock() == first.clock()


def test_the_benchmark_prints_what_a_commit_took_on_each_day():
    script = Path(__file__).parents[2] / "benchmarks" / "event_ids.py"
    words = [sys.executable, script, "--days", "2", "--ids", "20", "--batch", "10"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["mean_ms"]) == 2
