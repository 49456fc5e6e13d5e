"""More requests than can be served: bounded queues, refusals at once, one commit for all events that wait."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from itertools import count

import pytest
import uvicorn

from lifelong.errors import StoreUnavailableError
from lifelong.online.memory.updater import Updater
from lifelong.online.serving.connections import _plain_path
from lifelong.online.serving.errors import OverloadedError
from lifelong.online.serving.queues import FEW, FEW_EVENTS, Queue, Reads, Writes
from lifelong.online.serving.run import _config, listen
from lifelong.online.serving.rush import Rush, Shed
from lifelong.online.serving.settings import ServiceSettings

START = 1_700_000_000


def row(user="u", number=0, **more):
    return {"user": user, "item": "i1", "time": START + number, **more}


class Held:
    """Makes the first commit of a store wait, so that what comes meanwhile has to."""

    def __init__(self, store, monkeypatch):
        self.begun, self.go_on, self.changes = threading.Event(), threading.Event(), []
        commit = store.commit

        def held(change):
            self.changes.append(change)
            self.begun.set()
            assert self.go_on.wait(30)
            commit(change)

        monkeypatch.setattr(store, "commit", held)

    async def wait(self):
        await asyncio.to_thread(self.begun.wait, 30)

    async def first(self, writes):
        """A request whose commit waits."""
        task = asyncio.create_task(writes.fold([row("a")]))
        await self.wait()
        return task


@pytest.fixture
def writes(artifact, store):
    made = Writes(Updater(artifact, store), most_events=100, most=50, patience=30.0)
    yield made
    made.close()


def test_events_that_wait_are_written_with_one_commit_and_each_request_has_its_own_outcome(writes, store, monkeypatch):
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        others = [
            asyncio.create_task(writes.fold(rows))
            for rows in ([row("u", 5), row("v")], [row("u", 3, event_id="x")], [row("u", 9, event_id="x")])
        ]
        await asyncio.sleep(0)
        assert len(writes) == 3
        held.go_on.set()
        return await first, *await asyncio.gather(*others)

    outcomes = asyncio.run(run())
    assert len(held.changes) == 2
    assert [one.applied for one in outcomes] == [1, 2, 1, 0]
    assert [one.late for one in outcomes] == [0, 0, 1, 0]
    assert [one.duplicates for one in outcomes] == [0, 0, 0, 1]
    assert [one.no_dedup for one in outcomes] == [1, 2, 0, 0]
    assert len(store.events("u")) == 2


def test_the_order_of_a_users_events_is_that_in_which_their_requests_came(writes, store, monkeypatch):
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        others = [asyncio.create_task(writes.fold([row("u") | {"item": f"i{number}"}])) for number in range(20)]
        await asyncio.sleep(0)
        held.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert [event.split(b",")[0] for event in store.events("u")] == [b'["i%d"' % number for number in range(20)]


def test_no_answer_comes_before_the_commit_that_holds_its_events(writes, store, monkeypatch):
    held = Held(store, monkeypatch)

    async def run():
        task = asyncio.create_task(writes.fold([row()]))
        await held.wait()
        await asyncio.sleep(0.1)
        assert not task.done()
        held.go_on.set()
        assert (await task).applied == 1

    asyncio.run(run())


@pytest.mark.parametrize("wrong", [0, 1, 4])
def test_a_request_that_cannot_be_folded_in_costs_the_others_nothing(writes, store, monkeypatch, wrong):
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        rows = [[row(f"u{number}")] for number in range(5)]
        rows[wrong][0]["fields"] = {"colour": "red"}
        others = [asyncio.create_task(writes.fold(one)) for one in rows]
        await asyncio.sleep(0)
        held.go_on.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    outcomes = asyncio.run(run())
    assert "colour" in str(outcomes.pop(wrong))
    assert [one.applied for one in outcomes] == [1] * 4
    known = [record is not None for record in store.read_many([f"u{number}" for number in range(5)])]
    assert known == [number != wrong for number in range(5)]


def test_a_commit_that_fails_is_told_to_every_request_in_it(writes, store, monkeypatch):
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        others = [asyncio.create_task(writes.fold([row(f"u{number}")])) for number in range(3)]
        await asyncio.sleep(0)

        def fail(_):
            raise StoreUnavailableError("the disk is full")

        monkeypatch.setattr(store, "commit", fail)
        held.go_on.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    assert [type(one) for one in asyncio.run(run())] == [StoreUnavailableError] * 3


def test_one_commit_takes_what_can_be_folded_in_soon(artifact, store, monkeypatch):
    writes = Writes(Updater(artifact, store), most_events=10_000, most=50, patience=30.0)
    held = Held(store, monkeypatch)

    async def run():
        first = asyncio.create_task(writes.fold([row("a")] * 200))
        await held.wait()
        others = [asyncio.create_task(writes.fold([row(f"u{number}")] * 150)) for number in range(3)]
        # An event took a hundredth of a second or more.
        await asyncio.sleep(2.0)
        held.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    writes.close()
    assert [len(change.events) for change in held.changes][:2] == [200, 150]


def test_one_commit_takes_no_more_events_than_one_request_may_have(writes, store, monkeypatch):
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        others = [asyncio.create_task(writes.fold([row(f"u{number}")] * 60)) for number in range(3)]
        await asyncio.sleep(0)
        held.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert [len(change.events) for change in held.changes] == [1, 60, 60, 60]


@pytest.mark.parametrize(("events", "refused"), [(1, False), (100, True)])
def test_how_long_events_may_wait_depends_on_how_many_there_are(artifact, store, monkeypatch, events, refused):
    second = [0.0]
    writes = Writes(Updater(artifact, store), most_events=10_000, most=100, patience=0.5, now=lambda: second[0])
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        others = [asyncio.create_task(writes.fold([row(f"u{number}")] * events)) for number in range(20)]
        await asyncio.sleep(0)
        second[0] = 0.6
        assert writes.full == refused
        # However slow the first commit was.
        writes._event_seconds = 0.0
        held.go_on.set()
        await first
        outcomes = await asyncio.gather(*others, return_exceptions=True)
        # The last 900 events cost nobody anything.
        assert [isinstance(one, OverloadedError) for one in outcomes] == [refused] * 11 + [False] * 9

    asyncio.run(run())
    writes.close()


def make_queue(**options):
    second, shed = [0.0], []
    queue = Queue(1, "test", on_shed=lambda: shed.append(1), now=lambda: second[0], **options)
    return queue, second, shed


async def occupied(queue, go_on):
    """A work that keeps the thread of a queue until an event is set."""
    begun = threading.Event()
    task = asyncio.create_task(queue.run(lambda: (begun.set(), go_on.wait(30))))
    await asyncio.to_thread(begun.wait, 30)
    return task


def test_a_queue_that_is_full_refuses_at_once_and_has_room_again_when_it_is_empty():
    queue, _, shed = make_queue(most=2, patience=10.0)
    go_on = threading.Event()

    async def run():
        first = await occupied(queue, go_on)
        waiting = [asyncio.create_task(queue.run(lambda: 1)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (len(queue), queue.full) == (2, True)
        with pytest.raises(OverloadedError, match="2 requests wait"):
            await queue.run(lambda: 1)
        go_on.set()
        await first
        assert await asyncio.gather(*waiting) == [1, 1]
        assert (len(queue), await queue.run(lambda: 2)) == (0, 2)

    asyncio.run(run())
    assert shed == [1]
    queue.close()


def test_what_has_waited_too_long_is_not_computed_and_nobody_is_let_in_behind_it():
    queue, second, shed = make_queue(most=100, patience=0.5)
    go_on, done = threading.Event(), []

    async def run():
        first = await occupied(queue, go_on)
        late = [asyncio.create_task(queue.run(lambda: done.append(1))) for _ in range(FEW + 2)]
        await asyncio.sleep(0)
        second[0] = 0.6
        with pytest.raises(OverloadedError):
            await queue.run(lambda: done.append(2))
        go_on.set()
        await first
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        # The last few cost nobody anything.
        assert [isinstance(one, OverloadedError) for one in outcomes] == [True] * 3 + [False] * (FEW - 1)
        assert "was not begun" in str(outcomes[0])
        await queue.run(lambda: done.append(3))

    asyncio.run(run())
    assert (done, len(shed)) == ([1] * (FEW - 1) + [3], 4)
    queue.close()


def test_a_few_are_served_however_long_they_had_to_wait():
    queue, second, shed = make_queue(most=100, patience=0.5)
    go_on = threading.Event()

    async def run():
        first = await occupied(queue, go_on)
        others = [asyncio.create_task(queue.run(lambda: 1)) for _ in range(FEW - 2)]
        await asyncio.sleep(0)
        second[0] = 60.0
        others.append(asyncio.create_task(queue.run(lambda: 1)))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert shed == []
    queue.close()


def test_a_request_that_nobody_waits_for_leaves_the_queue():
    queue, _, _ = make_queue(most=100, patience=0.5)
    go_on, done = threading.Event(), []

    async def run():
        first = await occupied(queue, go_on)
        gone = asyncio.create_task(queue.run(lambda: done.append(1)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert len(queue) == 0
        go_on.set()
        await first

    asyncio.run(run())
    assert done == []
    queue.close()


def make_reads(**settings):
    """Reads that note the requests of each call; the present moment, and one entry per refusal."""
    calls, second, shed = [], [0.0], []

    def answer(requests):
        calls.append(list(requests))
        return [-request for request in requests]

    bounds = {"most": 100, "patience": 0.5, **settings}
    reads = Reads(1, answer=answer, on_shed=lambda: shed.append(1), now=lambda: second[0], **bounds)
    return reads, calls, second, shed


def test_a_call_takes_what_has_come_as_far_as_it_is_not_too_much():
    reads, calls, _, _ = make_reads()

    async def run():
        sizes = [500, 500, 24, 1, 2_000, 1]
        return await asyncio.gather(*(reads.together(number, size) for number, size in enumerate(sizes)))

    assert asyncio.run(run()) == [0, -1, -2, -3, -4, -5]
    assert calls == [[0, 1, 2], [3], [4], [5]]
    assert len(reads) == 0
    reads.close()


def test_who_has_left_or_waited_too_long_is_in_no_call():
    reads, calls, second, shed = make_reads(most=FEW + 3)

    async def run():
        waiting = [asyncio.create_task(reads.together(number, 1)) for number in range(FEW + 3)]
        await asyncio.sleep(0)
        assert len(reads) == FEW + 3
        with pytest.raises(OverloadedError, match="11 requests wait"):
            await reads.together(100, 1)
        waiting[5].cancel()
        second[0] = 0.6
        return await asyncio.gather(*waiting, return_exceptions=True)

    outcomes = asyncio.run(run())
    assert isinstance(outcomes.pop(5), asyncio.CancelledError)
    # The last few cost nobody anything.
    assert [isinstance(outcome, OverloadedError) for outcome in outcomes] == [True] * 4 + [False] * 6
    assert "was not begun" in str(outcomes[0])
    assert (calls, len(shed), len(reads)) == ([[4, 6, 7, 8, 9, 10]], 5, 0)
    reads.close()


def test_a_call_that_fails_answers_nobody_and_the_next_one_is_made():
    reads, calls, _, _ = make_reads()
    answer = reads._answer

    def broken(requests):
        if 1 in requests:
            raise ValueError("one of them")
        return answer(requests)

    reads._answer = broken

    async def run():
        together = await asyncio.gather(*(reads.together(number, 1) for number in range(3)))
        return together, await reads.together(7, 1)

    assert asyncio.run(run()) == ([None, None, None], -7)
    assert calls == [[7]]
    reads.close()


def test_the_service_answers_503_with_retry_after_where_a_queue_is_full(make_client, monkeypatch, caplog):
    client = make_client(settings=ServiceSettings(max_waiting=1, max_wait=30))
    service = client.app.state.service
    held = Held(service.store, monkeypatch)
    body = {"events": [row()]}

    async def run(http):
        first = asyncio.create_task(http.post("/v1/events", json=body))
        await held.wait()
        second = asyncio.create_task(http.post("/v1/events", json=body))
        while not len(service.writes):
            await asyncio.sleep(0.01)
        refused = await http.post("/v1/events", json=body)
        held.go_on.set()
        return refused, await first, await second

    refused, *served = client.run(run)
    assert [answer.status_code for answer in served] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["type"] == "OverloadedError"
    text = client.get("/metrics").text
    assert 'lifelong_shed_requests_total{by="writes"} 1.0' in text
    # Each line would take the time of those that are served.
    assert not caplog.records
    assert 'lifelong_waiting_requests{queue="writes"} 0.0' in text


def test_requests_that_the_loop_begins_too_late_are_refused_and_the_next_turn_serves_again():
    served, statuses, shed = [], [], []

    async def slow(scope, receive, send):
        served.append(1)
        time.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app = Shed(slow, Rush(lambda path: False, 0.2, lambda: shed.append(1)))
    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": []}

    async def call(path="/v1/score"):
        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app({**scope, "path": path}, None, send)

    async def run():
        # All are due in one turn of the loop, which would take two seconds.
        await asyncio.gather(*(call() for _ in range(1_000)))
        assert 32 <= len(served) < 400
        assert statuses.count(503) == len(shed) == 1_000 - len(served)
        await call("/healthz")
        await asyncio.sleep(0.1)
        await asyncio.gather(*(call() for _ in range(5)))
        assert statuses[-5:] == [200] * 5

    asyncio.run(run())


def test_a_turn_of_a_loop_that_was_closed_is_over(client):
    """Each request of this client has a loop of its own."""
    for _ in range(40):
        client.get("/v1/users/u/memory")
    time.sleep(0.4)
    assert [client.get("/v1/users/u/memory").status_code for _ in range(3)] == [404] * 3


def test_few_slow_requests_are_served_however_late_the_loop_is():
    async def slow(scope, receive, send):
        time.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    statuses = []

    async def run():
        app = Shed(slow, Rush(lambda path: False, 0.01))

        async def send(message):
            statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": []}
        await asyncio.gather(*(app(scope, None, send) for _ in range(30)))

    asyncio.run(run())
    assert statuses == [200] * 30


@contextlib.contextmanager
def running(app):
    """An app on our own server, in a thread; gives the port."""
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(_config(app, app.state.service.settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def test_a_rush_is_refused_when_heads_have_come_and_the_connections_stay(app, monkeypatch):
    full, begun = [True], []
    monkeypatch.setattr(app.state.rush, "full", lambda path: full[0])
    answer = app.state.service.answer
    monkeypatch.setattr(app.state.service, "answer", lambda *given: begun.append(1) or answer(*given))
    body, head = b'{"user": "u", "items": ["i1"]}', {"Content-Type": "application/json"}
    with running(app) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as client:

        def post(**more):
            client.request("POST", "/v1/score", body, head | more)
            reply = client.getresponse()
            return reply, json.loads(reply.read())

        client.connect()
        first = client.sock
        for _ in range(2):
            reply, document = post()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert document["error"]["type"] == "OverloadedError"
        client.request("GET", "/healthz")
        assert client.getresponse().read() == b'{"status":"alive"}'
        assert begun == []
        full[0] = False
        assert post()[0].status == 200
        assert (client.sock is first, begun) == (True, [1])
        full[0] = True
        assert post(Connection="close")[0].status == 503
        # The service has hung up, as it was asked to.
        assert client.sock is None or client.sock.recv(1) == b""


def test_after_a_long_turn_so_many_are_let_in_as_can_be_done_in_time():
    second, shed = [0.0], []
    rush = Rush(lambda path: False, 0.2, lambda: shed.append(1), now=lambda: second[0])

    def let_in(number):
        return [rush.refuses("/v1/score") for _ in range(number)].count(False)

    async def turns(number):
        for _ in range(number):
            await asyncio.sleep(0)

    async def run():
        assert let_in(1_000) == 1_000
        for _ in range(100):
            assert not rush.came_too_late()
        second[0] = 0.5
        await turns(3)
        # A hundred took half a second, and a quarter is the time for a turn.
        assert let_in(1_000) == 50
        assert rush.refuses("/healthz") is False
        await turns(3)
        # That turn took no time.
        assert let_in(1_000) == 1_000

    asyncio.run(run())
    assert len(shed) == 950
    assert rush.refusal.status_code == 503


@pytest.mark.parametrize("pauses_every", [1, 2, 3, 40])
def test_who_waits_for_each_answer_is_never_refused_whatever_pauses(app, monkeypatch, pauses_every):
    calls = count()

    def now():
        # The process does nothing for a second, again and again.
        return float(next(calls) // pauses_every)

    service = app.state.service
    for part in (app.state.rush, service.reads, service.writes, service.reads.pace, service.writes.pace):
        monkeypatch.setattr(part, "_now", now)
    score = raw(b'{"user": "u", "items": ["i1"]}', path="/v1/score")
    with running(app) as port, connected(port, 1) as (client,):
        for request in [score] * 100 + [raw()] * 10 + [score, raw()] * 10:
            client.sendall(request)
            assert statuses_of(client, 1) == [200]


def test_a_request_of_many_events_that_waits_alone_is_never_refused(artifact, store):
    second, go_on = [0.0], threading.Event()
    writes = Writes(Updater(artifact, store), most_events=10_000, most=1, patience=0.5, now=lambda: second[0])

    async def run():
        writes.submit(lambda: go_on.wait(30))
        alone = asyncio.create_task(writes.fold([row()] * 2 * FEW_EVENTS))
        await asyncio.sleep(0)
        second[0] = 60.0
        go_on.set()
        assert (await alone).applied == 2 * FEW_EVENTS

    asyncio.run(run())
    writes.close()


def test_a_head_that_has_come_before_is_still_of_one_whole_request_or_parsed():
    head = b"POST /v1/score?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: %s\r\n\r\n"
    for _ in range(2):
        assert _plain_path(head % b"2" + b"{}") == "/v1/score"
        assert _plain_path(head % b"2" + b"{") == _plain_path(head % b"2" + b"{} ") == ""
        assert _plain_path(head % b"02" + b"{}") == "/v1/score"
        assert _plain_path(head % (b"9" * 5_000) + b"{}") == ""
        assert _plain_path(head % b"2\r\nX: %s" % (b"x" * 5_000) + b"{}") == "/v1/score"
        assert _plain_path((head % b"2")[:-4] + b"{}") == ""


BODY = json.dumps({"events": [row()]}).encode()


def raw(body=BODY, *headers, path="/v1/events"):
    length = [] if any("Transfer-Encoding" in one for one in headers) else [f"Content-Length: {len(body)}"]
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *length, *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.contextmanager
def connected(port, number):
    """Connections of clients."""
    with contextlib.ExitStack() as open_:
        yield [open_.enter_context(socket.create_connection(("127.0.0.1", port), timeout=300)) for _ in range(number)]


def statuses_of(connection, number):
    """The statuses of the next answers."""
    replies, found = connection.makefile("rb"), []
    for _ in range(number):
        found.append(int(replies.readline().split()[1]))
        head = http.client.parse_headers(replies)
        assert found[-1] != 503 or head["retry-after"] == "1"
        replies.read(int(head["content-length"]))
    return found


def until(true):
    """Wait until something is so."""
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_more_events_are_let_in_than_are_answered_in_time_and_all_that_were_are_kept(app, monkeypatch):
    service = app.state.service
    held, pace = Held(service.store, monkeypatch), service.writes.pace
    monkeypatch.setattr(service.writes.pace, "_few", lambda: 9)
    with running(app) as port, connected(port, 12) as clients:
        for client in clients[:10]:
            client.sendall(raw())
        until(lambda: pace.under_way == 10)
        # Nothing is answered in the time in which the rate is measured, and no queue is full.
        time.sleep(0.2)
        assert not service.writes.full
        for client in clients[10:]:
            client.sendall(raw() * 2)
            assert statuses_of(client, 2) == [503, 503]
        held.go_on.set()
        assert [statuses_of(client, 1) for client in clients[:10]] == [[200]] * 10
        until(lambda: pace.under_way == 0)
        assert len(service.store.events("u")) == 10
        clients[10].sendall(raw())
        assert statuses_of(clients[10], 1) == [200]


def test_bodies_that_do_not_come_and_clients_who_hang_up_are_no_requests_under_way(app, monkeypatch):
    service = app.state.service
    held, pace = Held(service.store, monkeypatch), service.writes.pace
    with running(app) as port:
        with connected(port, 12) as clients:
            for client in clients[:10]:
                client.sendall(raw()[:-1])
            clients[10].sendall(raw())
            until(lambda: pace.under_way == 1)
        until(lambda: pace.under_way == 0)
        held.go_on.set()


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([raw()], 1),
        ([raw()[:40], raw()[40:]], 1),
        ([raw()[:-5], raw()[-5:]], 1),
        ([raw() * 3], 3),
        ([raw() + raw()[:30], raw()[30:]], 2),
        ([raw(b"5\r\n[1,2]\r\n0\r\n\r\n", "Transfer-Encoding: chunked")], 1),
        ([raw(BODY, "Expect: 100-continue")], 1),
        ([raw(BODY, "X-Other: content-length: 3")], 1),
    ],
    ids=["whole", "head in two", "body in two", "three at once", "one and a half", "chunks", "expect", "odd header"],
)
def test_refused_requests_of_any_form_end_where_they_end(app, monkeypatch, pieces, answers):
    full = [True]
    monkeypatch.setattr(app.state.rush, "full", lambda path: full[0])
    with running(app) as port, connected(port, 1) as (client,):
        # Twice: what is refused first is parsed, and the next one need not be.
        for _ in range(2):
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.02)
            assert statuses_of(client, answers) == [503] * answers
        full[0] = False
        client.sendall(raw())
        assert statuses_of(client, 1) == [200]
    assert len(app.state.service.store.events("u")) == 1


def test_a_slow_disk_under_few_events_is_no_rush(artifact, store):
    second = [0.0]
    writes = Writes(Updater(artifact, store), most_events=1, most=1, patience=0.5, now=lambda: second[0])
    for _ in range(1_000):
        writes.pace.begin()
    second[0] = 60.0
    assert not writes.pace.full
    # With more events in a request there are soon more than a few.
    for _ in range(200):
        asyncio.run(writes.fold([row(f"u{number}") for number in range(20)]))
    assert writes.pace.full
    writes.close()


def test_what_the_loop_answers_itself_leaves_no_trace_of_what_a_thread_began_meanwhile():
    """Each takes itself from the queue, and not the first one: it may have come before, and be answered later."""
    reads, _, second, _ = make_reads()

    async def passes():
        second[0] += 0.001
        time.sleep(0.02)

    async def run():
        for _ in range(FEW + 1):
            # The loop is busy until the thread has begun, and answers then.
            await asyncio.gather(reads.together(1, 1), passes(), reads.run(lambda: 1), passes())

    asyncio.run(run())
    second[0] += 60.0
    assert (len(reads), reads.full) == (0, False)
    reads.close()
