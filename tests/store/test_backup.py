"""Backups of stores that are used, and stores made of them."""

import contextlib
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.cli.program import run
from lifelong.errors import StoreCorruptError, UsageError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store import backup as backups
from lifelong.online.store.backup import FACTS, backup, read_backup, restore
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.sharded import ShardedStore

START = 1_700_000_000
OWNER = """
import sys
from pathlib import Path
from lifelong.online.store.contract import Commit
from lifelong.online.store.rocksdb import RocksDbStore
store = RocksDbStore(Path(sys.argv[1]), sync=False)
number = -1
while True:
    number += 1
    states = {f"u{user}": b"%d" % number for user in range(20)}
    store.commit(Commit(records={0: states}, watermarks={("s", 0): number}, events={("u0", number + 1): b"e"}))
    if number % 50 == 49:
        store._db.flush()
    print(number, flush=True)
"""


@pytest.fixture
def numbers(tmp_path):
    """What a process that owns `store` has acknowledged."""
    found = [-1]
    words = [sys.executable, "-c", OWNER, str(tmp_path / "store")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as owner:
        thread = threading.Thread(target=lambda: found.extend(map(int, owner.stdout)))
        thread.start()
        while found[-1] < 100:
            pass
        yield found
        owner.kill()
        thread.join()


def test_a_backup_of_a_store_under_writes_holds_what_was_acknowledged_and_nothing_half(tmp_path, numbers):
    for name in ("one", "two", "three"):
        before = numbers[-1]
        backup(tmp_path / "store", tmp_path / name)
        after = numbers[-1] + 1
        restore(tmp_path / name, tmp_path / f"{name}-store")
        with contextlib.closing(RocksDbStore(tmp_path / f"{name}-store")) as store:
            reached = store.watermark("s", 0)
            assert before <= reached <= after + 1
            assert dict(store.scan()) == {f"u{user}": b"%d" % reached for user in range(20)}
            assert len(store.events("u0")) == reached + 1
    assert numbers[-1] > after, "the owner did not go on"


def test_files_that_change_while_they_are_copied_are_copied_again(tmp_path, monkeypatch):
    copied, tried = backups._copy_files, []
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        store.commit(Commit(records={0: {"u": b"1"}}))

        def changing(folder, to):
            copied(folder, to)
            tried.append(len(tried))
            if len(tried) < 4:
                store.commit(Commit(records={0: {"u": b"%d" % len(tried)}}))
                store._db.flush()

        monkeypatch.setattr(backups, "_copy_files", changing)
        backup(tmp_path / "store", tmp_path / "backup")
        assert len(tried) == 4
    restore(tmp_path / "backup", tmp_path / "again")
    with contextlib.closing(RocksDbStore(tmp_path / "again")) as again:
        assert again.read_many(["u"]) == [b"3"]


@pytest.mark.parametrize("option", ["", "?shards=3"])
def test_a_restored_store_is_what_a_replay_gives_and_goes_on_with_the_rest_of_the_source(artifact, tmp_path, option):
    events = [UserEvent(f"u{k % 7}", f"i{k % 5}", START + k, "view") for k in range(200)]
    with contextlib.closing(open_store(f"rocksdb://{tmp_path}/store{option}")) as store:
        updater = Updater(artifact, store)
        updater.apply(events[:120], source="s", offsets=range(120))
        backup(tmp_path / "store", tmp_path / "backup")
        updater.apply(events[120:], source="s", offsets=range(120, 200))
    assert restore(tmp_path / "backup", tmp_path / "again").artifact == artifact.id
    with contextlib.closing(open_store(f"rocksdb://{tmp_path}/again")) as again:
        assert again.watermark("s", 0) == 119
        assert verify(artifact, None, again).equal
        updater = Updater(artifact, again)
        updater.apply(events, source="s", offsets=range(200))
        once = InMemoryStore()
        Updater(artifact, once).apply(events)
        users = [f"u{k}" for k in range(7)]
        found, wanted = updater.runtime.decode(again.read_many(users)), updater.runtime.decode(once.read_many(users))
        assert found.count_B.tolist() == wanted.count_B.tolist()
        assert abs(found.fields["slot"] - wanted.fields["slot"]).max() < 1e-5


def test_a_backup_does_not_change_with_its_store(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        store.commit(Commit(records={0: {f"u{number}": b"%d" % number for number in range(500)}}))
        store._db.flush()
        backup(tmp_path / "store", tmp_path / "backup")
        linked = [path for path in (tmp_path / "backup" / "db").glob("*.sst") if path.stat().st_nlink > 1]
        assert linked
        store.commit(Commit(deleted=[f"u{number}" for number in range(500)]))
        store.purge()
    made = read_backup(tmp_path / "backup")
    assert made.store == str(tmp_path / "store") and made.bytes > 1_000
    restore(tmp_path / "backup", tmp_path / "again")
    with contextlib.closing(RocksDbStore(tmp_path / "again", read_only=True)) as again:
        assert len(list(again.scan())) == 500


def test_nothing_is_overwritten_and_what_is_no_backup_is_refused(tmp_path):
    with contextlib.closing(ShardedStore(tmp_path / "store", 2)) as store:
        store.commit(Commit(records={0: {"a": b"1", "b": b"2"}}))
        backup(tmp_path / "store", tmp_path / "backup")
    with pytest.raises(UsageError, match="exists"):
        backup(tmp_path / "store", tmp_path / "backup")
    with pytest.raises(UsageError, match="exists, and a backup never overwrites anything"):
        restore(tmp_path / "backup", tmp_path / "store")
    with pytest.raises(UsageError, match="is not a backup"):
        restore(tmp_path / "store", tmp_path / "new")
    with pytest.raises(UsageError, match="there is no store"):
        backup(tmp_path / "nothing", tmp_path / "new")
    table = next((tmp_path / "backup" / "shard-1" / "db").glob("*.sst"))
    content = table.read_bytes()
    table.unlink()
    table.write_bytes(content[:-1])
    with pytest.raises(StoreCorruptError, match=table.name):
        restore(tmp_path / "backup", tmp_path / "new")
    table.unlink()
    with pytest.raises(StoreCorruptError, match="is missing"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "store"]


@pytest.fixture
def backed_up(tmp_path):
    """A backup of a store of two shards."""
    with contextlib.closing(ShardedStore(tmp_path / "store", 2)) as store:
        store.commit(Commit(records={0: {f"u{number}": b"%d" % number for number in range(50)}}))
        backup(tmp_path / "store", tmp_path / "backup")
    return tmp_path / "backup"


def test_a_flipped_bit_in_any_file_of_a_backup_is_found_and_named(backed_up, tmp_path):
    chance, names = random.Random(1), list(read_backup(backed_up).files)
    assert {Path(name).suffix for name in names} >= {".sst", ".json", ""}
    for turn, name in enumerate(names):
        whole = (backed_up / name).read_bytes()
        place = chance.randrange(len(whole)) if whole else 0
        damaged = bytes([*whole[:place], (whole[place] if whole else 0) ^ 1, *whole[place + 1 :]])
        # Tables are linked to those of the store.
        (backed_up / name).unlink()
        (backed_up / name).write_bytes(damaged)
        with pytest.raises(StoreCorruptError, match=re.escape(str(backed_up / name))):
            restore(backed_up, tmp_path / f"again {turn}")
        assert not (tmp_path / f"again {turn}").exists()
        (backed_up / name).write_bytes(whole)
    assert restore(backed_up, tmp_path / "again").bytes > 0


def test_a_link_or_a_name_that_leads_out_of_a_backup_is_refused(backed_up, tmp_path):
    table = next((backed_up / "shard-1" / "db").glob("*.sst"))
    outside = tmp_path / "outside"
    table.rename(outside)
    table.symlink_to(outside)
    with pytest.raises(StoreCorruptError, match="is a link"):
        restore(backed_up, tmp_path / "again")
    table.unlink()
    outside.rename(table)
    (backed_up / "shard-1").rename(tmp_path / "elsewhere")
    (backed_up / "shard-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreCorruptError, match="is a link"):
        restore(backed_up, tmp_path / "again")
    (backed_up / "shard-1").unlink()
    (tmp_path / "elsewhere").rename(backed_up / "shard-1")
    facts, outside = json.loads((backed_up / FACTS).read_text()), tmp_path / "secret"
    outside.write_text("s")
    for name in ("../secret", str(outside), "shard-1/../../secret", str(backed_up / "store.json")):
        files = {**facts["files"], name: [1, "0"]}
        (backed_up / FACTS).write_text(json.dumps({**facts, "files": files}))
        with pytest.raises(StoreCorruptError, match="outside of the backup"):
            restore(backed_up, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_was_added_to_a_backup_is_not_restored(backed_up, tmp_path):
    (backed_up / "shard-0" / "db" / "999999.log").symlink_to("/etc/passwd")
    (backed_up / "more").write_text("more")
    restore(backed_up, tmp_path / "again")
    assert not (tmp_path / "again" / "more").exists()
    assert not (tmp_path / "again" / "shard-0" / "db" / "999999.log").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from lifelong.online.store import backup
def kill(*parts):
    os.kill(os.getpid(), signal.SIGKILL)
backup.put_in_place = kill
getattr(backup, sys.argv[1])(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_the_copy_that_a_killed_run_has_left_goes_at_the_next_run_for_any_name(backed_up, tmp_path, what):
    source = {"backup": tmp_path / "store", "restore": backed_up}[what]
    left, run_again = tmp_path / "left", {"backup": backup, "restore": restore}[what]
    left.mkdir()
    words = [sys.executable, "-c", KILLED, what, str(source)]
    for _ in range(2):
        assert subprocess.run([*words, str(left / "monday")], check=False).returncode == -signal.SIGKILL
        assert [path.name[:8] for path in left.iterdir()] == [".monday."], "the one before is gone"
    run_again(source, left / "tuesday")
    assert [path.name for path in left.iterdir()] == ["tuesday"]


def test_a_damaged_store_is_named_and_no_backup_is_made_of_it(tmp_path):
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        for number in range(50):
            store.commit(Commit(records={0: {"u": b"%d" % number}}))
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
    (log,) = (tmp_path / "killed" / "db").glob("*.log")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(StoreCorruptError, match=f"nothing was made: {tmp_path}/killed is damaged"):
        backup(tmp_path / "killed", tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "store"] and log.read_bytes() == data


def test_the_commands(tmp_path, capsys):
    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        store.commit(Commit(records={0: {"u": b"1"}}))
        assert run(["backup", f"{tmp_path}/backup", "--store", f"rocksdb://{tmp_path}/store", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == read_backup(tmp_path / "backup").bytes
    assert run(["backup", f"{tmp_path}/backup", "--restore", "--store", f"rocksdb://{tmp_path}/again"]) == 0
    assert "lifelong verify" in capsys.readouterr().out and (tmp_path / "backup" / FACTS).exists()
    assert run(["backup", f"{tmp_path}/backup", "--restore", "--store", f"rocksdb://{tmp_path}/again"]) == 2
    assert run(["backup", f"{tmp_path}/other", "--store", "redis://localhost"]) == 2
    assert "docs/backup.md" in capsys.readouterr().err
    with contextlib.closing(RocksDbStore(tmp_path / "again")) as again:
        assert again.read_many(["u"]) == [b"1"]


def test_what_the_commands_print_can_be_typed(artifact, tmp_path, monkeypatch, capsys):
    """With the name of a folder in place of NEW, and the artifact's in place of ARTIFACT."""
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(open_store("rocksdb://my store")) as store:
        Updater(artifact, store).apply([UserEvent("u1", "i1", START)])
    assert run(["backup", "my backup", "--store", "rocksdb://my store"]) == 0
    printed = capsys.readouterr().out
    words = shlex.split(printed[printed.index("lifelong backup ") :])
    assert words == ["lifelong", "backup", "my backup", "--restore", "--store", "rocksdb://NEW"]
    assert run([word.replace("NEW", "my new store") for word in words[1:]]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"as it was at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", printed)
    words = shlex.split(printed[printed.index("lifelong verify") :])
    assert words == ["lifelong", "verify", "ARTIFACT", "--store", "rocksdb://my new store"]
    assert run([word.replace("ARTIFACT", str(artifact.path)) for word in words[1:]]) == 0
