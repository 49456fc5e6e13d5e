"""The public memories as plain modules: `forward` is `step` over whole histories, and every parameter is of use."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.nn import HpmnMemory

nested = st.lists(st.integers(2, 4), max_size=3).map(
    lambda ratios: tuple(math.prod(ratios[:size]) for size in range(len(ratios) + 1))
)
lengths = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def make_hpmn(periods: tuple[int, ...] = (1, 2, 4), *, hops: int = 3, query_size: int | None = 4) -> HpmnMemory:
    torch.manual_seed(0)
    return HpmnMemory(6, query_size=query_size, width=5, periods=periods, hops=hops).double()


def dirty(value: Tensor, length_B: Tensor, filling: float) -> Tensor:
    """Something that nobody may look at, in place of padding."""
    padding_BL = torch.arange(value.shape[1]) >= length_B.unsqueeze(1)
    return value.masked_fill(padding_BL.view(*padding_BL.shape, *[1] * (value.dim() - 2)), filling)


def random_events(sizes: list[int], seed: int) -> tuple[Tensor, Tensor]:
    generator, length_B = torch.Generator().manual_seed(seed), torch.tensor(sizes)
    return torch.randn(len(sizes), max(sizes) + 2, 6, generator=generator, dtype=torch.float64), length_B


@settings(max_examples=25, deadline=None)
@given(periods=nested, sizes=lengths, seed=st.integers(0, 99))
def test_hpmn_forward_equals_folded_steps_in_value_and_gradient(
    periods: tuple[int, ...], sizes: list[int], seed: int
) -> None:
    memory = make_hpmn(periods)
    event_BLE, length_B = random_events(sizes, seed)
    weight_SD = torch.randn(len(periods), 5, dtype=torch.float64)
    found = []
    for form in ("forward", "step"):
        leaf = event_BLE.clone().requires_grad_()
        if form == "forward":
            at = memory(dirty(leaf, length_B, float("nan")), length_B, length_B.unsqueeze(1))
            slot_BSD, counts = at.slot_BSD[:, 0], at.count_B[:, 0]
        else:
            kept = [memory.initial(1) for _ in sizes]
            for user, size in enumerate(sizes):
                for place in range(size):
                    kept[user] = memory.step(kept[user], leaf[user : user + 1, place])
            slot_BSD, counts = (torch.cat(part) for part in reversed(list(zip(*kept, strict=True))))
        assert counts.tolist() == sizes
        wanted = [leaf, *memory.layers.parameters()]
        loss = (slot_BSD * weight_SD).sum() + 0 * sum(part.sum() for part in wanted)
        found.append([slot_BSD.detach(), *torch.autograd.grad(loss, wanted)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_hpmn_reads_queries_as_they_are_when_it_has_no_map_of_its_own() -> None:
    memory, mapped = make_hpmn(query_size=None), make_hpmn()
    mapped.load_state_dict(memory.state_dict(), strict=False)
    event_BLE, length_B = random_events([7], 1)
    at, target_BCQ = memory(event_BLE, length_B, length_B.unsqueeze(1)), torch.randn(1, 3, 4, dtype=torch.float64)
    query_BCD = mapped.reader.query(target_BCQ)
    for one, other in zip(memory.read(at, query_BCD), mapped.read(at, target_BCQ), strict=True):
        assert torch.equal(one, other)


class Ranker(nn.Module):
    """Somebody's own model: tables, a memory, a head."""

    def __init__(self, memory: HpmnMemory, interest: int) -> None:
        super().__init__()
        self.item, self.act, self.memory = nn.Embedding(30, 4), nn.Embedding(3, 2), memory
        self.head = nn.Linear(interest + 4, 1)

    def forward(self, item_BL: Tensor, act_BL: Tensor, length_B: Tensor, target_BC: Tensor) -> Tensor:
        event_BLE, target_BCQ = torch.cat([self.item(item_BL), self.act(act_BL)], dim=-1), self.item(target_BC)
        position_BC = length_B.unsqueeze(1).expand_as(target_BC)
        at = self.memory(event_BLE, length_B, position_BC)
        interest_BCD, _ = self.memory.read(at, target_BCQ)
        logit_BC: Tensor = self.head(torch.cat([interest_BCD, target_BCQ], dim=-1)).squeeze(-1)
        return logit_BC


def test_a_ranker_of_ones_own_learns_with_every_parameter_of_the_memory() -> None:
    memory = make_hpmn()
    ranker = Ranker(memory, 5).double()
    item_BL, act_BL, length_B = torch.randint(0, 30, (8, 12)), torch.randint(0, 3, (8, 12)), torch.arange(1, 9)
    target_BC = torch.cat([item_BL[:, :1], (item_BL[:, :1] + 1) % 30], dim=1)
    label_BC = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(8, -1)
    optimiser, losses = torch.optim.Adam(ranker.parameters(), lr=0.02), []
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(ranker(item_BL, act_BL, length_B, target_BC), label_BC)
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < losses[0] / 2, losses
    assert all(part.grad is not None for part in memory.parameters())
