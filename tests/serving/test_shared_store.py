"""A service whose server goes away and comes back: clear answers meanwhile, nothing lost, nothing counted twice."""

import shutil

import pytest

pytest.importorskip("redis")

from lifelong.memory import redis_client
from lifelong.memory.store import open_store
from lifelong.serving.app import create_app
from lifelong.testing.valkey import server

START = 1_700_000_000


@pytest.fixture
def valkey(tmp_path):
    if not shutil.which("valkey-server"):
        pytest.skip("valkey-server is not installed (Debian: valkey-server)")
    with server(tmp_path / "valkey", "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def shared(artifact, valkey, monkeypatch, client):
    monkeypatch.setattr(redis_client, "_RETRIES", 1)
    store = open_store(f"redis://127.0.0.1:{valkey.port}?timeout=1")
    app = create_app(artifact, store)
    yield type(client)(app)
    app.state.service.close()
    store.close()


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
