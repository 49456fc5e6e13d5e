"""An address is text in UTF-8 and names a route to its last character: no user's id reaches another's memory."""

from __future__ import annotations

import pytest

USER = {"user": "u", "item": "i1", "time": 1_700_000_000}
STEMS = [
    ("GET", "/v1/users/u/memory"),
    ("GET", "/v1/users/u/history"),
    ("GET", "/v1/users/u/cells"),
    ("GET", "/v1/users/u/top"),
    ("GET", "/v1/users/u/features?items=i1"),
    ("DELETE", "/v1/users/u/memory"),
    ("GET", "/v1/users"),
    ("GET", "/v1/model"),
    ("POST", "/v1/score"),
    ("GET", "/healthz"),
    ("GET", "/docs"),
]
LAST = [
    ("GET", "/v1/admin/users/"),
    ("DELETE", "/v1/admin/users/"),
    ("DELETE", "/v1/items/"),
    ("DELETE", "/v1/admin/artifacts/"),
]


@pytest.fixture
def client(make_client):
    made = make_client()
    assert made.post("/v1/events", {"events": [USER]}).json()["applied"] == 1
    return made


@pytest.mark.parametrize(("method", "address"), STEMS)
def test_a_line_break_at_the_end_is_not_left_out(client, method, address):
    path, _, query = address.partition("?")
    answer = client.request(method, f"{path}%0A?{query}")
    assert answer.status_code == 404
    assert answer.json()["error"]["found"] == f"there is no {method} {path}%0A"
    assert client.get("/v1/users/u/memory").json()["count"] == 1


def test_an_id_that_ends_in_a_line_break_is_a_user_and_an_item_of_its_own(client):
    client.post("/v1/events", {"events": [USER | {"user": "u\n"}] * 2})
    assert client.get("/v1/users/u%0A/memory").json()["count"] == 2
    assert len(client.get("/v1/admin/users/u%0A").json()["events"]) == 2
    client.put("/v1/items", {"items": [{"item": "new\n", "fields": {}}]})
    assert not client.delete("/v1/items/new").json()["removed"]
    assert client.delete("/v1/items/new%0A").json()["removed"]
    assert client.delete("/v1/admin/users/u%0A").json()["erased"]
    assert client.get("/v1/users/u/memory").json()["count"] == 1


@pytest.mark.parametrize("wrong", ["%FF", "%FC", "%C0%AF", "%ED%A0%80", "%C3"])
def test_what_is_not_utf_8_is_refused_and_is_no_other_user(client, wrong):
    client.post("/v1/events", {"events": [USER | {"user": "\N{REPLACEMENT CHARACTER}"}]})
    asked = [
        *((method, f"{stem}{wrong}") for method, stem in LAST),
        *((method, address.replace("/u/", f"/{wrong}/")) for method, address in STEMS if "/u/" in address),
        ("GET", f"/v1/users?q={wrong}"),
        ("GET", f"/v1/catalogue?q={wrong}"),
        ("GET", f"/v1/users/u/features?items={wrong}"),
        ("GET", f"/v1/users/u/top?artifact={wrong}"),
    ]
    for method, address in asked:
        answer = client.request(method, address)
        assert answer.status_code == 422, address
        assert answer.json()["error"]["found"] == "the address of the request is not text in UTF-8"
    assert client.get("/v1/users/%EF%BF%BD/memory").json()["count"] == 1


def test_an_address_of_too_many_parameters_is_refused(client):
    answer = client.get("/v1/model?" + "&a=1" * 4_000)
    assert answer.status_code == 413
    assert "at most 4,000" in answer.json()["error"]["expected"]
