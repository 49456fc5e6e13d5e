import numpy as np
import pytest
from support.comparisons import made_study

from lifelong.errors import DataError, UsageError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.compare import Comparison, Runs, cautions, compare
from lifelong.offline.evaluation.metrics import Sample


def runs_of(strength, *, seeds=1, title="Model"):
    rng = np.random.default_rng(0)
    user = rng.integers(0, 40, 800)
    label = (rng.random(800) < 0.5).astype(float)
    draws = [np.random.default_rng(seed + 1).normal(size=800) for seed in range(seeds)]
    return Runs(title, [Sample.of(label, draw + strength * label, user) for draw in draws])


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


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_model_does_not_differ_from_itself(seeds):
    # Only where users and seeds are paired: each model alone has an interval with a width.
    one, again = compare({"a": runs_of(1.0, seeds=seeds), "b": runs_of(1.0, seeds=seeds)}, reference="a", resamples=50)
    assert one.metrics["auc"].low < one.metrics["auc"].high
    for name in ("auc", "gauc", "log_loss", "ece"):
        difference = again.differences[name]
        assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)
        assert difference.family_p == 1 and difference.detectable == 0


def test_seeds_that_score_alike_are_as_sure_as_one_of_them():
    one = runs_of(1.0).samples
    rows = compare({"one": Runs("", one), "three": Runs("", one * 3)}, reference="one", resamples=50)
    first, second = (row.metrics["auc"] for row in rows)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))
    assert rows[1].differences["auc"].high == pytest.approx(0)


def test_different_models_are_compared_on_the_same_users_and_seed_by_seed():
    # Users and seeds differ far more than the models: only what is paired leaves a narrow difference.
    rng = np.random.default_rng(0)
    user, label = np.repeat(np.arange(40), 20), np.tile([0.0, 1.0], 400)
    strength_N, noise_N = rng.normal(1, 1.5, 40)[user], rng.normal(size=800)
    first = [noise_N + (strength_N + level) * label for level in (-1, 0, 1)]
    second = [logit + 0.3 * label + rng.normal(0, 0.1, 800) for logit in first]
    runs = {
        name: Runs("", [Sample.of(label, logit, user) for logit in logits])
        for name, logits in {"first": first, "the second": second, "shuffled": second[1:] + second[:1]}.items()
    }
    one, paired, shuffled = compare(runs, reference="first", resamples=200)
    width = one.metrics["auc"].high - one.metrics["auc"].low
    difference, other = paired.differences["auc"], shuffled.differences["auc"]
    assert difference.high - difference.low < width / 5
    assert other.high - other.low > width / 2
    alone = compare({name: Runs("", run.samples[:1]) for name, run in runs.items()}, reference="first", resamples=200)
    (first_auc, of_users) = alone[0].metrics["auc"], alone[1].differences["auc"]
    assert of_users.high - of_users.low < (first_auc.high - first_auc.low) / 3


def test_an_interval_holds_what_another_training_would_give():
    def runs(*shifts):
        return Runs("", [Sample(one.label, one.logit + shift * one.label, one.user) for shift in shifts])

    one = runs_of(1.0).samples[0]
    rows = compare(
        {"same": runs(0, 0, 0), "varied": runs(-0.5, 0, 0.5), "base": runs(0, 0, 0)}, reference="base", resamples=300
    )
    same, varied = (row.metrics["auc"] for row in rows[:2])
    each = rows[1].spread["auc"].values
    assert varied.high - varied.low > 2 * (same.high - same.low)
    assert varied.low < min(each) and varied.high > max(each)
    assert rows[0].differences["auc"].detectable == 0 < rows[1].differences["auc"].detectable


def test_fewer_than_three_seeds_are_warned_of_and_the_power_is_stated():
    runs = {"one": runs_of(1.0, title="One"), "three": runs_of(1.0, seeds=3, title="Three")}
    rows = compare(runs, reference="three", resamples=50)
    seeds, power = cautions(rows, "three")
    assert "Fewer than 3 seeds: One." in seeds and "claim no difference" in seeds
    assert "from three that these users, examples and seeds show at 5 % in 80 % of repetitions" in power
    assert f"{rows[0].differences['auc'].detectable:.4f}" in power
    assert len(cautions(compare({"three": runs["three"]}, reference="three", resamples=5), "three")) == 0


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


def test_a_file_that_is_no_comparison_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"comparison\.json is not a comparison"):
        Comparison.load(tmp_path / "comparison.json")


def test_a_comparison_is_a_frame_with_differences_to_the_reference():
    pytest.importorskip("pandas")
    comparison = made_study(models=3)
    frame = comparison.to_frame().set_index(["model", "metric"])
    row = next(row for row in comparison.rows if row.differences is not None)
    assert frame.loc[(row.model, "auc"), "difference"] == row.differences["auc"].value
    assert frame.loc[(row.model, "auc"), "value"] == row.metrics["auc"].value
    assert frame["difference"].isna().loc[comparison.reference].all()
