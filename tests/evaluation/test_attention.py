import numpy as np
import pytest
from support.artifacts import tiny_artifact

from lifelong.dataset.examples import Examples
from lifelong.errors import UsageError
from lifelong.offline.evaluation.attention import (
    SAME_CATEGORY,
    SAME_ITEM,
    ReadAttention,
    read_attention,
    relation,
    sampled_users,
    slot_contents,
)
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def read(dataset, tmp_path_factory):
    artifact = tiny_artifact(tmp_path_factory.mktemp("artifact") / "a", dataset)
    return read_attention(artifact, dataset, dataset.examples("test"))


def test_attention_adds_up_to_one_over_the_filled_slots_and_is_nought_on_empty_ones(read):
    some = read.filled > 0
    assert read.attention_NS[some].sum(1) == pytest.approx(1, abs=1e-5)
    empty_NS = np.arange(len(read.periods)) >= read.filled[:, None]
    assert not read.attention_NS[empty_NS].any()


def test_logits_are_those_that_evaluation_gives(read, dataset, tmp_path):
    from lifelong.offline.evaluation.evaluate import predict
    from lifelong.offline.export.saving import load_model

    artifact = tiny_artifact(tmp_path / "again", dataset)
    logit_NT = predict(load_model(artifact), dataset, dataset.examples("test"))
    assert read.logit_N == pytest.approx(logit_NT[:, 0], abs=1e-6)


def test_ages_count_events_back_from_the_target(read, dataset):
    """Against a plain walk through each history."""
    examples, catalogue = dataset.examples("test"), dataset.catalogue
    for at in range(0, len(examples), 7):
        start = dataset.histories.of(int(examples.user_N[at])).start
        past = dataset.histories.row_N[start : start + int(examples.position_N[at])]
        target = int(examples.row_N[at])
        ages = [
            age
            for age, row in enumerate(reversed(past.tolist()), 1)
            if row == target or catalogue.number_VF[row, 1] == catalogue.number_VF[target, 1]
        ]
        found = read.count_N[at], read.latest_N[at], read.oldest_N[at]
        assert found == ((len(ages), min(ages), max(ages)) if ages else (0, 0, 0))


def test_the_same_item_is_more_than_the_same_category(dataset):
    examples = dataset.examples("test")
    kinds = np.concatenate([relation(dataset, examples, at) for at in range(len(examples))])
    assert set(kinds.tolist()) == {0, SAME_CATEGORY, SAME_ITEM}


def test_whole_users_are_drawn_and_the_same_ones_each_time(dataset):
    examples = dataset.examples("test")
    drawn = sampled_users(examples, most=20)
    assert 20 <= len(drawn) < len(examples)
    for user in np.unique(drawn.user_N):
        assert (drawn.user_N == user).sum() == (examples.user_N == user).sum()
    assert np.array_equal(drawn.user_N, sampled_users(examples, most=20).user_N)


def test_a_model_without_slots_is_refused(dataset, tmp_path):
    artifact = tiny_artifact(tmp_path / "gru", dataset, model="gru4rec")
    with pytest.raises(UsageError, match="GRU4Rec has no slots with periods"):
        read_attention(artifact, dataset, dataset.examples("test"))


def made_read(latest, attention, *, users=None, position=100):
    size = len(latest)
    zero = np.zeros(size, np.int64)
    users = np.arange(size) if users is None else users
    positions = np.full(size, position, np.int32)
    examples = Examples(users.astype(np.int32), zero.astype(np.int32), zero, positions, np.ones((size, 1), np.float32))
    latest = np.asarray(latest, np.int64)
    return ReadAttention(examples, np.zeros(size), np.asarray(attention), (1, 4, 16), (latest > 0) * 1, latest, latest)


def test_a_memory_that_reads_slow_slots_for_old_events_has_a_positive_correlation():
    rng = np.random.default_rng(0)
    latest = rng.integers(1, 100, 300)
    slow = np.log(latest) / np.log(100)
    found = slot_contents(made_read(latest, np.stack([1 - slow, 0 * slow, slow], 1)), resamples=200)
    assert found.correlation == pytest.approx(1)
    assert found.p_value < 0.05
    assert [part.name for part in found.classes] == ["1 to 10", "11 to 32", "33 to 100"]
    assert found.classes[0].attention_S[0] > found.classes[-1].attention_S[0]
    backwards = slot_contents(made_read(latest, np.stack([slow, 0 * slow, 1 - slow], 1)), resamples=200)
    assert backwards.correlation == pytest.approx(-1)


def test_noise_has_no_correlation():
    rng = np.random.default_rng(1)
    found = slot_contents(made_read(rng.integers(1, 100, 400), rng.dirichlet([1, 1, 1], 400)), resamples=200)
    assert found.low < 0 < found.high
    assert found.p_value > 0.05


def test_the_bootstrap_is_over_users_and_not_over_examples():
    """One user with a thousand equal examples is one user: nothing is sure."""
    rng = np.random.default_rng(2)
    latest = np.concatenate([np.full(500, 90), rng.integers(1, 20, 20)])
    slow = np.concatenate([np.full(500, 0.9), rng.random(20)])
    users = np.concatenate([np.zeros(500), np.arange(1, 21)])
    found = slot_contents(made_read(latest, np.stack([1 - slow, 0 * slow, slow], 1), users=users), resamples=500)
    assert found.high - found.low > 0.3


def test_targets_with_empty_slots_or_without_related_events_are_left_out_of_the_correlation():
    found = slot_contents(made_read([0, 0, 0, 5], np.full((4, 3), 1 / 3)), resamples=10)
    assert (found.examples, found.correlation) == (1, None)
    assert {part.name: part.examples for part in found.classes} == {"1 to 10": 1, "none": 3}
    assert slot_contents(made_read([5, 6], np.full((2, 3), 1 / 3), position=8), resamples=10).classes == ()
