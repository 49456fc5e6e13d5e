"""Batches of a source, the next one made while the last is written."""

import numpy as np
import pytest

from lifelong.errors import StoreConflictError, StoreUnavailableError
from lifelong.online.ingestion.overlapped import Overlapped
from lifelong.online.memory.event import EventTable, UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.store.contract import Commit
from lifelong.online.store.ram import InMemoryStore


def tables(log, size=7):
    return [(at, EventTable.of(log[at : at + size])) for at in range(0, len(log), size)]


def run(updater, log):
    with Overlapped(updater, "s") as writer:
        for at, table in tables(log):
            writer.apply(table, range(at, at + len(table)))


def test_batches_that_overlap_equal_one_after_another(artifact, log):
    found, wanted = Updater(artifact, InMemoryStore()), Updater(artifact, InMemoryStore())
    run(found, log)
    for at, table in tables(log):
        wanted.apply_table(table, source="s", offsets=range(at, at + len(table)))
    assert dict(found.store.scan()) == dict(wanted.store.scan())
    for user, _ in wanted.store.scan():
        assert found.store.events(user) == wanted.store.events(user)
    assert found.store.watermark("s", 0) == len(log) - 1


def test_after_a_commit_that_fails_nothing_more_is_written(artifact, store, log, monkeypatch):
    updater, commit, written = Updater(artifact, store), store.commit, []

    def fails_at_the_third(change):
        if len(written) == 2:
            raise StoreUnavailableError("full")
        written.append(change)
        commit(change)

    monkeypatch.setattr(store, "commit", fails_at_the_third)
    with pytest.raises(StoreUnavailableError, match="full"):
        run(updater, log)
    assert (len(written), store.watermark("s", 0)) == (2, 13)


def test_what_another_writer_erased_in_between_stays_erased(artifact, store, log, monkeypatch):
    updater, commit, first = Updater(artifact, store), store.commit, []
    user = log[0].user

    def erased_before_the_second(change):
        if len(first) == 1:
            first.append(1)
            commit(Commit(deleted=[user]))
        first.append(1)
        commit(change)

    monkeypatch.setattr(store, "commit", erased_before_the_second)
    run(updater, log)
    behind = sum(event.user == user for event in log[7:])
    assert int(updater.runtime.decode(store.read_many([user])).count_B[0]) == behind


def test_events_with_ids_of_their_own_are_known_again_in_the_next_batch(artifact, store):
    updater, event = Updater(artifact, store), UserEvent("u", "i1", 1_700_000_000, event_id="e")
    with Overlapped(updater, "s") as writer:
        total = writer.apply(EventTable.of([event]), [0]) + writer.apply(EventTable.of([event]), [1])
    assert (total.applied, total.duplicates) == (1, 1)


def test_a_shared_store_has_each_batch_before_the_next_one_is_made(artifact, store, log, monkeypatch):
    monkeypatch.setattr(type(store), "shared", True)
    updater, commit, refused = Updater(artifact, store), store.commit, []

    def away_once(change):
        if len(refused) == 0 and store.watermark("s", 0) >= 0:
            refused.append(change)
            raise StoreUnavailableError("away")
        commit(change)

    monkeypatch.setattr(store, "commit", away_once)
    with Overlapped(updater, "s") as writer:
        for at, table in tables(log):
            places = range(at, at + len(table))
            try:
                writer.apply(table, places)
            except StoreUnavailableError:
                writer.apply(table, places)
    assert sum(updater.runtime.decode([value]).count_B[0] for _, value in store.scan()) == len(log)


def test_endless_conflicts_are_an_error_of_the_batch(artifact, store, log, monkeypatch):
    def refuse(change):
        raise StoreConflictError("changed", users=change.users)

    updater = Updater(artifact, store)
    monkeypatch.setattr(store, "commit", refuse)
    with pytest.raises(StoreUnavailableError, match="other processes"):
        run(updater, log)


def test_counts_and_times_equal_the_replay_bit_for_bit(artifact, log):
    found, wanted = Updater(artifact, InMemoryStore()), Updater(artifact, InMemoryStore())
    run(found, log)
    for event in log:
        wanted.apply([event])
    users = [user for user, _ in wanted.store.scan()]
    one, other = (updater.runtime.decode(updater.store.read_many(users)) for updater in (found, wanted))
    assert (one.count_B.tolist(), one.last_time_B.tolist()) == (other.count_B.tolist(), other.last_time_B.tolist())
    np.testing.assert_allclose(one.fields["slot"], other.fields["slot"], atol=1e-5)
