"""EB-NeRD: real news impressions (`behaviors`), earlier reading (`history`), and optionally `articles`.

What a parquet file is, is told by its columns. Targets: every article shown (`article_ids_inview`), label: clicked
(`article_ids_clicked`), at the impression's time. Events: the articles of the histories at their times, and the clicks
of the impressions at the impression's time, unless the same user, article and second stand in a history already.
Histories of several files (splits) overlap; an event that stands in several files counts once. Timestamps bear no zone
and are taken as UTC. The field `category` comes from `articles` (`category_str`, else `category`).

Counted: articles clicked but not shown (events, no target), events merged, articles without a row in `articles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.data.sources.parquet import Kind, ParquetFile, locate, refuse_nulls, scan
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_files,
    check_options,
    conflicts,
    count,
    count_quirks,
    one_row_per_item,
    require_events,
    to_seconds,
    without_meta,
)
from lifelong.errors import SourceError

LONGEST = 1 << 20
"""Sequence = row * LONGEST + place in the row's list, so no list may be longer."""
BEHAVIORS: dict[str, Kind] = {
    "user_id": "text",
    "impression_time": "time",
    "article_ids_inview": "ids",
    "article_ids_clicked": "ids",
}
HISTORY: dict[str, Kind] = {"user_id": "text", "article_id_fixed": "ids", "impression_time_fixed": "times"}
EVENT = ["user", "item", "time"]


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open behaviors, history and articles.

    Raises:
        SourceError: a file is not what it should be.
        ConfigError: an option is unknown.
    """
    check_options(options, {}, source="ebnerd")
    roles = _roles([ParquetFile.open(path) for path in check_files(paths, source="ebnerd")])
    record: dict[str, Any] = {f"{role}_rows": sum(file.rows for file in files) for role, files in roles.items()}
    earlier = _history(connection, roles["history"], record)
    shown, clicked = _impressions(connection, roles["behaviors"], record["history_rows"])
    new = clicked.anti_join(earlier, EVENT)
    record["clicks_in_history_already"] = count(clicked) - count(new)
    record["clicks_not_shown"] = count(clicked.anti_join(shown, EVENT))
    events = ibis.union(earlier, new)
    record |= count_quirks(events)
    require_events(record, source="ebnerd", files=[file.path for file in roles["history"]])
    raw = RawLog(name="EB-NeRD", events=events, impressions=shown, protocol="impressions", record=record)
    if roles["articles"]:
        articles = _articles(connection, roles["articles"])
        raw.items, raw.item_fields = one_row_per_item(articles, ["category"]), ("category",)
        record["articles_without_meta"] = without_meta(
            ibis.union(events.select("item"), shown.select("item")), articles
        )
        record["conflicting_fields"] = conflicts(articles, ["category"])
    return raw


def _roles(files: Sequence[ParquetFile]) -> dict[str, list[ParquetFile]]:
    """Role -> files.

    Raises:
        SourceError: a file has none, or behaviors or history is absent.
    """
    told_by = {"behaviors": "article_ids_inview", "history": "article_id_fixed", "articles": "category"}
    roles: dict[str, list[ParquetFile]] = {role: [] for role in told_by}
    for file in files:
        role = next((role for role, column in told_by.items() if column in file.schema.names), None)
        if role is None:
            raise SourceError(
                f"its columns are {', '.join(file.schema.names)}",
                file=str(file.path),
                expected="behaviors (article_ids_inview), history (article_id_fixed) or articles (category)",
            )
        roles[role].append(file)
    for role in ("behaviors", "history"):
        if not roles[role]:
            raise SourceError(f"there is no {role} file", expected="behaviors.parquet and history.parquet")
    return roles


def _history(connection: Any, files: Sequence[ParquetFile], record: dict[str, Any]) -> Any:
    """Events of the histories, merged over files.

    Raises:
        SourceError: two lists of a row have different lengths, or a value is absent.
    """
    rows = scan(connection, files, HISTORY)
    refuse_nulls(rows, {name: name for name in HISTORY}, files)
    uneven = rows.filter(rows["article_id_fixed"].length() != rows["impression_time_fixed"].length())
    _refuse(uneven, files, "article_id_fixed", "more or fewer articles than times")
    pairs = rows.mutate(read=rows["article_id_fixed"].zip(rows["impression_time_fixed"])).unnest("read", offset="at")
    events = pairs.select(
        user=pairs["user_id"].cast("string"),
        item=pairs["read"]["f1"].cast("string"),
        time=to_seconds(pairs["read"]["f2"]),
        sequence=pairs["sequence"] * LONGEST + pairs["at"],
    )
    missing = events.filter(events["item"].isnull() | events["time"].isnull())
    _refuse(missing.mutate(sequence=missing["sequence"] // LONGEST), files, "article_id_fixed", "an absent value")
    if len(files) == 1:
        return events
    before = count(events)
    last, starts = 0, []
    for file in files:
        starts.append(last * LONGEST)
        last += file.rows
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
        first: rows that stand before, for the sequence.

    Raises:
        SourceError: a value is absent.
    """
    rows = scan(connection, files, BEHAVIORS)
    refuse_nulls(rows, {name: name for name in BEHAVIORS}, files)
    rows = rows.mutate(
        user=rows["user_id"].cast("string"), time=to_seconds(rows["impression_time"]), place=rows["sequence"] + first
    )
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


def _refuse(rows: Any, files: Sequence[ParquetFile], column: str, found: str) -> None:
    """Check that there are no such rows.

    Raises:
        SourceError: there is one.
    """
    sequence = rows["sequence"].min().to_pyarrow().as_py()
    if sequence is not None:
        file, row = locate(files, sequence)
        raise SourceError(f"row {row} has {found}", file=file, column=column, expected="one time for each article")


def _articles(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """Article and category.

    Raises:
        SourceError: there is no article id.
    """
    column = "category_str" if all("category_str" in file.schema.names for file in files) else "category"
    rows = scan(connection, files, {"article_id": "text", column: "text"})
    refuse_nulls(rows, {"article_id": "article_id"}, files)
    return rows.select(
        item=rows["article_id"].cast("string"),
        category=rows[column].cast("string").nullif(""),
        sequence=rows["sequence"],
    )
