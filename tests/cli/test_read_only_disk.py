"""Commands on a store whose file system can only be read."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("before", ["filled", "empty", "absent"])
@pytest.mark.parametrize("command", ["serve", "ingest", "backfill", "score"])
def test_each_command_says_what_is_wrong_and_what_to_do(run, artifact, events, disk, tmp_path, command, before):
    store = disk / "store"
    url = f"rocksdb://{store}"
    if before == "filled":
        assert run("ingest", artifact, "--store", url, "--from", events).code == 0
    elif before == "empty":
        store.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    rest = {
        "serve": ["--port", "0"],
        "ingest": ["--from", events],
        "backfill": [tmp_path],
        "score": ["--user", "u1", "--items", "i1"],
    }
    outcome = run(command, artifact, *rest[command], "--store", url, "--json")
    assert outcome.code == 1
    if command == "score" and before != "filled":
        assert "there is no store" in outcome.error["found"]
        return
    assert str(store) in outcome.error["found"] and "can only be read" in outcome.error["found"]
    assert "can be written" in outcome.error["expected"]
    assert "mount" in outcome.error["fix"]
