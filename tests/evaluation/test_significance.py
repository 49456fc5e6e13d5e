import numpy as np
import pytest

from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import METRICS, Sample
from lifelong.offline.evaluation.significance import (
    Resampler,
    bootstrap,
    detectable,
    draw_weights,
    family_p_values,
    interval,
    over_seeds,
    p_value,
    paper_tests,
)


def made_sample(*, users=30, examples=600, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, examples)
    label = (rng.random(examples) < 0.4).astype(float)
    # Rounded, so that ties occur.
    logit = np.round(rng.normal(size=examples) + strength * label + 0.3 * user / users, 1)
    return Sample.of(label, logit, user)


def repeated(sample, weight):
    """The sample with each user's examples standing there as often as she was drawn, as a new user each time."""
    rows, users = [], []
    for user, times in enumerate(weight.astype(int)):
        of = np.flatnonzero(sample.user == user)
        for copy in range(times):
            rows.append(of)
            users.append(np.full(len(of), user * 1000 + copy))
    chosen = np.concatenate(rows)
    return Sample.of(sample.label[chosen], sample.logit[chosen], np.concatenate(users))


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "ece"])
def test_a_weighted_metric_equals_the_metric_of_repeated_users(metric):
    sample = made_sample(users=12, examples=150)
    weight_RU = draw_weights(12, 5, np.random.default_rng(1))
    values = Resampler(sample).values(weight_RU)[metric]
    expected = [metrics.all_metrics(repeated(sample, weight))[metric] for weight in weight_RU]
    assert values == pytest.approx(np.array(expected), abs=1e-12)


def test_weights_of_one_give_the_point_estimates_of_all_metrics():
    sample = made_sample()
    values = Resampler(sample).values(np.ones((1, 30)))
    assert {name: float(value[0]) for name, value in values.items()} == pytest.approx(metrics.all_metrics(sample))


def test_calibration_bins_that_are_off_in_opposite_directions_do_not_cancel_in_any_resample():
    # Probabilities .25 and .75 where half is positive: each user has one bin off by +.25 and one off by -.25.
    sample = Sample.of([1, 0, 1, 0] * 5, np.log([1 / 3, 1 / 3, 3.0, 3.0] * 5), np.repeat(np.arange(5), 4))
    assert bootstrap({"": sample}, resamples=20)[""]["ece"] == pytest.approx(0.25)


def test_a_model_that_scores_all_alike_is_at_one_half_in_every_resample():
    sample = Sample.of([1, 0, 1, 0], np.zeros(4), [0, 0, 1, 1])
    assert Resampler(sample).values(draw_weights(2, 20, np.random.default_rng(0)))["auc"].tolist() == [0.5] * 20


def test_each_resample_draws_as_many_users_as_there_are():
    assert draw_weights(7, 4, np.random.default_rng(0)).sum(axis=1).tolist() == [7, 7, 7, 7]


def test_the_same_seed_draws_the_same_users_also_in_another_call():
    sample = made_sample()
    together = bootstrap({"a": sample, "b": sample}, resamples=20, seed=3)
    alone = bootstrap({"a": sample}, resamples=20, seed=3)
    assert np.array_equal(together["a"]["auc"], together["b"]["auc"])
    assert np.array_equal(together["a"]["auc"], alone["a"]["auc"])


def test_the_users_of_all_samples_are_drawn_from_and_no_others():
    first, second = made_sample(users=10), made_sample(users=20, seed=1)
    first, second = (Sample.of(one.label, one.logit, one.user + 1000) for one in (first, second))
    named = bootstrap({"a": first, "b": second}, users=np.arange(1000, 1020), resamples=20)
    assert np.array_equal(bootstrap({"a": first, "b": second}, resamples=20)["a"]["auc"], named["a"]["auc"])
    assert bootstrap({}, resamples=20) == {}


def test_a_resample_in_which_a_slice_has_one_class_counts_as_not_defined():
    # One user has the only positive: a third of all resamples miss her.
    drawn = bootstrap({"": Sample.of([1, 0, 0], [1, 0, 0], [0, 1, 2])}, resamples=300)[""]["auc"]
    assert 0.2 < np.isnan(drawn).mean() < 0.5
    assert interval(drawn) == (1.0, 1.0)


def test_users_make_the_interval_wider_than_examples_would():
    # 20 users with 50 equal examples each: 20 independent ones, not 1,000.
    rng = np.random.default_rng(0)
    label, logit = rng.random(20) < 0.5, rng.normal(size=20)
    rows = np.repeat(np.arange(20), 50)
    clustered = bootstrap({"": Sample.of(label[rows], logit[rows], rows)}, resamples=200)[""]["auc"]
    independent = bootstrap({"": Sample.of(label[rows], logit[rows], np.arange(1000))}, resamples=200)[""]["auc"]
    assert clustered.std() > 4 * independent.std()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # AUC of normal scores one deviation apart is Phi(1 / sqrt 2) = 0.7602.
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        label = rng.random(400) < 0.5
        sample = Sample.of(label, rng.normal(size=400) + label, np.arange(400))
        low, high = interval(bootstrap({"": sample}, resamples=200)[""]["auc"])
        covered += low <= 0.7602 <= high
    assert 50 <= covered <= 60


def seeds_and_users(*, seeds, of_seeds, of_pairs, worlds, resamples=300):
    """Resampled values of K seeds in worlds whose true value is 0: `[worlds, K, R]`.

    Users' noise has deviation 1 where the seeds share it, and `of_pairs` where each seed has its own; a resample has
    both once more. Seeds themselves have deviation `of_seeds`.
    """
    rng = np.random.default_rng(seeds)
    shared_W1R = rng.normal(size=(worlds, 1, 1)) + rng.normal(size=(worlds, 1, resamples))
    pairs_WKR = rng.normal(size=(worlds, seeds, 1)) + rng.normal(size=(worlds, seeds, resamples))
    return shared_W1R + of_pairs * pairs_WKR + of_seeds * rng.normal(size=(worlds, seeds, 1))


def intervals_of(drawn_WKR):
    """Lower and upper ends, `[2, worlds]`."""
    return np.quantile([over_seeds(drawn_KR) for drawn_KR in drawn_WKR], [0.025, 0.975], axis=1)


# Two seeds that differ far more than users' noise explains are not here: they cover .9, and nothing may be claimed.
@pytest.mark.parametrize(
    ("seeds", "of_seeds"), [(1, 0), (2, 0), (2, 1), *((seeds, effect) for seeds in (3, 5, 10) for effect in (0, 1, 3))]
)
@pytest.mark.parametrize("of_pairs", [0.0, 0.7])
def test_intervals_over_users_and_seeds_cover_the_truth_as_often_as_they_say(seeds, of_seeds, of_pairs):
    low_W, high_W = intervals_of(seeds_and_users(seeds=seeds, of_seeds=of_seeds, of_pairs=of_pairs, worlds=1000))
    assert 0.93 <= np.mean((low_W <= 0) & (high_W >= 0)) <= 0.97


def test_an_interval_over_users_only_covers_the_truth_too_rarely_where_seeds_differ():
    drawn_WKR = seeds_and_users(seeds=3, of_seeds=2.0, of_pairs=0.0, worlds=500)
    low_W, high_W = np.quantile(drawn_WKR.mean(axis=1), [0.025, 0.975], axis=1)
    assert np.mean((low_W <= 0) & (high_W >= 0)) < 0.85


@pytest.mark.parametrize("of_pairs", [0.0, 0.7])
def test_where_seeds_agree_more_of_them_make_no_interval_wider(of_pairs):
    worlds = {
        seeds: seeds_and_users(seeds=seeds, of_seeds=0.0, of_pairs=of_pairs, worlds=300) for seeds in (1, 2, 3, 5, 10)
    }
    width = [float(np.median(np.ptp(intervals_of(drawn_WKR), axis=0))) for drawn_WKR in worlds.values()]
    assert width[1:] == pytest.approx(np.minimum(width[0], width[1:]), rel=0.02)
    # Seeds that differ by no more than users' noise makes them differ have no part in the interval.
    alike_KR = np.tile(worlds[1][0], (5, 1))
    assert over_seeds(alike_KR) == pytest.approx(alike_KR[0])


def test_a_difference_of_the_stated_power_is_found_in_four_of_five_repetitions():
    rng = np.random.default_rng(0)
    wanted, found = detectable(rng.normal(0, 0.3, 20_000)), 0
    for _ in range(500):
        low, high = interval(wanted + rng.normal(0, 0.3) + rng.normal(0, 0.3, 400))
        found += low > 0 or high < 0
    assert 0.75 <= found / 500 <= 0.86


def test_the_seeds_part_alone_is_stretched_as_students_t():
    # Without users' noise the interval is that of the t test: 2/3 +- 4.303 * sqrt(1/3 / 3).
    drawn = over_seeds(np.repeat([[0.0], [1.0], [1.0]], 40_000, axis=1))
    assert interval(drawn) == pytest.approx((2 / 3 - 4.303 / 3, 2 / 3 + 4.303 / 3), abs=0.02)
    assert np.array_equal(drawn, over_seeds(np.repeat([[0.0], [1.0], [1.0]], 40_000, axis=1)))


def test_models_with_equally_many_seeds_are_paired_seed_by_seed_and_others_are_not():
    level_K1, rng = np.array([[0.0], [3.0], [9.0]]), np.random.default_rng(0)
    users_R = rng.normal(size=4000)
    first_KR, second_KR = level_K1 + users_R, level_K1 + 0.5 + users_R
    assert over_seeds(first_KR, second_KR) == pytest.approx(-0.5)
    assert np.std(over_seeds(first_KR, second_KR[::-1])) > 2
    # One seed of the second has no spread of its own: what is left is the first's.
    alone = over_seeds(first_KR, second_KR[:1])
    assert np.std(alone) == pytest.approx(np.std(over_seeds(level_K1 + 0 * users_R)), rel=0.05)
    # Two seeds of the second add to the variance.
    assert np.std(over_seeds(first_KR, second_KR[:2])) > np.std(alone)
    assert over_seeds(first_KR, second_KR[:1]).mean() == pytest.approx(4 - 0.5, abs=0.3)


def test_a_resample_in_which_a_metric_is_not_defined_stays_undefined_over_seeds():
    drawn = over_seeds(np.array([[0.1, np.nan, 0.3], [0.2, np.nan, 0.9]]))
    assert np.isnan(drawn).tolist() == [False, True, False]
    assert np.isnan(over_seeds(np.full((2, 3), np.nan))).all()


def test_a_corrected_p_value_is_never_below_the_uncorrected_one():
    rng = np.random.default_rng(0)
    # Skewed: one tail reaches 0 far more often than a deviation as large as the value occurs.
    skewed = 1 - rng.exponential(0.5, 2000)
    value = 1.0
    assert family_p_values({"a": (value, skewed)})["a"] >= p_value(skewed)
    for family in range(1, 5):
        drawn = {str(place): rng.normal(0.2, 0.1, 500) for place in range(family)}
        found = family_p_values({name: (0.2, values) for name, values in drawn.items()})
        assert all(found[name] >= p_value(values) for name, values in drawn.items())


def test_the_p_value_is_two_sided_and_never_zero():
    assert p_value(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 4)
    assert p_value(np.array([-1.0, 1.0, 1.0, 1.0])) == pytest.approx(4 / 5)
    # A resample without a difference speaks for neither side, and so counts on both.
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.array([0.0, 1.0, 1.0])) == p_value(np.array([0.0, -1.0, -1.0])) == 1


def test_the_papers_tests_see_a_good_model_and_a_difference():
    good = made_sample(strength=2.0)
    tests = paper_tests(good, Sample(good.label, np.zeros(len(good)), good.user))
    assert tests.mann_whitney_p < 1e-6
    assert tests.t_p < 1e-3
    assert paper_tests(good, good).t_p == 1.0
    first, second = (Sample.of([1, 0], logit, [0, 1]) for logit in ([2, -1], [0, 0]))
    assert 0 < paper_tests(first, second).t_p < 1
    assert paper_tests(*(one.take([0]) for one in (first, second))).t_p == 1.0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_examples_of_one_class_cannot_be_ranked_and_have_no_test(label):
    sample = Sample.of(np.full(4, label), np.arange(4.0), np.arange(4))
    assert np.isnan(paper_tests(sample).mann_whitney_p)
    assert paper_tests(sample, Sample.of(np.full(4, label), np.zeros(4), np.arange(4))).t_p < 1


def test_a_family_of_one_has_the_p_value_of_a_normal_deviate():
    drawn = np.random.default_rng(0).normal(0.3, 0.1, 4000)
    # The difference is twice its own spread: two-sided, .0455.
    assert family_p_values({"a": (0.2, drawn - 0.1)})["a"] == pytest.approx(0.0455, abs=0.01)


def test_a_corrected_p_value_counts_deviations_to_both_sides_and_the_difference_itself():
    # Two of four resamples deviate by as much as the difference, both away from 0: (2 + 1) / (4 + 1).
    found = family_p_values({"a": (1.0, np.array([0.5, 0.5, 3.0, 3.0]))})
    assert found["a"] == pytest.approx(3 / 5)


def test_independent_differences_are_corrected_as_sidak_does_and_equal_ones_not_at_all():
    rng = np.random.default_rng(0)
    drawn = {str(place): 0.25 + 0.1 * rng.normal(size=4000) for place in range(10)}
    single = family_p_values({"0": (0.25, drawn["0"])})["0"]
    apart = family_p_values({name: (0.25, values) for name, values in drawn.items()})["0"]
    alike = family_p_values(dict.fromkeys(drawn, (0.25, drawn["0"])))["0"]
    assert apart == pytest.approx(1 - (1 - single) ** 10, abs=0.03)
    assert alike == single


def test_a_difference_that_is_nothing_or_not_defined_does_not_disturb_the_family():
    drawn = 0.25 + 0.1 * np.random.default_rng(0).normal(size=400)
    nothing, undefined = np.zeros(400), np.full(400, np.nan)
    found = family_p_values({"a": (0.25, drawn), "same": (0.0, nothing), "none": (float("nan"), undefined)})
    assert found["a"] == family_p_values({"a": (0.25, drawn)})["a"]
    assert found["same"] == 1
    assert np.isnan(found["none"])
