"""Events into memories: each once, in order, all of a batch or nothing."""

import threading

import numpy as np
import pytest

from lifelong.errors import (
    ArtifactError,
    RequestError,
    StoreConflictError,
    StoreCorruptError,
    StoreForeignError,
    StoreUnavailableError,
    UsageError,
)
from lifelong.online.memory.event import LAST_SECOND, LoggedEvent, UserEvent, decode_event, encode_event
from lifelong.online.memory.updater import REMEMBER, Updater
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000


def visits(user, items, *, start=START, step=60, **more):
    return [UserEvent(user, item, start + step * k, "view", **more) for k, item in enumerate(items)]


@pytest.fixture
def updater(artifact, store):
    return Updater(artifact, store, now=lambda: START)


def memory(updater, user):
    return updater.runtime.decode(updater.store.read_many([user]))


def slots(updater, user):
    return memory(updater, user).fields["slot"][0]


def test_events_move_count_and_last_time(updater):
    applied = updater.apply(visits("u", ["i1", "i2", "i3"]))
    states = memory(updater, "u")
    assert applied.applied == 3
    assert (states.count_B.tolist(), states.last_time_B.tolist()) == ([3], [START + 120])


def test_one_batch_equals_one_by_one(updater, artifact):
    events = sorted([*visits("u", ["i1", "i2", "i3"]), *visits("v", ["i4", "i1", "i9"])], key=lambda event: event.time)
    updater.apply(events)
    single = Updater(artifact, InMemoryStore())
    for event in events:
        single.apply([event])
    for user in ("u", "v"):
        np.testing.assert_allclose(slots(updater, user), slots(single, user), atol=1e-5)
        assert memory(updater, user).count_B == memory(single, user).count_B


def test_the_order_of_events_matters(updater):
    updater.apply([*visits("u", ["i1", "i2"]), *visits("v", ["i2", "i1"])])
    assert np.abs(slots(updater, "u") - slots(updater, "v")).max() > 1e-3


def test_offsets_at_or_below_the_watermark_are_duplicates(updater):
    events = visits("u", ["i1", "i2", "i3"])
    updater.apply(events[:2], source="s", partition=4, offsets=[10, 11])
    applied = updater.apply(events, source="s", partition=4, offsets=[10, 11, 15])
    assert (applied.applied, applied.duplicates, applied.no_dedup) == (1, 2, 0)
    assert memory(updater, "u").count_B == 3
    assert updater.store.watermark("s", 4) == 15
    assert updater.store.watermark("s", 0) == -1


def test_a_client_event_id_is_applied_once_in_one_batch_and_across_batches(updater):
    event = UserEvent("u", "i1", START, "view", event_id="e1")
    assert updater.apply([event, event]).duplicates == 1
    applied = updater.apply([event])
    assert (applied.applied, applied.duplicates) == (0, 1)
    assert memory(updater, "u").count_B == 1


def test_a_client_event_id_is_forgotten_after_a_day(artifact, store):
    second = [START]
    updater = Updater(artifact, store, now=lambda: second[0])
    event = UserEvent("u", "i1", START, event_id="e1")
    updater.apply([event])
    second[0] += REMEMBER - 1
    assert updater.apply([event]).duplicates == 1
    second[0] += 1
    assert updater.apply([event]).applied == 1


@pytest.mark.parametrize("days", [1.0, 0.0, 30.0, float("inf")])
def test_an_event_that_is_too_far_ahead_of_the_clock_is_refused_and_nothing_is_kept(artifact, store, days):
    updater = Updater(artifact, store, now=lambda: START, max_ahead=days)
    last = LAST_SECOND if days == float("inf") else START + int(days * 86_400)
    assert updater.apply([UserEvent("u", "i1", last)]).applied == 1
    with pytest.raises(RequestError, match=f"event 1: time is {last + 1}"):
        updater.apply([UserEvent("u", "i1", START), UserEvent("u", "i2", last + 1)])
    assert memory(updater, "u").count_B == 1
    assert Updater(artifact, store, now=lambda: START).apply([UserEvent("u", "i1", START)]).late == (days > 0)


def test_events_without_id_or_offset_are_applied_again_and_counted(updater):
    event = UserEvent("u", "i1", START)
    assert updater.apply([event, event]).no_dedup == 2
    assert memory(updater, "u").count_B == 2


def test_late_events_are_applied_in_the_order_of_arrival_and_leave_the_last_time(updater):
    applied = updater.apply([*visits("u", ["i1"]), *visits("u", ["i2"], start=START - 500)])
    assert (applied.applied, applied.late, applied.refused) == (2, 1, 0)
    assert memory(updater, "u").last_time_B == START


def test_late_events_can_be_refused(artifact, store):
    updater = Updater(artifact, store, late="refuse")
    applied = updater.apply([*visits("u", ["i1"]), *visits("u", ["i2"], start=START - 500), *visits("u", ["i3"])])
    assert (applied.applied, applied.late, applied.refused) == (2, 1, 1)
    assert memory(updater, "u").count_B == 2


def differ(updater, one: str, other: str) -> bool:
    return bool(np.abs(slots(updater, one) - slots(updater, other)).max() > 1e-4)


def test_fields_that_come_with_an_event_count_for_an_item_that_the_catalogue_does_not_have(updater):
    updater.apply(visits("known", ["i1"]))
    updater.apply(visits("given", ["i1"], fields={"category": "c3"}))
    assert not differ(updater, "known", "given")
    updater.apply([*visits("new", ["n1"]), *visits("new given", ["n1"], fields={"category": "c3"})])
    assert differ(updater, "new", "new given")
    # The log keeps them all the same.
    assert decode_event(updater.store.events("given")[0]).fields == {"category": "c3"}


def test_items_put_online_win_over_the_catalogue_and_fields_of_new_items_over_these(updater):
    updater.apply(visits("known", ["i1"]))
    updater.store.commit(Commit(records={ITEMS: {"i1": b'{"category":"c7"}', "n1": b'{"category":"c7"}'}}))
    updater.apply(visits("online", ["i1"]))
    updater.apply(visits("given", ["i1"], fields={"category": "c3"}))
    updater.apply([*visits("new", ["n1"]), *visits("new given", ["n1"], fields={"category": "c3"})])
    assert differ(updater, "known", "online") and not differ(updater, "online", "given")
    assert differ(updater, "new", "new given")


def test_unknown_items_and_types_are_applied_and_types_counted(updater):
    applied = updater.apply([UserEvent("u", "never seen", START, "wink"), UserEvent("u", "i1", START)])
    assert (applied.applied, applied.unknown_types) == (2, 1)


def test_the_log_holds_each_event_under_its_place_in_the_history(updater):
    updater.apply([*visits("u", ["i1", "i2"]), *visits("v", ["i3"])])
    updater.apply(visits("u", ["i4"], fields={"category": "c2"}))
    assert [decode_event(value).item for value in updater.store.events("u")] == ["i1", "i2", "i4"]
    assert decode_event(updater.store.events("u", last=1)[0]) == LoggedEvent("i4", START, "view", {"category": "c2"})


def test_the_log_can_be_left_out(artifact, store):
    Updater(artifact, store, event_log=False).apply(visits("u", ["i1"]))
    assert store.events("u") == []


@pytest.mark.parametrize(
    "event", [LoggedEvent("i", 0), LoggedEvent('ü,"[', 1, None, {"a": None}), LoggedEvent("i", 1, "view")]
)
def test_a_logged_event_comes_back(event):
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("value", [b'["i1",\xff', b'["i1", 1', b'["i1"]', b"7"])
def test_a_damaged_event_of_the_log_is_an_error_of_the_store(value):
    with pytest.raises(StoreCorruptError, match="an event of the log is damaged"):
        decode_event(value)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (UserEvent("", "i1", START), "user"),
        (UserEvent("u", "", START), "item"),
        (UserEvent("u" * 2000, "i1", START), "user"),
        (UserEvent("\ud800", "i1", START), "no valid text"),
        (UserEvent("u", "i1", START * 1000), "not milliseconds"),
        (UserEvent("u", "i1", -1), "time"),
        (UserEvent("u", "i1", START, ""), "event_type"),
        (UserEvent("u", "i1", START, fields={"colour": "red"}), "colour"),
    ],
)
def test_an_event_that_is_not_valid_keeps_the_whole_batch_out(updater, event, said):
    with pytest.raises(RequestError, match=said):
        updater.apply([*visits("v", ["i1"]), event])
    assert updater.store.read_many(["v"]) == [None]


@pytest.mark.parametrize("offsets", [[1], [2, 1], [1, 1], [-1, 0]])
def test_offsets_must_be_one_per_event_and_increase(updater, offsets):
    with pytest.raises(UsageError, match="offset"):
        updater.apply(visits("u", ["i1", "i2"]), source="s", offsets=offsets)


def test_a_commit_that_fails_changes_nothing_and_can_be_sent_again(updater, monkeypatch):
    updater.apply(visits("u", ["i1"]), source="s", offsets=[0])
    before = updater.store.read_many(["u"])
    commit = updater.store.commit

    def fail(change):
        raise StoreUnavailableError("full")

    monkeypatch.setattr(updater.store, "commit", fail)
    again = [UserEvent("u", "i2", START + 9, "view", event_id="x")]
    with pytest.raises(StoreUnavailableError):
        updater.apply(again, source="s", offsets=[1])
    assert updater.store.read_many(["u"]) == before
    monkeypatch.setattr(updater.store, "commit", commit)
    assert updater.apply(again, source="s", offsets=[1]).applied == 1


def test_no_events_write_nothing(updater, monkeypatch):
    monkeypatch.setattr(updater.store, "commit", lambda change: pytest.fail("a commit"))
    assert updater.apply([]).applied == 0
    assert updater.apply([], source="s", offsets=[]).applied == 0


def test_an_erased_user_starts_anew(updater, artifact):
    updater.apply(visits("u", ["i1", "i2"]))
    updater.store.commit(Commit(deleted=["u"]))
    updater.apply(visits("u", ["i3"]))
    fresh = Updater(artifact, InMemoryStore())
    fresh.apply(visits("u", ["i3"]))
    assert memory(updater, "u").count_B == 1
    np.testing.assert_array_equal(slots(updater, "u"), slots(fresh, "u"))


def test_what_another_process_wrote_in_between_is_kept(updater, artifact, monkeypatch):
    other, commit = Updater(artifact, updater.store), updater.store.commit

    def interrupted(change):
        monkeypatch.setattr(updater.store, "commit", commit)
        other.apply(visits("u", ["i5", "i6"], start=START - 300))
        commit(change)

    monkeypatch.setattr(updater.store, "commit", interrupted)
    applied = updater.apply([*visits("u", ["i1", "i2"]), *visits("v", ["i3"])])
    alone = Updater(artifact, InMemoryStore())
    alone.apply([*visits("u", ["i5", "i6"], start=START - 300), *visits("u", ["i1", "i2"])])
    assert (applied.applied, applied.no_dedup) == (3, 3)
    assert memory(updater, "u").count_B == 4
    np.testing.assert_allclose(slots(updater, "u"), slots(alone, "u"), atol=1e-5)


def test_what_another_process_applied_of_the_same_source_is_a_duplicate(updater, artifact, monkeypatch):
    events = [*visits("u", ["i1", "i2"]), *visits("v", ["i3"], event_id="e")]
    other, read_many = Updater(artifact, updater.store), updater.store.read_many

    def interrupted(users, **where):
        monkeypatch.setattr(updater.store, "read_many", read_many)
        records = read_many(users, **where)
        other.apply(events, source="s", offsets=[0, 1, 2])
        return records

    for source, offsets in (("s", [0, 1, 2]), ("http", None)):
        monkeypatch.setattr(updater.store, "read_many", interrupted)
        applied = updater.apply(events if offsets else events[2:], source=source, offsets=offsets)
        assert applied.applied == 0
    assert [int(memory(updater, user).count_B[0]) for user in ("u", "v")] == [2, 1]


def test_after_a_conflict_of_some_users_only_their_events_are_applied_again(updater, monkeypatch):
    commit, marks = updater.store.commit, []

    def partly(change):
        monkeypatch.setattr(updater.store, "commit", commit)
        mine = Commit(records={0: {"v": change.records[0]["v"]}}, events={("v", 1): change.events["v", 1]})
        marks.append(dict(change.watermarks))
        commit(mine)
        raise StoreConflictError("u has changed", users=frozenset({"u"}))

    monkeypatch.setattr(updater.store, "commit", partly)
    events = [*visits("u", ["i1", "i2"]), UserEvent("v", "i3", START, "wink")]
    applied = updater.apply(events, source="s", offsets=[4, 5, 6])
    assert (applied.applied, applied.duplicates, applied.unknown_types) == (3, 0, 1)
    assert [int(memory(updater, user).count_B[0]) for user in ("u", "v")] == [2, 1]
    assert updater.store.watermark("s", 0) == 6


def test_endless_conflicts_end_with_an_error_that_says_so(updater, monkeypatch):
    def refuse(change):
        raise StoreConflictError("u has changed", users=change.users)

    monkeypatch.setattr(updater.store, "commit", refuse)
    with pytest.raises(StoreUnavailableError, match="2 events were not kept"):
        updater.apply(visits("u", ["i1", "i2"]))


def test_threads_take_turns(updater):
    def work():
        for k in range(20):
            updater.apply([UserEvent("u", f"i{k}", START + k)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory(updater, "u").count_B == 80


def test_a_store_of_another_artifact_is_refused(artifact, store):
    store.bind(StoreIdentity("f" * 64, "fp32", "[]"))
    with pytest.raises(StoreForeignError, match="ffffffffffff"):
        Updater(artifact, store)


def test_a_model_that_cannot_be_served_says_why(artifact, store):
    config = artifact.config.model_copy(update={"memory": None, "not_served": "it reads the raw history"})
    other = type(artifact)(artifact.path, artifact.manifest, config)
    with pytest.raises(ArtifactError, match="it reads the raw history"):
        Updater(other, store)
    assert store.artifact_list().identity is None


def test_an_unknown_way_with_late_events_is_refused(artifact, store):
    with pytest.raises(UsageError, match="refuse"):
        Updater(artifact, store, late="drop")
