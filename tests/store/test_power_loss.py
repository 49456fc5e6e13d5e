"""After a loss of power at any moment all that was acknowledged is there, once; `support.power_loss` has the model."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.power_files import Work
from support.power_loss import MODELS, SAID, SYNC, Cut, Disk, Speaker, cuts, recorder, recording, records
from support.power_work import check
from support.valkey import Server, free_port

pytest.importorskip("rocksdict")

from lifelong.online.store.opening import open_store

pytestmark = pytest.mark.skipif(recorder() is None, reason="there is no C compiler (Debian: gcc, libc6-dev)")
TESTS = Path(__file__).parents[1]
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
REWRITTEN_OFTEN = ("--auto-aof-rewrite-percentage", "30", "--auto-aof-rewrite-min-size", "16kb")


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder in RAM, where there is one: each cut is opened and synced."""
    ram = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=ram if os.access(ram, os.W_OK) else None) as folder:
        yield Path(folder)


def run(*words: str, **environment: str) -> None:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONPATH": paths} | environment, check=True)


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_all_was_recorded(root: Path, made) -> None:
    """What the recording gives at its end is what is on the disk."""
    disk = Disk(root)
    disk.play(*made)
    there, told = files_below(root), disk.live()
    # Diaries are still open, or were opened by us.
    for path in {*there, *told}:
        assert Path(path).name in ("LOG", "log") or told.get(path) == there.get(path), path


def tried(folder: Path, number: int, seed: int, outcome: Callable[[Cut], str]) -> Counter[tuple[str, str]]:
    """Lose power so many times in a recording; what each took, per model.

    Raises:
        AssertionError: something is not as it must be; says at which cut.
    """
    root, made, found = folder / "root", records(folder / "recording"), Counter[tuple[str, str]]()
    assert_all_was_recorded(root, made)
    for cut in cuts(root, made, number, seed, folder / "cut"):
        try:
            found[cut.model, outcome(cut)] += 1
        except Exception as error:
            where = f"{cut.model!r} before operation {cut.place} of seed {seed}, chance {cut.seed}"
            raise AssertionError(f"{where}: {error!r}") from error
    return found


def lose_power_of_rocksdb(
    artifact, folder: Path, shards: int, number: int, seed: int, *more: str
) -> Counter[tuple[str, str]]:
    root, log = folder / "root", folder / "recording"
    root.mkdir()
    url = f"rocksdb://{root}/new/store?shards={shards}"
    run("-m", "support.power_work", str(artifact.path), url, str(log), str(seed), *more, **recording(root, log))
    return tried(folder, number, seed, partial(rocksdb_again, artifact, folder / "cut" / "new" / "store", shards, seed))


def rocksdb_again(artifact, store: Path, shards: int, seed: int, cut: Cut) -> str:
    """Open a store after a loss of power, which it does by itself, and compare."""
    with contextlib.closing(open_store(f"rocksdb://{store}?shards={shards}")) as opened:
        check(artifact, opened, seed, cut.said, whole=shards == 1)
    return "opened"


def lose_power_of_files(artifact, folder: Path, number: int, seed: int) -> Counter[tuple[str, str]]:
    root, log, source = folder / "root", folder / "recording", folder / "events.csv"
    root.mkdir()
    words = ["-m", "support.power_files", *map(str, [artifact.path, root, source, log, seed])]
    run(*words, **recording(root, log))

    def outcome(cut: Cut) -> str:
        Work(artifact, folder / "cut", source, seed).check(cut.said)
        return "checked"

    return tried(folder, number, seed, outcome)


def lose_power_of_valkey(artifact, folder: Path, number: int, seed: int) -> Counter[tuple[str, str]]:
    root, log = folder / "root", folder / "recording"
    root.mkdir()
    one = Server(root, free_port(), (*ALWAYS, *REWRITTEN_OFTEN), environment=recording(root, log))
    try:
        one.start()
        # It does not sync the name of its new folder, nor the folder that it is in.
        Speaker(log).say(SYNC)
        run("-m", "support.power_work", str(artifact.path), f"redis://127.0.0.1:{one.port}/0", str(log), str(seed))
    finally:
        one.kill()
    return tried(folder, number, seed, partial(valkey_again, artifact, folder / "cut", seed))


def valkey_again(artifact, folder: Path, seed: int, cut: Cut) -> str:
    """Start a server after a loss of power, compare, and say what it took."""
    one, outcome = Server(folder, free_port(), ALWAYS), "started"
    try:
        try:
            one.start()
        except RuntimeError as error:
            assert "valkey-check-aof --fix" in str(error), error
            manifest = next((folder / "appendonlydir").glob("*.manifest"))
            subprocess.run(["valkey-check-aof", "--fix", manifest], input=b"y\n", check=True, capture_output=True)
            one.start()
            outcome = "repaired"
        with contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}/0")) as opened:
            check(artifact, opened, seed, cut.said, whole=True)
    finally:
        one.kill()
    return outcome


@pytest.mark.parametrize(("shards", "number"), [(1, 26), (2, 12)])
def test_rocksdb_loses_and_doubles_nothing_that_was_acknowledged(artifact, ground, shards, number):
    found = lose_power_of_rocksdb(artifact, ground, shards, number, seed=1)
    assert {model for model, _ in found} == set(MODELS) and found.total() == number


def test_what_is_written_next_to_memories_is_whole_and_what_was_acknowledged_is_there(artifact, ground):
    """Dead letters, positions of files, impressions, the list of artifacts, backups and stores made of them."""
    pytest.importorskip("pyarrow")
    assert lose_power_of_files(artifact, ground, 24, seed=1).total() == 24


def test_valkey_with_appendfsync_always_loses_and_doubles_nothing_that_was_acknowledged(artifact, ground, needs_valkey):
    found = lose_power_of_valkey(artifact, ground, 12, seed=1)
    assert {model for model, _ in found} == set(MODELS) and found.total() == 12


def test_a_store_that_does_not_wait_for_the_disk_is_found_out(artifact, ground):
    with pytest.raises(AssertionError, match=r"after \d+ steps"):
        lose_power_of_rocksdb(artifact, ground, 1, 8, 1, "unsynced")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("kind", ["rocksdb", "shards", "valkey", "files"])
def test_many_losses_of_power(artifact, ground, needs_valkey, kind, seed):
    """12,000 of them: 20 recordings of each kind."""
    if kind == "valkey":
        assert lose_power_of_valkey(artifact, ground, 100, seed).total() == 100
    elif kind == "files":
        pytest.importorskip("pyarrow")
        assert lose_power_of_files(artifact, ground, 100, seed).total() == 100
    else:
        shards = 1 if kind == "rocksdb" else 3
        assert lose_power_of_rocksdb(artifact, ground, shards, 200, seed).total() == 200


SCRIPT = """
import os
os.chdir(os.environ["LIFELONG_RECORD_ROOT"])
def write(name, text, sync, mode=os.O_TRUNC):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | mode)
    os.write(file, text)
    if sync:
        os.fsync(file)
    os.close(file)
def sync(folder):
    file = os.open(folder, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
write("certain", b"old", True)
write("content only", b"x", False)
os.mkdir("folder")
write("folder/inside", b"x", True)
sync("folder")
sync(".")
write("name only", b"x", True)
write("certain", b"+" * 9000, False, os.O_APPEND)
write("new", b"new", True)
os.rename("new", "folder/inside")
os.unlink("content only")
"""


@pytest.fixture
def script(ground) -> Path:
    (ground / "root").mkdir()
    run("-c", SCRIPT, **recording(ground / "root", ground / "recording"))
    return ground


def left(script: Path, model: str) -> list[dict[str, bytes]]:
    """What losses of power at the end of the script leave."""
    disk, found = Disk(script / "root"), []
    disk.play(*records(script / "recording"))
    for seed in range(200):
        disk.lose_power(script / str(seed), random.Random(seed), model)
        found.append(files_below(script / str(seed)))
    return found


def test_what_was_synced_is_certain_and_nothing_else(script):
    assert_all_was_recorded(script / "root", records(script / "recording"))
    some = left(script, "nothing")
    assert all(one == {"certain": b"old", "content only": b"", "folder/inside": b"x"} for one in some)


@pytest.mark.parametrize("model", MODELS[1:])
def test_of_the_rest_any_part_may_be_there(script, model):
    some = left(script, model)
    assert all(one["certain"].startswith(b"old") and one["folder/inside"] in (b"x", b"new") for one in some)
    assert {"name only" in one for one in some} == {True, False}
    assert {one["folder/inside"] for one in some} == {b"x", b"new"}
    sizes = {len(one["certain"]) for one in some}
    assert len(sizes) > 3 and max(sizes) == 9_003
    if model == "in order":
        assert all(set(one["certain"][3:]) <= {43} for one in some), "a prefix"
        assert all("name only" in one for one in some if len(one["certain"]) > 3)
    else:
        assert any(b"\0" in one["certain"] for one in some), "a hole"


FROM_FOLDER_TO_FOLDER = (
    SCRIPT.partition('write("certain"')[0]
    + """
os.mkdir("folder")
write("new", b"x", True)
sync("folder")
sync(".")
os.rename("new", "folder/moved")
write("folder/later", b"x", True)
write("elsewhere", b"x", True)
"""
)


def test_names_of_a_folder_keep_their_order_when_one_of_them_comes_from_another_folder(ground):
    (ground / "root").mkdir()
    run("-c", FROM_FOLDER_TO_FOLDER, **recording(ground / "root", ground / "recording"))
    some = [set(one) for one in left(ground, "any")]
    assert {frozenset(one) for one in some} >= {frozenset({"new"}), frozenset({"folder/moved", "folder/later"})}
    assert all("folder/moved" in one for one in some if one & {"folder/later", "elsewhere"})


def test_a_client_speaks_in_the_order_of_what_happens(ground):
    speaker = Speaker(ground / "recording")
    speaker.say("begin")
    speaker.say("done")
    assert [(one.kind, one.data) for one in records(ground / "recording")] == [(SAID, b"begin"), (SAID, b"done")]
