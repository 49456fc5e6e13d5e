"""The process that owns the store of a service: whichever of the two is killed, what was acknowledged is kept."""

import asyncio
import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.processes import children, command_of, until, wait_until_gone

from lifelong.errors import StoreError, StoreForeignError, StoreLockedError, StoreUnavailableError, UsageError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.serving import owner as owning
from lifelong.online.serving import writer as writing
from lifelong.online.serving.app import create_app
from lifelong.online.serving.bodies import LARGE
from lifelong.online.serving.owner import OwnerProcess, WriterTask
from lifelong.online.serving.run import shared_folder
from lifelong.online.serving.writer import EventFolder, Notices, Writer
from lifelong.online.serving.writer_process import _Writing
from lifelong.online.store import folder
from lifelong.online.store.contract import Commit
from lifelong.online.store.folder import OWNER, named_owner
from lifelong.online.store.opening import open_store
from lifelong.online.store.protocol import Connection, Number, Reader
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.remote import Calls, Channel

pytest.importorskip("rocksdict")

PATIENCE = 400
EVENTS = 300


@dataclass
class Server:
    """A service in a process of its own, which is killed at the end of the context if it still runs."""

    artifact: Path
    folder: Path
    said: Path
    workers: int = 1
    process: subprocess.Popen = field(init=False)

    def __enter__(self):
        command = [sys.executable, "-m", "lifelong", "serve", str(self.artifact), "--port", "0", "--json"]
        command += ["--workers", str(self.workers)]
        with self.said.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--store", f"rocksdb://{self.folder}"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        line = self.process.stdout.readline()
        assert line, self.said.read_text()
        self.host = json.loads(line)["address"].removeprefix("http://")
        return self

    def __exit__(self, *_):
        others = self.children
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        wait_until_gone(others)

    @property
    def children(self):
        return children(self.process.pid) if self.process.poll() is None else set()

    @property
    def writers(self):
        return {child for child in self.children if "run_writer" in command_of(child)}

    @property
    def scoring(self):
        return {child for child in self.children if "spawn_main" in command_of(child)}

    def call(self, method, path, body=None):
        """Status and document of a reply."""
        with closing(http.client.HTTPConnection(self.host, timeout=PATIENCE)) as connection:
            head = {"content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), head)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        assert "Traceback" not in self.said.read_text()


@pytest.fixture
def server(artifact, tmp_path):
    return lambda workers=1: Server(artifact.path, tmp_path / "store", tmp_path / "stderr", workers)


def request(number):
    """The events of one request: so many that the writer parses them."""
    rows = [
        {
            "user": f"u{k % 50}",
            "item": f"i{(number + k) % 40}",
            "time": 1_700_000_000 + number,
            "event_id": f"{number}-{k}",
        }
        for k in range(EVENTS)
    ]
    assert len(json.dumps({"events": rows})) > LARGE
    return {"events": rows}


def post_all(server, numbers, acknowledged):
    """Post requests in their order, each again until it is acknowledged; ends if the service does."""
    for number in numbers:
        while True:
            try:
                status, reply = server.call("POST", "/v1/events", request(number))
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                # All of a request is known already, or nothing of it.
                assert reply["applied"] in (0, EVENTS) and reply["applied"] + reply["duplicates"] == EVENTS, reply
                acknowledged.append(number)
                break
            assert status == 503, reply


def assert_holds(folder, artifact, number):
    """The store holds the events of so many requests, each once."""
    alone = InMemoryStore()
    Updater(artifact, alone).apply([UserEvent(**row) for k in range(number) for row in request(k)["events"]])
    with closing(open_store(f"rocksdb://{folder}")) as store:
        found, wanted = dict(store.scan()), dict(alone.scan())
        logs = {user: store.events(user) for user in found}
    assert found.keys() == wanted.keys()
    assert logs == {user: alone.events(user) for user in wanted}
    runtime = Runtime(artifact)
    one, other = (runtime.decode([rows[user] for user in wanted]) for rows in (found, wanted))
    assert one.count_B.tolist() == other.count_B.tolist()
    np.testing.assert_allclose(one.fields["slot"], other.fields["slot"], atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_writer_that_is_killed_loses_and_doubles_nothing_and_is_started_again(server, artifact, workers):
    acknowledged = []
    with server(workers) as service:
        client = threading.Thread(target=post_all, args=(service, range(20), acknowledged))
        client.start()
        for goal in (3, 9):
            until(lambda goal=goal: len(acknowledged) >= goal)
            (writer,) = service.writers
            os.kill(writer, signal.SIGKILL)
            until(lambda writer=writer: service.writers and writer not in service.writers)
        client.join()
        until(lambda: service.call("GET", "/readyz")[0] == 200)
        status, reply = service.call("POST", "/v1/score", {"user": "u0", "items": ["i1"]})
        assert (status, reply["count"]) == (200, 20 * EVENTS // 50)
        service.stop()
    assert acknowledged == list(range(20))
    assert_holds(service.folder, artifact, 20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_is_killed_takes_its_writer_along_and_the_next_one_has_all_that_was_acknowledged(
    server, artifact, workers
):
    acknowledged = []
    with server(workers) as service:
        client = threading.Thread(target=post_all, args=(service, range(12), acknowledged))
        client.start()
        until(lambda: len(acknowledged) >= 3)
        processes = service.children
        assert len(service.writers) == 1
        service.process.kill()
        client.join()
        wait_until_gone(processes)
    with server(workers) as service:
        # The one that was under way may be there: then all of it is a duplicate.
        post_all(service, range(len(acknowledged), 12), acknowledged)
        service.stop()
    assert acknowledged == list(range(12))
    assert_holds(service.folder, artifact, 12)


def test_an_interrupt_reaches_no_worker_whether_it_has_started_or_not(server):
    with server(2) as service:
        # From their first moment: a process inherits the signals that its parent blocks.
        until(lambda: len(service.scoring) == 2)
        for worker in service.scoring:
            blocked = re.search(r"SigBlk:\s*(\w+)", Path("/proc", str(worker), "status").read_text())
            assert blocked is not None
            assert int(blocked.group(1), 16) >> (signal.SIGINT - 1) & 1
        service.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_to_stop_that_reaches_both_processes_stops_them_in_order(server, artifact, workers):
    for number in (signal.SIGTERM, signal.SIGINT):
        with server(workers) as service:
            assert service.call("POST", "/v1/events", request(0))[0] == 200
            processes = service.children
            assert named_owner(service.folder) == service.process.pid
            os.killpg(service.process.pid, number)
            assert service.process.wait(PATIENCE) == 0
            wait_until_gone(processes)
            assert "Traceback" not in service.said.read_text()
            assert not (service.folder / OWNER).exists()
    assert_holds(service.folder, artifact, 1)


def test_while_its_writer_is_stopped_a_service_scores_what_it_has_in_ram_and_is_not_ready(server):
    with server() as service:
        assert service.call("POST", "/v1/events", request(0))[0] == 200
        (writer,) = service.writers
        os.kill(writer, signal.SIGSTOP)
        try:
            status, reply = service.call("POST", "/v1/score", {"user": "u7", "items": ["i1", "i2"]})
            assert (status, reply["count"]) == (200, EVENTS // 50)
            # The last mark that was kept is trusted for some seconds.
            until(lambda: service.call("GET", "/readyz")[0] == 503)
        finally:
            os.kill(writer, signal.SIGCONT)
        until(lambda: service.call("GET", "/readyz")[0] == 200)
        service.stop()


def test_events_of_many_sizes_and_forms_are_counted_the_same(server, artifact):
    with server() as service:
        large = request(0)
        status, reply = service.call("POST", "/v1/events", {"events": [*large["events"], {"user": "u"}]})
        assert status == 422 and "events.300.item" in reply["error"]["found"]
        # A rarer form of a whole number: the service itself reads it.
        rarer = {"events": [*large["events"][:-1], {**large["events"][-1], "time": 1_700_000_000.0}]}
        assert service.call("POST", "/v1/events", rarer)[1]["applied"] == EVENTS
        assert service.call("POST", "/v1/events", large)[1]["duplicates"] == EVENTS
        small = {"user": "new", "item": "i1", "time": 1_700_000_000}
        assert service.call("POST", "/v1/events", {"events": [small]})[1]["no_dedup"] == 1
        assert service.call("DELETE", "/v1/users/new/memory")[1]["erased"]
        assert service.call("GET", "/v1/users/new/memory")[0] == 404
        service.stop()
    assert_holds(service.folder, artifact, 1)


def count_of(service, user):
    """Events of a user, as a worker that happens to answer says."""
    status, reply = service.call("POST", "/v1/score", {"user": user, "items": ["i1"]})
    assert status == 200, reply
    return reply["count"]


def test_what_one_worker_has_acknowledged_every_worker_knows(server):
    """Each call is a connection of its own, which any worker may take."""
    body = {"user": "u", "item": "i1", "time": 1_700_000_000}
    with server(2) as service:
        for number in range(1, 101):
            assert service.call("POST", "/v1/events", {"events": [body | {"event_id": str(number)}]})[0] == 200
            assert [count_of(service, "u") for _ in range(4)] == [number] * 4
        assert service.call("PUT", "/v1/items", {"items": [{"item": "new", "fields": {"category": "c3"}}]})[0] == 200
        asked = {"user": "u", "items": ["new"], "time": 1_700_000_100}
        scores = {json.dumps(service.call("POST", "/v1/score", asked)[1]["scores"]) for _ in range(20)}
        assert len(scores) == 1
        assert service.call("DELETE", "/v1/users/u/memory")[1]["erased"]
        assert [count_of(service, "u") for _ in range(20)] == [0] * 20
        assert served(service) == service.scoring
        service.stop()


def served(service):
    """The processes that have answered, by the service's metrics."""
    with closing(http.client.HTTPConnection(service.host, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {int(pid) for pid in re.findall(r'lifelong_build_info{.*pid="(\d+)"', text)}


def test_a_worker_that_is_stopped_holds_up_the_others_for_seconds_and_knows_all_when_it_goes_on(server):
    with server(2) as service:
        until(lambda: len(served(service)) == 2)
        assert service.call("POST", "/v1/events", request(0))[0] == 200
        stopped = min(service.scoring)
        os.kill(stopped, signal.SIGSTOP)
        try:
            acknowledged = []
            # More than the socket to the stopped worker can hold. A call that it gets is cut off, and sent again.
            while len(acknowledged) < 40:
                with contextlib.suppress(TimeoutError):
                    numbers = range(1 + len(acknowledged), 41)
                    post_quickly(service, numbers, acknowledged)
        finally:
            os.kill(stopped, signal.SIGCONT)
        # It is stale until it has joined again, and then says so rather than something old.
        for _ in range(50):
            status, reply = service.call("POST", "/v1/score", {"user": "u0", "items": ["i1"]})
            assert (status, reply.get("count")) in [(200, 41 * EVENTS // 50), (503, None)], reply
        until(lambda: [service.call("GET", "/readyz")[0] for _ in range(10)] == [200] * 10)
        service.stop()


def post_quickly(service, numbers, acknowledged):
    """Post requests; a worker that does not answer is left after a second."""
    for number in numbers:
        with closing(http.client.HTTPConnection(service.host, timeout=1 + 3 * (number == 1))) as connection:
            connection.request("POST", "/v1/events", json.dumps(request(number)), {"content-type": "application/json"})
            assert connection.getresponse().status == 200
        acknowledged.append(number)


def test_a_worker_that_is_killed_is_replaced_and_what_it_acknowledged_is_known(server, artifact):
    acknowledged = []
    with server(2) as service:
        client = threading.Thread(target=post_until_acknowledged, args=(service, range(12), acknowledged))
        client.start()
        for goal in (2, 6):
            until(lambda goal=goal: len(acknowledged) >= goal and len(service.scoring) == 2)
            os.kill(min(service.scoring), signal.SIGKILL)
        client.join()
        assert count_of(service, "u0") == 12 * EVENTS // 50
        assert len(service.writers) == 1
        service.stop()
    assert_holds(service.folder, artifact, 12)


def post_until_acknowledged(service, numbers, acknowledged):
    for number in numbers:
        while number not in acknowledged:
            post_all(service, [number], acknowledged)


@contextlib.contextmanager
def writer_of(artifact, folder):
    """The only reader of a store whose owner has opened it, as in a service of one process."""
    with shared_folder() as meeting:
        task = WriterTask(meeting, f"rocksdb://{folder}", artifact.path, "apply", True, 1.0, "text")
        with closing(OwnerProcess(task)) as owner, closing(Writer(meeting)) as writer:
            owner.wait()
            yield writer


def test_what_a_writer_cannot_open_is_said_as_the_store_says_it(artifact, tmp_path):
    with closing(open_store(f"rocksdb://{tmp_path / 'store'}")) as store:
        from lifelong.testing.store_contract import IDENTITY

        store.bind(IDENTITY)
    with pytest.raises(StoreForeignError), writer_of(artifact, tmp_path / "store"):
        pytest.fail("it was opened")


def test_events_that_nobody_waits_for_are_left_and_those_of_an_earlier_writer_are_refused(artifact, tmp_path, caplog):
    text = json.dumps(request(0)).encode()
    ended, others = threading.Event(), children(os.getpid())
    with writer_of(artifact, tmp_path / "store") as writer:
        store = writer.open()
        writer.on_end = lambda error: ended.set()
        left, waiting, folded = (writer.parse(text) for _ in range(3))
        assert len(left) == EVENTS and left.users[0] == "u0"
        del left
        assert writer.fold([folded])[0].applied == EVENTS
        assert writer.fold([writer.parse(text), request(1)["events"]])[1].applied == EVENTS
        (process,) = children(os.getpid()) - others
        os.kill(process, signal.SIGKILL)
        with contextlib.suppress(StoreUnavailableError):
            store.clock()
        until(ended.is_set)
        with pytest.raises(StoreUnavailableError, match="has ended"):
            store.commit(Commit())
        store.check_writes()
        assert "has ended with exit code -9; it is started again" in caplog.text
        with pytest.raises(StoreUnavailableError, match="nothing was kept"):
            writer.fold([waiting])
        assert writer.fold([writer.parse(text)])[0].duplicates == EVENTS
    assert not children(os.getpid()) - others


def test_a_writer_that_does_not_answer_keeps_no_service_from_stopping(artifact, tmp_path, monkeypatch):
    for module in (owning, writing):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    others = children(os.getpid())
    with writer_of(artifact, tmp_path / "store") as writer:
        app = create_app(artifact, writer.open(), writer=writer)

        async def stop_in_the_middle():
            async with app.router.lifespan_context(app):
                await app.state.service.add_events(request(0)["events"])
                (process,) = children(os.getpid()) - others
                os.kill(process, signal.SIGSTOP)
                return asyncio.create_task(app.state.service.add_events(request(1)["events"])), await asyncio.sleep(0)

        async def stop():
            waiting, _ = await stop_in_the_middle()
            return await asyncio.gather(waiting, return_exceptions=True)

        (outcome,) = asyncio.run(stop())
        assert isinstance(outcome, StoreError)
    assert not children(os.getpid()) - others
    # What was under way when the process was killed may be there: then all of it.
    with closing(open_store(f"rocksdb://{tmp_path / 'store'}")) as store:
        assert sum(len(store.events(user)) for user, _ in store.scan()) in (EVENTS, 2 * EVENTS)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_writer_that_hangs_after_its_service_was_killed_is_named_and_the_advice_frees_the_store(
    server, artifact, monkeypatch, workers
):
    monkeypatch.setattr(folder, "_PATIENCE", 0.1)
    with server(workers) as service:
        post_all(service, range(1), acknowledged := [])
        (writer,) = service.writers
        os.kill(writer, signal.SIGSTOP)
        service.process.kill()
        service.process.wait()
        named = f"still open in process {writer}, .* process {service.process.pid}"
        with pytest.raises(StoreLockedError, match=named) as caught:
            open_store(f"rocksdb://{service.folder}")
        advice = re.search(r"kill -9 (\d+)", caught.value.fix)
        os.kill(int(advice.group(1)), signal.SIGKILL)
        wait_until_gone([writer])
    assert acknowledged == [0]
    assert_holds(service.folder, artifact, 1)


def test_a_service_that_stops_starts_no_writer_again(artifact, tmp_path):
    others = children(os.getpid())
    with writer_of(artifact, tmp_path / "store") as writer:
        store = writer.open()
        (process,) = children(os.getpid()) - others
        writer.end_soon()
        os.kill(process, signal.SIGKILL)
        until(lambda: store.calls.over)
        with pytest.raises(StoreError, match="the store is closed"):
            store.check_writes()
    assert not children(os.getpid()) - others


def test_events_that_are_refused_with_those_of_an_earlier_writer_take_no_more_room(artifact):
    connection = Connection()
    folder = EventFolder(Updater(artifact, InMemoryStore()), connection)
    connection.answer(1, True, folder.parse(json.dumps(request(0)).encode()))
    for parts in ([0, 1], [1]):
        with pytest.raises(StoreUnavailableError, match="nothing was kept"):
            folder.fold(parts)


def test_a_worker_that_comes_while_no_descriptor_is_free_joins_when_one_is(artifact, tmp_path, caplog):
    class Full:
        """A socket whose first `accept`s find no descriptor."""

        def __init__(self, whole, times):
            self.whole, self.times = whole, times

        def accept(self):
            self.times -= 1
            if self.times >= 0:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.whole.accept()

    store = InMemoryStore()
    answering = _Writing(store, Updater(artifact, store), Notices(Number()))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "writer"))
        listening.listen()
        threading.Thread(target=answering.accept, args=[Full(listening, 2)], daemon=True).start()
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(tmp_path / "writer"))
        calls = Calls(Channel(connected), Reader(0, Number()), ended=lambda: EOFError())
        assert calls("watermark", "nothing", 0) == -1
        calls.close()
    assert [line.getMessage().count("Too many open files") for line in caplog.records] == [1, 1]


def test_a_folder_for_temporary_files_with_a_long_path_is_refused_with_the_way_out(artifact, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with (
        pytest.raises(UsageError, match=r"a socket at .* bytes\).*TMPDIR=/tmp"),
        writer_of(artifact, tmp_path / "store"),
    ):
        pytest.fail("it was started")
