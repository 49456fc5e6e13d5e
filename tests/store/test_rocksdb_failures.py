"""What a RocksDB store does when the disk fails or the process dies."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import StoreUnavailableError
from lifelong.online.store.contract import Commit
from lifelong.online.store.rocksdb import RocksDbStore

WRITER = """
import sys
from pathlib import Path
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.contract import Commit
store = RocksDbStore(Path(sys.argv[1]))
number = store.watermark("file", 0)
while True:
    number += 1
    states = {f"u{user}": b"%d" % number for user in range(50)}
    store.commit(Commit(records={0: states}, watermarks={("file", 0): number}, events={("u0", number + 1): b"event"}))
    print(number, flush=True)
"""


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of any file fail, as on a failing disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(store: RocksDbStore) -> int:
    """Commit until one is refused; its number."""
    for number in range(1_000):
        states = {f"{number} {user}": os.urandom(1_000) for user in range(100)}
        try:
            store.commit(Commit(records={0: states}, watermarks={("file", 0): number}))
        except StoreUnavailableError:
            return number
    raise AssertionError("no commit was refused")


def test_a_commit_that_the_disk_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "store")
    with largest_file(2_000_000):
        refused = fill(store)
        assert store.watermark("file", 0) == refused - 1
        store.close()
    store = RocksDbStore(tmp_path / "store")
    assert store.watermark("file", 0) == refused - 1
    assert len(list(store.scan())) == 100 * refused
    assert store.read_many([f"{refused} 0"]) == [None]
    store.close()


def test_after_a_refused_commit_reading_goes_on_and_writing_says_that_the_store_must_be_opened_anew(
    tmp_path: Path,
) -> None:
    store = RocksDbStore(tmp_path / "store")
    with largest_file(2_000_000):
        fill(store)
    assert store.read_many(["0 0"]) != [None]
    with pytest.raises(StoreUnavailableError, match="opens its store again by itself"):
        store.commit(Commit(records={0: {"u": b"1"}}))
    store.close()
    store = RocksDbStore(tmp_path / "store")
    store.commit(Commit(records={0: {"u": b"1"}}))
    assert store.read_many(["u"]) == [b"1"]
    store.close()


def test_a_store_that_refused_a_write_takes_writes_again_without_being_opened_by_its_owner(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "store")
    with largest_file(2_000_000):
        refused = fill(store)
    assert store.read_many(["0 0"]) != [None]
    store.check_writes()
    store.commit(Commit(records={0: {"u": b"1"}}))
    assert (store.read_many(["u"]), store.watermark("file", 0)) == ([b"1"], refused - 1)
    assert len(list(store.scan())) == 100 * refused + 1
    store.close()


def test_a_disk_that_stays_full_costs_no_read_and_once_it_has_room_the_store_takes_writes(small_disk: Path) -> None:
    store = RocksDbStore(small_disk / "store")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(32_000_000))
    fill(store)
    with pytest.raises(StoreUnavailableError, match="full"):
        store.check_writes()
    with pytest.raises(StoreUnavailableError, match=r"is full|takes no writes"):
        store.commit(Commit(records={0: {"u": b"1"}}))
    assert store.read_many(["u"]) == [None]
    (small_disk / "filler").unlink()
    store.check_writes()
    store.commit(Commit(records={0: {"u": b"1"}}))
    assert store.read_many(["u"]) == [b"1"]
    store.close()


def test_a_full_disk_is_called_so(small_disk: Path) -> None:
    store = RocksDbStore(small_disk / "store")
    fill(store)
    with pytest.raises(StoreUnavailableError, match=r"is full|takes no writes"):
        store.commit(Commit(records={0: {"u": b"1"}}))
    store.close()
    assert not (small_disk / "store" / "owner.json").exists()


def test_a_new_store_on_a_full_disk_is_an_error_of_the_disk(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(32_000_000))
    with pytest.raises(StoreUnavailableError, match="No space left"):
        RocksDbStore(small_disk / "store")


def test_an_interrupted_start_of_a_new_store_is_started_over(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json.new").write_text("{")
    store = RocksDbStore(tmp_path / "store")
    assert store.read_many(["u"]) == [None]
    store.close()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["acknowledged", "db", "store.json"]


def test_a_killed_writer_loses_no_acknowledged_commit_and_leaves_no_half_one(tmp_path: Path) -> None:
    for pause in (0.02, 0.1, 0.3):
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(pause)
            writer.kill()
            acknowledged = int((first + writer.stdout.read()).split()[-1])
        store = RocksDbStore(tmp_path / "store")
        mark = store.watermark("file", 0)
        # The last commit may have reached the disk without having been acknowledged.
        assert mark in (acknowledged, acknowledged + 1)
        assert {value for _, value in store.scan()} == {b"%d" % mark}
        assert len(store.events("u0")) == mark + 1
        store.close()


@pytest.mark.parametrize("sync", [True, False])
def test_each_commit_waits_for_the_disk_unless_it_is_told_not_to(tmp_path: Path, sync: bool) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (Debian: strace)")
    code = (
        "import sys; from pathlib import Path\n"
        "from lifelong.online.store.rocksdb import RocksDbStore\n"
        "from lifelong.online.store.contract import Commit\n"
        f"store = RocksDbStore(Path(sys.argv[1]), sync={sync})\n"
        "for number in range(100):\n"
        "    store.commit(Commit(records={0: {'u': b'%d' % number}}))\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-o", trace, "-e", "trace=fsync,fdatasync", sys.executable, "-c", code, tmp_path / "s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("processes cannot be traced here")
    assert done.returncode == 0, done.stderr
    calls = sum("sync(" in line for line in trace.read_text().splitlines())
    assert calls >= 100 if sync else calls < 50, calls
