"""The search for settings that are best on validation."""

import tomllib
from collections import Counter
from dataclasses import fields
from functools import partial

import pytest

pytest.importorskip("optuna")

import optuna

from lifelong.config import RunConfig, TrainSettings, load_config
from lifelong.errors import LifelongError, MismatchError, UsageError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.models import MODELS, build, check_config
from lifelong.offline.training import tuning
from lifelong.offline.training.loop import Loop
from lifelong.offline.training.space import apply, defaults, space_of, with_budget
from lifelong.offline.training.trainer import train
from lifelong.offline.training.tuning import Search, tune

CONFIG = RunConfig(train=TrainSettings(threads=1, batch_targets=64))


DATASET = {"num_users": 12, "num_items": 30, "mean_events": 20}


@pytest.mark.parametrize("model", list(MODELS))
def test_the_settings_as_they_come_lie_in_the_space_and_make_the_same_model(model):
    space = space_of(model, RunConfig())
    assert space, "nothing to search"
    first = optuna.trial.FixedTrial(defaults(model, RunConfig(), space))
    drawn = {name: of.draw(first, name) for name, of in space.items()}
    config = apply(RunConfig(), drawn)
    assert check_config(model, config.model) == check_config(model, {})
    assert config.train == TrainSettings()


@pytest.mark.parametrize("model", list(MODELS))
def test_every_drawn_setting_is_one_that_the_model_takes(model):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for _ in range(20):
        trial = study.ask()
        config = apply(RunConfig(), {name: of.draw(trial, name) for name, of in space_of(model, RunConfig()).items()})
        check_config(model, config.model)


def test_the_best_trial_is_written_so_that_training_reads_it(dataset, tmp_path):
    config = RunConfig(train=CONFIG.train.model_copy(update={"clip": 0.5}), model={"dropout": 0.2})
    search = Search("dnn", trials=3, examples=120, fixed={"train.clip", "model.dropout"}, command="lifelong tune")
    tuned = tune(dataset, search, tmp_path / "dnn.toml", config=config)
    best = max(trial.auc for trial in tuned.trials)
    assert tuned.auc == best == tuned.trials[tuned.best].auc
    assert all(trial.examples == 120 for trial in tuned.trials if trial.state == "complete")
    read = load_config(tmp_path / "dnn.toml", check_model=partial(check_config, "dnn"))
    assert read.train.clip == 0.5
    assert read.train.learning_rate == tuned.trials[tuned.best].settings["train.learning_rate"]
    assert read.model == {"dropout": 0.2, "embedding": tuned.trials[tuned.best].settings["model.embedding"]}
    record = tomllib.loads((tmp_path / "dnn.toml").read_text())["tuned"]
    assert (record["model"], record["command"], len(record["trials"])) == ("dnn", "lifelong tune", 3)
    assert record["trials"][0]["settings"]["train.learning_rate"] == TrainSettings().learning_rate


def test_the_objective_is_auc_on_validation(dataset, tmp_path):
    tuned = tune(dataset, Search("counts", trials=1, examples=10**6), tmp_path / "counts.toml", config=CONFIG)
    model = build("counts", dataset.inputs, {"max_examples": 10**6})
    model.fit(dataset, seed=0)
    validation = dataset.examples("validation")
    expected = metrics.auc(validation.label_NT[:, 0], predict(model, dataset, validation)[:, 0])
    assert tuned.auc == pytest.approx(expected)


def test_a_trial_trains_as_training_does(dataset, tmp_path):
    # With the model's recipe, and with what the model takes from the data: initial embeddings, factors, popularity.
    config = RunConfig(train=TrainSettings(threads=1), model={"embedding": 4, "width": 4, "periods": [1, 3]})
    found = tune(dataset, Search("tally", trials=1, examples=400), tmp_path / "tally.toml", config=config)
    limits = {"max_examples": 400, "max_epochs": 10**6, "patience": 10**6, "validate_every": 50}
    artifact = train(dataset, "tally", tmp_path / "a", config=config.with_train(**limits), progress=False)
    assert artifact.config.run["train"]["schedule"] == "cosine"
    assert found.auc == max(point["auc"] for point in artifact.metrics["learning_curve"])


def test_the_test_split_is_never_read(dataset, tmp_path, monkeypatch):
    real = type(dataset).examples

    def examples(self, split):
        assert split != "test"
        return real(self, split)

    monkeypatch.setattr(type(dataset), "examples", examples)
    tune(dataset, Search("dnn", trials=1, examples=50), tmp_path / "dnn.toml", config=CONFIG)


def settings_of(tuned):
    return [trial.settings for trial in tuned.trials]


def test_a_second_call_goes_on_and_finds_what_one_would_have_found(dataset, tmp_path):
    whole = tune(dataset, Search("dnn", trials=3, examples=60), tmp_path / "whole.toml", config=CONFIG)
    tune(dataset, Search("dnn", trials=1, examples=60), tmp_path / "parts.toml", config=CONFIG)
    parts = tune(dataset, Search("dnn", trials=3, examples=60), tmp_path / "parts.toml", config=CONFIG)
    assert settings_of(parts) == settings_of(whole)
    assert [trial.auc for trial in parts.trials] == [trial.auc for trial in whole.trials]


def test_other_seeds_draw_other_settings(dataset, tmp_path):
    first, second = (
        tune(dataset, Search("dnn", trials=2, examples=60, seed=seed), tmp_path / f"{seed}.toml", config=CONFIG)
        for seed in (0, 1)
    )
    assert settings_of(first)[1] != settings_of(second)[1]


class Killed(BaseException):
    """As from outside: nothing is tidied up."""


@pytest.mark.parametrize("end", [KeyboardInterrupt, Killed])
def test_a_trial_that_was_cut_off_is_tried_again_with_the_same_settings(dataset, tmp_path, monkeypatch, end):
    search, out = Search("dnn", trials=3, examples=60), tmp_path / "dnn.toml"
    whole = tune(dataset, search, tmp_path / "whole.toml", config=CONFIG)
    real, calls = Loop.run, []

    def run(self):
        calls.append(1)
        if len(calls) == 2:
            raise end
        return real(self)

    monkeypatch.setattr(Loop, "run", run)
    with pytest.raises(end):
        tune(dataset, search, out, config=CONFIG)
    again = tune(dataset, search, out, config=CONFIG)
    assert settings_of(again) == settings_of(whole)
    assert len(calls) == 4


def test_a_journal_of_another_search_is_refused_by_what_differs(dataset, tmp_path):
    tune(dataset, Search("dnn", trials=1, examples=60), tmp_path / "dnn.toml", config=CONFIG)
    with pytest.raises(MismatchError, match=r"dnn\.toml\.journal holds another search: examples differ"):
        tune(dataset, Search("dnn", trials=1, examples=70), tmp_path / "dnn.toml", config=CONFIG)


def test_a_trial_below_the_median_of_the_earlier_ones_is_given_up(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_PATIENT_TRIALS", 1)
    aucs = iter([*[0.9] * 8, *[0.1] * 8])
    monkeypatch.setattr("lifelong.offline.training.loop.metrics.auc", lambda label, logit: next(aucs))
    search = Search("dnn", trials=2, examples=800)
    config = RunConfig(train=CONFIG.train.model_copy(update={"batch_targets": 16, "max_targets": 8}))
    tuned = tune(dataset, search, tmp_path / "dnn.toml", config=config)
    assert [trial.state for trial in tuned.trials] == ["complete", "given up"]
    assert tuned.trials[1].examples < 800
    assert tuned.best == 0


def test_a_setting_that_fails_is_noted_and_the_search_goes_on(dataset, tmp_path, monkeypatch):
    real, calls = Loop.run, []

    def run(self):
        calls.append(1)
        if len(calls) == 1:
            raise LifelongError("the loss became nan")
        return real(self)

    monkeypatch.setattr(Loop, "run", run)
    tuned = tune(dataset, Search("dnn", trials=2, examples=60), tmp_path / "dnn.toml", config=CONFIG)
    assert [trial.state for trial in tuned.trials] == ["failed", "complete"]


def test_no_setting_left_to_search_is_refused(dataset, tmp_path):
    with pytest.raises(UsageError, match="popularity has no setting left to search"):
        tune(dataset, Search("popularity", trials=1, examples=9, fixed={"model.smoothing"}), tmp_path / "x.toml")


def test_ranges_are_of_settings_that_some_model_has():
    from lifelong.offline.training.space import MODEL

    known = {field.name for entry in MODELS.values() for field in fields(entry.Config)}
    assert set(MODEL) <= known


@pytest.mark.parametrize(("model", "takes"), [("hpmn", True), ("tally", True), ("mf", False), ("gbdt", False)])
def test_initial_vectors_are_searched_where_a_model_takes_them(model: str, takes: bool) -> None:
    assert ("train.initial_vectors" in space_of(model, RunConfig())) is takes


def gbdt_search(dataset, out, **fixed):
    pytest.importorskip("lightgbm")
    config = RunConfig(train=TrainSettings(threads=1), model={"rounds": 5, **fixed})
    search = Search("gbdt", trials=3, examples=200, fixed={"model.rounds", *(f"model.{name}" for name in fixed)})
    return tune(dataset, search, out, config=config)


def test_gbdt_is_tuned_and_the_outcome_trains_it(dataset, tmp_path):
    tuned = gbdt_search(dataset, tmp_path / "gbdt.toml")
    assert {trial.state for trial in tuned.trials} == {"complete"}
    searched = {"learning_rate", "leaves", "leaf_examples", "input_share", "l2"}
    assert set(tuned.trials[1].settings) == {f"model.{name}" for name in searched}
    assert check_config("gbdt", tuned.config["model"])["rounds"] == 5


def test_trials_of_gbdt_share_the_inputs_of_its_examples_and_score_as_fits_of_their_own(dataset, tmp_path, monkeypatch):
    from lifelong.zoo import gbdt

    asked = []

    def counted(name):
        real = getattr(gbdt, name)
        monkeypatch.setattr(gbdt, name, lambda *parts, **words: (asked.append(name), real(*parts, **words))[1])

    for name in ("fill_features", "unit_vectors"):
        counted(name)
    tuned = gbdt_search(dataset, tmp_path / "gbdt.toml", vectors=4)
    # Of training and of validation, whatever the number of trials.
    assert Counter(asked) == {"fill_features": 2, "unit_vectors": 2}
    for trial in tuned.trials:
        own = {name.removeprefix("model."): value for name, value in trial.settings.items()}
        model = build("gbdt", dataset.inputs, {"rounds": 5, "vectors": 4, "max_examples": 200, **own})
        model.fit(dataset, seed=0)
        validation = dataset.examples("validation")
        expected = metrics.auc(validation.label_NT[:, 0], predict(model, dataset, validation, threads=1)[:, 0])
        assert trial.auc == expected


def test_a_trial_ends_by_examples_alone():
    config = RunConfig(train=CONFIG.train.model_copy(update={"max_minutes": 1.0, "patience": 1, "max_epochs": 1}))
    train = with_budget("dnn", config, 77).train
    assert train.max_examples == 77
    assert train.max_minutes is None
    assert min(train.patience, train.max_epochs) > 10**6
    assert with_budget("counts", config, 50).model == {"max_examples": 50}
    assert with_budget("popularity", config, 50) == config
