"""Amazon 2014: reviews (`reviews_*_5.json`, JSON lines) and optionally meta (`meta_*.json`, Python-literal lines).

The role of a file follows from its first line: reviews have `reviewerID`, meta lines do not. The category is the last
element of the last path of `categories`. Times are days (many ties); the order within a day is the order of the lines.

Items without a meta line have no fields, and are counted; of several meta lines of one item the last wins.

Options:
    brand: `keep` (default) or `drop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.offline.preparation.engine import stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.lines import object_rows, objects
from lifelong.offline.preparation.sources.rawlog import RawLog

OPTIONS: dict[str, str | tuple[str, ...]] = {"brand": ("keep", "drop")}
FIELDS = ("category", "brand")
_REVIEW = {"reviewerID": pa.string(), "asin": pa.string(), "overall": pa.float64(), "unixReviewTime": pa.int64()}
_SEQUENCE = pa.field("sequence", pa.int64())
REVIEWS = pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in _REVIEW.items()), _SEQUENCE])
META = pa.schema([pa.field("asin", pa.string(), nullable=False), *((name, pa.string()) for name in FIELDS), _SEQUENCE])


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open reviews and meta files."""
    roles = staging.by_marker(
        # An empty file has no role that matters.
        ((path, list(next(objects(path), (1, {"reviewerID": ""}))[1])) for path in paths),
        {"reviews": "reviewerID", "meta": "asin"},
        {"reviews": "name reviews_*.json"},
        expected="reviews (reviewerID, asin, overall, unixReviewTime) or meta (asin, categories)",
    )
    reviews, meta = roles["reviews"], roles["meta"]
    record: dict[str, Any] = {}
    table = stage(connection, object_rows(reviews, REVIEWS, record, make=_review), REVIEWS)
    log = table.select(
        user=table["reviewerID"],
        item=table["asin"],
        time=table["unixReviewTime"],
        rating=table["overall"],
        sequence=table["sequence"],
    )
    events = log.drop("rating")
    raw = RawLog(name="Amazon reviews", events=events, ratings=log, record=record)
    if meta:
        _add_meta(connection, raw, meta, with_brand=options["brand"] == "keep")
    return raw


def _add_meta(connection: Any, raw: RawLog, files: Sequence[Path], *, with_brand: bool) -> None:
    """Add category and brand."""
    record: dict[str, Any] = {}
    table = stage(connection, object_rows(files, META, record, make=_meta_row), META).rename(item="asin")
    raw.record["meta_files"] = record
    raw.record["items_without_meta"] = staging.without_meta(raw.events, table)
    staging.add_fields(raw, table, [name for name in FIELDS if with_brand or name != "brand"])


def _review(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found.get(name) for name in _REVIEW}


def _meta_row(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Item, category and brand of a meta line."""
    paths = found.get("categories")
    last = paths[-1] if isinstance(paths, list) and paths else None
    category = last[-1] if isinstance(last, list) and last else last if isinstance(last, str) else None
    brand = found.get("brand")
    return {
        "asin": None if (item := found.get("asin")) is None else str(item),
        "category": str(category) if category else None,
        "brand": str(brand) if brand else None,
    }
