"""`model.counts`: exact counts in addition to what a model reads of the history itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong.errors import ConfigError, UsageError
from lifelong.offline.models import all_names, build, is_served, model_class, require_served
from lifelong.offline.models.base import Model
from lifelong.offline.nn.counted import CountScale, TargetPopularity
from lifelong.testing.worlds import INPUTS, random_batch

ALL = [name for name in all_names() if issubclass(model_class(name, {}), Model)]
TAKES = [name for name in ALL if model_class(name, {}).common_head]


@pytest.mark.parametrize("name", TAKES)
def test_another_count_of_one_target_changes_its_logit_and_no_other(name: str) -> None:
    torch.manual_seed(0)
    model, batch = build(name, INPUTS, {"counts": True}).eval(), random_batch([12, 5], targets=3)
    count_BCK = batch.count_BCK.clone()
    count_BCK[1, 2, 4] += 1
    changed = (model(batch).logit_BCT != model(replace(batch, count_BCK=count_BCK)).logit_BCT)[..., 0]
    assert changed.tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize("name", TAKES)
def test_a_model_that_is_given_counts_is_not_served_and_says_why(name: str) -> None:
    plain, given = build(name, INPUTS, {}), build(name, INPUTS, {"counts": True})
    assert given.title == f"{plain.title} + counts"
    assert not is_served(given)
    with pytest.raises(UsageError, match=r"backfill .*\+ counts cannot be served.*exact counts of a whole history"):
        require_served(given, purpose="backfill")


@pytest.mark.parametrize("name", [name for name in ALL if name not in TAKES])
def test_a_head_of_another_kind_is_given_no_counts(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.counts: .* has a head of its own"):
        build(name, INPUTS, {"counts": True})


@pytest.mark.parametrize("name", ["gru4rec", "din", "sdim", "gated_delta"])
def test_a_batch_plain_name_is_refused(name: str) -> None:
    model, batch = build(name, INPUTS, {"counts": True}), random_batch([12], targets=2)
    with pytest.raises(UsageError, match="was given no counts"):
        model(replace(batch, count_BCK=batch.count_BCK[..., :0]))


def test_several_tasks_have_the_head_of_their_settings_and_counts() -> None:
    inputs = replace(INPUTS, tasks=("any", "buy"))
    model = build("hpmn", inputs, {"counts": True, "head": "mmoe"}).eval()
    batch = random_batch([9, 4], targets=3, inputs=inputs)
    other = model(replace(batch, count_BCK=batch.count_BCK + 1)).logit_BCT
    assert bool((model(batch).logit_BCT != other).all())


def test_counts_are_standardised_and_a_column_that_never_varies_is_left_out() -> None:
    scale = CountScale(2)
    scale.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]], dtype=torch.float64).numpy())
    assert scale(torch.tensor([[1.0, 5.0], [4.0, 9.0]])).tolist() == [[-1.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize("name", ["gru4rec", "din", "sdim", "gated_delta"])
def test_who_is_given_counts_knows_how_popular_the_target_is(name: str) -> None:
    torch.manual_seed(0)
    model, batch = build(name, INPUTS, {"counts": True}).eval(), random_batch([12, 5], targets=3)
    before = model(batch).logit_BCT
    counts = {field: np.ones(size) for field, size in INPUTS.item.items()}
    field = next(iter(INPUTS.item))
    own = int(batch.target_BCF[1, 2, 0])
    counts[field][own] = 1000.0
    model.learn_popularity(counts)
    changed = (model(batch).logit_BCT != before)[..., 0]
    same_BC = (batch.target_BCF[..., 0] == own) & batch.mask_BC
    # Every value moves with the scale, the popular one the other way.
    popular = model.exact.popular
    popular_V = popular.popular_0[:, 0]
    assert changed[batch.mask_BC].all() and same_BC.any()
    assert popular_V[own] > 0 > popular_V[own - 1]
    for place in range(1, len(INPUTS.item)):
        assert not getattr(popular, f"popular_{place}").any()


def test_popularity_is_a_logarithm_standardised_over_the_targets() -> None:
    popular = TargetPopularity({"item": 4})
    popular.learn({"item": np.array([0.0, 1.0, 7.0, 0.0])})
    found = popular(torch.tensor([[[1], [2], [0]]]))[0, :, 0]
    log, weight = np.log1p([1.0, 7.0]), np.array([1.0, 7.0]) / 8
    mean = float(log @ weight)
    deviation = float(np.sqrt(((log - mean) ** 2) @ weight))
    np.testing.assert_allclose(found, [*((log - mean) / deviation), -mean / deviation], rtol=1e-5)
