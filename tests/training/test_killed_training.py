"""Trainings whose process is killed, and a disk that is full."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from support.artifacts import empty_graphs, tiny_artifact

from lifelong.artifact.folder import Artifact
from lifelong.errors import DataError
from lifelong.offline.export import saving
from lifelong.offline.training.checkpoint import Checkpoint, Fingerprint, Progress, State
from lifelong.testing.datasets import tiny_dataset

FINGERPRINT = Fingerprint(data_hash="abc", model="hpmn", settings={}, train={})


def state(examples: int) -> State:
    return State(Progress(examples=examples), {"weight": torch.full((100,), float(examples))}, {}, {})


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space"), SafetensorError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_keeps_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(tensors: Any, path: Path, **named: Any) -> None:
        path.write_bytes(b"half")
        raise error

    checkpoint = Checkpoint(tmp_path / "out", FINGERPRINT)
    checkpoint.save(state(1))
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(DataError, match=r"the disk that holds .* is full.*--resume"):
        checkpoint.save(state(2))
    assert checkpoint.load().progress.examples == 1
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.safetensors"]


def test_a_full_disk_keeps_the_earlier_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "write_graphs", empty_graphs)
    dataset = tiny_dataset(tmp_path / "data", num_users=10)
    before = tiny_artifact(tmp_path / "artifact", dataset, model="dnn").id

    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saving, "write_graphs", full)
    with pytest.raises(DataError, match="an earlier artifact is still there"):
        tiny_artifact(tmp_path / "artifact", dataset, model="dnn", seed=1)
    assert Artifact.open(tmp_path / "artifact").id == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "data"]


# Forked from a process that has imported everything: killed before and after each step of replacing the state.
HARNESS = """
import os, shutil, signal, sys
from pathlib import Path
import torch, safetensors.torch
from lifelong import atomic
from lifelong.offline.training.checkpoint import Checkpoint, Fingerprint, Progress, State

checkpoint = Checkpoint(Path(sys.argv[1]) / "out", Fingerprint(data_hash="abc", model="hpmn", settings={}, train={}))

def state(examples):
    return State(Progress(examples=examples), {"weight": torch.full((100,), float(examples))}, {}, {})

def killed_at(step):
    total = 0
    def wrap(place):
        def stepped(*given, **named):
            nonlocal total
            for part in ("before", "after"):
                total += 1
                if total == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                if part == "before":
                    found = place(*given, **named)
            return found
        return stepped
    Path.replace, atomic.sync = wrap(Path.replace), wrap(atomic.sync)
    safetensors.torch.save_file = wrap(safetensors.torch.save_file)
    checkpoint.save(state(2))

for step in range(1, 100):
    shutil.rmtree(checkpoint.folder, ignore_errors=True)
    checkpoint.save(state(1))
    child = os.fork()
    if not child:
        killed_at(step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = checkpoint.load()
    assert float(found.model["weight"][0]) == found.progress.examples in (1, 2)
    checkpoint.save(state(3))
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.safetensors"]
    if not os.WIFSIGNALED(status):
        break
print("kills", step - 1)
"""


@pytest.mark.slow
def test_a_kill_while_the_state_is_saved_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(HARNESS), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) == 8


@pytest.mark.soak
def test_a_training_that_is_killed_again_and_again_ends_with_a_whole_artifact(tmp_path: Path) -> None:
    dataset, out = tiny_dataset(tmp_path / "data", num_users=20), tmp_path / "out"
    settings = ("train.max_epochs=600", "train.validate_every=0.25", "train.patience=1000")
    words = [sys.executable, "-m", "lifelong", "train", str(dataset.folder), "--out", str(out), "--model", "dnn"]
    words += [word for each in settings for word in ("--set", each)] + ["--set", "train.threads=1"]
    draw, kills = random.Random(0), 0
    for _ in range(40):
        resume = ["--resume"] if (tmp_path / "out.checkpoint" / "state.safetensors").exists() else []
        with subprocess.Popen([*words, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            try:
                child.wait(timeout=5 + 10 * draw.random())
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
                child.wait()
                if out.exists():
                    Artifact.open(out)
                continue
            assert child.returncode == 0, child.stderr.read() if child.stderr else ""
            break
    assert kills and Artifact.open(out).metrics["stopped_by"] == "examples"
    shutil.rmtree(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
