"""Processes that are really killed, at every step of putting a folder in place and at random moments."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("ibis")
pytestmark = pytest.mark.slow

# Forked from one process that has imported everything, a run is killed at its n-th step of a kind, looked at by another
# fork, and run again by a third. A fork is cheap, and nothing of the engine lives in the process that forks.
HARNESS = """
import os, random, shutil, signal, sys, threading, time
from pathlib import Path
import duckdb, ibis, pyarrow, pyarrow.parquet, numpy
from lifelong import atomic as folders
from lifelong.offline.preparation import prepare
from lifelong.dataset.folder import Dataset, array_hash
from lifelong.offline.preparation.prepare import PrepareSettings
from lifelong.errors import DatasetError
import lifelong.offline.preparation.sources.staging
import lifelong.offline.preparation.sources.synthetic
import lifelong.offline.preparation.sources.worlds

home, mode, moments, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
out = home / "data"

def forked(action):
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def run(users, tell=None):
    options = {"users": str(users), "items": "20", "events": "100"}
    settings = PrepareSettings(options=options, threads=1, overwrite=True)
    prepare.prepare("synthetic", [], out, settings=settings, progress=tell)

def killed_at(step):
    def action():
        total = [0]
        def wrap(place):
            def stepped(*given, **named):
                total[0] += 1
                if total[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = place(*given, **named)
                total[0] += 1
                if total[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found
            return stepped
        for name in ("sync_tree", "exchange"):
            setattr(folders, name, wrap(getattr(folders, name)))
        folders.shutil.rmtree = wrap(shutil.rmtree)
        Path.rename = wrap(Path.rename)
        if mode == "two-steps":
            folders.exchange = lambda one, other: False
        run(16)
    return action

def killed_after(seconds):
    def action():
        timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
        run(16)
    return action

def look():
    try:
        found = Dataset(out)
    except DatasetError:
        assert not out.exists(), sorted(out.iterdir())
        kept = [path for path in home.iterdir() if ".replaced-" in path.name]
        assert mode == "two-steps" and len(kept) == 1, "nothing is at the place"
        found = Dataset(kept[0])
    assert found.manifest.counts["users"] in (12, 16), found.manifest.counts
    assert array_hash(found.folder) == found.manifest.data_hash, "it looks finished and is not"

def again():
    said = []
    left = [path.name for path in home.iterdir() if path.name.endswith(".unfinished")]
    run(14, said.append)
    assert Dataset(out).manifest.counts["users"] == 14
    assert [path.name for path in home.iterdir() if ".replaced-" not in path.name] == ["data"], list(home.iterdir())
    assert len([text for text in said if "a killed run had left" in text]) == len(left)

started = time.monotonic()
assert forked(lambda: run(16)) == 0
longest = time.monotonic() - started
draw, kills, step = random.Random(seed), 0, 0
while step < moments:
    step += 1
    shutil.rmtree(home)
    home.mkdir()
    assert forked(lambda: run(12)) == 0
    action = killed_after(draw.random() * longest) if mode == "random" else killed_at(step)
    status = forked(action)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    kills += killed
    assert forked(look) == 0, step
    assert forked(again) == 0, step
    if mode != "random" and not killed:
        break
print("kills", kills)
"""


def kills(home: Path, mode: str, moments: int, seed: int = 0) -> int:
    home.mkdir()
    words = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(HARNESS), str(home), mode, str(moments), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(("mode", "moments"), [("one-step", 4)])
def test_a_kill_while_the_dataset_is_put_in_place_leaves_a_whole_one(tmp_path: Path, mode: str, moments: int) -> None:
    assert kills(tmp_path / "home", mode, moments) == 4


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["one-step", "two-steps"])
def test_a_kill_at_every_step_leaves_a_whole_dataset(tmp_path: Path, mode: str) -> None:
    assert kills(tmp_path / "home", mode, 200) >= 8


@pytest.mark.soak
def test_a_kill_at_any_moment_leaves_a_whole_dataset(tmp_path: Path) -> None:
    assert kills(tmp_path / "home", "random", 60, seed=1) >= 20
