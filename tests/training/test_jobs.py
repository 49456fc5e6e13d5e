"""Runs in this process and in workers: what is finished stays, a failed one leaves the others alone."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from support.processes import children, until, wait_until_gone

from lifelong.config import RunConfig, TrainSettings
from lifelong.errors import MismatchError
from lifelong.offline.training import trainer
from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.runs import Run
from lifelong.offline.training.study import run_jobs

QUICK = TrainSettings(threads=1, max_examples=300, validate_every=100, batch_targets=64)


DATASET = {"num_users": 12, "num_items": 30, "mean_events": 20}


def job(out, model, *, seed=0, train=QUICK, **settings):
    config = RunConfig(train=train, model=settings).with_train(seed=seed)
    return Run(out / f"{model}-seed{seed}", model, config, resamples=5)


def test_a_finished_run_is_not_done_again(dataset, tmp_path, monkeypatch):
    assert run_jobs(dataset, [job(tmp_path, "popularity")]) == {}
    monkeypatch.setattr(trainer, "train", None)
    assert run_jobs(dataset, [job(tmp_path, "popularity")]) == {}


def test_a_failed_run_is_named_and_leaves_the_others_alone(dataset, tmp_path, failing):
    failing("counts")
    jobs = [job(tmp_path, "counts"), job(tmp_path, "popularity")]
    assert run_jobs(dataset, jobs) == {"counts-seed0": "ValueError: no luck"}
    assert [part.finished for part in jobs] == [False, True]


def test_a_folder_with_other_settings_is_refused_before_anything_is_done(dataset, tmp_path):
    run_jobs(dataset, [job(tmp_path, "popularity")])
    jobs = [job(tmp_path, "counts"), job(tmp_path, "popularity", smoothing=3.0)]
    with pytest.raises(MismatchError, match="popularity-seed0 holds a run on other data or with other settings"):
        run_jobs(dataset, jobs)
    assert not jobs[0].trained


def test_other_threads_are_no_other_settings(dataset, tmp_path):
    run_jobs(dataset, [job(tmp_path, "popularity")])
    again = job(tmp_path, "popularity", train=QUICK.model_copy(update={"threads": 2}))
    assert run_jobs(dataset, [again]) == {}


class Noting(Callback):
    """Writes the number of validations next to the run, in whatever process it is called."""

    def begun(self, run):
        self.file, self.validations = run.folder.with_name("validations"), 0

    def validated(self, point, *, best):
        self.validations += 1
        self.file.write_text(str(self.validations))


@pytest.mark.slow
def test_two_workers_give_the_same_scores_as_this_process_and_name_a_failure(dataset, tmp_path):
    models = {"dnn": {"embedding": 4}, "popularity": {}}
    alone = [job(tmp_path / "alone", model, **settings) for model, settings in models.items()]
    beside = [
        replace(job(tmp_path / "beside", model, **settings), callbacks=[Noting()]) for model, settings in models.items()
    ]
    broken = job(tmp_path / "beside", "gru4rec", train=QUICK.model_copy(update={"device": "cuda"}))
    run_jobs(dataset, alone)
    said = []
    failures = run_jobs(dataset, [broken, *beside], workers=2, threads=2, progress=said.append)
    assert list(failures) == ["gru4rec-seed0"]
    assert "torch finds no GPU" in failures["gru4rec-seed0"]
    assert any(line.startswith("dnn-seed0: finished") for line in said)
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
    curve = beside[0].artifact.metrics["learning_curve"]
    assert int((beside[0].folder / "validations").read_text()) == len(curve) > 2


class Killed:
    """A job whose process is killed, as the system does where memory is short."""

    name, finished, threads = "killed", False, None

    def with_threads(self, threads):
        return self

    def claim(self, dataset):
        pass

    def do(self, dataset, *, progress):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_leaves_the_others_alone(dataset, tmp_path):
    other = job(tmp_path, "popularity")
    assert "its process was killed" in run_jobs(dataset, [Killed(), other], workers=2)["killed"]
    assert other.finished


SCRIPT = """
import sys
from pathlib import Path
from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.folder import Dataset
from lifelong.offline.training.study import run_jobs
from lifelong.offline.training.runs import Run
if __name__ == "__main__":
    data, out, examples, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    train = TrainSettings(threads=1, max_examples=examples, validate_every=200, batch_targets=64, patience=10**6)
    jobs = [
        Run(out / f"{model}-seed0", model, RunConfig(train=train, model=settings), resamples=5)
        for model, settings in (("popularity", {}), ("gru4rec", {"embedding": 4, "width": 4}))
    ]
    print(run_jobs(Dataset(data), jobs, workers=workers), flush=True)
"""


def first_validation(checkpoint):
    """The first point of the learning curve in a checkpoint; its clock is of that very training."""
    with safe_open(checkpoint, framework="np") as file:
        return json.loads(file.metadata()["progress"])["curve"][0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_nothing_finished_is_redone_and_the_running_one_goes_on_to_the_same_numbers(
    dataset, tmp_path, workers
):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def words(out):
        return [sys.executable, str(script), str(dataset.folder), str(tmp_path / out), "20000", str(workers)]

    checkpoint = tmp_path / "killed" / "gru4rec-seed0" / "artifact.checkpoint" / "state.safetensors"
    finished = tmp_path / "killed" / "popularity-seed0" / "result-test.json"
    process = subprocess.Popen(words("killed"))
    until(lambda: checkpoint.exists() and finished.exists())
    some = children(process.pid)
    process.kill()
    process.wait()
    # A worker ends with its parent: the checkpoint does not move any more.
    wait_until_gone(some)
    stamp = finished.stat().st_mtime_ns
    artifact = checkpoint.parents[1] / "artifact"
    assert not artifact.exists()
    first = first_validation(checkpoint)
    subprocess.run(words("killed"), check=True)
    assert json.loads((artifact / "metrics.json").read_text())["learning_curve"][0] == first, "it began anew"
    subprocess.run(words("whole"), check=True)
    assert finished.stat().st_mtime_ns == stamp
    logits = [np.load(tmp_path / out / "gru4rec-seed0" / "logits-test.npy") for out in ("killed", "whole")]
    np.testing.assert_array_equal(*logits)


def heed_interrupts():
    """Ctrl-C reaches a new process also where the tests themselves were started in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_an_interrupt_makes_every_worker_save_its_state(dataset, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(dataset.folder), str(tmp_path / "out"), "10000000", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed_interrupts)
    checkpoint = tmp_path / "out" / "gru4rec-seed0" / "artifact.checkpoint" / "state.safetensors"
    until(checkpoint.exists)
    before = checkpoint.stat().st_mtime_ns
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert checkpoint.stat().st_mtime_ns > before
    kept = json.loads((tmp_path / "out" / "gru4rec-seed0" / "run.json").read_text())
    assert kept["settings"]["train"]["max_examples"] == 10_000_000


def test_how_long_the_others_will_take_is_said(dataset, tmp_path):
    said = []
    run_jobs(dataset, [job(tmp_path, "popularity", seed=seed) for seed in range(3)], progress=said.append)
    ends = [line for line in said if "finished after" in line]
    assert ends[0].startswith("popularity-seed0: finished after") and "1 of 3 done, about" in ends[0]
    assert ends[-1].endswith("; 3 of 3 done")
