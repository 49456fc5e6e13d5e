"""A topic into a store of shards by several processes: what one process would have written, whatever is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from support.victims import workers_of

from lifelong.errors import LostProcessError, SourceError, UsageError
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.kafka import Followed, Place, StreamSettings
from lifelong.online.ingestion.kafka_client import parse
from lifelong.online.ingestion.topic_workers import StreamWorkers, TopicJob, together
from lifelong.online.ingestion.workers import number_of_workers
from lifelong.online.memory.updater import Applied
from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import Share, part_of
from lifelong.online.store.shards import Shards

START = 1_700_000_000
_PATIENCE = 300


def rows_of(log):
    return [{"user": e.user, "item": e.item, "time": e.time, "event_type": e.event_type} for e in log]


@pytest.fixture
def url(tmp_path):
    return f"rocksdb://{tmp_path}/store?shards=3"


@pytest.fixture
def opened(url):
    with contextlib.closing(open_store(url)) as store:
        yield store


def stream_of(artifact, store, url, *, workers=3, letters=None, **settings):
    chosen = StreamSettings(**{"idle": 1.0, **settings})
    return StreamWorkers(artifact, store, TopicJob(parse(url), chosen), workers, letters)


def positions(store, topic):
    """Of each shard, in the topic's partitions."""
    return [[shard.watermark(f"kafka:{topic}", part) for part in range(3)] for shard in store._shards.values()]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_write_what_one_process_writes_and_go_on_where_they_stopped(
    artifact, dataset, log, kafka, topic, opened, workers
):
    rows = rows_of(log)
    kafka.send(topic, rows[: len(rows) // 2])
    first = stream_of(artifact, opened, kafka.url(topic), workers=workers, batch=16).run()
    kafka.send(topic, rows[len(rows) // 2 :])
    told = []
    second = stream_of(artifact, opened, kafka.url(topic), workers=workers, batch=16).run(told.append)
    assert first.applied + second.applied == Applied(applied=len(rows))
    assert verify(artifact, dataset, opened).equal
    # Every shard has passed every message, and the last report says so.
    assert len(set(map(tuple, positions(opened, topic)))) == 1
    assert sum(place.offset + 1 for place in second.places.values()) == len(rows)
    assert told[-1] == second and [place.lag for place in second.places.values()] == [0, 0, 0]
    assert workers_of(os.getpid()) == []


def test_a_worker_whose_shards_are_at_different_offsets_applies_what_each_lacks(
    artifact, dataset, log, kafka, topic, opened
):
    rows, job = rows_of(log), TopicJob(parse(kafka.url(topic)), StreamSettings(idle=1.0))
    # One partition, all of which is one batch: it lies on both sides of the shard's offset.
    kafka.send(topic, rows[: len(rows) // 2], partition=0)
    share = Share((0,), 3)
    alone = Shards("shard 0", share, {0: opened._shards[0]})
    ahead = job.stream(artifact, alone, None, share).run().applied.applied
    assert 0 < ahead < len(rows) // 2
    # Of two workers, one has this shard and another one.
    kafka.send(topic, rows[len(rows) // 2 :], partition=0)
    opened.align()
    done = stream_of(artifact, opened, kafka.url(topic), workers=2, batch=16_384).run().applied
    assert (done.applied, done.duplicates) == (len(rows) - ahead, ahead)
    assert verify(artifact, dataset, opened).equal


def test_a_bad_message_stops_every_shard_behind_the_same_message(artifact, kafka, topic, opened):
    rows = [{"user": f"u{k}", "item": f"i{k}", "time": START + k} for k in range(40)]
    assert {part_of(row["user"], 3) for row in rows} == {0, 1, 2}
    kafka.send(topic, [*rows[:30], b"not JSON", *rows[30:]], partition=0)
    with pytest.raises(SourceError, match="partition 0, offset 30"):
        stream_of(artifact, opened, kafka.url(topic), batch=8).run()
    assert positions(opened, topic) == [[29, -1, -1]] * 3
    assert sorted(user for user, _ in opened.scan()) == sorted(row["user"] for row in rows[:30])
    assert workers_of(os.getpid()) == []


def test_messages_that_are_left_out_are_counted_and_kept_once(artifact, kafka, topic, opened, tmp_path):
    rows = [{"user": f"u{k}", "item": f"i{k}", "time": START + k} for k in range(40)]
    kafka.send(topic, [*rows[:10], None, b"[]", {"user": "ann", "item": "", "time": START}, *rows[10:]], partition=1)
    with contextlib.closing(FileLetters(tmp_path / "letters.jsonl")) as letters:
        followed = stream_of(artifact, opened, kafka.url(topic), letters=letters, on_bad="skip").run()
    assert (followed.applied.applied, followed.applied.bad) == (40, 3)
    kept = [json.loads(line) for line in (tmp_path / "letters.jsonl").read_text().splitlines()]
    assert [letter["offset"] for letter in kept] == [10, 11, 12]
    assert positions(opened, topic) == [[-1, 42, -1]] * 3


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "ended with exit code -9"), (signal.SIGTERM, "was stopped")]
)
def test_a_worker_that_somebody_ended_is_said_and_a_second_run_ends_the_work(
    artifact, dataset, log, kafka, topic, opened, number, how
):
    kafka.send(topic, rows_of(log))
    ended = []

    def end_one(followed):
        # There are places once every worker has reported: none of them is still starting.
        if not ended and followed.places:
            ended.append(workers_of(os.getpid())[0])
            os.kill(ended[0], number)

    with pytest.raises(LostProcessError, match=rf"worker lifelong-shard-\d {how}"):
        stream_of(artifact, opened, kafka.url(topic), batch=4, idle=None).run(end_one)
    assert workers_of(os.getpid()) == []
    stream_of(artifact, opened, kafka.url(topic)).run()
    assert verify(artifact, dataset, opened).equal


class Command:
    """A running `lifelong ingest` of a topic."""

    def __init__(self, artifact, url, place, folder, *options):
        words = [sys.executable, "-m", "lifelong", "ingest", str(artifact.path), "--store", url, "--from", place]
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*words, "--json", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                # Where tests run in the background of a shell, Ctrl-C is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
            )

    def wait_for(self, reached):
        end = time.monotonic() + _PATIENCE
        while not (found := reached()):
            assert self.process.poll() is None and time.monotonic() < end, self.errors.read_text()
            time.sleep(0.05)
        return found

    def workers(self, number=3):
        return self.wait_for(lambda: len(found := workers_of(self.process.pid)) == number and found)


@pytest.fixture
def command(artifact, url, kafka, topic, tmp_path):
    running = []

    def start(*options):
        running.append(Command(artifact, url, kafka.url(topic), tmp_path, *options))
        return running[-1]

    yield start
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def gone(workers):
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.01)


def through(url, topic, number):
    """Whether every shard has applied so many messages."""
    with contextlib.suppress(Exception), contextlib.closing(open_store(url, read_only=True)) as store:
        return all(sum(offsets) + 3 == number for offsets in positions(store, topic))
    return False


@pytest.mark.parametrize(
    ("number", "all_of_them"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_a_signal_ends_the_command_with_everything_said(
    artifact, dataset, log, kafka, topic, url, command, number, all_of_them
):
    kafka.send(topic, rows_of(log))
    one = command("--workers", "3", "--metrics-port", "0")
    workers = one.workers()
    one.wait_for(lambda: through(url, topic, len(log)))
    address = next(line for line in one.errors.read_text().splitlines() if "Metrics at" in line).split()[-1]

    def metrics():
        with urlopen(address) as reply:
            return reply.read().decode()

    # A worker reports a batch after it is in the store.
    one.wait_for(lambda: f'lifelong_stream_events_total{{outcome="applied"}} {len(log):.1f}' in metrics())
    # A terminal sends Ctrl-C to all of them, and some managers of services SIGTERM.
    os.killpg(one.process.pid, number) if all_of_them else one.process.send_signal(number)
    out, _ = one.process.communicate(timeout=_PATIENCE)
    assert one.process.returncode == 0, one.errors.read_text()
    said = json.loads(out)
    assert (said["applied"], said["duplicates"]) == (len(log), 0)
    assert [place["lag"] for place in said["partitions"].values()] == [0, 0, 0]
    assert "Traceback" not in one.errors.read_text()
    gone(workers)
    with contextlib.closing(open_store(url, read_only=True)) as store:
        assert verify(artifact, dataset, store).equal


def test_a_signal_while_workers_start_is_no_failure(artifact, kafka, topic, url, command):
    kafka.send(topic, [{"user": "ann", "item": "i1", "time": START}])
    one = command("--workers", "3")
    workers = one.workers()
    one.process.send_signal(signal.SIGTERM)
    out, _ = one.process.communicate(timeout=_PATIENCE)
    assert one.process.returncode == 0, one.errors.read_text() + out
    assert "Traceback" not in one.errors.read_text()
    gone(workers)


def test_workers_end_with_a_parent_that_was_killed_and_the_next_run_ends_the_work(
    artifact, dataset, log, kafka, topic, url, command
):
    rows = rows_of(log)
    kafka.send(topic, rows[: len(rows) // 2])
    one = command("--workers", "3")
    workers = one.workers()
    one.wait_for(lambda: through(url, topic, len(rows) // 2))
    kafka.send(topic, rows[len(rows) // 2 :])
    one.process.kill()
    gone(workers)
    # By default one worker per shard, at most one per core.
    other = command("--idle", "2")
    other.process.communicate(timeout=_PATIENCE)
    assert other.process.returncode == 0, other.errors.read_text()
    with contextlib.closing(open_store(url, read_only=True)) as store:
        assert verify(artifact, dataset, store).equal
        assert positions(store, topic)[0] == positions(store, topic)[1] == positions(store, topic)[2]


def test_reports_of_workers_that_read_the_same_messages_are_one(artifact):
    ahead = Followed(Applied(applied=3, bad=1), 2, {0: Place(7, 0), 1: Place(3, None)})
    behind = Followed(Applied(applied=1), 2, {0: Place(4, 3), 1: Place(3, None)})
    found = together([ahead, behind])
    assert found == Followed(Applied(applied=4, bad=1), 2, {0: Place(4, 3), 1: Place(3, None)})
    assert together([]) == Followed()


def test_a_commit_of_one_worker_of_very_many_is_not_too_large(artifact, kafka, topic, opened):
    job = TopicJob(parse(kafka.url(topic)), StreamSettings(batch=16_384))
    assert job.stream(artifact, opened, None, Share((0,), 3)).settings.batch == 3 * 16_384
    assert job.stream(artifact, opened, None, Share((0,), 256)).settings.batch == 1_000_000


def test_more_workers_than_shards_are_refused(opened):
    assert number_of_workers(opened, 2) == 2
    with pytest.raises(UsageError, match="4 workers on a store of 3 shards"):
        number_of_workers(opened, 4)


def test_a_store_that_processes_share_needs_no_workers(artifact, kafka, topic, redis_url, tmp_path):
    one = Command(artifact, redis_url, kafka.url(topic), tmp_path, "--workers", "2")
    out, _ = one.process.communicate(timeout=_PATIENCE)
    assert one.process.returncode == 2
    assert "start this command several times" in out
