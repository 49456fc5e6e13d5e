"""A test period that a model was trained on is no test, whichever way it came there."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.artifacts import tiny_artifact
from support.variants import moved

from lifelong.artifact.folder import Artifact
from lifelong.dataset.periods import period_of, periods_of
from lifelong.errors import MismatchError
from lifelong.offline.evaluation.evaluate import evaluate
from lifelong.offline.evaluation.in_sample import check_in_sample
from lifelong.offline.export.saving import write_artifact
from lifelong.offline.models import build
from lifelong.offline.training.runs import Run
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(scope="module")
def monday(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("monday") / "data")


@pytest.fixture(scope="module")
def tuesday(monday, tmp_path_factory):
    """A log that ends with what would be its validation period within Monday's test period."""
    first, last = period_of(monday, "test")
    return moved(monday, tmp_path_factory.mktemp("tuesday") / "data", (last - first) // 2)


@pytest.fixture(scope="module")
def of_monday(monday, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("a") / "monday", monday, model="popularity")


@pytest.fixture(scope="module")
def of_tuesday(tuesday, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("a") / "tuesday", tuesday, model="popularity")


def test_an_artifact_keeps_from_when_to_when_its_splits_went(monday, of_monday):
    (kept,) = Artifact.open(of_monday.path).config.seen
    histories = monday.histories
    assert kept == periods_of(monday)
    assert kept.train[0] == histories.time_N.min()
    assert kept.train[1] < monday.manifest.cut_times[0] <= kept.validation[0]
    assert kept.validation[1] < monday.manifest.cut_times[1] <= period_of(monday, "test")[0]
    assert kept.cut_times == monday.manifest.cut_times


def test_its_own_test_split_and_that_of_a_later_log_are_unseen(monday, tuesday, of_monday):
    for dataset in (monday, tuesday):
        result = evaluate(of_monday, dataset, bootstrap=2)
        assert (result.in_sample, result.in_sample_note) == (False, "")


def test_a_test_period_that_training_read_is_refused_by_its_times(monday, of_tuesday):
    with pytest.raises(MismatchError) as caught:
        evaluate(of_tuesday, monday, bootstrap=2)
    first = period_of(monday, "test")[0]
    assert str(np.datetime64(first, "s")) in str(caught.value), "the test period"
    assert str(np.datetime64(periods_of(monday).train[0], "s")) not in caught.value.found, "of the other dataset"
    assert "training read 20" in caught.value.found and "--in-sample" in caught.value.fix
    result = evaluate(of_tuesday, monday, bootstrap=2, in_sample=True)
    assert result.in_sample is True and "overlaps what the artifact saw" in result.in_sample_note


@pytest.mark.parametrize(("split", "said"), [("train", "trained on these"), ("validation", "selected and calibrated")])
def test_the_other_splits_are_marked_for_what_they_are(monday, of_monday, split, said):
    result = evaluate(of_monday, monday, split=split, bootstrap=2)
    assert result.in_sample is True and said in result.in_sample_note


def test_what_the_artifact_at_the_start_saw_counts(monday, of_tuesday, tmp_path):
    model = build("popularity", monday.inputs, {})
    model.fit(monday)
    again = write_artifact(
        tmp_path / "again", model, monday, run={"start": {}}, metrics={}, calibrator=None, start=of_tuesday
    )
    assert [one.data_hash for one in again.config.seen] == [monday.manifest.data_hash, of_tuesday.config.data_hash]
    with pytest.raises(MismatchError, match="overlaps what the artifact saw"):
        evaluate(again, monday, bootstrap=2)


def test_a_comparison_does_not_score_a_stored_artifact_that_saw_its_test_period(monday, of_tuesday, tmp_path):
    run = Run(tmp_path / "run", "popularity")
    shutil.copytree(of_tuesday.path, run.folder / "artifact")
    with pytest.raises(MismatchError, match="overlaps what the artifact saw"):
        run.do(monday, progress=False)
    assert not run.finished


def test_splits_of_one_dataset_are_apart_whatever_their_times(of_monday, monday, tmp_path):
    """The protocols `paper` and `given` split by user or as the source says."""
    overlapping = moved(monday, tmp_path / "given", 0)
    for split in ("train", "validation"):
        path = overlapping.folder / "examples" / split / "time.npy"
        np.save(path, np.full_like(np.load(path), period_of(monday, "test")[1]))
    own = tiny_artifact(tmp_path / "own", overlapping, model="popularity")
    assert check_in_sample(own, overlapping, "test").answer is False
    with pytest.raises(MismatchError):
        check_in_sample(own, monday, "test")
