import numpy as np
import pytest
from support.artifacts import tiny_artifact

from lifelong.errors import UsageError
from lifelong.offline.evaluation.attention import (
    SAME_CATEGORY,
    SAME_ITEM,
    read_attention,
    relation,
    sampled_users,
)


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
