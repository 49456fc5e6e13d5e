"""Writes down what was scored, for the training of the next model; a request never waits for it.

    answer --bounded queue, full: dropped and counted--> thread: rows of candidates --> DIR/impressions-*.parquet

A file appears when it is complete, under its final name, and is never changed (but by `forget`). It holds the
candidates of one artifact, a row each:

    request_id, artifact, user, time, known_user, count (events in the memory that was read),
    place (in the request, from 0), item, number (of the item's fields), field_NAME (their values), score, probability

What is not yet in a file when the process is killed is lost: at most `seconds` of it.

Several processes may write into one folder, and each holds rows that are in no file yet. `forget` leaves a notice there
before it cleans the files: each process takes the users out of its own rows before it writes the next file.

    .forget-<token>    SHA-256 of the users' ids, a line each; goes after a day
    .writing           locked while a file or a notice is written, so that no file appears behind the back of a notice
    .forgetting        locked while files are rewritten, so that no two processes rewrite the same one
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import queue
import secrets
import threading
import time as clock
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.atomic import DRAFT, replace_text, sync, write_whole
from lifelong.errors import StoreUnavailableError, UsageError, require
from lifelong.online.background import Background

if TYPE_CHECKING:
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.serving.service import Scored

logger: logging.Logger = logging.getLogger(__name__)
ROWS, SECONDS, WAITING = 50_000, 60.0, 1_000
"""Rows of one file at most, about; seconds until a file is written; requests that wait at most."""
_NOTICE, _NOTICE_SECONDS = ".forget-", 86_400
"""Beginning of a notice's name, and how long it stays: longer than any process holds rows."""
_HELD = 4
"""How many files' rows are held in RAM while the disk takes none."""


class ImpressionsLog:
    """The log of one process.

    Args:
        folder: where files go; made if it is not there.
        count: called with ("logged", "dropped" or "failed", number of candidates).
        rows: see `ROWS`.
        seconds: see `SECONDS`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the folder cannot be written.
    """

    folder: Path

    def __init__(
        self,
        folder: Path,
        *,
        count: Callable[[str, int], None],
        rows: int = ROWS,
        seconds: float = SECONDS,
    ) -> None:
        self._arrow: Any = require("pyarrow", extra="impressions", purpose="an impressions log")
        self._parquet: Any = require("pyarrow.parquet", extra="impressions", purpose="an impressions log")
        self.folder, self._count, self._rows, self._seconds = folder, count, rows, seconds
        # Bounded: if the disk is slower than the requests, impressions are dropped before the RAM is full.
        self._queue: queue.Queue[Scored] = queue.Queue(WAITING)
        self._held: list[tuple[Scorer, list[dict[str, Any]]]] = []
        self._next: Scored | None = None
        # The lock is for the rows, between the thread that writes them and who forgets or reads a user.
        self._number, self._lock, self._due = 0, threading.Lock(), clock.monotonic() + seconds
        _check(folder)
        self._known_notices = _notices(folder)
        self._background = Background(self._pass, name="impressions", failure="impressions cannot be written")

    def start(self) -> None:
        """Write what is taken from time to time, until `close`."""
        self._background.start()

    def offer(self, scored: Scored) -> bool:
        """Take a request, or drop it where too many wait; returns at once."""
        try:
            # Never waits: this is called on the way of a request.
            self._queue.put_nowait(scored)
        except queue.Full:
            self._count("dropped", len(scored.answer.scores))
            return False
        self._background.wake()
        return True

    def close(self) -> None:
        """Write what was taken, and stop."""
        self._background.close()
        with contextlib.suppress(StoreUnavailableError):
            self.flush()

    def flush(self) -> None:
        """Write what was taken so far."""
        with self._lock:
            try:
                self._drain()
            finally:
                # Also while the store is away: what has become rows needs it no more.
                self._write()

    def forget(self, users: Collection[str]) -> int:
        """Take users' rows out, of those that wait and of all files of the folder; how many there were.

        Other processes that write into the folder take out those that they hold before they write their next file.
        """
        with self._lock:
            self._drain()
            before = self._num_held
            self._take_out({_digest(user) for user in users})
            waiting = before - self._num_held
        # After the lock is released: to rewrite the files takes long, and rows are taken meanwhile.
        return waiting + forget_impressions(self.folder, users)

    def _take_out(self, digests: Collection[str]) -> None:
        """Take users out of the rows that are held; with the lock."""
        self._held = [
            (scorer, [row for row in rows if _digest(row["user"]) not in digests]) for scorer, rows in self._held
        ]

    def _obey(self) -> None:
        """Take out whom other processes forgot since the last file; with the lock, and that of the folder."""
        notices = _notices(self.folder)
        if new := notices - self._known_notices:
            # What still waits was scored before the notice as well.
            while self._take_one():
                pass
            self._take_out({digest for notice in new for digest in (self.folder / notice).read_text().split()})
        self._known_notices = notices

    def of(self, user: str) -> list[dict[str, Any]]:
        """A user's rows in the files."""
        self.flush()
        rows: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob("*.parquet")):
            rows += self._parquet.read_table(path, filters=[("user", "==", user)]).to_pylist()
        return rows

    def _pass(self) -> float:
        """Take one request; write where there are rows enough or they have waited long enough."""
        with self._lock:
            # One request for each hold of the lock, so that `forget` and `of` get it in between.
            taken = self._take_next()
            if clock.monotonic() >= self._due:
                self._write()
        return 0.0 if taken else max(0.0, self._due - clock.monotonic())

    def _drain(self) -> None:
        """Take all that waits; with the lock."""
        while self._take_next():
            pass

    def _take_next(self) -> bool:
        """Take the next request that waits, and write if there are rows enough; whether there was one. With the lock.

        Without it a request would be neither in the queue nor in the rows for a moment, where `flush` and `forget`
        miss it.
        """
        taken = self._take_one()
        if taken and self._num_held >= self._rows:
            self._write()
        return taken

    def _take_one(self) -> bool:
        """Take the next request that waits into the rows; whether there was one."""
        try:
            scored = self._next or self._queue.get_nowait()
        except queue.Empty:
            return False
        # It stays the next one while the store is away that has the fields of its items.
        self._next = scored
        size = len(scored.answer.scores)
        if self._num_held >= _HELD * self._rows:
            self._count("failed", size)
        else:
            try:
                self._held.append((scored.scorer, _rows_of(scored)))
            except StoreUnavailableError:
                raise
            # Whatever else is wrong with a request, it must not come again and again as the next one.
            except Exception:
                logger.exception("a scored request could not be written down")
                self._count("failed", size)
        self._next = None
        return True

    @property
    def _num_held(self) -> int:
        return sum(len(rows) for _, rows in self._held)

    def _write(self) -> None:
        """Write a file for each artifact; what the disk refuses is held. With the lock."""
        # Before the writing: a disk that refuses is tried again after the same time, and not at once.
        self._due = clock.monotonic() + self._seconds
        if not self._num_held:
            return
        try:
            with _locked(self.folder, ".writing"):
                self._obey()
                self._write_files()
        except OSError as error:
            logger.error("impressions cannot be written into %s: %s", self.folder, error)

    def _write_files(self) -> None:
        groups: dict[str, list[tuple[Scorer, list[dict[str, Any]]]]] = defaultdict(list)
        for scorer, rows in self._held:
            groups[scorer.artifact.id].append((scorer, rows))
        self._held = []
        for parts in groups.values():
            rows = [row for _, held in parts for row in held]
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
        # Several processes may write in one second, so the time alone is no name.
        path = self.folder / f"impressions-{stamp}-{os.getpid()}-{self._number}.parquet"
        table = self._arrow.Table.from_pylist(rows, schema=_schema(self._arrow, scorer))
        with write_whole(path) as draft:
            self._parquet.write_table(table, draft)


def forget_impressions(folder: Path, users: Collection[str]) -> int:
    """Take users' rows out of all files of a folder; how many there were.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: there is no such folder.
    """
    parquet = require("pyarrow.parquet", extra="impressions", purpose="an impressions log")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", expected="a service's `impressions_log`", fix="check the path")
    # This lock before `.writing`, here and in `_check`: in opposite orders two processes would wait for each other for
    # ever.
    with _locked(folder, ".forgetting"):
        with _locked(folder, ".writing"):
            _leave_notice(folder, users)
            _remove_drafts(folder)
        # After the notice, and without `.writing`: files that appear from here on are written by processes that have
        # obeyed it, and the earlier ones are all listed now.
        return sum(_clean_file(parquet, path, frozenset(users)) for path in sorted(folder.glob("*.parquet")))


def _clean_file(parquet: Any, path: Path, users: Collection[str]) -> int:
    """Take users' rows out of a file; how many there were."""
    table = parquet.read_table(path)
    keep = np.array([value not in users for value in table.column("user").to_pylist()], bool)
    if keep.all():
        return 0
    if keep.any():
        with write_whole(path) as draft:
            parquet.write_table(table.filter(keep), draft)
    else:
        # Also brought to the disk: after a power failure the name of a removed file could be there again.
        path.unlink()
        sync(path.parent)
    return int((~keep).sum())


def _digest(user: str) -> str:
    """The form of an id in a notice, which names nobody to who only looks at the folder."""
    return hashlib.sha256(user.encode()).hexdigest()


def _notices(folder: Path) -> set[str]:
    # A notice that is being written is not whole yet; it is obeyed under its final name.
    return {path.name for path in folder.glob(_NOTICE + "*") if path.suffix != DRAFT}


def _leave_notice(folder: Path, users: Collection[str]) -> None:
    """Tell other processes whom to take out of their rows; old notices go."""
    for name in _notices(folder):
        # Another process may remove the same old notice.
        with contextlib.suppress(FileNotFoundError):
            if clock.time() - (folder / name).stat().st_mtime > _NOTICE_SECONDS:
                (folder / name).unlink()
    replace_text(folder / f"{_NOTICE}{secrets.token_hex(8)}", "".join(f"{_digest(user)}\n" for user in users))


@contextlib.contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Hold one of the folder's locks, for which others wait; the system releases it when the process ends."""
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Waits: others hold it only while they write a file, or rewrite those that name a user.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, ".forgetting"), _locked(folder, ".writing"):
            _remove_drafts(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror or error}",
            expected="a folder for impressions",
            fix="choose a folder that this user may write to",
        ) from error


def _remove_drafts(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote; with both locks nobody writes."""
    for draft in folder.glob("*impressions-*" + DRAFT):
        draft.unlink(missing_ok=True)


def _schema(arrow: Any, scorer: Scorer) -> Any:
    fields = [(f"field_{name}", arrow.string()) for name in scorer.schema.item_fields[1:]]
    return arrow.schema(
        [
            ("request_id", arrow.string()),
            ("artifact", arrow.string()),
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
    number_CF = scorer.online_items.numbers(request.items, request.fields)
    vocabularies = list(scorer.artifact.vocabularies.items())[1:]
    head = {
        "request_id": scored.request_id,
        "artifact": answer.artifact,
        "user": answer.user,
        "time": scored.time,
        "known_user": answer.known_user,
        "count": answer.count,
    }
    rows = []
    for position, score in enumerate(answer.scores):
        number = number_CF[position].tolist()
        values = {
            f"field_{name}": vocabulary.value_of(number[at + 1]) for at, (name, vocabulary) in enumerate(vocabularies)
        }
        scores = {"item": score.item, "number": number, "score": score.score, "probability": score.probability}
        rows.append({**head, "place": position, **values, **scores})
    return rows
