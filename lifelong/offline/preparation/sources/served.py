"""The impressions log of `lifelong serve`, joined with responses: what the next model learns from.

The role of a file follows from its columns: impressions (`request_id`; parquet), events (`user`, `item`, `time`,
optionally `event_type`; csv, as `lifelong export --events` writes them), optionally labels (`request_id`, `item`,
`label`; csv).

A candidate that was shown is a target. Its response is 1 if the user had an event with the item within `window` (1h)
after the request (of the types in `clicks`; of several requests, the last one before the event gets it), else 0. A
candidate is left out if its window is not over at the last event: its response is not known yet. With labels, the label
is the response, and a candidate without a label is left out.

Item fields are the fields that the service knew of the candidates; items of events without fields are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis

from lifelong.dataset.mapping import words
from lifelong.dataset.times import parse_duration
from lifelong.errors import ConfigError
from lifelong.offline.preparation.engine import count
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.parquet import Kind, ParquetFile, is_parquet, scan
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.text import Column, Layout, header_names, staged

SHOWN: dict[str, Kind] = {
    "request_id": "id",
    "user": "id",
    "item": "id",
    "time": "integer",
    "place": "integer",
}
OPTIONS = {"window": "1h", "clicks": ""}
NEEDED = {
    "impressions": "give the folder that a service writes as impressions_log",
    "events": "write them with `lifelong export --store URL --events events.csv`",
}
"""Role -> how to get such a file."""
CSV = Layout((), header=True, quoted=True)
_FIELD = "field_"


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open impressions and responses."""
    window = parse_duration(options["window"])
    if window == 0:
        raise ConfigError([f"window = {options['window']!r}: expected more than 0s"], fix="give a time such as 30m")
    files = [file for path in paths for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    roles = staging.by_marker(
        ((path, _columns(path)) for path in staging.check_files(files, source="served")),
        {"impressions": "place", "labels": "label", "events": "time"},
        NEEDED,
        expected="impressions in parquet, events (user, item, time) or labels (request_id, item, label) in csv",
    )
    opened = [ParquetFile.open(path) for path in roles["impressions"]]
    fields = [name for name in opened[0].schema.names if name.startswith(_FIELD)]
    # A field that was added while the log was written is missing in its older files: only what all have can be read.
    fields = [name for name in fields if all(name in file.schema.names for file in opened)]
    events, types = _events(connection, roles["events"])
    record: dict[str, Any] = {"event_rows": count(events), "impressions": sum(file.rows for file in opened)}
    shown = _shown(connection, opened, fields, first=record["event_rows"])
    if roles["labels"]:
        labelled = _by_labels(connection, shown, roles["labels"], record)
    else:
        labelled = _by_clicks(shown, events, window, options["clicks"], types=types, record=record)
    names = [name.removeprefix(_FIELD) for name in fields]
    raw = RawLog("served impressions", events, event_types=types, protocol="impressions", record=record)
    if fields:
        shown_fields = shown.select(
            "user", "item", "time", "sequence", **{name: shown[_FIELD + name] for name in names}
        )
        record["items_without_fields"] = staging.without_meta(events, shown_fields)
        staging.add_fields(raw, shown_fields, names)
    raw.impressions = labelled.select("user", "item", "time", "sequence", "response")
    return raw


def _columns(path: Path) -> Sequence[str]:
    return ParquetFile.open(path).schema.names if is_parquet(path) else header_names(path, CSV)


def _events(connection: Any, files: Sequence[Path]) -> tuple[Any, bool]:
    """Events, and whether they have types."""
    types = all("event_type" in header_names(path, CSV) for path in files)
    columns = (Column("user", "id"), Column("item", "id"), Column("time", "integer"))
    table, _ = staged(
        connection, files, replace(CSV, columns=(*columns, *(Column("event_type") for _ in range(types))))
    )
    events = table.mutate(event_type=table["event_type"].nullif("")) if types else table
    # A column without a single type says nothing of types; a model would get a field that is always missing.
    if types and count(events.filter(events["event_type"].notnull())) == 0:
        return events.drop("event_type"), False
    return events, types


def _shown(connection: Any, files: Sequence[ParquetFile], fields: Sequence[str], *, first: int) -> Any:
    """Candidates that clients were shown; in the order of all rows they come after the events."""
    wanted: dict[str, Kind] = {**SHOWN, **dict.fromkeys(fields, "any")}
    table = scan(connection, files, wanted, optional=fields)
    # Numbered behind all events, so that one `sequence` orders both.
    return table.mutate(time=table["time"].cast("int64"), sequence=table["sequence"] + first)


def _by_clicks(shown: Any, events: Any, window: int, clicks: str, *, types: bool, record: dict[str, Any]) -> Any:
    """Responses from events within the window."""
    wanted = words(clicks)
    if wanted and not types:
        found = f"clicks = {clicks!r}: the events have no types"
        raise ConfigError([found], fix="leave out clicks: every event counts as one")
    chosen = events.filter(events["event_type"].isin(wanted)) if wanted else events
    click = chosen.select(user="user", item="item", at="time", click="sequence")
    pairs = shown.select("user", "item", "time", "sequence").join(click, ["user", "item"])
    pairs = pairs.filter((pairs["at"] >= pairs["time"]) & (pairs["at"] < pairs["time"] + window))
    # An event answers one request alone, or one click would make several positives. The sequence decides among requests
    # of one second.
    latest = ibis.row_number().over(ibis.window(group_by="click", order_by=[ibis.desc("time"), ibis.desc("sequence")]))
    answered = pairs.mutate(rank=latest).filter(lambda row: row["rank"] == 0).select("sequence").distinct()
    # The events end there: whether a window that reaches further will see a click, nobody knows yet.
    last = int(events["time"].max().to_pyarrow().as_py())
    closed = shown.filter(shown["time"] + window <= last)
    record |= {"impressions_still_open": count(shown) - count(closed), "clicks": count(click)}
    return _with(closed, answered.mutate(response=ibis.literal(1.0)), ["sequence"], absent=0.0)


def _by_labels(connection: Any, shown: Any, files: Sequence[Path], record: dict[str, Any]) -> Any:
    """Responses from a file."""
    columns = (Column("request_id", "id"), Column("item", "id"), Column("label", "number"))
    table, _ = staged(connection, files, replace(CSV, columns=columns))
    # Two labels of one candidate would make two targets of it: the larger one counts.
    labels = table.group_by(["request_id", "item"]).aggregate(response=table["label"].max().cast("float64"))
    joined = _with(shown, labels, ["request_id", "item"], absent=None)
    answered = joined.filter(joined["response"].notnull())
    record["impressions_without_label"] = count(shown) - count(answered)
    return answered


def _with(shown: Any, answers: Any, keys: Sequence[str], *, absent: float | None) -> Any:
    joined = shown.left_join(answers, list(keys))
    response = joined["response"] if absent is None else joined["response"].fill_null(absent)
    return joined.select(*[joined[name] for name in shown.columns], response=response.cast("float64"))
