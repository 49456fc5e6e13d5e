"""`model.side`: the memory of an item over its users, alone or together with that of the user."""

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from lifelong.errors import ConfigError, UsageError
from lifelong.models import MODELS, build, check_config, is_served, plain_name, require_served
from lifelong.models.base import MemoryModel, Model
from lifelong.models.hpmn import Hpmn
from lifelong.models.item_side import ITEM_RECENT, ItemSide, can_have_item_side
from lifelong.testing.worlds import INPUTS, random_batch

pytestmark = pytest.mark.torch
ABLE = [name for name, entry in MODELS.items() if can_have_item_side(entry)]
OTHERS = [name for name, entry in MODELS.items() if issubclass(entry, Model) and not can_have_item_side(entry)]


def made(name: str, **config: Any) -> MemoryModel:
    torch.manual_seed(0)
    model = build(name, INPUTS, config)
    assert isinstance(model, MemoryModel)
    return model.double().eval()


def side_of(model: Model) -> ItemSide:
    side = model.extras["item_side"]
    assert isinstance(side, ItemSide)
    return side


def test_models_with_a_memory_that_is_read_by_the_common_way_can_have_a_side_of_items() -> None:
    expected = ["dnn", "gru4rec", "hpmn", "hpmn_dynamic", "lstm", "mingru", "mimn", "rum_item", "rum_feature"]
    assert expected == ABLE


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("side", ["item", "both"])
def test_an_event_of_an_item_changes_the_logits_of_those_targets_that_see_it(name: str, side: str) -> None:
    model, batch = made(name, side=side), random_batch([12, 5], targets=3)
    assert batch.items is not None
    number_WLF = batch.items.number_WLF.clone()
    number_WLF[0, 65] = number_WLF[0, 65] % 3 + 1
    position_WK = batch.items.position_WK.clone()
    position_WK[0] = torch.tensor([70, 64])
    items = replace(batch.items, position_WK=position_WK)
    before = model(replace(batch, items=items)).logit_BCT
    after = model(replace(batch, items=replace(items, number_WLF=number_WLF))).logit_BCT
    assert (before != after)[..., 0].tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize("name", ABLE)
def test_without_the_side_of_users_nothing_of_her_events_is_read(name: str) -> None:
    model, batch = made(name, side="item"), random_batch([12, 5], targets=3)
    other = random_batch([12, 5], targets=3, seed=1)
    assert torch.equal(model(batch).logit_BCT, model(replace(batch, history_BLF=other.history_BLF)).logit_BCT)


def test_an_item_is_folded_event_by_event_and_read_by_the_user() -> None:
    """The specification: a naive loop over the events of each target's item."""
    model = made("hpmn", side="both", hops=2, periods=[1, 2, 4])
    side, batch = side_of(model), random_batch([12, 5, 0], targets=4)
    assert batch.items is not None
    items = batch.items
    seen = side(batch)[0].flatten(0, 1)
    for at in range(12):
        window, read = divmod(int(items.place_BC.flatten()[at]), 2)
        memory = side.memory.initial_memory(1)
        for place in range(int(items.position_WK[window, read])):
            event_1E = side.memory.embed(items.number_WLF[window, place : place + 1], side.memory.history_fields)
            memory = side.memory.write_vector(memory, event_1E)
        memory = type(memory)(*(value.unsqueeze(1) for value in memory))
        query_11E = side.memory.embed(items.query_BF[at // 4][None, None], side.memory.item_fields)
        interest, _ = side.memory.read_vector(memory, query_11E)
        gap = side.memory.embed(items.gap_BC.flatten()[at][None, None], ("gap",))
        torch.testing.assert_close(seen[at], torch.cat([interest[0, 0], gap[0]]), rtol=0, atol=1e-10)


def test_both_sides_are_read_into_one_head() -> None:
    plain, both = made("hpmn", width=8), made("hpmn", width=8, side="both")
    widths = [model.head.layers[0].in_features for model in (plain, both)]  # type: ignore[union-attr, operator, index]
    # Of the items' side the interest, and the vector of the time since the item's last event.
    assert widths[1] == widths[0] + 8 + 16
    assert set(both(random_batch([40], targets=2)).aux_losses) == {"covariance", "item_covariance"}


def test_the_sides_share_no_weight_and_the_items_side_has_no_head() -> None:
    model = made("hpmn", side="both")
    names = list(model.state_dict())
    assert not [name for name in names if name.startswith("extras.item_side.memory.head")]
    assert len({value.data_ptr() for value in model.state_dict().values()}) == len(names)


def test_the_side_of_items_sees_the_users_and_what_is_known_of_them() -> None:
    inputs = replace(INPUTS, context={**INPUTS.context, "user.age": 5})
    model = build("hpmn", inputs, {"side": "item"})
    assert isinstance(model, Model)
    memory, tables = side_of(model).memory, model.number_tables
    assert memory.history_fields == ("user", "user.age", "event_type", "gap")
    assert memory.item_fields == ("user", "user.age")
    assert tables["extras.item_side.memory.embed.table_list.0.weight"] == "user number"
    assert tables["extras.item_side.memory.embed.table_list.1.weight"] == "user.age"


def test_counts_and_heads_of_several_tasks_go_with_a_side_of_items() -> None:
    inputs = replace(INPUTS, tasks=("any", "buy"))
    torch.manual_seed(0)
    model = build("hpmn_both_counts", inputs, {"head": "mmoe"}).eval()  # type: ignore[union-attr]
    batch = random_batch([9, 4], targets=3, inputs=inputs)
    assert batch.items is not None
    logit = model(batch).logit_BCT
    assert logit.shape == (2, 3, 2)
    assert bool((logit != model(replace(batch, count_BCK=batch.count_BCK + 1)).logit_BCT).all())
    gap_BC = batch.items.gap_BC % 3 + 1
    assert not torch.equal(logit, model(replace(batch, items=replace(batch.items, gap_BC=gap_BC))).logit_BCT)


@pytest.mark.parametrize("side", ["item", "both"])
def test_a_model_with_an_item_side_memory_is_not_served_and_says_why(side: str) -> None:
    model = build("hpmn", INPUTS, {"side": side})
    assert not is_served(model)
    with pytest.raises(
        UsageError, match=r"reads a memory of the target's item.*can be trained, evaluated and compared"
    ):
        require_served(model, purpose="backfill")


def test_the_users_side_is_the_model_as_it_was() -> None:
    assert check_config("hpmn", {"side": "user"}) == check_config("hpmn", {})
    model = build("hpmn", INPUTS, {"side": "user"})
    assert type(model) is Hpmn and not model.extras and is_served(model)


def test_settings_that_are_written_are_all_that_makes_the_side() -> None:
    assert check_config("hpmn", {"side": "both"})["item_recent"] == ITEM_RECENT
    assert check_config("hpmn_both", {}) == check_config("hpmn", {"side": "both"})
    assert check_config("hpmn_item", {"item_recent": 70})["item_recent"] == 70


@pytest.mark.parametrize(
    ("name", "config", "problem"),
    [
        ("hpmn", {"item_recent": 50}, r"model\.item_recent: without an item-side memory"),
        ("hpmn", {"side": "both", "item_recent": 63}, r"too short to write its slot.*at least 64"),
        ("hpmn", {"side": "both", "authors_mode": True}, r"model\.side: .* can have no item-side memory"),
        ("gbdt", {"side": "both"}, r"gbdt has no such setting"),
        ("hpmn_both", {"side": "item"}, r"hpmn_both has 'both' \(found 'item'\)"),
    ],
)
def test_what_makes_no_side_of_items_is_refused(name: str, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(name, INPUTS, config)


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_say_which_can_have_a_side_of_items(name: str) -> None:
    with pytest.raises(ConfigError, match=f"can have no item-side memory .these can have one: {', '.join(ABLE)}"):
        build(name, INPUTS, {"side": "both"})


def test_data_without_clock_times_has_no_side_of_items() -> None:
    with pytest.raises(ConfigError, match="no clock times"):
        build("hpmn", replace(INPUTS, timed=False), {"side": "both"})


def test_a_batch_without_items_is_refused() -> None:
    with pytest.raises(UsageError, match="was given no items' events"):
        made("hpmn", side="both")(replace(random_batch([3], targets=2), items=None))


def test_a_name_with_a_side_is_its_model_and_names_of_models_stay() -> None:
    names = ["hpmn_item", "hpmn_both_counts", "sim_soft_counts", "rum_item", "rum_item_item", "x_both", "_item"]
    assert [plain_name(name) for name in names] == [
        *("hpmn", "hpmn", "sim_soft", "rum_item", "rum_item", "x_both", "_item")
    ]
