"""`--track` of `train`, `tune` and `compare`: curves for the real clients, also from child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is of the train extra")
pytest.importorskip("tensorboard")
mlflow: Any = pytest.importorskip("mlflow")

from lifelong import plugins  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
SETTINGS = {"max_epochs": 3, "patience": 9, "max_targets": 10, "validate_every": 0.5, "validation_examples": 100}
SETTINGS |= {"threads": 1}
QUICK = tuple(word for name, value in SETTINGS.items() for word in ("--set", f"train.{name}={value}"))
WATCH = '''
"""Notes how many validations TensorBoard's files hold at each validation."""

from pathlib import Path

from lifelong import Callback
from lifelong.plugins import register
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Watch(Callback):
    def begun(self, run):
        self.files, self.seen = f"{run.folder}.tensorboard", []
        self.notes = Path(f"{run.name}.seen")

    def validated(self, point, *, best):
        self.seen.append(len(EventAccumulator(self.files).Reload().Scalars("validation/auc")))
        self.notes.write_text(str(self.seen))


register("callbacks", "watch", Watch)
'''


def curve(folder: Path) -> list[tuple[int, float]]:
    """Examples and AUC of each validation, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = EventAccumulator(str(folder)).Reload().Scalars("validation/auc")
    return [(one.step, pytest.approx(one.value)) for one in scalars]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of a place that is not there yet, where MLflow looks."""
    # A folder instead of a database: its tables would be most of the test's time.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_a_training_is_tracked_by_both(run, dataset, tmp_path, client):
    out = tmp_path / "a"
    outcome = run("train", dataset.folder, "--model", "dnn", "--out", out, *QUICK,
                  "--track", "tensorboard", "--track", "mlflow", "--json")  # fmt: skip
    assert outcome.code == 0, outcome.stdout
    points = [(point["examples"], point["auc"]) for point in outcome.document["metrics"]["learning_curve"]]
    assert curve(tmp_path / "a.tensorboard") == points and len(points) > 2
    (tracked,) = client.search_runs(["0"])
    found = client.get_metric_history(tracked.info.run_id, "validation/auc")
    assert [(one.step, one.value) for one in found] == points
    assert (tracked.info.run_name, tracked.info.status) == ("a", "FINISHED")
    assert tracked.data.params["train.max_epochs"] == "3" and tracked.data.params["folder"] == str(out)


def test_each_trial_of_a_search_is_a_run_and_giving_up_is_no_failure(run, dataset, tmp_path, client, monkeypatch):
    pytest.importorskip("optuna")
    from lifelong.offline.training import tuning

    monkeypatch.setattr(tuning, "_PATIENT_TRIALS", 1)
    monkeypatch.setattr(tuning, "_PATIENT_VALIDATIONS", 0)
    words = ["--trials", "6", "--examples", "200", "--set", "train.threads=1"]
    words += ["--track", "mlflow", "--track", "tensorboard"]
    outcome = run("tune", dataset.folder, "--model", "dnn", "--out", tmp_path / "t.toml", *words, "--json")
    states = [trial["state"] for trial in outcome.document["trials"]]
    assert "given up" in states
    tracked = {one.info.run_name: one for one in client.search_runs(["0"])}
    assert sorted(tracked) == [f"t-trial{number}" for number in (1, 2, 3, 4, 5, 6)]
    assert {one.info.status for one in tracked.values()} == {"FINISHED"}
    assert all(curve(tmp_path / f"{name}.tensorboard") for name in tracked)


@pytest.mark.timeout(3_600)
def test_the_processes_of_a_comparison_write_curves_while_they_train(dataset, tmp_path, client):
    """Also a callback of a module that `--import` names."""
    (tmp_path / "watch.py").write_text(WATCH)
    out = tmp_path / "report"
    words = ("compare", str(dataset.folder), "--models", "dnn", "--seeds", "2", "--out", str(out),
             "--sweep", "none", "--jobs", "2", *QUICK)  # fmt: skip
    tracks = ("--track", "tensorboard", "--track", "watch", "--track", "mlflow")
    done = subprocess.run(
        [sys.executable, "-m", "lifelong", "--import", "watch", *words, *tracks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MLFLOW_EXPERIMENT_NAME": "shop", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    for name in ("dnn-seed0", "dnn-seed1"):
        seen = json.loads((tmp_path / f"{name}.seen").read_text())
        assert seen == list(range(1, len(curve(out / "runs" / name / "artifact.tensorboard")) + 1)) and len(seen) > 2
    runs = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    assert {one.info.run_name: one.info.status for one in runs} == {"dnn-seed0": "FINISHED", "dnn-seed1": "FINISHED"}


@pytest.mark.parametrize("words", [("train", "--model", "dnn"), ("tune", "--model", "dnn"), ("compare",)])
def test_a_name_that_nobody_knows_is_bad_usage(words, run, dataset, tmp_path):
    command, *rest = words
    outcome = run(command, dataset.folder, *rest, "--out", tmp_path / "out", "--track", "wandb", "--json")
    assert outcome.code == 2 and not (tmp_path / "out").exists()
    assert outcome.error["found"] == "the callback 'wandb'" and "tensorboard, mlflow" in outcome.error["expected"]


def test_a_registered_name_that_gives_no_callback_is_bad_usage(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(plugins._REGISTERED, "callbacks", {"shop": lambda: 3})
    outcome = run("train", dataset.folder, "--model", "dnn", "--out", tmp_path / "a", "--track", "shop", "--json")
    assert outcome.code == 2 and outcome.error["found"] == "'shop' gives an object of type int"


def test_a_server_that_does_not_answer_is_said_before_any_training(run, dataset, tmp_path, client):
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    words = ("--models", "popularity", "--out", tmp_path / "out", "--track", "mlflow", "--json")
    outcome = run("compare", dataset.folder, *words)
    assert outcome.code == 1 and not (tmp_path / "out").exists()
    assert "MLflow cannot use http://127.0.0.1:9" in outcome.error["found"]
    assert "MLFLOW_TRACKING_URI" in outcome.error["fix"]


def test_a_run_does_not_end_with_its_tracker(run, dataset, tmp_path, client, monkeypatch, caplog):
    def full(*given: Any, **named: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", full)
    monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", full)
    outcome = run("train", dataset.folder, "--model", "dnn", "--out", tmp_path / "a", "--track", "mlflow", *QUICK)
    assert outcome.code == 0
    assert "MLflow: numbers are not written: no space left on device" in caplog.text
