"""A service whose server goes away and comes back: clear answers meanwhile, nothing lost, nothing counted twice."""

import contextlib
import shutil
import time

import pytest

pytest.importorskip("redis")

from support.valkey import replica, server

from lifelong.online.background import Patience
from lifelong.online.serving.app import create_app
from lifelong.online.store import redis_client
from lifelong.online.store.opening import open_store

START = 1_700_000_000


@pytest.fixture
def valkey(tmp_path):
    if not shutil.which("valkey-server"):
        pytest.skip("valkey-server is not installed (Debian: valkey-server)")
    with server(tmp_path / "valkey", "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@contextlib.contextmanager
def service(artifact, url, client):
    store = open_store(url)
    app = Patience(60)(lambda: create_app(artifact, store))
    yield type(client)(app)
    app.state.service.close()
    store.close()


@pytest.fixture
def shared(artifact, valkey, monkeypatch, client):
    monkeypatch.setattr(redis_client, "_RETRIES", 1)
    with service(artifact, f"redis://127.0.0.1:{valkey.port}?timeout=1", client) as running:
        yield running


def events(first, last):
    return {
        "events": [
            {"user": f"u{k % 3}", "item": f"i{k}", "time": START + k, "event_id": f"{k}"} for k in range(first, last)
        ]
    }


def test_a_service_says_that_its_server_is_away_and_goes_on_when_it_is_back(shared, valkey):
    assert shared.post("/v1/events", events(0, 6)).json()["applied"] == 6
    valkey.kill()
    for answer in (
        shared.post("/v1/events", events(6, 12)),
        shared.post("/v1/score", {"user": "u0", "items": ["i1"]}),
        shared.get("/readyz"),
    ):
        assert answer.status_code == 503, answer.text
        assert "does not answer" in answer.json()["error"]["found"]
    valkey.start()
    assert shared.get("/readyz").status_code == 200
    # What was refused is sent again, and some that had been taken with it.
    counts = shared.post("/v1/events", events(3, 12)).json()
    assert (counts["applied"], counts["duplicates"]) == (6, 3)
    found = [shared.post("/v1/score", {"user": f"u{user}", "items": ["i1"]}).json()["count"] for user in range(3)]
    assert found == [4, 4, 4]


def test_a_server_that_hangs_is_503_and_not_a_timeout(artifact, valkey, client):
    with service(artifact, f"redis://127.0.0.1:{valkey.port}", client) as running:
        assert running.post("/v1/events", events(0, 6)).json()["applied"] == 6
        valkey.pause()
        for answer in (
            running.post("/v1/events", events(6, 12)),
            running.post("/v1/score", {"user": "u0", "items": ["i1"]}),
            running.get("/readyz"),
        ):
            assert answer.status_code == 503, answer.text
            assert "does not answer" in answer.json()["error"]["found"]
        valkey.resume()
        assert running.post("/v1/events", events(3, 12)).status_code == 200


def test_a_service_whose_server_comes_back_empty_is_not_ready_and_says_why(artifact, tmp_path, client):
    with server(tmp_path / "empty") as one, service(artifact, f"redis://127.0.0.1:{one.port}", client) as running:
        assert running.post("/v1/events", events(0, 6)).json()["applied"] == 6
        assert running.get("/readyz").status_code == 200
        one.call("flushall")
        for answer in (
            running.get("/readyz"),
            running.post("/v1/events", events(6, 12)),
            running.post("/v1/score", {"user": "u0", "items": ["i1"]}),
            running.get("/readyz"),
        ):
            assert answer.status_code == 503, answer.text
            assert "does not hold the store that was opened" in answer.json()["error"]["found"]
        assert "u0" not in one.call("keys", "*")


def test_events_that_no_replica_has_are_refused_until_one_has_them(artifact, valkey, tmp_path, client):
    url = f"redis://127.0.0.1:{valkey.port}?replicas=1&replica_timeout=0.5"
    with (
        replica(tmp_path / "replica", valkey) as follower,
        service(artifact, url, client) as running,
    ):
        follower.pause()
        for _ in range(2):
            answer = running.post("/v1/events", events(0, 6))
            assert answer.status_code == 503, answer.text
            assert "0 of 1 replicas had it; it is not acknowledged" in answer.json()["error"]["found"]
        # What is there is answered meanwhile.
        assert running.post("/v1/score", {"user": "u0", "items": ["i1"]}).json()["count"] == 2
        follower.resume()
        end = time.monotonic() + 60
        while (answer := running.post("/v1/events", events(0, 6))).status_code == 503:
            assert time.monotonic() < end
        assert (answer.json()["applied"], answer.json()["duplicates"]) == (0, 6)
