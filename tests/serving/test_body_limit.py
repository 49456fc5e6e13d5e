"""What surrounds every request."""

from __future__ import annotations

import asyncio

import pytest
from starlette.exceptions import HTTPException

from lifelong.online.serving.keys import KeyRing
from lifelong.online.serving.middleware import BodyLimit, KeyGate


def http(path, headers=()):
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers)}


def status_of(app, scope, chunks=()):
    """Status of the answer, and how many bytes the inner app or the middleware took."""
    sent, left = [], list(chunks)

    async def receive():
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], len(left)


async def inner(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([(b"x-api-key", b"wrong")], 401),
        ([(b"x-api-key", b"secret")], 200),
        ([(b"authorization", b"Bearer other")], 200),
        ([(b"authorization", b"Bearer ")], 401),
        ([(b"x-api-key", "grün".encode())], 401),
    ],
)
def test_only_a_key_opens_the_api(headers, status):
    assert status_of(KeyGate(inner, KeyRing(["secret", "other"])), http("/v1/score", headers))[0] == status


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/metrics"])
def test_pages_and_probes_stay_open(path):
    assert status_of(KeyGate(inner, KeyRing(["secret"])), http(path))[0] == 200


def test_a_body_at_the_limit_passes():
    assert status_of(BodyLimit(inner, 10), http("/", [(b"content-length", b"10")]), [b"x" * 10])[0] == 200


def test_a_body_that_says_to_be_larger_is_refused_and_read_to_its_end():
    scope = http("/", [(b"content-length", b"12")])
    assert status_of(BodyLimit(inner, 10), scope, [b"x" * 6, b"x" * 6]) == (413, 0)


def test_a_body_that_turns_out_larger_is_refused_and_read_to_its_end():
    async def refused(scope, receive, send):
        with pytest.raises(HTTPException) as error:
            await inner(scope, receive, send)
        await send({"type": "http.response.start", "status": error.value.status_code, "headers": []})

    assert status_of(BodyLimit(refused, 10), http("/"), [b"x" * 6] * 4) == (413, 0)


def test_large_bodies_together_have_a_limit_and_small_ones_pass():
    async def run():
        started, go_on = asyncio.Event(), asyncio.Event()

        async def waiting(scope, receive, send):
            await inner_reads(receive)
            started.set()
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        limit = BodyLimit(waiting, 100_000, together=150_000)

        async def post(size):
            sent, left = [], [size]

            async def receive():
                return {"type": "http.request", "body": b"x" * left.pop(), "more_body": False}

            async def send(message):
                sent.append(message["status"])

            try:
                await limit(http("/v1/events"), receive, send)
            except HTTPException as error:
                sent.append(error.status_code)
            return sent[0]

        first = asyncio.create_task(post(90_000))
        await started.wait()
        assert await post(90_000) == 503
        small = asyncio.create_task(post(1_000))
        go_on.set()
        assert [await first, await small] == [200, 200]
        # All of it was given back.
        assert await post(90_000) == 200

    asyncio.run(run())


async def inner_reads(receive):
    while (await receive()).get("more_body"):
        pass
