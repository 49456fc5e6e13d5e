import math

import numpy as np
import pytest

from lifelong.dataset.times import parse_duration
from lifelong.errors import DataError, UsageError
from lifelong.offline.evaluation import results
from lifelong.offline.evaluation.metrics import METRICS, Sample
from lifelong.offline.evaluation.results import Estimate, Result, format_duration
from lifelong.offline.evaluation.significance import bootstrap


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("1m", 60), (" 2h ", 7200), ("1d", 86400)])
def test_durations_are_read_in_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1w", "-1s", "1.5h", "h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "59s", "1m", "90m", "1d", "36h"])
def test_durations_are_written_as_they_are_read(text):
    assert format_duration(parse_duration(text)) == text


def test_an_estimate_has_its_interval_around_it():
    sample = Sample.of([1, 0] * 20, np.tile([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], 5), np.arange(40) // 4)
    auc = results.estimates(sample, bootstrap({"": sample}, resamples=50)[""], METRICS)["auc"]
    assert auc.low <= auc.value <= auc.high
    assert auc.low < auc.high
    assert auc.reason is None


def test_an_interval_lies_within_what_the_metric_can_be():
    sample = Sample.of([1, 0], [1.0, 0.0], [0, 0])
    assert results.estimate("auc", 0.5, np.array([-0.2, 0.5, 1.3] * 20), sample) == Estimate(
        value=0.5, low=0.0, high=1.0
    )
    loss = results.estimate("log_loss", 0.7, np.array([-0.2, 0.5, 1.3] * 20), sample)
    assert (loss.low, loss.high) == (0.0, pytest.approx(1.3))
    assert results.estimate("auc", 0.5, np.array([math.nan]), sample) == Estimate(value=0.5)


def test_a_metric_that_is_not_defined_is_none_with_the_reason():
    sample = Sample.of([1, 1], [0.0, 1.0], [0, 1])
    found = results.estimates(sample, bootstrap({"": sample}, resamples=5)[""], METRICS)
    assert found["auc"] == Estimate(value=None, reason="all labels are positive")
    assert found["gauc"] == Estimate(value=None, reason="no user has both classes")
    assert found["log_loss"].value is not None


def test_a_slice_without_examples_says_so():
    empty = Sample.of([], [], [])
    part = results.slice_result("1000+", empty, bootstrap({"": empty}, resamples=5)[""])
    assert (part.examples, part.users) == (0, 0)
    assert {estimate.reason for estimate in part.metrics.values()} == {"no examples"}


def test_without_resamples_there_is_no_interval():
    sample = Sample.of([1, 0], [1.0, 0.0], [0, 0])
    found = results.estimates(sample, bootstrap({"": sample}, resamples=0)[""], ["auc"])
    assert found["auc"] == Estimate(value=1.0)


def test_a_record_comes_back_from_json_as_it_was(tmp_path, result):
    result.save(tmp_path / "deep" / "result.json")
    assert Result.load(tmp_path / "deep" / "result.json") == result


@pytest.mark.parametrize("content", [None, "{", '{"model": "hpmn"}'])
def test_a_file_that_is_no_record_is_refused_by_name(tmp_path, content):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"result\.json is not a result record"):
        Result.load(path)


def test_the_share_of_one_class_users_is_of_all_users(result):
    assert result.counts.one_class_share == result.counts.one_class_users / result.counts.users == 0.25


def test_peak_memory_is_in_bytes_and_versions_name_the_package():
    assert results.peak_memory() > 10_000_000
    assert {"python", "numpy", "lifelong"} <= set(results.versions())
