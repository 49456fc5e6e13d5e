"""The HTTP service, in process."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from lifelong.errors import StoreUnavailableError
from lifelong.online.serving.bodies import LARGE
from lifelong.online.serving.replies import ScoreReplies
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.store.contract import Commit

START = 1_700_000_000
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


def event(user="u1", item="i1", time=START, **more):
    return {"user": user, "item": item, "time": time, **more}


def one(client, user="u1", items=("i1",), time=START):
    return client.post("/v1/score", {"user": user, "items": list(items), "time": time}).json()


def check_error(answer, status, *, found):
    """Every error has the one shape."""
    assert answer.status_code == status
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"type", "found", "expected", "fix"}
    assert all(isinstance(part, str) for part in document["error"].values())
    assert document["error"]["fix"]
    assert re.search(found, document["error"]["found"]), document["error"]["found"]


# Events


def test_events_are_folded_in_and_counted(client):
    answer = client.post(
        "/v1/events", {"events": [event(event_id="a"), event(item="i2", time=START + 1, event_id="b")]}
    )
    assert answer.status_code == 200
    zero = {"duplicates": 0, "late": 0, "refused": 0, "no_dedup": 0, "unknown_types": 0, "backfilled": 0}
    assert answer.json() == {"applied": 2, **zero, "note": None}
    assert one(client)["count"] == 2


def test_a_repeated_event_id_changes_nothing(client):
    client.post("/v1/events", {"events": [event(event_id="a")]})
    before = one(client)
    again = client.post("/v1/events", {"events": [event(event_id="a"), event(event_id="a")]}).json()
    assert (again["applied"], again["duplicates"]) == (0, 2)
    assert one(client) == before


def test_events_without_an_id_are_not_deduplicated_and_the_reply_says_so(client):
    for _ in range(2):
        reply = client.post("/v1/events", {"events": [event()]}).json()
    assert (reply["applied"], reply["no_dedup"]) == (1, 1)
    assert "event_id" in reply["note"]
    assert one(client)["count"] == 2


def test_a_late_event_is_applied_by_default(client):
    client.post("/v1/events", {"events": [event(event_id="a")]})
    reply = client.post("/v1/events", {"events": [event(time=START - 5, event_id="b")]}).json()
    assert (reply["late"], reply["refused"]) == (1, 0)
    assert one(client)["count"] == 2


def test_a_late_event_is_refused_where_the_service_is_told_so(make_client):
    client = make_client(settings=ServiceSettings(late="refuse"))
    client.post("/v1/events", {"events": [event(event_id="a")]})
    reply = client.post("/v1/events", {"events": [event(time=START - 5, event_id="b")]}).json()
    assert reply["refused"] == 1
    assert "older" in reply["note"]
    assert one(client)["count"] == 1


def test_an_event_too_far_ahead_of_the_clock_is_refused_and_nothing_is_kept(client, make_client):
    far = int(time.time()) + 90_000
    body = {"events": [event(), event(time=far)]}
    check_error(client.post("/v1/events", body), 422, found=f"event 1: time is {far}, too far ahead")
    assert one(client)["count"] == 0
    patient = make_client(settings=ServiceSettings(max_ahead=2))
    assert patient.post("/v1/events", body).json()["applied"] == 2


def test_an_event_type_that_training_has_not_seen_is_applied_and_told(client):
    reply = client.post("/v1/events", {"events": [event(event_type="wish", event_id="a")]}).json()
    assert (reply["applied"], reply["unknown_types"]) == (1, 1)
    assert "event type" in reply["note"]


def test_a_whole_number_may_be_written_as_a_float(client):
    assert client.post("/v1/events", {"events": [event(time=1.7e9, event_id="a")]}).json()["applied"] == 1


def test_a_batch_with_one_wrong_field_leaves_nothing(client):
    events = [event(event_id="a"), event(event_id="b", fields={"colour": "red"})]
    check_error(client.post("/v1/events", {"events": events}), 422, found="colour")
    assert not one(client)["known_user"]
    assert client.post("/v1/events", {"events": [event(event_id="a")]}).json()["applied"] == 1


# Scores


def test_one_user_gets_her_scores_in_the_order_of_the_items(client):
    client.post("/v1/events", {"events": [event()]})
    reply = one(client, items=["i2", "i1", {"item": "new", "fields": {"category": "c1"}}])
    assert [score["item"] for score in reply["scores"]] == ["i2", "i1", "new"]
    assert (reply["user"], reply["known_user"], reply["count"]) == ("u1", True, 1)
    assert all(set(score) == {"item", "known_item", "score", "probability"} for score in reply["scores"])


def test_why_there_is_no_probability_stands_in_the_reply_once(client, make_client):
    reply = one(client, items=["i1", "i2"])
    assert "negatives were sampled" in reply["reason"]
    assert [score["probability"] for score in reply["scores"]] == [None, None]
    stated = one(make_client(settings=ServiceSettings(base_rate=0.1)), items=["i1", "i2"])
    assert stated["reason"] is None
    assert all(0 < score["probability"] < 1 for score in stated["scores"])


def test_an_unknown_user_is_marked(client):
    assert one(client, user="nobody")["known_user"] is False


def test_an_unknown_item_is_marked_also_with_its_fields_and_when_it_was_put_online(client):
    client.put("/v1/items", {"items": [{"item": "put", "fields": {"category": "c1"}}]})
    items = ["i1", "new", {"item": "given", "fields": {"category": "c1"}}, "put"]
    assert [score["known_item"] for score in one(client, items=items)["scores"]] == [True, False, False, False]
    explained = client.post("/v1/explain", {"user": "u1", "items": ["new", "i1"]}).json()["candidates"]
    assert [candidate["known_item"] for candidate in explained] == [False, True]


def test_many_users_get_what_each_gets_alone(client):
    client.post("/v1/events", {"events": [event("u1"), event("u2", "i2")]})
    requests = [{"user": user, "items": ["i1", "i2"], "time": START} for user in ("u2", "nobody", "u1")]
    results = client.post("/v1/score", {"requests": requests}).json()["results"]
    assert [result["user"] for result in results] == ["u2", "nobody", "u1"]
    for result in results:
        alone = one(client, result["user"], ["i1", "i2"])
        for got, wanted in zip(result["scores"], alone["scores"], strict=True):
            assert got["score"] == pytest.approx(wanted["score"], abs=1e-5)


def damage(app, user):
    """Turn one bit of a user's memory, behind the back of the checks."""
    store = app.state.service.store
    (record,) = store.read_many([user])
    store.commit(Commit(records={0: {user: record[:-1] + bytes([record[-1] ^ 1])}}))


def test_a_damaged_memory_in_a_batch_is_named_and_the_others_have_their_scores(app, client):
    client.post("/v1/events", {"events": [event(user) for user in ("u1", "bad", "u2")]})
    damage(app, "bad")
    users = ("u1", "bad", "nobody", "u2", "bad")
    answer = client.post("/v1/score", {"requests": [{"user": user, "items": ["i1"], "time": START} for user in users]})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["user"] for result in results] == list(users)
    assert [set(result) == {"user", "error"} for result in results] == [False, True, False, False, True]
    assert results[1]["error"]["type"] == "StoreCorruptError"
    assert "the memory of user 'bad' fails its checksum" in results[1]["error"]["found"]
    for place in (0, 2, 3):
        alone = one(client, users[place])
        assert results[place]["scores"][0]["score"] == pytest.approx(alone["scores"][0]["score"], abs=1e-5)
    assert ScoreReplies.model_validate(answer.json()).model_dump(mode="json") == answer.json()


def test_a_damaged_memory_asked_for_alone_is_an_error(app, client):
    client.post("/v1/events", {"events": [event("bad")]})
    damage(app, "bad")
    check_error(client.post("/v1/score", {"user": "bad", "items": ["i1"]}), 500, found="the memory of user 'bad'")


async def ask_together(http, bodies):
    """Replies to requests that come in one turn of the event loop."""
    return await asyncio.gather(*(http.post("/v1/score", json=body) for body in bodies))


def test_scores_that_come_together_are_answered_with_one_call_and_are_what_each_has_alone(client, monkeypatch):
    client.post("/v1/events", {"events": [event(user) for user in ("u1", "u2")]})
    bodies = [
        {"user": user, "items": items, "time": START + number}
        for number, (user, items) in enumerate(
            [("u1", ["i1"]), ("u2", ["i1", "i2"]), ("nobody", ["i3"]), ("u1", ["i2"])]
        )
    ]
    alone = [client.post("/v1/score", body).json() for body in bodies]
    scorer, calls = client.app.state.service.scorer, []
    answer = scorer.answer
    monkeypatch.setattr(scorer, "answer", lambda requests: (calls.append(len(requests)), answer(requests))[1])
    together = client.run(lambda http: ask_together(http, bodies))
    assert calls == [4]
    for reply, wanted in zip(together, alone, strict=True):
        got = reply.json()
        assert [score.pop("score") for score in got["scores"]] == pytest.approx(
            [score.pop("score") for score in wanted["scores"]], abs=1e-6
        )
        assert [score.pop("probability") for score in got["scores"]] == [
            score.pop("probability") for score in wanted["scores"]
        ]
        assert got == wanted
    text = client.get("/metrics").text
    assert "lifelong_score_requests_count 5.0" in text
    assert 'lifelong_score_requests_bucket{le="2.0"} 4.0' in text


def test_a_request_that_fails_costs_those_that_came_with_it_nothing(app, client):
    client.post("/v1/events", {"events": [event(user) for user in ("u1", "bad")]})
    damage(app, "bad")
    bodies = [
        {"user": "u1", "items": ["i1"]},
        {"user": "bad", "items": ["i1"]},
        {"user": "u1", "items": ["i1"], "profile": {"shoe size": "44"}},
        {"user": "u2", "items": ["i1"]},
    ]
    first, damaged, wrong, last = client.run(lambda http: ask_together(http, bodies))
    check_error(damaged, 500, found="the memory of user 'bad'")
    check_error(wrong, 422, found="'shoe size' is not a field of a profile")
    assert (first.status_code, first.json()["count"]) == (200, 1)
    assert (last.status_code, last.json()["known_user"]) == (200, False)


# Items, memories, explanations


def test_fields_put_online_change_the_score_as_inline_fields_do(client):
    given = one(client, items=[{"item": "new", "fields": {"category": "c3"}}])["scores"][0]["score"]
    assert client.put("/v1/items", {"items": [{"item": "new", "fields": {"category": "c3"}}]}).json() == {"stored": 1}
    assert one(client, items=["new"])["scores"][0]["score"] == pytest.approx(given, abs=1e-6)


def test_what_was_put_online_of_an_item_can_be_taken_away_for_good(client):
    before = one(client, items=["new", "i1"])["scores"]
    fields = [{"item": item, "fields": {"category": "c3"}} for item in ("new", "i1", "a/b")]
    assert client.put("/v1/items", {"items": fields}).json() == {"stored": 3}
    assert one(client, items=["new", "i1"])["scores"] != before
    for item in ("new", "i1", "a/b"):
        address = f"/v1/items/{quote(item, safe='')}"
        assert client.delete(address).json() == {"item": item, "removed": True}
        assert client.delete(address).json() == {"item": item, "removed": False}
    assert one(client, items=["new", "i1"])["scores"] == before


def test_events_use_fields_put_online(client):
    client.put("/v1/items", {"items": [{"item": "new", "fields": {"category": "c3"}}]})
    client.post("/v1/events", {"events": [event("a", "new"), event("b", "new", fields={"category": "c3"})]})
    assert one(client, "a")["scores"] == one(client, "b")["scores"]


def test_a_field_that_items_do_not_have_is_refused(client):
    check_error(client.put("/v1/items", {"items": [{"item": "a", "fields": {"colour": "red"}}]}), 422, found="colour")


def test_a_memory_is_described_and_erased(client, artifact):
    client.post("/v1/events", {"events": [event(), event(time=START + 9)]})
    kept = client.get("/v1/users/u1/memory").json()
    assert (kept["user"], kept["count"], kept["last_time"], kept["artifact"]) == ("u1", 2, START + 9, artifact.id)
    assert kept["bytes"] > 0
    assert [slot["empty"] for slot in kept["slots"]] == [False, False, True]
    assert [slot["norm"] > 0 for slot in kept["slots"]] == [True, True, False]
    assert client.delete("/v1/users/u1/memory").json() == {"user": "u1", "erased": True}
    check_error(client.get("/v1/users/u1/memory"), 404, found="'u1'")
    assert client.delete("/v1/users/u1/memory").json() == {"user": "u1", "erased": False}
    assert client.post("/v1/explain", {"user": "u1", "items": ["i1"]}).json()["recent"] == []


def test_an_id_with_special_characters_is_one_user(client):
    client.post("/v1/events", {"events": [event("ünï/cöde ?#\n")]})
    assert client.get("/v1/users/%C3%BCn%C3%AF%2Fc%C3%B6de%20%3F%23%0A/memory").json()["count"] == 1


def test_an_explanation_names_slots_and_events(client):
    client.post("/v1/events", {"events": [event(), event(item="i2", time=START + 60)]})
    reply = client.post("/v1/explain", {"user": "u1", "items": ["i1", "i3"], "time": START + 120}).json()
    assert [slot["period"] for slot in reply["slots"]] == [1, 2, 4]
    assert [candidate["item"] for candidate in reply["candidates"]] == ["i1", "i3"]
    assert reply["candidates"][0]["slots"][1]["related"][0]["seconds_ago"] == 120
    assert (reply["events_from"], len(reply["recent"])) == ("store", 2)
    assert (reply["attention_over"], reply["candidates"][0]["events"]) == ("slots", [])


# Errors and limits


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{", "not JSON"),
        (b"", "body"),
        (b"\xff\xfe{", "not JSON"),
        (b"[1]", "JSON object"),
        (b'{"user": "u", "items": []}', "items"),
        (b'{"user": "", "items": ["a"]}', "user"),
        (b'{"user": 1, "items": ["a"]}', "user"),
        (b'{"user": "u", "items": [1]}', "items.0: should be an item id"),
        (b'{"user": "u", "items": ["a"], "time": "1700000000"}', "time"),
        (b'{"user": "u", "items": ["a"], "time": 1700000000000}', "not milliseconds"),
        (b'{"user": "u", "items": ["a"], "time": -1}', "time"),
        (b'{"user": "u", "items": ["a"], "time": NaN}', "not JSON"),
        (b'{"user": "u", "items": ["a"], "tiem": 1}', "tiem"),
        (b'{"user": "\\ud800", "items": ["a"]}', "not JSON"),
        (b'{"requests": []}', "requests"),
        (b'{"requests": [{"user": "u"}]}', r"requests\.0\.items"),
        (b'{"requests": [{"user": "u", "items": ["a"]}], "user": "u"}', "user"),
    ],
)
def test_a_wrong_body_is_named_and_refused(client, body, found):
    answer = client.request("POST", "/v1/score", content=body, headers={"content-type": "application/json"})
    check_error(answer, 422, found=found)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{", "not JSON"),
        (b'{"events": []}', "events"),
        (b'{"events": [1]}', "events.0: should be a JSON object"),
        (b'{"events": [{"user": "u", "item": "a"}]}', "events.0.time"),
        (b'{"events": [{"user": "u", "item": "a", "time": 1, "tiem": 1}]}', "events.0.tiem"),
        (b'{"events": [{"user": "u", "item": "a", "time": 1, "fields": 1}]}', "events.0.fields"),
        (b'{"events": [{"user": "u", "item": "a", "time": 1, "event_id": ""}]}', "events.0.event_id"),
    ],
)
def test_a_wrong_body_of_events_is_named_and_refused(client, body, found):
    answer = client.request("POST", "/v1/events", content=body, headers={"content-type": "application/json"})
    check_error(answer, 422, found=found)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/events",
            {"events": [event(event_id="a", event_type="view", fields={"category": "c1"}), event(item="i2")]},
        ),
        ("/v1/score", {"user": "u1", "items": ["i1", {"item": "new", "fields": {"category": "c1"}}], "time": START}),
        ("/v1/score", {"user": "u1", "items": [], "time": START}),
        ("/v1/score", {"requests": [{"user": "u1", "items": ["i1"], "time": START}]}),
    ],
)
def test_the_short_way_of_a_body_ends_where_the_long_one_does(make_client, path, body):
    """FastAPI reads a body whose type has a parameter."""
    answers = [
        make_client().request("POST", path, content=json.dumps(body), headers={"content-type": kind})
        for kind in ("application/json", "application/json; charset=utf-8")
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].json() == answers[1].json()


def test_a_large_body_is_read_beside_the_event_loop(client, app, monkeypatch):
    service, read = app.state.service, []
    aside = service.aside

    async def noted(work):
        read.append(work)
        return await aside(work)

    monkeypatch.setattr(service, "aside", noted)
    few = {"events": [event(event_id="a")]}
    many = {"events": [event(event_id=str(number)) for number in range(LARGE // 50)]}
    for body, times in ((few, 0), (many, 1)):
        assert client.post("/v1/events", body).status_code == 200
        assert len(read) == times


def test_few_candidates_are_scored_at_once_and_many_in_a_thread(make_client, monkeypatch):
    replies = []
    for at_once, thread in ((2, "MainThread"), (1, "lifelong-read_0")):
        client = make_client(settings=ServiceSettings(at_once=at_once))
        scorer, seen = client.app.state.service.scorer, []
        answer = scorer.answer

        def noted(requests, answer=answer, seen=seen):
            seen.append(threading.current_thread().name)
            return answer(requests)

        monkeypatch.setattr(scorer, "answer", noted)
        replies.append(one(client, items=["i1", "i2"]))
        assert seen == [thread]
    assert replies[0] == replies[1]


def test_a_score_that_is_not_finite_is_an_error_and_no_reply(client, app, monkeypatch):
    runtime = app.state.service.scorer.runtime

    def broken(states, number_BCF, *rest, **options):
        return np.full((*number_BCF.shape[:2], 1), np.nan, np.float32), None

    monkeypatch.setattr(runtime, "score", broken)
    check_error(client.post("/v1/score", {"user": "u", "items": ["a"]}), 500, found="not a finite number")


def test_an_unknown_address_has_the_error_shape(client):
    check_error(client.get("/v2/score"), 404, found="/v2/score")


def test_another_method_has_the_error_shape_and_says_which_is_right(client):
    answer = client.get("/v1/score")
    check_error(answer, 405, found="GET /v1/score")
    assert answer.headers["allow"] == "POST"


def test_all_methods_of_an_address_are_named(client):
    for path in ("/v1/users/u/memory", "/v1/admin/users/u"):
        answer = client.post(path, {})
        check_error(answer, 405, found=f"POST {path}")
        assert answer.headers["allow"] == answer.json()["error"]["expected"] == "DELETE, GET"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/events"),
        ("POST", "/v1/score"),
        ("POST", "/v1/explain"),
        ("PUT", "/v1/items"),
        ("POST", "/v1/admin/artifacts"),
        ("POST", "/v1/admin/switch"),
    ],
)
def test_a_body_that_is_not_called_json_is_refused_by_that_name(client, method, path, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = client.request(method, path, content=b'{"back": true}', headers=headers)
    check_error(answer, 415, found="Content-Type")
    assert "application/json" in answer.json()["error"]["fix"]


def test_a_client_that_hangs_up_is_no_fault_of_the_service(app, caplog):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    for path in ("/v1/score", "/v1/explain"):
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "root_path": ""}, receive, send))
    assert not caplog.records
    text = app.state.service.metrics.text().decode()
    assert 'route="/v1/score",status="499"} 1.0' in text
    assert 'route="/v1/explain",status="499"} 1.0' in text
    assert 'status="500"' not in text


def test_an_artifact_in_another_codec_than_its_memories_is_refused_in_words(client, artifact):
    answer = client.post("/v1/admin/artifacts", {"path": str(artifact.path), "codec": "int8"})
    check_error(answer, 409, found="in codec fp32")
    assert "codec int8" in answer.json()["error"]["expected"]


def test_what_is_wrong_with_a_body_is_said_in_our_own_words(client):
    wrong = {
        b'{"user": "u"}': "items: is missing",
        b'{"user": "u", "items": "a"}': "items: should be a list",
        b'{"user": 1, "items": ["a"]}': "user: should be a text in quotes",
        b'{"user": "", "items": ["a"]}': "user: should have at least 1 character",
        b'{"user": "u", "items": []}': "items: should have at least 1 entry",
        b'{"user": "u", "items": ["a"], "time": "1"}': "time: should be a whole number, without quotes",
        b'{"user": "u", "items": ["a"], "time": -1}': "time: should be at least 0",
        b'{"user": "u", "items": ["a"], "tiem": 1}': "tiem: is not known here",
        b"[1]": "body: should be a JSON object",
        b'{"user": "' + b"u" * 300 + b'", "items": ["a"]}': "user: should be text of 1 to 256 characters",
    }
    for body, found in wrong.items():
        answer = client.request("POST", "/v1/score", content=body, headers={"content-type": "application/json"})
        check_error(answer, 422, found=f"^{re.escape(found)}")
        assert "Input should" not in answer.text


def test_a_fault_has_the_error_shape_and_tells_no_secrets(client, app, monkeypatch, caplog):
    def fail(requests):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(app.state.service.scorer, "answer", fail)
    answer = client.post("/v1/score", {"user": "u", "items": ["a"]})
    check_error(answer, 500, found="ZeroDivisionError")
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_store_that_does_not_answer_is_503(client, store, monkeypatch):
    def fail(self, change):
        raise StoreUnavailableError("the disk is full", fix="free some space")

    monkeypatch.setattr(type(store), "commit", fail)
    check_error(client.post("/v1/events", {"events": [event()]}), 503, found="disk is full")


def test_a_huge_body_is_refused_and_nothing_is_lost(make_client):
    client = make_client(settings=ServiceSettings(max_body=2_000))
    client.post("/v1/events", {"events": [event()]})
    check_error(client.post("/v1/events", {"events": [event()] * 200}), 413, found="bytes")
    assert one(client)["count"] == 1


def test_a_huge_streamed_body_is_refused(make_client):
    async def chunks():
        for _ in range(10):
            yield b" " * 1_000

    client = make_client(settings=ServiceSettings(max_body=2_000))
    answer = client.request("POST", "/v1/score", content=chunks(), headers={"content-type": "application/json"})
    check_error(answer, 413, found="bytes")


@pytest.mark.parametrize(
    ("settings", "path", "body", "found"),
    [
        ({"max_events": 1}, "/v1/events", {"events": [event(), event()]}, "2 events"),
        ({"max_candidates": 1}, "/v1/score", {"user": "u", "items": ["a", "b"]}, "2 candidates"),
        ({"max_candidates": 1}, "/v1/explain", {"user": "u", "items": ["a", "b"]}, "2 candidates"),
        ({"max_explained": 1}, "/v1/explain", {"user": "u", "items": ["a", "b"]}, "2 candidates to explain"),
        ({"max_candidates": 1}, "/v1/score", {"requests": [{"user": "u", "items": ["a"]}] * 2}, "2 candidates"),
        ({"max_users": 1}, "/v1/score", {"requests": [{"user": "u", "items": ["a"]}] * 2}, "2 users"),
    ],
)
def test_too_much_at_once_is_refused_with_the_limit(make_client, settings, path, body, found):
    answer = make_client(settings=ServiceSettings(**settings)).post(path, body)
    check_error(answer, 413, found=found)
    assert answer.json()["error"]["expected"] == "at most 1"


# Keys


# Operations


def test_health_and_readiness(client, artifact):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "artifact": artifact.id, "model": "hpmn"}


def test_a_service_that_stops_is_not_ready(client, app):
    app.state.service.stopping = True
    check_error(client.get("/readyz"), 503, found="stopping")


def test_metrics_are_at_their_address_and_carry_no_ids(client):
    client.post("/v1/events", {"events": [event("a-user", event_id="x"), event("a-user")]})
    one(client, "a-user", ["i1", "never seen"])
    client.get("/v1/users/a-user/memory")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert 'lifelong_events_total{outcome="applied"} 2.0' in answer.text
    assert "lifelong_candidates_total 2.0" in answer.text
    assert "lifelong_unknown_items_total 1.0" in answer.text
    assert 'lifelong_request_seconds_count{method="POST",route="/v1/score"} 1.0' in answer.text
    assert 'route="/v1/users/{user:text}/memory"' in answer.text
    assert "a-user" not in answer.text


def test_two_services_in_one_process_count_apart(make_client):
    first, second = make_client(), make_client()
    one(first)
    assert "lifelong_candidates_total 1.0" in first.get("/metrics").text
    assert "lifelong_candidates_total 0.0" in second.get("/metrics").text


# Pages


def test_the_openapi_document_names_the_item_fields_and_the_key(make_client):
    document = make_client(api_keys=["secret"]).get("/openapi.json").json()
    assert '{"enum": ["category"]}' in json.dumps(document["components"]["schemas"]["EventBody"])
    assert document["paths"]["/v1/score"]["post"]["security"] == [{"key": []}]


def test_the_documentation_lists_every_endpoint(client):
    text = DOCS.read_text()
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path.replace('{user}', '{id}')}`" in text


# Together, and again


def test_events_and_scores_at_the_same_time_lose_nothing(make_client):
    # Not a rush, for however slow a machine.
    client = make_client(settings=ServiceSettings(max_wait=60))

    async def both(http):
        def write(k):
            body = {"events": [event(f"u{k % 3}", f"i{k}", START + k, event_id=str(k))]}
            return http.post("/v1/events", json=body)

        def read(k):
            return http.post("/v1/score", json={"user": f"u{k % 3}", "items": ["i1", "i2"], "time": START})

        return await asyncio.gather(*(call(k) for k in range(60) for call in (write, read)))

    answers = client.run(both)
    assert {answer.status_code for answer in answers} == {200}
    assert [one(client, f"u{k}")["count"] for k in range(3)] == [20, 20, 20]


def test_many_copies_of_one_event_at_once_count_once(client):
    async def copies(http):
        body = {"events": [event(event_id="only")]}
        return await asyncio.gather(*(http.post("/v1/events", json=body) for _ in range(20)))

    replies = [answer.json() for answer in client.run(copies)]
    assert sum(reply["applied"] for reply in replies) == 1
    assert one(client)["count"] == 1


def test_a_closed_and_reopened_store_gives_the_same_answers(durable_client):
    with durable_client() as client:
        client.post("/v1/events", {"events": [event(item=f"i{k}", time=START + k, event_id=str(k)) for k in range(9)]})
        client.put("/v1/items", {"items": [{"item": "new", "fields": {"category": "c2"}}]})
        items = ["i1", "new", "i40", "never-seen"]
        before = one(client, items=items)
        explained = client.post("/v1/explain", {"user": "u1", "items": items, "time": START}).json()
    with durable_client() as client:
        assert one(client, items=items) == before
        assert client.post("/v1/explain", {"user": "u1", "items": items, "time": START}).json() == explained
        again = client.post("/v1/events", {"events": [event(event_id="3")]}).json()
        assert again["duplicates"] == 1


@pytest.mark.parametrize("path", ["/v1/score/", "/healthz/", "/v1/users/u/memory/", "/docs/", "/v1/admin/artifacts/"])
def test_nobody_is_sent_to_another_address(client, path):
    answer = client.request("GET", path, headers={"host": "elsewhere.example"})
    check_error(answer, 404, found="there is no GET")
    assert "location" not in answer.headers
