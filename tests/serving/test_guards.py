"""Keys with scopes, deadlines, lines of the log."""

import asyncio
import io
import json
import logging
import sys
import threading
import warnings

import pytest

from lifelong.errors import UsageError
from lifelong.online.serving.keys import KeyFile, KeyRing, check_exposure, hashed, read_keys, scope_of
from lifelong.online.serving.logs import JsonLines, access, log_as
from lifelong.online.serving.middleware import Deadline
from lifelong.online.serving.settings import ServiceSettings

EVENTS = {"events": [{"user": "u-secret", "item": "i1", "time": 5}]}
SCORE = {"user": "u-secret", "items": ["i1"]}


def test_keys_are_read_with_their_scopes(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# who may\n\none\ntwo score\nthree events, score\ntwo admin\n")
    found = read_keys(path)
    assert found["one"] == {"events", "score", "users"}
    assert found["two"] == {"score", "admin"}
    assert found["three"] == {"events", "score"}


@pytest.mark.parametrize("text", ["", "# one\n\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match="no API key"):
        read_keys(tmp_path / "keys")


def test_a_file_of_keys_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(UsageError, match="cannot read the API keys"):
        read_keys(tmp_path / "none")


def test_a_scope_that_there_is_not_is_named_and_the_key_is_not(tmp_path):
    (tmp_path / "keys").write_text("hidden\nhidden2 scores\n")
    with pytest.raises(UsageError, match="line 2: there is no scope 'scores'") as caught:
        read_keys(tmp_path / "keys")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/events", "events"),
        ("/v1/items", "events"),
        ("/v1/items/i1", "events"),
        ("/v1/score", "score"),
        ("/v1/explain", "score"),
        ("/v1/model", "score"),
        ("/v1/catalogue", "score"),
        ("/v1/users", "users"),
        ("/v1/users/x/memory", "users"),
        ("/v1/users/x/history", "users"),
        ("/v1/users/x/cells", "users"),
        ("/v1/users/x/top", "score"),
        ("/v1/admin/artifacts", "admin"),
        ("/v1/anything", "admin"),
        ("/metrics", None),
        ("/healthz", None),
    ],
)
def test_each_address_has_a_scope_and_a_new_one_is_for_admins(path, scope):
    assert scope_of(path) == scope


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host):
    check_exposure(host, keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "service.example"])
def test_other_machines_are_let_in_with_keys_only_or_on_purpose(host):
    with pytest.raises(UsageError, match="api-key-file"):
        check_exposure(host, keys=False)
    check_exposure(host, keys=True)
    check_exposure(host, keys=False, open_to_all=True)


def test_a_key_opens_its_scopes_and_no_other(make_client):
    keys = {"writer": frozenset({"events"}), "reader": frozenset({"score"}), "owner": frozenset({"admin"})}
    keys["keeper"] = frozenset({"users"})
    client = make_client(api_keys=keys)

    def status(method, path, key, body=None):
        return client.request(method, path, json=body, headers={"X-API-Key": key} if key else {}).status_code

    calls = [("POST", "/v1/events", EVENTS), ("POST", "/v1/score", SCORE), ("GET", "/v1/users/u-secret/memory", None)]
    calls.append(("GET", "/v1/admin/artifacts", None))
    found = {key: [status(method, path, key, body) for method, path, body in calls] for key in (*keys, "wrong", "")}
    assert found == {
        "writer": [200, 403, 403, 403],
        "reader": [403, 200, 403, 403],
        "owner": [200, 200, 200, 200],
        "keeper": [403, 403, 200, 403],
        "wrong": [401] * 4,
        "": [401] * 4,
    }
    answer = client.request("POST", "/v1/score", json=SCORE, headers={"X-API-Key": "writer"}).json()["error"]
    assert (answer["type"], answer["expected"]) == ("ForbiddenError", "a key with the scope score")


def test_a_key_is_known_by_its_hash_and_the_hash_itself_opens_nothing(tmp_path):
    secret, listed = "kéy-of-the-shop", hashed("kéy-of-the-shop")
    path = tmp_path / "keys"
    path.write_text(f"{listed} score\nplain events\n")
    ring = KeyRing(KeyFile(path))
    # Headers are decoded as latin-1.
    assert ring.scopes(secret.encode().decode("latin-1")) == {"score"}
    assert ring.scopes("plain") == {"events"}
    assert ring.scopes(listed) is None
    assert ring.scopes(hashed("plain")) is None


def test_a_changed_file_of_keys_counts_without_a_restart_and_a_broken_one_does_not(tmp_path, caplog):
    second, path = [0.0], tmp_path / "keys"
    path.write_text("old score\n")
    ring = KeyRing(KeyFile(path, now=lambda: second[0]))
    assert ring.scopes("old") == {"score"}
    path.write_text("old score\nnew events\n")
    second[0] = 2.0
    assert (ring.scopes("old"), ring.scopes("new")) == ({"score"}, {"events"})
    path.write_text("new nonsense\n")
    second[0] = 4.0
    assert (ring.scopes("old"), ring.scopes("new")) == ({"score"}, {"events"})
    assert "there is no scope 'nonsense'" in caplog.text
    path.write_text("new score\n")
    second[0] = 6.0
    assert (ring.scopes("old"), ring.scopes("new")) == (None, {"score"})


def test_a_service_takes_a_new_key_and_drops_an_old_one_while_it_runs(make_client, tmp_path):
    second, path = [0.0], tmp_path / "keys"
    path.write_text("old score\n")
    client = make_client(api_keys=KeyFile(path, now=lambda: second[0]))

    def status(key):
        return client.request("POST", "/v1/score", json=SCORE, headers={"X-API-Key": key}).status_code

    assert [status(key) for key in ("old", "new")] == [200, 401]
    path.write_text(f"{hashed('new')} score\n")
    second[0] = 2.0
    assert [status(key) for key in ("old", "new")] == [401, 200]


def call(app):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": []}
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_request_that_takes_too_long_ends_with_504():
    async def slow(scope, receive, send):
        await asyncio.sleep(30)

    sent = call(Deadline(slow, 0.02))
    assert sent[0]["status"] == 504
    assert json.loads(sent[1]["body"])["error"]["type"] == "DeadlineError"


def test_an_answer_that_is_under_way_is_not_cut_off():
    async def long_answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"whole"})

    assert call(Deadline(long_answer, 0.02))[-1]["body"] == b"whole"


def test_a_body_that_never_ends_is_not_waited_for(make_client):
    client = make_client(settings=ServiceSettings(timeout=0.1))

    async def endless():
        yield b'{"user":'
        await asyncio.sleep(30)

    head = {"content-type": "application/json"}
    answer = client.run(lambda http: http.post("/v1/score", content=endless(), headers=head))
    assert answer.status_code == 504


@pytest.fixture
def log_lines():
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    hooks = sys.excepthook, threading.excepthook
    stream = io.StringIO()
    log_as("json", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    access.setLevel(logging.NOTSET)


@pytest.mark.parametrize("named", [False, True])
def test_the_log_has_a_line_for_each_request_and_names_users_only_if_asked(make_client, log_lines, named):
    client = make_client(settings=ServiceSettings(log_users=named))
    client.post("/v1/events", EVENTS)
    client.get("/v1/users/u-secret/memory")
    client.get("/v1/users/u-unknown/memory")
    lines = [line for line in log_lines() if line["logger"] == "lifelong.access"]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/events", 200),
        ("/v1/users/{user:text}/memory", 200),
        ("/v1/users/{user:text}/memory", 404),
    ]
    assert ("u-secret" in json.dumps(lines)) == named


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", [f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-stranger", f"00-{TRACE}\n", "ann"])
def test_of_the_headers_a_line_of_the_log_has_the_trace_alone_and_only_if_it_is_one(make_client, log_lines, given):
    strange = {"traceparent": given.strip(), "tracestate": "ann=1", "baggage": "user=ann,,=;", "user-agent": "ann"}
    make_client().request("GET", "/v1/model", headers=strange)
    (line,) = log_lines()
    assert line.pop("trace", None) == (TRACE if given.endswith("-01") else None)
    assert set(line) == {"time", "level", "logger", "message", "method", "route", "status", "milliseconds"}
    assert "ann" not in json.dumps(line) and TRACE not in json.dumps(line)


def test_a_fault_of_the_service_is_logged_without_the_user_and_told_without_a_trace(
    make_client, log_lines, monkeypatch
):
    client = make_client()
    monkeypatch.setattr(client.app.state.service.store, "read_many", lambda *_, **__: 1 / 0)
    answer = client.get("/v1/users/u-secret/memory")
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "division" not in answer.text
    faults = [line for line in log_lines() if line["level"] == "error"]
    assert "ZeroDivisionError" in faults[0]["traceback"]
    assert "u-secret" not in json.dumps(faults)


def test_warnings_and_errors_that_nobody_caught_are_lines_of_the_log_too(log_lines):
    def fail():
        raise ZeroDivisionError("in a thread")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ZeroDivisionError:
        sys.excepthook(*sys.exc_info())
    warned, *failed = log_lines()
    assert (warned["logger"], "old\nways" in warned["message"]) == ("py.warnings", True)
    assert [("in a thread" in line["traceback"], line["level"]) for line in failed] == [(True, "critical")] * 2


def test_a_line_of_the_log_is_one_object_whatever_it_says():
    record = logging.LogRecord("name", logging.INFO, "file", 1, "two\nlines %s", ("ü",), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines ü"
