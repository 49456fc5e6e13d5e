import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.errors import DataError
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample


def brute_force_auc(label, score):
    """Every pair of a positive and a negative, one by one."""
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, positive in zip(score, label, strict=True)
        if positive
        for low, other in zip(score, label, strict=True)
        if not other
    ]
    return sum(wins) / len(wins)


# Few distinct scores, so that ties are common; both classes always there.
scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def columns(rows):
    label, score = zip(*rows, strict=True)
    return np.array(label, float), np.array(score, float)


def test_auc_of_a_hand_computed_example_with_a_tie():
    # Pairs (positive, negative): (.9, .1) won, (.9, .4) won, (.4, .1) won, (.4, .4) half.
    assert metrics.auc([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.4]) == 3.5 / 4


@given(scored)
def test_auc_equals_counting_all_pairs(rows):
    label, score = columns(rows)
    assert metrics.auc(label, score) == pytest.approx(brute_force_auc(label, score), abs=1e-12)


def test_a_label_of_one_half_counts_as_positive():
    assert metrics.auc([0.5, 0.49], [2, 1]) == 1.0


@pytest.mark.parametrize("label", [[], [1, 1], [0, 0]])
def test_auc_without_both_classes_is_not_defined(label):
    assert math.isnan(metrics.auc(label, label))


def test_gauc_weighs_users_by_their_examples_and_leaves_out_users_with_one_class():
    # User 0: AUC 1 over 2 examples; user 1: AUC 0.5 over 3 examples; user 2: one class.
    label = [1, 0, 1, 0, 0, 1, 1]
    score = [2, 1, 2, 1, 3, 5, 6]
    grouped = metrics.gauc(label, score, [0, 0, 1, 1, 1, 2, 2])
    assert grouped.value == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert (grouped.users, grouped.one_class_users, grouped.one_class_examples) == (3, 1, 2)


def test_gauc_is_not_defined_if_every_user_has_one_class():
    grouped = metrics.gauc([1, 1, 0], [1, 2, 3], [0, 0, 1])
    assert math.isnan(grouped.value)
    assert grouped.one_class_users == 2


@given(scored, st.randoms(use_true_random=False))
def test_gauc_ignores_the_order_of_examples_and_a_shift_per_user(rows, random):
    label, score = columns(rows)
    user = np.array([random.randrange(4) for _ in label])
    shifted = score + 10.0 * user
    order = np.array(random.sample(range(len(label)), len(label)))
    expected = metrics.gauc(label, score, user).value
    assert metrics.gauc(label[order], shifted[order], user[order]).value == pytest.approx(expected, nan_ok=True)


def test_log_loss_of_hand_computed_logits():
    logit = np.log([3.0, 1.0])
    assert metrics.log_loss([1, 0], logit) == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)


def test_log_loss_of_huge_logits_stays_finite():
    assert metrics.log_loss([0, 1], [1000.0, 1000.0]) == 500.0


def test_log_loss_takes_graded_labels():
    assert metrics.log_loss([0.25], [0.0]) == pytest.approx(math.log(2))


def test_normalised_entropy_of_the_base_rate_is_one():
    assert metrics.normalised_entropy([1, 0, 0, 0], np.full(4, math.log(1 / 3))) == pytest.approx(1.0)


def test_ece_of_two_hand_made_groups():
    # Probabilities .25 and .75; half of each group is positive: both are off by .25.
    logit = np.repeat(np.log([1 / 3, 3.0]), 4)
    assert metrics.ece([1, 0, 1, 0, 1, 0, 1, 0], logit, bins=2) == pytest.approx(0.25)


def test_ece_keeps_equal_probabilities_in_one_bin():
    assert metrics.ece([1, 0] * 50, np.zeros(100)) == pytest.approx(0.0)


def test_predicted_over_observed_is_the_ratio_of_sums():
    assert metrics.predicted_observed([1, 0, 0, 0], np.zeros(4)) == pytest.approx(2.0)
    assert math.isnan(metrics.predicted_observed([0, 0], [0.0, 0.0]))


def test_slices_are_finer_where_nine_in_ten_histories_are_short():
    short = np.array([*range(9), 60])
    assert [name for name, chosen in metrics.length_slices(short).items() if chosen.any()] == ["<5", "5-9", "50+"]
    assert "50-99" in metrics.length_slices(np.append(short, 50))
    assert "50-99" in metrics.length_slices([])


def test_length_slices_are_half_open_and_cover_every_length_once():
    slices = metrics.length_slices([0, 49, 50, 99, 100, 299, 300, 999, 1000, 5000])
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in slices.items()} == {
        "<50": [0, 1],
        "50-99": [2, 3],
        "100-299": [4, 5],
        "300-999": [6, 7],
        "1000+": [8, 9],
    }


@pytest.mark.parametrize(
    ("label", "logit", "message"),
    [
        ([0, 1], [0.0], "2 labels, 1 logits"),
        ([0, 2], [0.0, 0.0], "labels between 0.0 and 2.0"),
        ([0, float("nan")], [0.0, 0.0], "labels between"),
        ([0, 1], [0.0, float("nan")], "1 of 2 logits are not finite"),
    ],
)
def test_wrong_input_is_refused(label, logit, message):
    with pytest.raises(DataError, match=message):
        metrics.log_loss(label, logit)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.integers(-2, 2), st.integers(0, 2)), max_size=8))
def test_a_metric_without_a_value_always_has_a_reason(rows):
    label, logit, user = (np.array([row[place] for row in rows]) for place in range(3))
    sample = Sample.of(label, logit, user)
    for name, value in metrics.all_metrics(sample).items():
        assert math.isnan(value) == (metrics.undefined_reason(name, sample) is not None), name
