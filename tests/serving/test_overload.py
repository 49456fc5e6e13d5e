"""More requests than can be served: bounded queues, refusals at once, one commit for all events that wait."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lifelong.errors import StoreUnavailableError
from lifelong.online.memory.updater import Updater
from lifelong.online.serving.errors import OverloadedError
from lifelong.online.serving.queues import Queue, Reads, Writes
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
        assert len(queue) == 2
        with pytest.raises(OverloadedError, match="2 requests wait"):
            await queue.run(lambda: 1)
        go_on.set()
        await first
        assert await asyncio.gather(*waiting) == [1, 1]
        assert (len(queue), await queue.run(lambda: 2)) == (0, 2)

    asyncio.run(run())
    assert shed == [1]
    queue.close()


def test_what_has_waited_past_its_deadline_is_not_computed_and_what_comes_later_is():
    queue, second, shed = make_queue(most=100, patience=0.5)
    go_on, done = threading.Event(), []

    async def run():
        first = await occupied(queue, go_on)
        late = asyncio.create_task(queue.run(lambda: done.append("late")))
        await asyncio.sleep(0)
        second[0] = 0.6
        later = asyncio.create_task(queue.run(lambda: done.append("later")))
        await asyncio.sleep(0)
        go_on.set()
        await first
        with pytest.raises(OverloadedError, match="was not begun"):
            await late
        await later

    asyncio.run(run())
    assert (done, shed, len(queue)) == (["later"], [1], 0)
    queue.close()


def test_events_that_have_waited_past_their_deadline_are_refused_and_nothing_of_them_is_kept(
    artifact, store, monkeypatch
):
    second = [0.0]
    writes = Writes(Updater(artifact, store), most_events=100, most=100, patience=0.5, now=lambda: second[0])
    held = Held(store, monkeypatch)

    async def run():
        first = await held.first(writes)
        late = asyncio.create_task(writes.fold([row("late")]))
        await asyncio.sleep(0)
        second[0] = 0.6
        later = asyncio.create_task(writes.fold([row("later")]))
        await asyncio.sleep(0)
        held.go_on.set()
        await first
        with pytest.raises(OverloadedError):
            await late
        assert (await later).applied == 1

    asyncio.run(run())
    writes.close()
    assert [len(store.events(user)) for user in ("late", "later")] == [0, 1]


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


def test_who_has_left_or_waited_past_the_deadline_is_in_no_call():
    reads, calls, second, shed = make_reads(most=3)

    async def run():
        waiting = [asyncio.create_task(reads.together(number, 1)) for number in range(2)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        second[0] = 0.6
        waiting.append(asyncio.create_task(reads.together(2, 1)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="requests wait"):
            # Those that wait are looked at in the loop's next turn.
            await asyncio.gather(*(reads.together(number, 1) for number in range(3, 9)))
        return await asyncio.gather(*waiting, return_exceptions=True)

    late, gone, answered = asyncio.run(run())
    assert isinstance(late, OverloadedError) and "was not begun" in str(late)
    assert isinstance(gone, asyncio.CancelledError)
    assert answered == -2 and 0 not in calls[0] and 1 not in calls[0]
    assert len(reads) == 0 and len(shed) >= 2
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


def test_what_the_loop_answers_itself_leaves_no_trace_of_what_a_thread_began_meanwhile():
    """Each takes itself from the queue, and not the first one: it may have come before, and be answered later."""
    reads, _, second, _ = make_reads()

    async def passes():
        second[0] += 0.001
        time.sleep(0.02)

    async def run():
        for _ in range(9):
            # The loop is busy until the thread has begun, and answers then.
            await asyncio.gather(reads.together(1, 1), passes(), reads.run(lambda: 1), passes())

    asyncio.run(run())
    second[0] += 60.0
    assert len(reads) == 0
    reads.close()
