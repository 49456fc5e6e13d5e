"""Amazon 2014: reviews (`reviews_*_5.json`, JSON lines) and optionally meta (`meta_*.json`, Python-literal lines).

The role of a file follows from its first line: reviews have `reviewerID`, meta lines do not. The category is the last
element of the last path of `categories`. Times are days (many ties); the order within a day is the order of the lines.

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items without a meta line (their fields are
null), meta lines without category or brand, several meta lines of one item (the last wins).

Options:
    price: `drop` (default) or `keep`: the price of the meta line as an item field that is a number. It is the price of
        the day on which the meta data was collected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import scalars, stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.lines import object_rows, objects
from lifelong.offline.preparation.sources.rawlog import RawLog

OPTIONS: dict[str, str | tuple[str, ...]] = {"price": ("drop", "keep"), "brand": ("keep", "drop")}
FIELDS = ("category", "brand")
PRICE = "price"
_REVIEW = {"reviewerID": pa.string(), "asin": pa.string(), "overall": pa.float64(), "unixReviewTime": pa.int64()}
_SEQUENCE = pa.field("sequence", pa.int64())
REVIEWS = pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in _REVIEW.items()), _SEQUENCE])
META = pa.schema(
    [pa.field("asin", pa.string(), nullable=False), *((name, pa.string()) for name in (*FIELDS, PRICE)), _SEQUENCE]
)


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
        _add_meta(connection, raw, meta, with_price=options["price"] == "keep", with_brand=options["brand"] == "keep")
    elif options["price"] == "keep":
        raise SourceError(
            "the meta file, which has the prices, is missing",
            expected="meta_*.json with the reviews",
            fix="name the meta file too, or prepare without prices: --option price=drop",
        )
    return raw


def _add_meta(
    connection: Any, raw: RawLog, files: Sequence[Path], *, with_price: bool, with_brand: bool = True
) -> None:
    """Add category and, if asked for, brand and price."""
    record: dict[str, Any] = {}
    table = stage(connection, object_rows(files, META, record, make=_meta_row), META).rename(item="asin")
    names = [name for name in FIELDS if with_brand or name != "brand"] + [PRICE] * with_price
    counted = scalars(table.aggregate(**{name: table[name].isnull().sum() for name in names}))
    raw.record["meta_files"] = record
    raw.record["meta_without"] = {name: int(counted[name] or 0) for name in names}
    raw.record["items_without_meta"] = staging.without_meta(raw.events, table)
    staging.add_fields(raw, table, names)
    raw.number_fields = (PRICE,) if with_price else ()


def _review(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found.get(name) for name in _REVIEW}


def _meta_row(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Item, category, brand and price of a meta line."""
    paths = found.get("categories")
    last = paths[-1] if isinstance(paths, list) and paths else None
    category = last[-1] if isinstance(last, list) and last else last if isinstance(last, str) else None
    brand = found.get("brand")
    return {
        "asin": None if (item := found.get("asin")) is None else str(item),
        "category": str(category) if category else None,
        "brand": str(brand) if brand else None,
        "price": None if (price := found.get("price")) is None else str(price),
    }
