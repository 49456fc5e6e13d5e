"""Models with an item-side memory: trained, resumed, gone on from, evaluated."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file

from lifelong.artifact.export import load_model
from lifelong.artifact.folder import Artifact
from lifelong.artifact.manifest import make_manifest
from lifelong.config import RunConfig, TrainSettings
from lifelong.data.dataset import Dataset
from lifelong.errors import ArtifactError, ConfigError, MismatchError
from lifelong.evaluation.evaluate import evaluate, predict
from lifelong.memory import takeover
from lifelong.memory.updater import Updater
from lifelong.scoring.scorer import Scorer
from lifelong.store.ram import InMemoryStore
from lifelong.testing.datasets import tiny_dataset
from lifelong.training.backfill import backfill
from lifelong.training.display import Display
from lifelong.training.trainer import train

pytestmark = pytest.mark.torch
QUICK = {"seed": 3, "threads": 1, "min_steps": 0, "max_examples": 1200, "validate_every": 400, "batch_targets": 200}
SMALL = {"width": 8, "embedding": 4, "periods": [1, 2, 4], "item_recent": 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("items") / "data"
    return tiny_dataset(folder, num_users=25, profiles=True, item_histories=True)


@pytest.fixture(scope="module")
def both(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run(dataset, tmp_path_factory.mktemp("both") / "artifact")


def run(dataset: Dataset, out: Path, *, side: str = "both", **more: Any) -> Artifact:
    settings = TrainSettings.model_validate({**QUICK, **more.pop("settings", {})})
    config = RunConfig(train=settings, model={**SMALL, "side": side})
    return train(dataset, "hpmn", out, config=config, progress=False, **more)


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.path / "weights.safetensors")


@pytest.mark.parametrize("side", ["item", "both"])
def test_an_artifact_comes_back_with_its_side_and_the_same_logits(dataset: Dataset, tmp_path: Path, side: str) -> None:
    artifact = run(dataset, tmp_path / "a", side=side)
    assert (artifact.config.model, artifact.config.settings["side"]) == ("hpmn", side)
    assert (artifact.config.settings["item_recent"], artifact.config.memory) == (20, None)
    result = evaluate(artifact, dataset, bootstrap=10)
    assert result.counts.examples == len(dataset.examples("test"))
    assert result.title == f"HPMN, {'item side' if side == 'item' else 'both sides'}"


SERVICES = {
    "updater": lambda artifact, dataset: Updater(artifact, InMemoryStore()),
    "scorer": lambda artifact, dataset: Scorer(artifact, InMemoryStore()),
    "backfill": lambda artifact, dataset: backfill(artifact, dataset, InMemoryStore()),
    "takeover": lambda artifact, dataset: takeover.add(InMemoryStore(), artifact),
}


@pytest.mark.parametrize("service", SERVICES)
def test_whatever_serves_refuses_it_and_says_what_can_be_done(both: Artifact, dataset: Dataset, service: str) -> None:
    why = r"HPMN, both sides, which cannot be served .*item.*can be trained, evaluated and compared"
    with pytest.raises(ArtifactError, match=why):
        SERVICES[service](both, dataset)


def test_one_that_an_earlier_version_served_is_evaluated_and_not_served(
    both: Artifact, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "earlier"
    copytree(both.path, folder)
    config = json.loads((folder / "config.json").read_text())
    slots = [{"name": "slot", "shape": [3, 8], "dtype": "float32"}]
    config |= {"memory": slots, "not_served": None, "items": {"recent": 20, "period": 4, "memory": slots}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
    earlier = Artifact.open(folder)
    assert evaluate(earlier, dataset, bootstrap=10).slices == evaluate(both, dataset, bootstrap=10).slices
    with pytest.raises(ArtifactError, match=r"earlier versions of lifelong served and this one does not"):
        Scorer(earlier, InMemoryStore())


def test_a_logit_is_that_of_the_events_before_the_target_alone(both: Artifact, dataset: Dataset) -> None:
    """Scored one by one, in any company, and with everything later cut off."""
    model, examples = load_model(both), dataset.examples("test")
    whole = predict(model, dataset, examples)
    at = np.array([5, 60, 200])
    np.testing.assert_allclose(predict(model, dataset, examples.take(at)), whole[at], rtol=0, atol=1e-5)
    cut = Dataset(dataset.folder)
    items = dataset.item_histories
    for place in at.tolist():
        time_N, user_N = np.array(items.time_N), np.array(items.user_N)
        later = time_N >= int(examples.time_N[place])
        user_N[later] = 0
        changed = type(items)(items.offset_V, user_N, time_N, items.trained_U, items.event_type_N)
        cut.__dict__["item_histories"] = changed
        one = examples.take(np.array([place]))
        np.testing.assert_allclose(predict(model, cut, one), whole[[place]], rtol=0, atol=1e-5)
        user_N[:] = 0
        assert not np.allclose(predict(model, cut, one), whole[[place]], rtol=0, atol=1e-5)


def test_a_delay_hides_events_of_items_too(both: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    item = load_model(run(dataset, tmp_path / "a", side="item"))
    for model in (item, load_model(both)):
        examples = dataset.examples("test")
        now, later = (predict(model, dataset, examples, delay=delay) for delay in (0, 20_000_000))
        assert (now != later).mean() > 0.5


def test_a_resumed_run_ends_with_the_same_numbers(
    both: Artifact, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(dataset, tmp_path / "a")
    resumed = run(dataset, tmp_path / "a", resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(both).items())


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Interrupt after so many steps."""
    steps, show = [0], Display.step

    def counting(self: Display, examples: int, speed: float, loss: float) -> None:
        steps[0] += 1
        if steps[0] == step:
            import signal

            signal.raise_signal(signal.SIGINT)
        show(self, examples, speed, loss)

    monkeypatch.setattr(Display, "step", counting)


def test_two_threads_train_to_nearly_the_same(both: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    two = run(dataset, tmp_path / "two", settings={"threads": 2})
    curves = [artifact.metrics["learning_curve"] for artifact in (both, two)]
    losses = [[point["train_loss"] for point in curve] for curve in curves]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)


def test_training_goes_on_from_the_vectors_of_users(both: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    second = train(dataset, None, tmp_path / "b", config=RunConfig(), start=both, progress=False, users_from=dataset)
    assert second.metrics["start"]["validation"]["auc"] == pytest.approx(both.metrics["validation"]["auc"])


def test_a_dataset_without_item_histories_is_refused_before_training(dataset: Dataset, tmp_path: Path) -> None:
    plain = tiny_dataset(tmp_path / "plain", num_users=10)
    with pytest.raises(MismatchError, match=r"no item histories, which an item-side memory reads.*item_histories=t"):
        run(plain, tmp_path / "a", side="item")


def test_a_dataset_without_item_histories_is_refused_by_evaluate(both: Artifact, tmp_path: Path) -> None:
    plain = tiny_dataset(tmp_path / "plain", num_users=25, profiles=True)
    with pytest.raises(MismatchError, match="no item histories"):
        evaluate(both, plain)


def test_histories_in_chunks_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HPMN, both sides: item-side memories are not part of a user's history"):
        run(dataset, tmp_path / "a", settings={"history": "chunks", "max_history": 8})
