"""The memory of HPMN: slots that a stack of GRUs writes periodically, and that attention reads.

    event --GRU_1--> slot 1 --every 2nd--> GRU_2 --> slot 2 --every 2nd--> GRU_3 --> slot 3 ...      step
    query --W_q--> q --hops--> softmax over the non-empty slots of MLP(q, slot) --> interest         read

Source: Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR
2019: the periodic memory update and the attentional read.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event, Q
width of an embedded target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.periods import check_periods
from lifelong.offline.nn.recurrent import gru_pass, periodic_gru_step, states_at
from lifelong.offline.nn.slots import SlotReader, slot_covariance


class Slots(NamedTuple):
    """Memories of B users: one slot per period. Slot j is empty while `count < periods[j]`."""

    count_B: Tensor
    """int64: events so far."""
    slot_BSD: Tensor


class HpmnMemory(nn.Module):
    """Each slot is the state of a GRU that is stepped every `periods[j]` events, with the slot below as its input.

    `forward` is `step` over whole histories at once: the same numbers, in a fraction of the time.

    Args:
        input_size: E.
        query_size: Q; None for queries that are D wide and read as they are, without W_q.
        width: D.
        periods: nested: the first is 1, each divides the next.
        hops: passes of a read; 1 is the paper's, the authors' code uses 3.
        aligned: how many of the first numbers of an event and of a target mean the same thing (the fields of the item);
            from these, queries and slots start in one space. None: as many as both have.

    Raises:
        ValueError: the periods are not nested.

    >>> memory = HpmnMemory(input_size=4, query_size=3, width=2, periods=(1, 2), hops=1)
    >>> event_BLE, length_B, position_BC = torch.randn(2, 5, 4), torch.tensor([5, 3]), torch.tensor([[5], [1]])
    >>> at = memory(event_BLE, length_B, position_BC)
    >>> interest_BCD, attention_BCS = memory.read(at, torch.randn(2, 1, 3))
    >>> memory.filled(at).tolist()
    [[[True, True]], [[True, False]]]
    >>> kept = memory.step(memory.initial(2), event_BLE[:, 0])
    >>> torch.allclose(kept.slot_BSD[1], at.slot_BSD[1, 0], atol=1e-6)
    True
    """

    period_S: Tensor
    width: int
    periods: tuple[int, ...]

    def __init__(
        self,
        input_size: int,
        *,
        query_size: int | None = None,
        width: int = 32,
        periods: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        hops: int = 3,
        aligned: int | None = None,
    ) -> None:
        super().__init__()
        self.width, self.periods = width, check_periods(tuple(periods))
        sizes = [input_size] + [width] * (len(self.periods) - 1)
        self.layers: nn.ModuleList = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in sizes)
        self.reader: SlotReader = SlotReader(query_size, width, hops=hops)
        self.reader.align(self.layers, aligned)
        self.register_buffer("period_S", torch.tensor(self.periods), persistent=False)

    @property
    def stack(self) -> Sequence[tuple[nn.GRU, int]]:
        """The layers and their periods, the lowest first."""
        return [(layer, period) for layer, period in zip(self.layers, self.periods, strict=True)]  # type: ignore[misc]

    def initial(self, num_users: int) -> Slots:
        """Memories of users without events."""
        weight = next(self.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return Slots(count_B, weight.new_zeros(num_users, len(self.periods), self.width))

    def step(self, memory: Slots, event_BE: Tensor) -> Slots:
        """Fold one event of each user into the memories; the specification of `forward`.

        Layer j steps iff `count % periods[j] == 0`; its input is the new slot of the layer below. Periods are nested:
        where layer j is due, all layers below are, so looking at j's own period is the same as stopping at the first
        layer that is not due.

        Source: the periodic memory update.
        """
        count_B = memory.count_B + 1
        layer_input, slots = event_BE, []
        for (layer, period), slot_BD in zip(self.stack, memory.slot_BSD.unbind(1), strict=True):
            # A slot that is not due passes its old state on. Nothing comes of it: periods are nested, so that no slot
            # above is due either.
            layer_input = periodic_gru_step(layer, layer_input, slot_BD, count_B, period)
            slots.append(layer_input)
        return Slots(count_B, torch.stack(slots, dim=1))

    def forward(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Slots:
        """The memories after the first `position` events: `count_BC` and `slot_BCSD`.

        Args:
            event_BLE: embedded events, left-aligned. Padding may hold anything, NaN too; L may be 0.
            length_B: int64 real events of each user.
            position_BC: int64, at most the user's length.
        """
        hidden_BLD, below, slots = clear_padding(event_BLE, length_B), 1, []
        for layer, period in self.stack:
            # A layer steps at multiples of its period. Of the steps of the layer below, which come every `below`
            # events, these are the last of every `stride`; the first `position` events hold `position // period`.
            stride = period // below
            hidden_BLD = gru_pass(layer, hidden_BLD[:, stride - 1 :: stride], length_B // period)
            slots.append(states_at(hidden_BLD, position_BC // period))
            below = period
        return Slots(position_BC, torch.stack(slots, dim=2))

    def read(self, memory: Slots, target_BCQ: Tensor) -> tuple[Tensor, Tensor]:
        """Interest `[B, C, D]` in each target, and the attention over the slots `[B, C, S]`, of the first hop.

        Source: the attentional read; several hops as in the authors' code.

        Args:
            memory: fields `[B, C, ...]` (from `forward`) or `[B, 1, ...]` (one memory for all targets of a user).
            target_BCQ: embedded targets.
        """
        read: tuple[Tensor, Tensor] = self.reader(target_BCQ, memory.slot_BSD, self.filled(memory))
        return read

    def filled(self, memory: Slots) -> Tensor:
        """Mask `[..., S]` of the slots that have been written at least once."""
        return memory.count_B.unsqueeze(-1) >= self.period_S

    def covariance(self, memory: Slots) -> Tensor:
        """The term `[...]` that keeps the slots of a memory different, to be added to the loss.

        Source: the memory covariance regularisation.
        """
        return slot_covariance(memory.slot_BSD, self.filled(memory))
