from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import SourceError

Read, Rows = Callable[..., Any], Callable[..., list[Any]]
GENUINE = Path(__file__).parents[3].parent / "shared" / "data" / "ebnerd_tiny"


def moment(second: int) -> datetime:
    return datetime(1970, 1, 1, 0, 0, second)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a parquet file of some columns."""

    def saved(name: str, **columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return saved


def history(save: Any, name: str = "history.parquet", **changed: Any) -> Path:
    columns = {
        "user_id": [1, 2],
        "article_id_fixed": [[10, 11], [10]],
        "impression_time_fixed": [[moment(1), moment(2)], [moment(3)]],
    }
    return save(name, **(columns | changed))


def behaviors(save: Any, **changed: Any) -> Path:
    columns = {
        "user_id": [1, 2],
        "impression_time": [moment(5), moment(3)],
        "article_ids_inview": [[20, 21], [10, 20]],
        "article_ids_clicked": [[21], [10]],
    }
    return save("behaviors.parquet", **(columns | changed))


def test_every_article_shown_is_a_target(save: Any, read: Read, rows: Rows) -> None:
    raw = read("ebnerd", behaviors(save), history(save))
    assert rows(raw.impressions, "user", "item", "time", "response") == [
        ("1", "20", 5, 0.0),
        ("1", "21", 5, 1.0),
        ("2", "10", 3, 1.0),
        ("2", "20", 3, 0.0),
    ]
    assert (raw.protocol, raw.items) == ("impressions", None)


def test_events_are_the_histories_and_the_clicks_they_lack(save: Any, read: Read, rows: Rows) -> None:
    raw = read("ebnerd", behaviors(save), history(save))
    expected = [("1", "10", 1), ("1", "11", 2), ("2", "10", 3), ("1", "21", 5)]
    assert rows(raw.events, "user", "item", "time") == expected
    assert raw.record["clicks_in_history_already"] == 1


def test_an_event_in_two_histories_counts_once_and_twice_in_one_counts_twice(save: Any, read: Read, rows: Rows) -> None:
    twice = {"article_id_fixed": [[10, 10], [10]], "impression_time_fixed": [[moment(1)] * 2, [moment(3)]]}
    raw = read("ebnerd", behaviors(save), history(save, **twice), history(save, "more.parquet"))
    found = [row for row in rows(raw.events, "user", "item", "time") if row[1] in ("10", "11")]
    assert sorted(found) == [("1", "10", 1), ("1", "10", 1), ("1", "11", 2), ("2", "10", 3)]
    assert raw.record["history_events_in_several_files"] == 2


def test_articles_give_the_category(save: Any, read: Read, rows: Rows) -> None:
    articles = save("articles.parquet", article_id=[10, 99], category=[1, 2], category_str=["news", ""])
    raw = read("ebnerd", behaviors(save), history(save), articles)
    assert rows(raw.items, "item", "category") == [("10", "news"), ("99", None)]
    assert raw.record["articles_without_meta"] == 3


@pytest.mark.parametrize(
    ("changed", "column", "words"),
    [
        ({"article_id_fixed": [[10], [10]]}, "article_id_fixed", "row 1 has more or fewer"),
        ({"article_id_fixed": [[10, None], [10]]}, "article_id_fixed", "row 1 has an absent value"),
        ({"user_id": [1, None]}, "user_id", "row 2 has no value"),
        ({"article_id_fixed": [10, 11]}, "article_id_fixed", "its type is int64"),
    ],
)
def test_wrong_histories_are_named(save: Any, read: Read, changed: dict[str, Any], column: str, words: str) -> None:
    path = history(save, **changed)
    with pytest.raises(SourceError, match=words) as caught:
        read("ebnerd", behaviors(save), path)
    assert (caught.value.file, caught.value.column) == (str(path), column)


def test_a_missing_column_or_role_is_named(save: Any, read: Read) -> None:
    with pytest.raises(SourceError, match="there is no file of history"):
        read("ebnerd", behaviors(save))
    with pytest.raises(SourceError, match="its columns are a"):
        read("ebnerd", behaviors(save), save("other.parquet", a=[1]))
    with pytest.raises(SourceError, match="column user_id: there is no such column"):
        read("ebnerd", save("b.parquet", article_ids_inview=[[1]]), history(save))


@pytest.mark.realdata
def test_the_genuine_rows_read_whole(read: Read) -> None:
    if not GENUINE.exists():
        pytest.skip("the genuine rows are not here")
    raw = read("ebnerd", GENUINE / "behaviors.parquet", GENUINE / "history.parquet")
    assert raw.impressions.count().to_pyarrow().as_py() == 10_848
    assert raw.impressions["response"].sum().to_pyarrow().as_py() == 1_047
    assert raw.record["behaviors_rows"] == 1_046
