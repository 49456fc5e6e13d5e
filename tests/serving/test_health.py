"""Whether the service says that writes are kept, and whether it brings its store back."""

import time
from contextlib import closing

import pytest
from support.client import Client

from lifelong.errors import StoreUnavailableError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.serving.app import create_app
from lifelong.online.serving.health import TRUSTED, WriteHealth, check_clock
from lifelong.online.store.opening import open_store


class Flaky:
    """A store that takes no writes while `broken`."""

    def __init__(self):
        self.broken, self.marks = False, 0

    def check_writes(self):
        self.marks += 1
        if self.broken:
            raise StoreUnavailableError("the disk is full", fix="free space")


def test_the_store_is_asked_to_keep_a_mark_once_in_a_while():
    second, store = [0.0], Flaky()
    health = WriteHealth(store, now=lambda: second[0])
    for _ in range(3):
        health.check()
    assert store.marks == 1
    second[0], store.broken = TRUSTED, True
    with pytest.raises(StoreUnavailableError, match="takes no writes: the disk is full"):
        health.check()


def test_a_write_that_failed_is_said_until_a_mark_is_kept():
    second, store = [0.0], Flaky()
    health = WriteHealth(store, now=lambda: second[0])
    health.check()
    health.failed(StoreUnavailableError("too many open files"))
    with pytest.raises(StoreUnavailableError, match="too many open files"):
        health.check()
    second[0] = 1.0
    health.check()


def test_a_service_whose_store_takes_no_writes_is_not_ready_and_says_why(client, app, monkeypatch):
    store, event = app.state.service.store, {"user": "u", "item": "i1", "time": 5}
    assert client.get("/readyz").status_code == 200

    def fail(*_):
        raise StoreUnavailableError("the disk is full", fix="free space")

    monkeypatch.setattr(store, "commit", fail)
    monkeypatch.setattr(store, "check_writes", fail)
    assert client.post("/v1/events", {"events": [event]}).status_code == 503
    answer = client.get("/readyz")
    assert (answer.status_code, "disk is full" in answer.json()["error"]["found"]) == (503, True)
    monkeypatch.undo()
    app.state.service.health._tried -= TRUSTED
    assert client.get("/readyz").status_code == 200


def test_a_service_on_a_full_disk_scores_and_takes_events_again_when_there_is_room(artifact, small_disk):
    pytest.importorskip("rocksdict")
    store = open_store(f"rocksdb://{small_disk}/store")
    app = create_app(artifact, store)
    client, filler = Client(app), small_disk / "filler"

    def post(first):
        events = [{"user": f"u{k}", "item": "i1", "time": 5, "event_id": "a"} for k in range(first, first + 50)]
        return client.post("/v1/events", {"events": events})

    assert post(0).json()["applied"] == 50
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))
    taken = 50
    while (answer := post(taken)).status_code == 200:
        taken += 50
    assert answer.status_code == 503
    assert "takes no writes" in client.get("/readyz").json()["error"]["found"]
    assert client.post("/v1/score", {"user": "u0", "items": ["i1"]}).json()["count"] == 1
    filler.unlink()
    deadline = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = post(taken).json()
    assert (again["applied"], again["duplicates"]) == (50, 0)
    assert post(taken - 50).json()["duplicates"] == 50
    assert all(record is not None for record in store.read_many([f"u{k}" for k in range(taken + 50)]))
    app.state.service.close()
    store.close()


YEARS = 10 * 365 * 86_400


def test_a_clock_that_is_set_back_by_years_makes_a_service_not_ready_until_it_is_right(client, monkeypatch, caplog):
    real, wrong = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: real() + wrong[0])
    event = {"user": "u", "item": "i1", "time": int(real())}
    assert client.get("/readyz").status_code == 200
    wrong[0] = -YEARS
    assert client.post("/v1/events", {"events": [event]}).status_code == 422
    answer = client.get("/readyz")
    error = answer.json()["error"]
    assert answer.status_code == 503
    assert "clock is 3,650.0 days behind that of the store" in error["found"] and "set the clock" in error["fix"]
    assert any("days behind" in line.getMessage() for line in caplog.records)
    wrong[0] = 0
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/events", {"events": [event]}).json()["applied"] == 1


def test_a_store_on_disk_knows_a_clock_that_is_wrong_when_it_is_opened(artifact, tmp_path, monkeypatch):
    url, real = f"rocksdb://{tmp_path}/store", time.time
    with closing(open_store(url)) as store:
        Updater(artifact, store).apply([UserEvent("u", "i1", int(real()), event_id="first")])
    monkeypatch.setattr(time, "time", lambda: real() - YEARS)
    with closing(open_store(url)) as store:
        assert Client(create_app(artifact, store)).get("/readyz").status_code == 503
        # A larger bound is the way out where the store was made under a clock that was ahead.
        check_clock(store, 4_000, time.time())
        check_clock(store, float("inf"), time.time())


def test_a_clock_that_is_a_little_behind_is_no_fault():
    with closing(open_store("memory://")) as store:
        check_clock(store, 1.0, store.clock() - 86_000)
        with pytest.raises(StoreUnavailableError, match=r"1\.2 days behind.*max_ahead"):
            check_clock(store, 1.0, store.clock() - 100_000)
