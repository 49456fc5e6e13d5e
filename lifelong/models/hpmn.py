"""HPMN: hierarchical periodic memory network.

Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR 2019.

    event --GRU_1--> slot 1 --every 2nd--> GRU_2 --> slot 2 --every 2nd--> GRU_3 --> slot 3 ...      write
    target --W_q--> q --hops--> softmax over the non-empty slots of MLP(q, slot) --> interest        read

Implemented: the periodic memory update, the attentional read, the covariance regularisation. This is the clean form:
the target is never written, periods count from the user's first event, so the memory can be kept and updated per event.
`hpmn_authors.py` is the form of the authors' released code.

State: one slot per period, `width` numbers each: 192 numbers, 768 bytes, by default.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from lifelong.data.events import InputSpec
from lifelong.models.base import MemoryModel
from lifelong.nn.attention import PairScore
from lifelong.nn.masks import clear_padding
from lifelong.nn.periods import check_periods
from lifelong.nn.recurrent import gru_pass, periodic_gru_step, states_at
from lifelong.nn.slots import align_slots, read_slots, slot_covariance


@dataclass(frozen=True)
class HpmnConfig:
    """Settings of `hpmn`."""

    embedding: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "width of each field's vector"})
    width: Annotated[int, Field(gt=0)] = field(default=32, metadata={"help": "width of a memory slot"})
    periods: Annotated[tuple[int, ...], AfterValidator(check_periods)] = field(
        default=(1, 2, 4, 8, 16, 32),
        metadata={"help": "slot j is written every periods[j] events; starts with 1, each divides the next"},
    )
    hops: Annotated[int, Field(gt=0)] = field(
        default=3, metadata={"help": "passes of a read; 1 is the paper's, the authors' code uses 3"}
    )
    covariance: Annotated[float, Field(ge=0)] = field(
        default=0.01, metadata={"help": "weight of the term that keeps the slots different; try 1e-4 to 10"}
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the head's hidden units dropped in training"}
    )


class HpmnMemory(NamedTuple):
    """One slot per layer; slot j is empty while `count < periods[j]`."""

    count_B: Tensor
    slot_BSD: Tensor


class Hpmn(MemoryModel[HpmnMemory]):
    """Each layer is a GRU that is stepped every `periods[j]` events by the layer below; a slot is its state."""

    Config = HpmnConfig
    title = "HPMN"
    source = "Ren et al., SIGIR 2019"
    state = "one slot per layer"
    continues = True
    period_S: Tensor

    def __init__(
        self,
        inputs: InputSpec,
        *,
        embedding: int = 16,
        width: int = 32,
        periods: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        hops: int = 3,
        covariance: float = 0.01,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(inputs, embedding=embedding, interest=width, dropout=dropout)
        self.width, self.periods, self.covariance = width, check_periods(tuple(periods)), covariance
        layer_inputs = [self.event_width] + [width] * (len(self.periods) - 1)
        self.layers = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in layer_inputs)
        self.query = nn.Linear(self.target_width, width)
        self.scores = nn.ModuleList(PairScore(width) for _ in range(hops))
        # The single read of the paper returns the weighted slots alone: no query passes on.
        self.pass_on = nn.Linear(width, width, bias=False) if hops > 1 else None
        self.register_buffer("period_S", torch.tensor(self.periods), persistent=False)
        align_slots(self.layers, self.query, self.pass_on)

    @property
    def stack(self) -> Sequence[tuple[nn.GRU, int]]:
        """One slot per layer."""
        return [(layer, period) for layer, period in zip(self.layers, self.periods, strict=True)]  # type: ignore[misc]

    def initial_memory(self, num_users: int) -> HpmnMemory:
        """Zeros: all slots empty."""
        weight = self.query.weight
        return HpmnMemory(
            torch.zeros(num_users, dtype=torch.int64, device=weight.device),
            weight.new_zeros(num_users, len(self.periods), self.width),
        )

    def write_vector(self, memory: HpmnMemory, event_BE: Tensor) -> HpmnMemory:
        """Step layer j iff `count % periods[j] == 0`; a due layer's input is the new slot of the layer below.

        Periods are nested: where layer j is due, all layers below are, so looking at j's own period is the same as
        stopping at the first layer that is not due.

        Source: the periodic memory update.
        """
        count_B = memory.count_B + 1
        layer_input, slots = event_BE, []
        for layer, period, slot_BD in zip(self.layers, self.periods, memory.slot_BSD.unbind(1), strict=True):
            layer_input = periodic_gru_step(layer, layer_input, slot_BD, count_B, period)
            slots.append(layer_input)
        return HpmnMemory(count_B, torch.stack(slots, dim=1))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> HpmnMemory:
        """Run each layer over every k-th output of the layer below, k = ratio of their periods, and pick."""
        starts: list[Tensor | None] = [None] * len(self.periods)
        return HpmnMemory(position_BC, self._slots(starts, event_BLE, length_B, position_BC))

    def continue_vector(
        self, memory: HpmnMemory, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor
    ) -> HpmnMemory:
        """The same, each layer from its slot."""
        starts = memory.slot_BSD.unbind(1)
        slot_BCSD = self._slots(starts, event_BLE, length_B, position_BC)
        return HpmnMemory(memory.count_B.unsqueeze(1) + position_BC, slot_BCSD)

    def _slots(
        self, starts: Sequence[Tensor | None], event_BLE: Tensor, length_B: Tensor, position_BC: Tensor
    ) -> Tensor:
        hidden_BLD, slots = clear_padding(event_BLE, length_B), []
        ratios = zip(self.layers, starts, (1, *self.periods[:-1]), self.periods, strict=True)
        for layer, start_BD, below, period in ratios:
            stride = period // below
            hidden_BLD = gru_pass(layer, hidden_BLD[:, stride - 1 :: stride], length_B // period, start_BD)
            slots.append(states_at(hidden_BLD, position_BC // period, start_BD))
        return torch.stack(slots, dim=2)

    def read_vector(self, memory: HpmnMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """K hops of attention over the slots, empty ones masked; the attention is the first hop's.

        Source: the attentional read; several hops as in the authors' code.
        """
        slot_BCSD, filled_BCS = memory.slot_BSD, self.filled(memory)
        query_BCD = self.query(target_BCE)
        return read_slots(query_BCD, slot_BCSD, filled_BCS, scores=self.scores, pass_on=self.pass_on)

    def filled(self, memory: HpmnMemory) -> Tensor:
        """Mask of the slots that were written at least once."""
        return memory.count_B.unsqueeze(-1) >= self.period_S

    def auxiliary(self, memory: HpmnMemory, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """The covariance term, mean over the labelled positions, times its weight."""
        if self.covariance == 0:
            return {}
        term_BC = slot_covariance(memory.slot_BSD, self.filled(memory)).masked_fill(~mask_BC, 0.0)
        return {"covariance": self.covariance * term_BC.sum() / mask_BC.sum().clamp(min=1)}
