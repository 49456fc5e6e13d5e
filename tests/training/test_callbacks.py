"""What callbacks are given while a training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lifelong
from lifelong.errors import UsageError
from lifelong.offline.training import runs, tuning

pytestmark = pytest.mark.usefixtures("no_graphs")
QUICK = {"epochs": 2, "threads": 1, "max_targets": 10, "validate_every": 0.5, "progress": False}


class Told(lifelong.Callback):
    """Notes its calls."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.words: list[str] = []
        self.points: list[Any] = []
        self.outcome: list[Any] = []
        self.runs: list[Any] = []
        self._fail_at = fail_at

    def begun(self, run: Any) -> None:
        self.words.append("begun")
        self.runs.append(run)

    def stepped(self, examples: int, speed: float, loss: float) -> None:
        self.words.append("stepped")

    def validated(self, point: Any, *, best: bool) -> None:
        self.words.append("best" if best else "validated")
        self.points.append(point)
        if len(self.points) == self._fail_at:
            raise KeyboardInterrupt

    def ended(self, measured: Any) -> None:
        self.words.append("ended")
        self.outcome.append(measured)


def test_a_callback_is_told_of_the_whole_run(dataset, tmp_path: Path) -> None:
    told = Told()
    artifact = lifelong.train(dataset, "dnn", tmp_path / "a", callbacks=told, **QUICK)
    assert (told.words[:2], told.words[-1], told.words[2:].count("begun")) == (["begun", "stepped"], "ended", 0)
    assert [point.model_dump() for point in told.points] == artifact.metrics["learning_curve"]
    assert told.outcome == [{"auc": artifact.metrics["validation"]["auc"], **told.outcome[0]}]
    assert told.runs[0].settings["train.max_epochs"] == 2 and told.runs[0].folder == tmp_path / "a"


def test_a_run_that_is_cut_off_has_an_end_without_metrics(dataset, tmp_path: Path) -> None:
    told = Told(fail_at=1)
    with pytest.raises(KeyboardInterrupt):
        lifelong.train(dataset, "dnn", tmp_path / "a", callbacks=[told], **QUICK)
    assert told.outcome == [None]


def test_fitted_models_compare_and_tune_tell_their_callbacks(dataset, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    told = Told()
    lifelong.train(dataset, "popularity", tmp_path / "a", callbacks=told, progress=False)
    assert told.words == ["begun", "ended"]
    compared = Told()
    models = {"popularity": {}, "counts": {}}
    lifelong.compare(dataset, models, tmp_path / "c", callbacks=compared, seeds=1, progress=False)
    assert [run.model for run in compared.runs] == ["popularity", "counts"]
    tuned = Told()
    lifelong.tune(
        dataset, "dnn", tmp_path / "t.toml", trials=2, examples=400, callbacks=tuned, threads=1, progress=False
    )
    assert [run.name for run in tuned.runs] == ["t-trial1", "t-trial2"]
    assert [run.settings["train.learning_rate"] for run in tuned.runs] and "best" in tuned.words


def test_a_trial_that_is_given_up_has_its_best_auc_and_is_no_failure(dataset, tmp_path, monkeypatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(tuning, "_PATIENT_TRIALS", 1)
    monkeypatch.setattr(tuning, "_PATIENT_VALIDATIONS", 0)
    told = Told()
    tuned = lifelong.tune(
        dataset, "dnn", tmp_path / "t.toml", trials=6, examples=200, callbacks=told, threads=1, progress=False
    )
    assert "given up" in [trial.state for trial in tuned.trials]
    assert [outcome["auc"] for outcome in told.outcome] == [trial.auc for trial in tuned.trials]


def test_callbacks_change_no_number(dataset, tmp_path: Path) -> None:
    plain = lifelong.train(dataset, "dnn", tmp_path / "a", **QUICK)
    assert lifelong.train(dataset, "dnn", tmp_path / "b", callbacks=Told(), **QUICK).id == plain.id


@pytest.mark.parametrize("callbacks", ["mlflow", 3, [Told], [None], ["mlflow"]])
def test_what_is_no_callback_is_said_in_words(callbacks, dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"callbacks = .*subclasses of lifelong.Callback"):
        lifelong.train(dataset, "dnn", tmp_path / "a", callbacks=callbacks, **QUICK)


def test_a_comparisons_run_is_the_same_with_other_callbacks(tmp_path: Path) -> None:
    assert runs.Run(tmp_path / "a", "dnn", callbacks=[Told()]) == runs.Run(tmp_path / "a", "dnn")
