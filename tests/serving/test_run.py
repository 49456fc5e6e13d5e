"""Running the service."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from support.processes import children, wait_until_gone
from support.valkey import free_port, server

from lifelong.errors import UsageError
from lifelong.online.serving.metrics import SHARED
from lifelong.online.serving.run import _shared_metrics, check_workers, listen, run


def test_one_worker_is_always_fine_and_several_on_a_store_that_they_can_share():
    check_workers(1, "memory://", topic=True)
    check_workers(3, "rocksdb:///x")
    check_workers(3, "redis://host", topic=True)


@pytest.mark.parametrize(
    ("url", "more", "reason"),
    [
        ("rocksdb:///x", {"topic": True}, "followed by one process"),
        ("memory://", {}, "own process"),
    ],
)
def test_more_workers_are_refused_with_the_reason_and_the_way_out(url, more, reason):
    with pytest.raises(UsageError, match=rf"{reason}.*redis://"):
        check_workers(2, url, **more)


def test_answers_are_not_delayed_by_the_sockets_buffer():
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_host_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="cannot listen"):
        listen("256.0.0.1", 0)


def test_a_port_in_use_is_refused(app):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            run(app, host="127.0.0.1", port=taken.getsockname()[1], ready=print)


def test_a_stopped_service_has_kept_what_it_accepted(artifact, tmp_path):
    url = f"rocksdb://{tmp_path}/store"
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", url, "--port", "0", "--json"]

    def call(address, path, body):
        request = urllib.request.Request(
            address + path, json.dumps(body).encode(), headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    counts = []
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = json.loads(process.stdout.readline())["address"]
            event = {"user": "u1", "item": "i1", "time": 1_700_000_000}
            call(address, "/v1/events", {"events": [event]})
            counts.append(call(address, "/v1/score", {"user": "u1", "items": ["i1"]})["count"])
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=300) == 0
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
    assert counts == [1, 2]


STOPPED_AT_ONCE = """
import os, signal, sys
from pathlib import Path
from lifelong.artifact.folder import Artifact
from lifelong.online.serving import run
from lifelong.online.serving.app import create_app
from lifelong.online.store.ram import InMemoryStore

def make_app():
    raise AssertionError("a worker is not needed")

def stop(address):
    os.kill(os.getpid(), signal.SIGTERM)
    print("stopped", flush=True)

if sys.argv[2] == "one":
    run.run(create_app(Artifact.open(Path(sys.argv[1])), InMemoryStore()), host="127.0.0.1", port=0, ready=stop)
else:
    run.run_workers(make_app, workers=2, host="127.0.0.1", port=0, ready=stop)
print("returned")
"""


@pytest.mark.parametrize("processes", ["one", "two"])
def test_a_signal_that_comes_as_soon_as_the_address_is_known_stops_a_service_in_order(artifact, processes):
    words = ["-c", STOPPED_AT_ONCE, str(artifact.path), processes]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=400)
    assert (done.returncode, done.stdout) == (0, "stopped\nreturned\n"), done.stderr


def check_one_set_of_metrics(address):
    """Whichever of two workers answers says what both did, and what each of them is."""
    deadline, seen = time.monotonic() + 300, set()
    while len(seen) < 2:
        assert time.monotonic() < deadline, seen
        # The page does not count itself before it is answered.
        with urllib.request.urlopen(f"{address}/metrics", timeout=300) as answer:
            text = answer.read().decode()
        assert 'lifelong_events_total{outcome="applied"} 8.0' in text
        assert 'lifelong_request_seconds_count{method="POST",route="/v1/score"} 8.0' in text
        seen = set(re.findall(r'^lifelong_build_info{.*pid="(\d+)"', text, re.M))
        assert set(re.findall(r'^process_resident_memory_bytes{pid="(\d+)"} [1-9]', text, re.M)) == seen
    assert text.count("# TYPE lifelong_waiting_requests gauge") == 1


@pytest.mark.parametrize("log", ["text", "json"])
def test_several_workers_share_a_store_and_one_that_dies_is_replaced(artifact, tmp_path, log):
    pytest.importorskip("redis")
    if not shutil.which("valkey-server"):
        pytest.skip("valkey-server is not installed (Debian: valkey-server)")
    with server(tmp_path) as valkey:
        url = f"redis://:secret@127.0.0.1:{valkey.port}"
        valkey.call("config", "set", "requirepass", "secret")
        command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", url]
        command += ["--workers", "2", "--port", "0", "--json", "--log", log]
        said = (tmp_path / "stderr").open("w+")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            announced = process.stdout.readline()
            assert "secret" not in announced
            address = json.loads(announced)["address"]

            def post(path, body):
                head = {"content-type": "application/json", "connection": "close"}
                request = urllib.request.Request(address + path, json.dumps(body).encode(), headers=head)
                with urllib.request.urlopen(request, timeout=300) as answer:
                    return json.load(answer)

            for number in range(8):
                post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": 1_700_000_000 + number}]})
                assert post("/v1/score", {"user": "u", "items": ["i1"]})["count"] == number + 1
            check_one_set_of_metrics(address)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            assert post("/v1/score", {"user": "u", "items": ["i1"]})["count"] == 8
            deadline, died = time.monotonic() + 300, f"Child process [{children[-1]}] died"
            while died not in (tmp_path / "stderr").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=300) == 0
            line = next(line for line in (tmp_path / "stderr").read_text().splitlines() if died in line)
            assert (log == "json") == line.startswith("{")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
            said.close()


class Writer:
    """Sends one user's events, each until it is acknowledged.

    Args:
        address: of the service.
    """

    def __init__(self, address):
        self.address, self.acknowledged, self.over = address, 0, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.over.is_set():
            event = {"user": "u", "item": "i1", "time": 1_700_000_000, "event_id": f"e{self.acknowledged}"}
            # In doubt is only what is sent again under the same id.
            self.ask("/v1/events", {"events": [event]})
            self.acknowledged += 1

    def ask(self, path, body):
        """Ask until there is an answer, as a client does: a service that starts or stops gives none."""
        head = {"content-type": "application/json", "connection": "close"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers=head)
        end = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    return json.load(answer)
            except (OSError, http.client.HTTPException) as error:
                refused = getattr(error, "code", 503) not in (429, 503, 504)
                if refused or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def wait_for(self, more, process):
        """Return when so many more are acknowledged."""
        wanted, end = self.acknowledged + more, time.monotonic() + 300
        while self.acknowledged < wanted:
            assert process.poll() is None and time.monotonic() < end, (self.acknowledged, wanted)
            time.sleep(0.01)


def test_workers_end_with_a_parent_that_is_killed_and_the_next_service_has_their_port(
    artifact, redis_url, tmp_path, monkeypatch
):
    pytest.importorskip("redis")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = free_port()
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", redis_url]
    command += ["--workers", "2", "--port", str(port)]
    writer, running, workers = Writer(f"http://127.0.0.1:{port}"), [], set()
    try:
        for _ in range(2):
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if not writer.thread.ident:
                writer.thread.start()
            # The second one begins while the workers of the first may still be there.
            writer.wait_for(20, running[-1])
            if len(running) == 1:
                workers = children(running[0].pid)
                assert len(workers) >= 2
                running[0].kill()
                running[0].wait()
        wait_until_gone(workers)
        writer.over.set()
        writer.thread.join()
        assert writer.ask("/v1/score", {"user": "u", "items": ["i1"]})["count"] == writer.acknowledged
        workers = children(running[1].pid)
        running[1].kill()
        running[1].wait()
        wait_until_gone(workers)
        with listen("127.0.0.1", port):
            pass
    finally:
        writer.over.set()
        for process in running:
            process.kill()
            process.wait()


def test_the_folder_of_metrics_is_gone_when_nobody_uses_it(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(SHARED, raising=False)
    with _shared_metrics():
        assert [str(folder) for folder in tmp_path.iterdir()] == [os.environ[SHARED]]
    assert (SHARED in os.environ, list(tmp_path.iterdir())) == (False, [])
