"""Amazon 2014: reviews (`reviews_*_5.json`, JSON lines) and optionally meta (`meta_*.json`, Python-literal lines).

What a file is, is told by its first line: reviews have `reviewerID`, meta lines do not. The category is the last
element of the last path of `categories`. Times are days (many ties); order within a day is the order of the lines.

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items without a meta line (their fields are
null), meta lines without category or brand, several meta lines of one item (the last wins).

Options:
    price: `drop` (default) or `keep`: the price of the meta line as an item field that is a number: that of the day on
        which the meta data was taken.
    threshold: stars from which a review is a positive label; then every review is a labelled impression (protocol
        `impressions`), and an event too. Default: none, labels are sampled, unless `--tasks` asks for ratings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.data.sources.lines import first_object, json_rows, literal_rows
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_choice,
    check_files,
    check_number,
    check_options,
    conflicts,
    count_quirks,
    one_row_per_item,
    rated,
    require_events,
    stage,
    without_meta,
)
from lifelong.data.sources.text import Places
from lifelong.errors import SourceError

OPTIONS = {"threshold": "", "price": "drop"}
FIELDS = ("category", "brand")
PRICE = "price"
REVIEWS = pa.schema(
    [("reviewerID", pa.string()), ("asin", pa.string()), ("overall", pa.float64()), ("unixReviewTime", pa.int64())]
)
META = pa.schema([(name, pa.string()) for name in ("item", *FIELDS, PRICE)] + [("sequence", pa.int64())])


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open reviews and meta files.

    Raises:
        SourceError: a line is not what it should be.
        ConfigError: an option is unknown or wrong.
    """
    settings = check_options(options, OPTIONS, source="amazon")
    check_choice(settings, "price", ("keep", "drop"))
    threshold = check_number(settings, "threshold")
    reviews, meta = _roles(check_files(paths, source="amazon"))
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
    record: dict[str, Any] = places.record() | count_quirks(events)
    require_events(record, source="amazon", files=reviews)
    raw = RawLog(name="Amazon reviews", events=events, ratings=log, record=record)
    if meta:
        _add_meta(connection, raw, meta, with_price=settings["price"] == "keep")
    elif settings["price"] == "keep":
        raise SourceError("there is no meta file, and prices stand there", expected="meta_*.json beside the reviews")
    return rated(raw, log, threshold) if threshold is not None else raw


def _roles(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Reviews and meta files.

    Raises:
        SourceError: there are no reviews.
    """
    reviews: list[Path] = []
    meta: list[Path] = []
    for path in files:
        first = first_object(path)
        # An empty file has no content to tell its role by, and none that matters.
        if first is None or "reviewerID" in first:
            reviews.append(path)
        elif "asin" in first:
            meta.append(path)
        else:
            raise SourceError(
                f"its first line has the fields {', '.join(map(str, first))}",
                file=str(path),
                line=1,
                expected="reviews (reviewerID, asin, overall, unixReviewTime) or meta (asin, categories)",
            )
    if not reviews:
        raise SourceError("there is no file of reviews", file=", ".join(map(str, meta)), expected="reviews_*.json")
    return reviews, meta


def _add_meta(connection: Any, raw: RawLog, files: Sequence[Path], *, with_price: bool) -> None:
    """Bring in category, brand and, if asked, price.

    Raises:
        SourceError: a line is wrong.
    """
    places = Places()
    table = stage(connection, literal_rows(files, _meta_row, META, places), META)
    names = (*FIELDS, PRICE) if with_price else FIELDS
    items = one_row_per_item(table, names)
    counted = table.aggregate(**{name: table[name].isnull().sum() for name in names}).to_pyarrow().to_pylist()[0]
    raw.record["meta_files"] = places.record()
    raw.record["meta_without"] = {name: int(counted[name] or 0) for name in names}
    raw.record["items_without_meta"] = without_meta(raw.events, items)
    raw.record["conflicting_fields"] = conflicts(table, names)
    raw.items, raw.item_fields, raw.number_fields = items, names, (PRICE,) if with_price else ()


def _meta_row(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Item, category, brand and price of a meta line.

    Raises:
        KeyError: there is no `asin`.
    """
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
