"""What was scored is written down without being waited for, and the next model learns from it."""

import csv
import json
import queue
import threading

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is of the impressions extra")
import pyarrow.parquet as pq
from support.processes import until

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.serving.impressions import ImpressionsLog, forget_impressions
from lifelong.online.serving.service import Scored
from lifelong.online.serving.settings import ServiceSettings

pytestmark = pytest.mark.full

DAY, START = 86_400, 1_700_000_000


@pytest.fixture
def logged(make_client, tmp_path):
    """A client of a service that writes impressions, and their folder."""
    client = make_client(settings=ServiceSettings(impressions_log=tmp_path / "log"))
    return client, tmp_path / "log"


def rows(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def flush(client):
    client.app.state.impressions.flush()


def test_every_candidate_is_a_row(logged, artifact):
    client, folder = logged
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": START, "event_type": "view"}]})
    items = ["i2", {"item": "new", "fields": {"category": "c1"}}]
    reply = client.post("/v1/score", {"user": "u", "items": items, "time": START + 60}).json()
    many = client.post("/v1/score", {"requests": [{"user": "v", "items": ["i3"]}, {"user": "w", "items": ["i4"]}]})
    flush(client)
    found = rows(folder)
    assert [row["item"] for row in found] == ["i2", "new", "i3", "i4"]
    assert {row["request_id"] for row in found[:2]} == {reply["request_id"]}
    assert [row["request_id"] for row in found[2:]] == [one["request_id"] for one in many.json()["results"]]
    first = found[0]
    assert (first["artifact"], first["user"]) == (artifact.id, "u")
    assert (first["time"], first["known_user"], first["count"], first["place"]) == (START + 60, True, 1, 0)
    assert first["score"] == pytest.approx(reply["scores"][0]["score"])
    assert [row["field_category"] for row in found[:2]] == ["c2", "c1"]
    assert found[1]["number"][1] == artifact.vocabularies["category"].numbers(["c1"])[0]
    assert 'lifelong_impressions_total{outcome="logged"} 4.0' in client.get("/metrics").text


def test_without_a_log_requests_have_no_name(client):
    assert client.post("/v1/score", {"user": "u", "items": ["i1"]}).json()["request_id"] is None


def test_closing_writes_what_waits(logged):
    client, folder = logged
    client.post("/v1/score", {"user": "u", "items": ["i1"]})
    client.app.state.impressions.close()
    assert [row["item"] for row in rows(folder)] == ["i1"]


def test_a_full_queue_drops_and_counts_and_no_request_waits(logged, monkeypatch):
    client, _ = logged
    log = client.app.state.impressions

    def full(scored):
        raise queue.Full

    monkeypatch.setattr(log._queue, "put_nowait", full)
    assert client.post("/v1/score", {"user": "u", "items": ["i1", "i2"]}).status_code == 200
    assert 'lifelong_impressions_total{outcome="dropped"} 2.0' in client.get("/metrics").text


def test_a_slow_disk_blocks_no_request(logged, monkeypatch):
    client, folder = logged
    log, going = client.app.state.impressions, threading.Event()
    write = log._write_file
    monkeypatch.setattr(log, "_write_file", lambda *parts: (going.wait(20), write(*parts)))
    client.post("/v1/score", {"user": "u", "items": ["i1"]})
    slow = threading.Thread(target=log.flush)
    slow.start()
    assert client.post("/v1/score", {"user": "u", "items": ["i2"]}).status_code == 200
    assert slow.is_alive()
    going.set()
    slow.join()
    flush(client)
    assert len(rows(folder)) == 2


def test_a_request_whose_items_cannot_be_read_since_the_store_is_away_is_written_when_it_is_back(logged, monkeypatch):
    client, folder = logged
    assert client.post("/v1/score", {"user": "u", "items": ["i1", "i2"]}).status_code == 200
    log, store = client.app.state.impressions, client.app.state.service.store

    def away(*_, **__):
        raise StoreUnavailableError("the process that writes the store has ended")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_many", away)
        log.start()
        until(lambda: log._background.failing is not None)
    until(lambda: log._background.failing is None)
    log.close()
    assert [row["item"] for row in rows(folder)] == ["i1", "i2"]
    assert 'outcome="failed"' not in client.get("/metrics").text


def test_what_the_disk_refuses_is_held_and_written_later(logged, monkeypatch):
    client, folder = logged
    log = client.app.state.impressions

    def refuse(*parts):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log, "_write_file", refuse)
        assert client.post("/v1/score", {"user": "u", "items": ["i1"]}).status_code == 200
        flush(client)
    assert rows(folder) == []
    flush(client)
    assert len(rows(folder)) == 1


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        ImpressionsLog(tmp_path / "file", count=lambda *_: None)


def test_a_forgotten_user_is_taken_out_of_the_files(logged, tmp_path):
    client, folder = logged
    for user in ("secret-4711", "other", "secret-4711"):
        client.post("/v1/score", {"user": user, "items": ["i1", "i2"]})
        flush(client)
    client.post("/v1/score", {"user": "secret-4711", "items": ["i3"]})
    assert len(client.get("/v1/admin/users/secret-4711").json()["impressions"]) == 5
    reply = client.delete("/v1/admin/users/secret-4711").json()
    assert reply["impressions"] == 5
    assert [row["user"] for row in rows(folder)] == ["other", "other"]
    assert not any(b"secret-4711" in path.read_bytes() for path in folder.iterdir())
    assert client.get("/v1/admin/users/secret-4711").json()["known"] is False


def offered(log, artifact, store, *users):
    """Let users be scored by the worker with this log."""
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.scorer import Scorer

    scorer = Scorer(artifact, store)
    for user in users:
        request = ScoreRequest(user, ["i1", "i2"], START)
        assert log.offer(Scored("r", scorer, request, scorer.answer([request])[0], START))


def test_rows_that_other_workers_hold_do_not_come_back_after_an_erasure(artifact, store, tmp_path):
    one, other = (ImpressionsLog(tmp_path / "log", count=lambda *_: None, rows=4, seconds=1e6) for _ in range(2))
    offered(other, artifact, store, "secret-4711", "ann")
    other._pass()
    assert one.forget(["secret-4711"]) == 0, "the other worker holds them"
    other.flush()
    assert [row["user"] for row in rows(tmp_path / "log")] == ["ann", "ann"]
    # Whoever comes back is written down again.
    offered(other, artifact, store, "secret-4711", "bob", "secret-4711", "bob")
    other.flush()
    assert {row["user"] for row in rows(tmp_path / "log")} == {"ann", "bob", "secret-4711"}
    assert one.forget(["secret-4711"]) == 4
    assert not any(b"secret-4711" in path.read_bytes() for path in (tmp_path / "log").iterdir())


def test_what_a_killed_worker_was_writing_goes_with_an_erasure(tmp_path):
    log = ImpressionsLog(tmp_path, count=lambda *_: None)
    (tmp_path / "impressions-1.parquet.new").write_bytes(b"secret-4711")
    log.forget(["secret-4711"])
    assert [path.name for path in tmp_path.iterdir() if b"secret-4711" in path.read_bytes()] == []


def test_two_erasures_at_once_take_both_users_out(artifact, store, tmp_path):
    log = ImpressionsLog(tmp_path / "log", count=lambda *_: None)
    users = [f"u{number}" for number in range(4)]
    for _ in range(10):
        offered(log, artifact, store, *users, "ann")
        log.flush()
    erasing = [threading.Thread(target=forget_impressions, args=(tmp_path / "log", [user])) for user in users]
    for thread in erasing:
        thread.start()
    for thread in erasing:
        thread.join()
    assert {row["user"] for row in rows(tmp_path / "log")} == {"ann"}


def test_rows_are_written_when_there_are_enough(artifact, store, tmp_path):
    written = threading.Event()

    def count(outcome, number):
        if outcome == "logged":
            written.set()

    log = ImpressionsLog(tmp_path / "log", count=count, rows=3, seconds=1e6)
    log.start()
    offered(log, artifact, store, "u", "v")
    assert written.wait(20)
    assert len(rows(tmp_path / "log")) == 4
    log.close()


# The loop closed


def serve_some_days(client):
    """Users look at four items a day and act on the first one, an hour later at most."""
    body = []
    for day in range(30):
        moment = START + day * DAY
        for user in range(12):
            shown = [f"i{(user + day + step) % 50}" for step in range(4)]
            requests = {"user": f"u{user}", "items": shown, "time": moment + user}
            body.append(client.post("/v1/score", requests).json()["request_id"])
            event = {"user": f"u{user}", "item": shown[0], "time": moment + user + 600, "event_type": "view"}
            client.post("/v1/events", {"events": [event]})
    return body


@pytest.mark.torch
def test_served_impressions_train_the_next_model(logged, tmp_path, capsys):
    for name in ("torch", "ibis"):
        pytest.importorskip(name)
    from lifelong.cli import main
    from lifelong.cli.export import write_log
    from lifelong.dataset.folder import Dataset

    client, folder = logged
    serve_some_days(client)
    client.app.state.impressions.close()
    events, data, artifact = tmp_path / "events.csv", tmp_path / "data", tmp_path / "artifact"
    write_log(client.app.state.service.store, events)
    words = ["--protocol", "impressions", "--set", "min_count=1", "--set", "options.window=1h"]
    assert main(["prepare", "served", str(folder), str(events), "--out", str(data), *words]) == 0
    dataset = Dataset(data)
    assert dataset.manifest.base_rate == pytest.approx(0.25, abs=0.01)
    assert dataset.schema.item_fields == ("item", "category") and dataset.schema.event_types
    small = ["--set", "model.embedding=4", "--set", "train.max_examples=40", "--set", "train.threads=1"]
    assert main(["train", str(data), "--model", "dnn", "--out", str(artifact), *small]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(artifact), str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]


def test_labels_from_a_file_are_the_response(logged, tmp_path):
    ibis = pytest.importorskip("ibis")
    from lifelong.offline.preparation.sources import SOURCES

    client, folder = logged
    names = serve_some_days(client)
    client.app.state.impressions.close()
    with (tmp_path / "events.csv").open("w") as file:
        csv.writer(file).writerows([["user", "item", "time"], ["u1", "i1", START]])
    with (tmp_path / "labels.csv").open("w") as file:
        csv.writer(file).writerows([["request_id", "item", "label"], [names[0], "i0", 1], [names[0], "i1", 0]])
    connection = ibis.duckdb.connect()
    raw = SOURCES["served"](connection, [folder, tmp_path / "events.csv", tmp_path / "labels.csv"], {})
    found = raw.impressions.order_by("sequence").to_pyarrow().to_pylist()
    assert [(row["user"], row["item"], row["response"]) for row in found] == [("u0", "i0", 1.0), ("u0", "i1", 0.0)]
    connection.disconnect()
