"""EB-NeRD: real news impressions (`behaviors`), earlier reading (`history`), and optionally `articles`.

The role of a parquet file follows from its columns. Targets are all articles shown (`article_ids_inview`), at the time
of the impression; the label is whether one was clicked (`article_ids_clicked`). Events are the articles of the
histories at their times, and the clicks of the impressions at the impression's time, unless a history has the event
(user, article and second) already. Histories of several files (splits) overlap; an event that is in several files
counts once. Timestamps have no time zone and are taken as UTC. The field `category` comes from `articles`
(`category_str`, else `category`).

Counted: articles clicked but not shown (events, no target), events merged, articles without a row in `articles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.preparation.engine import count
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.parquet import Kind, ParquetFile, refuse, scan
from lifelong.preparation.sources.rawlog import RawLog

OPTIONS: dict[str, str] = {}
LONGEST = 1 << 20
"""Sequence = row * LONGEST + place in the row's list, so no list may be longer."""
BEHAVIORS: dict[str, Kind] = {
    "user_id": "id",
    "impression_time": "time",
    "article_ids_inview": "ids",
    "article_ids_clicked": "ids",
}
HISTORY: dict[str, Kind] = {"user_id": "id", "article_id_fixed": "ids", "impression_time_fixed": "times"}
EVENT = ["user", "item", "time"]


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open behaviors, history and articles."""
    opened = [ParquetFile.open(path) for path in paths]
    roles = staging.by_marker(
        ((file, file.schema.names) for file in opened),
        {"behaviors": "article_ids_inview", "history": "article_id_fixed", "articles": "category"},
        {"behaviors": "", "history": ""},
        expected="behaviors (article_ids_inview), history (article_id_fixed) or articles (category)",
    )
    record: dict[str, Any] = {f"{role}_rows": sum(file.rows for file in files) for role, files in roles.items()}
    earlier = _history(connection, roles["history"], record)
    shown, clicked = _impressions(connection, roles["behaviors"], record["history_rows"])
    new = clicked.anti_join(earlier, EVENT)
    record["clicks_in_history_already"] = count(clicked) - count(new)
    record["clicks_not_shown"] = count(clicked.anti_join(shown, EVENT))
    events = ibis.union(earlier, new)
    raw = RawLog(name="EB-NeRD", events=events, impressions=shown, protocol="impressions", record=record)
    if roles["articles"]:
        articles = _articles(connection, roles["articles"])
        ids = ibis.union(events.select("item"), shown.select("item"))
        record["articles_without_meta"] = staging.without_meta(ids, articles)
        staging.add_fields(raw, articles, ["category"])
    return raw


def _history(connection: Any, files: Sequence[ParquetFile], record: dict[str, Any]) -> Any:
    """Events of the histories, merged over files."""
    rows = scan(connection, files, HISTORY)
    uneven = rows.filter(rows["article_id_fixed"].length() != rows["impression_time_fixed"].length())
    expected = "one time for each article"
    refuse(uneven, files, "article_id_fixed", "more or fewer articles than times", expected=expected)
    pairs = rows.mutate(read=rows["article_id_fixed"].zip(rows["impression_time_fixed"])).unnest("read", offset="at")
    events = pairs.select(
        user=pairs["user_id"].cast("string"),
        item=pairs["read"]["f1"].cast("string"),
        time=staging.to_seconds(pairs["read"]["f2"]),
        sequence=pairs["sequence"] * LONGEST + pairs["at"],
    )
    missing = events.filter(events["item"].isnull() | events["time"].isnull())
    missing = missing.mutate(sequence=missing["sequence"] // LONGEST)
    refuse(missing, files, "article_id_fixed", "an absent value", expected=expected)
    if len(files) == 1:
        return events
    before = count(events)
    last, starts = 0, []
    for file in files:
        starts.append(last * LONGEST)
        last += file.rows
    # The number of the file, from 1: how many files start at or before the row.
    which = sum((events["sequence"] >= start).cast("int64") for start in starts)
    # An event twice in one file is two events; the same event in two files is one.
    copy = ibis.row_number().over(ibis.window(group_by=[*EVENT, "file"], order_by="sequence"))
    numbered = events.mutate(file=which).mutate(copy=copy)
    merged = numbered.group_by([*EVENT, "copy"]).aggregate(sequence=numbered["sequence"].min()).drop("copy")
    record["history_events_in_several_files"] = before - count(merged)
    return merged


def _impressions(connection: Any, files: Sequence[ParquetFile], first: int) -> tuple[Any, Any]:
    """Labelled impressions, and clicks.

    Args:
        connection: of the engine.
        files: of behaviors.
        first: number of the first row, from which sequences count.

    Raises:
        SourceError: a value is absent.
    """
    rows = scan(connection, files, BEHAVIORS)
    time = staging.to_seconds(rows["impression_time"])
    rows = rows.mutate(user=rows["user_id"].cast("string"), time=time, place=rows["sequence"] + first)
    each = rows.unnest("article_ids_inview", offset="at")
    shown = each.select(
        user=each["user"],
        item=each["article_ids_inview"].cast("string"),
        time=each["time"],
        sequence=each["place"] * LONGEST + each["at"],
        response=each["article_ids_clicked"].contains(each["article_ids_inview"]).cast("float64"),
    )
    each = rows.unnest("article_ids_clicked", offset="at")
    clicked = each.select(
        user=each["user"],
        item=each["article_ids_clicked"].cast("string"),
        time=each["time"],
        sequence=each["place"] * LONGEST + each["at"],
    )
    return shown, clicked


def _articles(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """Article and category."""
    column = "category_str" if all("category_str" in file.schema.names for file in files) else "category"
    rows = scan(connection, files, {"article_id": "id", column: "id"}, optional=[column])
    return rows.select(
        item=rows["article_id"].cast("string"),
        category=rows[column].cast("string").nullif(""),
        sequence=rows["sequence"],
    )
