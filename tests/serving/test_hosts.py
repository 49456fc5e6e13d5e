"""Whose requests are answered: names of the service, pages of other sites."""

from __future__ import annotations

import asyncio

import pytest

from lifelong.online.serving.keys import allowed_hosts
from lifelong.online.serving.middleware import HostGate

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
        ({"key": frozenset({"admin"})}, "/v1/score", "http://evil.example", 200),
        ({"key": frozenset({"admin"})}, "/v1/admin/artifacts", "http://evil.example", 403),
    ],
)
def test_pages_of_other_sites_send_nothing_where_no_key_is_needed_and_nothing_to_the_administration(
    make_client, keys, path, origin, answer
):
    client = make_client(allowed_hosts=["shop.internal"], api_keys=keys)
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
