"""Parquet files whose times are timestamps or dates."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lifelong.dataset.events import Schema
from lifelong.errors import SourceError
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.opened_file import opened
from lifelong.online.memory.updater import Applied
from lifelong.online.store.opening import open_store

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.full

DAY = 86_400
START = 19_675 * DAY
SECONDS = [START + 3_600 * k + k for k in range(30)]


def write(path: Path, times: Any, *, name: str = "time") -> Path:
    columns = {"user": [f"u{k % 4}" for k in range(len(times))], "item": [f"i{k}" for k in range(len(times))]}
    pq.write_table(pa.table({**columns, name: times}), path)
    return path


def moments(unit: str, zone: str | None, *, extra: int = 0) -> Any:
    """The times in a unit, `extra` units after the second."""
    size = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([second * size + extra for second in SECONDS], pa.int64()).cast(pa.timestamp(unit, zone))


def filed(artifact, path: Path, times: Any, **named: str) -> dict[str, bytes]:
    store = open_store("memory://")
    assert ingest(artifact, store, write(path, times), **named) == Applied(applied=len(times))
    return dict(store.scan())


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kathmandu", "-03:30"])
@pytest.mark.parametrize(("unit", "extra"), [("s", 0), ("ms", 999), ("us", 999_999), ("ns", 999_999_999)])
def test_timestamps_of_any_unit_and_zone_are_the_same_moments(artifact, tmp_path, unit, extra, zone) -> None:
    numbers = filed(artifact, tmp_path / "numbers.parquet", SECONDS)
    assert filed(artifact, tmp_path / "log.parquet", moments(unit, zone, extra=extra)) == numbers


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_a_date_is_its_midnight(artifact, tmp_path, kind) -> None:
    days = [date(2023, 11, 14) + timedelta(days=k) for k in range(5)]
    midnights = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) for day in days]
    numbers = filed(artifact, tmp_path / "numbers.parquet", midnights)
    assert filed(artifact, tmp_path / "log.parquet", pa.array(days, kind)) == numbers


@pytest.mark.parametrize("said", [{"time_unit": "ms"}, {"time_unit": "iso"}, {"time_format": "%d/%m/%Y"}])
def test_what_a_column_of_timestamps_says_counts_before_the_mapping(artifact, tmp_path, said) -> None:
    numbers = filed(artifact, tmp_path / "numbers.parquet", SECONDS)
    assert filed(artifact, tmp_path / "log.parquet", moments("us", None), **said) == numbers


def test_a_file_of_timestamps_is_continued_and_its_copy_in_another_unit_known(artifact, store, tmp_path) -> None:
    path = write(tmp_path / "log.parquet", moments("ms", "UTC")[:20])
    ingest(artifact, store, path)
    assert ingest(artifact, store, write(path, moments("ns", "Asia/Tokyo"))) == Applied(applied=10, duplicates=20)
    assert ingest(artifact, store, write(tmp_path / "copy.parquet", SECONDS)) == Applied(duplicates=30)
    with pytest.raises(SourceError, match=r"other\.parquet: the first 30 lines were applied already"):
        other = [*SECONDS, SECONDS[-1] + 1]
        ingest(artifact, store, write(tmp_path / "other.parquet", pa.array(other).cast(pa.timestamp("s"))))


def test_a_row_without_a_time_is_named_and_can_be_left_out(artifact, store, tmp_path) -> None:
    times = pa.array([SECONDS[0], None, SECONDS[2]], pa.timestamp("s"))
    path = write(tmp_path / "log.parquet", times, name="at")
    with pytest.raises(SourceError, match=r"log\.parquet, line 2, column at: time is None"):
        ingest(artifact, store, path, time="at")
    assert ingest(artifact, store, path, time="at", on_bad="skip") == Applied(applied=1, duplicates=1, bad=1)


@pytest.mark.parametrize("year", [1969, 9999])
def test_moments_that_no_event_can_have_are_refused_by_file_and_line(artifact, store, tmp_path, year) -> None:
    path = write(tmp_path / "log.parquet", pa.array([datetime(year, 12, 31)]))
    with pytest.raises(SourceError, match=r"log\.parquet, line 1, column time: time is"):
        ingest(artifact, store, path)


def test_a_file_without_a_time_and_one_that_is_damaged_are_named(artifact, store, tmp_path) -> None:
    path = write(tmp_path / "log.parquet", SECONDS, name="at")
    with pytest.raises(
        SourceError, match=r"log\.parquet: there is no column 'time' among 'user', 'item', 'at'.*--column time=NAME"
    ):
        ingest(artifact, store, path)
    code = bytearray(write(path, moments("us", None)).read_bytes())
    code[4:200] = bytes(196)
    path.write_bytes(code)
    with pytest.raises(SourceError, match=r"log\.parquet: "):
        ingest(artifact, store, path)


def test_timestamps_are_no_ordinals(tmp_path) -> None:
    schema = Schema(item_fields=("item",), event_types=False, time_unit="ordinal")
    with opened(write(tmp_path / "log.parquet", moments("s", None))) as file:
        reader = FileReader(file, schema, {}, size=10)
        with pytest.raises(SourceError, match=r"log\.parquet, column time: times are timestamps"):
            next(reader.lines())
