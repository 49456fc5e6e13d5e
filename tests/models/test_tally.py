"""Tally against a naive transcription: loops over users, events, fields and slots, in float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.offline.data.cooccurrence import GROUPS, group_of
from lifelong.offline.export.graphs import memory_layout
from lifelong.offline.models import build, check_config
from lifelong.offline.models.base import Event, History, Target
from lifelong.offline.models.tally import STEADY, Tally, best_weight
from lifelong.online.memory.codec import make_codec
from lifelong.tally import plan as plans
from lifelong.tally import spec
from lifelong.tally.plan import keys_of, plan_of, seconds_of
from lifelong.tally.spec import FEATURES
from lifelong.testing.worlds import INPUTS, random_batch

pytestmark = pytest.mark.torch
HALF_LIVES = (10, 50, 250, 1250)
DAYS = (7, 60)
POPULARITY = {"item": np.arange(30.0)[::-1], "category": np.array([0.0, 0, 9, 4, 400, 22])}


def make(**settings: object) -> Tally:
    torch.manual_seed(0)
    model = build("tally", INPUTS, {"embedding": 3, "width": 4, "periods": [1, 3], "dropout": 0.0, **settings})
    assert isinstance(model, Tally)
    model = model.double().eval()
    model.learn_popularity(POPULARITY)
    if model.head.match is not None:
        # They start at zero.
        nn.init.normal_(model.head.match.wanted.weight)
    return model


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> plans.Parts:
    """What Tally has besides its settings, to be changed."""
    found = plans.Parts(factors=(5, 3), steady=0.4)
    monkeypatch.setattr(plans, "PARTS", found)
    return found


def rows(model: Tally, numbers: list[int], fields: tuple[str, ...]) -> np.ndarray:
    """What the tables have for numbers, `[F, dim + OWN]`."""
    tables = model.embed.tables
    return np.array([tables[name].weight[number].tolist() for name, number in zip(fields, numbers, strict=True)])


def specified(model: Tally, events: list[list[int]], target: list[int], context: list[int]) -> float:
    """The logit by the specification, event after event."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    config, plan, dim = model.config, model.plan, model.config.embedding
    memory = spec.Memory(plan.cells_F, plan.levels, sum(plan.widths_G))
    memory.sums_XD, slot_SD = memory.sums_XD.astype(float), np.zeros((len(config.periods), config.width))
    factors = [factor_VD.numpy() for factor_VD in model.embed.factors.values()]
    fields = len(model.item_fields)
    for count, event in enumerate(events, start=1):
        factor_D = np.concatenate([[], *(table_VD[event[place]] for place, table_VD in enumerate(factors))])
        memory.write(keys_of(np.array(event[:fields])).tolist(), int(seconds_of(np.array(event[-1]))), factor_D)
        slot_SD = spec.step(
            weights, slot_SD, rows(model, event, model.history_fields)[:, :dim].ravel(), count, config.periods
        )
    keys, row_FE = keys_of(np.array(target)).tolist(), rows(model, target, model.item_fields)
    of_target = [table_VD[target[place]] for place, table_VD in enumerate(factors)]
    known_Y = memory.known(keys, list(target), plan.sizes_F, row_FE[:, dim + FEATURES], of_target)
    kinds = [memory.look(field, key).kind for field, key in enumerate(keys)]
    filled = [slot for slot, period in zip(slot_SD, config.periods, strict=True) if len(events) >= period]
    context_C = rows(model, context, model.context_fields).ravel()
    return spec.logit(weights, known_Y, kinds, row_FE[:, :dim], row_FE[:, dim : dim + FEATURES], context_C, filled)


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("settings", [{}, {"periods": []}, {"state": 512}])
def test_logits_are_those_of_the_specification(settings: dict[str, object], products: bool, parts: plans.Parts) -> None:
    parts.products = products
    model = make(**settings)
    assert (model.head.match is None) != products
    batch = random_batch([60, 2, 0, 1, 90], targets=4)
    whole = model(batch).logit_BCT
    for user in range(5):
        for target in range(4):
            events = batch.history_BLF[user, : int(batch.position_BC[user, target])].tolist()
            wanted = specified(
                model, events, batch.target_BCF[user, target].tolist(), batch.context_BCF[user, target].tolist()
            )
            assert whole[user, target].item() == pytest.approx(wanted, abs=1e-10), (user, target)


@pytest.mark.parametrize("state", [512, 1024, 4096, 16_384])
@pytest.mark.parametrize("periods", [[1, 3, 9, 27], []])
def test_a_memory_takes_no_more_bytes_than_its_state(state: int, periods: list[int]) -> None:
    inputs = replace(INPUTS, item={"item": 90_000, "category": 5_000})
    model = build("tally", inputs, {"state": state, "periods": periods, "width": 8})
    assert isinstance(model, Tally)
    layout = memory_layout(model)
    size = make_codec("fp32", layout).size - make_codec("fp32", []).size
    assert state - 32 < size <= state


def test_without_slots_it_counts_alone_and_the_law_holds() -> None:
    model = make(periods=[], state=900)
    batch = random_batch([200, 30], targets=5)
    memory = model.initial_memory(2)
    for place in range(30):
        memory = model.write(memory, Event(batch.history_BLF[:, place], batch.time_BL[:, place]))
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    encoded = model.encode(history, torch.full((2, 1), 30))
    assert all(torch.equal(one, other[:, 0]) for one, other in zip(memory, encoded, strict=True))
    whole = model.encode(history, batch.position_BC)
    logit, attention = model.respond(whole, Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC))
    assert attention is None
    assert torch.allclose(logit, model(batch).logit_BCT, atol=1e-12)


@pytest.mark.parametrize("factors", [(5, 3), ()])
@pytest.mark.parametrize("settings", [{}, {"periods": []}])
def test_both_heads_see_counts_at_mean_0_and_deviation_1_and_embeddings_as_they_are(
    settings: dict[str, object], factors: tuple[int, ...], parts: plans.Parts
) -> None:
    parts.factors = factors
    model, batch = make(**settings), random_batch([60, 2, 0, 25], targets=6)
    fields, seen = len(INPUTS.item), dict[int, Tensor]()
    kinds, counts = fields * model.memory.kind.embedding_dim, model.memory.size
    for place, head in enumerate((model.head.head, model.head.counter)):
        head.layers[0].register_forward_pre_hook(lambda _, given, place=place: seen.update({place: given[0]}))

    def given_to(place: int) -> Tensor:
        layer = (model.head.head, model.head.counter)[place].layers[0]
        return ((seen[place] - layer.mean_X) * layer.scale_X)[batch.mask_BC]

    def respond() -> Tensor:
        history = History(batch.history_BLF, batch.time_BL, batch.length_B)
        target = Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC)
        return model.respond(model.encode(history, batch.position_BC), target)[0]

    respond()
    before = [given_to(0), given_to(1)]
    model.learn_scales(iter([batch]))
    # The scale is part of the weight on the path of training, too.
    torch.testing.assert_close(respond(), model(batch).logit_BCT, rtol=0, atol=1e-12)
    found = 2 * model.config.width if model.config.periods else 0
    for place, begin in ((0, found), (1, 0)):
        now, was = given_to(place), before[place]
        layer = (model.head.head, model.head.counter)[place].layers[0]
        torch.testing.assert_close(layer(seen[place])[batch.mask_BC], now @ layer.weight.T + layer.bias)
        scaled = torch.zeros(now.shape[1], dtype=torch.bool)
        scaled[begin : begin + counts] = True
        scaled[begin + fields * FEATURES : begin + fields * FEATURES + kinds] = False
        assert torch.equal(now[:, ~scaled], was[:, ~scaled])
        varies = was[:, scaled].std(dim=0) > 1e-6
        assert varies.sum() > 10
        assert now[:, scaled].mean(dim=0).abs().max() < 1e-5
        torch.testing.assert_close(now[:, scaled].std(dim=0, correction=0), varies.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", [{}, {"factors": ()}, {"products": False}, {"clock": False}, {"repeats": False}])
@pytest.mark.parametrize("settings", [{}, {"periods": []}])
def test_targets_of_one_moment_share_its_read_in_value_and_gradient(
    settings: dict[str, object], part: dict[str, Any], parts: plans.Parts
) -> None:
    for name, value in part.items():
        setattr(parts, name, value)
    model, batch = make(**settings), random_batch([60, 2, 0, 25], targets=6)
    # Neighbours share a moment; where only the context or only the position differs, they do not.
    position_BC, context_BCF = batch.position_BC.clone(), batch.context_BCF.clone()
    position_BC[:, 1:3], context_BCF[:, 1:4] = position_BC[:, :1], context_BCF[:, :1]
    mask_BC = torch.arange(6) < torch.tensor([6, 4, 0, 5]).unsqueeze(-1)
    batch = replace(batch, position_BC=position_BC, context_BCF=context_BCF, mask_BC=mask_BC)
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    target = Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC)
    found = []
    for respond in (
        lambda: model(batch).logit_BCT,
        lambda: model.respond(model.encode(history, batch.position_BC), target)[0],
    ):
        model.zero_grad()
        logit_NT = respond()[batch.mask_BC]
        logit_NT.square().sum().backward()
        gradients = {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}
        found.append((logit_NT.detach(), gradients))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_the_weight_of_the_second_head_is_chosen_on_validation_unless_it_is_set(parts: plans.Parts) -> None:
    parts.steady = None
    batch = random_batch([60, 2, 0, 25], targets=6)
    label = np.random.default_rng(0).integers(0, 2, (*batch.mask_BC.shape, 1))

    def predict(model: Tally) -> np.ndarray:
        return model(batch).logit_BCT.detach().numpy()

    model = make()
    assert float(model.head.steady) == STEADY
    first, second = (member.detach().numpy() for member in model(batch).members)
    wanted = best_weight(first, second, label)
    found = model.validated(lambda: predict(model), label)
    assert float(model.head.steady) == wanted
    np.testing.assert_allclose(found, (1 - wanted) * first + wanted * second, rtol=0, atol=1e-12)
    np.testing.assert_allclose(predict(model), found, rtol=0, atol=1e-12)
    parts.steady = 0.4
    given = make()
    assert np.array_equal(given.validated(lambda: predict(given), label), predict(given))
    assert float(given.head.steady) == 0.4


@pytest.mark.parametrize(("true", "examples"), [(0.0, 400), (0.5, 4_000), (1.0, 400)])
def test_the_chosen_weight_is_the_nearest_to_the_usual_one_of_those_that_are_about_the_best(true, examples) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, examples, 1), scale=2)
    logit = (1 - true) * first + true * second
    label = (rng.uniform(size=logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
    losses = []
    for part in range(21):
        mixed = (1 - part / 20) * first + part / 20 * second
        losses.append(np.logaddexp(0, mixed) - label * mixed)
    best = min(losses, key=lambda loss: loss.mean())
    good = [
        part / 20 for part, loss in enumerate(losses) if (loss - best).mean() <= (loss - best).std() / examples**0.5
    ]
    chosen = best_weight(first, second, label)
    assert chosen == min(good, key=lambda weight: abs(weight - STEADY))
    assert abs(chosen - true) < 0.15


def test_more_values_than_cells_still_obey_the_law() -> None:
    inputs = replace(INPUTS, item={"item": 3_000, "category": 400})
    torch.manual_seed(0)
    model = build("tally", inputs, {"state": 512, "width": 4, "periods": [1, 3], "dropout": 0.0})
    assert isinstance(model, Tally)
    model = model.double().eval()
    batch = random_batch([500], targets=30, inputs=inputs)
    history = History(batch.history_BLF, batch.time_BL, batch.length_B)
    memory = model.initial_memory(1)
    for place in range(500):
        memory = model.write(memory, Event(batch.history_BLF[:, place], batch.time_BL[:, place]))
    encoded = model.encode(history, torch.tensor([[500]]))
    assert torch.equal(memory.cell_BKX, encoded.cell_BKX[:, 0])
    whole = model.encode(history, batch.position_BC)
    logit, _ = model.respond(whole, Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC))
    assert torch.allclose(logit, model(batch).logit_BCT, atol=1e-10)


def test_each_group_is_trained_with_factors_of_its_own_and_served_with_those_of_all() -> None:
    model, sizes = make(), {"item": (30, 32), "category": (6, 16)}
    whole, *apart = [
        {field: torch.randn(*size, dtype=torch.float64) for field, size in sizes.items()} for _ in range(GROUPS + 1)
    ]
    model.take_factors(whole, apart)
    batch = random_batch([40, 40, 30, 20], targets=3)
    served = model(batch).logit_BCT
    trained = model.train()(batch).logit_BCT
    for group in range(GROUPS):
        own = make().eval()
        own.take_factors(apart[group], [])
        wanted, mine_B = own(batch).logit_BCT, group_of(batch.user_B) == group
        torch.testing.assert_close(trained[mine_B], wanted[mine_B], rtol=0, atol=1e-12)
        assert not torch.allclose(trained[mine_B], served[mine_B], atol=1e-6)
    assert not any("apart" in name for name in model.state_dict())


def test_smaller_states_have_narrower_factors_and_logs_of_one_field_one() -> None:
    made = build("tally", replace(INPUTS, item={"item": 300}), {"state": 2048})
    assert isinstance(made, Tally)
    assert made.factor_widths == {"item": 16}
    assert made.initial_memory(1).sums_BXD.shape == (1, 2, 16)


@pytest.mark.parametrize(
    ("given", "periods"),
    [({}, (1, 9)), ({"state": 4095}, ()), ({"state": 1024, "periods": [1, 3]}, (1, 3)), ({"periods": []}, ())],
)
def test_smaller_states_have_no_slots_unless_they_are_named(given: dict[str, Any], periods: tuple[int, ...]) -> None:
    made = build("tally", INPUTS, given)
    # An artifact keeps what was chosen, whatever a later release would choose.
    assert made.periods == tuple(check_config("tally", given)["periods"]) == periods


@pytest.mark.parametrize(("given", "power"), [({}, 1.0), ({"state": 1024}, 1.5)])
def test_later_fields_of_a_small_state_leave_more_cells_to_the_item(given: dict[str, Any], power: float) -> None:
    inputs = replace(INPUTS, item={"item": 60_000, "category": 60_000})
    made = build("tally", inputs, given)
    first, second = made.plan.cells_F
    assert first / second == pytest.approx(2**power, rel=0.05)
    sizes = list(inputs.item.values())
    assert plan_of(check_config("tally", given), sizes, timed=True) == made.plan


def test_a_state_without_room_for_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match="set a larger state, or fewer or narrower slots"):
        build("tally", INPUTS, {"state": 512, "width": 64, "periods": [1, 9]})


def test_tally_has_five_settings_and_the_common_context() -> None:
    assert set(check_config("tally", {})) == {"state", "embedding", "width", "periods", "dropout"}
    assert check_config("tally", {"context": ["hour"]})["context"]
