"""What the proxy of deploy/nginx.conf does in front of a service that knows no callers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from support.shop_service import shop_service
from support.valkey import free_port

pytest.importorskip("uvicorn")
CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
SCORE = {"user": "Ada", "items": ["gouda", "rye bread"]}


@pytest.fixture(scope="module")
def nginx() -> str:
    found = shutil.which("nginx")
    if found is None:
        pytest.skip("nginx is not installed")
    return found


@pytest.fixture
def proxy(nginx, tmp_path):
    """The address of the proxy; a tenth of its times, so that the test need not wait, and few requests at once."""
    port = free_port()
    with shop_service(tmp_path) as service:
        text = CONFIG.read_text()
        for found, wanted in (
            ("127.0.0.1:8000", service.removeprefix("http://")),
            ("listen 8080", f"listen 127.0.0.1:{port}"),
            ("_timeout 10s", "_timeout 1s"),
            ("rate=200r/s", "rate=5r/s"),
            ("burst=400", "burst=5"),
            ("connections 100", "connections 3"),
            ("http {\n", "http {\n" + "".join(f"{name}_temp_path {tmp_path}/{name};\n" for name in TEMPORARY)),
        ):
            assert found in text
            text = text.replace(found, wanted)
        (tmp_path / "nginx.conf").write_text(f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/log;\n{text}")
        process = subprocess.Popen([nginx, "-e", tmp_path / "log", "-c", tmp_path / "nginx.conf"])
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def test_requests_pass_and_one_address_that_asks_too_often_is_refused_whatever_it_forwards(proxy):
    assert httpx.post(f"{proxy}/v1/score", json=SCORE).json()["scores"][0]["item"] == "gouda"
    forged = [{"X-Forwarded-For": f"10.0.0.{number}"} for number in range(30)]
    answers = [httpx.post(f"{proxy}/v1/score", json=SCORE, headers=headers).status_code for headers in forged]
    assert set(answers) == {200, 429}


def test_a_body_that_is_too_large_never_reaches_the_service(proxy):
    assert httpx.post(f"{proxy}/v1/score", content=b" " * (1 << 21)).status_code == 413


def test_a_head_that_does_not_come_and_connections_beyond_the_limit_are_ended(proxy):
    address = ("127.0.0.1", int(proxy.rpartition(":")[2]))
    with socket.create_connection(address, timeout=30) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert slow.recv(1000)[:12] in (b"", b"HTTP/1.1 408")
    body = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Type: application/json\r\n\r\n"
    held = [socket.create_connection(address, timeout=30) for _ in range(4)]
    for one in held:
        one.sendall(body)
    first = [one.recv(1000)[:12] for one in held]
    assert b"HTTP/1.1 429" in first
    for one in held:
        one.close()
