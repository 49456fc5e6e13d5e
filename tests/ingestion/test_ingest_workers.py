"""A file folded in by several processes, each into its own shards: what one process would have written."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rocksdict")

from support.variants import other_artifact
from support.victims import workers_of

from lifelong import errors
from lifelong.errors import LifelongError, LostProcessError, SourceError, UsageError
from lifelong.online.ingestion import files
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.opened_file import OpenedFile
from lifelong.online.ingestion.opened_file import opened as open_file
from lifelong.online.ingestion.task import Task, fold_file
from lifelong.online.ingestion.workers import _outcome, ingest_in_workers, number_of_workers
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Applied
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import Share, part_of
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.shards import Shards

START = 1_700_000_000


def rows_of(events) -> list[dict]:
    return [{"user": e.user, "item": e.item, "time": e.time, "event_type": e.event_type} for e in events]


def write_csv(path: Path, rows) -> Path:
    lines = ["user,item,time,event_type", *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def url(tmp_path) -> str:
    return f"rocksdb://{tmp_path}/store?shards=3"


@pytest.fixture
def opened(url):
    with closing(open_store(url)) as store:
        yield store


def assert_equal(artifact, found, wanted, *, source: str):
    """The same users, memories (to a rounding of sums), logs and watermark."""
    users = sorted(user for user, _ in wanted.scan())
    assert sorted(user for user, _ in found.scan()) == users
    runtime = Runtime(artifact)
    one, other = runtime.decode(found.read_many(users)), runtime.decode(wanted.read_many(users))
    assert one.count_B.tolist() == other.count_B.tolist()
    assert one.last_time_B.tolist() == other.last_time_B.tolist()
    for name, value in other.fields.items():
        np.testing.assert_allclose(one.fields[name], value, rtol=1e-5, atol=1e-5)
    assert [found.events(user) for user in users] == [wanted.events(user) for user in users]
    # When an id expires, depends on the clock.
    assert [dict(found.event_ids(user)).keys() for user in users] == [
        dict(wanted.event_ids(user)).keys() for user in users
    ]
    mark = wanted.watermark(source, 0)
    assert found.watermark(source, 0) == mark and found.positions(source, 0, users) == [mark] * len(users)


# The law, in one process


LINE = st.one_of(
    st.builds(
        lambda user, item, time, name: f"u{user},i{item},{START + time},view,{name}",
        st.integers(0, 6),
        st.integers(0, 9),
        st.integers(0, 30),
        st.sampled_from(["", "a", "b"]),
    ),
    st.sampled_from(["u1,i1,soon,view,", ",i1,1700000000,view,", "u1,i1", 'u2,"i 1",1700000000,view,a']),
)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(LINE, max_size=40),
    grown=st.integers(0, 40),
    late=st.sampled_from(["apply", "refuse"]),
    event_log=st.booleans(),
    named=st.booleans(),
    workers=st.integers(1, 4),
    stops=st.lists(st.integers(0, 6), max_size=6),
    size=st.integers(1, 9),
)
def test_shares_folded_one_by_one_and_interrupted_equal_one_process(
    artifact, tmp_path_factory, lines, grown, late, event_log, named, workers, stops, size
):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    columns = {"event_id": "name"} if named else {}
    wanted, stores = InMemoryStore(), {number: InMemoryStore() for number in range(4)}
    everyone = tuple(stores)
    shares = [Share(everyone[place::workers], 4) for place in range(workers)]

    def fold(share: Share, stop: int | None) -> Applied:
        part = Shards("part", share, {number: stores[number] for number in share.numbers}, items={})
        left = [stop]

        def progress(done: int, total: int) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise InterruptedError

        with open_file(path) as file:
            return fold_file(artifact, part, task(file), share=share, progress=progress)

    def task(file: OpenedFile) -> Task:
        return Task(file, "log", columns, {"late": late, "event_log": event_log}, "skip", size)

    for some in (lines[:grown], lines):
        path.write_text("\n".join(["user,item,time,event_type,name", *some]) + "\n")
        with open_file(path) as file:
            once = fold_file(artifact, wanted, task(file))
        for stop in stops:
            try:
                fold(shares[stop % workers], stop)
            except InterruptedError:
                continue
        outcomes = [fold(share, None) for share in shares]
        total = sum(outcomes, Applied())
        lines_of = [one.applied + one.duplicates + one.refused for one in (once, total)]
        assert lines_of[0] == lines_of[1]
        if not stops:
            assert total == once
        whole = Shards("all", Share(everyone, 4), stores)
        assert_equal(artifact, whole, wanted, source="log")


def test_lines_that_are_no_events_are_told_with_the_first_shard_alone(artifact, tmp_path):
    path = write_csv(tmp_path / "log.csv", [{"user": f"u{k}", "item": "i1", "time": "?", "t": ""} for k in range(9)])
    with open_file(path) as file:
        task = Task(file, "log", {}, {}, "skip", 100)
        outcomes = [
            fold_file(artifact, Shards("one", share, {share.numbers[0]: InMemoryStore()}, items={}), task, share=share)
            for share in (Share((0,), 2), Share((1,), 2))
        ]
    assert outcomes == [Applied(bad=9), Applied()]


# Processes


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_write_what_one_process_writes(artifact, opened, log, tmp_path, monkeypatch, workers, ending):
    monkeypatch.setattr(files, "BATCH", 50)
    rows, path, told = rows_of(log), tmp_path / f"log.{ending}", []
    random.Random(3).shuffle(rows)
    bad = list(range(0, len(rows), 90))
    for place in bad:
        rows[place] = {**rows[place], "time": "soon"}
    wanted, letters = InMemoryStore(), FileLetters(tmp_path / "bad.jsonl")
    options = {"late": "refuse", "on_bad": "skip", "source": "log"}
    for end in (200, len(rows), len(rows)):
        if ending == "csv":
            write_csv(path, rows[:end])
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows[:end]))
        once = ingest(artifact, wanted, path, **options)
        several = ingest(
            artifact,
            opened,
            path,
            **options,
            workers=workers,
            dead_letters=letters,
            progress=lambda *at: told.append(at),
        )
        assert several == once
        assert_equal(artifact, opened, wanted, source="log")
    letters.close()
    assert once.refused == 0 and once.duplicates == len(rows) - len(bad)
    kept = [json.loads(line)["offset"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert kept == [place + (2 if ending == "csv" else 1) for place in bad]
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


def test_at_a_bad_line_every_shard_has_all_events_before_it_and_none_behind(
    artifact, opened, log, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "BATCH", 20)
    rows = rows_of(log)
    path = write_csv(tmp_path / "log.csv", [*rows[:301], {**rows[301], "time": "?"}, *rows[302:]])
    with pytest.raises(SourceError, match="time") as caught:
        ingest(artifact, opened, path, source="log", workers=3)
    assert (caught.value.line, caught.value.column) == (303, "time")
    wanted = InMemoryStore()
    ingest(artifact, wanted, write_csv(tmp_path / "part.csv", rows[:301]), source="log")
    assert_equal(artifact, opened, wanted, source="log")
    applied = ingest(artifact, opened, write_csv(path, rows), source="log", workers=3)
    assert (applied.applied, applied.duplicates) == (len(rows) - 301, 301)


def test_a_worker_at_a_bad_line_does_not_stop_those_who_are_not_there_yet():
    (one, first), (two, second) = Pipe(), Pipe()
    told = []

    def come() -> None:
        second.send((3, 9))
        second.send(SourceError("bad", line=4))

    first.send(SourceError("bad", line=4))
    late = threading.Timer(0.2, come)
    late.start()
    with pytest.raises(SourceError, match="line 4"):
        _outcome(dict.fromkeys((one, two)), lambda *at: told.append(at), None)
    late.join()
    assert told == [(0, 9)]
    for pipe in (one, first, two, second):
        pipe.close()


def test_items_that_were_put_online_count_in_every_worker(artifact, opened, tmp_path):
    users = [f"u{place}" for place in range(30)]
    assert {part_of(user, 3) for user in users} == {0, 1, 2}
    rows = [{"user": user, "item": "new", "time": START, "event_type": "view"} for user in users]
    wanted = InMemoryStore()
    for store in (wanted, opened):
        store.commit(Commit(records={ITEMS: {"new": b'{"category": "c1"}'}}))
    path = write_csv(tmp_path / "log.csv", rows)
    ingest(artifact, wanted, path, source="log")
    ingest(artifact, opened, path, source="log", workers=3)
    assert_equal(artifact, opened, wanted, source="log")


def test_while_a_new_artifact_takes_over_one_process_writes_both(artifact, opened, log, tmp_path):
    from lifelong.online.memory import takeover

    path, newer = write_csv(tmp_path / "log.csv", rows_of(log)), other_artifact(artifact, tmp_path / "newer")
    ingest(artifact, opened, write_csv(tmp_path / "first.csv", rows_of(log[:100])), source="log", workers=2)
    takeover.add(opened, newer)
    assert number_of_workers(opened, None) == 1
    assert ingest(artifact, opened, path, source="log", workers=None).applied == len(log) - 100


@pytest.mark.parametrize("workers", [0, 4])
def test_more_workers_than_shards_are_refused(artifact, opened, store, tmp_path, workers):
    path = write_csv(tmp_path / "log.csv", [])
    with pytest.raises(UsageError, match=f"{workers} workers on a store of 3 shards") as caught:
        ingest(artifact, opened, path, workers=workers)
    assert caught.value.expected == "1 to 3"
    with pytest.raises(UsageError, match="on a store of 1 shard") as caught:
        ingest(artifact, store, path, workers=2)
    assert "shards=N" in caught.value.fix


def test_the_error_of_a_worker_is_the_parent_s_and_the_store_answers_again(artifact, opened, log, tmp_path):
    path = write_csv(tmp_path / "log.csv", rows_of(log))
    with open_file(path) as file:
        task = Task(file, "log", {}, {"late": "sometimes"}, "stop", 100)
        with pytest.raises(UsageError, match="late = 'sometimes'") as caught:
            ingest_in_workers(artifact, opened, task, 2)
        assert caught.value.exit_code == 2
        ingest_in_workers(artifact, opened, replace(task, folding={}), 2)
    assert opened.watermark("log", 0) == len(log) + 1


def test_a_worker_that_was_killed_is_said_and_a_second_run_ends_the_work(artifact, opened, log, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BATCH", 10)
    path = write_csv(tmp_path / "log.csv", rows_of(log))

    killed = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            killed.append(workers_of(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(LostProcessError, match=r"worker lifelong-shard-\d ended with exit code -9"):
        ingest(artifact, opened, path, source="log", workers=2, progress=kill_one)
    assert workers_of(os.getpid()) == []
    ingest(artifact, opened, path, source="log", workers=2)
    wanted = InMemoryStore()
    ingest(artifact, wanted, path, source="log")
    assert_equal(artifact, opened, wanted, source="log")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_a_signal_ends_all_processes_and_the_next_run_goes_on(artifact, url, log, tmp_path, number, code):
    path = write_csv(tmp_path / "log.csv", rows_of(log) * 40)
    command = [sys.executable, "-m", "lifelong", "ingest", str(artifact.path), "--store", url, str(path)]
    process = subprocess.Popen(
        [*command, "--source", "log", "--workers", "3"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where tests run in the background of a shell, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    end = time.monotonic() + 60
    while len(started := workers_of(process.pid)) < 3 and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    # A terminal sends it to all of them.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in started):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.01)
    with closing(open_store(url)) as store:
        ingest(artifact, store, path, source="log", workers=3)
        assert store.watermark("log", 0) == 40 * len(log) + 1


def test_workers_of_an_owner_that_was_killed_are_waited_for(artifact, url, tmp_path):
    open_store(url).close()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lifelong.online.store.rocksdb import RocksDbStore\n"
        "store = RocksDbStore(Path(sys.argv[1]))\nprint('open', flush=True)\ntime.sleep(1)\n"
    )
    one = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store" / "shard-1")], stdout=subprocess.PIPE, text=True
    )
    assert one.stdout is not None and one.stdout.readline() == "open\n"
    open_store(url).close()
    one.communicate()


# Errors between processes


@pytest.mark.parametrize(
    "error",
    [
        *(
            kind("found", expected="expected", fix="fix")
            for kind in vars(errors).values()
            if isinstance(kind, type)
            and issubclass(kind, LifelongError)
            and kind not in (errors.ConfigError, errors.StoreConflictError)
        ),
        errors.ConfigError(["one", "two"], fix="fix"),
        errors.StoreConflictError("found", users=frozenset("ab"), fix="fix"),
        SourceError("found", file="log.csv", line=3, column="time", expected="expected"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_is_the_same_in_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)
