"""From checked batches to a table in the connection, and counts that every source reports.

Rows go through one at a time in batches, so that memory stays bounded; the table lives where the connection keeps its
tables (a database file, or memory with spilling).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from lifelong.data import engine
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.spark import java_layout
from lifelong.errors import ConfigError, SourceError


def stage(connection: Any, batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema) -> Any:
    """Write batches into a new table of the connection.

    Args:
        connection: of `open_engine`.
        batches: produced lazily; an error in them comes out as it is.
        schema: their columns.

    Returns:
        The table as an Ibis expression.
    """
    failures: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield from batch.to_batches() if isinstance(batch, pa.Table) else (batch,)
        except BaseException as error:
            failures.append(error)
            raise

    try:
        return engine.stage(connection, guarded(), schema)
    except Exception:
        # The engine wraps what the generator raised; the caller wants the error itself.
        if failures:
            raise failures[0] from None
        raise


def check_files(paths: Sequence[Path], *, source: str) -> list[Path]:
    """The files, once it is sure that each is one.

    Raises:
        SourceError: no file is named, one is missing, or one is a folder.
    """
    if not paths:
        raise SourceError(f"no file was named for the source {source!r}", expected="at least one file or glob")
    for path in paths:
        if path.is_dir():
            raise SourceError("this is a folder", file=str(path), expected="a file", fix=f"name its files: {path}/*")
        if not path.exists():
            raise SourceError("there is no such file", file=str(path), expected="an existing file")
    return list(paths)


def expand(folder: Path, pattern: str) -> list[Path]:
    """Files that a path or glob names, relative to `folder`; the path itself where nothing is found."""
    path = Path(pattern)
    base = Path(path.anchor) if path.is_absolute() else folder
    relative = str(path.relative_to(path.anchor)) if path.is_absolute() else pattern
    return sorted(base.glob(relative)) or [base / relative]


def check_options(options: Mapping[str, str], known: Mapping[str, str], *, source: str) -> dict[str, str]:
    """All options with their defaults.

    Args:
        options: given by the user.
        known: name -> default.

    Raises:
        ConfigError: an option is unknown.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        fix = f"options of {source}: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError([f"the source {source!r} has no option {name!r}" for name in unknown], fix=fix)
    return {**known, **options}


def check_choice(settings: Mapping[str, str], name: str, choices: Sequence[str]) -> None:
    """Check one option.

    Raises:
        ConfigError: it is none of the choices.
    """
    if settings[name] not in choices:
        raise ConfigError([f"{name} = {settings[name]!r} is not one of {', '.join(choices)}"])


def check_number(settings: Mapping[str, str], name: str) -> float | None:
    """A number, None where the option is empty.

    Raises:
        ConfigError: it is no number.
    """
    try:
        return float(settings[name]) if settings[name] else None
    except ValueError:
        raise ConfigError([f"{name} = {settings[name]!r} is not a number"]) from None


# The engine's own functions: microseconds since 1970; a timestamp from a text, null where the text does not fit.
epoch_us: Any = ibis.udf.scalar.builtin(lambda moment: None, name="epoch_us", signature=(("timestamp",), "int64"))
try_strptime: Any = ibis.udf.scalar.builtin(
    lambda text, layout: None, name="try_strptime", signature=(("string", "string"), "timestamp")
)


def parsed(text: Any, layout: str) -> Any:
    """Timestamps from texts in a strptime layout, null where a text does not fit.

    Raises:
        UsageError: the engine does not know the layout.
    """
    return try_strptime(text, java_layout(layout) if engine.is_spark(text.get_backend()) else layout)


def to_seconds(moment: Any) -> Any:
    """Whole seconds since 1970 of a timestamp, rounded down (Ibis' own `epoch_seconds` has 32 bits)."""
    return (epoch_us(moment) / 1_000_000).floor().cast("int64")


def one_row_per_item(table: Any, fields: Sequence[str], *, key: str = "item") -> Any:
    """Fields of items from rows that repeat them: of several values, the one that stands last in the source wins.

    Args:
        table: columns `item`, `sequence` and `fields`.
        fields: names of the fields; a null never wins over a value.
        key: column of the ids, where it is not items that have the fields.
    """
    last = [table[field].argmax(table["sequence"], where=table[field].notnull()).name(field) for field in fields]
    return table.group_by(key).aggregate(last)


def conflicts(table: Any, fields: Sequence[str], *, key: str = "item") -> dict[str, int]:
    """For each field, how many items, or whose ids are in the column `key`, have more than one value of it."""
    if not fields:
        return {}
    # Field names are the user's, so none may become the name of an argument.
    differs = [(table[field].min() != table[field].max()).name(field) for field in fields]
    per_item = table.group_by(key).aggregate(differs)
    counted = per_item.aggregate([per_item[field].sum().name(field) for field in fields]).to_pyarrow().to_pylist()[0]
    return {field: int(counted[field] or 0) for field in fields}


def count_quirks(events: Any) -> dict[str, int]:
    """Counts over a table of events.

    Returns:
        events, users and items; `ties`: events that share their time with another of the same user that stands before;
        `duplicates`: events equal to another in all but their place (kept: two equal purchases are two events);
        `unsorted`: events that stand after one of the same user with a later time.
    """
    window = ibis.window(group_by="user", order_by=["time", "sequence"])
    placed = events.select(
        tie=(events["time"] == events["time"].lag().over(window)).fill_null(False),
        late=(events["sequence"] < events["sequence"].lag().over(window)).fill_null(False),
    )
    alike = events.group_by([name for name in events.columns if name != "sequence"]).aggregate(extra=events.count() - 1)
    totals = events.aggregate(events=events.count(), users=events["user"].nunique(), items=events["item"].nunique())
    counted: dict[str, int] = {}
    for expression in (
        totals,
        placed.aggregate(ties=placed["tie"].sum(), unsorted=placed["late"].sum()),
        alike.aggregate(duplicates=alike["extra"].sum()),
    ):
        row = expression.to_pyarrow().to_pylist()[0]
        counted |= {name: int(value or 0) for name, value in row.items()}
    return counted


def count(table: Any) -> int:
    """Number of rows."""
    return int(table.count().to_pyarrow().as_py())


def without_meta(events: Any, items: Any) -> int:
    """How many items of the events have no row in `items`."""
    return count(events.select("item").distinct().anti_join(items, "item"))


def rated(raw: RawLog, log: Any, threshold: float) -> RawLog:
    """Labels from ratings: every rated row is an event and a labelled impression.

    Args:
        raw: the log without labels.
        log: columns `user`, `item`, `time`, `sequence`, `rating`.
        threshold: label = rating >= threshold.
    """
    liked = (log["rating"] >= threshold).cast("float64")
    raw.impressions = log.select("user", "item", "time", "sequence", response=liked)
    raw.protocol = "impressions"
    raw.record["threshold"] = threshold
    return raw


def require_events(record: Mapping[str, Any], *, source: str, files: Sequence[Path] = ()) -> None:
    """Refuse a log without a single event.

    Raises:
        SourceError: there is none.
    """
    if not record["events"]:
        raise SourceError(
            f"the source {source!r} has no events", file=", ".join(map(str, files)), expected="at least one event"
        )
