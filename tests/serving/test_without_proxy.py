"""Without the proxy, a service survives what the proxy would keep away, and reads HTTP in one way alone."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")
pytest.importorskip("uvloop")
# At the end: names of benchmarks are those of modules of the standard library, too.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import overload
import uvloop

EVENT = {"user": "u", "item": "i1", "time": 1_700_000_000}
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

    def said(self, *sent: bytes) -> bytes:
        """What a connection says until it is closed, after it was sent some pieces."""
        with self.connect() as connection:
            with contextlib.suppress(OSError):
                for piece in sent:
                    connection.sendall(piece)
                    # So that the next one is read on its own.
                    time.sleep(0.01)
            with contextlib.suppress(ConnectionResetError):
                return b"".join(iter(lambda: connection.recv(65_536), b""))
        return b""

    def post(self, path: str, body: object) -> object:
        url, head = f"http://127.0.0.1:{self.port}{path}", {"content-type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(body).encode(), head), timeout=300
        ) as answer:
            return json.load(answer)

    def get(self, path: str, timeout: float = 300) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
            return answer.read().decode()

    @property
    def memory(self) -> int:
        """Bytes of RAM of the process that answers."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def check_well(self) -> None:
        """Whether it is ready and writes, at the latest in a minute."""
        until = time.monotonic() + 60
        while True:
            try:
                assert self.post("/v1/events", {"events": [EVENT]})["applied"] == 1
                assert '"ready"' in self.get("/readyz")
                return
            except OSError:
                assert time.monotonic() < until, "the service has not come back"
                time.sleep(0.2)


@contextmanager
def served(artifact: Path, store: Path, *options: str, descriptors: int = 1024) -> Iterator[Running]:
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact), "--store", f"rocksdb://{store}"]

    def limit() -> None:
        # As most systems start a process: a low soft limit.
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors // 2, descriptors))

    process = subprocess.Popen(
        [*command, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=limit,
    )
    try:
        address = json.loads(process.stdout.readline())["address"]
        yield Running(process, int(address.rpartition(":")[2]))
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture(scope="module")
def service(artifact, tmp_path_factory) -> Iterator[Running]:
    with served(artifact.path, tmp_path_factory.mktemp("service") / "store") as running:
        yield running


def test_slow_heads_many_connections_and_a_rush_end_and_the_service_answers_as_before(artifact, tmp_path):
    scores = overload._requests("/v1/score", overload._scores(100, 100))
    with served(artifact.path, tmp_path / "store") as service:
        service.check_well()
        before = service.memory
        with ExitStack() as open_:
            # More than it has descriptors: they take those of the store's files, too.
            for _ in range(1_100):
                open_.enter_context(service.connect()).sendall(b"POST /v1/events HTTP/1.1\r\nHost: loc")
        service.check_well()
        rush = uvloop.run(
            overload.open_loop(service.port, scores, rate=4_000, seconds=3, connections=400, deadline=1.0, seed=1)
        )
        assert rush.in_time + rush.late > 0
        service.check_well()
        assert service.post("/v1/score", {"user": "u", "items": ["i1"]})["known_user"]
        assert service.memory < before + 2**28


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (HEAD, b"X-Long: " + b"x" * 16_000 + b"\r\n"),
        (b"GET /", b"x" * 16_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X-Trailer: " + b"x" * 16_000 + b"\r\n"),
    ],
    ids=["headers", "address", "trailers"],
)
def test_what_never_ends_is_ended_and_not_kept(service, first, more):
    before = service.memory
    with service.connect() as client, contextlib.suppress(ConnectionError):
        client.sendall(first)
        for _ in range(10_000):
            client.sendall(more)
        raise AssertionError("it was read to its end")
    assert service.memory < before + 2**26


def test_what_is_not_http_is_refused(service):
    assert service.said(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(service):
    """As Java's client and `curl --http2` do; a body is no request of its own, whatever it holds."""
    service.post("/v1/events", {"events": [EVENT]})
    hidden = b"DELETE /v1/users/u/memory HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = json.dumps({"user": "u", "items": ["i1", hidden.decode()]}).encode()
    asks = HEAD + b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        head = asks + b"Upgrade: %s\r\nContent-Length: %d\r\n\r\n" % (protocol, len(body))
        # Whole, in two pieces, and many at once; then one that ends the connection.
        said = service.said(head + body, head, body + 20 * (head + body), last)
        assert said.count(b"HTTP/1.1 200 OK") == said.count(b"HTTP/1.1 ") == 23, said
        assert said.count(b'"known_user":true') == 22


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 30\r\nContent-Length: 3\r\n",
        b"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +30\r\n",
        b"Content-Length:\r\n 30\r\n",
        b"X: y\nContent-Length: 30\r\n",
        b"X: y\rContent-Length: 30\r\n",
    ],
)
def test_what_has_no_certain_length_is_refused(service, lines):
    assert service.said(HEAD + lines + b'\r\n{"user": "u", "items": ["i1"]}').startswith(b"HTTP/1.1 400 ")


def test_an_address_with_a_fragment_reaches_no_other_user(service):
    service.post("/v1/events", {"events": [EVENT]})
    count = json.loads(service.get("/v1/users/u/memory"))["count"]
    service.said(b"DELETE /v1/admin/users/u#2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert json.loads(service.get("/v1/users/u/memory"))["count"] == count


def test_descriptors_that_run_out_end_no_writes_for_good(artifact, tmp_path):
    """The limit is taken from the running process, and given back."""
    with served(artifact.path, tmp_path / "store") as service:
        pid = service.process.pid
        service.check_well()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, 1024))
        # It is closed at once, or waits for a descriptor that will not come: either shows that none was left.
        with pytest.raises(OSError):
            service.get("/readyz", timeout=5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        service.check_well()
