"""HSTU against a naive transcription: loops over users, layers, heads and pairs of events, in float64."""

import pytest
import torch
from torch import Tensor

from lifelong.models import hstu
from lifelong.models.base import Query, Window
from lifelong.models.hstu import GAPS, Hstu, HstuConfig, gap_bucket
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS


def make(*, recent: int = 7, layers: int = 2, heads: int = 2) -> Hstu:
    torch.manual_seed(0)
    model = (
        Hstu(INPUTS, HstuConfig(embedding=2, head_width=3, heads=heads, layers=layers, recent=recent)).double().eval()
    )
    # Biases that matter.
    for layer in model.layers:
        torch.nn.init.normal_(layer.place_bias)
        torch.nn.init.normal_(layer.gap_bias)
    return model


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5)


def naive_bucket(seconds: int) -> int:
    return min(max(seconds, 0).bit_length(), GAPS - 1)


def naive_interest(model: Hstu, events: list[Tensor], times: list[int]) -> Tensor:
    """Equations 1-3, layer by layer, for the events before one target."""
    width = model.event.out_features
    x = [model.event.weight @ event + model.event.bias for event in events]
    band = (model.recent - 1) // len(model.layers) + 1
    for layer in model.layers:
        parts = [silu(layer.split.weight @ norm(state) + layer.split.bias) for state in x]
        u, v, q, k = ([part[i * width : (i + 1) * width] for part in parts] for i in range(4))
        y = []
        for i in range(len(x)):
            heads = []
            for head in range(model.config.heads):
                own = slice(3 * head, 3 * head + 3)
                seen = torch.zeros(3, dtype=torch.float64)
                for j in range(max(0, i - band + 1), i + 1):
                    bias = layer.place_bias[i - j] + layer.gap_bias[naive_bucket(times[i] - times[j])]
                    seen = seen + silu(q[i][own] @ k[j][own] + bias) * v[j][own]
                heads.append(seen)
            y.append(layer.join.weight @ (norm(torch.cat(heads)) * u[i]) + layer.join.bias)
        x = [state + added for state, added in zip(x, y, strict=True)]
    return x[-1] if x else torch.zeros(width, dtype=torch.float64)


def run(model: Hstu, event_BLE: Tensor, time_BL: Tensor, position_BC: Tensor) -> Tensor:
    number_BLF = torch.ones(*time_BL.shape, 4, dtype=torch.int64)
    target_BCE = torch.zeros(*position_BC.shape, model.target_width, dtype=torch.float64)
    number_BCF = torch.zeros(*position_BC.shape, 2, dtype=torch.int64)
    query = Query(target_BCE, number_BCF, torch.zeros_like(position_BC), position_BC)
    return model.find(Window(event_BLE, number_BLF, time_BL, position_BC.amax(1)), query).interest_BCD


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    position_BC = torch.tensor([[0, 3, 11], [1, 7, 4], [0, 0, 0]])
    time_BL = (2 ** (torch.rand(3, 11) * 30)).long().sort(dim=1).values
    time_BL[0, 5] = time_BL[0, 4]
    return torch.randn(3, 11, 8, dtype=torch.float64).requires_grad_(), time_BL, position_BC


@pytest.mark.parametrize(("recent", "layers", "heads"), [(1, 1, 1), (7, 2, 2), (30, 3, 1), (512, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize(("block", "numbers_at_once"), [(64, 2**22), (4, 2**22), (1, 1), (3, 1)])
def test_interest_is_that_of_the_paper_in_value_and_gradient(
    recent: int, layers: int, heads: int, block: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hstu, "BLOCK", block)
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model = make(recent=recent, layers=layers, heads=heads)
    event_BLE, time_BL, position_BC = drawn()
    weight_BCD = torch.randn(3, 3, 3 * heads, dtype=torch.float64)
    naive_BCD = torch.stack(
        [
            torch.stack([naive_interest(model, list(event_BLE[b, :n]), time_BL[b, :n].tolist()) for n in row])
            for b, row in enumerate(position_BC.tolist())
        ]
    )
    found_BCD = run(model, event_BLE, time_BL, position_BC)
    torch.testing.assert_close(found_BCD, naive_BCD, rtol=0, atol=1e-11)
    leaves = [event_BLE, *model.event.parameters(), *model.layers.parameters()]
    gradients = [torch.autograd.grad((weight_BCD * value).sum(), leaves) for value in (found_BCD, naive_BCD)]
    for found_grad, naive_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(found_grad, naive_grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_stack_sees_exactly_the_last_recent_events(layers: int) -> None:
    model, (event_BLE, time_BL, _) = make(recent=7, layers=layers), drawn()
    position_BC = torch.full((3, 1), 11)
    (seen_BLE,) = torch.autograd.grad(run(model, event_BLE, time_BL, position_BC).sum(), event_BLE)
    assert seen_BLE.ne(0).any(-1).tolist() == [[False] * 4 + [True] * 7] * 3


def test_the_order_of_times_before_the_recent_events_changes_nothing() -> None:
    model, (event_BLE, time_BL, _) = make(), drawn()
    position_BC, other_BL = torch.full((3, 1), 11), time_BL.clone()
    other_BL[:, :4] = -5
    assert torch.equal(run(model, event_BLE, time_BL, position_BC), run(model, event_BLE, other_BL, position_BC))


def test_gaps_fall_into_buckets_of_powers_of_two() -> None:
    seconds = [-5, 0, 1, 2, 3, 4, *(2**k + edge for k in range(3, 50) for edge in (-1, 0, 1))]
    assert gap_bucket(torch.tensor(seconds)).tolist() == [naive_bucket(value) for value in seconds]
