"""Work that is killed in the middle of it; see `support.kills`. Each function is what one process does."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.online.store.contract import Commit, MemoryStore
from lifelong.online.store.opening import open_store

POINTS = ("before the write", "after the write")
"""Places around a commit at which a victim ends itself: before anything is written; after all is, unacknowledged."""
BATCH = 7
"""Events of one commit: few, so that a kill falls between commits and into them."""

LOST = 3
"""Exit code of a process one of whose workers is gone."""

Doom = tuple[str, int] | None
"""A point, and the commit of the process that it belongs to; None where it is killed from outside."""


def ingest_file(artifact: str, url: str, path: str, acknowledged: str, doom: Doom, *, compact: bool = False) -> None:
    """Fold a file in; the number of bytes that are done is put at the end of a file after each commit."""
    from lifelong.online.ingestion import files

    files.BATCH = BATCH
    store = _doomed(open_store(url), doom)
    if compact:
        threading.Thread(target=_compact, args=(store,), daemon=True).start()
    say = _sayer(acknowledged)

    def progress(done: int, total: int) -> None:
        say(store.watermark("log", 0))

    files.ingest(Artifact.open(artifact), store, Path(path), source="log", progress=progress)
    store.close()


def ingest_in_workers(artifact: str, url: str, path: str, acknowledged: str) -> None:
    """Fold a file in by two workers; what every shard holds is said whenever one of them is further."""
    from lifelong.errors import LostProcessError
    from lifelong.online.ingestion import files

    files.BATCH = BATCH
    store, say = open_store(url), _sayer(acknowledged)

    def progress(done: int, total: int) -> None:
        with closing(open_store(url, read_only=True)) as seen:
            say(max(0, seen.watermark("log", 0)))

    try:
        files.ingest(Artifact.open(artifact), store, Path(path), source="log", progress=progress, workers=2)
    except LostProcessError:
        os._exit(LOST)
    store.close()


def workers_of(process: int) -> list[int]:
    """The workers of a process that folds events in by several."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
        except OSError:
            continue
        state, parent = status.rpartition(")")[2].split()[:2]
        if int(parent) == process and b"run_worker" in words and state != "Z":
            found.append(int(entry.name))
    return sorted(found)


def follow_topic(artifact: str, url: str, place: str, acknowledged: str, doom: Doom) -> None:
    """Follow a topic; the number of messages that are in the store is said after each batch."""
    from lifelong.online.ingestion import kafka
    from lifelong.online.ingestion.kafka_client import parse
    from lifelong.online.memory.updater import Updater

    opened, store = Artifact.open(artifact), _doomed(open_store(url), doom)
    updater, say = Updater(opened, store), _sayer(acknowledged)
    stream = kafka.Stream(
        parse(place),
        store,
        updater.apply_table,
        opened.config.dataset_schema,
        settings=kafka.StreamSettings(source="log", idle=2.0, batch=BATCH),
    )
    stream.run(lambda followed: say(sum(store.watermark("log", partition) + 1 for partition in followed.places)))
    store.close()


def serve(artifact: str, url: str, address: str, doom: Doom) -> None:
    """Serve over HTTP; where, is said in a file."""
    from lifelong.online.serving.app import create_app
    from lifelong.online.serving.run import run

    store = _doomed(open_store(url), doom)
    app = create_app(Artifact.open(artifact), store)
    run(app, host="127.0.0.1", port=0, ready=_sayer(address))
    store.close()


def fill(artifact: str, url: str, data: str, acknowledged: str, doom: Doom) -> None:
    """Backfill a dataset; the number of users who are done is said after each commit."""
    from lifelong.dataset.folder import Dataset
    from lifelong.online.memory import filling

    filling._EVENTS = 200
    store, say = _doomed(open_store(url), doom), _sayer(acknowledged)
    filling.backfill(
        Artifact.open(artifact), Dataset(Path(data)), store, event_log=True, progress=lambda done, total: say(done)
    )
    store.close()


def _sayer(path: str) -> Callable[[Any], None]:
    """Puts lines at the end of a file; what was said survives the process."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda word: (os.write(handle, f"{word}\n".encode()), None)[1]


def _doomed(store: MemoryStore, doom: Doom) -> MemoryStore:
    """A store whose process ends just before or after one of its commits; those of nothing do not count."""
    commit, number = store.commit, itertools.count(1)

    def doomed(change: Commit) -> None:
        counts = bool(change.users or change.watermarks)
        due = doom is not None and counts and next(number) == doom[1]
        if due and doom is not None and doom[0] == POINTS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(change)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    store.commit = doomed  # type: ignore[method-assign]
    return store


def _compact(store: Any) -> None:
    """Make RocksDB write and merge its files without a pause."""
    while True:
        store._db.flush()
        store._db.compact_range(None, None)
