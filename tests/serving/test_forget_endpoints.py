"""Forgetting over HTTP: by request, and after a time without events."""

import time
from types import SimpleNamespace

import pytest
from support.processes import until

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.serving.app import create_app
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.serving.sweeper import Sweeper


def test_a_user_is_exported_and_forgotten(client):
    event = {"user": "a/b", "item": "i1", "time": 1_700_000_000, "event_type": "view", "event_id": "e"}
    client.post("/v1/events", {"events": [event]})
    found = client.get("/v1/admin/users/a/b").json()
    assert (found["known"], found["memories"][0]["count"], found["events"][0]["item"]) == (True, 1, "i1")
    assert found["event_ids"][0]["event_id"] == "e"
    reply = client.delete("/v1/admin/users/a/b").json()
    assert reply == {"user": "a/b", "erased": True, "impressions": 0, "dead_letters": 0, "purged": True}
    assert client.delete("/v1/admin/users/a/b").json()["erased"] is False
    assert client.get("/v1/admin/users/a/b").json()["known"] is False
    assert 'lifelong_forgotten_users_total{reason="asked"} 1.0' in client.get("/metrics").text


def test_inactive_users_are_forgotten_and_counted(make_client):
    client = make_client(settings=ServiceSettings(forget_after=30))
    now = int(time.time())
    for user, age in (("old", 31), ("new", 29)):
        client.post("/v1/events", {"events": [{"user": user, "item": "i1", "time": now - age * 86_400}]})
    sweep = Sweeper(client.app.state.service).sweep()
    assert (sweep.users, sweep.forgotten) == (2, 1)
    assert [client.get(f"/v1/users/{user}/memory").status_code for user in ("old", "new")] == [404, 200]
    assert 'lifelong_forgotten_users_total{reason="inactive"} 1.0' in client.get("/metrics").text


def test_a_sweep_that_an_outage_of_the_store_ends_is_soon_tried_again_and_its_bytes_go(make_client, monkeypatch):
    client = make_client(settings=ServiceSettings(forget_after=30))
    client.post("/v1/events", {"events": [{"user": "old", "item": "i1", "time": 1_700_000_000}]})
    service, purges = client.app.state.service, []

    def purge():
        purges.append(True)
        if len(purges) == 1:
            raise StoreUnavailableError("the disk is full", fix="free space")
        return True

    monkeypatch.setattr(service.store, "purge", purge)
    sweeper = Sweeper(service)
    sweeper.start()
    # The user is gone after the first pass; her bytes are not.
    until(lambda: len(purges) == 2)
    sweeper.close()
    assert client.get("/v1/users/old/memory").status_code == 404


def test_old_events_are_out_of_the_log_and_an_explanation_says_that_they_are_missing(make_client):
    client = make_client(settings=ServiceSettings(keep_events=30))
    now = int(time.time())
    events = [{"user": "u", "item": "i1", "time": now - age * 86_400} for age in (40, 31, 29, 1)]
    client.post("/v1/events", {"events": events})
    before = client.post("/v1/score", {"user": "u", "items": ["i1", "i2"], "time": now}).json()
    assert Sweeper(client.app.state.service).trim().events == 2
    assert client.post("/v1/score", {"user": "u", "items": ["i1", "i2"], "time": now}).json() == before
    told = client.post("/v1/explain", {"user": "u", "items": ["i1"], "time": now}).json()
    assert [event["position"] for event in told["recent"]] == [4, 3]
    assert "2 of 4 are not known" in told["events_note"]


def test_a_service_trims_at_its_start_and_the_days_must_be_a_number_of_days(make_client, artifact, store):
    client = make_client(settings=ServiceSettings(keep_events=30))
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": 1_700_000_000}]})
    service, sweeper = client.app.state.service, Sweeper(client.app.state.service)
    sweeper.start()
    for _ in range(500):
        if not service.store.events("u"):
            break
        time.sleep(0.01)
    sweeper.close()
    assert service.store.events("u") == []
    with pytest.raises(UsageError, match="above 0"):
        create_app(artifact, store, settings=ServiceSettings(keep_events=0))


@pytest.mark.parametrize(
    ("limit", "option"), [({"forget_after": 3}, "forget_after"), ({"keep_events": 3}, "keep_events")]
)
def test_a_sweep_needs_times(artifact, limit, option):
    schema = artifact.config.dataset_schema.model_copy(update={"time_unit": "ordinal"})
    config = artifact.config.model_copy(update={"dataset_schema": schema})
    ordinal = type(artifact)(artifact.path, artifact.manifest, config)
    with pytest.raises(UsageError, match=option):
        Sweeper(SimpleNamespace(artifact=ordinal, settings=ServiceSettings(**limit)))
