"""Metarank's events as JSON lines: `item`, `user`, `ranking` and `interaction`, in files of any mixture, also gzipped.

An item of a ranking is an impression, an interaction is an event with its type. The label of an impression is 1 if an
interaction names its `ranking` and item. Interactions outside of rankings are events only. Users may be absent from
both: then the session stands for the user, and what has neither is counted and left out. Times are milliseconds since
1970, as text or number, or texts of ISO 8601.

Fields come with `item` and `user` events, of several values the last one wins; a list is one value. `relevancy` and the
fields of rankings and interactions are not used.

Options:
    labels: types of interaction that are labels, separated by commas, each a task of its own. Default: one label,
        `response`, for an interaction of any type.
    user: `user_or_session` (default), `user`, or `session`: who has a history.
    fields: fields of `item` events that are item fields, separated by commas; one of numbers alone is a number.
        Default: all that are no numbers.
    user_fields: fields of `user` events that are profiles. Default: all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.engine import count, stage
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.lines import objects
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.text import Places, chunks

OPTIONS: dict[str, str | tuple[str, ...]] = {
    "labels": "",
    "user": ("user_or_session", "user", "session"),
    "fields": "",
    "user_fields": "",
}
KINDS = ("item", "user", "ranking", "interaction")
ROWS = pa.schema(
    [
        ("kind", pa.string()),
        ("user", pa.string()),
        ("item", pa.string()),
        ("time", pa.int64()),
        ("sequence", pa.int64()),
        # Of a row of `item` and `user`: a field and its value; of `interaction`, its type.
        ("name", pa.string()),
        ("value", pa.string()),
        ("ranking", pa.string()),
    ]
)
_BATCH = 1 << 16
_OLDEST, _LATEST = 100_000_000_000, 253_402_300_799_999
"""Milliseconds: March 1973, and the end of the year 9999. What is smaller is taken for seconds, and refused."""


@dataclass(slots=True)
class _Seen:
    """What the lines hold: counts for the record, and the fields with the kinds of their values."""

    counts: Counter[str] = field(default_factory=Counter)
    text: dict[str, set[str]] = field(default_factory=lambda: {"item": set(), "user": set()})
    number: dict[str, set[str]] = field(default_factory=lambda: {"item": set(), "user": set()})
    below_0: set[str] = field(default_factory=set)
    types: Counter[str] = field(default_factory=Counter)
    rows: int = 0


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open files of events."""
    places, seen = Places(), _Seen()
    table = stage(connection, _batches(paths, options["user"], places, seen), ROWS)
    events = table.filter(table["kind"] == "interaction")
    shown = table.filter(table["kind"] == "ranking")
    tasks = _labels(options["labels"], seen)
    raw = RawLog(
        name="Metarank events",
        events=events.select("user", "item", "time", "sequence", event_type=events["name"]),
        event_types=True,
        record={**places.record(), **seen.counts, "interaction_types": dict(seen.types)},
    )
    _add_fields(raw, table, seen, options)
    if not seen.counts["impressions"]:
        return raw
    raw.impressions, raw.tasks, raw.protocol = _labelled(shown, events, tasks), tuple(tasks), "impressions"
    pairs = shown.select("ranking", "item").distinct()
    joined = events.filter(events["ranking"].notnull()).semi_join(pairs, ["ranking", "item"])
    raw.record["interactions_outside_of_rankings"] = count(events) - count(joined)
    return raw


def _labels(wanted: str, seen: _Seen) -> dict[str, tuple[str, ...] | None]:
    """Task -> types of interaction; None for all of them."""
    types = staging.words(wanted)
    if absent := [name for name in types if name not in seen.types]:
        known = ", ".join(sorted(seen.types)) or "none"
        raise ConfigError([f"labels: no interaction has the type {name}" for name in absent], fix=f"types: {known}")
    return {name: (name,) for name in types} or {"response": None}


def _labelled(shown: Any, events: Any, tasks: Mapping[str, tuple[str, ...] | None]) -> Any:
    """Impressions with their labels."""
    marks = [
        (events["name"].isin(types) if types else events["name"].notnull()).cast("float64").max().name(task)
        for task, types in tasks.items()
    ]
    answers = events.filter(events["ranking"].notnull()).group_by(["ranking", "item"]).aggregate(marks)
    joined = shown.left_join(answers, ["ranking", "item"])
    labels = [joined[task].fill_null(0.0).name(task) for task in tasks]
    return joined.select(*[joined[name] for name in ("user", "item", "time", "sequence")], *labels)


def _add_fields(raw: RawLog, table: Any, seen: _Seen, options: Mapping[str, str]) -> None:
    """Take the fields of items and users."""
    fields = _chosen(options, "fields", seen, "item", numbers=False)
    numbers = [name for name in fields if name not in seen.text["item"]]
    if wrong := [name for name in numbers if name in seen.below_0]:
        found = f"the numbers of the item field {wrong[0]} go below 0"
        raise SourceError(found, expected="numbers of at least 0", fix="leave the field out: --option fields=")
    if fields:
        raw.items = _last_values(table, "item", fields)
        raw.item_fields, raw.number_fields = tuple(fields), tuple(numbers)
        raw.record["items_without_fields"] = staging.without_meta(raw.events, raw.items)
    if profile := _chosen(options, "user_fields", seen, "user", numbers=True):
        raw.users, raw.user_fields = _last_values(table, "user", profile), tuple(profile)


def _chosen(options: Mapping[str, str], option: str, seen: _Seen, kind: str, *, numbers: bool) -> list[str]:
    """The fields that an option names, or all."""
    known = seen.text[kind] | seen.number[kind]
    wanted = staging.words(options[option])
    if absent := [name for name in wanted if name not in known]:
        fix = f"fields of {kind} events: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError([f"{option}: no {kind} event has the field {name}" for name in absent], fix=fix)
    return list(wanted) or sorted(known if numbers else seen.text[kind])


def _last_values(table: Any, kind: str, fields: Sequence[str]) -> Any:
    """One row per item or user: of each field the last value, by time."""
    rows = table.filter(table["kind"] == kind)
    rows = rows.mutate(place=ibis.row_number().over(ibis.window(group_by=kind, order_by=["time", "sequence"])))
    # Names of fields are those of the log, so none may become the name of an argument.
    last = [rows["value"].argmax(rows["place"], where=rows["name"] == name).name(name) for name in fields]
    return rows.group_by(kind).aggregate(last)


def _batches(paths: Sequence[Path], who: str, places: Places, seen: _Seen) -> Iterator[pa.RecordBatch]:
    """Rows of all events; `sequence` numbers them through all files."""
    made: list[dict[str, Any]] = []
    for path in paths:
        for chunk in chunks(path, places, chunk_bytes=1 << 22):
            for line, event in objects(path, chunk, json.loads):
                try:
                    rows = _rows(event, who, seen)
                except KeyError as error:
                    name = str(error.args[0])
                    raise SourceError(
                        "the field is missing",
                        file=str(path),
                        line=line,
                        column=name,
                        fix="add the field to the line, or remove the line",
                    ) from error
                except ValueError as error:
                    raise SourceError(
                        str(error), file=str(path), line=line, expected=_EXPECTED, fix="correct the line"
                    ) from error
                for row in rows:
                    made.append({**row, "sequence": seen.rows})
                    seen.rows += 1
                if len(made) >= _BATCH:
                    yield pa.RecordBatch.from_pylist(made, schema=ROWS)
                    made.clear()
    if made:
        yield pa.RecordBatch.from_pylist(made, schema=ROWS)


_EXPECTED = "an event as in https://docs.metarank.ai/reference/event-schema"


def _rows(event: Mapping[str, Any], who: str, seen: _Seen) -> list[dict[str, Any]]:
    """The rows of one event.

    Raises:
        KeyError: a field is missing.
        ValueError: a value is not what it should be.
    """
    kind = event["event"]
    if kind not in KINDS:
        raise ValueError(f"the event is {kind!r}, and not one of {', '.join(KINDS)}")
    seen.counts[f"{kind}_events"] += 1
    head: dict[str, Any] = {"kind": kind, "time": _seconds(event["timestamp"])}
    if kind in ("item", "user"):
        head[kind] = _id(event[kind], kind)
        return [{**head, "name": name, "value": value} for name, value in _fields(event, kind, seen)]
    user = _user(event, who)
    if user is None:
        seen.counts[f"{kind}s_without_user"] += 1
        return []
    head["user"] = user
    if kind == "interaction":
        seen.types[_id(event["type"], "type")] += 1
        ranking = event.get("ranking")
        ranked = None if ranking in (None, "") else _id(ranking, "ranking")
        return [{**head, "item": _id(event["item"], "item"), "name": _id(event["type"], "type"), "ranking": ranked}]
    items = event["items"]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"items holds {json.dumps(items)[:80]}")
    seen.counts["impressions"] += len(items)
    return [{**head, "item": _id(item["id"], "items.id"), "ranking": _id(event["id"], "id")} for item in items]


def _user(event: Mapping[str, Any], who: str) -> str | None:
    names = ("user", "session") if who == "user_or_session" else (who,)
    return next((_id(event[name], name) for name in names if event.get(name) not in (None, "")), None)


def _id(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{name} holds {value!r}")
    return str(value)


def _seconds(value: Any) -> int:
    """Seconds since 1970 of a timestamp.

    >>> _seconds("1599391467000"), _seconds(1599391467999), _seconds("2022-06-22T11:21:39Z")
    (1599391467, 1599391467, 1655896899)
    """
    if isinstance(value, str) and not value.strip().lstrip("-").isdigit():
        moment = datetime.fromisoformat(value.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not float(value) <= _LATEST:
        raise ValueError(f"timestamp holds {value!r}")
    milliseconds = int(max(float(value), 0.0))
    if milliseconds < _OLDEST:
        raise ValueError(f"timestamp holds {value!r}, which as milliseconds is before March 1973; seconds, perhaps")
    return milliseconds // 1000


def _fields(event: Mapping[str, Any], kind: str, seen: _Seen) -> list[tuple[str, str]]:
    """Names and values as text; absent values are left out."""
    found = []
    for each in event.get("fields") or []:
        if not isinstance(each, dict):
            raise ValueError(f"fields holds {each!r}")
        name, value = _id(each["name"], "fields.name"), each.get("value")
        if value is None or value == "" or value == []:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        (seen.number if is_number else seen.text)[kind].add(name)
        if is_number and value < 0:
            seen.below_0.add(name)
        found.append((name, _text(value)))
    return found


def _text(value: Any) -> str:
    """A value of a field as a text; a list is one value.

    >>> _text(True), _text(["white", "black"]), _text(2.0), _text("m")
    ('true', 'white,black', '2', 'm')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)
