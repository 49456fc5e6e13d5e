"""Tally against a naive transcription: loops over users, events, fields and slots, in float64."""

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from lifelong.artifact.graphs import memory_layout
from lifelong.data.cell_plan import CellScale, key_of, plan_of
from lifelong.data.cooccurrence import GROUPS, group_of
from lifelong.errors import ConfigError
from lifelong.memory.codec import make_codec
from lifelong.models import build, check_config
from lifelong.models.base import Event, History, Target
from lifelong.models.tally import STEADY, Tally, TallyHead, best_weight
from lifelong.nn.tally import FEATURES, KINDS
from lifelong.testing.worlds import INPUTS, random_batch

pytestmark = pytest.mark.torch
HALF_LIVES = (10, 50, 250, 1250)
DAYS = (7, 60)
POPULARITY = {"item": np.arange(30.0)[::-1], "category": np.array([0.0, 0, 9, 4, 400, 22])}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make(**settings: object) -> Tally:
    torch.manual_seed(0)
    model = build(
        "tally",
        INPUTS,
        {"embedding": 3, "width": 4, "periods": [1, 3], "dropout": 0.0, "steady": 0.4, "factors": [5, 3], **settings},
    )
    assert isinstance(model, Tally)
    model = model.double().eval()
    model.learn_popularity(POPULARITY)
    if model.head.match is not None:
        # They start at zero.
        nn.init.normal_(model.head.match.wanted.weight)
    return model


def vector(model: Tally, numbers: list[int], fields: tuple[str, ...]) -> Tensor:
    return torch.cat(
        [model.embed.tables[name].weight[number][:3] for name, number in zip(fields, numbers, strict=True)]
    )


def naive_slots(model: Tally, events: list[list[int]]) -> list[Tensor]:
    slots = [torch.zeros(4, dtype=torch.float64) for _ in model.config.periods]
    for count, event in enumerate(events, start=1):
        x = vector(model, event, model.history_fields)
        for j, period in enumerate(model.config.periods):
            if count % period:
                break
            layer = model.memory.slots.layers[j]
            assert isinstance(layer, nn.GRU)
            cell = nn.GRUCell(layer.input_size, layer.hidden_size, dtype=torch.float64)
            for own, theirs in zip(cell.parameters(), layer.parameters(), strict=True):
                own.data.copy_(theirs.data)
            x = slots[j] = cell(x.unsqueeze(0), slots[j].unsqueeze(0))[0]
    return slots


def naive_times(events: list[list[int]]) -> list[int]:
    """When each event was, by the buckets of the gaps; the first number is before all events."""
    times = [0]
    for *_, gap in events:
        times.append(min(times[-1] + (int(1.45 * 2 ** (gap - 3)) if gap > 2 else 0), 2**31 - 1))
    return times


def naive_seconds(times: list[int], event: int) -> float:
    """From the n-th event to the last one, by the nearest of all marks before and behind it."""
    now = len(times) - 1
    marks = {max(now // 2**level - back, 0) * 2**level for level in range(17) for back in (0, 1)} | {now}
    first, last = max(mark for mark in marks if mark <= event), min(mark for mark in marks if mark >= event)
    share = (event - first) / max(last - first, 1)
    return times[now] - times[first] - share * (times[last] - times[first])


def naive_count(hits: list[int]) -> int:
    """The count that a cell keeps of events with these numbers: 1, 2 ... 8, 10 ... 16, 20, 24, 28."""
    times = 0
    for number in hits:
        rise = 1 if times < 8 else 2 if times < 16 else 4
        times += rise if times < 28 and number % rise == 0 else 0
    return times


def naive_counts(model: Tally, events: list[list[int]], target: list[int]) -> list[float]:
    """What a read sees of counts where every value has a cell: counts and ages on the scale."""
    features: list[float] = []
    kinds: list[float] = []
    popular: list[float] = []
    more: list[float] = []
    clock = naive_times(events)
    for place in range(len(model.item_fields)):
        hits = [at for at, event in enumerate(events, start=1) if event[place] == target[place] > 1]
        key = max(target[place] - 2, 0)
        rank = math.log(1 + key) / math.log(list(model.inputs.item.values())[place])
        asked = POPULARITY[model.item_fields[place]]
        share = (asked[target[place]] + 1) / asked.sum()
        popular.append(math.log(share * len(asked)) / 3)
        met = naive_count(hits)
        more.append(math.log(1 + met) - math.log(1 + share * len(events)))
        if not hits:
            features += [0.0] * 5 + [rank] + [0.0] * 6
            kinds += model.memory.counts.kind.weight[place * KINDS].tolist()
            continue
        step = 0
        for now in range(hits[-1] + 1, len(events) + 1):
            step += now % 2 ** (step // 2) == 0
        age, times = CellScale.COARSE.ages()[step], math.log(1 + met)
        above = sum(met >= first for first in (2, 3, 4, 6, 9, 14, 25, 60))
        kinds += model.memory.counts.kind.weight[place * KINDS + 2 + above * 32 + step].tolist()
        seconds = naive_seconds(clock, len(events) - age)
        features += [1.0, 0.0, times, math.log(1 + age) / 4, math.log(1 + seconds / 3600) / 4, rank]
        features += [times * 2 ** (-age / half_life) for half_life in HALF_LIVES]
        features += [times * 2 ** (-seconds / 86400 / days) for days in DAYS]
    weighted: list[float] = []
    for place, name in enumerate(model.item_fields):
        weight = model.embed.tables[name].weight.detach()[target[place]][3:15]
        weighted.append(sum(float(w) * c for w, c in zip(weight, features[12 * place : 12 * place + 12], strict=True)))
    older = [max(len(events) // 2**level - 1, 0) * 2**level for level in range(17)]
    pace = [math.log(1 + (clock[-1] - clock[mark]) / 3600) / 4 for mark in older]
    return [
        *(*features, *kinds, *popular, *more, math.log(1 + len(events)) / 4, *pace, *naive_repeats(events)),
        *(*naive_affinities(model, events, target), *weighted),
    ]


def naive_repeats(events: list[list[int]]) -> list[float]:
    """Shares of events with an item that was met before: of all, and a mean that forgets 1/64 an event."""
    items = [event[0] for event in events]
    repeats = [item > 1 and item in items[:at] for at, item in enumerate(items)]
    total = recent = weight = 0.0
    for met in repeats:
        # A fixed-point number with 16 bits behind the point, rounded down.
        recent += math.floor((met * 65_536 - recent) / 64)
        weight += (1 - weight) / 64
        total += met
    share = recent / 65_536 / weight if events else 0.0
    return [2 * total / max(len(events), 1) - 1, 2 * share - 1]


def naive_affinities(model: Tally, events: list[list[int]], target: list[int]) -> list[float]:
    """Cosines of the target's factors with sums of the events', then how much of it there was."""
    cosines, amounts = [], []
    for place, field in enumerate(model.item_fields):
        factor_VD = model.embed.factors[field].numpy()
        for half_life in (math.inf, 100.0):
            total = np.zeros(factor_VD.shape[1])
            for age, event in enumerate(reversed(events)):
                total += 2 ** (-age / half_life) * factor_VD[event[place]]
            product, length = float(total @ factor_VD[target[place]]), float(np.linalg.norm(total))
            cosines.append(product / length if length else 0.0)
            amounts.append(math.copysign(math.log(1 + abs(product)) / 2, product))
    return [*cosines, *amounts]


def naive_logit(model: Tally, events: list[list[int]], target: list[int], context: list[int]) -> Tensor:
    counted = torch.tensor(naive_counts(model, events, target), dtype=torch.float64)
    of_target = vector(model, target, model.item_fields)
    query = model.memory.slots.reader.query(torch.cat([of_target, counted]))
    weights, total = [], 0.0
    slots = naive_slots(model, events)
    for slot, period in zip(slots, model.config.periods, strict=True):
        score = (
            model.memory.slots.reader.scores[0](query, slot.unsqueeze(0))[0].exp()
            if len(events) >= period
            else torch.zeros(())
        )
        weights.append(score)
        total = total + score
    found = sum((w / total * slot for w, slot in zip(weights, slots, strict=True) if w > 0), torch.zeros(4))
    assert isinstance(found, Tensor)
    of_context = torch.cat(
        [model.embed.tables[name].weight[n] for name, n in zip(model.context_fields, context, strict=True)]
    )
    assert isinstance(model.head, TallyHead)
    first = model.head.head.layers(torch.cat([found, query * found, counted, of_target, of_context]))
    first = first + model.head.direct.weight @ counted[-2:]
    if model.head.match is not None:
        first = first + (model.head.match.wanted.weight @ of_context) @ of_target
    second = model.head.counter.layers(torch.cat([counted[:-2], of_context]))
    logit: Tensor = 0.6 * first + 0.4 * second
    return logit


@pytest.mark.parametrize("settings", [{}, {"products": False}])
def test_logits_are_those_of_loops_over_events_fields_and_slots(settings: dict[str, object]) -> None:
    model = make(**settings)
    assert (model.head.match is None) == ("products" in settings)
    batch = random_batch([60, 2, 0, 1, 90], targets=4)
    whole = model(batch).logit_BCT
    for user in range(5):
        for target in range(4):
            events = batch.history_BLF[user, : int(batch.position_BC[user, target])].tolist()
            wanted = naive_logit(
                model, events, batch.target_BCF[user, target].tolist(), batch.context_BCF[user, target].tolist()
            )
            assert torch.allclose(whole[user, target], wanted, atol=1e-10), (user, target)


@pytest.mark.parametrize("state", [512, 1024, 4096, 16_384])
@pytest.mark.parametrize("periods", [[1, 3, 9, 27], []])
def test_a_memory_takes_no_more_bytes_than_its_state(state: int, periods: list[int]) -> None:
    model = build("tally", random_inputs(), {"state": state, "periods": periods, "width": 8})
    assert isinstance(model, Tally)
    layout = memory_layout(model)
    size = make_codec("fp32", layout).size - make_codec("fp32", []).size
    assert state - 32 < size <= state


def random_inputs() -> object:
    from dataclasses import replace

    return replace(INPUTS, item={"item": 90_000, "category": 5_000})


def test_without_slots_it_counts_alone_and_the_law_holds() -> None:
    model = make(periods=[], state=900, faded=0.2)
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


@pytest.mark.parametrize("settings", [{}, {"periods": []}, {"factors": []}])
def test_both_heads_see_counts_at_mean_0_and_deviation_1_and_embeddings_as_they_are(
    settings: dict[str, object],
) -> None:
    model, batch = make(**settings), random_batch([60, 2, 0, 25], targets=6)
    fields, seen = len(INPUTS.item), dict[int, Tensor]()
    kinds = fields * model.memory.counts.kind.embedding_dim
    counts = model.memory.counts.size + (model.memory.affinity.size if model.memory.affinity else 0)
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


@pytest.mark.parametrize("settings", [{}, {"periods": []}, {"factors": []}, {"products": False}])
def test_targets_of_one_moment_share_its_read_in_value_and_gradient(settings: dict[str, object]) -> None:
    from dataclasses import replace

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


def test_the_weight_of_the_second_head_is_chosen_on_validation_unless_it_is_set() -> None:
    batch = random_batch([60, 2, 0, 25], targets=6)
    label = np.random.default_rng(0).integers(0, 2, (*batch.mask_BC.shape, 1))

    def predict(model: Tally) -> np.ndarray:
        return model(batch).logit_BCT.detach().numpy()

    model = make(steady=None)
    assert float(model.head.steady) == STEADY
    first, second = (member.detach().numpy() for member in model(batch).members)
    wanted = best_weight(first, second, label)
    found = model.validated(lambda: predict(model), label)
    assert float(model.head.steady) == wanted
    np.testing.assert_allclose(found, (1 - wanted) * first + wanted * second, rtol=0, atol=1e-12)
    np.testing.assert_allclose(predict(model), found, rtol=0, atol=1e-12)
    given = make(steady=0.4)
    assert np.array_equal(given.validated(lambda: predict(given), label), predict(given))
    assert float(given.head.steady) == 0.4
    # Of an earlier release, where it was a setting alone.
    earlier = {name: value for name, value in given.state_dict().items() if name != "head.steady"}
    other = make(steady=0.4)
    other.load_state_dict(earlier)
    assert float(other.head.steady) == 0.4


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
    from dataclasses import replace

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
    assert torch.equal(memory.faded_BW, encoded.faded_BW[:, 0])
    whole = model.encode(history, batch.position_BC)
    logit, _ = model.respond(whole, Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC))
    assert torch.allclose(logit, model(batch).logit_BCT, atol=1e-10)


def test_each_group_is_trained_with_factors_of_its_own_and_served_with_those_of_all() -> None:
    model, sizes = make(), {"item": (30, 5), "category": (6, 3)}
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
    from dataclasses import replace

    made = build("tally", replace(INPUTS, item={"item": 300}), {"state": 2048})
    assert isinstance(made, Tally)
    assert made.factor_widths == {"item": 16}
    assert made.initial_memory(1).sums_BKD.shape == (1, 2, 16)


@pytest.mark.parametrize(
    ("given", "periods"),
    [({}, (1, 9)), ({"state": 4095}, ()), ({"state": 1024, "periods": [1, 3]}, (1, 3)), ({"periods": []}, ())],
)
def test_smaller_states_have_no_slots_unless_they_are_named(given: dict[str, Any], periods: tuple[int, ...]) -> None:
    made = build("tally", INPUTS, given)
    # An artifact keeps what was chosen, whatever a later release would choose.
    assert made.periods == tuple(check_config("tally", given)["periods"]) == periods


@pytest.mark.parametrize(
    ("given", "power"),
    [({}, 1.0), ({"state": 1024}, 1.5), ({"state": 1024, "scale": "fine"}, 1.0), ({"shares": [1.0, 2.0]}, None)],
)
def test_later_fields_of_a_small_state_leave_more_cells_to_the_item(given: dict[str, Any], power: float | None) -> None:
    from dataclasses import replace

    inputs = replace(INPUTS, item={"item": 60_000, "category": 60_000})
    made = build("tally", inputs, given)
    first, second = made.counts.plan.cells_F
    assert first / second == pytest.approx(0.5 if power is None else 2**power, rel=0.05)
    assert plan_of(check_config("tally", given), inputs) == made.counts.plan


def test_a_state_without_room_for_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match="set a larger state, or fewer or narrower slots"):
        build("tally", INPUTS, {"state": 512, "width": 64, "periods": [1, 9]})


def test_keys_of_unknown_values_are_none_and_known_ones_are_those_of_the_plan() -> None:
    model = make()
    numbers = torch.tensor([[0, 1], [2, 5]])
    assert model.split.keys(model.embed(numbers, model.item_fields)).tolist() == [[-1, -1], [key_of(2), key_of(5)]]
