"""With `--log json` each line of stderr is a JSON object, from the start of a process to its end."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("rocksdict")


def lines_of(words, act):
    process = subprocess.Popen(
        [sys.executable, "-m", "lifelong", "serve", *map(str, words), "--port", "0", "--log", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = act(process) or []
        out, err = process.communicate(timeout=60)
        assert out == ""
        return [json.loads(line) for line in [*lines, *err.splitlines()]]
    finally:
        process.kill()
        process.wait()


def test_a_service_that_is_asked_well_and_badly_and_is_stopped_writes_json_alone(artifact, tmp_path):
    def act(process):
        line = process.stderr.readline()
        address = json.loads(line)["message"].partition(" at ")[2].split()[0]
        host, port = address.removeprefix("http://").split(":")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}/nowhere", timeout=300)
        with socket.create_connection((host, int(port)), timeout=300) as one:
            one.sendall(b"no http\r\n\r\n")
            one.recv(1_000)
        with socket.create_connection((host, int(port)), timeout=300) as one:
            # Hangs up in the middle of a body.
            one.sendall(
                b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
        process.send_signal(signal.SIGTERM)
        return [line]

    found = lines_of([artifact.path, "--store", f"rocksdb://{tmp_path}/store"], act)
    assert {"time", "level", "logger", "message"} <= set(found[0])
    assert not [line for line in found if "traceback" in line]
    assert 404 in {line.get("status") for line in found}


def test_what_ends_the_command_is_a_line_of_the_log(artifact, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "something").write_text("else")
    found = lines_of([artifact.path, "--store", f"rocksdb://{tmp_path}/store"], lambda process: None)
    assert ("is not a store" in found[-1]["message"], found[-1]["level"]) == (True, "error")
