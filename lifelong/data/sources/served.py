"""The impressions log of `lifelong serve`, joined with responses: what the next model learns from.

Files by their columns: impressions (`request_id`; parquet), events (`user`, `item`, `time`, optionally `event_type`;
csv, as `lifelong export --events` writes them), optionally labels (`request_id`, `item`, `label`; csv).

A candidate that was shown is a target. Its response is 1 where the user did an event to the item within `window`
seconds from the request on (of the types in `clicks`; of several requests the last one before the event has it), else
0. One whose window is not over at the last event is left out: its response is not known yet. With labels, the label is
the response, and a candidate without one is left out. Answers in shadow were never shown.

Item fields are those that the service knew of the candidates; counted: items of events without them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.data.sources.parquet import Kind, ParquetFile, is_parquet, refuse_nulls, scan
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_files,
    check_number,
    check_options,
    conflicts,
    count,
    count_quirks,
    one_row_per_item,
    require_events,
    stage,
    without_meta,
)
from lifelong.data.sources.text import Column, Layout, Places, rows
from lifelong.errors import ConfigError, SourceError

SHOWN: dict[str, Kind] = {
    "request_id": "text",
    "role": "text",
    "user": "text",
    "item": "text",
    "time": "integer",
    "place": "integer",
}
OPTIONS = {"window": "3600", "clicks": ""}
_FIELD = "field_"


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open impressions and responses.

    Raises:
        SourceError: a file is not what it should be.
        ConfigError: an option is unknown or wrong.
    """
    settings = check_options(options, OPTIONS, source="served")
    window = check_number(settings, "window")
    if window is None or window <= 0:
        raise ConfigError([f"window = {settings['window']!r}: expected seconds above 0"])
    roles = _roles(check_files(_files(paths), source="served"))
    files = [ParquetFile.open(path) for path in roles["impressions"]]
    fields = [name for name in files[0].schema.names if name.startswith(_FIELD)]
    fields = [name for name in fields if all(name in file.schema.names for file in files)]
    events, types = _events(connection, roles["events"])
    record: dict[str, Any] = {"event_rows": count(events), **count_quirks(events)}
    require_events(record, source="served", files=roles["events"])
    shown = _shown(connection, files, fields, first=record["event_rows"])
    record |= {"impressions": count(shown), "impressions_in_shadow": sum(file.rows for file in files) - count(shown)}
    if roles["labels"]:
        labelled = _by_labels(connection, shown, roles["labels"], record)
    else:
        labelled = _by_clicks(shown, events, int(window), settings["clicks"], types=types, record=record)
    names = [name.removeprefix(_FIELD) for name in fields]
    items = None
    if fields:
        known = shown.select("item", "sequence", **{name: shown[_FIELD + name] for name in names})
        items = one_row_per_item(known, names)
        record |= {"conflicting_fields": conflicts(known, names), "items_without_fields": without_meta(events, known)}
    base = ["user", "item", "time", "sequence"]
    return RawLog(
        name="served impressions",
        events=events.select(base + ["event_type"] * types),
        items=items,
        item_fields=tuple(names),
        event_types=types,
        impressions=labelled.select([*base, "response"]),
        protocol="impressions",
        record=record,
    )


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of folders that are."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return found


def _roles(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Role -> files.

    Raises:
        SourceError: a file has none, or impressions or events are absent.
    """
    roles: dict[str, list[Path]] = {"impressions": [], "events": [], "labels": []}
    for path in files:
        names = ParquetFile.open(path).schema.names if is_parquet(path) else _head(path)
        if is_parquet(path) and "request_id" in names and "role" in names:
            roles["impressions"].append(path)
        elif not is_parquet(path) and {"request_id", "item", "label"} <= set(names):
            roles["labels"].append(path)
        elif not is_parquet(path) and {"user", "item", "time"} <= set(names):
            roles["events"].append(path)
        else:
            raise SourceError(
                f"its columns are {', '.join(names[:12])}",
                file=str(path),
                expected="impressions in parquet, events (user, item, time) or labels (request_id, item, label) in csv",
            )
    for role, fix in (
        ("impressions", "give the folder of serve --impressions-log"),
        ("events", "write them with `lifelong export --store URL --events events.csv`"),
    ):
        if not roles[role]:
            raise SourceError(f"there is no file of {role}", expected="impressions and events", fix=fix)
    return roles


def _head(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", file=str(path), expected="csv or parquet") from error


def _staged(connection: Any, files: Sequence[Path], columns: Sequence[Column]) -> Any:
    layout = Layout(tuple(columns), header=True, quoted=True)
    return stage(connection, rows(files, layout, Places()), layout.schema())


def _events(connection: Any, files: Sequence[Path]) -> tuple[Any, bool]:
    """Events, and whether they have types."""
    types = all("event_type" in _head(path) for path in files)
    columns = [Column("user", "id"), Column("item", "id"), Column("time", "integer")]
    table = _staged(connection, files, [*columns, *([Column("event_type")] if types else [])])
    kept = table.mutate(event_type=table["event_type"].nullif("")) if types else table
    if types and count(kept.filter(kept["event_type"].notnull())) == 0:
        return kept.drop("event_type"), False
    return kept, types


def _shown(connection: Any, files: Sequence[ParquetFile], fields: Sequence[str], *, first: int) -> Any:
    """Candidates that clients got, behind the events in the order of all rows."""
    wanted: dict[str, Kind] = {**SHOWN, **dict.fromkeys(fields, "any")}
    table = scan(connection, files, wanted)
    refuse_nulls(table, {name: name for name in SHOWN}, files)
    served = table.filter(table["role"] == "served")
    return served.mutate(time=served["time"].cast("int64"), sequence=served["sequence"] + first)


def _by_clicks(shown: Any, events: Any, window: int, clicks: str, *, types: bool, record: dict[str, Any]) -> Any:
    """Responses from events within the window."""
    wanted = [name.strip() for name in clicks.split(",") if name.strip()]
    if wanted and not types:
        raise ConfigError([f"clicks = {clicks!r}: the events have no types"])
    chosen = events.filter(events["event_type"].isin(wanted)) if wanted else events
    click = chosen.select(user="user", item="item", at="time", click="sequence")
    pairs = shown.select("user", "item", "time", "sequence").join(click, ["user", "item"])
    pairs = pairs.filter((pairs["at"] >= pairs["time"]) & (pairs["at"] < pairs["time"] + window))
    latest = ibis.row_number().over(ibis.window(group_by="click", order_by=[ibis.desc("time"), ibis.desc("sequence")]))
    answered = pairs.mutate(rank=latest).filter(lambda row: row["rank"] == 0).select("sequence").distinct()
    last = int(events["time"].max().to_pyarrow().as_py())
    closed = shown.filter(shown["time"] + window <= last)
    record |= {"impressions_still_open": count(shown) - count(closed), "clicks": count(click)}
    return _with(closed, answered.mutate(response=ibis.literal(1.0)), ["sequence"], absent=0.0)


def _by_labels(connection: Any, shown: Any, files: Sequence[Path], record: dict[str, Any]) -> Any:
    """Responses from a file."""
    columns = [Column("request_id", "id"), Column("item", "id"), Column("label", "number")]
    table = _staged(connection, files, columns)
    labels = table.group_by(["request_id", "item"]).aggregate(response=table["label"].max().cast("float64"))
    joined = _with(shown, labels, ["request_id", "item"], absent=None)
    found = joined.filter(joined["response"].notnull())
    record["impressions_without_label"] = count(shown) - count(found)
    return found


def _with(shown: Any, answers: Any, keys: Sequence[str], *, absent: float | None) -> Any:
    joined = shown.left_join(answers, list(keys))
    response = joined["response"] if absent is None else joined["response"].fill_null(absent)
    return joined.select(*[joined[name] for name in shown.columns], response=response.cast("float64"))
