"""Settings that are left to the training data: what it decides, who wins, what the artifact keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from lifelong.artifact.export import load_model
from lifelong.artifact.folder import Artifact
from lifelong.config import RunConfig, TrainSettings, load_config
from lifelong.data.dataset import Dataset
from lifelong.errors import ConfigError
from lifelong.evaluation.evaluate import predict
from lifelong.testing.datasets import tiny_dataset
from lifelong.training.forecast import seconds_of
from lifelong.training.settings import build_model, with_decisions
from lifelong.training.start import Start
from lifelong.training.study import Study, run_study
from lifelong.training.trainer import train
from lifelong.training.tuning import Search, tune

pytestmark = pytest.mark.torch

QUICK = {"threads": 1, "max_examples": 400, "min_steps": 0, "validate_every": 200, "batch_targets": 200}
RUN = RunConfig(train=TrainSettings.model_validate(QUICK))
LINE = "model.rhythm is on: in 100.0 % of the training events an item comes again at a lag that is its user's own"


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("ordinary"), num_users=20)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users who each go round the same 10 to 14 items."""
    dataset = tiny_dataset(tmp_path_factory.mktemp("planted"), num_users=20, mean_events=80)
    length_U = np.diff(dataset.histories.offset_U)
    row_N = np.concatenate([2 + np.arange(length) % (10 + user % 5) for user, length in enumerate(length_U)])
    np.save(dataset.folder / "histories" / "row.npy", row_N.astype(np.int32))
    return Dataset(dataset.folder)


def decided(dataset: Dataset, *changes: str, model: str = "tally") -> tuple[Any, list[str]]:
    """What `rhythm` is after the data was asked, and what was said."""
    said: list[str] = []
    config = load_config(None, [f"model.{change}" for change in changes])
    return with_decisions(config, model, dataset, say=said.append).model.get("rhythm"), said


def config(**model: Any) -> RunConfig:
    return RUN.model_copy(update={"model": {"embedding": 4, **model}})


def test_the_training_data_decides_and_what_is_on_is_said(planted: Dataset, ordinary: Dataset) -> None:
    assert decided(planted) == (True, [LINE])
    assert decided(planted, "rhythm=null") == (True, [LINE])
    assert decided(ordinary) == (False, [])


@pytest.mark.parametrize("named", ["true", "false"])
def test_what_is_named_wins(planted: Dataset, ordinary: Dataset, named: str) -> None:
    for dataset in (planted, ordinary):
        assert decided(dataset, f"rhythm={named}") == (named == "true", [])


@pytest.mark.parametrize("state", ["state=1000", "state=2048", "state=1536"])
def test_a_small_state_keeps_its_bytes(planted: Dataset, state: str) -> None:
    # The slots of the last one leave no room.
    slots = ["periods=[1,2,4]", "width=96"] if state == "state=1536" else []
    assert decided(planted, state, *slots)[0] is (state == "state=2048")
    assert build_model(planted, "tally", load_config(None, [f"model.{one}" for one in (state, *slots)]).model)


@pytest.mark.parametrize("model", ["hpmn", "popularity"])
def test_other_models_leave_nothing_to_the_data(planted: Dataset, model: str) -> None:
    assert decided(planted, model=model) == (None, [])


def test_wrong_settings_are_refused(planted: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"model\.rhythm: must be true or false"):
        decided(planted, "rhythm=[1]")


def trained(dataset: Dataset, out: Path, **model: Any) -> tuple[Artifact, list[str]]:
    said: list[str] = []
    return train(dataset, "tally", out, config=config(**model), progress=said.append), said


def test_an_artifact_holds_what_was_decided_and_is_the_one_with_the_setting_named(
    planted: Dataset, tmp_path: Path
) -> None:
    artifact, said = trained(planted, tmp_path / "left")
    named, nothing = trained(planted, tmp_path / "named", rhythm=True)
    assert LINE in said and LINE not in nothing
    assert artifact.config.settings["rhythm"] is artifact.metrics["config"]["model"]["rhythm"] is True
    assert artifact.config.settings == named.config.settings
    logit_NT, other_NT = (predict(load_model(one), planted, planted.examples("test")) for one in (artifact, named))
    assert np.array_equal(logit_NT, other_NT)


def test_an_artifact_of_an_ordinary_log_has_none_and_what_goes_on_from_it_stays_so(
    planted: Dataset, ordinary: Dataset, tmp_path: Path, no_graphs: None
) -> None:
    artifact, _ = trained(ordinary, tmp_path / "first")
    assert artifact.config.settings["rhythm"] is False
    assert Start.open(artifact, planted).settings["rhythm"] is False
    said: list[str] = []
    again = train(planted, None, tmp_path / "second", config=RUN, start=artifact, progress=said.append)
    assert again.config.settings["rhythm"] is False
    assert LINE not in said


def test_an_interrupted_training_goes_on_with_what_was_decided(
    planted: Dataset, tmp_path: Path, no_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lifelong.training.trainer._Run.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(planted, "tally", tmp_path / "out", config=config(), progress=False)
    artifact = train(planted, "tally", tmp_path / "out", config=config(), resume=True, progress=False)
    assert artifact.config.settings["rhythm"] is True


def test_a_comparison_and_its_variants_train_with_what_was_decided(
    planted: Dataset, tmp_path: Path, no_graphs: None
) -> None:
    study = Study({"tally": config()}, ablations="tally", variants=["no-slots"], resamples=10, threads=1)
    outcome = run_study(planted, tmp_path / "out", study)
    assert not outcome.failures
    found = [Artifact.open(path.parent) for path in (tmp_path / "out").glob("runs/*/artifact/manifest.json")]
    assert len(found) == 2
    assert all(artifact.config.settings["rhythm"] is True for artifact in found)


def test_a_search_tries_what_was_decided_and_leaves_the_setting_to_the_data(
    planted: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    built: list[Any] = []
    from lifelong.training import tuning

    build = tuning.build_model
    monkeypatch.setattr(tuning, "build_model", lambda *given: built.append(given[2]) or build(*given))
    tuned = tune(planted, Search("tally", trials=1, examples=200), tmp_path / "tally.toml", config=config())
    assert [settings.get("rhythm") for settings in built] == [None, True]
    assert "rhythm" not in tuned.config["model"]


def test_a_forecast_times_what_will_be_trained(planted: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from lifelong.training import forecast

    built: list[Any] = []
    build = forecast.build_model
    monkeypatch.setattr(forecast, "build_model", lambda *given: built.append(given[2]) or build(*given))
    assert seconds_of(planted, "tally", config()) is not None
    assert built[0]["rhythm"] is True
