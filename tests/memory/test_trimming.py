"""What is trimmed from the event log is missing where it is asked for, and nowhere taken for something else."""

from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.variants import other_artifact

from lifelong.errors import StoreError
from lifelong.online.memory import takeover
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.forgetting import Trim, trim_logs
from lifelong.online.memory.rebuild import Rebuild
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store

START = 1_700_000_000
EVENTS = st.lists(
    st.builds(
        UserEvent, user=st.sampled_from("abc"), item=st.sampled_from(["i1", "i2"]), time=st.integers(START, START + 9)
    ),
    min_size=1,
    max_size=12,
)


def times(store, user):
    return [decode_event(value).time - START for value in store.events(user)]


def fill(artifact, store, **times_of):
    updater = Updater(artifact, store)
    for user, seconds in times_of.items():
        updater.apply([UserEvent(user, "i1", START + second) for second in seconds])
    return updater


@given(EVENTS, st.integers(START, START + 10))
@settings(deadline=None, max_examples=40)
def test_the_first_old_events_go_and_a_replay_tells_exactly_whom_it_can_no_longer_tell(artifact, events, before):
    store = open_store("memory://")
    Updater(artifact, store).apply(events)
    logs = {user: store.logs([(user, 0)])[0] for user in "abc"}
    memories = dict(store.scan())
    old = {user: len(list(takewhile(lambda row: decode_event(row[1]).time < before, logs[user]))) for user in "abc"}
    assert trim_logs(store, before) == Trim(len(memories), sum(old.values()), 0)
    assert {user: store.logs([(user, 0)])[0] for user in "abc"} == {user: logs[user][old[user] :] for user in "abc"}
    assert dict(store.scan()) == memories
    report = verify(artifact, None, store)
    assert (report.unverifiable, report.exact) == (
        sum(number > 0 for number in old.values()),
        sum(not old[user] for user in memories),
    )
    assert report.equal is (not any(old.values()))
    store.close()


def test_a_late_event_goes_when_those_before_it_have_gone(artifact, store):
    fill(artifact, store, u=[5, 9, 3, 10])
    trim_logs(store, START + 6)
    assert times(store, "u") == [9, 3, 10]
    trim_logs(store, START + 10)
    assert times(store, "u") == [10]


def test_a_new_model_is_refused_the_users_whose_first_events_are_gone(artifact, store, tmp_path):
    fill(artifact, store, u=[1, 5], v=[5])
    trim_logs(store, START + 3)
    newer = other_artifact(artifact, tmp_path / "newer")
    member = takeover.add(store, newer)
    with pytest.raises(StoreError, match=r"u: the log lacks the user.s first 1 events"):
        Rebuild(store, MemoryWriter(newer, member.identity.codec, store)).build()


def test_events_go_on_behind_a_trimmed_log(artifact, store):
    updater = fill(artifact, store, u=[1, 5])
    trim_logs(store, START + 9)
    updater.apply([UserEvent("u", "i2", START + 11)])
    assert [count for count, _ in store.logs([("u", 0)])[0]] == [3]


def test_a_user_who_has_an_event_meanwhile_keeps_her_log_until_the_next_time(artifact, store, monkeypatch):
    updater, commit = fill(artifact, store, u=[1, 5], v=[1]), store.commit

    def interrupted(change: Commit) -> None:
        monkeypatch.setattr(store, "commit", commit)
        updater.apply([UserEvent("u", "i2", START + 11)])
        commit(change)

    monkeypatch.setattr(store, "commit", interrupted)
    assert trim_logs(store, START + 3) == Trim(2, 1, 1)
    assert times(store, "u") == [1, 5, 11] and times(store, "v") == []
    assert trim_logs(store, START + 3) == Trim(2, 1, 0)


def test_a_new_store_has_nothing_to_trim(store):
    assert trim_logs(store, START) == Trim()
