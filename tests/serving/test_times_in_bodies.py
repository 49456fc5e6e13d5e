"""Times of bodies: UTC seconds, or texts of ISO 8601."""

import pytest

from lifelong.online.memory.event import decode_event

START = 1_764_547_200
EVENT = {"user": "u1", "item": "i1"}


@pytest.mark.parametrize(
    "time", [START, float(START), "2025-12-01", "2025-12-01T00:00:00Z", "2025-12-01T01:00:00.9+01:00"]
)
def test_a_time_is_seconds_or_a_text_of_iso_8601(make_client, time):
    client = make_client()
    assert client.post("/v1/events", {"events": [{**EVENT, "time": time}]}).json()["applied"] == 1
    assert [decode_event(value).time for value in client.app.state.service.store.events("u1")] == [START]
    request = {"user": "u1", "items": ["i1"]}
    asked, wanted = (client.post("/v1/score", {**request, "time": each}).json() for each in (time, START))
    assert asked["scores"] == wanted["scores"]


@pytest.mark.parametrize("time", ["now", "1764547200", "2025-13-01", "0001-01-01", "", True, None, 1.5, ["2025-12-01"]])
def test_another_time_is_refused(make_client, time):
    client = make_client()
    answer = client.post("/v1/events", {"events": [{**EVENT, "time": time}]})
    assert (answer.status_code, "time" in answer.json()["error"]["found"]) == (422, True)
    assert list(client.app.state.service.store.scan()) == []


def test_a_text_that_is_no_time_is_said_with_what_was_expected(make_client):
    answer = make_client().post("/v1/score", {"user": "u1", "items": ["i1"], "time": "now"})
    assert answer.json()["error"]["found"] == (
        "time: should be UTC seconds without quotes, or a text of ISO 8601 such as 2025-12-01T00:00:00Z"
    )
