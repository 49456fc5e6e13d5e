"""Score requests from a table, scores into one: csv and jsonl with the standard library, parquet with pyarrow.

One row is one candidate: `user`, `item`, optionally `time` (UTC seconds), item fields and statistics, and
`user.<field>` of the user's profile. Rows stream: the neighbours of one user and moment become one request; nothing
holds the whole file, and the output keeps the order of the input.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.data.events import user_context
from lifelong.errors import SourceError, UsageError, require

if TYPE_CHECKING:
    from lifelong.serving.scorer import Answer, Score, Scorer, ScoreRequest

COLUMNS = ("user", "item", "score", "probability", "reason", "known_user", "count")
"""Columns of the output."""
FORMATS = ("csv", "jsonl", "parquet")
_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate of the input."""

    user: str
    item: str
    time: int | None
    fields: tuple[tuple[str, str | None], ...]
    profile: tuple[tuple[str, str | None], ...] = ()


def format_of(path: Path) -> str:
    """Format of a file by its ending.

    Raises:
        UsageError: none that is known.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise UsageError(f"{path}: the ending says no known format", expected=", ".join(FORMATS), fix="rename it")
    return ending


def score_table(scorer: Scorer, source: Path, out: Path, *, progress: Callable[[int], None] | None = None) -> int:
    """Score every row of a file; the output appears only when it is complete.

    Args:
        scorer: artifact and store.
        source: the requests.
        out: where the scores go.
        progress: called with the number of rows done.

    Returns:
        How many rows were scored.
    """
    format_of(out)
    profile = [user_context(field) for field in scorer.schema.user_fields]
    rows, done = read_rows(source, fields=scorer.overlay.fields, profile=profile), 0
    with _writer(out, scorer.schema.tasks) as write:
        while chunk := list(islice(rows, _ROWS)):
            requests = _requests(chunk)
            for answer in scorer.answer(requests):
                write(_lines(answer))
            done += len(chunk)
            if progress is not None:
                progress(done)
    return done


def read_rows(path: Path, *, fields: Sequence[str], profile: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a request file.

    Args:
        path: csv, jsonl or parquet.
        fields: item fields, and statistics of items, that may stand there as columns.
        profile: likewise `user.<field>`.

    Raises:
        SourceError: a row is not what it should be; names file and line.
    """
    readers = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    known = {"user", "item", "time", *fields, *profile}
    try:
        for line, values in readers[format_of(path)](path):
            yield _row(values, known, frozenset(profile), path=path, line=line)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", file=str(path), fix="check the path and the encoding") from error


def _row(values: Mapping[str, Any], known: set[str], profile: frozenset[str], *, path: Path, line: int) -> Row:
    unknown = sorted(key for key in values if key not in known)
    if unknown:
        raise SourceError(
            f"unknown column {unknown[0]!r}",
            file=str(path),
            line=line,
            expected=", ".join(sorted(known)),
            fix="rename it",
        )
    for key in ("user", "item"):
        if values.get(key) in (None, ""):
            raise SourceError(f"no {key}", file=str(path), line=line, column=key, expected="an id", fix="mend the row")
    given = {
        key: None if value in (None, "") else str(value)
        for key, value in values.items()
        if key not in ("user", "item", "time")
    }
    return Row(
        str(values["user"]),
        str(values["item"]),
        _time(values.get("time"), path=path, line=line),
        fields=tuple((key, value) for key, value in given.items() if key not in profile),
        profile=tuple((key.removeprefix(user_context("")), value) for key, value in given.items() if key in profile),
    )


def _time(value: Any, *, path: Path, line: int) -> int | None:
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise SourceError(
            f"{value!r} is no time", file=str(path), line=line, column="time", expected="whole UTC seconds"
        ) from None


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                if None in values or None in values.values():
                    raise SourceError("not as many columns as the head", file=str(path), line=reader.line_num)
                yield reader.line_num, values
        except csv.Error as error:
            raise SourceError(str(error), file=str(path), line=reader.line_num, expected="csv with a head") from error


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except ValueError as error:
                raise SourceError(f"not JSON: {error}", file=str(path), line=line) from error
            if not isinstance(values, dict):
                raise SourceError("not a JSON object", file=str(path), line=line, expected='{"user": .., "item": ..}')
            yield line, values


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet")
    arrow = require("pyarrow", extra="train", purpose="reading parquet")
    line = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for values in batch.to_pylist():
                    line += 1
                    yield line, values
    except arrow.ArrowInvalid as error:
        raise SourceError(f"not a parquet file: {error}", file=str(path)) from error


def _requests(rows: Sequence[Row]) -> list[ScoreRequest]:
    """One request per run of rows of one user, moment and profile."""
    from lifelong.serving.scorer import ScoreRequest

    requests = []
    for (user, time, profile), group in groupby(rows, key=lambda row: (row.user, row.time, row.profile)):
        members = list(group)
        items, fields = [row.item for row in members], [dict(row.fields) for row in members]
        requests.append(ScoreRequest(user, items, time, fields, dict(profile)))
    return requests


def _lines(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "user": answer.user,
            "item": score.item,
            "score": score.score,
            "probability": score.probability,
            "reason": score.reason,
            "known_user": answer.known_user,
            "count": answer.count,
            **_of_tasks(score),
        }
        for score in answer.scores
    ]


def _of_tasks(score: Score) -> dict[str, float | None]:
    """Columns of each task, of a model with several."""
    found: dict[str, float | None] = {}
    for task, of in (score.tasks or {}).items():
        found |= {f"score_{task}": of.score, f"probability_{task}": of.probability}
    return found


def _task_columns(tasks: Sequence[str]) -> tuple[str, ...]:
    several = tasks if len(tasks) > 1 else ()
    return tuple(f"{word}_{task}" for task in several for word in ("score", "probability"))


@contextmanager
def _writer(out: Path, tasks: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Write beside the target, and put it in place at the end."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with {"csv": _to_csv, "jsonl": _to_jsonl, "parquet": _to_parquet}[format_of(out)](
            unfinished, _task_columns(tasks)
        ) as write:
            yield write
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _to_csv(path: Path, more: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *more])
        writer.writeheader()
        # Booleans as in JSON and SQL, not as in Python.
        yield lambda lines: writer.writerows({**line, "known_user": str(line["known_user"]).lower()} for line in lines)


@contextmanager
def _to_jsonl(path: Path, more: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda lines: file.writelines(json.dumps(line) + "\n" for line in lines)


@contextmanager
def _to_parquet(path: Path, more: Sequence[str]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    arrow = require("pyarrow", extra="train", purpose="writing parquet")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet")
    types = (
        arrow.string(),
        arrow.string(),
        arrow.float64(),
        arrow.float64(),
        arrow.string(),
        arrow.bool_(),
        arrow.int64(),
    )
    columns = [*zip(COLUMNS, types, strict=True), *((name, arrow.float64()) for name in more)]
    schema = arrow.schema(columns)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda lines: writer.write_table(arrow.Table.from_pylist(lines, schema=schema))
