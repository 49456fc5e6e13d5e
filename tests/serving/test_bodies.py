"""Bodies: how they are checked, and how large they may be."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest
from fastapi import APIRouter
from pydantic import TypeAdapter, ValidationError

from lifelong.online.serving import admin, bodies
from lifelong.online.serving.bodies import LARGE
from lifelong.online.serving.settings import ServiceSettings

EVENT = {"user": "u", "item": "i1", "time": 1_700_000_000, "event_id": "one", "fields": {"category": "c1"}}
SCORE = {"user": "u", "items": ["i1", {"item": "new", "fields": {"category": "c1"}}], "time": 1_700_000_001}


def test_events_and_scores_are_answered_without_a_search_for_their_route(client, monkeypatch):
    async def search(self, scope, receive, send):
        pytest.fail(f"a route was searched for {scope['path']}")

    with monkeypatch.context() as patch:
        patch.setattr(APIRouter, "__call__", search)
        for path, body in (("/v1/events", {"events": [EVENT]}), ("/v1/score", SCORE)):
            assert client.post(path, body).status_code == 200
            assert client.post(path, {}).status_code == 422
    # Errors that name the route, and metrics, know it.
    assert "GET /docs says of POST /v1/score" in client.post("/v1/score", {}).json()["error"]["expected"]
    assert 'route="/v1/score",status="200"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("size", [1, LARGE])
def test_what_is_no_json_is_refused(client, size):
    head = {"content-type": "application/json"}
    answer = client.request("POST", "/v1/score", content=b'{"user": "' + b"u" * size, headers=head)
    assert answer.status_code == 422
    assert answer.json()["error"]["found"].startswith("the body is not JSON")


def test_bodies_of_the_operator_are_small_and_json_alone(client):
    for path in ("/v1/admin/switch", "/v1/score"):
        answer = client.request("POST", path, content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 415 and answer.json()["error"]["expected"] == "application/json"
    answer = client.post("/v1/admin/switch", {"back": True, "more": "x" * 100_000})
    assert answer.status_code == 413 and answer.json()["error"]["expected"] == "at most 65,536 bytes"


MANY = 1_000
KEYS = {f"key {number}": number for number in range(MANY)}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (bodies.EventsBody, {"events": [{}] * MANY}),
        (bodies.EventsBody, {"events": [1] * MANY}),
        (bodies.EventsBody, {"events": [EVENT | KEYS]}),
        (bodies.EventsBody, {"events": [EVENT | {"fields": KEYS}]}),
        (bodies.EventsBody, {"events": [EVENT], **KEYS}),
        (bodies.ScoreBody, {"user": "u", "items": [1] * MANY}),
        (bodies.ScoreBody, {"user": "u", "items": [{}] * MANY}),
        (bodies.ScoreBody, {"user": "u", "items": [{"item": "i", **KEYS}]}),
        (bodies.ScoreBody, {"user": "u", "items": [{"item": "i", "fields": KEYS}]}),
        (bodies.ScoreBody, {"user": "u", "items": ["i"], "profile": KEYS}),
        (bodies.ScoreBody, {"user": "u", "items": ["i"], **KEYS}),
        (bodies.ScoreBody, {"requests": [{}] * MANY}),
        (bodies.ScoreBody, {"requests": [{"user": "u", "items": [1] * MANY}] * MANY}),
        (bodies.ScoreBody, {"requests": [SCORE], **KEYS}),
        (bodies.ExplainBody, {"user": "u", "items": [1] * MANY}),
        (bodies.ItemsBody, {"items": [{}] * MANY}),
        (bodies.ItemsBody, {"items": [{"item": "i", "fields": KEYS}]}),
        (bodies.ItemsBody, {"items": [{"item": "i", "fields": {}, **KEYS}]}),
        (admin.ArtifactBody, KEYS),
        (admin.SwitchBody, KEYS),
        (admin.SwitchBody, {"back": True, **KEYS}),
    ],
)
def test_a_body_that_is_wrong_in_many_places_has_few_errors(kind, body):
    # A body of 8 MiB has room for millions, and each takes as much memory as a hundred bytes of it.
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(body)
    assert 1 <= caught.value.error_count() <= 10


def with_two_wrong_entries(schema, known):
    """A document for each list of a JSON schema, with two entries in it that no list takes."""
    schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for one in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from with_two_wrong_entries(one, known)
    for name, one in schema.get("properties", {}).items():
        yield from ({name: inner} for inner in with_two_wrong_entries(one, known))
    if isinstance(one := schema.get("additionalProperties"), dict):
        yield from ({"key": inner} for inner in with_two_wrong_entries(one, known))
    if schema.get("type") == "array":
        yield [True, True]
        yield from ([inner] for inner in with_two_wrong_entries(schema.get("items", {}), known))


def bodies_with_a_list(app):
    """Of each list in the body of any endpoint: method, address, a body."""
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for body in with_two_wrong_entries(content["schema"], document["components"]["schemas"]):
                    yield method.upper(), path, body


def test_a_list_that_is_too_long_is_refused_before_any_of_its_entries_is_validated(make_client):
    one = dict.fromkeys(("max_events", "max_users", "max_candidates", "max_explained", "max_items"), 1)
    client = make_client(settings=ServiceSettings(**one))
    every = list(bodies_with_a_list(client.app))
    assert [(path, *body) for _, path, body in every] == [
        ("/v1/events", "events"),
        ("/v1/score", "items"),
        ("/v1/score", "requests"),
        ("/v1/score", "requests"),
        ("/v1/explain", "items"),
        ("/v1/items", "items"),
    ]
    for method, path, body in every:
        answer = client.request(method, path, json=body)
        # The first entry is wrong: had it been validated, that would be the error.
        assert answer.status_code == 413, (path, body, answer.text)
        assert answer.json()["error"]["expected"] == "at most 1"


def test_the_candidates_of_all_users_are_counted_before_any_is_validated(make_client):
    client = make_client(settings=ServiceSettings(max_candidates=3))
    answer = client.post("/v1/score", {"requests": [{"user": "u", "items": [True, True]}] * 2})
    assert (answer.status_code, answer.json()["error"]["found"]) == (413, "4 candidates in one request")


def test_nothing_of_a_refused_body_stays_in_memory(client):
    text = json.dumps({"events": [EVENT | {"user": ""}] * 5_003})

    async def left(http):
        for _ in range(3):
            assert (
                await http.post("/v1/events", content=text, headers={"content-type": "application/json"})
            ).status_code == 422
        # What woke the client holds the last answer until the next turn.
        await asyncio.sleep(0.01)
        return sum(type(one) is list and len(one) == 5_003 for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        assert client.run(left) == 0
    finally:
        gc.enable()
