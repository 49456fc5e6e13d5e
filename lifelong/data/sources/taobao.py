"""Taobao UserBehavior: csv without a header, `user,item,category,behaviour,unix seconds`.

Known quirks, all counted: rows outside the window (dropped), a cut last line (dropped), ties, exact duplicates (kept),
unsorted rows, an item whose category changes (the one that stands last wins).

Options:
    window: `FIRST..LAST`, days in UTC+8, both inside; default the published 2017-11-25..2017-12-03; `all` keeps all.
    targets: behaviours that make a positive target, comma-separated; default every event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_files,
    check_options,
    conflicts,
    count_quirks,
    one_row_per_item,
    require_events,
    stage,
)
from lifelong.data.sources.text import Column, Layout, Places, rows
from lifelong.errors import ConfigError

OPTIONS = {"window": "2017-11-25..2017-12-03", "targets": ""}
BEHAVIOURS = ("pv", "buy", "cart", "fav")
CHINA = timezone(timedelta(hours=8))
LAYOUT = Layout(
    (
        Column("user", "id"),
        Column("item", "id"),
        Column("category"),
        Column("event_type", choices=BEHAVIOURS),
        Column("time", "integer"),
    ),
    may_be_cut=True,
)


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files.

    Raises:
        SourceError: a line is not what it should be.
        ConfigError: an option is unknown or wrong.
    """
    settings = check_options(options, OPTIONS, source="taobao")
    window = _window(settings["window"])
    targets = _targets(settings["targets"])
    files, places = check_files(paths, source="taobao"), Places()
    table = stage(connection, rows(files, LAYOUT, places), LAYOUT.schema())
    inside = table.filter(table["time"].between(window[0], window[1] - 1)) if window else table
    events = inside.select("user", "item", "time", "sequence", "event_type")
    record: dict[str, Any] = places.record() | count_quirks(events)
    record["out_of_window"] = record["rows"] - record["events"]
    record["conflicting_fields"] = conflicts(inside, ["category"])
    record["window"] = settings["window"]
    require_events(record, source="taobao", files=files)
    return RawLog(
        name="Taobao UserBehavior",
        events=events,
        items=one_row_per_item(inside, ["category"]),
        item_fields=("category",),
        event_types=True,
        target_types=targets,
        record=record,
    )


def _window(text: str) -> tuple[int, int] | None:
    """First second inside, first second after; None for all.

    Raises:
        ConfigError: it is not two days.
    """
    if text == "all":
        return None
    try:
        first, last = (datetime.fromisoformat(day).replace(tzinfo=CHINA) for day in text.split(".."))
    except ValueError as error:
        problem = f"window = {text!r} is not FIRST..LAST (two days as YYYY-MM-DD) or all: {error}"
        raise ConfigError([problem], fix=f"window={OPTIONS['window']}") from error
    return int(first.timestamp()), int((last + timedelta(days=1)).timestamp())


def _targets(text: str) -> tuple[str, ...] | None:
    """Behaviours named in an option, None for all.

    Raises:
        ConfigError: one is unknown.
    """
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in chosen if name not in BEHAVIOURS]
    if unknown:
        raise ConfigError([f"targets: {name!r} is not a behaviour" for name in unknown], fix=", ".join(BEHAVIOURS))
    return chosen or None
