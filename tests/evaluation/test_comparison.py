import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lifelong.artifact.export import write_artifact  # noqa: E402
from lifelong.errors import DataError, MismatchError, UsageError  # noqa: E402
from lifelong.evaluation import metrics  # noqa: E402
from lifelong.evaluation.compare import Comparison, Runs, compare  # noqa: E402
from lifelong.evaluation.metrics import Sample  # noqa: E402
from lifelong.evaluation.runs import Plan, run_all  # noqa: E402
from lifelong.models import build  # noqa: E402
from lifelong.testing.datasets import tiny_dataset  # noqa: E402

pytestmark = pytest.mark.torch


def runs_of(strength, *, seeds=1, title="Model"):
    rng = np.random.default_rng(0)
    user = rng.integers(0, 40, 800)
    label = (rng.random(800) < 0.5).astype(float)
    draws = [np.random.default_rng(seed + 1).normal(size=800) for seed in range(seeds)]
    return Runs(title, [Sample.of(label, draw + strength * label, user) for draw in draws])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"), num_users=12, num_items=30, mean_events=20)


class Trainer:
    """Fits a floor, and remembers what it was asked for."""

    def __init__(self, dataset):
        self.dataset, self.calls = dataset, []

    def __call__(self, model, seed, folder):
        self.calls.append((model, seed))
        fitted = build(model, self.dataset.inputs, {})
        fitted.fit(self.dataset, seed=seed)
        return write_artifact(folder, fitted, self.dataset, run={}, metrics={}, calibrator=None)


def test_a_models_value_is_the_mean_over_its_seeds():
    runs = runs_of(1.0, seeds=3)
    row = compare({"a": runs}, reference="a", resamples=20)[0]
    each = [metrics.auc(sample.label, sample.logit) for sample in runs.samples]
    assert row.metrics["auc"].value == pytest.approx(np.mean(each))
    assert row.spread["auc"].values == pytest.approx(each)
    assert row.spread["auc"].deviation == pytest.approx(np.std(each, ddof=1))
    assert row.seeds == 3


def test_one_seed_has_no_deviation():
    assert compare({"a": runs_of(1.0)}, reference="a", resamples=5)[0].spread["auc"].deviation is None


def test_a_worse_model_has_a_negative_auc_difference_with_a_small_p():
    reference, worse = compare({"good": runs_of(2.0), "bad": runs_of(0.5)}, reference="good", resamples=100)
    assert reference.differences is None
    difference = worse.differences["auc"]
    assert difference.low < difference.value < difference.high < 0
    assert difference.p_value == pytest.approx(2 / 101)
    assert difference.value == pytest.approx(worse.metrics["auc"].value - reference.metrics["auc"].value)


def test_p_values_are_corrected_for_all_models_that_are_compared_with_the_reference():
    many = {"reference": runs_of(1.0)} | {f"model {place}": runs_of(1.0 + 0.02 * place) for place in range(6)}
    alone = compare({name: many[name] for name in ("reference", "model 1")}, reference="reference", resamples=200)
    rows = compare(many, reference="reference", resamples=200)
    found = [row.differences["auc"] for row in rows[1:]]
    assert all(0 < difference.family_p <= 1 for difference in found)
    single = alone[1].differences["auc"]
    assert found[1].p_value == single.p_value
    assert found[1].family_p >= single.family_p


def test_rows_keep_the_order_they_were_given():
    rows = compare({"b": runs_of(1.0), "a": runs_of(2.0)}, reference="a", resamples=5)
    assert [row.model for row in rows] == ["b", "a"]


def test_a_reference_that_is_not_compared_is_refused():
    with pytest.raises(UsageError, match=r"reference 'c' is not compared.*one of a"):
        compare({"a": runs_of(1.0)}, reference="c")


def test_runs_on_different_examples_are_refused():
    sample = runs_of(1.0).samples[0]
    other = Runs("B", [Sample(1 - sample.label, sample.logit, sample.user)])
    with pytest.raises(DataError, match="'b' and 'a' scored different examples"):
        compare({"a": Runs("A", [sample]), "b": other}, reference="a")


def test_every_model_is_trained_once_per_seed_and_everything_is_kept(dataset, tmp_path):
    train = Trainer(dataset)
    plan = Plan(models=["popularity", "counts"], seeds=[0, 1], resamples=10)
    comparison = run_all(dataset, tmp_path, plan, train=train)
    assert train.calls == [("popularity", 0), ("popularity", 1), ("counts", 0), ("counts", 1)]
    assert comparison.reference == "popularity"
    assert Comparison.load(tmp_path / "comparison.json") == comparison
    logit = np.load(tmp_path / "runs" / "counts-seed1" / "logits-test.npy")
    assert logit.shape == (len(dataset.examples("test")), 1)
    assert [result.model for result in comparison.results] == ["popularity", "popularity", "counts", "counts"]


def test_a_second_call_trains_only_what_is_not_finished(dataset, tmp_path):
    first = run_all(dataset, tmp_path, Plan(models=["popularity"], resamples=10), train=Trainer(dataset))
    train = Trainer(dataset)
    second = run_all(dataset, tmp_path, Plan(models=["popularity", "counts"], resamples=10), train=train)
    assert train.calls == [("counts", 0)]
    assert second.rows[0] == first.rows[0]


def test_a_run_that_was_trained_and_not_scored_to_the_end_is_only_scored_again(dataset, tmp_path):
    plan = Plan(models=["popularity"], resamples=5)
    first = run_all(dataset, tmp_path, plan, train=Trainer(dataset))
    (tmp_path / "runs" / "popularity-seed0" / "result-test.json").unlink()
    train = Trainer(dataset)
    assert run_all(dataset, tmp_path, plan, train=train).rows == first.rows
    assert train.calls == []


def test_runs_with_other_settings_are_not_taken_for_finished(dataset, tmp_path):
    run_all(dataset, tmp_path, Plan(["popularity"], settings={"popularity": {"a": 1}}), train=Trainer(dataset))
    with pytest.raises(MismatchError, match=r"popularity-seed0 holds a run on other data or with other settings"):
        run_all(dataset, tmp_path, Plan(["popularity"], settings={"popularity": {"a": 2}}), train=Trainer(dataset))


def test_nothing_to_compare_is_refused(dataset, tmp_path):
    with pytest.raises(UsageError, match="nothing to compare"):
        run_all(dataset, tmp_path, Plan(models=[]), train=Trainer(dataset))


def test_a_file_that_is_no_comparison_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"comparison\.json is not a comparison"):
        Comparison.load(tmp_path / "comparison.json")
