"""The write-ahead log of RocksDB: whatever is damaged is found and named, and what is lost can be said and accepted."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import StoreCorruptError, StoreLockedError, UsageError
from lifelong.store.contract import ITEMS, Commit
from lifelong.store.log_check import NOTE, noted_log
from lifelong.store.repair import accept_loss, examine
from lifelong.store.rocksdb import RocksDbStore
from lifelong.store.sharded import ShardedStore
from lifelong.store.write_ahead_log import BLOCK, checksum, files, find_fault, read_log

COMMITS = 250


def fill(store: RocksDbStore, commits: int, seed: int = 0) -> None:
    """Commits of all sizes, one after the other."""
    chance = random.Random(seed)
    for number in range(commits):
        states = {f"u{number} {user}": chance.randbytes(chance.choice([5, 50, 700, 3_000])) for user in range(3)}
        store.commit(Commit(records={0: states}, watermarks={("file", 0): number}, events={("u", number + 1): b"e"}))


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a kill leaves it: all of it in one file of the log."""
    folder = tmp_path_factory.mktemp("one")
    with contextlib.closing(RocksDbStore(folder / "open")) as store:
        fill(store, COMMITS)
        shutil.copytree(folder / "open", folder / "store")
    assert len(files(folder / "store" / "db")) == 1
    return folder / "store"


@pytest.fixture(scope="module")
def several_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a kill leaves it while RocksDB does not get round to its tables: several files of the log."""
    folder = tmp_path_factory.mktemp("several")
    import rocksdict

    opened = rocksdict.Rdict

    def small(place, options, *, column_families, **more):
        # A new file of the log for every 64 KiB, and no table before ten of them.
        for each in (options, *column_families.values()):
            each.set_write_buffer_size(65_536)
            each.set_max_write_buffer_number(12)
            each.set_min_write_buffer_number_to_merge(10)
        return opened(place, options, column_families=column_families, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rocksdict, "Rdict", small)
        store = RocksDbStore(folder / "open")
    with contextlib.closing(store):
        number = 0
        while len(files(folder / "open" / "db")) < 4 or files(folder / "open" / "db")[-1].stat().st_size < 20_000:
            store.commit(Commit(records={0: {f"u{number}": bytes(1_500)}}, watermarks={("file", 0): number}))
            number += 1
        shutil.copytree(folder / "open", folder / "store")
    return folder / "store"


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def zero(path: Path, start: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(len(data[start : start + size]))
    path.write_bytes(data)


def damages(path: Path, seed: int) -> Iterator[Callable[[Path], None]]:
    """Ways to damage a file of the log."""
    chance, size = random.Random(seed), path.stat().st_size
    heads = [start for batch in read_log(path.read_bytes()).batches for start, _ in batch.pieces]
    for _ in range(15):
        yield partial(flip, place=chance.randrange(size), bit=chance.randrange(8))
    for _ in range(15):
        # Length and kind of a piece: no checksum covers the one, and the other can end a log.
        yield partial(flip, place=chance.choice(heads) - 7 + chance.randrange(4, 7), bit=chance.randrange(8))
    for step in (512, 4_096, BLOCK):
        yield partial(zero, start=chance.randrange(0, size, step), size=step)
    yield Path.unlink


def copied(store: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(store, to)


def opens_whole(store: Path, before: int, *, read_only: bool) -> bool:
    """Whether all commits are there; False where damage was found."""
    try:
        opened = RocksDbStore(store, read_only=read_only)
    except StoreCorruptError as error:
        assert "lifelong repair" in error.fix and "lifelong restore" in error.fix and str(store) in str(error)
        return False
    with contextlib.closing(opened):
        assert opened.watermark("file", 0) == before, "commits are gone, and nobody says so"
    return True


@pytest.mark.parametrize("kind", ["one_file", "several_files"])
@pytest.mark.parametrize("read_only", [False, True])
def test_no_damage_of_the_log_loses_a_commit_silently(request, tmp_path, kind, read_only):
    store = request.getfixturevalue(kind)
    with contextlib.closing(RocksDbStore(copied(store, tmp_path / "whole"))) as whole:
        before = whole.watermark("file", 0)
    found = tried = 0
    for seed, path in enumerate(files(store / "db")):
        for damage in damages(path, seed):
            damaged = copied(store, tmp_path / "damaged")
            damage(damaged / "db" / path.name)
            found += not opens_whole(damaged, before, read_only=read_only)
            tried += 1
    # All but a bit in the few bytes that fill a block up.
    assert tried >= 34 and found >= tried - 2


@pytest.mark.parametrize("kind", ["one_file", "several_files"])
def test_a_cut_end_is_no_damage_and_loses_what_never_returned_alone(request, tmp_path, kind):
    store = request.getfixturevalue(kind)
    path = files(store / "db")[-1]
    log = read_log(path.read_bytes())
    last = log.batches[-1]
    for cut in {last.pieces[0][0] - 6, last.pieces[0][0] + 1, log.end - 1, log.end}:
        opened = copied(store, tmp_path / "cut")
        (opened / NOTE).write_text(json.dumps({"number": 0, "sequence": 0}))
        (opened / "db" / path.name).write_bytes(path.read_bytes()[:cut])
        for read_only in (True, False):
            with contextlib.closing(RocksDbStore(opened, read_only=read_only)) as again:
                found = again.watermark("file", 0)
            with contextlib.closing(RocksDbStore(copied(store, tmp_path / "whole"))) as whole:
                assert found == whole.watermark("file", 0) - (cut < log.end)


def test_a_cut_of_a_file_that_others_follow_is_damage(several_files, tmp_path):
    store = copied(several_files, tmp_path / "store")
    path = files(store / "db")[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreCorruptError, match=r"\.log is damaged at byte"):
        RocksDbStore(store)
    for later in files(store / "db")[1:]:
        later.write_bytes(b"")
    with pytest.raises(StoreCorruptError, match="was on the disk"):
        RocksDbStore(store)
    (store / NOTE).unlink()
    with pytest.raises(StoreCorruptError, match="shorter than it was"):
        RocksDbStore(store)


def test_after_a_clean_close_a_file_that_is_gone_or_older_is_found(tmp_path):
    store = RocksDbStore(tmp_path / "store")
    fill(store, 20)
    early = shutil.copytree(tmp_path / "store", tmp_path / "early")
    fill(store, 20, seed=1)
    store.close()
    shutil.copy(tmp_path / "store" / NOTE, early / NOTE)
    with pytest.raises(StoreCorruptError, match="ends with change"):
        RocksDbStore(early)
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as again:
        assert again.watermark("file", 0) == 19


def test_commits_beside_a_purge_leave_a_whole_note(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        done = threading.Event()

        def purge():
            while not done.is_set():
                store.purge()

        purging = threading.Thread(target=purge)
        purging.start()
        fill(store, 60)
        done.set()
        purging.join()
        number, sequence = noted_log(tmp_path / "store")
        assert number and 0 < sequence <= store._db.latest_sequence_number()


def test_a_store_that_waits_for_no_disk_may_lose_the_end_of_its_log(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store", sync=False)) as store:
        fill(store, 20)
        early = shutil.copytree(tmp_path / "store", tmp_path / "early")
        fill(store, 20, seed=1)
        store._db.flush()
        fill(store, 20, seed=2)
        shutil.copy(tmp_path / "store" / NOTE, early / NOTE)
    assert opens_whole(early, 19, read_only=True) and opens_whole(early, 19, read_only=False)


def test_a_store_of_an_earlier_release_opens(one_file, tmp_path):
    store = copied(one_file, tmp_path / "store")
    (store / NOTE).unlink()
    assert opens_whole(store, COMMITS - 1, read_only=True) and opens_whole(store, COMMITS - 1, read_only=False)


def test_a_repair_says_what_is_lost_and_only_then_takes_it_away(one_file, tmp_path):
    store = copied(one_file, tmp_path / "store")
    (path,) = files(store / "db")
    log = read_log(path.read_bytes())
    data = bytearray(path.read_bytes())
    data[log.batches[100].pieces[0][0] + 20] ^= 1
    path.write_bytes(data)
    before = {file.name: file.read_bytes() for file in (store / "db").iterdir() if file.suffix == ".log"}
    (loss,) = examine(store)
    assert before == {file.name: file.read_bytes() for file in (store / "db").iterdir() if file.suffix == ".log"}
    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    assert loss.watermarks == {("file", 0): (99, COMMITS - 1)} and loss.first == log.batches[100].sequence
    assert loss.commits == COMMITS - 101 and "u" in loss.users and f"u{COMMITS - 1} 0" in loss.users
    assert loss.last == log.batches[-1].after - 1
    with pytest.raises(StoreCorruptError):
        RocksDbStore(store)
    (again,) = accept_loss(store)
    assert again == loss
    with contextlib.closing(RocksDbStore(store)) as opened:
        assert opened.watermark("file", 0) == 99 and len(opened.events("u")) == 100
        assert len(list(opened.scan())) == 300
    assert examine(store) == [] == accept_loss(store)


def test_a_repair_of_missing_files(several_files, tmp_path):
    for at, path in enumerate(files(several_files / "db")):
        store = copied(several_files, tmp_path / "store")
        (store / "db" / path.name).unlink()
        (loss,) = accept_loss(store)
        # A gap between two files is seen where the second one begins.
        assert Path(loss.file).name in [file.name for file in files(several_files / "db")[at : at + 2]]
        with contextlib.closing(RocksDbStore(store)) as opened:
            kept = opened.watermark("file", 0)
        assert (kept == -1) == (at == 0)
        assert at == len(files(several_files / "db")) - 1 or loss.watermarks["file", 0][1] > kept + 40


def test_a_repair_of_a_store_of_shards_cuts_the_damaged_one_alone(tmp_path):
    with contextlib.closing(ShardedStore(tmp_path / "open", 2)) as store:
        for number in range(50):
            states = {f"u{user}": b"%d" % number for user in range(20)}
            store.commit(Commit(records={0: states, ITEMS: {"i": b"{}"}}, watermarks={("file", 0): number}))
        shutil.copytree(tmp_path / "open", tmp_path / "store")
    (path,) = files(tmp_path / "store" / "shard-1" / "db")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="shard-1"):
        ShardedStore(tmp_path / "store")
    (loss,) = examine(tmp_path / "store")
    assert "shard-1" in loss.file and accept_loss(tmp_path / "store") == [loss]
    with contextlib.closing(ShardedStore(tmp_path / "store")) as store:
        assert store.watermark("file", 0) == loss.watermarks["file", 0][0] < 49
        assert sorted(set(store.positions("file", 0, [f"u{user}" for user in range(20)])))[-1] == 49


def test_a_repair_leaves_a_store_alone_that_a_process_owns(one_file, tmp_path):
    store = copied(one_file, tmp_path / "store")
    (path,) = files(store / "db")
    flip(path, path.stat().st_size // 2, 3)
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        " print(1, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", holder, str(store / "db" / "LOCK")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(StoreLockedError):
            accept_loss(store)
        owner.stdin.close()
    assert accept_loss(store)
    with pytest.raises(UsageError, match="there is no store"):
        examine(tmp_path / "nothing")


def test_the_command_says_no_before_it_is_accepted(one_file, tmp_path, capsys):
    from lifelong.cli.program import run

    store = copied(one_file, tmp_path / "store")
    (path,) = files(store / "db")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)
    url = f"rocksdb://{store}"
    assert run(["repair", url]) == 1
    said = capsys.readouterr().out
    assert path.name in said and "Source 'file', partition 0: back at offset" in said and "--accept-loss" in said
    assert run(["repair", url, "--accept-loss", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["accepted"] and document["losses"][0]["watermarks"][0]["reached"] == COMMITS - 1
    assert run(["repair", url]) == 0 and "whole" in capsys.readouterr().out
    assert run(["repair", "redis://localhost"]) == 2


def test_the_checksum_is_that_of_every_piece(one_file):
    assert find_fault(one_file / "db", sums=True) is None
    assert checksum(b"") != checksum(b"\0")
