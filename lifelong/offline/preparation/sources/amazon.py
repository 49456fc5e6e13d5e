"""Amazon 2014: reviews (`reviews_*_5.json`, JSON lines) and optionally meta (`meta_*.json`, Python-literal lines).

The role of a file follows from its first line: reviews have `reviewerID`, meta lines do not. The category is the last
element of the last path of `categories`. Times are days (many ties); the order within a day is the order of the lines.

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items without a meta line (their fields are
null), meta lines without category or brand, several meta lines of one item (the last wins).

Options:
    price: `drop` (default) or `keep`: the price of the meta line as an item field that is a number. It is the price of
        the day on which the meta data was collected.
    threshold: stars from which a review is a positive label; then every review is a labelled impression (protocol
        `impressions`), and an event too. Default: none, labels are sampled, unless `--tasks` asks for ratings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import scalars, stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.lines import first_object, json_rows, literal_rows
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.text import Places

OPTIONS: dict[str, str | tuple[str, ...]] = {"threshold": "", "price": ("drop", "keep"), "brand": ("keep", "drop")}
FIELDS = ("category", "brand")
PRICE = "price"
REVIEWS = pa.schema(
    [("reviewerID", pa.string()), ("asin", pa.string()), ("overall", pa.float64()), ("unixReviewTime", pa.int64())]
)
META = pa.schema([(name, pa.string()) for name in ("item", *FIELDS, PRICE)] + [("sequence", pa.int64())])


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open reviews and meta files."""
    threshold = staging.check_number(options, "threshold")
    roles = staging.by_marker(
        # An empty file has no role that matters.
        ((path, [*map(str, first_object(path) or ["reviewerID"])]) for path in paths),
        {"reviews": "reviewerID", "meta": "asin"},
        {"reviews": "name reviews_*.json"},
        expected="reviews (reviewerID, asin, overall, unixReviewTime) or meta (asin, categories)",
    )
    reviews, meta = roles["reviews"], roles["meta"]
    places = Places()
    schema = REVIEWS.append(pa.field("sequence", pa.int64()))
    table = stage(connection, json_rows(reviews, REVIEWS, places), schema)
    log = table.select(
        user=table["reviewerID"],
        item=table["asin"],
        time=table["unixReviewTime"],
        rating=table["overall"],
        sequence=table["sequence"],
    )
    events = log.drop("rating")
    raw = RawLog(name="Amazon reviews", events=events, ratings=log, record={**places.record()})
    if meta:
        _add_meta(connection, raw, meta, with_price=options["price"] == "keep", with_brand=options["brand"] == "keep")
    elif options["price"] == "keep":
        raise SourceError(
            "the meta file, which has the prices, is missing",
            expected="meta_*.json with the reviews",
            fix="name the meta file too, or prepare without prices: --option price=drop",
        )
    return staging.rated(raw, log, threshold) if threshold is not None else raw


def _add_meta(
    connection: Any, raw: RawLog, files: Sequence[Path], *, with_price: bool, with_brand: bool = True
) -> None:
    """Add category and, if asked for, brand and price."""
    places = Places()
    table = stage(connection, literal_rows(files, _meta_row, META, places), META)
    names = [name for name in FIELDS if with_brand or name != "brand"] + [PRICE] * with_price
    counted = scalars(table.aggregate(**{name: table[name].isnull().sum() for name in names}))
    raw.record["meta_files"] = places.record()
    raw.record["meta_without"] = {name: int(counted[name] or 0) for name in names}
    raw.record["items_without_meta"] = staging.without_meta(raw.events, table)
    staging.add_fields(raw, table, names)
    raw.number_fields = (PRICE,) if with_price else ()


def _meta_row(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Item, category, brand and price of a meta line."""
    paths = found.get("categories")
    last = paths[-1] if isinstance(paths, list) and paths else None
    category = last[-1] if isinstance(last, list) and last else last if isinstance(last, str) else None
    brand = found.get("brand")
    return {
        "item": str(found["asin"]),
        "category": str(category) if category else None,
        "brand": str(brand) if brand else None,
        "price": None if (price := found.get("price")) is None else str(price),
    }
