"""Taobao UserBehavior: csv without a header, `user,item,category,behaviour,unix seconds`.

Known quirks, all counted: rows outside the window (dropped), ties, exact duplicates (kept),
unsorted rows, items with a category that changes (the last one wins).

Options:
    window: `FIRST..LAST`, days in UTC+8, both inclusive; default the published 2017-11-25..2017-12-03; `all` keeps all.
    targets: behaviours that make a positive target, comma-separated; default every event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from lifelong.dataset.mapping import words
from lifelong.errors import ConfigError
from lifelong.offline.preparation.engine import count
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.text import Column, Layout, staged

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
)


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files."""
    window, targets = _window(options["window"]), _targets(options["targets"])
    table, places = staged(connection, paths, LAYOUT)
    inside = table.filter(table["time"].between(window[0], window[1] - 1)) if window else table
    events = inside.select("user", "item", "time", "sequence", "event_type")
    record: dict[str, Any] = {**places.record(), "window": options["window"]}
    record["out_of_window"] = record["rows"] - count(events)
    raw = RawLog("Taobao UserBehavior", events, event_types=True, target_types=targets, record=record)
    staging.add_fields(raw, inside, ["category"])
    return raw


def _window(text: str) -> tuple[int, int] | None:
    """First second inside and first second after the window; None for all."""
    if text == "all":
        return None
    try:
        first, last = (datetime.fromisoformat(day).replace(tzinfo=CHINA) for day in text.split(".."))
    except ValueError as error:
        problem = f"window = {text!r} is not FIRST..LAST (two days as YYYY-MM-DD) or all: {error}"
        raise ConfigError([problem], fix=f"window={OPTIONS['window']}") from error
    return int(first.timestamp()), int((last + timedelta(days=1)).timestamp())


def _targets(text: str) -> tuple[str, ...] | None:
    """Behaviours named in an option, None for all."""
    chosen = words(text)
    unknown = [name for name in chosen if name not in BEHAVIOURS]
    if unknown:
        raise ConfigError([f"targets: {name!r} is not a behaviour" for name in unknown], fix=", ".join(BEHAVIOURS))
    return chosen or None
