from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong.errors import DataError
from lifelong.offline.preparation.engine import batches, clear_errors, kth_smallest, open_engine, stage


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    with open_engine(tmp_path, memory_limit="500MB", threads=1) as opened:
        yield opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(-3, 3), min_size=1, max_size=12), data=st.data())
def test_the_kth_smallest_is_that_of_the_sorted_list(connection: Any, times: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(times) - 1))
    given_times = pa.table({"time": times})
    table = stage(connection, [given_times], given_times.schema)
    assert kth_smallest(table["time"], place, 0) == (sorted(times)[place], min(times))


def test_batches_keep_the_order_and_are_several(connection: Any) -> None:
    given_rows = pa.table({"a": list(range(500_000, 0, -1))})
    table = stage(connection, [given_rows], given_rows.schema)
    parts = [batch.column("a").to_pylist() for batch in batches(connection, table.order_by("a"), rows=100_000)]
    assert len(parts) > 1
    assert [value for part in parts for value in part] == list(range(1, 500_001))


def test_the_engine_prints_nothing_itself(connection: Any) -> None:
    found = connection.con.sql("SELECT current_setting('enable_progress_bar')").fetchall()
    assert found == [(False,)]


@pytest.mark.parametrize("drawn", [True, False])
def test_whether_the_engine_would_draw_a_bar_or_not_it_takes_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: bool
) -> None:
    import ibis

    connect = ibis.duckdb.connect

    def connected(*given: Any, **named: Any) -> Any:
        opened = connect(*given, **named)
        opened.con.execute(f"SET enable_progress_bar = {drawn}")
        return opened

    monkeypatch.setattr(ibis.duckdb, "connect", connected)
    rows = pa.table({"a": [1]})
    with open_engine(tmp_path, memory_limit="500MB", threads=1) as opened:
        assert next(iter(batches(opened, stage(opened, [rows], rows.schema)))).to_pydict() == {"a": [1]}


def test_an_engine_error_becomes_one_of_data(connection: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the engine failed on the tables"), clear_errors(tmp_path):
        connection.raw_sql("SELECT 'x'::INT")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), clear_errors(tmp_path):
        raise PermissionError(13, "no")
