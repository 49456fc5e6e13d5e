"""Yambda (flat parquet): listens, likes and dislikes of music, with times in seconds from the start of the log.

The role of a file follows from its columns: `multi_event.parquet` (with `event_type`), or `listens.parquet` alone (all
events are then listens); optional `artist_item_mapping.parquet` and `album_item_mapping.parquet`. An item with several
artists or albums has the last one of the file, and is counted (`conflicting_fields`). Hours of the day are not known:
times count from an unnamed moment, in steps of 5 seconds.

Source: "Yambda-5B - A Large-Scale Multi-modal Dataset for Ranking And Retrieval", 2025.

Options:
    targets: event types that make a positive target, separated by commas. Default: every event.
    listened: least share of the track in percent, from which a listen is kept as an event, such as 50. Default: all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.preparation.engine import count
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.parquet import ParquetFile, scan
from lifelong.preparation.sources.rawlog import RawLog

OPTIONS = {"targets": "", "listened": ""}
MARKERS = {"events": "uid", "artist": "artist_id", "album": "album_id"}
"""Role -> the column that only files of this role have."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the parquet files."""
    least, targets = staging.check_number(options, "listened"), staging.words(options["targets"])
    files = [ParquetFile.open(path) for path in paths]
    roles = staging.by_marker(
        ((file, file.schema.names) for file in files),
        MARKERS,
        {"events": "name multi_event.parquet or listens.parquet"},
        expected="flat files with uid, or mappings with artist_id or album_id",
    )
    log = _log(connection, roles["events"])
    heard = log if least is None else log.filter((log["event_type"] != "listen") | (log["played"] >= least))
    events = heard.select("user", "item", "time", "sequence", "event_type")
    record = {"rows": sum(file.rows for file in roles["events"]), "short_listens": count(log) - count(heard)}
    raw = RawLog("Yambda", events, event_types=True, target_types=targets or None, record=record)
    fields = [name for name in ("artist", "album") if roles[name]]
    if fields:
        staging.add_fields(raw, _fields(connection, roles, fields), fields)
    return raw


def _log(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """All rows: user, item, time, sequence, event_type, played (percent of the track)."""
    typed = all("event_type" in file.schema.names for file in files)
    columns: dict[str, Any] = {"uid": "id", "item_id": "id", "timestamp": "integer", "played_ratio_pct": "number"}
    if typed:
        columns["event_type"] = "id"
    rows = scan(connection, files, columns, optional=["played_ratio_pct"])
    return rows.select(
        user=rows["uid"].cast("string"),
        item=rows["item_id"].cast("string"),
        time=rows["timestamp"].cast("int64"),
        sequence=rows["sequence"],
        event_type=rows["event_type"].cast("string") if typed else ibis.literal("listen"),
        played=rows["played_ratio_pct"].cast("float64"),
    )


def _fields(connection: Any, roles: Mapping[str, Sequence[ParquetFile]], fields: Sequence[str]) -> Any:
    """Rows of the mappings: item, sequence and the fields, null in those that the file does not have."""
    parts = []
    for name in fields:
        rows = scan(connection, roles[name], {"item_id": "id", f"{name}_id": "id"})
        value = {field: ibis.null("string") for field in fields} | {name: rows[f"{name}_id"].cast("string")}
        parts.append(rows.select(item=rows["item_id"].cast("string"), sequence=rows["sequence"], **value))
    return ibis.union(*parts) if len(parts) > 1 else parts[0]
