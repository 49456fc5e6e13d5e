"""Training that goes on from an artifact: what is carried over, what is refused, what is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from lifelong.artifact.folder import Artifact
from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.events import InputSpec
from lifelong.dataset.folder import Dataset
from lifelong.errors import ArtifactError, ConfigError, MismatchError, UsageError
from lifelong.offline.evaluation.evaluate import evaluate
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import all_names, build
from lifelong.offline.models.base import Model
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.training.display import Display
from lifelong.offline.training.start import Start
from lifelong.offline.training.trainer import train

pytestmark = pytest.mark.usefixtures("no_graphs")
QUICK = {"seed": 1, "threads": 1, "max_examples": 400, "min_steps": 0, "validate_every": 200, "batch_targets": 200}
DAY = 86_400


def log(first: int, last: int, *, users: int = 12, shift: int = 0) -> pa.Table:
    """Days `[first, last)` of a log in which each day brings an item that was not there before."""
    rng = np.random.default_rng(5)
    days = np.repeat(np.arange(last), users * 4)
    user_N, item_N = rng.integers(0, users, len(days)), days - rng.integers(0, 8, len(days))
    kept = days >= first
    return pa.table(
        {
            "who": [f"u{user + shift}" for user in user_N[kept]],
            "what": [f"i{max(item, 0)}" for item in item_N[kept]],
            "kind": [f"k{max(item, 0) % 3}" for item in item_N[kept]],
            "when": (1_600_000_000 + DAY * days + np.arange(len(days)))[kept],
        }
    )


MAPPING = {"user": "who", "item": "what", "time": "when", "fields": ["kind"]}


def prepared(folder: Path, table: pa.Table, *, mapping: Any = MAPPING, **settings: Any) -> Dataset:
    return prepare(table, out=folder, threads=1, **{**mapping, **settings})


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("old") / "data", log(0, 30), buckets=4)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("new") / "data", log(10, 44, shift=7), buckets=8)


def run(dataset: Dataset, out: Path, model: str | None = "dnn", **named: Any) -> Artifact:
    own, settings = named.pop("own", {}), {**QUICK, **named.pop("settings", {})}
    config = RunConfig(train=TrainSettings.model_validate(settings), model=own)
    return train(dataset, model, out, config=config, progress=False, **named)


@pytest.fixture
def first(old: Dataset, tmp_path: Path) -> Artifact:
    return run(old, tmp_path / "first", own={"embedding": 4})


def carried(artifact: Artifact, dataset: Dataset, **named: Any) -> Model:
    start = Start.open(artifact, dataset, **named)
    model = build(start.name, dataset.inputs, start.settings)
    assert isinstance(model, Model)
    start.carry_into(model)
    return model


# what is carried over


def test_weights_of_kept_ids_are_equal_whatever_their_numbers(first: Artifact, new: Dataset) -> None:
    before, after = load_model(first), carried(first, new)
    assert isinstance(before, Model)
    moved = 0
    for field in ("item", "kind"):
        earlier, now = first.vocabularies[field], new.vocabularies[field]
        tables = before.embed.tables[field].weight, after.embed.tables[field].weight
        for value in set(earlier.index.ids()) & set(now.index.ids()):
            places = int(earlier.numbers([value])[0]), int(now.numbers([value])[0])
            moved += places[0] != places[1]
            assert torch.equal(tables[0][places[0]], tables[1][places[1]])
    assert moved, "some ids must have another number, or nothing is tested"


def test_weights_that_belong_to_no_id_are_equal(first: Artifact, new: Dataset) -> None:
    before, after = load_model(first), carried(first, new)
    assert isinstance(before, Model)
    mine, theirs = before.state_dict(), after.state_dict()
    fixed = [name for name in mine if before.number_tables.get(name) not in ("item", "kind")]
    assert any("head" in name for name in fixed)
    assert all(torch.equal(mine[name], theirs[name]) for name in fixed)


def test_new_ids_start_from_initial_weights(first: Artifact, new: Dataset) -> None:
    start = Start.open(first, new)
    model = build("dnn", new.inputs, start.settings)
    assert isinstance(model, Model)
    initial = model.embed.tables["item"].weight.detach().clone()
    start.carry_into(model)
    known = set(first.vocabularies["item"].index.ids())
    fresh = [value for value in new.vocabularies["item"].index.ids() if value not in known]
    assert fresh
    for number in new.vocabularies["item"].numbers(fresh).tolist():
        assert torch.equal(model.embed.tables["item"].weight[number], initial[number])


def test_validation_before_training_is_the_evaluation_of_the_artifact(
    first: Artifact, old: Dataset, tmp_path: Path
) -> None:
    record = run(old, tmp_path / "second", None, start=first).metrics
    result = evaluate(first, old, split="validation")
    assert record["start"]["validation"]["auc"] == pytest.approx(result.metrics["auc"].value, abs=1e-9)
    assert record["start"]["validation"]["log_loss"] == pytest.approx(result.metrics["log_loss"].value, abs=1e-6)
    assert record["learning_curve"][0]["examples"] == 0


def test_earlier_weights_are_kept_if_nothing_is_better(first: Artifact, old: Dataset, tmp_path: Path) -> None:
    second = run(old, tmp_path / "second", None, start=first, settings={"learning_rate": 50.0, "select_on": "log_loss"})
    assert second.metrics["best"]["examples"] == 0
    mine, theirs = (load_file(each.path / "weights.safetensors") for each in (first, second))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_record_counts_ids_kept_new_and_gone(first: Artifact, new: Dataset, tmp_path: Path) -> None:
    record = run(new, tmp_path / "second", None, start=first.path).metrics["start"]
    earlier, now = (set(each.vocabularies["item"].index.ids()) for each in (first, new))
    assert record["fields"]["item"] == {
        "kept": len(earlier & now),
        "new": len(now - earlier),
        "gone": len(earlier - now),
        "buckets": [4, 8],
    }
    assert min(len(earlier & now), len(now - earlier), len(earlier - now)) > 0
    assert record["artifact"] == first.id


def test_an_artifact_of_a_larger_vocabulary_is_taken(new: Dataset, tmp_path: Path) -> None:
    large = run(new, tmp_path / "large", own={"embedding": 4})
    small = prepared(tmp_path / "small", log(30, 44), buckets=2)
    second = run(small, tmp_path / "second", None, start=large)
    found = second.metrics["start"]["fields"]["item"]
    assert found["gone"] > 0 and found["buckets"] == [8, 2]
    assert second.config.input_spec.item == small.inputs.item


def test_the_artifact_can_be_replaced_by_the_one_that_goes_on(first: Artifact, new: Dataset) -> None:
    before = first.id
    second = run(new, first.path, None, start=first.path, overwrite=True)
    assert second.config.run["start"] == {"artifact": before, "family": before}
    assert Artifact.open(first.path).id == second.id != before


@pytest.mark.parametrize("name", all_names())
def test_every_model_names_the_weights_that_depend_on_the_values_of_a_field(name: str) -> None:
    event, context = {"event_type": 6, "gap": 36}, {"gap": 36, "hour": 26, "weekday": 9}
    small = build(name, InputSpec({"item": 30, "kind": 9}, event, context, 11), {})
    large = build(name, InputSpec({"item": 40, "kind": 12}, event, context, 13), {})
    if not isinstance(small, Model) or not isinstance(large, Model):
        pytest.skip("it is fitted and has no weights")
    before, after = small.state_dict(), large.state_dict()
    assert before.keys() == after.keys()
    depending = {key for key in before if before[key].shape != after[key].shape}
    assert depending <= small.number_tables.keys() <= before.keys()


# users


def test_vectors_of_users_stay_those_of_the_same_users(old: Dataset, new: Dataset, tmp_path: Path) -> None:
    artifact = run(old, tmp_path / "mf", "mf")
    with pytest.raises(MismatchError, match="has an embedding per user"):
        run(new, tmp_path / "second", None, start=artifact)
    before, after = load_model(artifact), carried(artifact, old)
    assert torch.equal(before.users.weight, after.users.weight)


# what is refused


def changed(table: pa.Table, **mapping: Any) -> Callable[[Path], Dataset]:
    return lambda folder: prepared(folder, table, mapping={**MAPPING, **mapping})


def test_all_differences_are_named_at_once(first: Artifact, tmp_path: Path) -> None:
    other = changed(log(0, 30), fields={}, event_type="kind")(tmp_path / "other")
    with pytest.raises(ConfigError) as caught:
        run(other, tmp_path / "second", "dnn", start=first, own={"embedding": 9, "colour": 1})
    assert len(caught.value.problems) == 4
    for word in ("model.embedding is 9, the artifact's is 4", "model.colour", "item fields", "event types"):
        assert word in str(caught.value)
    assert not (tmp_path / "second").exists()


def test_another_model_is_refused(first: Artifact, new: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model is 'gru4rec', the artifact's is 'dnn'"):
        run(new, tmp_path / "second", "gru4rec", start=first)


def test_equal_settings_may_be_given_again(first: Artifact, new: Dataset, tmp_path: Path) -> None:
    assert run(new, tmp_path / "second", "dnn", start=first, own={"embedding": 4}).config.settings["embedding"] == 4


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary/item/text.npy", "config.json"])
def test_a_damaged_artifact_is_refused_before_training(
    first: Artifact, new: Dataset, tmp_path: Path, name: str
) -> None:
    whole = (first.path / name).read_bytes()
    (first.path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="was altered"):
        run(new, tmp_path / "second", None, start=first.path)


# fitted models


@pytest.mark.parametrize("name", ["counts", "popularity"])
def test_a_fit_goes_on_from_nothing(old: Dataset, new: Dataset, tmp_path: Path, name: str) -> None:
    artifact = run(old, tmp_path / "first", name)
    with pytest.raises(UsageError, match="nothing of an earlier fit would be left"):
        run(new, tmp_path / "second", None, start=artifact)


# interruptions


def test_a_resumed_run_is_the_same_as_one_without_a_break(
    first: Artifact, new: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(new, tmp_path / "whole", None, start=first)
    with monkeypatch.context() as patched:

        def broken(self: Display, *given: Any) -> None:
            raise OSError("power failure")

        patched.setattr(Display, "step", broken)
        with pytest.raises(OSError, match="power failure"):
            run(new, tmp_path / "broken", None, start=first)
    resumed = run(new, tmp_path / "broken", None, start=first, resume=True)
    mine, theirs = (load_file(each.path / "weights.safetensors") for each in (whole, resumed))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert resumed.metrics["start"] == whole.metrics["start"]


def test_a_copied_artifact_is_the_same_start(first: Artifact, new: Dataset, tmp_path: Path) -> None:
    shutil.copytree(first.path, tmp_path / "copy")
    record = run(new, tmp_path / "second", None, start=tmp_path / "copy").metrics
    assert json.dumps(record["start"]["artifact"]) == json.dumps(first.id)
