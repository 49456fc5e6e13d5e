"""Writes down what was scored, for the training of the next model; a request never waits for it.

    answer --bounded queue, full: dropped and counted--> thread: rows of candidates --> DIR/impressions-*.parquet

A file appears when it is complete, under its final name, and is never changed (but by `forget`). It holds the
candidates of one artifact, a row each:

    request_id, artifact, role (served or shadow), user, time, known_user, count (events in the memory that was read),
    place (in the request, from 0), item, number (of the item's fields), field_NAME (their values), score, probability

What is not yet in a file when the process is killed is lost: at most `seconds` of it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time as clock
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lifelong.errors import UsageError, require

if TYPE_CHECKING:
    from lifelong.serving.scorer import Answer, Scorer, ScoreRequest

logger = logging.getLogger(__name__)
ROWS, SECONDS, WAITING = 50_000, 60.0, 1_000
"""Rows of one file at most, about; seconds until a file is written; requests that wait at most."""
_HELD = 4
"""Files' worth of rows that are held where the disk takes none."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored request.

    Args:
        request_id: its name.
        scorer: that scored it.
        request: what was asked.
        answer: what was found.
        time: moment of the request, UTC seconds.
        role: whether a client got the answer.
    """

    request_id: str
    scorer: Scorer
    request: ScoreRequest
    answer: Answer
    time: int
    role: Literal["served", "shadow"] = "served"


class ImpressionsLog:
    """The log of one process.

    Args:
        folder: where files go; made if it is not there.
        count: called with ("logged", "dropped" or "failed", number of candidates).
        rows: see `ROWS`.
        seconds: see `SECONDS`.
        waiting: see `WAITING`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        count: Callable[[str, int], None],
        rows: int = ROWS,
        seconds: float = SECONDS,
        waiting: int = WAITING,
    ) -> None:
        self._arrow: Any = require("pyarrow", extra="impressions", purpose="an impressions log")
        self._parquet: Any = require("pyarrow.parquet", extra="impressions", purpose="an impressions log")
        self.folder, self._count, self._rows, self._seconds = folder, count, rows, seconds
        self._queue: queue.Queue[Scored | None] = queue.Queue(waiting)
        self._held: list[tuple[Scorer, list[dict[str, Any]]]] = []
        self._number, self._lock = 0, threading.Lock()
        _check(folder)
        self._thread = threading.Thread(target=self._run, name="lifelong-impressions", daemon=True)
        self._thread.start()

    def offer(self, scored: Scored) -> bool:
        """Take a request, or drop it where too many wait; returns at once."""
        try:
            self._queue.put_nowait(scored)
        except queue.Full:
            self._count("dropped", len(scored.answer.scores))
            return False
        return True

    def close(self) -> None:
        """Write what was taken, and end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def flush(self) -> None:
        """Write what was taken so far."""
        with self._lock:
            self._drain()
            self._write()

    def forget(self, user: str) -> int:
        """Take a user's rows out, of those that wait and of all files of the folder; how many there were."""
        with self._lock:
            self._drain()
            before = sum(len(rows) for _, rows in self._held)
            self._held = [(scorer, [row for row in rows if row["user"] != user]) for scorer, rows in self._held]
            waiting = before - sum(len(rows) for _, rows in self._held)
        return waiting + forget_impressions(self.folder, user)

    def of(self, user: str) -> list[dict[str, Any]]:
        """A user's rows in the files."""
        self.flush()
        found: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob("*.parquet")):
            found += self._parquet.read_table(path, filters=[("user", "==", user)]).to_pylist()
        return found

    def _run(self) -> None:
        due = clock.monotonic() + self._seconds
        while True:
            # Taken from the queue with the lock alone: what is in no place is missed by `flush` and `forget`.
            with self._queue.not_empty:
                if not self._queue.queue:
                    self._queue.not_empty.wait(max(0.01, due - clock.monotonic()))
            with self._lock:
                try:
                    scored = self._queue.get_nowait()
                    ended = scored is None
                except queue.Empty:
                    scored, ended = None, False
                if scored is not None:
                    self._take(scored)
                late = clock.monotonic() >= due
                if ended or late or sum(len(rows) for _, rows in self._held) >= self._rows:
                    self._write()
                    due = clock.monotonic() + self._seconds
            if ended:
                return

    def _drain(self) -> None:
        """Take all that waits; with the lock."""
        while True:
            try:
                scored = self._queue.get_nowait()
            except queue.Empty:
                return
            if scored is None:
                # The end is the thread's business.
                self._queue.put(None)
                return
            self._take(scored)

    def _take(self, scored: Scored) -> None:
        """Make rows of a request; with the lock."""
        size = len(scored.answer.scores)
        if sum(len(rows) for _, rows in self._held) >= _HELD * self._rows:
            self._count("failed", size)
            return
        try:
            rows = _rows_of(scored)
        except Exception:
            logger.exception("a scored request could not be written down")
            self._count("failed", size)
            return
        self._held.append((scored.scorer, rows))

    def _write(self) -> None:
        """Write a file for each artifact; what the disk refuses is held. With the lock."""
        groups: dict[str, list[tuple[Scorer, list[dict[str, Any]]]]] = defaultdict(list)
        for scorer, rows in self._held:
            groups[scorer.artifact.id].append((scorer, rows))
        self._held = []
        for parts in groups.values():
            rows = [row for _, some in parts for row in some]
            if not rows:
                continue
            try:
                self._write_file(parts[0][0], rows)
            except OSError as error:
                logger.error("impressions cannot be written into %s: %s", self.folder, error)
                self._held += parts
            else:
                self._count("logged", len(rows))

    def _write_file(self, scorer: Scorer, rows: list[dict[str, Any]]) -> None:
        self._number += 1
        stamp = clock.strftime("%Y%m%dT%H%M%S", clock.gmtime())
        path = self.folder / f"impressions-{stamp}-{os.getpid()}-{self._number}.parquet"
        table = self._arrow.Table.from_pylist(rows, schema=_schema(self._arrow, scorer))
        write_whole(table, path)


def forget_impressions(folder: Path, user: str) -> int:
    """Take a user's rows out of all files of a folder; how many there were.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", extra="impressions", purpose="an impressions log")
    gone = 0
    for path in sorted(folder.glob("*.parquet")):
        table = parquet.read_table(path)
        keep = np.array([value != user for value in table.column("user").to_pylist()], bool)
        if keep.all():
            continue
        gone += int((~keep).sum())
        if keep.any():
            write_whole(table.filter(keep), path)
        else:
            path.unlink()
    return gone


def write_whole(table: Any, path: Path) -> None:
    """Write a parquet file that is there as a whole or not at all."""
    parquet = require("pyarrow.parquet", extra="impressions", purpose="an impressions log")
    draft = path.with_name(f".{path.name}.new")
    try:
        parquet.write_table(table, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _check(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        # Of a process that was killed while it wrote.
        for draft in folder.glob(".impressions-*.new"):
            if clock.time() - draft.stat().st_mtime > 3600:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror or error}", expected="a folder for impressions"
        ) from error


def _schema(arrow: Any, scorer: Scorer) -> Any:
    fields = [(f"field_{name}", arrow.string()) for name in scorer.schema.item_fields[1:]]
    return arrow.schema(
        [
            ("request_id", arrow.string()),
            ("artifact", arrow.string()),
            ("role", arrow.string()),
            ("user", arrow.string()),
            ("time", arrow.int64()),
            ("known_user", arrow.bool_()),
            ("count", arrow.int64()),
            ("place", arrow.int32()),
            ("item", arrow.string()),
            ("number", arrow.list_(arrow.int32())),
            *fields,
            ("score", arrow.float64()),
            ("probability", arrow.float64()),
        ]
    )


def _rows_of(scored: Scored) -> list[dict[str, Any]]:
    """One row per candidate."""
    scorer, request, answer = scored.scorer, scored.request, scored.answer
    number_CF = scorer.overlay.numbers(request.items, request.fields)
    vocabularies = list(scorer.artifact.vocabularies.items())[1:]
    head = {
        "request_id": scored.request_id,
        "artifact": answer.artifact,
        "role": scored.role,
        "user": answer.user,
        "time": scored.time,
        "known_user": answer.known_user,
        "count": answer.count,
    }
    rows = []
    for place, score in enumerate(answer.scores):
        number = number_CF[place].tolist()
        values = {
            f"field_{name}": vocabulary.value_of(number[at + 1]) for at, (name, vocabulary) in enumerate(vocabularies)
        }
        found = {"item": score.item, "number": number, "score": score.score, "probability": score.probability}
        rows.append({**head, "place": place, **values, **found})
    return rows
