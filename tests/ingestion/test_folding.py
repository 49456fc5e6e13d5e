"""Memories of whole histories, made without a store."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="reading tables is of the train extra")
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong import backfill, fold, ingest, open_store, verify
from lifelong.artifact.folder import Artifact
from lifelong.errors import SourceError, StoreCorruptError, UsageError
from lifelong.online.ingestion.parts import fill_part, join_parts
from lifelong.online.memory.codec import CODECS

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def table() -> Any:
    """Events of 40 users, some with many, ordered by user and time."""
    rng = np.random.default_rng(4)
    user_N = np.sort(rng.integers(0, 40, 900) ** 2 // 40)
    return pa.table(
        {
            "user": [f"u{user:02}" for user in user_N],
            "item": [f"i{item}" for item in rng.integers(0, 60, 900)],
            "time": np.arange(900) + 1_600_000_000,
            "event_type": rng.choice(["view", "buy"], 900),
        }
    )


def folded(artifact: Artifact, log: Any, **options: Any) -> dict[str, bytes]:
    """User -> record."""
    found: dict[str, bytes] = {}
    for some in fold(artifact, log, **options):
        new = dict(zip(some.users, some.records, strict=True))
        assert not new.keys() & found.keys()
        found |= new
    return found


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("batch", [1, 7, 250, 10_000])
def test_records_are_those_of_ingest_however_large_the_batches(artifact, table, codec, batch):
    store = open_store("memory://")
    ingest(artifact, store, table, codec=codec)
    assert folded(artifact, table, codec=codec, batch=batch) == dict(store.scan())


def test_parts_of_the_users_together_give_the_records_of_the_whole(artifact, table, tmp_path):
    users = np.array(table["user"].to_pylist())
    for part in range(4):
        place_N = np.flatnonzero([crc32(user.encode()) % 4 == part for user in users])
        pq.write_table(table.take(pa.array(place_N)), tmp_path / f"{part}.parquet")
    parts = [folded(artifact, tmp_path / f"{part}.parquet") for part in range(4)]
    assert {user: record for part in parts for user, record in part.items()} == folded(artifact, table)


def test_files_go_on_where_the_file_before_ended(artifact, table, tmp_path):
    for at, place in enumerate(range(0, 900, 301)):
        pq.write_table(table.slice(place, 301), tmp_path / f"{at}.parquet")
    assert folded(artifact, str(tmp_path / "*.parquet")) == folded(artifact, table)


def test_a_user_out_of_order_is_refused(artifact, table):
    wrong = pa.concat_tables([table.slice(100), table.slice(0, 100)])
    with pytest.raises(UsageError, match="user 'u00' comes after 'u38'") as caught:
        folded(artifact, wrong)
    assert "lifelong ingest" in str(caught.value)


def test_a_row_that_is_no_event_is_named(artifact, table, tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(table.set_column(2, "time", pa.array([-1, *range(899)])), path)
    with pytest.raises(SourceError, match=r"log.parquet, line 1, column time: time is -1"):
        folded(artifact, path)


def test_a_store_filled_from_a_log_is_one_that_took_its_events(artifact, table, tmp_path):
    path, filled, taken = tmp_path / "log.parquet", open_store("memory://"), open_store("memory://")
    pq.write_table(table.rename_columns(["customer", "item", "time", "event_type"]), path)
    report = backfill(artifact, path, filled, event_log=True, user="customer")
    ingest(artifact, taken, table)
    assert dict(filled.scan()) == dict(taken.scan())
    assert all(filled.events(user) == taken.events(user) for user, _ in taken.scan())
    assert (report.users, report.events, report.until) == (len(dict(taken.scan())), 900, 1_600_000_900)
    assert verify(artifact, None, filled).equal


def test_events_before_a_moment_are_those_that_ingest_then_leaves_out(artifact, table):
    filled, taken = open_store("memory://"), open_store("memory://")
    report = backfill(artifact, table, filled, until=1_600_000_500)
    assert (report.events, report.until) == (500, 1_600_000_500)
    assert ingest(artifact, filled, table).applied == 400
    ingest(artifact, taken, table)
    assert dict(filled.scan()) == dict(taken.scan())


def test_no_torch_is_loaded(artifact, table, tmp_path):
    pq.write_table(table, tmp_path / "log.parquet")
    code = (
        "import sys; from lifelong import fold\n"
        f"print(sum(len(one.users) for one in fold({str(artifact.path)!r}, {str(tmp_path / 'log.parquet')!r})))\n"
        "assert 'torch' not in sys.modules and 'duckdb' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(set(table["user"].to_pylist()))


def parts_of(artifact: Artifact, log: Any, store: Path, parts: int = 4) -> None:
    for number in range(parts):
        fill_part(artifact, log, store, f"{number}/{parts}", event_log=True)


def test_parts_that_jobs_filled_make_the_store_that_ingest_fills(artifact, table, tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    parts_of(artifact, path, tmp_path / "parts")
    # Run again, and begun by a process that was killed: neither does harm.
    parts_of(artifact, path, tmp_path / "parts")
    (tmp_path / "parts" / ".shard-2.0123456789ab.unfinished" / "store").mkdir(parents=True)
    report = join_parts(tmp_path / "parts", 4)
    with closing(open_store(f"rocksdb://{tmp_path / 'whole'}?shards=4")) as taken:
        ingest(artifact, taken, table)
        wanted = dict(taken.scan())
        logs = {user: taken.events(user) for user in wanted}
    assert (report.users, report.until) == (len(wanted), 1_600_000_900)
    with closing(open_store(f"rocksdb://{tmp_path / 'parts'}")) as joined:
        assert dict(joined.scan()) == wanted
        assert {user: joined.events(user) for user in wanted} == logs
        assert ingest(artifact, joined, table).applied == 0
    assert not list((tmp_path / "parts").glob(".*"))


def test_parts_are_put_together_only_if_all_are_there(artifact, table, tmp_path):
    fill_part(artifact, table, tmp_path / "store", "1/3")
    with pytest.raises(UsageError, match="lacks 2 of 3 parts: 0, 2") as caught:
        join_parts(tmp_path / "store", 3)
    assert "--part 0/3" in str(caught.value)
    with pytest.raises(StoreCorruptError, match="shard-1 is shard 1 of 3"):
        for number in (0, 2, 3):
            fill_part(artifact, table, tmp_path / "store", f"{number}/4")
        join_parts(tmp_path / "store", 4)


@pytest.mark.parametrize("part", ["", "3", "4/4", "-1/4", "0/1", "0/1000"])
def test_a_part_that_cannot_be_is_refused(artifact, table, tmp_path, part):
    with pytest.raises(UsageError, match="part = "):
        fill_part(artifact, table, tmp_path / "store", part)


def test_a_store_that_is_complete_takes_no_part(artifact, table, tmp_path):
    parts_of(artifact, table, tmp_path / "store", 2)
    join_parts(tmp_path / "store", 2)
    with pytest.raises(UsageError, match="is a store already"):
        fill_part(artifact, table, tmp_path / "store", "0/2")
