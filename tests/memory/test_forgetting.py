"""A forgotten user leaves nothing behind, and all that is kept of one can be exported."""

import json
from pathlib import Path

import pytest

from lifelong.errors import UsageError
from lifelong.online.memory import takeover
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.forgetting import export, forget, forget_inactive, moment_before
from lifelong.online.memory.rebuild import Rebuild
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store

START = 1_700_000_000
SECRET = "secret-person-4711"


def fill(artifact, store, newer=None):
    """Events of fifty users and of the secret one; memories of both artifacts."""
    updater = Updater(artifact, store, now=lambda: START)
    users = [f"{letter}{number}" for letter in "az" for number in range(25)]
    for step in range(4):
        events = [UserEvent(user, f"i{step}", START + step, "view") for user in users]
        secret = UserEvent(SECRET, f"i{step}", START + step, "buy", event_id=f"{SECRET}-order-{step}")
        updater.apply([*events[:25], secret, *events[25:]])
        if step == 1 and newer is not None:
            member = takeover.add(store, newer)
            Rebuild(store, MemoryWriter(newer, member.identity.codec, store)).build()
    return users


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("shards", [1, 2])
def test_no_byte_of_a_forgotten_user_is_left_in_the_files(artifact, newer, tmp_path, shards):
    pytest.importorskip("rocksdict")
    store = open_store(f"rocksdb://{tmp_path}/store?shards={shards}")
    users = fill(artifact, store, newer)
    # Into tables, so that the erasure has something to leave behind.
    store.purge()
    fill(artifact, store)
    assert files_with(tmp_path, SECRET)
    assert forget(store, SECRET) and not forget(store, SECRET)
    assert files_with(tmp_path, SECRET), "this test needs bytes that an erasure alone leaves"
    assert store.purge()
    assert files_with(tmp_path, SECRET) == []
    assert [value is None for value in store.read_many([users[0], SECRET], space=1)] == [False, True]
    store.close()
    assert files_with(tmp_path, SECRET) == []
    store = open_store(f"rocksdb://{tmp_path}/store")
    assert len(dict(store.scan())) == 50 and len(store.events(users[0])) == 8
    store.close()


@pytest.mark.parametrize("shards", [1, 2])
def test_files_that_something_still_reads_are_said_and_go_when_it_ends(artifact, tmp_path, shards):
    pytest.importorskip("rocksdict")
    store = open_store(f"rocksdb://{tmp_path}/store?shards={shards}")
    fill(artifact, store)
    assert store.purge()
    scan = store.scan()
    next(scan)
    forget(store, SECRET)
    assert store.purge() is False, "a view is open that holds the old files"
    assert files_with(tmp_path, SECRET), "this test needs bytes in them"
    list(scan)
    assert files_with(tmp_path, SECRET) == []
    assert store.purge()
    store.close()


def test_what_is_kept_elsewhere_goes_before_the_store_forgets(artifact, store):
    fill(artifact, store)
    seen = []

    def clean(users):
        seen.extend(users)
        assert all(record is not None for record in store.read_many(users)), "a crash here must leave them findable"

    assert forget_inactive(store, START + 500, clean=clean).forgotten == 51
    assert SECRET in seen and len(seen) == 51


def test_a_forgotten_user_is_out_of_a_server(artifact, newer, redis_url, valkey):
    store = open_store(redis_url)
    fill(artifact, store, newer)
    assert forget(store, SECRET) and store.purge() is False
    assert SECRET not in valkey.call("--scan")
    assert len(dict(store.scan(1))) == 50
    store.close()


def test_an_erased_user_can_come_again(artifact, newer, store):
    fill(artifact, store, newer)
    forget(store, SECRET)
    Updater(artifact, store, now=lambda: START).apply([UserEvent(SECRET, "i1", START, event_id=f"{SECRET}-order-0")])
    found = export(store, SECRET)
    assert [memory["count"] for memory in found["memories"]] == [1, 1] and len(found["events"]) == 1


def test_an_export_tells_all_that_is_kept(artifact, newer, store):
    fill(artifact, store, newer)
    found = json.loads(json.dumps(export(store, SECRET)))
    assert [memory["artifact"] for memory in found["memories"]] == [artifact.id, newer.id]
    assert [memory["count"] for memory in found["memories"]] == [4, 4]
    assert [len(found["memories"][0]["fields"]["slot"])] == [3]
    assert [event["item"] for event in found["events"]] == ["i0", "i1", "i2", "i3"]
    assert [event["position"] for event in found["events"]] == [1, 2, 3, 4]
    assert [one["event_id"] for one in found["event_ids"]] == [f"{SECRET}-order-{step}" for step in range(4)]
    assert export(store, "nobody") == {"user": "nobody", "known": False, "memories": [], "events": [], "event_ids": []}


def test_users_without_an_event_for_long_are_forgotten(artifact, newer, store):
    users = fill(artifact, store, newer)
    Updater(artifact, store).apply([UserEvent("fresh", "i1", START + 1000)])
    told = []
    sweep = forget_inactive(store, START + 500, on_forgotten=told.append)
    assert (sweep.users, sweep.forgotten, sweep.active) == (52, 51, 0)
    assert sorted(told) == sorted([*users, SECRET])
    assert [user for user, _ in store.scan()] == [user for user, _ in store.scan(1)] == ["fresh"]


def test_a_user_who_comes_back_during_the_sweep_stays(artifact, store, monkeypatch):
    updater = Updater(artifact, store)
    updater.apply([UserEvent("u", "i1", START)])
    commit = store.commit

    def interrupted(change: Commit) -> None:
        monkeypatch.setattr(store, "commit", commit)
        updater.apply([UserEvent("u", "i2", START + 1000)])
        commit(change)

    monkeypatch.setattr(store, "commit", interrupted)
    assert forget_inactive(store, START + 500).active == 1
    assert len(store.events("u")) == 2


def test_a_limit_without_days_is_refused():
    assert moment_before(1, now=lambda: START) == START - 86_400
    with pytest.raises(UsageError, match="above 0"):
        moment_before(0)
