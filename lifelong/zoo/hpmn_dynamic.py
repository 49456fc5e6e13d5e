"""HPMN with learned update times instead of fixed periods.

The first open question of Ren et al., SIGIR 2019 (HPMN); after Chung et al., "Hierarchical Multiscale Recurrent Neural
Networks", ICLR 2017.

    event --GRU_1--> slot 1 --boundary?--> GRU_2 --> slot 2 --boundary?--> GRU_3 --> slot 3 ...         write
    target --W_q--> q --hops--> softmax over the written slots of MLP(q, slot) --> interest           read

Layer 1 is written at every event. Whenever layer j is written, layer j + 1 reads the new slot j and the number of such
steps since its own last write. A boundary, [w . slot + a waited + b > 0], means update; otherwise the slot is copied.
Layers remain nested, as with periods, and an event costs only the layers that it writes. Training starts at w = 0,
a = 1 and b = 1/2 - k, which is exactly HPMN with its periods. The read and the covariance term are HPMN's.

Boundaries are binary in training as well as in a service, so that both write the same. Their gradient is that of the
sigmoid (straight-through), multiplied by the change that the update makes, or would make, in the layer's slot. A
regulariser keeps the rates of writing near the periods: the mean over slots of t ([|r - 1/t| - `slack`/t]_+)^2, where r
is the share of a user's events that wrote slot j. Within the slack, rates may differ between sessions and users.

Differs from Chung et al.: a boundary depends on the layer's input and clock, not on its state, so that a whole history
is one pass per layer. A layer is not reset after a boundary, and there is no flow from higher to lower layers.

If the logit of a boundary is 0 up to rounding, another batch size can decide differently, and the slot then differs.

State: one slot per layer, `width` numbers each, and three numbers of each slot: the share of the events that wrote
it, how many events ago the last did, and how long its layer has waited: 210 numbers, 840 bytes, by default.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.masks import clear_padding, length_mask
from lifelong.offline.nn.periods import check_periods
from lifelong.offline.nn.recurrent import gated_gru_pass, gated_gru_step, gru_pass, gru_step, states_at
from lifelong.offline.nn.slots import SlotReader, slot_covariance
from lifelong.zoo.layers.boundaries import LONGEST_WAIT, Boundary

LONGEST_AGE = LONGEST_WAIT
"""Events up to which it is known how long ago a slot was written."""
# Above every place, so that a binary search never reaches padding.
_NEVER = 2**62


@dataclass(frozen=True)
class HpmnDynamicConfig(CommonSettings):
    """Settings of `hpmn_dynamic`."""

    width: PositiveInt = setting(32, "width of a memory slot")
    periods: Annotated[tuple[int, ...], AfterValidator(check_periods)] = setting(
        (1, 2, 4, 8, 16, 32), "slot j starts being written every periods[j] events, and is to be so on average"
    )
    budget: NonNegativeFloat = setting(0.1, "weight of the term that keeps the rates of writing near the periods'")
    slack: NonNegativeFloat = setting(0.5, "deviation of a user's rate that costs nothing, as a share of the rate")
    hops: PositiveInt = setting(3, "passes of a read")
    covariance: NonNegativeFloat = setting(0.01, "weight of the term that keeps the slots different; try 1e-4 to 10")


class HpmnDynamicMemory(NamedTuple):
    """One slot per layer; empty while its rate is 0."""

    count_B: Tensor
    slot_BSD: Tensor
    rate_BS: Tensor
    """Share of the user's events that wrote the slot."""
    age_BS: Tensor
    """Events since its last write, or the first event, in units of `LONGEST_AGE`; 1 at most."""
    waited_BS: Tensor
    """Steps that its layer was fed since then, in the same units; 1 at most."""


class _Timeline(NamedTuple):
    """What a layer is fed: the steps at which the layer below was written."""

    input_BLD: Tensor
    place_BL: Tensor
    """int64: the event of each step, from 1; `_NEVER` in padding."""
    length_B: Tensor


class HpmnDynamic(MemoryModel[HpmnDynamicMemory]):
    """Each layer is a GRU that is stepped where a boundary is seen in the layer below; a slot is its state."""

    Config = HpmnDynamicConfig
    title = "HPMN, dynamic periods"
    source = "after Ren et al., SIGIR 2019; Chung et al., ICLR 2017"
    state = "one slot per layer"
    period_S: Tensor

    def __init__(self, inputs: InputSpec, config: HpmnDynamicConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: HpmnDynamicConfig = config
        self.periods: tuple[int, ...] = check_periods(tuple(config.periods))
        slots = len(self.periods)
        self.remember(HpmnDynamicMemory, (slots, config.width), (slots,), (slots,), (slots,))
        layer_inputs = [self.event_width] + [config.width] * (len(self.periods) - 1)
        self.layers: nn.ModuleList = nn.ModuleList(
            nn.GRU(size, config.width, batch_first=True) for size in layer_inputs
        )
        ratios = [above // below for below, above in pairwise(self.periods)]
        self.boundaries: nn.ModuleList = nn.ModuleList(Boundary(config.width, ratio) for ratio in ratios)
        self.reader: SlotReader = SlotReader(self.target_width, config.width, hops=config.hops)
        self.reader.align(self.layers)
        self.register_buffer("period_S", torch.tensor(self.periods), persistent=False)

    def write_vector(self, memory: HpmnDynamicMemory, event_BE: Tensor) -> HpmnDynamicMemory:
        """Step layer 1; step every other layer where the one below was written and shows a boundary."""
        count_B = memory.count_B + 1
        slot_BD = gru_step(self.layers[0], event_BE, memory.slot_BSD[:, 0])
        write_B = torch.ones_like(slot_BD[:, 0])
        slots, writes, waits = [slot_BD], [write_B], [torch.zeros_like(write_B)]
        for place, boundary in enumerate(self.boundaries, start=1):
            fed_B = write_B.detach()
            waited_B = (LONGEST_AGE * memory.waited_BS[:, place] + fed_B).clamp(max=LONGEST_AGE)
            # A layer that is not fed does not write, and its boundary learns nothing from that.
            write_B = boundary(slot_BD, waited_B) * fed_B
            slot_BD = gated_gru_step(self.layers[place], slot_BD, write_B, memory.slot_BSD[:, place])
            slots.append(slot_BD)
            writes.append(write_B)
            waits.append(waited_B.masked_fill(write_B.detach() > 0, 0.0) / LONGEST_AGE)
        write_BS = torch.stack(writes, dim=1)
        rate_BS = memory.rate_BS + (write_BS - memory.rate_BS) / count_B.unsqueeze(-1).to(event_BE.dtype)
        older_BS = (memory.age_BS + 1 / LONGEST_AGE).clamp(max=1.0)
        age_BS = older_BS.masked_fill(write_BS.detach() > 0, 0.0)
        return HpmnDynamicMemory(count_B, torch.stack(slots, dim=1), rate_BS, age_BS, torch.stack(waits, dim=1))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> HpmnDynamicMemory:
        """A pass per layer over the steps at which the layer below was written, then what stood at each position."""
        if not event_BLE.shape[1]:
            # One event of padding, as later look-ups need a row even if nobody has a history.
            event_BLE = pad(event_BLE, (0, 0, 0, 1))
        events = clear_padding(event_BLE, length_B)
        hidden_BLD = gru_pass(self.layers[0], events, length_B)
        place_BL = torch.arange(1, events.shape[1] + 1, device=length_B.device).expand(len(length_B), -1)
        place_BL = place_BL.masked_fill(~length_mask(length_B, events.shape[1]), _NEVER)
        line = _Timeline(hidden_BLD, place_BL, length_B)
        seen_BC = (position_BC > 0).to(hidden_BLD.dtype)
        slots: list[tuple[Tensor, ...]] = [(states_at(hidden_BLD, position_BC), seen_BC, 0 * seen_BC, 0 * seen_BC)]
        for boundary, layer in zip(self.boundaries, list(self.layers)[1:], strict=True):
            line, slot = _layer(line, boundary, layer, position_BC)
            slots.append(slot)
        return HpmnDynamicMemory(position_BC, *(torch.stack(part, dim=2) for part in zip(*slots, strict=True)))

    def read_vector(self, memory: HpmnDynamicMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """K hops of attention over the slots, empty ones masked; the attention is the first hop's."""
        read: tuple[Tensor, Tensor] = self.reader(target_BCE, memory.slot_BSD, memory.rate_BS.detach() > 0)
        return read

    def auxiliary(self, memory: HpmnDynamicMemory, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """Covariance and budget, means over the labelled positions, times their weights."""
        filled_BCS, total = memory.rate_BS.detach() > 0, mask_BC.sum().clamp(min=1)
        terms = {
            "covariance": (self.config.covariance, slot_covariance(memory.slot_BSD, filled_BCS)),
            "budget": (self.config.budget, self.over_budget(memory)),
        }
        return {
            name: weight * term_BC.masked_fill(~mask_BC, 0.0).sum() / total
            for name, (weight, term_BC) in terms.items()
            if weight
        }

    def over_budget(self, memory: HpmnDynamicMemory) -> Tensor:
        """How far a user's rates are from those of the periods, beyond the slack: `[B...]`.

        A slot counts from its period on: before, its rate is 0 or far too high.
        """
        period_S = self.period_S.to(memory.rate_BS.dtype)
        away = ((memory.rate_BS - 1 / period_S).abs() - self.config.slack / period_S).clamp(min=0.0)
        due = memory.count_B.unsqueeze(-1) >= self.period_S
        return (period_S * away.square() * due).mean(dim=-1)


def _layer(
    line: _Timeline, boundary: nn.Module, layer: nn.Module, position_BC: Tensor
) -> tuple[_Timeline, tuple[Tensor, ...]]:
    """One layer: what the next is fed; and slot, rate, age and waiting at each position."""
    assert isinstance(boundary, Boundary)
    write_BL, waited_BL = boundary.over(line.input_BLD, line.length_B)
    hidden_BLD, hard_BL = gated_gru_pass(layer, line.input_BLD, write_BL, line.length_B), write_BL.detach() > 0
    # A layer's steps are events of the layer below, so that a position in the history is first turned into a number of
    # its steps: those at or before it.
    steps_BC = torch.searchsorted(line.place_BL.contiguous(), position_BC.contiguous(), right=True)
    # The running maximum carries the place of the last write to all steps after it; 0 stands for none.
    last_BL = line.place_BL.masked_fill(~hard_BL, 0).cummax(dim=1).values
    total_BC = _at(write_BL.cumsum(dim=1), steps_BC)
    age_BC = (position_BC - _at(last_BL, steps_BC)).clamp(max=LONGEST_AGE).to(hidden_BLD.dtype)
    waited_BC = _at(waited_BL.masked_fill(hard_BL, 0), steps_BC).to(hidden_BLD.dtype)
    # At position 0 nothing was written: 0 / 0 would be NaN.
    rate_BC = total_BC / position_BC.clamp(min=1).to(hidden_BLD.dtype)
    slot_BCD = states_at(hidden_BLD, steps_BC)
    return _written(hidden_BLD, line.place_BL, hard_BL), (
        slot_BCD,
        rate_BC,
        age_BC / LONGEST_AGE,
        waited_BC / LONGEST_AGE,
    )


def _at(value_BL: Tensor, steps_BC: Tensor) -> Tensor:
    """The value after `steps` steps, 0 before the first: `[B, C]`."""
    return states_at(value_BL.unsqueeze(-1), steps_BC).squeeze(-1)


def _written(hidden_BLD: Tensor, place_BL: Tensor, hard_BL: Tensor) -> _Timeline:
    """The steps that wrote, left-aligned; one at least, so that nothing is empty."""
    length_B = hard_BL.sum(dim=1)
    # Stable, so that the steps that wrote come first and stay in their order.
    order_BL = (~hard_BL).to(torch.int8).sort(dim=1, stable=True).indices[:, : max(1, int(length_B.max()))]
    chosen_BLD = hidden_BLD.gather(1, order_BL.unsqueeze(-1).expand(-1, -1, hidden_BLD.shape[2]))
    place_BL = place_BL.gather(1, order_BL).masked_fill(~length_mask(length_B, order_BL.shape[1]), _NEVER)
    return _Timeline(clear_padding(chosen_BLD, length_B), place_BL, length_B)
