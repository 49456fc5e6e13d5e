"""Tally: the periodic slots of HPMN, and beside them a table that counts, in a memory of fixed size.

Slots: Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR
2019. Counting cells and faded bits: this package (`nn/cells.py`), after Bloom, CACM 1970.

    event --vectors--> GRU_1 --> slot 1 --every k-th--> GRU_2 --> slot 2 ...                      write
          `--keys----> one cell of each field: count + 1, age 0; the stalest gives way, and leaves two bits
    target --keys----> count, age, faded of each of its values --decays, logarithms--> c_f of field f
           `-[; c]--W--> q, attention over the slots --> h                                        read
    [h ; q * h ; c ; w_f c_f] --head--> + v w_f c_f --> logit

A recurrent state cannot hold how often a user met each of a hundred thousand items, and how often and how long ago is
what predicts her next response best. The cells hold just that, for the values that she meets most and of late, for the
item and for each of its other fields; slots hold what sequences tell beyond. A count says more of some values than of
others: one item is bought again and again by few, another once by everybody. So each value has weights w of its own
for its counts, beside its vector, and what they give reaches the logit directly, too. What is in the cells does not
depend on learned weights: training reads it off a compiled replay of the history, and learns only what to make of it.

State: `state` bytes, 4,096 by default: a vector of `width` numbers per slot; of what remains, `faded` of it bits for
values that fell out, and the rest cells, shared out over the item fields. A cell takes 15 bits and what its key needs
among the sorted keys of its field, about 23 bits together.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event, F
item fields, K cells, W words of faded bits, P features of a field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from lifelong.data.cell_plan import AGES, CellPacking, ages, plan_of, values_of
from lifelong.data.events import InputSpec
from lifelong.errors import ConfigError
from lifelong.models.base import MemoryModel, Output, pick, spread_targets
from lifelong.nn.attention import PairScore
from lifelong.nn.cells import empty_cells, find_cells, staleness, write_cells
from lifelong.nn.head import Head
from lifelong.nn.masks import clear_padding, masked_softmax
from lifelong.nn.periods import check_periods
from lifelong.nn.recurrent import gru_pass, gru_step, states_at

if TYPE_CHECKING:
    from lifelong.data.batches import Batch

HALF_LIVES = (10.0, 50.0, 250.0, 1250.0)
"""In events: by how much a count weighs less with its age."""
FEATURES = 5 + len(HALF_LIVES)
"""P: has a cell, is faded, log of count, log of age, rank of the value, and the log of the count at each decay."""
STD = 0.01
"""Of the initial weights of counts."""
STD_VECTORS = 0.1
"""Of the initial vectors: counts tell what target and history have in common, and wide vectors would be noise."""
TIMES = (1, 2, 3, 4, 6, 9, 14, 25, 60)
"""Where kinds of cells begin, by their counts."""
AGE_STEPS = 8
"""Steps of the scale of ages that make one kind of cells."""


def _periods_or_none(periods: tuple[int, ...]) -> tuple[int, ...]:
    return check_periods(periods) if periods else periods


@dataclass(frozen=True)
class TallyConfig:
    """Settings of `tally`."""

    state: Annotated[int, Field(ge=512, le=2**16)] = field(
        default=4096, metadata={"help": "bytes of a stored memory at most, slots, cells and bits together"}
    )
    embedding: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "width of each field's vector"})
    width: Annotated[int, Field(gt=0)] = field(default=32, metadata={"help": "width of a memory slot"})
    periods: Annotated[tuple[int, ...], AfterValidator(_periods_or_none)] = field(
        default=(1, 3, 9, 27), metadata={"help": "slot j is written every periods[j] events; [] for no slots"}
    )
    faded: Annotated[float, Field(ge=0, le=0.9)] = field(
        default=0.4, metadata={"help": "share of the counting part that are bits of values without a cell"}
    )
    shares: tuple[Annotated[float, Field(gt=0)], ...] = field(
        default=(), metadata={"help": "how cells are shared out over the item fields; [] for 1, 1/2, 1/3 ..."}
    )
    patience: Annotated[int, Field(ge=0)] = field(
        default=400, metadata={"help": "events for which a doubled count holds a cell; 0 keeps the latest values"}
    )
    kind: Annotated[int, Field(gt=0)] = field(
        default=8, metadata={"help": "width of the vector that stands for a count and an age together"}
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the head's hidden units dropped in training"}
    )


class TallyMemory(NamedTuple):
    """Slots, cells, and bits of values that lost their cell."""

    count_B: Tensor
    slot_BSD: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class CountMemory(NamedTuple):
    """The same without slots."""

    count_B: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class _Seen(NamedTuple):
    """What a read needs of a memory."""

    count_BC: Tensor
    slot_BCSD: Tensor
    times_BCF: Tensor
    age_BCF: Tensor
    faded_BCF: Tensor


class _Asked(NamedTuple):
    """Embedded targets and contexts."""

    target_BCE: Tensor
    context_BCE: Tensor


@dataclass(frozen=True, slots=True)
class Split:
    """Where the parts of embedded events and targets are.

    Each field has a vector and weights of counts; an item field, which come first, also a key.

    Args:
        fields: item fields.
        dim: width of a field's vector.
    """

    fields: int
    dim: int

    def vectors(self, embedded: Tensor) -> Tensor:
        """The vectors alone, one after another."""
        return torch.cat([part[..., : self.dim].flatten(-2) for part in self._parts(embedded)], dim=-1)

    def weights(self, embedded: Tensor) -> Tensor:
        """Weights of counts of each item field: `[..., F, P]`."""
        return self._parts(embedded)[0][..., self.dim : self.dim + FEATURES]

    def keys(self, embedded: Tensor) -> Tensor:
        """Keys of the item fields: int64 `[..., F]`."""
        return self._parts(embedded.detach())[0][..., -1].round().long()

    def _parts(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        width = self.dim + FEATURES
        last = self.fields * (width + 1)
        item, other = embedded[..., :last], embedded[..., last:]
        return (
            item.reshape(*item.shape[:-1], self.fields, width + 1),
            other.reshape(*other.shape[:-1], other.shape[-1] // width, width),
        )


class TallyHead(nn.Module):
    """The head, and the weighted counts straight to the logit.

    Args:
        head: the head that all models share.
        tasks: T.
        split: takes what it may see of the target's vectors: their keys and weights of counts are no quantities.
    """

    def __init__(self, head: Head, *, tasks: int, split: Split) -> None:
        super().__init__()
        self.head, self.split = head, split
        self.direct = nn.Linear(split.fields, tasks, bias=False)
        nn.init.ones_(self.direct.weight)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`; the interest ends in the weighted counts of each field."""
        logit: Tensor = self.head(interest, self.split.vectors(target), context)
        direct: Tensor = self.direct(interest[..., -self.split.fields :])
        return logit + direct


class Tally(MemoryModel[Any]):
    """Counts of what the user meets most and of late, and slots for the sequence."""

    Config = TallyConfig
    title = "Tally"
    source = "this package; slots of Ren et al., SIGIR 2019"
    state = "slots, and a bounded table of counters"
    vector_spread = 0.3
    takes_counts = False
    period_S: Tensor
    stale_N: Tensor
    age_A: Tensor
    scale_F: Tensor
    first_T: Tensor

    def __init__(
        self,
        inputs: InputSpec,
        *,
        state: int = 4096,
        embedding: int = 16,
        width: int = 32,
        periods: tuple[int, ...] = (1, 3, 9, 27),
        faded: float = 0.4,
        shares: tuple[float, ...] = (),
        patience: int = 400,
        kind: int = 8,
        dropout: float = 0.1,
    ) -> None:
        fields = len(inputs.item)
        counted = fields * (FEATURES + kind + 1) + 1
        interest = counted + (2 * width if periods else 0)
        super().__init__(
            inputs, embedding=embedding + FEATURES, interest=interest, dropout=dropout, keys=tuple(inputs.item)
        )
        self.split = Split(fields, embedding)
        self.width, self.periods = width, _periods_or_none(tuple(periods))
        with torch.no_grad():
            self.embed.restart(STD_VECTORS)
            for table in self.embed.tables.values():
                table.weight[1:, embedding:].normal_(std=STD)
            for vectors in self.embed.scales.values():
                vectors.weight[:, embedding:].normal_(std=STD)
        self.kinds = 2 + len(TIMES) * (AGES // AGE_STEPS)
        self.kind = nn.Embedding(fields * self.kinds, kind)
        nn.init.normal_(self.kind.weight, std=STD_VECTORS)
        settings = {"state": state, "width": width, "periods": periods, "faded": faded, "shares": shares}
        try:
            self.plan = plan_of({**settings, "patience": patience}, list(inputs.item.values()))
        except ValueError as error:
            raise ConfigError(
                [f"model of {fields} item fields: {error}"], fix="change model.state or model.shares"
            ) from error
        event, target = embedding * len(self.history_fields), embedding * fields
        plain = Head(interest + target + self.context_width, len(inputs.tasks), dropout=dropout)
        self.head = TallyHead(plain, tasks=len(inputs.tasks), split=self.split)
        self.register_buffer(
            "scale_F", torch.tensor([math.log(size) for size in inputs.item.values()]), persistent=False
        )
        sizes = [event, *[width] * (len(periods) - 1)] if periods else []
        self.layers = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in sizes)
        if periods:
            self.query = nn.Linear(target + counted, width)
            self.score = PairScore(width)
            self._align()
        self.register_buffer("period_S", torch.tensor(self.periods, dtype=torch.int64), persistent=False)
        self.register_buffer("first_T", torch.tensor(TIMES), persistent=False)
        self.register_buffer("stale_N", staleness(self.plan), persistent=False)
        self.register_buffer("age_A", torch.tensor(ages()), persistent=False)

    def _align(self) -> None:
        """Start with queries and slots in one space, as HPMN does, so that a target and a slot can be compared."""
        first, *upper = (dict(layer.named_parameters())["weight_ih_l0"] for layer in self.layers)
        target = len(self.item_fields) * self.split.dim
        with torch.no_grad():
            # Rows of an `nn.GRU` weight: reset, update, new state; columns begin with the item fields.
            self.query.weight[:, :target] = first[2 * self.width :, :target]
            self.query.bias.zero_()
            for weight in upper:
                weight[2 * self.width :] = torch.eye(self.width)

    @property
    def vector_width(self) -> int:
        """Without the weights of counts."""
        return self.split.dim

    @property
    def cells(self) -> CellPacking:
        """Sorted by key, in about three bytes a cell."""
        return CellPacking(self.plan.cells_F, values_of(list(self.inputs.item.values())))

    def initial_memory(self, num_users: int) -> Any:
        """Empty slots and cells."""
        weight = next(self.head.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        cells = empty_cells(num_users, self.plan, device=weight.device)
        if not self.periods:
            return CountMemory(count_B, *cells)
        return TallyMemory(count_B, weight.new_zeros(num_users, len(self.periods), self.width), *cells)

    def write_vector(self, memory: Any, event_BE: Tensor) -> Any:
        """Step the slots that are due, and count."""
        count_B = memory.count_B + 1
        cells = write_cells(
            memory.cell_BKX, memory.faded_BW, self.split.keys(event_BE), count_B, stale_N=self.stale_N, plan=self.plan
        )
        if not self.periods:
            return CountMemory(count_B, *cells)
        layer_input, slots = self.split.vectors(event_BE), []
        for layer, period, slot_BD in zip(self.layers, self.periods, memory.slot_BSD.unbind(1), strict=True):
            due_B1 = (count_B % period == 0).unsqueeze(-1)
            layer_input = torch.where(due_B1, gru_step(layer, layer_input, slot_BD), slot_BD)
            slots.append(layer_input)
        return TallyMemory(count_B, torch.stack(slots, dim=1), *cells)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Any:
        """Slots layer by layer, cells by the compiled replay."""
        from lifelong.nn.cell_replay import cells_at

        event_BLE = clear_padding(event_BLE, length_B)
        cells = cells_at(self.split.keys(event_BLE), position_BC, self.stale_N, self.plan)
        if not self.periods:
            return CountMemory(position_BC, *cells)
        return TallyMemory(position_BC, self._slots_at(event_BLE, length_B, position_BC), *cells)

    def _slots_at(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Tensor:
        """Each layer runs over every k-th output of the layer below: `[B, C, S, D]`."""
        if not self.periods:
            return event_BLE.new_zeros(*position_BC.shape, 0, self.width)
        hidden_BLD, slots = self.split.vectors(event_BLE), []
        for layer, below, period in zip(self.layers, (1, *self.periods[:-1]), self.periods, strict=True):
            stride = period // below
            hidden_BLD = gru_pass(layer, hidden_BLD[:, stride - 1 :: stride], length_B // period)
            slots.append(states_at(hidden_BLD, position_BC // period))
        return torch.stack(slots, dim=2)

    def read_vector(self, memory: Any, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the cells know of the target, and attention over the slots that are not empty."""
        found = find_cells(memory.cell_BKX, memory.faded_BW, self.split.keys(target_BCE), self.plan)
        slot_BCSD = memory.slot_BSD if self.periods else target_BCE.new_zeros(1, 1, 0, self.width)
        return self._interest(_Seen(memory.count_B, slot_BCSD, *found), target_BCE)

    def _interest(self, seen: _Seen, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        counted_BCX = self._features(seen, target_BCE)
        if not self.periods:
            return counted_BCX, None
        query_BCD = self.query(torch.cat([self.split.vectors(target_BCE), counted_BCX], dim=-1))
        filled_BCS = seen.count_BC.unsqueeze(-1) >= self.period_S
        weight_BCS = masked_softmax(self.score(query_BCD, seen.slot_BCSD), filled_BCS)
        found_BCD = (weight_BCS.unsqueeze(-1) * seen.slot_BCSD).sum(dim=-2)
        return torch.cat([found_BCD, query_BCD * found_BCD, counted_BCX], dim=-1), weight_BCS

    def _features(self, seen: _Seen, target_BCE: Tensor) -> Tensor:
        """Of each field what `FEATURES` names; how many events the user has had; of each field the weighted sum."""
        dtype = target_BCE.dtype
        cell_BCF = (seen.times_BCF > 0).to(dtype)
        times_BCF = torch.log1p(seen.times_BCF.to(dtype))
        age_BCF = self.age_A[seen.age_BCF].to(dtype)
        # Known items are numbered by falling frequency.
        rank_BCF = torch.log1p(self.split.keys(target_BCE).clamp(min=0).to(dtype)) / self.scale_F.to(dtype)
        parts = [cell_BCF, seen.faded_BCF.to(dtype), times_BCF, cell_BCF * torch.log1p(age_BCF) / 4, rank_BCF]
        parts += [times_BCF * torch.exp2(-age_BCF / half_life) for half_life in HALF_LIVES]
        part_BCFP = torch.stack(parts, dim=-1)
        kind_BCX = self.kind(self._kind_of(seen)).flatten(-2)
        weighted_BCF = (part_BCFP * self.split.weights(target_BCE)).sum(dim=-1)
        active_BC = torch.log1p(seen.count_BC.to(dtype)) / 4
        active_BC1 = active_BC.unsqueeze(-1).expand(*target_BCE.shape[:-1], 1)
        return torch.cat([part_BCFP.flatten(-2), kind_BCX, active_BC1, weighted_BCF], dim=-1)

    def _kind_of(self, seen: _Seen) -> Tensor:
        """Which kind of cell each value has: none, faded, or by its count and its age together; int64 `[B, C, F]`."""
        step_BCF = (seen.times_BCF.unsqueeze(-1) >= self.first_T).sum(dim=-1) - 1
        cell_BCF = 2 + step_BCF * (AGES // AGE_STEPS) + seen.age_BCF // AGE_STEPS
        kind_BCF = torch.where(seen.times_BCF > 0, cell_BCF, seen.faded_BCF.long())
        return kind_BCF + self.kinds * torch.arange(kind_BCF.shape[-1], device=kind_BCF.device)

    def forward(self, batch: Batch) -> Output:
        """What `encode` and `respond` give, without making the cells that no target reads."""
        from lifelong.nn.cell_replay import cells_found

        event_BLE = clear_padding(self.embed(batch.history_BLF, self.history_fields), batch.length_B)
        target_BCE = self.embed(batch.target_BCF, self.item_fields)
        found = cells_found(
            self.split.keys(event_BLE), batch.position_BC, self.split.keys(target_BCE), self.stale_N, self.plan
        )
        seen = _Seen(batch.position_BC, self._slots_at(event_BLE, batch.length_B, batch.position_BC), *found)
        real_N = batch.mask_BC.flatten().nonzero().squeeze(-1)
        context_BCE = self.embed_context(batch.context_BCF)
        target_1NE, context_1NE = pick(_Asked(target_BCE, context_BCE), real_N)
        interest_1ND, attention_1NS = self._interest(pick(seen, real_N), target_1NE)
        logit_1NT = self.head(interest_1ND, target_1NE, context_1NE)
        attention = None if attention_1NS is None else spread_targets(attention_1NS.squeeze(0), batch.mask_BC)
        return Output(spread_targets(logit_1NT.squeeze(0), batch.mask_BC), attention_BCS=attention)
