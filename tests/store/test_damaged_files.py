"""Damage of any file of a store: harmless, or found and named; never fewer events without a word."""

import contextlib
import random
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.cli.program import run
from lifelong.errors import StoreCorruptError, StoreError
from lifelong.online.memory.verify import verify
from lifelong.online.store.backup import backup
from lifelong.online.store.contract import Commit
from lifelong.online.store.database import ACKNOWLEDGED, Acknowledged, begin, last_acknowledged
from lifelong.online.store.opening import open_store
from lifelong.online.store.rocksdb import RocksDbStore

COMMITS = 120


def fill(store: RocksDbStore, commits: range, seed: int = 0) -> None:
    """Commits of all sizes, one after the other."""
    chance = random.Random(seed)
    for number in commits:
        states = {f"u{number} {user}": chance.randbytes(chance.choice([5, 50, 700, 3_000])) for user in range(3)}
        store.commit(Commit(records={0: states}, watermarks={("file", 0): number}, events={("u", number + 1): b"e"}))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a kill leaves it: tables, and commits that are in the log alone."""
    folder = tmp_path_factory.mktemp("killed")
    with contextlib.closing(RocksDbStore(folder / "open")) as store:
        fill(store, range(COMMITS // 2))
        store._db.flush()
        fill(store, range(COMMITS // 2, COMMITS), seed=1)
        shutil.copytree(folder / "open", folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def several_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a kill leaves it while RocksDB does not get round to its tables: several files of the log."""
    import rocksdict

    folder, opened = tmp_path_factory.mktemp("several"), rocksdict.Rdict

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
        fill(store, range(COMMITS))
        shutil.copytree(folder / "open", folder / "store")
    assert len(list((folder / "store" / "db").glob("*.log"))) > 2
    return folder / "store"


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def zero(path: Path, start: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(len(data[start : start + size]))
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def damage_of(path: Path, chance: random.Random) -> Callable[[Path], None]:
    """A way to damage a file."""
    size = path.stat().st_size
    step = chance.choice([512, 4_096, 32_768])
    kind = chance.choices(["flip", "cut", "zero", "gone"], [8, 4, 1, 1])[0]
    if kind == "gone" or not size:
        return Path.unlink
    if kind == "flip":
        return partial(flip, place=chance.randrange(size), bit=chance.randrange(8))
    return partial(cut, size=chance.randrange(size)) if kind == "cut" else partial(zero, start=0, size=step)


def content(store: Path, *, read_only: bool) -> object:
    """All that a store holds."""
    with contextlib.closing(RocksDbStore(store, read_only=read_only)) as opened:
        # By key, too, which filters answer first.
        single = [opened.read_many([f"u{number} 1"]) for number in range(0, COMMITS, 5)]
        return dict(opened.scan()), single, opened.events("u"), opened.watermark("file", 0)


def outcome(store: Path, whole: object, damage: Callable[[Path], None], name: Path, folder: Path, turn: int) -> str:
    """What becomes of a store with a damaged file: "harmless" or "named"."""
    damaged = folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(store, damaged)
    damage(damaged / name)
    try:
        found = content(damaged, read_only=turn % 2 == 0)
    except StoreError as error:
        assert str(damaged) in error.found and error.fix, error
        return "named"
    assert found == whole, f"{name} after {damage} (turn {turn}): something is gone, and nobody says so"
    return "harmless"


def damaged_often(store: Path, kinds: str, number: int, seed: int, folder: Path) -> Counter[str]:
    """Damage files of a kind, one at a time, so many times."""
    chance = random.Random(seed)
    copy = shutil.copytree(store, folder / "whole")
    names = sorted(path.relative_to(store) for path in store.rglob(kinds) if path.is_file() and path.name != "LOCK")
    whole = content(copy, read_only=True)
    found = Counter[str]()
    for turn in range(number):
        name = chance.choice(names)
        found[outcome(store, whole, damage_of(store / name, chance), name, folder, turn)] += 1
    return found


LOGS, FILES = 36, 48


@pytest.mark.parametrize("kind", ["killed", "several_logs"])
def test_no_damage_of_the_log_loses_a_commit_silently(request, tmp_path, kind):
    found = damaged_often(request.getfixturevalue(kind), "*.log", LOGS, 1, tmp_path)
    # A bit in the few bytes that fill a block up is harmless.
    assert found["named"] >= LOGS - 2


def test_no_damage_of_any_other_file_loses_a_commit_silently(killed, tmp_path):
    found = damaged_often(killed, "*[!g]", FILES, 2, tmp_path)
    assert min(found["named"], found["harmless"]) > 5


@pytest.mark.soak
@pytest.mark.parametrize(
    ("kind", "files"), [("killed", "*.log"), ("several_logs", "*.log"), ("killed", "*.sst"), ("killed", "*")]
)
def test_many_damages(request, tmp_path, kind, files):
    assert damaged_often(request.getfixturevalue(kind), files, 170, 3, tmp_path).total() == 170


@pytest.mark.parametrize("missing", [1, 100, 5_000])
def test_a_log_that_was_cut_lacks_what_was_acknowledged_and_says_so(killed, tmp_path, missing):
    store = shutil.copytree(killed, tmp_path / "store")
    (log,) = (store / "db").glob("*.log")
    cut(log, log.stat().st_size - missing)
    for read_only in (True, False, False):
        with pytest.raises(StoreCorruptError, match="was acknowledged"):
            RocksDbStore(store, read_only=read_only)


def test_parts_of_a_commit_that_never_returned_are_left_out_at_the_opening(killed, tmp_path, caplog):
    """As a loss of power leaves them: of the last commit a part, with a hole in it."""
    store = shutil.copytree(killed, tmp_path / "store")
    (store / ACKNOWLEDGED).unlink()
    begin(store)
    (log,) = (store / "db").glob("*.log")
    flip(log, log.stat().st_size - 3, 1)
    for read_only in (True, False):
        with contextlib.closing(RocksDbStore(store, read_only=read_only)) as opened:
            assert opened.watermark("file", 0) == COMMITS - 2 and len(opened.events("u")) == COMMITS - 1
    assert "what follows the last acknowledged commit in its log is left out" in caplog.text


def test_a_store_that_waits_for_no_disk_may_lose_the_end_of_its_log(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "open", sync=False)) as store:
        fill(store, range(20))
        early = shutil.copytree(tmp_path / "open", tmp_path / "store")
        fill(store, range(20, 40))
    (log,) = (early / "db").glob("*.log")
    cut(log, log.stat().st_size - 100)
    with contextlib.closing(RocksDbStore(early)) as opened:
        assert opened.watermark("file", 0) == 18


def test_commits_next_to_a_purge_are_all_acknowledged(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        for number in range(10):
            fill(store, range(number, number + 1))
            store.purge()
            assert 0 < last_acknowledged(tmp_path / "store") <= store._db.latest_sequence_number()


def test_the_number_is_whole_when_a_write_of_it_is_cut(tmp_path):
    begin(tmp_path)
    for sequence in (5, 9, 7, 300):
        before, data = last_acknowledged(tmp_path), (tmp_path / ACKNOWLEDGED).read_bytes()
        number = Acknowledged(tmp_path)
        number.note(sequence)
        number.close()
        after = (tmp_path / ACKNOWLEDGED).read_bytes()
        assert last_acknowledged(tmp_path) == max(before, sequence)
        for size in range(len(data)):
            (tmp_path / ACKNOWLEDGED).write_bytes(after[:size] + data[size:])
            assert last_acknowledged(tmp_path) in (before, max(before, sequence))
        (tmp_path / ACKNOWLEDGED).write_bytes(after)


def commands_of(error: StoreError) -> list[list[str]]:
    """What the error says to type."""
    return [shlex.split(words) for words in re.findall(r"`([^`]+ [^`]+)`", error.fix)]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("with_backup", [True, False])
def test_the_stated_way_back_brings_all_events_back(artifact, tmp_path, capsys, shards, with_backup):
    source, folder = tmp_path / "events.csv", tmp_path / "my store"
    lines = [f"u{number % 9},i{number % 5},{1_700_000_000 + number}" for number in range(60)]
    source.write_text("\n".join(["user,item,time", *lines[:30], ""]))
    ingest = ["ingest", str(artifact.path), "--store", f"rocksdb://{folder}?shards={shards}", str(source)]
    assert run([*ingest, "--workers", "1"]) == 0
    backup(folder, tmp_path / "my backup")
    source.write_text("\n".join(["user,item,time", *lines, ""]))
    assert run([*ingest, "--workers", "1"]) == 0
    for table in folder.rglob("*.sst"):
        data = table.read_bytes()
        # It is linked to the backup's.
        table.unlink()
        table.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreCorruptError) as raised:
        open_store(f"rocksdb://{folder}")
    move, restore, again = commands_of(raised.value)[:3]
    assert (move[0], restore[:2], again[:2]) == ("mv", ["lifelong", "backup"], ["lifelong", "ingest"])
    shutil.move(*move[1:])
    names = {"BACKUP": str(tmp_path / "my backup"), "ARTIFACT": str(artifact.path), "SOURCE": str(source)}
    if with_backup:
        assert run([names.get(word, word) for word in restore[1:]]) == 0
    assert run([names.get(word, word) for word in again[1:]]) == 0
    with contextlib.closing(open_store(f"rocksdb://{folder}")) as store:
        assert sum(len(store.events(f"u{user}")) for user in range(9)) == 60
        assert verify(artifact, None, store).equal
