"""Heads of several tasks, in place of the shared bottom: what tasks share, and what each has for itself.

    shared   x -> 200 -> 80 -> one logit per task
    mmoe     experts E_1 .. E_n of x;  task t: tower_t(sum_e softmax(G_t x)_e E_e(x))
    ple      level 1: experts of each task and shared ones; a gate of each task over its own and the shared experts, and
             one of the shared stream over all; level 2 likewise, for the tasks alone, from what level 1 gave; towers
    esmm     tasks are steps of a funnel, the first before the second: P(step k) = product over j <= k of
             sigmoid(tower_j(x)), each trained on all examples and not on those alone that took the step before

Experts are x -> 64 with ELU, towers 64 -> 32 -> 1 with ELU and dropout (those of `esmm` read x -> 64). ESMM's logit is
the logit of the product: 1 / P - 1 multiplies out, so that no probability is made and nothing is lost near 0 and 1.

Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018,
equations 4-6; Tang et al., "Progressive Layered Extraction", RecSys 2020, equations 4-9; Ma et al., "Entire Space
Multi-Task Model", SIGIR 2018, equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EXPERT, TOWER = 64, 32
"""Widths of an expert and of a tower's hidden layer."""
EXPERTS = 4
"""How many experts `mmoe` has."""
OWN, SHARED = 2, 2
"""How many experts each task has of its own in `ple`, and how many are shared."""


class TaskHead(nn.Module):
    """A head of several tasks.

    Args:
        width: width of interest, target and context together.
        tasks: number of logits, at least 2.
        dropout: probability of dropping a hidden unit.

    >>> Mmoe(6, tasks=2, dropout=0.1)(torch.randn(4, 1), torch.randn(4, 2), torch.randn(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, width: int, tasks: int, *, dropout: float) -> None:
        super().__init__()
        self.tasks = tasks
        self.towers: nn.ModuleList = nn.ModuleList(_tower(dropout) for _ in range(tasks))

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` from parts with equal leading axes."""
        streams = self.streams(torch.cat([interest, target, context], dim=-1))
        return torch.cat([tower(of) for tower, of in zip(self.towers, streams, strict=True)], dim=-1)

    def streams(self, x: Tensor) -> list[Tensor]:
        """The input of each task's tower."""
        raise NotImplementedError


class Mmoe(TaskHead):
    """MMoE: experts that all tasks share, and a gate for each task. Source: Ma et al., KDD 2018, equations 4-6."""

    def __init__(self, width: int, tasks: int, *, dropout: float) -> None:
        super().__init__(width, tasks, dropout=dropout)
        self.experts: nn.ModuleList = nn.ModuleList(_expert(width) for _ in range(EXPERTS))
        self.gates: nn.ModuleList = nn.ModuleList(nn.Linear(width, EXPERTS, bias=False) for _ in range(tasks))

    def streams(self, x: Tensor) -> list[Tensor]:
        """The experts, mixed by each task's gate."""
        expert = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return [_mixture(gate(x), expert) for gate in self.gates]


class Ple(TaskHead):
    """PLE: experts of each task and shared ones, on two levels. Source: Tang et al., RecSys 2020, equations 4-9."""

    def __init__(self, width: int, tasks: int, *, dropout: float) -> None:
        super().__init__(width, tasks, dropout=dropout)
        self.first: _Extraction = _Extraction(width, tasks, shared_gate=True)
        self.second: _Extraction = _Extraction(EXPERT, tasks, shared_gate=False)

    def streams(self, x: Tensor) -> list[Tensor]:
        """The tasks' streams after the second level."""
        streams: list[Tensor] = self.second(self.first([x] * (self.tasks + 1)))
        return streams


class _Extraction(nn.Module):
    """One level of PLE: from the streams of all tasks, and the shared one last, to those of the next level."""

    def __init__(self, width: int, tasks: int, *, shared_gate: bool) -> None:
        super().__init__()
        self.own: nn.ModuleList = nn.ModuleList(nn.ModuleList(_expert(width) for _ in range(OWN)) for _ in range(tasks))
        self.shared: nn.ModuleList = nn.ModuleList(_expert(width) for _ in range(SHARED))
        self.gates: nn.ModuleList = nn.ModuleList(nn.Linear(width, OWN + SHARED, bias=False) for _ in range(tasks))
        self.shared_gate: nn.Linear | None = nn.Linear(width, tasks * OWN + SHARED, bias=False) if shared_gate else None

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        *of_tasks, common = streams
        shared = [expert(common) for expert in self.shared]
        own = [_experts(experts, x) for experts, x in zip(self.own, of_tasks, strict=True)]
        mixed = [
            _mixture(gate(x), torch.stack([*mine, *shared], dim=-2))
            for gate, x, mine in zip(self.gates, of_tasks, own, strict=True)
        ]
        if self.shared_gate is not None:
            every = [one for mine in own for one in mine]
            mixed.append(_mixture(self.shared_gate(common), torch.stack([*every, *shared], dim=-2)))
        return mixed


class Esmm(TaskHead):
    """ESMM: a tower for each step of a funnel, given the step before. Source: Ma et al., SIGIR 2018, equation 3."""

    def __init__(self, width: int, tasks: int, *, dropout: float) -> None:
        super().__init__(width, tasks, dropout=dropout)
        self.bottoms: nn.ModuleList = nn.ModuleList(_expert(width) for _ in range(tasks))

    def streams(self, x: Tensor) -> list[Tensor]:
        """A stream for each step."""
        return [bottom(x) for bottom in self.bottoms]

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` of having come as far as each step."""
        step = super().forward(interest, target, context)
        reached = [step[..., :1]]
        for place in range(1, self.tasks):
            reached.append(both(reached[-1], step[..., place : place + 1]))
        return torch.cat(reached, dim=-1)


def both(first: Tensor, second: Tensor) -> Tensor:
    """The logit of sigmoid(first) * sigmoid(second): -log(e^-a + e^-b + e^-(a + b)).

    >>> torch.sigmoid(both(torch.tensor(0.0), torch.tensor(0.0)))
    tensor(0.2500)
    """
    parts = torch.stack([-first, -second, -first - second])
    return -torch.logsumexp(parts, dim=0)


def _expert(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, EXPERT), nn.ELU())


def _tower(dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(EXPERT, TOWER), nn.ELU(), nn.Dropout(dropout), nn.Linear(TOWER, 1))


def _experts(experts: nn.Module, x: Tensor) -> list[Tensor]:
    assert isinstance(experts, nn.ModuleList)
    return [expert(x) for expert in experts]


def _mixture(gate: Tensor, expert: Tensor) -> Tensor:
    """Experts `[..., E, D]` by the softmax of their scores `[..., E]`."""
    return (torch.softmax(gate, dim=-1).unsqueeze(-1) * expert).sum(dim=-2)


HEADS: dict[str, type[TaskHead] | None] = {"shared": None, "mmoe": Mmoe, "ple": Ple, "esmm": Esmm}
"""Name -> head; None for the one that all models have."""
