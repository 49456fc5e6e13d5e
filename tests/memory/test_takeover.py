"""A new artifact's memories are built next to the old ones while events come in, and served in their place."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from lifelong.artifact.folder import Artifact
from lifelong.errors import MismatchError, StoreError, StoreForeignError, UsageError
from lifelong.online.memory import takeover
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.rebuild import Rebuild
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000


@pytest.fixture(params=["memory", "rocksdb", "shards", "redis", "cluster"])
def any_url(request, tmp_path):
    if request.param == "memory":
        return "memory://"
    if request.param in ("rocksdb", "shards"):
        pytest.importorskip("rocksdict")
        return f"rocksdb://{tmp_path}/store" + "?shards=2" * (request.param == "shards")
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def any_store(any_url):
    opened = open_store(any_url)
    yield opened
    opened.close()


def build(store, artifact, **options):
    stored = takeover.add(store, artifact)
    return Rebuild(store, MemoryWriter(artifact, stored.identity.codec, store), **options).build()


def memories(store, artifact):
    slot = store.artifact_list().find(artifact.id).space
    rows = dict(store.scan(slot))
    states = Runtime(artifact, codec=store.artifact_list().find(artifact.id).identity.codec).decode(list(rows.values()))
    return {
        user: (int(states.count_B[at]), int(states.last_time_B[at]), states.fields["slot"][at])
        for at, user in enumerate(rows)
    }


def assert_as_alone(store, artifact, events):
    """Every memory is what a store of this artifact alone would hold."""
    alone = InMemoryStore()
    Updater(artifact, alone).apply(events)
    found, wanted = memories(store, artifact), memories(alone, artifact)
    assert found.keys() == wanted.keys()
    for user, (count, last, slot) in wanted.items():
        assert found[user][:2] == (count, last)
        np.testing.assert_allclose(found[user][2], slot, atol=1e-5)


def test_memories_are_built_from_the_log_and_every_later_event_goes_into_both(any_store, artifact, newer, log):
    updater, half = Updater(artifact, any_store), len(log) // 2
    updater.apply(log[:half])
    report = build(any_store, newer)
    assert (report.events, report.passes) == (half, 1) and any_store.artifact_list().identity.artifact_id == artifact.id
    updater.apply(log[half:])
    for one in (artifact, newer):
        assert_as_alone(any_store, one, log)


def test_a_switch_and_the_way_back_change_one_word(any_store, artifact, newer, log):
    updater = Updater(artifact, any_store)
    updater.apply(log[:300])
    build(any_store, newer)
    assert takeover.switch(any_store, newer.id[:8]).active == newer.id
    updater.apply(log[300:400])
    assert takeover.back(any_store).active == artifact.id
    updater.apply(log[400:500])
    for one in (artifact, newer):
        assert_as_alone(any_store, one, log[:500])


def test_dropped_memories_are_gone_and_the_others_stay(any_store, artifact, newer, log):
    updater = Updater(artifact, any_store)
    updater.apply(log[:300])
    build(any_store, newer)
    takeover.switch(any_store, newer.id)
    with pytest.raises(UsageError, match="is served"):
        takeover.drop(any_store, newer.id)
    artifact_list = takeover.drop(any_store, artifact.id)
    assert artifact_list.dropping == () and dict(any_store.scan(0)) == {}
    updater.apply(log[300:400])
    assert_as_alone(any_store, newer, log[:400])
    with pytest.raises(UsageError, match="no artifact was served before"):
        takeover.back(any_store)


def test_an_interrupted_drop_is_brought_to_an_end(any_store, artifact, newer, log):
    Updater(artifact, any_store).apply(log[:100])
    build(any_store, newer)
    takeover.change(any_store, lambda artifact_list: artifact_list.drop(newer.id))
    assert len(dict(any_store.scan(1))) > 0
    takeover.empty_dropped(any_store)
    assert dict(any_store.scan(1)) == {} and any_store.artifact_list().dropping == ()


def test_events_that_come_during_a_build_are_in_both(any_store, artifact, newer, log):
    updater = Updater(artifact, any_store)
    updater.apply(log[:200])
    stop, sent, failures = threading.Event(), [*log[:200]], []

    def go_on():
        try:
            for event in log[200:600]:
                if stop.is_set():
                    break
                updater.apply([event])
                sent.append(event)
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=go_on)
    writer.start()
    build(any_store, newer)
    takeover.switch(any_store, newer.id)
    stop.set()
    writer.join()
    assert failures == []
    updater.apply(log[600:650])
    for one in (artifact, newer):
        assert_as_alone(any_store, one, [*sent, *log[600:650]])


def test_a_writer_that_did_not_know_of_the_new_artifact_leaves_no_event_out(any_url, artifact, newer, log):
    if any_url == "memory://" or any_url.startswith("rocksdb"):
        pytest.skip("one process owns this store")
    store, other = open_store(any_url), open_store(any_url)
    elsewhere = Updater(artifact, other)
    elsewhere.apply(log[:100])
    build(store, newer)
    elsewhere.apply(log[100:200])
    assert_as_alone(store, newer, log[:200])
    takeover.switch(store, newer.id)
    takeover.drop(store, artifact.id)
    elsewhere.apply(log[200:300])
    assert_as_alone(store, newer, log[:300])
    assert dict(store.scan(0)) == {}
    store.close()
    other.close()


def test_a_build_that_was_stopped_goes_on_where_it_stopped(artifact, newer, log, store):
    Updater(artifact, store).apply(log)
    stored = takeover.add(store, newer)
    first = Rebuild(store, MemoryWriter(newer, stored.identity.codec, store))
    artifact_list = store.artifact_list()
    users = [user for user, _ in store.scan()]
    assert first.catch_up(users[:7], artifact_list) == 0 and first.users == 7
    report = build(store, newer)
    assert report.users == len(users) - 7
    assert_as_alone(store, newer, log)


def test_what_is_not_complete_cannot_be_served(artifact, newer, log, store):
    Updater(artifact, store).apply(log[:50])
    takeover.add(store, newer)
    for call in (lambda: takeover.switch(store, newer.id), lambda: Updater(newer, store)):
        with pytest.raises(StoreForeignError, match="not complete"):
            call()


def test_events_that_no_one_knows_are_named(artifact, newer, log, store):
    Updater(artifact, store, event_log=False).apply(log[:50])
    Updater(artifact, store).apply(log[50:80])
    with pytest.raises(StoreError, match=r"cannot be built.*the log lacks the user.s first"):
        build(store, newer)
    assert not store.artifact_list().find(newer.id).ready


def test_the_first_events_may_stand_in_a_dataset(artifact, newer, dataset, log, store):
    Updater(artifact, store, event_log=False).apply(log[: len(log) // 2])
    Updater(artifact, store).apply(log[len(log) // 2 :])
    report = build(store, newer, dataset=dataset)
    assert report.events == len(log)
    assert_as_alone(store, newer, log)


def test_a_dataset_with_other_events_than_the_log_is_refused(artifact, newer, dataset, log, store):
    Updater(artifact, store, event_log=False).apply(log[:900])
    Updater(artifact, store).apply([replace(event, item="i1") for event in log[900:]])
    with pytest.raises(StoreError, match="another one in DATA than in the log"):
        build(store, newer, dataset=dataset)


def test_the_lossy_memory_of_a_new_artifact_is_rounded_at_every_event(artifact, newer, log, store):
    Updater(artifact, store).apply(log[:400])
    takeover.add(store, newer, codec="int8")
    build(store, newer)
    alone = InMemoryStore()
    Updater(newer, alone, codec="int8").apply(log[:400])
    found, wanted = memories(store, newer), memories(alone, newer)
    for user, (count, _, slot) in wanted.items():
        assert found[user][0] == count
        np.testing.assert_allclose(found[user][2], slot, atol=1e-5)


def test_a_user_who_is_erased_during_a_build_stays_erased(artifact, newer, log, store, monkeypatch):
    Updater(artifact, store).apply(log[:200])
    commit = store.commit

    def interrupted(change):
        monkeypatch.setattr(store, "commit", commit)
        commit(Commit(deleted=["u5"]))
        commit(change)

    monkeypatch.setattr(store, "commit", interrupted)
    build(store, newer)
    assert store.read_many(["u5"]) == store.read_many(["u5"], space=1) == [None]
    assert_as_alone(store, newer, [event for event in log[:200] if event.user != "u5"])


def test_an_artifact_that_fails_is_left_behind_and_the_served_one_goes_on(artifact, newer, log, store, monkeypatch):
    updater = Updater(artifact, store)
    updater.apply(log[:100])
    build(store, newer)
    follower = updater.artifacts.follow()[1][1]
    monkeypatch.setattr(follower, "numbers", lambda *_: 1 / 0)
    assert updater.apply(log[100:150]).applied == 50
    assert_as_alone(store, artifact, log[:150])
    assert store.artifact_list().find(newer.id).phase == "behind"
    with pytest.raises(StoreForeignError, match="not complete"):
        takeover.switch(store, newer.id)
    build(store, newer)
    assert_as_alone(store, newer, log[:150])


def test_an_artifact_whose_folder_is_gone_is_named_with_the_way_out(artifact, newer, log, store):
    Updater(artifact, store).apply(log[:10])
    build(store, newer)
    artifact_list = store.artifact_list()
    store.change_artifact_list(
        artifact_list, artifact_list.renew(replace(artifact_list.find(newer.id).identity, path="/none"))
    )
    with pytest.raises(StoreForeignError, match=r"/none.*switch --drop"):
        Updater(artifact, store)


def test_item_fields_that_only_one_artifact_has_are_no_trouble(artifact, newer, store, monkeypatch):
    updater = Updater(artifact, store)
    updater.apply([UserEvent("u", "i1", START, "view", fields={"category": "c1"})])
    build(store, newer)
    catalogue = updater.artifacts.follow()[1][1].artifact.catalogue
    monkeypatch.setattr(catalogue, "only_known", lambda fields: {})
    updater.apply([UserEvent("u", "i1", START + 1, "view", fields={"category": "c2"})])
    assert memories(store, newer)["u"][0] == 2


def test_an_artifact_that_counts_time_otherwise_is_refused(artifact, newer, log, store):
    Updater(artifact, store).apply(log[:10])
    schema = newer.config.dataset_schema.model_copy(update={"time_unit": "ordinal"})
    config = newer.config.model_copy(update={"dataset_schema": schema})
    with pytest.raises(MismatchError, match="ordinal"):
        takeover.add(store, Artifact(newer.path, newer.manifest, config))


def test_a_new_store_has_nothing_to_take_over(newer, store):
    with pytest.raises(StoreError, match="the store is new"):
        takeover.add(store, newer)
