"""HSTU against a naive transcription: loops over users, layers, heads and pairs of events, in float64."""

import pytest
import torch
from finding import assert_naive_agrees, inputs_of
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.offline.nn import chunks
from lifelong.testing.worlds import INPUTS
from lifelong.zoo import hstu
from lifelong.zoo.hstu import GAPS, Hstu, HstuConfig, gap_bucket


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


def naive(model: Hstu, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Equations 1-3, layer by layer, for the events before one target."""
    position = int(query.position_BC[user, target])
    events, times = window.vector_BLE[user, :position], window.time_BL[user].tolist()
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


def drawn(model: Hstu, lengths: tuple[int, ...] = (11, 7, 0, 1)) -> tuple[Window, Query]:
    """Gaps of all sizes, one of them none."""
    window, query = inputs_of(model, lengths, size=11)
    generator = torch.Generator().manual_seed(1)
    time_BL = (2 ** (torch.rand(window.time_BL.shape, generator=generator) * 30)).long().sort(dim=1).values
    time_BL[0, 5] = time_BL[0, 4]
    return window._replace(time_BL=time_BL), query


@pytest.mark.parametrize(("recent", "layers", "heads"), [(1, 1, 1), (7, 2, 2), (30, 3, 1), (512, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize(("block", "numbers_at_once"), [(64, 2**22), (4, 2**22), (1, 1), (3, 1)])
def test_interest_is_that_of_the_paper_in_value_and_gradient(
    recent: int, layers: int, heads: int, block: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hstu, "BLOCK", block)
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model = make(recent=recent, layers=layers, heads=heads)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *drawn(model))


def test_the_order_of_times_before_the_recent_events_changes_nothing() -> None:
    model = make()
    window, query = drawn(model, (11, 11))
    other_BL = window.time_BL.clone()
    other_BL[:, :4] = -5
    found, other = (model.find(one, query).interest_BCD[:, -1] for one in (window, window._replace(time_BL=other_BL)))
    assert torch.equal(found, other)


def test_gaps_fall_into_buckets_of_powers_of_two() -> None:
    seconds = [-5, 0, 1, 2, 3, 4, *(2**k + edge for k in range(3, 50) for edge in (-1, 0, 1))]
    assert gap_bucket(torch.tensor(seconds)).tolist() == [naive_bucket(value) for value in seconds]
