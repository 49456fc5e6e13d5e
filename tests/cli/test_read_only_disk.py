"""Commands on a store whose file system can only be read."""

import subprocess

import pytest

pytest.importorskip("rocksdict")


@pytest.mark.parametrize("before", ["filled", "empty", "absent"])
@pytest.mark.parametrize("command", ["serve", "ingest", "backfill", "score"])
def test_each_command_says_what_is_wrong_and_what_to_do(run, artifact, events, small_disk, tmp_path, command, before):
    store = small_disk / "store"
    url = f"rocksdb://{store}"
    if before == "filled":
        assert run("ingest", artifact, "--store", url, events).code == 0
    elif before == "empty":
        store.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    rest = {
        "serve": ["--port", "0"],
        "ingest": [events],
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
