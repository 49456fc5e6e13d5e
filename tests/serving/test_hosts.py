"""Whose requests are answered: names of the service, pages of other sites, proxies, wrong keys."""

from __future__ import annotations

import asyncio
import json

import pytest

from lifelong.online.serving.guards import HostGate
from lifelong.online.serving.keys import KeyRing, allowed_hosts
from lifelong.online.serving.middleware import KeyGate
from lifelong.online.serving.run import _config
from lifelong.online.serving.settings import ServiceSettings

SCORE = {"user": "u", "items": ["i1"]}


def status(client, method="POST", path="/v1/score", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, path, json=SCORE if method == "POST" else None, headers=named).status_code


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/metrics", "/openapi.json", "/v1/users/u/memory", "/v1/admin/artifacts"]
)
def test_a_page_whose_name_points_here_reads_nothing(make_client, path):
    client = make_client(allowed_hosts=[])
    assert status(client, "GET", path, host="evil.example:8000") == 403
    assert status(client, "GET", path, host="localhost:8000") != 403


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("10.1.2.3:80", 200),
        ("localhost", 200),
        ("LOCALHOST.:8000", 200),
        ("app.localhost", 200),
        ("shop.internal:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("", 403),
    ],
)
def test_names_of_the_service_and_addresses_are_let_in(make_client, host, answer):
    assert status(make_client(allowed_hosts=["shop.internal"]), host=host) == answer


def test_the_refusal_names_the_option(make_client):
    client = make_client(allowed_hosts=[])
    error = client.request("GET", "/metrics", headers={"host": "ranking:8000"}).json()["error"]
    assert (error["type"], "'ranking'" in error["found"]) == ("ForbiddenError", True)
    assert "allowed_hosts" in error["fix"]


def test_of_two_names_both_must_be_ours():
    app, sent = HostGate(None, [], origins=True), []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    asyncio.run(app({"type": "http", "path": "/", "method": "GET", "headers": headers}, None, send))
    assert sent[0]["status"] == 403


@pytest.mark.parametrize(
    ("keys", "path", "origin", "answer"),
    [
        (None, "/v1/score", "http://evil.example", 403),
        (None, "/v1/score", "null", 403),
        (None, "/v1/score", "http://localhost:8000", 200),
        (None, "/v1/score", "http://localhost:9", 403),
        (None, "/v1/score", "https://shop.internal", 200),
        (None, "/v1/admin/artifacts", "http://evil.example", 403),
        (["key"], "/v1/score", "http://evil.example", 200),
        (["key"], "/v1/admin/artifacts", "http://evil.example", 403),
    ],
)
def test_pages_of_other_sites_send_nothing_where_no_key_is_needed_and_nothing_to_the_administration(
    make_client, keys, path, origin, answer
):
    client = make_client(allowed_hosts=["shop.internal"], api_keys=keys, admin_keys=["key"] if keys else None)
    method = "GET" if "admin" in path else "POST"
    assert status(client, method, path, host="localhost:8000", origin=origin, x_api_key="key") == answer


@pytest.mark.parametrize(
    ("host", "names", "keys", "expected"),
    [
        ("127.0.0.1", [], False, []),
        ("localhost", [], False, ["localhost"]),
        ("0.0.0.0", [], False, []),
        ("0.0.0.0", [], True, None),
        ("0.0.0.0", ["a"], True, ["a"]),
        ("shop", ["a"], False, ["shop", "a"]),
    ],
)
def test_with_keys_any_name_is_good_unless_some_are_given(host, names, keys, expected):
    assert allowed_hosts(host, names, keys=keys) == expected


def answer_to(config, headers, client):
    """What the app of a server's configuration sees of a request."""
    config.load()
    seen = {}

    async def run():
        scope = {"type": "http", "headers": headers, "client": client, "scheme": "http", "path": "/", "method": "GET"}
        await config.loaded_app(scope, None, None)

    async def app(scope, receive, send):
        seen.update(scope)

    inner = config.loaded_app
    if hasattr(inner, "trusted_hosts"):
        inner.app = app
    else:
        config.loaded_app = app
    asyncio.run(run())
    return seen["client"][0]


@pytest.mark.parametrize(
    ("trusted", "client", "seen"),
    [
        ((), "127.0.0.1", "127.0.0.1"),
        (("10.0.0.0/8",), "127.0.0.1", "127.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.7", "1.2.3.4"),
        (("127.0.0.1",), "127.0.0.1", "1.2.3.4"),
    ],
)
def test_only_a_named_proxy_says_who_the_client_is(app, monkeypatch, trusted, client, seen):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = _config(app, ServiceSettings(trusted_proxies=trusted))
    assert answer_to(config, [(b"x-forwarded-for", b"1.2.3.4")], (client, 1)) == seen


def test_a_proxy_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="'proxy' does not appear to be an IPv4 or IPv6 network"):
        ServiceSettings(trusted_proxies=("10.0.0.1", "proxy"))


def test_several_processes_together_allow_no_caller_more_than_one(make_client):
    workers = [make_client(settings=ServiceSettings(rate=0.04).of_one(4)) for _ in range(4)]
    statuses = [status(worker) for worker in workers for _ in range(3)]
    assert (statuses.count(200), statuses.count(429)) == (4, 8)


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def knock(gate, key, client="1.1.1.1"):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"x-api-key", key.encode())] if key else []
    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": headers, "client": (client, 1)}
    asyncio.run(gate(scope, None, send))
    return sent


def test_who_guesses_keys_is_slowed_down_and_nobody_else_is():
    gate = KeyGate(inner, KeyRing(["right"]))
    assert knock(gate, "right")[0]["status"] == 200
    statuses = [knock(gate, f"guess {number}")[0]["status"] for number in range(30)]
    assert (statuses[:20], set(statuses[21:])) == ([401] * 20, {429})
    refused = knock(gate, "another guess")
    assert json.loads(refused[1]["body"])["error"]["type"] == "TooManyError"
    assert int(dict(refused[0]["headers"])[b"retry-after"]) >= 1
    # Not even the right key is a way to find out, unless this address had it before.
    assert knock(KeyGate(inner, KeyRing(["right"])), "right", client="2.2.2.2")[0]["status"] == 200
    assert knock(gate, "right")[0]["status"] == 200
    assert knock(gate, "right", client="2.2.2.2")[0]["status"] == 200


def test_a_right_key_is_no_way_out_for_who_has_guessed_too_often():
    gate = KeyGate(inner, KeyRing(["right"]))
    for number in range(25):
        knock(gate, f"guess {number}")
    assert knock(gate, "right")[0]["status"] == 429


def test_a_request_without_a_key_is_no_guess():
    gate = KeyGate(inner, KeyRing(["right"]))
    assert {knock(gate, "")[0]["status"] for _ in range(50)} == {401}
    assert knock(gate, "right")[0]["status"] == 200
