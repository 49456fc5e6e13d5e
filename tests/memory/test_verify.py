"""A replay finds what a store holds, and every difference."""

from dataclasses import replace

import numpy as np
import pytest

from lifelong.errors import MismatchError, StoreForeignError, UsageError
from lifelong.online.memory.codec import Fp32
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import counts_until, verify
from lifelong.online.scoring.online_items import OnlineItems
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import Commit


@pytest.fixture
def updater(artifact, store, log):
    made = Updater(artifact, store)
    made.apply(log)
    return made


def change(updater, user, **parts):
    """Store another memory of a user."""
    states = updater.runtime.decode(updater.store.read_many([user]))
    updater.store.commit(Commit(records={0: {user: updater.runtime.encode(replace(states, **parts))[0]}}))


def test_a_store_that_was_kept_up_event_by_event_equals_the_replay(artifact, dataset, updater):
    told = []
    report = verify(artifact, dataset, updater.store, progress=lambda *numbers: told.append(numbers))
    assert report.equal
    assert (report.users, report.events) == (dataset.histories.num_users, dataset.histories.num_events)
    assert told[-1] == (report.users, report.users)


def test_a_user_who_is_missing_is_found(artifact, dataset, updater):
    updater.store.commit(Commit(deleted=["u3"]))
    report = verify(artifact, dataset, updater.store)
    assert (report.equal, report.missing, report.examples) == (False, 1, ["u3"])


def test_an_event_too_many_is_found(artifact, dataset, updater):
    updater.apply([UserEvent("u3", "i1", 1_740_000_000)])
    report = verify(artifact, dataset, updater.store)
    assert (report.count, report.memory, report.examples) == (1, 0, ["u3"])


def test_another_last_time_is_found(artifact, dataset, updater):
    change(updater, "u3", last_time_B=np.array([5]))
    assert verify(artifact, dataset, updater.store).last_time == 1


def test_an_event_of_another_item_is_named(artifact, dataset, store, log):
    last = max(place for place, event in enumerate(log) if event.user == "u3")
    events = [*log[:last], replace(log[last], item="i2" if log[last].item != "i2" else "i3"), *log[last + 1 :]]
    Updater(artifact, store).apply(events)
    said = verify(artifact, dataset, store).reasons["u3"]
    assert f"is of item {events[last].item!r}, and in DATA of {log[last].item!r}" in said


def test_a_type_and_a_time_that_differ_are_named(artifact, dataset, store, log):
    last = max(place for place, event in enumerate(log) if event.user == "u3")
    number, was = sum(event.user == "u3" for event in log), log[last]
    other = "buy" if was.event_type == "view" else "view"
    Updater(artifact, store).apply([*log[:last], replace(was, event_type=other), *log[last + 1 :]])
    wanted = f"event {number} is of type {other!r}, and in DATA of {was.event_type!r}"
    assert wanted in verify(artifact, dataset, store).reasons["u3"]


def test_a_time_that_differs_is_named(artifact, dataset, store, log):
    first = next(place for place, event in enumerate(log) if event.user == "u3")
    odd, updater = replace(log[first], time=log[first].time - 1), Updater(artifact, store)
    updater.apply([*log[:first], odd, *log[first + 1 :]])
    # This model does not read times: the memory differs by something else.
    change(updater, "u3", fields={"slot": updater.runtime.empty(1).fields["slot"]})
    wanted = f"event 1 is of time {odd.time}, and in DATA of {log[first].time}"
    assert wanted in verify(artifact, dataset, store).reasons["u3"]


def test_a_field_that_was_put_online_is_named_as_such(artifact, dataset, store, log):
    place = next(place for place, event in enumerate(log) if event.item == "i1")
    updater = Updater(artifact, store)
    updater.apply(log[:place])
    OnlineItems(artifact, store).put({"i1": {"category": "c5"}})
    # What the events say does not count for an item of the catalogue.
    updater.apply([replace(event, fields={"category": "c7"}) for event in log[place:]])
    report = verify(artifact, dataset, store)
    assert report.memory == len({event.user for event in log if event.item == "i1"})
    assert "(item 'i1') is put online as 'c5', and in DATA 'c1'" in report.reasons[log[place].user]


def test_another_memory_is_found_with_its_scores(artifact, dataset, updater):
    slot = updater.runtime.decode(updater.store.read_many(["u3"])).fields["slot"] + np.float32(0.5)
    change(updater, "u3", fields={"slot": slot})
    report = verify(artifact, dataset, updater.store)
    assert (report.equal, report.memory, report.score, report.examples) == (False, 1, 1, ["u3"])
    assert report.memory_difference == pytest.approx(0.5, abs=1e-4)


def test_a_memory_that_is_no_number_is_found(artifact, dataset, updater, monkeypatch):
    # As a store of an earlier release may hold it.
    monkeypatch.setattr(Fp32, "_check_values", lambda self, states: None)
    slot = np.full_like(updater.runtime.empty(1).fields["slot"], np.nan)
    change(updater, "u3", fields={"slot": slot})
    assert verify(artifact, dataset, updater.store).memory == 1


def test_only_events_before_the_given_time_are_expected(artifact, dataset, store, log):
    until = sorted(event.time for event in log)[len(log) // 2]
    Updater(artifact, store).apply([event for event in log if event.time < until])
    assert verify(artifact, dataset, store, until=until).equal
    assert not verify(artifact, dataset, store).equal


def test_some_users_can_be_chosen_or_drawn(artifact, dataset, updater):
    updater.store.commit(Commit(deleted=["u3"]))
    assert verify(artifact, dataset, updater.store, users=["u4", "u5"]).equal
    assert verify(artifact, dataset, updater.store, users=["u3"]).missing == 1
    assert verify(artifact, dataset, updater.store, users=7).users == 7


def test_a_chosen_user_who_is_not_in_the_dataset_is_said(artifact, dataset, updater):
    with pytest.raises(UsageError, match="'nobody'"):
        verify(artifact, dataset, updater.store, users=["u1", "nobody"])


def test_counts_until_a_time_leave_out_events_of_that_very_time(dataset):
    first = int(dataset.histories.time_N[0])
    assert counts_until(dataset, first)[0] == 0
    assert counts_until(dataset, first + 1)[0] >= 1
    assert counts_until(dataset, None).sum() == dataset.histories.num_events


@pytest.mark.parametrize("until", [-1, 1_775_186_530_000])
def test_a_moment_before_1970_or_in_milliseconds_is_refused(dataset, until):
    with pytest.raises(UsageError, match=rf"until = {until}\. Expected: UTC seconds"):
        counts_until(dataset, until)


def test_a_store_of_another_artifact_is_refused(artifact, dataset, store):
    store.bind(StoreIdentity("f" * 64, "fp32", "[]"))
    with pytest.raises(StoreForeignError):
        verify(artifact, dataset, store)


def test_a_dataset_with_other_fields_is_refused(artifact, dataset, store):
    config = artifact.config.model_copy(
        update={"dataset_schema": dataset.schema.model_copy(update={"item_fields": ("item",)})}
    )
    with pytest.raises(MismatchError, match="fields"):
        verify(type(artifact)(artifact.path, artifact.manifest, config), dataset, store)


# Reasons


def test_every_reason_is_told(artifact, dataset, updater):
    updater.store.commit(Commit(deleted=["u3"]))
    updater.apply([UserEvent("u4", "i1", 1_740_000_000, "view"), UserEvent("u4", "i2", 1_740_000_001, "view")])
    record = bytearray(updater.store.read_many(["u5"])[0])
    record[30] ^= 1
    updater.store.commit(Commit(records={0: {"u5": bytes(record), "u6": updater.store.read_many(["u6"])[0][:-1]}}))
    change(updater, "u7", last_time_B=np.array([5]))
    slot = updater.runtime.decode(updater.store.read_many(["u8"])).fields["slot"] + np.float32(0.5)
    change(updater, "u8", fields={"slot": slot})
    report = verify(artifact, dataset, updater.store)
    counts = (report.missing, report.count, report.extra, report.corrupt, report.last_time, report.memory)
    assert counts == (1, 1, 1, 2, 1, 1)
    assert not report.equal and report.exact == report.users - 7 + 1
    reasons = dict(report.reasons)
    assert reasons["u3"].startswith("the store lacks the user and ")
    assert reasons["u4"] == "2 extra events, which are in the log"
    assert reasons["u5"] == "corrupt: the record fails its checksum"
    assert "bytes" in reasons["u6"]
    assert "last time is 5" in reasons["u7"] and reasons["u8"] == "the memory is not what the events give"


def test_fewer_events_than_the_dataset_are_told(artifact, dataset, store, log):
    Updater(artifact, store).apply([event for event in log if event.user == "u3"][:-2])
    report = verify(artifact, dataset, store, users=["u3"])
    assert report.reasons == {"u3": "2 events of DATA are missing"}


# Against the store's own log


def test_the_stores_own_log_says_whether_memories_are_right(artifact, updater):
    assert verify(artifact, None, updater.store).equal
    slot = updater.runtime.decode(updater.store.read_many(["u8"])).fields["slot"] + np.float32(0.5)
    change(updater, "u8", fields={"slot": slot})
    report = verify(artifact, None, updater.store)
    assert (report.memory, report.examples) == (1, ["u8"])
    assert verify(artifact, None, updater.store, users=["u7"]).equal
    assert verify(artifact, None, updater.store, users=5).users == 5
    with pytest.raises(UsageError, match="'nobody' is not in the store"):
        verify(artifact, None, updater.store, users=["nobody"])
    with pytest.raises(UsageError, match="until"):
        verify(artifact, None, updater.store, until=3)


def test_a_memory_that_lacks_logged_events_is_found(artifact, updater):
    before = updater.store.read_many(["u8"])[0]
    updater.apply([UserEvent("u8", "i1", 1_740_000_000, "view")])
    updater.store.commit(Commit(records={0: {"u8": before}}))
    report = verify(artifact, None, updater.store)
    assert (report.count, dict(report.reasons)) == (1, {"u8": "the log holds 1 events that are not in the memory"})


def test_what_the_log_does_not_know_cannot_be_told(artifact, dataset, store, log):
    Updater(artifact, store, event_log=False).apply(log[:800])
    Updater(artifact, store).apply(log[800:])
    report = verify(artifact, None, store)
    assert report.unverifiable > 0 and not report.equal
    assert "the log lacks the user's first" in next(iter(report.reasons.values()))


def test_each_artifact_of_a_store_is_compared_by_itself(artifact, dataset, store, log, tmp_path):
    from support.variants import other_artifact

    from lifelong.online.memory import takeover
    from lifelong.online.memory.rebuild import Rebuild
    from lifelong.online.memory.writer import MemoryWriter

    newer = other_artifact(artifact, tmp_path / "newer")
    Updater(artifact, store).apply(log[:300])
    with pytest.raises(StoreForeignError):
        verify(newer, None, store)
    takeover.add(store, newer)
    with pytest.raises(StoreForeignError, match="not complete"):
        verify(newer, None, store)
    Rebuild(store, MemoryWriter(newer, "fp32", store)).build()
    Updater(artifact, store).apply(log[300:])
    for one in (artifact, newer):
        assert verify(one, None, store).equal and verify(one, dataset, store).equal
