"""VK-LSVD: half a year of short videos, every exposure with its answers, in files of one week each and without times.

The role of a file follows from its columns: weeks (`week_00.parquet` to `week_26.parquet`), optional
`items_metadata.parquet` and `users_metadata.parquet`. The rows of a week are in the order of time, so the time of a row
is its number over all weeks: an ordinal that, unlike others, orders the rows of different users too. The week is taken
from the name of the file, whatever the order in which files are named.

Every exposure is an impression, labelled by the columns of `labels`; exposures with a positive one are the events. With
the week of the test (26) the published split is kept (protocol `given`): weeks 0 to 24, 25 and 26. Without it the
impressions are cut by their order.

`train_interactions_rank` of both files of metadata counts the whole training period, which would let the future in, and
is not read; neither are the embeddings, nor place, platform and agent of the exposure.

Source: "VK-LSVD: Large Short-Video Dataset", 2026; made from the columns that its card names, not run on its files.

Options:
    labels: answers to predict, separated by commas, of `like`, `dislike`, `share`, `bookmark`, `click_on_author` and
        `open_comments`. Default: `like`.
    watched: seconds from which an exposure also has the label `watched` (`timespent` ends at 255). Default: no such
        label.
    history: `positive` (default) or `all`: which exposures are events.
    duration: `drop` (default) or `keep`: the seconds of a video as an item field that is a number.
    demographics: `drop` (default) or `keep`: age, gender and geo of the users as profiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.parquet import Kind, ParquetFile, scan
from lifelong.preparation.sources.rawlog import RawLog

LABELS = ("like", "dislike", "share", "bookmark", "click_on_author", "open_comments")
WATCHED = "watched"
PROFILE_FIELDS = ("age", "gender", "geo")
OPTIONS: dict[str, str | tuple[str, ...]] = {
    "labels": "like",
    "watched": "",
    "history": ("positive", "all"),
    "duration": ("drop", "keep"),
    "demographics": ("drop", "keep"),
}
MARKERS = {"weeks": "timespent", "items": "duration", "users": "age"}
"""Role -> the column that only files of this role have."""
SPLITS = {"train": range(25), "validation": range(25, 26), "test": range(26, 27)}
"""Published split -> its weeks."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the parquet files."""
    labels, least = _labels(options["labels"]), staging.check_number(options, "watched")
    profiles = options["demographics"] == "keep"
    roles = staging.by_marker(
        ((file, file.schema.names) for file in map(ParquetFile.open, paths)),
        MARKERS,
        dict.fromkeys(("weeks", "users") if profiles else ("weeks",), ""),
        expected="weeks with timespent, items_metadata with duration, or users_metadata with age",
    )
    weeks = _in_order(roles["weeks"])
    shown = _exposures(connection, list(weeks.values()), labels, least)
    tasks = (*labels, WATCHED) if least is not None else labels
    raw = RawLog("VK-LSVD", shown, time_unit="ordinal", tasks=tasks, record=_record(weeks))
    if options["history"] == "positive":
        answers = [shown[task] for task in tasks]
        raw.events = shown.filter(sum(answers[1:], start=answers[0]) > 0)
    raw.events = raw.events.select("user", "item", "time", "sequence")
    raw.impressions, raw.protocol = shown, "impressions"
    if {"train", "test"} <= {_split(week) for week in weeks}:
        raw.impressions, raw.protocol = _with_split(shown, weeks), "given"
    if roles["items"]:
        _add_fields(connection, raw, roles["items"], with_duration=options["duration"] == "keep")
    if profiles:
        raw.users, raw.user_fields = _profiles(connection, roles["users"]), PROFILE_FIELDS
    return raw


def _labels(text: str) -> tuple[str, ...]:
    labels = staging.words(text)
    strange = [name for name in labels if name not in LABELS]
    if strange or not labels:
        raise ConfigError([f"labels: {', '.join(strange) or 'none'}"], fix=f"some of {', '.join(LABELS)}")
    return labels


def _in_order(files: Sequence[ParquetFile]) -> dict[int, ParquetFile]:
    """Week -> its file, in the order of time."""
    weeks: dict[int, ParquetFile] = {}
    for file in files:
        named = re.fullmatch(r"week_(\d+)\.parquet", file.path.name)
        week = int(named[1]) if named else -1
        if _split(week) is None:
            raise SourceError(
                "its name does not say its week, and rows have no times",
                file=str(file),
                expected="week_00.parquet to week_26.parquet",
                fix="name the files as they are published",
            )
        if week in weeks:
            raise SourceError(
                f"week {week} is there twice, also as {weeks[week]}",
                file=str(file),
                expected="each week once",
                fix="name the files of one folder, the whole log or one of its subsamples",
            )
        weeks[week] = file
    return dict(sorted(weeks.items()))


def _split(week: int) -> str | None:
    return next((split for split, weeks in SPLITS.items() if week in weeks), None)


def _exposures(connection: Any, files: Sequence[ParquetFile], labels: Sequence[str], least: float | None) -> Any:
    """All rows: user, item, time, sequence, and a label for each task."""
    columns: dict[str, Kind] = {"user_id": "id", "item_id": "id", **dict.fromkeys(labels, "flag")}
    if least is not None:
        columns["timespent"] = "integer"
    rows = scan(connection, files, columns)
    answers = {label: rows[label].cast("float64") for label in labels}
    if least is not None:
        answers[WATCHED] = (rows["timespent"] >= least).cast("float64")
    return rows.select(
        user=rows["user_id"].cast("string"),
        item=rows["item_id"].cast("string"),
        time=rows["sequence"].cast("int64"),
        sequence=rows["sequence"],
        **answers,
    )


def _with_split(shown: Any, weeks: Mapping[int, ParquetFile]) -> Any:
    """Exposures with the published split of their week."""
    import ibis

    first, begins = 0, dict[str, int]()
    for week, file in weeks.items():
        begins.setdefault(str(_split(week)), first)
        first += file.rows
    # The latest split that begins at or before the row.
    whens = [(shown["sequence"] >= begin, split) for split, begin in reversed(begins.items())]
    return shown.mutate(split=ibis.cases(*whens, else_="train"))


def _record(weeks: Mapping[int, ParquetFile]) -> dict[str, Any]:
    rows = {split: sum(file.rows for week, file in weeks.items() if _split(week) == split) for split in SPLITS}
    return {"weeks": len(weeks), "rows": sum(rows.values()), "rows_of_split": rows}


def _add_fields(connection: Any, raw: RawLog, files: Sequence[ParquetFile], *, with_duration: bool) -> None:
    """Author, and where asked the duration, of each video."""
    columns: dict[str, Kind] = {"item_id": "id", "author_id": "id"}
    if with_duration:
        columns["duration"] = "number"
    rows = scan(connection, files, columns, optional=("author_id", "duration"))
    fields = [name for name in columns if name != "item_id"]
    table = rows.select(
        item=rows["item_id"].cast("string"),
        sequence=rows["sequence"],
        **{name: rows[name].cast("string") for name in fields},
    )
    raw.number_fields = ("duration",) if with_duration else ()
    raw.record["items_without_meta"] = staging.without_meta(raw.events, table)
    staging.add_fields(raw, table, fields)


def _profiles(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """One row per user."""
    rows = scan(connection, files, dict.fromkeys(("user_id", *PROFILE_FIELDS), "id"), optional=PROFILE_FIELDS)
    fields = {name: rows[name].cast("string") for name in PROFILE_FIELDS}
    table = rows.select(user=rows["user_id"].cast("string"), sequence=rows["sequence"], **fields)
    return staging.one_row_per_item(table, PROFILE_FIELDS, key="user")
