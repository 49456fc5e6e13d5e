"""HPMN: hierarchical periodic memory network.

Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR 2019.

    event --GRU_1--> slot 1 --every 2nd--> GRU_2 --> slot 2 --every 2nd--> GRU_3 --> slot 3 ...      write
    target --W_q--> q --hops--> softmax over the non-empty slots of MLP(q, slot) --> interest        read

Implemented: the periodic memory update, the attentional read, the covariance regularisation. The target is
never written, and periods count from the user's first event, so a memory can be stored and updated per event. The
memory is also a PyTorch module for other uses, `lifelong.offline.nn.HpmnMemory`. `hpmn_authors.py` reproduces the
authors' released code.

State: one slot per period, `width` numbers each: 192 numbers, 768 bytes, by default.

Shapes: B users, L padded history length, C targets per user, E width of an embedded event or target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat, PositiveInt
from torch import Tensor

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.hpmn import HpmnMemory, Slots
from lifelong.offline.nn.periods import check_periods


@dataclass(frozen=True)
class HpmnConfig(CommonSettings):
    """Settings of `hpmn`."""

    width: PositiveInt = setting(32, "width of a memory slot")
    periods: Annotated[tuple[int, ...], AfterValidator(check_periods)] = setting(
        (1, 2, 4, 8, 16, 32), "slot j is written every periods[j] events; starts with 1, each divides the next"
    )
    hops: PositiveInt = setting(3, "passes of a read; 1 is the paper's, the authors' code uses 3")
    covariance: NonNegativeFloat = setting(0.01, "weight of the term that keeps the slots different; try 1e-4 to 10")


class Hpmn(MemoryModel[Slots]):
    """Embeddings, an `HpmnMemory` and a head."""

    Config = HpmnConfig
    title = "HPMN"
    source = "Ren et al., SIGIR 2019"
    state = "one slot per layer"

    def __init__(self, inputs: InputSpec, config: HpmnConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: HpmnConfig = config
        self.periods: tuple[int, ...] = tuple(config.periods)
        self.memory: HpmnMemory = HpmnMemory(
            self.event_width,
            query_size=self.target_width,
            width=config.width,
            periods=self.periods,
            hops=config.hops,
        )

    def initial_memory(self, num_users: int) -> Slots:
        """All slots empty."""
        return self.memory.initial(num_users)

    def write_vector(self, memory: Slots, event_BE: Tensor) -> Slots:
        """Step the layers that are due."""
        return self.memory.step(memory, event_BE)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Slots:
        """Run each layer over whole histories, and pick its states."""
        slots: Slots = self.memory(event_BLE, length_B, position_BC)
        return slots

    def read_vector(self, memory: Slots, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over the slots; the attention returned is the first hop's."""
        return self.memory.read(memory, target_BCE)

    def auxiliary(self, memory: Slots, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """The covariance term, mean over the labelled positions, times its weight."""
        if self.config.covariance == 0:
            return {}
        term_BC = self.memory.covariance(memory).masked_fill(~mask_BC, 0.0)
        return {"covariance": self.config.covariance * term_BC.sum() / mask_BC.sum().clamp(min=1)}
