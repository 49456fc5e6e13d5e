"""The load generator of the benchmarks."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

# At the end: names of benchmarks are those of modules of the standard library, too.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from load import percentile, run, summary

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def ask(answer, *, stall=0.0, **options):
    """Load of a server that stalls at its first request, and the bodies that it got."""
    got = []

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
            got.append(await reader.readexactly(int(length.split()[1])))
            await asyncio.sleep(stall if len(got) == 1 else 0)
            writer.write(answer)

    handlers = []

    async def quiet(reader, writer):
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def inside():
        server = await asyncio.start_server(quiet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url, more = f"http://127.0.0.1:{port}/v1/score", {"seconds": 0.4, "warm_up": 0.0, **options}
        found = await asyncio.to_thread(run, url, [b"{}", b"[1]"], **more)
        server.close()
        await asyncio.gather(*handlers)
        return found

    return asyncio.run(inside()), got


def test_bodies_are_sent_in_turn_and_answers_counted():
    load, got = ask(ANSWER, rate=50)
    assert (load.failed, load.requests) == (0, len(got))
    assert got[:4] == [b"{}", b"[1]", b"{}", b"[1]"]
    assert 0 < load.p50_ms <= load.p95_ms <= load.p99_ms <= load.max_ms


def test_another_status_is_a_failure_and_no_latency():
    load, got = ask(REFUSAL, rate=50)
    assert load.failed == load.requests == len(got)
    assert load.p50_ms != load.p50_ms


def test_requests_that_were_due_while_the_service_stalled_have_waited():
    load, _ = ask(ANSWER, stall=1.0, rate=50, connections=1)
    # All were due in the first 0.4 seconds and answered after the first second.
    assert load.p50_ms > 500


@pytest.mark.parametrize("connections", [1, 2])
def test_a_closed_loop_sends_no_more_than_its_connections_and_ends(connections):
    load, got = ask(ANSWER, rate=0, connections=connections)
    assert (load.failed, load.requests) == (0, len(got))


def test_a_service_that_is_not_there_fails_every_request():
    found = run("http://127.0.0.1:9/x", [b"{}"], rate=50, seconds=0.2, warm_up=0.0)
    assert found.failed == found.requests > 0


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_percentiles_are_values_that_were_measured(share, value):
    assert percentile([1, 2, 3, 4], share) == value


def test_a_summary_without_answers_has_no_percentiles():
    load = summary([], 3, 1.0)
    assert (load.requests, load.failed, load.rate) == (3, 3, 0.0)


def test_a_connection_that_the_service_ends_fails_one_request_and_is_opened_again():
    load, got = ask(b"HTTP/1.1 200 OK\r\n\r\n", rate=50)
    assert load.failed == load.requests == len(got) > 2
