"""What a backfill has brought is not applied again, whichever way it comes, and what it has not is."""

import pytest

pytest.importorskip("torch")

from support.client import Client

from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store.contract import BACKFILL, SOURCES, filled_until, note_filled
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore


def rows_of(events) -> list[dict]:
    return [{"user": e.user, "item": e.item, "time": e.time, "event_type": e.event_type} for e in events]


@pytest.fixture
def until(log) -> int:
    """In the middle of the log, at a second that has events."""
    return log[len(log) // 2].time


def assert_whole(artifact, dataset, store, found: Applied, log, until) -> None:
    """Every event of the log is in the store once."""
    known = sum(event.time < until for event in log)
    assert 0 < known < len(log)
    assert (found.applied, found.backfilled, found.duplicates) == (len(log) - known, known, 0)
    assert verify(artifact, dataset, store).equal


@pytest.mark.parametrize("shards", [1, 2])
def test_of_a_file_the_events_from_the_moment_on_are_applied(artifact, dataset, log, until, tmp_path, shards):
    pytest.importorskip("rocksdict")
    store, path = open_store(f"rocksdb://{tmp_path}/store?shards={shards}"), tmp_path / "log.csv"
    path.write_text(
        "user,item,time,event_type\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows_of(log))
    )
    backfill(artifact, dataset, store, until=until)
    assert_whole(artifact, dataset, store, ingest(artifact, store, path, workers=shards), log, until)
    assert ingest(artifact, store, path, workers=shards) == Applied(duplicates=len(log))
    store.close()


def test_of_requests_the_events_from_the_moment_on_are_applied(artifact, dataset, log, until, store):
    from lifelong.online.serving.app import create_app

    backfill(artifact, dataset, store, until=until)
    app = create_app(artifact, store)
    reply = Client(app).post("/v1/events", {"events": rows_of(log)}).json()
    app.state.service.close()
    assert "were taken as known" in reply["note"]
    found = Applied(**{name: reply[name] for name in ("applied", "backfilled", "duplicates")})
    assert_whole(artifact, dataset, store, found, log, until)


def test_half_by_a_backfill_and_half_with_fields_that_change_is_what_the_whole_log_gives(
    artifact, dataset, log, until, store, tmp_path
):
    # As prices do: DATA has one value for an item, and each event of the file another one.
    path, rows = tmp_path / "log.csv", [{**row, "category": f"c{k % 7}"} for k, row in enumerate(rows_of(log))]
    path.write_text(",".join(rows[0]) + "\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows))
    backfill(artifact, dataset, store, until=until)
    assert_whole(artifact, dataset, store, ingest(artifact, store, path), log, until)
    assert any(decode_event(event).fields for user in ("u1", "u2", "u3") for event in store.events(user))


@pytest.mark.parametrize("start", ["beginning", "the moment"])
def test_of_a_topic_the_events_from_the_moment_on_are_applied(
    artifact, dataset, log, until, store, kafka, topic, start
):
    from lifelong.online.ingestion.kafka import Stream, StreamSettings
    from lifelong.online.ingestion.kafka_client import parse

    kafka.send(topic, rows_of(log))
    backfill(artifact, dataset, store, until=until)
    url = kafka.url(topic, start=str(until) if start == "the moment" else start)
    for _ in range(2):
        apply, schema = Updater(artifact, store).apply_table, artifact.config.dataset_schema
        found = Stream(parse(url), store, apply, schema, settings=StreamSettings(idle=0.7)).run().applied
        if filled_until(store) and found.applied:
            assert_whole(artifact, dataset, store, found, log, until)
    assert found == Applied()


def test_without_a_time_the_last_second_of_the_log_is_complete(artifact, dataset, log, store):
    report = backfill(artifact, dataset, store)
    assert report.until == filled_until(store) == log[-1].time + 1
    updater = Updater(artifact, store)
    assert updater.apply(log) == Applied(backfilled=len(log))
    # Events may come behind the log's end and before a time that nobody reached.
    backfill(artifact, dataset, store, until=log[-1].time + 10**6)
    later = [UserEvent("u1", "i1", log[-1].time + 1), UserEvent("someone new", "i1", log[-1].time + 2)]
    assert Updater(artifact, store).apply(later).applied == 2


def test_the_moment_never_goes_back(artifact, dataset, log, until, store):
    backfill(artifact, dataset, store)
    backfill(artifact, dataset, store, until=until)
    assert filled_until(store) == log[-1].time + 1
    note_filled(store, log[-1].time + 5)
    assert [name for name, _ in store.scan(SOURCES)] == [BACKFILL]
    assert filled_until(store) == log[-1].time + 5 and filled_until(InMemoryStore()) is None


def test_earlier_events_are_applied_where_that_is_wanted(artifact, dataset, log, until, store):
    backfill(artifact, dataset, store, until=until)
    late = UserEvent("u1", "i1", until - 1)
    assert Updater(artifact, store).apply([late, late]) == Applied(backfilled=2)
    assert Updater(artifact, store, backfilled="apply").apply([late]).applied == 1
