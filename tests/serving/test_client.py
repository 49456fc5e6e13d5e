"""The client of a service: what it sends, when it sends it again, and what its errors say."""

import asyncio
import contextlib
import http.server
import json
import re
import threading
from pathlib import Path

import httpx
import pytest
from support.shop_service import served

from lifelong import client as clients
from lifelong.client import AsyncClient, Client
from lifelong.errors import LifelongError, RequestError, UsageError
from lifelong.online.memory.event import UserEvent
from lifelong.online.scoring.answer import ScoreRequest

ROOT = Path(__file__).parents[2]
START = 1_700_000_000
REQUEST = ScoreRequest("u", ["i1", "i2"], time=START + 9)
COUNTS = dict.fromkeys(["applied", "duplicates", "late", "refused", "no_dedup", "unknown_types", "backfilled"], 0)


def events(number, user="u", **more):
    return [UserEvent(user, "i1", START + place, **more) for place in range(number)]


@pytest.fixture
def address(app):
    with served(app) as found:
        yield found


@pytest.fixture
def slept(monkeypatch):
    """Seconds that the client waits; the clock passes them at once."""
    waits, now = [], [0.0]

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(clients.clock, "sleep", sleep)
    monkeypatch.setattr(clients.clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(clients.random, "uniform", lambda low, high: low)
    return waits


class Answers:
    """A service that gives fixed answers, the last one for ever; keeps what it was sent."""

    def __init__(self, *answers):
        self.answers, self.bodies, self.requests = list(answers), [], []

    def __call__(self, request):
        self.requests.append(request)
        self.bodies.append(request.content)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer) if isinstance(answer, int) else answer

    def client(self, **settings):
        return Client("http://service", transport=httpx.MockTransport(self), **settings)


def counted(**more):
    return httpx.Response(200, json={**COUNTS, "note": None, **more})


def refused(status, found="the queue is full", **headers):
    parts = {"type": "OverloadedError", "found": found, "expected": "less", "fix": "wait"}
    return httpx.Response(status, json={"error": parts}, headers=headers)


def test_every_method_of_a_running_service(address):
    with Client(address) as client:
        assert client.health().status == "ready"
        assert client.events(events(3)).applied == 3
        answer = client.score(REQUEST)
        assert (answer.count, answer.known_user, [one.item for one in answer.scores]) == (3, True, ["i1", "i2"])
        explained = client.explain(REQUEST)
        assert [one.item for one in explained.candidates] == ["i1", "i2"]
        top = client.top("u", limit=4, time=START + 9).items
        in_list = client.score(ScoreRequest("u", [one.item for one in top], START + 9, for_list=True)).scores
        added = [one.score + (one.popularity or 0) + (one.from_counts or 0) for one in top]
        assert [one.in_list for one in in_list] == pytest.approx(added) and len(top) == 4
        history = client.history("u", limit=2)
        assert (history.count, history.position) == (3, [2, 3])
        assert client.forget("u").erased and not client.forget("u").erased
        assert not client.score(REQUEST).known_user


def test_the_asynchronous_client_answers_alike(address):
    async def run():
        async with AsyncClient(address) as client:
            assert (await client.health()).status == "ready"
            assert (await client.events(events(3))).applied == 3
            answers = await asyncio.gather(*(client.score(REQUEST) for _ in range(3)))
            assert (await client.explain(REQUEST)).candidates[1].item == "i2"
            assert len((await client.top("u", limit=4)).items) == 4
            assert (await client.history("u")).position == [1, 2, 3]
            assert (await client.forget("u")).erased
            return answers

    with Client(address) as client:
        for answer in asyncio.run(run()):
            assert answer.count == 3
        client.events(events(3))
        assert client.score(REQUEST) == answer


def test_a_request_with_fields_and_a_profile_is_taken(address):
    with Client(address) as client:
        request = ScoreRequest("u", ["i1", "new"], fields=[None, {}], time=START)
        assert [one.known_item for one in client.score(request).scores] == [True, False]
        with pytest.raises(RequestError, match="nothing_such"):
            client.score(ScoreRequest("u", ["new"], fields=[{"nothing_such": "x"}]))
        with pytest.raises(UsageError, match="fields of 2 items, and 1 items"):
            client.score(ScoreRequest("u", ["i1"], fields=[{}, {}]))


@pytest.mark.parametrize("user", [".", "..", "a/../b", "a/b c?d#e", "ü%2F"])
def test_any_text_is_the_id_of_a_user_in_an_address(address, user):
    with Client(address) as client:
        client.events(events(2, user))
        assert client.history(user).count == 2
        assert (client.forget(user).user, client.history(user).count) == (user, 0)


class Unsteady:
    """An app that answers 503 a number of times before it passes requests on, or loses answers after that."""

    def __init__(self, app, *, before=0, lost=0):
        self.app, self.before, self.lost = app, before, lost

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and self.before:
            self.before -= 1
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "http" and self.lost:
            self.lost -= 1

            async def dropped(message):
                if message["type"] == "http.response.start":
                    raise RuntimeError("the connection breaks")

            with contextlib.suppress(RuntimeError):
                await self.app(scope, receive, dropped)
            await send({"type": "http.response.start", "status": 504, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, send)


def test_events_that_were_answered_503_twice_are_applied_once(app):
    with served(Unsteady(app, before=2)) as address, Client(address) as client:
        reply = client.events(events(3))
        assert (reply.applied, reply.duplicates, reply.no_dedup) == (3, 0, 0)
        assert client.score(REQUEST).count == 3


def test_events_whose_answer_was_lost_are_sent_again_and_applied_once(app):
    with served(Unsteady(app, lost=1)) as address, Client(address) as client:
        reply = client.events(events(3))
        assert (reply.applied, reply.duplicates) == (0, 3)
        assert client.score(REQUEST).count == 3


def test_the_asynchronous_client_sends_again_too(app):
    async def run(address):
        async with AsyncClient(address) as client:
            return await client.events(events(3))

    with served(Unsteady(app, before=2)) as address:
        assert asyncio.run(run(address)).applied == 3


def test_an_attempt_repeats_every_byte(slept):
    service = Answers(503, httpx.ConnectError("refused"), httpx.ReadTimeout("late"), 429, 502, 504, counted())
    with service.client() as client:
        client.events(events(2))
    assert len(service.bodies) == 7 and len(set(service.bodies)) == 1
    ids = [event["event_id"] for event in json.loads(service.bodies[0])["events"]]
    assert len(set(ids)) == 2 and all(ids)


def test_an_id_of_ones_own_is_kept(slept):
    service = Answers(counted())
    with service.client() as client:
        client.events(events(1, event_id="order-1", event_type="buy"))
    row = {"user": "u", "item": "i1", "time": START, "event_type": "buy", "event_id": "order-1"}
    assert json.loads(service.bodies[0]) == {"events": [row]}


def test_events_go_in_batches_and_the_outcomes_are_added(slept):
    service = Answers(counted(applied=2, note="a"), counted(applied=1, late=1, note="b"), counted(applied=1, note="a"))
    with service.client(batch=2) as client:
        reply = client.events(events(5))
        assert [len(json.loads(body)["events"]) for body in service.bodies] == [2, 2, 1]
        assert (reply.applied, reply.late, reply.note) == (4, 1, "a; b")
        assert client.events([]).applied == 0
    assert len(service.bodies) == 3


def test_it_waits_as_long_as_the_service_asks_for_and_otherwise_longer_each_time(slept):
    service = Answers(503, 503, refused(503, **{"retry-after": "7"}), 503, counted())
    with service.client() as client:
        client.events(events(1))
    assert slept == pytest.approx([0, 0.1, 0.2, 7, 0.8])


def test_a_date_to_wait_for_is_not_waited_for(slept):
    service = Answers(refused(503, **{"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}), counted())
    with service.client() as client:
        assert client.events(events(1)).applied == 0
    assert max(slept) < 1


@pytest.mark.parametrize("answer", [refused(503), httpx.ConnectError("refused")], ids=["503", "no connection"])
def test_patience_ends(slept, answer):
    service = Answers(answer)
    with service.client(patience=20) as client, pytest.raises(LifelongError, match=r"attempts\).*(queue|refused)"):
        client.events(events(1))
    assert sum(slept) < 20 and len(service.bodies) > 5


def test_no_attempt_takes_longer_than_the_patience_that_is_left(slept):
    service = Answers(503, 503, counted())
    with service.client(patience=0.35, timeout=5) as client:
        client.events(events(1))
    assert [one.extensions["timeout"]["read"] for one in service.requests] == pytest.approx([0.35, 0.25, 0.05])


def test_a_wait_beyond_the_patience_is_not_begun(slept):
    service = Answers(refused(429, **{"retry-after": "60"}))
    with service.client() as client, pytest.raises(LifelongError, match="the queue is full") as raised:
        client.score(REQUEST)
    assert slept == [0] and (raised.value.expected, raised.value.fix) == ("less", "wait")


def test_what_is_refused_is_not_sent_again(slept):
    service = Answers(refused(422, "a user without a name"))
    with service.client() as client, pytest.raises(RequestError, match="http://service: a user without a name"):
        client.score(REQUEST)
    assert len(service.bodies) == 1


def test_health_is_asked_once(slept):
    service = Answers(refused(503, "the store is away"))
    with service.client() as client, pytest.raises(LifelongError, match="the store is away"):
        client.health()
    assert len(service.bodies) == 1


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json={"a": 1}), httpx.Response(404, text="no")]
)
def test_what_is_no_answer_of_the_service_is_named(slept, answer):
    with Answers(answer).client() as client, pytest.raises(LifelongError, match="another program or a proxy") as raised:
        client.score(REQUEST)
    assert str(answer.status_code) in raised.value.found


def test_what_a_later_release_says_more_is_left_out(slept):
    with Answers(counted(applied=1, something_new=3)).client() as client:
        assert client.events(events(1)).applied == 1


def test_a_key_is_sent_and_a_missing_one_is_an_error(app, tmp_path, make_client):
    service = Answers(counted())
    with service.client(key="s3cret") as client:
        client.events(events(1))
    assert service.requests[0].headers["x-api-key"] == "s3cret"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"address": "127.0.0.1:8000"}, "127.0.0.1:8000"),
        ({"address": 5}, "5 is not an address"),
        ({"address": "http://service:port"}, "httpx refuses.*'port'"),
        ({"patience": 0}, "patience = 0"),
        ({"patience": "1m"}, "patience = '1m'"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 1.5}, "batch = 1.5.*whole number"),
        ({"timeout": -1}, "timeout = -1"),
        ({"timeout": None}, "timeout = None"),
        ({"key": 5}, "a key that no header can carry"),
        ({"retries": 5}, "httpx refuses.*'retries'"),
    ],
)
def test_wrong_settings_are_refused(given, found):
    with pytest.raises(UsageError, match=found) as caught:
        Client(**{"address": "http://service", **given})
    assert caught.value.expected and caught.value.fix


@pytest.mark.parametrize("key", ["s3cret\n", "s3crät"])
def test_a_key_that_cannot_be_sent_is_refused_at_once_and_not_shown(key):
    with pytest.raises(UsageError, match="a key that no header can carry") as caught:
        Client("http://service", key=key)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda client: client.events("x"), "events = 'x'.*a list of UserEvent"),
        (lambda client: client.events([{"user": "u"}]), "a list of UserEvent"),
        (lambda client: client.events(UserEvent("u", "i", 5)), "a list of UserEvent"),
        (lambda client: client.events(None), "a list of UserEvent"),
        (lambda client: client.score("u"), "of type str.*a ScoreRequest"),
        (lambda client: client.explain({"user": "u"}), "of type dict.*a ScoreRequest"),
        (lambda client: client.score(ScoreRequest("u", [5])), "the item 5"),
        (lambda client: client.top(5), "user is 5"),
        (lambda client: client.top("u", time="soon"), "time = 'soon'"),
        (lambda client: client.history(None), "user is None"),
        (lambda client: client.forget(""), "user is ''"),
        (lambda client: client.history("\ud800"), "user is"),
        (lambda client: (client.close(), client.health()), "the client is closed"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(call, found):
    service = Answers(counted())
    with service.client() as client, pytest.raises(UsageError, match=found):
        call(client)
    assert not service.requests


def test_the_example_of_the_page_runs(address, capsys):
    (code,) = re.findall(r"```py\n(from lifelong\.client.*?)```", (ROOT / "docs/serving.md").read_text(), re.DOTALL)
    exec(compile(code.replace("http://127.0.0.1:8000", address), "serving.md", "exec"), {})
    assert "i7" in capsys.readouterr().out


def test_a_server_that_ends_a_connection_is_asked_again():
    class Handler(http.server.BaseHTTPRequestHandler):
        seen = 0

        def do_POST(self):
            Handler.seen += 1
            self.rfile.read(int(self.headers["content-length"]))
            if Handler.seen == 1:
                self.close_connection = True
                return
            body = counted(applied=1).content
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            assert (client.events(events(1)).applied, Handler.seen) == (1, 2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
