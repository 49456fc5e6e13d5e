import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong.artifact.folder import check_fits
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset, write_manifest
from lifelong.dataset.vocabulary import Vocabulary
from lifelong.errors import DataError, MismatchError, UsageError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.calibration import fit_calibrator
from lifelong.offline.evaluation.evaluate import (
    Scored,
    delayed,
    evaluate,
    number_kind,
    predict,
    record,
    unseen_targets,
)
from lifelong.offline.evaluation.ranking import had_before
from lifelong.offline.export.saving import write_artifact
from lifelong.offline.models import build
from lifelong.offline.models.base import FittedModel
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"), num_users=12, num_items=30, mean_events=20)


@pytest.fixture(scope="module")
def model(dataset):
    torch.manual_seed(0)
    return build("gru4rec", dataset.inputs, {})


@pytest.fixture(scope="module")
def artifact(dataset, model, tmp_path_factory):
    logit = predict(model, dataset, dataset.examples("validation"))[:, 0]
    # Untrained scores rank as they like; a calibrator needs a rising map, so the labels follow the scores.
    calibrator = fit_calibrator(logit, logit > np.median(logit))
    out = tmp_path_factory.mktemp("artifacts") / "gru4rec"
    return write_artifact(out, model, dataset, run={"note": "x"}, metrics={}, calibrator=calibrator)


class Positions(FittedModel):
    """Its logit is the number of events that it may see."""

    title, source, state = "Positions", "", ""

    def fit(self, dataset, *, seed=0):
        pass

    def predict(self, dataset, examples):
        return np.asarray(examples.position_N, float)[:, None]


def changed(dataset, tmp_path, **update):
    """A copy of the dataset's manifest and vocabularies with some entries changed."""
    shutil.copytree(dataset.folder, tmp_path / "copy")
    write_manifest(tmp_path / "copy", dataset.manifest.model_copy(update=update))
    return Dataset(tmp_path / "copy")


def test_logits_come_in_the_order_of_the_examples(dataset, model):
    examples = dataset.examples("test")
    order = np.random.default_rng(0).permutation(len(examples))
    shuffled = predict(model, dataset, examples.take(order))
    assert shuffled == pytest.approx(predict(model, dataset, examples)[order], abs=1e-5)


def test_predicting_leaves_the_model_and_the_threads_as_they_were(dataset, model):
    model.train()
    before = torch.get_num_threads()
    first = predict(model, dataset, dataset.examples("test"), threads=1)
    assert model.training
    assert torch.get_num_threads() == before
    assert np.array_equal(first, predict(model, dataset, dataset.examples("test"), threads=1)), "dropout was on"


def test_no_examples_have_no_logits(dataset, model):
    nothing = dataset.examples("test").take(slice(0, 0))
    assert predict(model, dataset, nothing).shape == (0, 1)


def test_a_logit_that_is_not_a_number_is_refused(dataset):
    broken = build("gru4rec", dataset.inputs, {})
    with torch.no_grad():
        next(broken.head.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="logits are not finite"):
        predict(broken, dataset, dataset.examples("test"))


def test_a_delay_hides_exactly_the_events_that_are_younger(dataset):
    # Events of user 2 at 0 s, 10 s, 10 s and 25 s; the target at 30 s.
    histories = replace(
        dataset.histories,
        offset_U=np.array([0, 0, 0, 4]),
        row_N=np.full(4, 2, np.int32),
        time_N=np.array([0, 10, 10, 25]),
        sequence_N=np.arange(4),
        event_type_N=np.full(4, 2, np.int16),
    )
    world = Dataset(dataset.folder)
    world.__dict__["histories"] = histories
    target = Examples(
        np.array([2], np.int32), np.array([2], np.int32), np.array([30]), np.array([4], np.int32), np.ones((1, 1))
    )
    visible = {delay: int(delayed(world, target, delay).position_N[0]) for delay in (0, 1, 5, 6, 20, 21, 30, 31)}
    assert visible == {0: 4, 1: 4, 5: 4, 6: 3, 20: 3, 21: 1, 30: 1, 31: 0}


def test_a_delay_reaches_the_model(dataset):
    examples = dataset.examples("test")
    late = predict(Positions(dataset.inputs, None), dataset, examples, delay=5_000_000)
    assert np.all(late[:, 0] <= examples.position_N)
    assert late.sum() < examples.position_N.sum()


def test_a_delay_needs_clock_times_and_is_not_negative(dataset, tmp_path):
    schema = dataset.schema.model_copy(update={"time_unit": "ordinal"})
    ordinal = changed(dataset, tmp_path, dataset_schema=schema)
    with pytest.raises(UsageError, match="no clock times"):
        delayed(ordinal, ordinal.examples("test"), 60)
    with pytest.raises(UsageError, match="delay of -1 s"):
        delayed(dataset, dataset.examples("test"), -1)


def test_unseen_targets_are_those_in_hash_buckets(dataset):
    examples = dataset.examples("test")
    ids = [dataset.catalogue.id_of(int(row)) for row in examples.row_N]
    # The last tenth of 30 items is not in the vocabulary.
    assert unseen_targets(dataset, examples).tolist() == [item in ("i27", "i28", "i29") for item in ids]


def test_a_result_says_what_was_measured_on_what(artifact, dataset):
    result = evaluate(artifact, dataset, delays=(0, 60), bootstrap=20)
    examples = dataset.examples("test")
    assert (result.model, result.title, result.artifact_id) == ("gru4rec", "GRU4Rec", artifact.id)
    assert (result.dataset, result.data_hash) == ("tiny", dataset.manifest.data_hash)
    assert (result.protocol, result.negatives.rule, result.split) == ("temporal", "popularity", "test")
    assert (result.kind, result.delay, result.resamples) == ("score", 0, 20)
    assert result.counts.examples == len(examples)
    assert result.config["note"] == "x"
    assert result.config["model"]["embedding"] > 0
    assert [part.delay for part in result.delays] == [0, 60]
    assert result.delays[0].metrics == result.metrics


def test_a_target_is_a_repeat_if_an_earlier_event_of_its_user_has_the_item(artifact, dataset, model):
    result = evaluate(artifact, dataset, bootstrap=5)
    examples = dataset.examples("test")
    logit_N, had = predict(model, dataset, examples)[:, 0], []
    for user, row, time in zip(examples.user_N, examples.row_N, examples.time_N, strict=True):
        own = dataset.histories.of(int(user))
        earlier = np.asarray(dataset.histories.time_N[own]) < time
        had.append(bool(np.any((np.asarray(dataset.histories.row_N[own]) == row) & earlier)))
    assert 0 < sum(had) < len(had)
    order = np.random.default_rng(3).permutation(len(had))
    assert had_before(dataset, examples.take(order)).tolist() == np.array(had)[order].tolist()
    assert had_before(dataset, examples.take(order[:0])).tolist() == []
    assert [part.name for part in result.repeats] == ["repeat", "explore"]
    for part, chosen in zip(result.repeats, (np.array(had), ~np.array(had)), strict=True):
        label, user = examples.label_NT[chosen, 0], examples.user_N[chosen]
        assert (part.examples, part.positives, part.users) == (chosen.sum(), label.sum(), len(np.unique(user)))
        assert part.metrics["auc"].value == pytest.approx(metrics.auc(label, logit_N[chosen]), abs=1e-6)


def test_the_metrics_of_a_result_are_those_of_the_models_logits(artifact, dataset, model):
    result = evaluate(artifact, dataset, bootstrap=5)
    examples = dataset.examples("test")
    logit = predict(model, dataset, examples)[:, 0]
    assert result.metrics["auc"].value == pytest.approx(metrics.auc(examples.label_NT[:, 0], logit), abs=1e-6)


def test_a_calibrated_block_stands_beside_the_raw_numbers(artifact, dataset, model):
    result = evaluate(artifact, dataset, bootstrap=5)
    examples = dataset.examples("test")
    logit = artifact.config.calibrator.logit(predict(model, dataset, examples)[:, 0])
    expected = metrics.log_loss(examples.label_NT[:, 0], logit)
    assert result.calibrated["log_loss"].value == pytest.approx(expected, abs=1e-5)
    assert "auc" not in result.calibrated


def test_every_task_is_measured(dataset, tmp_path):
    schema = dataset.schema.model_copy(update={"tasks": ("click", "buy")})
    two = changed(dataset, tmp_path, dataset_schema=schema)
    examples = two.examples("test")
    label = np.asarray(examples.label_NT[:, 0])
    both = replace(examples, label_NT=np.stack([label, 1 - label], axis=1))
    logit = np.stack([label, label], axis=1).astype(float)
    result = record(Scored(two, "test", both, {0: logit}, model="m", title="M"), resamples=5)
    assert result.task == "click"
    assert result.metrics["auc"].value == 1.0
    assert result.other_tasks["buy"]["auc"].value == 0.0


def test_logged_labels_make_probabilities_and_sampled_ones_scores(dataset, tmp_path):
    assert number_kind(dataset) == "score"
    assert number_kind(changed(dataset, tmp_path, base_rate=0.05)) == "probability"


def test_another_schema_is_refused_by_field(artifact, dataset, tmp_path):
    other = changed(dataset, tmp_path, dataset_schema=dataset.schema.model_copy(update={"event_types": False}))
    with pytest.raises(
        MismatchError, match=r"event_types is False in this dataset.*event_types = True, as in training"
    ):
        check_fits(artifact, other)


def test_a_vocabulary_of_another_size_is_refused_by_field(artifact, dataset, tmp_path):
    other = changed(dataset, tmp_path)
    Vocabulary.build(["c0", "c1"]).save(other.folder / "vocabulary" / "category")
    with pytest.raises(MismatchError, match=r"'category' has 4 numbers"):
        check_fits(artifact, other)


def test_a_vocabulary_with_other_values_is_refused_though_it_has_the_same_size(artifact, dataset, tmp_path):
    other = changed(dataset, tmp_path)
    Vocabulary.build([f"x{i}" for i in range(10)]).save(other.folder / "vocabulary" / "category")
    with pytest.raises(MismatchError, match=r"'category'.*stand for other values.*--start ARTIFACT"):
        check_fits(artifact, other)


def test_evaluation_needs_a_delay(artifact, dataset):
    with pytest.raises(UsageError, match="no delay"):
        evaluate(artifact, dataset, delays=())
