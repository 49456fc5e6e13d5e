"""Files of rows: csv with the standard library, parquet with pyarrow; and the scores of tables of requests.

One row of requests is one candidate: `user`, `item`, optionally `time` (UTC seconds or ISO 8601), item fields, and
`user.<field>` of the user's profile. A mapping, such as that of the artifact's dataset, may say otherwise. Rows stream:
neighbouring rows of one user and time become one request. The whole file is never in memory, and the output has the
order of the input.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Protocol, cast

from lifelong.atomic import write_whole
from lifelong.dataset.events import Schema, user_context
from lifelong.dataset.mapping import TableMapping, mapping_of_events
from lifelong.dataset.query import RowQuery
from lifelong.dataset.times import TimeFormat, seconds_of
from lifelong.errors import SourceError, UsageError, require
from lifelong.online.memory.event import time_problem, whole_number
from lifelong.online.scoring.answer import Answer, ScoreRequest
from lifelong.online.scoring.online_items import OnlineItems
from lifelong.online.store.part import Share, part_of
from lifelong.tables import (
    TABLES,
    ColumnKind,
    check_types,
    expand,
    is_clock,
    is_path,
    reader_of,
    text_of,
    time_in_seconds,
)

Rows = Sequence[Mapping[str, Any]]
Numbered = tuple[int, Mapping[str, Any]]
"""A row, after the number of its line."""
SCORES = {
    "user": "string",
    "item": "string",
    "score": "double",
    "probability": "double",
    "reason": "string",
    "known_user": "bool",
    "count": "int64",
}
"""Column of a file of scores -> the Arrow name of its type."""
FORMATS = ("csv", "parquet")
_ROWS = 8_192
_TIMES = "give UTC seconds or ISO 8601 as in 2025-12-01T18:00 (UTC without a zone); a mapping may say another format"


def format_of(path: Path, formats: Sequence[str] = FORMATS) -> str:
    """Format of a file by its ending.

    Raises:
        UsageError: the ending is unknown.

    >>> format_of(Path("requests.csv"))
    'csv'
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in formats:
        raise UsageError(f"{path}: unknown file ending", expected=", ".join(formats), fix="rename the file")
    return ending


@contextlib.contextmanager
def written_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Callable[[Rows], object]]:
    """A function that appends rows to a file, which takes its name when it is complete.

    Args:
        path: its ending is the format.
        columns: column -> the Arrow name of its type, which only parquet needs. A row may lack some.
    """
    kind = format_of(path)
    # Before the work: a folder that cannot be made would be found out after the last row.
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        draft = stack.enter_context(write_whole(path))
        if kind == "parquet":
            arrow = require("pyarrow", extra="train", purpose="writing parquet")
            parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet")
            schema = arrow.schema([(name, arrow.type_for_alias(alias)) for name, alias in columns.items()])
            table = stack.enter_context(parquet.ParquetWriter(draft, schema))
            yield lambda rows: table.write_table(arrow.Table.from_pylist(list(rows), schema=schema))
            return
        file = stack.enter_context(draft.open("w", newline="", encoding="utf-8"))
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        # Booleans as in JSON and SQL, not as in Python.
        words = {True: "true", False: "false"}
        yield lambda rows: writer.writerows(
            {name: words[value] if isinstance(value, bool) else value for name, value in row.items()} for row in rows
        )


class Answers(Protocol):
    """What answers requests: a `Scorer`."""

    schema: Schema
    online_items: OnlineItems
    mapping: TableMapping | None

    def answer(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """One answer per request."""


def score_table(
    scorer: Answers,
    source: Path,
    out: Path,
    *,
    mapping: TableMapping | None = None,
    time: int | None = None,
    share: Share | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Score every row of a file; the output appears only when it is complete.

    Args:
        scorer: artifact and store.
        source: the requests.
        out: where the scores go.
        mapping: says which column is what, in place of that of the artifact's dataset.
        time: of rows that have none; None for now.
        share: only the rows of the users of these parts; None for all.
        progress: called with the number of rows done.

    Returns:
        How many rows were scored.
    """
    done = 0
    with written_rows(out, score_columns(scorer.schema)) as write:
        for scores in scored_rows(scorer, source, {}, mapping, time, share):
            write(scores)
            done += len(scores)
            if progress is not None:
                progress(done)
    return done


def score_columns(schema: Schema) -> dict[str, str]:
    """Column of a table of scores -> the Arrow name of its type."""
    several = schema.tasks if len(schema.tasks) > 1 else ()
    return SCORES | {f"{word}_{task}": "double" for task in several for word in ("score", "probability")}


def scored_rows(
    scorer: Answers,
    requests: Any,
    columns: Mapping[str, str],
    mapping: TableMapping | None = None,
    time: int | None = None,
    share: Share | None = None,
) -> Iterator[Rows]:
    """A row of scores per candidate, some at a time, in the order of the requests.

    Args:
        scorer: artifact and store.
        requests: a path, a glob, a list of them, or a table of another library.
        columns: our name -> the table's name, for columns with other names.
        mapping: says which column is what, in place of that of the artifact's dataset; that one does not apply to a
            table which lacks its columns and has `user` and `item`.
        time: see `score_table`, as is `share`.

    Raises:
        UsageError: `requests` is none of these, or there is no such column.
        SourceError: a row is malformed; names file and line.
    """
    rows = _requests(requests, _Columns(scorer, columns, mapping))
    if share is not None:
        rows = (row for row in rows if part_of(row.user, share.of) in share.numbers)
    if time is not None:
        rows = (replace(row, time=time) if row.time is None else row for row in rows)
    while chunk := list(islice(rows, _ROWS)):
        yield [row for answer in scorer.answer(_joined(chunk)) for row in _scores(answer)]


class _Columns:
    """What the columns of a table of requests are."""

    def __init__(self, scorer: Answers, columns: Mapping[str, str], mapping: TableMapping | None) -> None:
        self.fields = scorer.online_items.fields
        self.profile = [user_context(field) for field in scorer.schema.user_fields]
        self.names = ("user", "item", "time", *self.fields, *self.profile)
        self._of_profile = {name: columns[name] for name in self.profile if name in columns}
        self._given = {name: theirs for name, theirs in columns.items() if name not in self._of_profile}
        self._time_unit, self._kept = scorer.schema.time_unit, mapping is None
        self._take(scorer.mapping if mapping is None else mapping)

    def settle(self, names: Collection[str]) -> None:
        """Leave the mapping of the dataset for a table that is of another form: one of requests, by their own names."""
        own = {"user", "item"} <= set(names) and not {self.mapping.user, self.mapping.item} <= set(names)
        if self._kept and own:
            self._take(None)

    def _take(self, mapping: TableMapping | None) -> None:
        self._strict = mapping is None
        self.mapping: TableMapping = mapping_of_events(mapping, self._given, self.fields)
        roles = {name: getattr(self.mapping, name) for name in ("user", "item", "time")}
        theirs = {**roles, **{name: self.mapping.fields.get(name, name) for name in self.fields}, **self._of_profile}
        self._ours = {name: ours for ours, name in theirs.items() if name != ours}
        self.time = self.mapping.time
        self._times = TimeFormat(self.mapping.time_unit, self.mapping.time_format)
        self._kinds: dict[str, ColumnKind] = {theirs.get(name, name): "value" for name in (*self.fields, *self.profile)}
        self._kinds |= {self.mapping.user: "id", self.mapping.item: "id", self.time: "moment"}
        self._query = None if self.mapping.query is None else RowQuery(self.mapping.query)

    def given(self, rows: Iterable[Numbered], *, file: str) -> Iterator[Numbered]:
        """The rows that the query of the mapping makes of rows, some at a time; without one the rows themselves."""
        # The first row first: whoever reads its file may rule out the query (`settle`).
        rows, first = iter(rows), 0
        rows = chain(list(islice(rows, 1)), rows)
        if self._query is None:
            yield from rows
            return
        arrow = require("pyarrow", extra="train", purpose="a mapping with a query")
        # Some at a time: the query makes a table of them, and a file may be larger than RAM.
        while some := list(islice(rows, _ROWS)):
            numbers, values = zip(*some, strict=True)
            table = arrow.Table.from_pylist(list(values))
            names = self._query.names(table)
            texts = [name for name, kind in self._kinds.items() if kind != "moment" and name in names]
            made = self._query.rows(table, file=Path(file).name, first=first, texts=texts)
            places = made.pop("sequence")
            made.pop("file", None)
            for place, one in zip(places, zip(*made.values(), strict=True), strict=True):
                # The query counts rows over all batches, of which `first` came before this one.
                yield numbers[place - first], dict(zip(made, one, strict=True))
            first += len(table)

    def check(self, schema: Any, *, file: str) -> None:
        """Refuse columns of types that `prepare` refuses.

        Raises:
            SourceError: there is one.
        """
        self.settle(schema.names)
        if self._query is not None:
            return
        check_types(schema, self._kinds, file=file)
        # A column of timestamps or dates says itself how times are written.
        if self.time in schema.names and is_clock(schema.field(self.time).type):
            self._times = TimeFormat(self._times.unit if self._time_unit == "ordinal" else "s")

    def request(self, values: Mapping[str, Any], *, file: str, line: int) -> ScoreRequest:
        """The request of one row.

        Raises:
            SourceError: it is malformed; names file and line.
        """
        values = {self._ours.get(name, name): value for name, value in values.items()} if self._ours else values
        unknown = sorted(key for key in values if key not in self.names)
        if unknown and self._strict:
            found, expected = f"unknown column {unknown[0]!r}", ", ".join(sorted(self.names))
            raise SourceError(found, file=file, line=line, expected=expected, fix="rename it")
        given = {key: text_of(value) for key, value in values.items()}
        for key in ("user", "item"):
            if given.get(key) is None:
                raise SourceError(f"no {key}", file=file, line=line, column=key, expected="an id", fix="fix the row")
        of_item = {key: value for key, value in given.items() if key in self.fields}
        of_user = {key.removeprefix(user_context("")): value for key, value in given.items() if key in self.profile}
        time = self._time(values.get("time"), file=file, line=line)
        return ScoreRequest(str(given["user"]), [str(given["item"])], time, [of_item], of_user)

    def _time(self, value: Any, *, file: str, line: int) -> int | None:
        # NaN is how pandas writes that a number is missing.
        if value is None or value == "" or value != value:
            return None
        time = value
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            time = whole_number(value) if self._times.plain else self._times.seconds(value)
        if isinstance(time, str) and self._times.pattern is None and self._time_unit == "seconds":
            with contextlib.suppress(UsageError):
                time = seconds_of(time)
        wrong = time_problem(time, time_unit=self._time_unit)
        if wrong is not None:
            found, expected = wrong
            expected = expected if self._times.plain else self._times.expected
            raise SourceError(f"time {found}", file=file, line=line, column=self.time, expected=expected, fix=_TIMES)
        return cast(int, time)


def _requests(requests: Any, columns: _Columns) -> Iterator[ScoreRequest]:
    """A request of one candidate for each row.

    Raises:
        SourceError: a row is malformed; names file and line.
    """
    if not is_path(requests):
        for line, values in columns.given(_table_rows(requests, columns), file="the table"):
            yield columns.request(values, file="the table", line=line)
        return
    readers = {"csv": _csv, "parquet": _parquet}
    for path in expand(requests if isinstance(requests, list | tuple) else [requests]):
        try:
            for line, values in columns.given(readers[format_of(path)](path, columns), file=str(path)):
                yield columns.request(values, file=str(path), line=line)
        except (OSError, UnicodeDecodeError) as error:
            fix = "check the path and the encoding"
            raise SourceError(f"cannot be read: {error}", file=str(path), fix=fix) from error


def _table_rows(table: Any, columns: _Columns) -> Iterator[Numbered]:
    """Rows of a table in memory, with their numbers; timestamps as UTC seconds."""
    expected = f"a path, or {TABLES}"
    batches = reader_of(table, what="requests", expected=expected)
    columns.check(batches.schema, file="the table")
    # pandas adds its index, which has no name of its own, unless that counts the rows.
    unnamed = [name for name in batches.schema.names if name.startswith("__index_level_")]
    rows = (row for batch in batches for row in time_in_seconds(batch, columns.time).drop_columns(unnamed).to_pylist())
    return enumerate(rows, start=1)


def _csv(path: Path, columns: _Columns) -> Iterator[Numbered]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        # Names alone are needed, so a byte that is not UTF-8 is no error here; the reader below finds it.
        columns.settle(next(csv.reader(file), []))
    text = columns.mapping.of_log
    with path.open("rb") as stream, text.opened(stream) as file:
        reader = text.rows(file)
        try:
            rows = filter(None, reader)
            head = [name.strip() for name in next(rows, [])] if text.header else list(text.columns)
            for row in rows:
                if len(row) != len(head):
                    found, line = "not as many columns as the header", reader.line_num
                    raise SourceError(found, file=str(path), line=line, fix="correct the line")
                yield reader.line_num, dict(zip(head, row, strict=True))
        except csv.Error as error:
            raise SourceError(
                str(error), file=str(path), line=reader.line_num, expected="csv with a header", fix="correct the line"
            ) from error


def _parquet(path: Path, columns: _Columns) -> Iterator[Numbered]:
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet")
    try:
        with parquet.ParquetFile(path) as file:
            columns.check(file.schema_arrow, file=str(path))
            batches = (time_in_seconds(batch, columns.time) for batch in file.iter_batches(batch_size=_ROWS))
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except require("pyarrow", extra="train", purpose="reading parquet").ArrowInvalid as error:
        raise SourceError(
            f"not a parquet file: {error}",
            file=str(path),
            fix="write the file again, or name it .csv if it is one",
        ) from error


def _joined(rows: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """One request per run of rows of one user, moment and profile."""
    requests = []
    # Neighbours only: the output has the order of the input.
    for _, group in groupby(rows, key=lambda row: (row.user, row.time, row.profile)):
        run = list(group)
        fields = [field for row in run for field in row.fields or ()]
        requests.append(replace(run[0], items=[item for row in run for item in row.items], fields=fields))
    return requests


def _scores(answer: Answer) -> Rows:
    """A row per candidate, with columns of their own for the tasks of a model that has several."""
    rows = []
    for score in answer.scores:
        row = {"user": answer.user, "item": score.item, "score": score.score, "probability": score.probability}
        row |= {"reason": score.reason, "known_user": answer.known_user, "count": answer.count}
        for task, of in (score.tasks or {}).items():
            row |= {f"score_{task}": of.score, f"probability_{task}": of.probability}
        rows.append(row)
    return rows
