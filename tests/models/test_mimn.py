"""MIMN against a naive transcription of its equations: loops over users, events and slots, in float64."""

import pytest
import torch
from finding import assert_memory_agrees
from torch import Tensor, nn

from lifelong.testing.worlds import INPUTS
from lifelong.zoo.mimn import Mimn, MimnConfig, MimnMemory

LENGTHS = (9, 0, 1, 4)
WIDTH, SLOTS = 5, 4


def make(*, channels: int = 2, utilisation: float = 0.5) -> Mimn:
    torch.manual_seed(0)
    own = {"slots": SLOTS, "channels": channels, "utilisation": utilisation}
    return Mimn(INPUTS, MimnConfig(embedding=3, width=WIDTH, dropout=0.0, **own)).double().eval()


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def softmax(scores: list[Tensor]) -> list[Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def naive_gru(cell: nn.Module, given: Tensor, x: Tensor, h: Tensor) -> Tensor:
    r_x, u_x, n_x = (given + cell.of_input.weight @ x).chunk(3)
    r_h, u_h, n_h = linear(cell.of_state, h).chunk(3)
    u = sigmoid(u_x + u_h)
    return (1 - u) * torch.tanh(n_x + sigmoid(r_x + r_h) * n_h) + u * h


def naive_weights(model: Mimn, key: Tensor, strength: Tensor, slots: list[Tensor]) -> list[Tensor]:
    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b) / torch.sqrt((a @ a + 1e-3) * (b @ b + 1e-3))

    beta = 2 * (1 + torch.log(1 + torch.exp(strength)))
    return softmax(
        [beta * (cosine(key, own) + cosine(key, slot)) / 2 for own, slot in zip(model.key_SD, slots, strict=True)]
    )


def naive_state(model: Mimn, events: list[Tensor]) -> dict[str, Tensor]:
    """M, S, g, the controller and the last read after the events."""
    slots, channels = [zeros(WIDTH) for _ in range(SLOTS)], [zeros(WIDTH) for _ in range(SLOTS)]
    total, hidden, read = zeros(SLOTS), zeros(WIDTH), zeros(WIDTH)
    for count, event in enumerate(events):
        to_controller, to_induction = linear(model.event_part, event).chunk(2)
        hidden = naive_gru(model.controller, to_controller, read, hidden)
        parts = linear(model.parts, hidden)
        read_key, write_key, erase, add = parts[: 4 * WIDTH].chunk(4)
        w_r = naive_weights(model, read_key, parts[4 * WIDTH], slots)
        w_w = naive_weights(model, write_key, parts[4 * WIDTH + 1], slots)
        transfer = linear(model.rebalance, total / count if count else total).view(SLOTS, SLOTS)
        rows = [softmax(list(row)) for row in transfer]
        w = [sum(w_w[i] * rows[i][j] for i in range(SLOTS)) for j in range(SLOTS)]
        total = total + torch.stack(w)
        for i in sorted(range(SLOTS), key=lambda i: float(w_r[i].detach()), reverse=True)[: model.channels]:
            channels[i] = naive_gru(model.induction, to_induction, slots[i], channels[i])
        read = sum((w_r[i] * slots[i] for i in range(SLOTS)), zeros(WIDTH))
        slots = [(1 - w[i] * sigmoid(erase)) * slots[i] + w[i] * torch.tanh(add) for i in range(SLOTS)]
    used = total / max(1, len(events))
    return {"slot": torch.stack(slots), "channel": torch.stack(channels), "used": used, "hidden": hidden, "last": read}


def naive_interest(model: Mimn, state: dict[str, Tensor], target: Tensor) -> Tensor:
    parts, query, score = linear(model.read_key, target), linear(model.query, target), model.score
    weights = naive_weights(model, parts[:WIDTH], parts[WIDTH], list(state["slot"]))
    scores = []
    for entry in state["channel"]:
        x = torch.relu(linear(score.first, torch.cat([query, entry, query - entry, query * entry])))
        scores.append(linear(score.last, torch.relu(linear(score.second, x)))[0])
    attention = softmax(scores)
    read = sum((w * m for w, m in zip(weights, state["slot"], strict=True)), zeros(WIDTH))
    induced = sum((a * s for a, s in zip(attention, state["channel"], strict=True)), zeros(WIDTH))
    return torch.cat([read, induced])


@pytest.mark.parametrize("channels", [1, 2, SLOTS])
def test_state_and_interest_are_the_naive_loop_in_value_and_gradient(channels: int) -> None:
    model = make(channels=channels)

    def naive(events: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        state = naive_state(model, events)
        return {**state, "interest": naive_interest(model, state, target)}

    assert_memory_agrees(model, naive, atol=1e-10)


def test_more_channels_than_slots_are_all_slots() -> None:
    model = make(channels=99)
    memory = model.write_vector(model.initial_memory(1), torch.randn(1, model.event_width).double())
    assert bool(memory.channel_BSD.ne(0).any(dim=-1).all())


def test_use_of_the_slots_is_a_mean_and_does_not_grow_with_the_history() -> None:
    model = make()
    event_BLE = torch.randn(1, 300, model.event_width, dtype=torch.float64)
    memory = model.encode_vector(event_BLE, torch.tensor([300]), torch.tensor([[1, 300]]))
    torch.testing.assert_close(memory.used_BS.sum(dim=-1), torch.ones(1, 2, dtype=torch.float64))


def test_utilisation_is_the_weighted_variance_over_slots_at_labelled_positions() -> None:
    model = make(utilisation=0.5)
    empty = model.initial_memory(1)
    used_BCS = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.0, 0.0, 1.0, 0.0]]])
    memory = MimnMemory(*(value.unsqueeze(1) for value in empty))._replace(used_BS=used_BCS)
    loss = model.auxiliary(memory, torch.tensor([[True, True, False]]))["utilisation"]
    # Squared distances from 1/4: 9/16 + 3/16, and 0.
    assert loss.item() == pytest.approx(0.5 * (0.75 + 0.0) / 2)


def test_pooled_the_head_also_gets_means_and_their_products_with_the_target() -> None:
    torch.manual_seed(0)
    model = Mimn(INPUTS, MimnConfig(embedding=3, width=WIDTH, slots=SLOTS, pooled=True)).double().eval()
    events, target_BCE = torch.randn(1, 5, model.event_width).double(), torch.randn(1, 1, model.target_width).double()
    memory = model.encode_vector(events, torch.tensor([5]), torch.tensor([[5]]))
    interest, _ = model.read_vector(memory, target_BCE)
    mean = events[0, :, : model.target_width].mean(dim=0)
    key = model.read_key(target_BCE[0, 0])[:WIDTH]
    wanted = torch.cat([mean, mean * target_BCE[0, 0], memory.slot_BSD[0, 0].mean(dim=0) * key])
    torch.testing.assert_close(interest[0, 0, 2 * WIDTH :], wanted)
