"""Instacart 2017: grocery orders of users, in order and without dates.

The role of a file follows from its header: `orders.csv`, `order_products__*.csv`, optional `products.csv`. The files of
aisles and departments only have names of numbers that `products.csv` holds, and are refused. All products of an order
share one time, its `order_number`: times are ordinal. `days_since_prior_order` is capped at 30 days in the data, and is
not used. Orders of `eval_set` test have no products; they are counted.

Options: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import SourceError
from lifelong.preparation.engine import count, scalars
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.text import Column, Layout, header_names, staged

OPTIONS: dict[str, str] = {}
ORDERS = Layout(
    (
        Column("order", "id", header="order_id"),
        Column("user", "id", header="user_id"),
        Column("eval_set", choices=("prior", "train", "test")),
        Column("time", "integer", header="order_number"),
    ),
    header=True,
)
LINES = Layout((Column("order", "id", header="order_id"), Column("item", "id", header="product_id")), header=True)
PRODUCTS = Layout(
    (
        Column("item", "id", header="product_id"),
        Column("aisle", header="aisle_id"),
        Column("department", header="department_id"),
    ),
    header=True,
    quoted=True,
)
MARKERS = {"orders": "order_number", "lines": "add_to_cart_order", "products": "product_name"}
"""Role -> the column that only files of this role have."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open the csv files."""
    roles = staging.by_marker(
        ((path, header_names(path, PRODUCTS)) for path in paths),
        MARKERS,
        dict.fromkeys(("orders", "lines"), "orders.csv and order_products__prior.csv belong together"),
        expected="orders.csv, order_products__prior.csv, order_products__train.csv, products.csv, by their headers",
    )
    orders, of_orders = staged(connection, roles["orders"], ORDERS)
    lines, of_lines = staged(connection, roles["lines"], LINES)
    _check(orders, lines, of_orders, of_lines)
    ordered = orders.select("order", "user", "time")
    events = lines.join(ordered, "order").select("user", "item", "time", "sequence")
    empty = count(orders.anti_join(lines, "order"))
    record = {"orders": of_orders.record(), "lines": of_lines.record(), "orders_without_products": empty}
    raw = RawLog("Instacart", events, time_unit="ordinal", record=record)
    if roles["products"]:
        products, of_products = staged(connection, roles["products"], PRODUCTS)
        raw.record |= {"products": of_products.record(), "items_without_meta": staging.without_meta(events, products)}
        staging.add_fields(raw, products, ["aisle", "department"])
    return raw


def _check(orders: Any, lines: Any, of_orders: Any, of_lines: Any) -> None:
    """Check that each order is there once, and each line belongs to one."""
    strange = lines.anti_join(orders, "order")
    sequence = scalars(strange.aggregate(sequence=strange["sequence"].min()))["sequence"]
    if sequence is not None:
        file, line = of_lines.locate(sequence)
        raise SourceError(
            "its order is not in orders.csv",
            file=file,
            line=line,
            column="order_id",
            fix="fetch orders.csv of the same release",
        )
    twice = orders.group_by("order").aggregate(number=orders.count(), sequence=orders["sequence"].max())
    twice = twice.filter(twice["number"] > 1)
    sequence = scalars(twice.aggregate(sequence=twice["sequence"].min()))["sequence"]
    if sequence is not None:
        file, line = of_orders.locate(sequence)
        raise SourceError(
            "this order is there twice",
            file=file,
            line=line,
            column="order_id",
            expected="one line",
            fix="fetch the file again, or remove the line",
        )
