"""Limits of connections, against a real process."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

EVENT = {"user": "u", "item": "i1", "time": 1_700_000_000}
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

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
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


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


def to_the_end(one: socket.socket) -> bytes:
    """What a connection says until it is closed."""
    parts = []
    try:
        while part := one.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def check_error(text: bytes, status: int, kind: str) -> None:
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), text
    error = json.loads(body)["error"]
    assert error["type"] == kind
    assert all(error[part] for part in ("found", "expected", "fix"))


def test_unfinished_heads_take_no_descriptor_of_the_store_and_no_request(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store") as service, ExitStack() as open_:
        for _ in range(1_100):
            open_.enter_context(service.connect()).sendall(b"POST /v1/events HTTP/1.1\r\nHost: loc")
        for number in range(20):
            event = EVENT | {"time": EVENT["time"] + number}
            assert service.post("/v1/events", {"events": [event]})["applied"] == 1
        # Half of the descriptors at most are clients'.
        assert service.descriptors < 700
        assert '"ready"' in service.get("/readyz")
        assert "lifelong_refused_connections_total" in service.get("/metrics")


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n", HEAD + b"Content-Length: 9\r\n\r\n{"])
def test_what_is_not_finished_in_time_is_ended(artifact, tmp_path, sent):
    options = ("--set", "head_timeout=1", "--set", "timeout=1")
    with served(artifact.path, tmp_path / "store", *options) as service, service.connect() as one:
        one.sendall(sent)
        said = to_the_end(one)
        if sent == HEAD:
            check_error(said, 408, "HeadTimeoutError")
        elif sent == b"":
            assert said == b""
        else:
            # The app's own answer comes first, then the connection ends.
            assert said.startswith(b"HTTP/1.1 ")
        assert service.post("/v1/events", {"events": [EVENT]})["applied"] == 1


def test_a_body_for_the_administration_is_not_waited_for_either(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store", "--set", "timeout=1") as service, service.connect() as one:
        one.sendall(HEAD.replace(b"/v1/score", b"/v1/admin/switch") + b"Content-Length: 9\r\n\r\n{")
        assert to_the_end(one) == b""
        assert "lifelong_expired_connections_total 1.0" in service.get("/metrics")


def test_an_answer_that_is_not_read_holds_no_connection(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store", "--set", "timeout=1") as service, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.settimeout(1)
        one.connect(("127.0.0.1", service.port))
        try:
            for _ in range(2_000):
                one.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except OSError:
            # The service reads no further while its answers are not read.
            pass
        deadline = time.monotonic() + 60
        while "lifelong_expired_connections_total 1.0" not in service.get("/metrics"):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_trickle_of_bytes_does_not_keep_a_head_open(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store", "--set", "head_timeout=1") as service, service.connect() as one:
        one.sendall(HEAD)
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.2):
                try:
                    one.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            check_error(to_the_end(one), 408, "HeadTimeoutError")
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X-Long: " + b"x" * 100_000,
        b"".join([HEAD, *(b"X-%d: y\r\n" % number for number in range(10_000)), b"\r\n"]),
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-Trailer: " + b"x" * 200_000,
    ],
    ids=["header", "headers", "address", "trailer"],
)
def test_a_large_head_is_refused_and_not_kept(artifact, tmp_path, sent):
    with served(artifact.path, tmp_path / "store") as service, service.connect() as one:
        for first in range(0, len(sent), 16_384):
            try:
                one.sendall(sent[first : first + 16_384])
            except OSError:
                break
            time.sleep(0.01)
        check_error(to_the_end(one)[-2_000:], 431, "HeadTooLargeError")


def test_what_is_not_http_gets_an_error_of_the_one_shape(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store") as service, service.connect() as one:
        one.sendall(b"hello\r\n\r\n")
        check_error(to_the_end(one), 400, "BadHttpError")


def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(artifact, tmp_path):
    """As Java's client and `curl --http2` do; a body is no request of its own, whatever it holds."""
    hidden = b"DELETE /v1/users/u/memory HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = json.dumps({"user": "u", "items": ["i1", hidden.decode()]}).encode()
    asks = HEAD + b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    with served(artifact.path, tmp_path / "store") as service:
        service.post("/v1/events", {"events": [EVENT]})
        for protocol in (b"h2c", b"websocket"):
            head = asks + b"Upgrade: %s\r\nContent-Length: %d\r\n\r\n" % (protocol, len(body))
            with service.connect() as one:
                # Whole, in two pieces, and many at once; then one that ends the connection.
                one.sendall(head + body)
                one.sendall(head)
                time.sleep(0.1)
                one.sendall(body + 20 * (head + body))
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                said = to_the_end(one)
            assert said.count(b"HTTP/1.1 200 OK") == said.count(b"HTTP/1.1 ") == 23, said
            assert said.count(b'"known_user":true') == 22
        with service.connect() as one:
            one.sendall(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check_error(to_the_end(one), 400, "BadHttpError")


def test_what_has_no_certain_length_is_refused(artifact, tmp_path):
    body = b'{"user": "u", "items": ["i1"]}'
    length = b"Content-Length: %d\r\n" % len(body)
    with served(artifact.path, tmp_path / "store") as service:
        for lines in (
            length + length,
            length + b"Content-Length: 3\r\n",
            length + b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Content-Length: +30\r\n",
            b"Content-Length:\r\n 30\r\n",
            b"X: y\n" + length,
            b"X: y\r" + length,
        ):
            with service.connect() as one:
                one.sendall(HEAD + lines + b"\r\n" + body)
                check_error(to_the_end(one), 400, "BadHttpError")


def test_where_all_connections_are_busy_a_new_one_is_told_to_wait(artifact, tmp_path):
    options = ("--set", "max_connections=4")
    with served(artifact.path, tmp_path / "store", *options) as service, ExitStack() as open_:
        for _ in range(4):
            one = open_.enter_context(service.connect())
            # Once it is known to the service, what it sends is read before a later connection is looked at.
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(65_536).startswith(b"HTTP/1.1 200")
            one.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
        said = to_the_end(open_.enter_context(service.connect()))
        check_error(said, 503, "OverloadedError")
        assert b"retry-after: 1" in said


def test_descriptors_that_run_out_end_no_writes_for_good(artifact, tmp_path):
    """The limit is taken from the running process, and given back."""
    with served(artifact.path, tmp_path / "store") as service:
        pid = service.process.pid
        assert service.post("/v1/events", {"events": [EVENT]})["applied"] == 1
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, 1024))
        # It is closed at once, or waits for a descriptor that will not come: either shows that none was left.
        with pytest.raises(OSError):
            service.get("/readyz", timeout=5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                assert service.post("/v1/events", {"events": [EVENT]})["applied"] == 1
                assert '"ready"' in service.get("/readyz")
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError("the service has not come back")


def test_an_address_with_a_fragment_is_refused_and_reaches_no_other_user(artifact, tmp_path):
    with served(artifact.path, tmp_path / "store") as service:
        service.post("/v1/events", {"events": [EVENT]})
        with service.connect() as client:
            client.sendall(b"DELETE /v1/admin/users/u#2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check_error(to_the_end(client), 400, "BadHttpError")
        assert json.loads(service.get("/v1/users/u/memory"))["count"] == 1
