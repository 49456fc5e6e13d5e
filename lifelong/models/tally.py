"""Tally: the periodic slots of HPMN, and beside them a table that counts, in a memory of fixed size.

Slots: Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR
2019. Counting cells and faded bits: this package (`nn/cells.py`), after Bloom, CACM 1970.

    event --vectors--> GRU_1 --> slot 1 --every k-th--> GRU_2 --> slot 2 ...                      write
          `--keys----> one cell of each field: count + 1, age 0; the stalest gives way, and leaves two bits
          `--gap-----> clock: the time of every 2^j-th event
    target --keys----> count, age, faded of each of its values --decays, logarithms--> c_f of field f
           `-[; c]--W--> q, attention over the slots --> h                                        read
    [h ; q * h ; c ; w_f c_f] --head--> + v w_f c_f --> logit 1
    c --head of the counts alone--> logit 2                           logit = (1 - s) logit 1 + s logit 2

A recurrent state cannot hold how often a user met each of a hundred thousand items, and how often and how long ago is
what predicts her next response best. The cells hold just that, for the values that she meets most and of late, for the
item and for each of its other fields; slots hold what sequences tell beyond. A count says more of some values than of
others: one item is bought again and again by few, another once by everybody. So each value has weights w of its own
for its counts, beside its vector, and what they give reaches the logit directly, too. What is in the cells does not
depend on learned weights: training reads it off a compiled replay of the history, and learns only what to make of it.

Two heads: one sees everything, the other only counts, times and how popular the target's values are, and no vector that
is learned of single values. Each learns by a loss of its own: what the first one makes of single values is noisy and
goes out of date, what the second one says is steady but knows no sequence, and their errors have little in common. A
weight s that is learned with them comes out near 0, since what was learned of single values is never fresher than in
training.

How popular a value is, its share of the training targets, is read off the training period and not learned; with it the
model compares how often the user met the value with how often anybody would have, in as many events. Training that goes
on from an artifact takes the popularities of its own period.

State: `state` bytes, 4,096 by default: a vector of `width` numbers per slot; the clock (`nn/clock.py`), 136 bytes; of
what remains, `faded` of it bits for values that fell out, and the rest cells, shared out over the item fields. A cell
takes 15 bits and what its key needs among the sorted keys of its field, about 23 bits together.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event, F
item fields, K cells, W words of faded bits, P features of a field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from lifelong.data.cell_plan import AGES, CellPacking, ages, clock_levels, plan_of, values_of
from lifelong.data.events import InputSpec
from lifelong.errors import ConfigError
from lifelong.models.base import MemoryModel, Output, pick, spread_targets
from lifelong.nn.attention import PairScore
from lifelong.nn.cells import empty_cells, find_cells, staleness, write_cells
from lifelong.nn.clock import clock_at, elapsed, empty_clock, spans, tick
from lifelong.nn.head import Head
from lifelong.nn.masks import clear_padding, masked_softmax
from lifelong.nn.periods import check_periods
from lifelong.nn.recurrent import gru_pass, gru_step, states_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from lifelong.data.batches import Batch

HALF_LIVES = (10.0, 50.0, 250.0, 1250.0)
"""In events: by how much a count weighs less with its age."""
HOUR, DAY = 3_600.0, 86_400.0
DAY_HALF_LIVES = (7.0, 60.0)
"""The same in days."""
FEATURES = 6 + len(HALF_LIVES) + len(DAY_HALF_LIVES)
"""P: has a cell, is faded, log of count, log of age in events and in hours, rank of the value, and the log of the count
at each decay."""
OWN = FEATURES + 1
"""Numbers of a value beside its vector: the weights of its counts, and the logarithm of its popularity."""
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
    steady: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.3, metadata={"help": "weight of the head that sees counts alone in the logit"}
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the heads' hidden units dropped in training"}
    )


class TallyMemory(NamedTuple):
    """Slots, clock, cells, and bits of values that lost their cell."""

    count_B: Tensor
    slot_BSD: Tensor
    clock_BJX: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class CountMemory(NamedTuple):
    """The same without slots."""

    count_B: Tensor
    clock_BJX: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class _Seen(NamedTuple):
    """What a read needs of a memory."""

    count_BC: Tensor
    slot_BCSD: Tensor
    clock_BCJX: Tensor
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

    Each field has a vector, weights of counts and a popularity; an item field, which come first, also a key, and so has
    the gap, which comes last of an event.

    Args:
        fields: item fields.
        dim: width of a field's vector.
        gap_at: where in an embedded context the key of the gap is; None if it is not read.
    """

    fields: int
    dim: int
    gap_at: int | None = None

    def vectors(self, embedded: Tensor) -> Tensor:
        """The vectors alone, one after another."""
        return torch.cat([part[..., : self.dim].flatten(-2) for part in self._parts(embedded)], dim=-1)

    def weights(self, embedded: Tensor) -> Tensor:
        """Weights of counts of each item field: `[..., F, P]`."""
        return self._parts(embedded)[0][..., self.dim : self.dim + FEATURES]

    def popularity(self, embedded: Tensor) -> Tensor:
        """Logarithms of the shares of all targets that have each value: `[..., F]`; nothing is learned of them."""
        return self._parts(embedded.detach())[0][..., self.dim + FEATURES]

    def keys(self, embedded: Tensor) -> Tensor:
        """Keys of the item fields: int64 `[..., F]`."""
        return self._parts(embedded.detach())[0][..., -1].round().long()

    def gap_keys(self, embedded: Tensor) -> Tensor:
        """Keys of the gaps before embedded events: int64 `[...]`; 0 where the log has no times."""
        timed = self._width(embedded) % (self.dim + OWN)
        last = embedded.detach()[..., -1]
        return (last if timed else torch.zeros_like(last)).round().long()

    def context(self, embedded: Tensor) -> Tensor:
        """An embedded context without the key of the gap."""
        at = self.gap_at
        return embedded if at is None else torch.cat([embedded[..., :at], embedded[..., at + 1 :]], dim=-1)

    def _width(self, embedded: Tensor) -> int:
        """Of what follows the item fields."""
        return embedded.shape[-1] - self.fields * (self.dim + OWN + 1)

    def _parts(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        width = self.dim + OWN
        last, others = self.fields * (width + 1), self._width(embedded) // width
        item, other = embedded[..., :last], embedded[..., last : last + others * width]
        return (
            item.reshape(*item.shape[:-1], self.fields, width + 1),
            other.reshape(*other.shape[:-1], others, width),
        )


class TallyHead(nn.Module):
    """The head with the weighted counts straight to the logit, the head of the counts alone, and their sum.

    Args:
        head: the head that all models share.
        counter: the same for counts and context.
        tasks: T.
        split: takes what it may see of the vectors: keys and weights of counts are no quantities.
        counts: how many numbers of the interest, before the weighted counts, are counts.
        steady: s, the weight of the second head.
    """

    def __init__(self, head: Head, counter: Head, *, tasks: int, split: Split, counts: int, steady: float) -> None:
        super().__init__()
        self.head, self.counter, self.split, self.counts, self.steady = head, counter, split, counts, steady
        self.direct = nn.Linear(split.fields, tasks, bias=False)
        nn.init.ones_(self.direct.weight)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`: the weighted sum of both."""
        return self.mixed(*self.members(interest, target, context))

    def mixed(self, first: Tensor, second: Tensor) -> Tensor:
        """The weighted sum of both heads' logits."""
        return (1 - self.steady) * first + self.steady * second

    def members(self, interest: Tensor, target: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[..., T]` of either; the interest ends in the counts and the weighted counts of each field."""
        logit: Tensor = self.head(interest, self.split.vectors(target), self.split.context(context))
        weighted = interest[..., -self.split.fields :]
        counted = interest[..., : -self.split.fields][..., -self.counts :]
        return logit + self.direct(weighted), self.counter(counted, counted[..., :0], self.split.context(context))


class Tally(MemoryModel[Any]):
    """Counts of what the user meets most and of late, and slots for the sequence."""

    Config = TallyConfig
    title = "Tally"
    source = "this package; slots of Ren et al., SIGIR 2019"
    state = "slots, and a bounded table of counters"
    vector_spread = 0.3
    takes_counts = False
    head: TallyHead
    reads_popularity = True
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
        steady: float = 0.3,
        dropout: float = 0.1,
    ) -> None:
        fields = len(inputs.item)
        levels = clock_levels(inputs)
        counts = fields * (FEATURES + kind + 2) + 1 + levels
        counted = counts + fields
        interest = counted + (2 * width if periods else 0)
        timed = [field for field in inputs.event if field == "gap"]
        super().__init__(
            inputs, embedding=embedding + OWN, interest=interest, dropout=dropout, keys=(*inputs.item, *timed)
        )
        read = self.context_fields
        gap_at = sum(self.embed.widths(read[: read.index("gap") + 1])) - 1 if timed and "gap" in read else None
        self.split, self.levels = Split(fields, embedding, gap_at), levels
        self.width, self.periods = width, _periods_or_none(tuple(periods))
        self._restart()
        self.kinds = 2 + len(TIMES) * (AGES // AGE_STEPS)
        self.kind = nn.Embedding(fields * self.kinds, kind)
        nn.init.normal_(self.kind.weight, std=STD_VECTORS)
        settings = {"state": state, "width": width, "periods": periods, "faded": faded, "shares": shares}
        try:
            self.plan = plan_of({**settings, "patience": patience}, inputs)
        except ValueError as error:
            raise ConfigError(
                [f"model of {fields} item fields: {error}"], fix="change model.state or model.shares"
            ) from error
        event, target = embedding * len(self.history_fields), embedding * fields
        context = self.context_width - (gap_at is not None)
        plain = Head(interest + target + context, len(inputs.tasks), dropout=dropout)
        counter = Head(counts + context, len(inputs.tasks), dropout=dropout)
        self.head = TallyHead(plain, counter, tasks=len(inputs.tasks), split=self.split, counts=counts, steady=steady)
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

    def _restart(self) -> None:
        """Small vectors, smaller weights of counts; until popularities are known, all values are equally popular."""
        dim, popularity = self.split.dim, self.split.dim + FEATURES
        with torch.no_grad():
            self.embed.restart(STD_VECTORS)
            for table in self.embed.tables.values():
                table.weight[1:, dim:].normal_(std=STD)
                table.weight[:, popularity] = -math.log(table.num_embeddings)
            for vectors in self.embed.scales.values():
                vectors.weight[:, dim:].normal_(std=STD)
                vectors.weight[:, popularity] = 0.0

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
        """Without what a value has beside its vector."""
        return self.split.dim

    def learn_popularity(self, counts: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Logarithms of the shares of the targets that have each value, one more target for each."""
        with torch.no_grad():
            for field, table in self.embed.tables.items():
                if field in counts:
                    share_V = (counts[field] + 1) / max(1.0, counts[field].sum())
                    table.weight[:, self.split.dim + FEATURES] = torch.from_numpy(np.log(share_V)).to(table.weight)

    @property
    def cells(self) -> CellPacking:
        """Sorted by key, in about three bytes a cell."""
        return CellPacking(self.plan.cells_F, values_of(list(self.inputs.item.values())))

    def initial_memory(self, num_users: int) -> Any:
        """Empty slots and cells."""
        weight = next(self.head.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        clock = empty_clock(num_users, self.levels, device=weight.device)
        counted = (clock, *empty_cells(num_users, self.plan, device=weight.device))
        if not self.periods:
            return CountMemory(count_B, *counted)
        return TallyMemory(count_B, weight.new_zeros(num_users, len(self.periods), self.width), *counted)

    def write_vector(self, memory: Any, event_BE: Tensor) -> Any:
        """Step the slots that are due, mark the time, and count."""
        count_B = memory.count_B + 1
        clock = tick(memory.clock_BJX, self.split.gap_keys(event_BE), count_B)
        cells = write_cells(
            memory.cell_BKX, memory.faded_BW, self.split.keys(event_BE), count_B, stale_N=self.stale_N, plan=self.plan
        )
        if not self.periods:
            return CountMemory(count_B, clock, *cells)
        layer_input, slots = self.split.vectors(event_BE), []
        for layer, period, slot_BD in zip(self.layers, self.periods, memory.slot_BSD.unbind(1), strict=True):
            due_B1 = (count_B % period == 0).unsqueeze(-1)
            layer_input = torch.where(due_B1, gru_step(layer, layer_input, slot_BD), slot_BD)
            slots.append(layer_input)
        return TallyMemory(count_B, torch.stack(slots, dim=1), clock, *cells)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Any:
        """Slots layer by layer, cells by the compiled replay."""
        from lifelong.nn.cell_replay import cells_at

        event_BLE = clear_padding(event_BLE, length_B)
        clock = clock_at(self.split.gap_keys(event_BLE), position_BC, self.levels)
        cells = cells_at(self.split.keys(event_BLE), position_BC, self.stale_N, self.plan)
        if not self.periods:
            return CountMemory(position_BC, clock, *cells)
        return TallyMemory(position_BC, self._slots_at(event_BLE, length_B, position_BC), clock, *cells)

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
        return self._interest(_Seen(memory.count_B, slot_BCSD, memory.clock_BJX, *found), target_BCE)

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
        """What is counted: the numbers that both heads see, and behind them of each field the weighted sum.

        Of each field what `FEATURES` names, the vector of its kind of cell, its popularity, and how much more often the
        value was met than anybody would have; how many events the user has had, and how long they took.
        """
        dtype = target_BCE.dtype
        cell_BCF = (seen.times_BCF > 0).to(dtype)
        times_BCF = torch.log1p(seen.times_BCF.to(dtype))
        age_BCF = self.age_A[seen.age_BCF].to(dtype)
        # Known items are numbered by falling frequency.
        rank_BCF = torch.log1p(self.split.keys(target_BCE).clamp(min=0).to(dtype)) / self.scale_F.to(dtype)
        seconds_BCF = elapsed(seen.clock_BCJX, seen.count_BC, self.age_A[seen.age_BCF], dtype)
        parts = [cell_BCF, seen.faded_BCF.to(dtype), times_BCF, cell_BCF * torch.log1p(age_BCF) / 4]
        parts += [cell_BCF * torch.log1p(seconds_BCF / HOUR) / 4, rank_BCF]
        parts += [times_BCF * torch.exp2(-age_BCF / half_life) for half_life in HALF_LIVES]
        parts += [times_BCF * torch.exp2(-seconds_BCF / (DAY * days)) for days in DAY_HALF_LIVES]
        part_BCFP = torch.stack(parts, dim=-1)
        kind_BCX = self.kind(self._kind_of(seen)).flatten(-2)
        weighted_BCF = (part_BCFP * self.split.weights(target_BCE)).sum(dim=-1)
        popular_BCF = self.split.popularity(target_BCE).to(dtype)
        more_BCF = times_BCF - torch.log1p(popular_BCF.exp() * seen.count_BC.unsqueeze(-1))
        active_BC = torch.log1p(seen.count_BC.to(dtype)) / 4
        active_BC1 = active_BC.unsqueeze(-1).expand(*target_BCE.shape[:-1], 1)
        pace_BCJ = torch.log1p(spans(seen.clock_BCJX).to(dtype) / HOUR) / 4
        pace_BCJ = pace_BCJ.expand(*target_BCE.shape[:-1], -1)
        # Against values that are all equally popular.
        above_BCF = (popular_BCF + self.scale_F.to(dtype)) / 3
        counts = [part_BCFP.flatten(-2), kind_BCX, above_BCF, more_BCF, active_BC1, pace_BCJ]
        return torch.cat([*counts, weighted_BCF], dim=-1)

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
        clock = clock_at(self.split.gap_keys(event_BLE), batch.position_BC, self.levels)
        seen = _Seen(batch.position_BC, self._slots_at(event_BLE, batch.length_B, batch.position_BC), clock, *found)
        real_N = batch.mask_BC.flatten().nonzero().squeeze(-1)
        context_BCE = self.embed_context(batch.context_BCF)
        target_1NE, context_1NE = pick(_Asked(target_BCE, context_BCE), real_N)
        interest_1ND, attention_1NS = self._interest(pick(seen, real_N), target_1NE)
        heads = self.head.members(interest_1ND, target_1NE, context_1NE)
        first, second = (spread_targets(logit_1NT.squeeze(0), batch.mask_BC) for logit_1NT in heads)
        attention = None if attention_1NS is None else spread_targets(attention_1NS.squeeze(0), batch.mask_BC)
        return Output(self.head.mixed(first, second), attention_BCS=attention, members=(first, second))
