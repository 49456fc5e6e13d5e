"""The public memory as a plain module, of which every parameter is of use."""

import torch
from torch import Tensor, nn

from lifelong.offline.nn import HpmnMemory


def make_hpmn(periods: tuple[int, ...] = (1, 2, 4), *, hops: int = 3, query_size: int | None = 4) -> HpmnMemory:
    torch.manual_seed(0)
    return HpmnMemory(6, query_size=query_size, width=5, periods=periods, hops=hops).double()


def test_hpmn_reads_queries_as_they_are_when_it_has_no_map_of_its_own() -> None:
    memory, mapped = make_hpmn(query_size=None), make_hpmn()
    mapped.load_state_dict(memory.state_dict(), strict=False)
    event_BLE, length_B = torch.randn(1, 9, 6, dtype=torch.float64), torch.tensor([7])
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
