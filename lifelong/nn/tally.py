"""The memory of Tally: counting cells and a clock, with the periodic slots of HPMN and sums of fixed factors.

    event --keys----> one cell of each field: count + 1, age 0; the stalest gives way, and leaves two bits      step
          |-gap-----> clock: the time of every 2^j-th event
          |-item----> repeats: was it met before?
          |-vector--> GRU_1 --> slot 1 --every k-th--> GRU_2 --> slot 2 ...
          `-factor--> sums
    target --keys----> count, age, faded of each of its values --decays, logarithms--> c_f of field f           read
           |-factor--> affinities, a part of c
           `-[vector ; c]--W_q--> q, attention over the slots --> h
    interest = [h ; q * h ; c]

A recurrent state cannot hold how often a user met each of a hundred thousand items, and how often and how long ago is
what predicts her next response best. The cells hold just that, for the values that she meets most and most recently;
slots hold what sequences tell beyond. What is in the cells does not depend on learned weights: training reads it off a
compiled replay of the history, and learns only what to make of it.

Source: this package (`cells.py`, `clock.py`); slots of Ren et al., SIGIR 2019 (`hpmn.py`).

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event, Q
width of an embedded target, F counted fields, K cells, W words of faded bits, J levels of the clock, P features of a
field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lifelong.data.cell_plan import (
    AGE_KINDS,
    CLOCK_LEVELS,
    MARKS,
    NUMBER_BYTES,
    CellPlan,
    CellScale,
    first_kinds,
    plan_cells,
)
from lifelong.nn.affinity import Affinity, Sums
from lifelong.nn.cells import empty_cells, find_cells, staleness, write_cells
from lifelong.nn.clock import clock_at, elapsed, empty_clock, spans, tick
from lifelong.nn.hpmn import HpmnMemory, Slots
from lifelong.nn.masks import length_mask
from lifelong.nn.repeats import repeat, repeat_shares

HALF_LIVES = (10.0, 50.0, 250.0, 1250.0)
"""In events: by how much a count weighs less with its age."""
HOUR, DAY = 3_600.0, 86_400.0
DAY_HALF_LIVES = (7.0, 60.0)
"""Half-lives in days."""
FEATURES = 6 + len(HALF_LIVES) + len(DAY_HALF_LIVES)
"""P: has a cell, is faded, log of count, log of age in events and in hours, rank of the value, and the log of the count
at each decay."""
STD_KIND = 0.1
"""Spread of the initial embeddings of kinds of cells."""
TIMES = (1, 2, 3, 4, 6, 9, 14, 25, 60)
"""Where kinds of cells begin, by their counts."""
KINDS = 2 + len(TIMES) * AGE_KINDS
"""Kinds of cells of a field: none, none but faded, and each pair of a range of counts and one of ages."""


class Counts(NamedTuple):
    """Memories of B users that count."""

    count_B: Tensor
    """int64: events so far."""
    clock_BJX: Tensor
    """int32, see `clock.py`; before its levels the row of what `repeats.py` counts."""
    cell_BKX: Tensor
    """int16, see `cells.py`."""
    faded_BW: Tensor
    """int16: bits of values that lost their cell."""


class SlotsAndCounts(NamedTuple):
    """Memories of B users with slots that count, too."""

    count_B: Tensor
    slot_BSD: Tensor
    clock_BJX: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class SumsAndCounts(NamedTuple):
    """Memories of B users with sums of factors that count, too."""

    count_B: Tensor
    sums_BKD: Tensor
    """See `affinity.py`."""
    clock_BJX: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


class SlotsAndSums(NamedTuple):
    """The part of a memory that does not count, with slots and sums."""

    count_B: Tensor
    slot_BSD: Tensor
    sums_BKD: Tensor


class SlotsSumsAndCounts(NamedTuple):
    """Memories of B users with all three parts."""

    count_B: Tensor
    slot_BSD: Tensor
    sums_BKD: Tensor
    clock_BJX: Tensor
    cell_BKX: Tensor
    faded_BW: Tensor


Learned = Slots | Sums | SlotsAndSums | None
"""The part of a memory that does not count."""
Whole = Counts | SlotsAndCounts | SumsAndCounts | SlotsSumsAndCounts
"""A memory, by the parts that it has."""
_WHOLE: dict[type[Any], type[Any]] = {
    Slots: SlotsAndCounts,
    Sums: SumsAndCounts,
    SlotsAndSums: SlotsSumsAndCounts,
}


class Seen(NamedTuple):
    """What the counts of a memory say about the values of targets."""

    count_BC: Tensor
    """int64: events of the user."""
    clock_BCJX: Tensor
    times_BCF: Tensor
    """int64: how often the value was met; 0 where it has no cell."""
    age_BCF: Tensor
    """int64: step of the scale of ages of its last event."""
    faded_BCF: Tensor
    """bool: it had a cell once, barring collisions."""


class SeenNumbers(NamedTuple):
    """`Seen` as the numbers that a read begins with: a service computes them in a compiled loop."""

    number_BCFX: Tensor
    """Count, age in events and in hours, and rank of each value; of one without a cell the first three are 0."""
    flag_BCFX: Tensor
    """Whether it has a cell, and whether it had one: 0 or 1."""
    kind_BCF: Tensor
    """int64: its kind of cell, by which `CountMemory.kind` embeds it."""
    user_BCX: Tensor
    """What is known of the user: how many events she had, how long they took, what share of them repeated an item."""


def counted_size(fields: int, *, kind: int, levels: int = CLOCK_LEVELS, repeats: bool = True) -> int:
    """How many numbers `CountMemory.features` gives of a target."""
    return fields * (FEATURES + kind + 2) + 1 + levels + 2 * repeats


class CountMemory(nn.Module):
    """Counts which values a user met, how often and how long ago, in a memory of fixed size.

    A key is a whole number from 0 to 65,535 that stands for a value of a field, such as an item; a negative one is not
    counted (padding, unknown values). Keys should be numbered by falling frequency, as their rank is a feature.

    Args:
        sizes: how many values each field has, about.
        state: bytes of a stored memory at most: clock, cells and bits.
        faded: share of cells and bits that are bits of values without a cell.
        shares: how cells are shared out over the fields; empty for 1, 1/2, 1/3 ...
        patience: events for which a doubled count holds a cell; 0 keeps the latest values.
        kind: width of the embedding that stands for a count and an age together.
        levels: J; 1 where the times of events are not known.
        repeats: whether to count how many events repeat a value of the first field.
        scale: how finely cells keep counts and ages.

    Raises:
        ValueError: too few bytes, or shares of another number of fields.

    >>> counts = CountMemory(sizes=(1000, 20), state=600)
    >>> key_BLF = torch.tensor([[[7, 3], [8, 3], [7, -1]]])
    >>> memory = counts(key_BLF, gap_BL=torch.tensor([[0, 60, 3600]]), position_BC=torch.tensor([[2, 3]]))
    >>> counts.look(memory, torch.tensor([[[7, 3], [7, 3]]])).times_BCF.tolist()
    [[[1, 2], [2, 2]]]
    """

    stale_N: Tensor
    age_A: Tensor
    scale_F: Tensor
    unit_FX: Tensor
    """What the logarithms of count, age in events and in hours, and rank are divided by."""
    decay_XX: Tensor
    kind_T: Tensor
    kind_F: Tensor
    levels: int
    size: int

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        state: int = 3_584,
        faded: float = 0.4,
        shares: Sequence[float] = (),
        patience: int = 400,
        kind: int = 8,
        levels: int = CLOCK_LEVELS,
        repeats: bool = True,
        scale: CellScale = CellScale.COARSE,
    ) -> None:
        super().__init__()
        left = state - NUMBER_BYTES * (levels + repeats) * MARKS
        self.plan: CellPlan = plan_cells(
            left, sizes, faded=faded, shares=shares, patience=patience, repeats=repeats, scale=scale
        )
        self.levels = levels
        self.size = counted_size(len(sizes), kind=kind, levels=levels, repeats=repeats)
        self.kind: nn.Embedding = nn.Embedding(len(sizes) * KINDS, kind)
        nn.init.normal_(self.kind.weight, std=STD_KIND)
        self.register_buffer("scale_F", torch.tensor([math.log(size) for size in sizes]), persistent=False)
        units = [[1.0, 4.0, 4.0, math.log(size)] for size in sizes]
        self.register_buffer("unit_FX", torch.tensor(units), persistent=False)
        self.register_buffer("decay_XX", _decays(), persistent=False)
        self.register_buffer("kind_T", torch.from_numpy(first_kinds(TIMES)), persistent=False)
        # The embeddings of all fields lie in one table, field after field.
        self.register_buffer("kind_F", KINDS * torch.arange(len(sizes)), persistent=False)
        self.register_buffer("stale_N", staleness(self.plan), persistent=False)
        self.register_buffer("age_A", torch.tensor(self.plan.scale.ages()), persistent=False)

    def initial(self, num_users: int) -> Counts:
        """Memories of users without events."""
        device = self.kind.weight.device
        count_B = torch.zeros(num_users, dtype=torch.int64, device=device)
        clock_BJX = empty_clock(num_users, self.levels + self.plan.repeats, device=device)
        return Counts(count_B, clock_BJX, *empty_cells(num_users, self.plan, device=device))

    def step(self, memory: Counts, key_BF: Tensor, gap_B: Tensor) -> Counts:
        """Count one event of each user; the specification of `forward`.

        Args:
            memory: before the event.
            key_BF: int64 keys.
            gap_B: int64 seconds since the user's event before; 0 for the first.
        """
        count_B = memory.count_B + 1
        cells = write_cells(memory.cell_BKX, memory.faded_BW, key_BF, count_B, stale_N=self.stale_N, plan=self.plan)
        plan, parts_N = self.plan, []
        if plan.repeats:
            # Whether the event repeats an item is asked of the memory before it.
            before = memory.cell_BKX.unsqueeze(1), memory.faded_BW.unsqueeze(1)
            found = find_cells(*before, key_BF.unsqueeze(1), plan)
            parts_N.append(repeat(memory.clock_BJX[:, 0], found).unsqueeze(1))
        # First: levels that are empty come last, and are not stored.
        clock_BJX = torch.cat([*parts_N, tick(memory.clock_BJX[:, plan.repeats :], gap_B, count_B)], dim=1)
        return Counts(count_B, clock_BJX, *cells)

    def forward(self, key_BLF: Tensor, gap_BL: Tensor, position_BC: Tensor) -> Counts:
        """The memories after the first `position` events, bit for bit: fields `[B, C, ...]`.

        Args:
            key_BLF: int64 keys, left-aligned; negative in padding. L may be 0.
            gap_BL: int64 seconds since the event before; anything in padding.
            position_BC: int64, at most the user's number of events.
        """
        # Compiling takes seconds where nothing is cached yet.
        from lifelong.nn.cell_replay import cells_at

        *cells, row_BCRX = cells_at(key_BLF, position_BC, self.stale_N, self.plan)
        clock_BCJX = self.clock_at(gap_BL, position_BC, row_BCRX)
        return Counts(position_BC, clock_BCJX, *cells)

    def look(self, memory: Counts, key_BCF: Tensor) -> Seen:
        """What memories `[B, C, ...]` or `[B, 1, ...]` say about targets' keys."""
        found = find_cells(memory.cell_BKX, memory.faded_BW, key_BCF, self.plan)
        return Seen(memory.count_B, memory.clock_BJX, *found)

    def look_at(self, key_BLF: Tensor, gap_BL: Tensor, position_BC: Tensor, asked_BCF: Tensor) -> Seen:
        """What `look` gives for the memories of `forward`, which are never made: the form for training."""
        from lifelong.nn.cell_replay import cells_found

        found, row_BCRX = cells_found(key_BLF, position_BC, asked_BCF, self.stale_N, self.plan)
        return Seen(position_BC, self.clock_at(gap_BL, position_BC, row_BCRX), *found)

    def clock_at(self, gap_BL: Tensor, position_BC: Tensor, row_BCRX: Tensor) -> Tensor:
        """The field `clock_BJX` after `position` events, `[B, C, R + J, 2]`.

        Args:
            gap_BL: int64 seconds since the event before.
            position_BC: int64.
            row_BCRX: the row before its levels, if there is one, at these positions.
        """
        clock_BCJX = clock_at(gap_BL, position_BC, self.levels)
        return torch.cat([row_BCRX.to(clock_BCJX), clock_BCJX], dim=-2)

    def numbers(self, seen: Seen, key_BCF: Tensor, seconds_BCF: Tensor | None = None) -> SeenNumbers:
        """What was seen, without popularity and learned weights; `lifelong.memory.cell_kernel` gives the same.

        Args:
            seen: from `look` or `look_at`.
            key_BCF: the targets' keys.
            seconds_BCF: since each value's last event, see `clock.elapsed`; None to compute them.
        """
        dtype, clock_BCJX = self.kind.weight.dtype, seen.clock_BCJX[..., self.plan.repeats :, :]
        if seconds_BCF is None:
            seconds_BCF = elapsed(clock_BCJX, seen.count_BC, self.age_A[seen.age_BCF], dtype)
        numbers = [seen.times_BCF, self.age_A[seen.age_BCF], seconds_BCF / HOUR, key_BCF.clamp(min=0)]
        number_BCFX = torch.stack([number.to(dtype) for number in numbers], dim=-1)
        flag_BCFX = torch.stack([flag.to(dtype) for flag in (seen.times_BCF > 0, seen.faded_BCF)], dim=-1)
        count_BC1 = seen.count_BC.to(dtype).unsqueeze(-1)
        of_user = [torch.log1p(torch.cat([count_BC1, spans(clock_BCJX).to(dtype) / HOUR], dim=-1)) / 4]
        if self.plan.repeats:
            of_user.append(repeat_shares(seen.clock_BCJX[..., 0, :], count_BC1))
        user = torch.cat(of_user, dim=-1).expand(*key_BCF.shape[:-1], -1)
        return SeenNumbers(number_BCFX, flag_BCFX, self._kind_of(seen), user)

    def features(
        self, seen: SeenNumbers, count_BC: Tensor, popularity_BCF: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is seen, as numbers of about unit size: all of them `[B, C, size]`, and the features `[B, C, F, P]`.

        They are, of each field, what `FEATURES` names, the embedding of its kind of cell, its popularity, and how much
        more often the value was met than anybody would have in as many events; and what is known of the user.

        Args:
            seen: from `numbers`.
            count_BC: int64 events of each memory; `[B, C]` or `[B, 1]`.
            popularity_BCF: logarithms of the shares of all targets that have each value, as it was before these were
                seen; None where all values are equally popular.
        """
        number_BCFX, dtype = seen.number_BCFX, seen.number_BCFX.dtype
        scale_F = self.scale_F.to(dtype)
        log_BCFX = torch.log1p(number_BCFX) / self.unit_FX.to(dtype)
        decayed_BCFX = log_BCFX[..., :1] * torch.exp(number_BCFX @ self.decay_XX.to(dtype))
        part_BCFP = torch.cat([seen.flag_BCFX, log_BCFX, decayed_BCFX], dim=-1)
        log_times_BCF = log_BCFX[..., 0]
        popularity_BCF = (-scale_F).expand_as(log_times_BCF) if popularity_BCF is None else popularity_BCF
        more_BCF = log_times_BCF - torch.log1p(popularity_BCF.exp() * count_BC.to(dtype).unsqueeze(-1))
        # Against values that are all equally popular.
        above_BCF = (popularity_BCF + scale_F) / 3
        kind_BCX = self.kind(seen.kind_BCF).flatten(-2)
        return torch.cat([part_BCFP.flatten(-2), kind_BCX, above_BCF, more_BCF, seen.user_BCX], dim=-1), part_BCFP

    def _kind_of(self, seen: Seen) -> Tensor:
        """Which kind of cell each value has: none, faded, or by its count and its age together; int64 `[B, C, F]`."""
        age_BCF = seen.age_BCF // (self.plan.scale.age_steps // 2)
        # Where there is no cell the age is 0, too.
        return self.kind_T[seen.times_BCF.clamp(max=TIMES[-1])] + age_BCF + seen.faded_BCF.long() + self.kind_F


def _decays() -> Tensor:
    """Exponents of the decays, by count, age in events and in hours, and rank: float64 `[4, decays]`."""
    events = [[0.0, -math.log(2) / half_life, 0.0, 0.0] for half_life in HALF_LIVES]
    days = [[0.0, 0.0, -math.log(2) * HOUR / (DAY * half_life), 0.0] for half_life in DAY_HALF_LIVES]
    return torch.tensor([*events, *days], dtype=torch.float64).T.contiguous()


class TallyEvents(NamedTuple):
    """Events of B users: whole histories, left-aligned, or one event of each without the axis L."""

    vector_BLE: Tensor
    """Embedded events."""
    key_BLF: Tensor
    """int64 keys of their values, see `CountMemory`."""
    gap_BL: Tensor
    """int64 seconds since the user's event before; 0 for the first."""
    factor_BLD: Tensor | None = None
    """Their fixed factors, see `affinity.py`."""


class TallyTargets(NamedTuple):
    """C targets of each of B users."""

    vector_BCQ: Tensor
    """Embedded targets."""
    key_BCF: Tensor
    """int64 keys of their values."""
    popularity_BCF: Tensor | None = None
    """See `CountMemory.features`."""
    weight_BCFP: Tensor | None = None
    """Trained weights of each value for its features: one item is bought again and again by few users, another one once
    by everybody."""
    factor_BCD: Tensor | None = None
    """Their fixed factors."""


class TallyMemory(nn.Module):
    """Counts, slots for the sequence, and sums of factors.

    Args:
        counts: the counting part.
        slots: of one hop. Its queries are a target and what is counted of it: `query_size` = Q + `counts.size`, with
            `affinity` its size more, and F more if targets have weights. None: no slots.
        affinity: the sums; None for none.

    >>> counts = CountMemory(sizes=(1000, 20), state=600)
    >>> slots = HpmnMemory(4, query_size=3 + counts.size, width=2, periods=(1, 3), hops=1, aligned=3)
    >>> tally = TallyMemory(counts, slots)
    >>> events = TallyEvents(torch.randn(1, 5, 4), torch.randint(0, 20, (1, 5, 2)), torch.full((1, 5), 60))
    >>> at = tally(events, length_B=torch.tensor([5]), position_BC=torch.tensor([[3, 5]]))
    >>> targets = TallyTargets(torch.randn(1, 2, 3), torch.tensor([[[7, 3], [8, -1]]]))
    >>> interest_BCX, attention_BCS = tally.read(at, targets)
    >>> interest_BCX.shape[-1] == 2 * slots.width + counts.size
    True
    >>> kept = tally.step(tally.initial(1), TallyEvents(*(part[:, 0] for part in events[:3])))
    """

    counts: CountMemory
    slots: HpmnMemory | None
    affinity: Affinity | None

    def __init__(self, counts: CountMemory, slots: HpmnMemory | None = None, affinity: Affinity | None = None) -> None:
        super().__init__()
        self.counts, self.slots, self.affinity = counts, slots, affinity

    def initial(self, num_users: int) -> Whole:
        """Memories of users without events."""
        slots = None if self.slots is None else self.slots.initial(num_users)
        sums_BKD = None if self.affinity is None else self.affinity.initial(num_users)
        counts = self.counts.initial(num_users)
        return _joined(counts, _learned(counts.count_B, slots, sums_BKD))

    def step(self, memory: Whole, event: TallyEvents) -> Whole:
        """Fold one event of each user into the memories; the specification of `forward`."""
        counts, learned = parted(memory)
        return _joined(self.counts.step(counts, event.key_BLF, event.gap_BL), self.step_learned(learned, event))

    def step_learned(self, learned: Learned, event: TallyEvents) -> Learned:
        """`step` of the part that does not count."""
        if learned is None:
            return None
        slots, sums_BKD = _slots_and_sums(learned)
        if self.slots is not None and slots is not None:
            slots = self.slots.step(slots, event.vector_BLE)
        if self.affinity is not None and sums_BKD is not None and event.factor_BLD is not None:
            sums_BKD = self.affinity.step(sums_BKD, event.factor_BLD)
        return _learned(learned.count_B + 1, slots, sums_BKD)

    def forward(self, events: TallyEvents, length_B: Tensor, position_BC: Tensor) -> Whole:
        """The memories after the first `position` events: fields `[B, C, ...]`.

        Args:
            events: padding may hold anything, NaN too; L may be 0.
            length_B: int64 real events of each user.
            position_BC: int64, at most the user's length.
        """
        counts = self.counts(_real_keys(events, length_B), events.gap_BL, position_BC)
        return _joined(counts, self._learned_at(events, length_B, position_BC))

    def look_at(
        self, events: TallyEvents, length_B: Tensor, position_BC: Tensor, asked_BCF: Tensor
    ) -> tuple[Seen, Learned]:
        """What a read of the memories of `forward` needs, without the cells that no target asks for: for training."""
        seen = self.counts.look_at(_real_keys(events, length_B), events.gap_BL, position_BC, asked_BCF)
        return seen, self._learned_at(events, length_B, position_BC)

    def _learned_at(self, events: TallyEvents, length_B: Tensor, position_BC: Tensor) -> Learned:
        slots = None if self.slots is None else self.slots(events.vector_BLE, length_B, position_BC)
        if self.affinity is None or events.factor_BLD is None:
            return slots
        return _learned(position_BC, slots, self.affinity(events.factor_BLD, position_BC))

    def read(self, memory: Whole, target: TallyTargets) -> tuple[Tensor, Tensor | None]:
        """Interest in each target, and the attention over the slots `[B, C, S]`, None without slots.

        The interest is what attention finds and its product with the query, `[B, C, 2 D]`, if there are slots; what is
        counted of the target, see `CountMemory.features`; its affinities, see `Affinity.read`, if there are sums; and
        of each field the sum of its features under the target's weights, if it has some.

        Args:
            memory: fields `[B, C, ...]` (from `forward`) or `[B, 1, ...]` (one memory for all targets of a user).
            target: the targets.
        """
        counts, learned = parted(memory)
        return self.read_seen(self.counts.look(counts, target.key_BCF), learned, target)

    def read_seen(self, seen: Seen, learned: Learned, target: TallyTargets) -> tuple[Tensor, Tensor | None]:
        """`read` from what `look_at` gives."""
        return self.read_numbers(self.counts.numbers(seen, target.key_BCF), seen.count_BC, learned, target)

    def read_numbers(
        self, seen: SeenNumbers, count_BC: Tensor, learned: Learned, target: TallyTargets
    ) -> tuple[Tensor, Tensor | None]:
        """`read` from what `CountMemory.numbers` gives and the events of each memory; of the targets no keys."""
        slots, sums_BCKD = _slots_and_sums(learned)
        counted_BCX, part_BCFP = self.counts.features(seen, count_BC, target.popularity_BCF)
        if self.affinity is not None and sums_BCKD is not None and target.factor_BCD is not None:
            counted_BCX = torch.cat([counted_BCX, self.affinity.read(sums_BCKD, target.factor_BCD)], dim=-1)
        if target.weight_BCFP is not None:
            counted_BCX = torch.cat([counted_BCX, (part_BCFP * target.weight_BCFP).sum(dim=-1)], dim=-1)
        if self.slots is None or slots is None:
            return counted_BCX, None
        reader = self.slots.reader
        query_BCD = reader.query(torch.cat([target.vector_BCQ, counted_BCX], dim=-1))
        found_BCD, weight_BCS = reader.attend(query_BCD, slots.slot_BSD, self.slots.filled(slots))
        return torch.cat([found_BCD, query_BCD * found_BCD, counted_BCX], dim=-1), weight_BCS


def _real_keys(events: TallyEvents, length_B: Tensor) -> Tensor:
    """Keys with nothing to count in padding."""
    real_BL1 = length_mask(length_B, events.key_BLF.shape[1]).unsqueeze(-1)
    return events.key_BLF.masked_fill(~real_BL1, -1)


def parted(memory: Whole) -> tuple[Counts, Learned]:
    """A memory as its counts, and the part that does not count if it has one."""
    for learned, whole in _WHOLE.items():
        if isinstance(memory, whole):
            size = len(learned._fields)
            return Counts(memory.count_B, *memory[size:]), learned(*memory[:size])
    assert isinstance(memory, Counts)
    return memory, None


def _joined(counts: Counts, learned: Learned) -> Whole:
    if learned is None:
        return counts
    whole: Whole = _WHOLE[type(learned)](counts.count_B, *learned[1:], *counts[1:])
    return whole


def _learned(count_B: Tensor, slots: Slots | None, sums: Tensor | None) -> Learned:
    """The part that does not count, of what there is of it."""
    if sums is None:
        return slots
    return Sums(count_B, sums) if slots is None else SlotsAndSums(count_B, slots.slot_BSD, sums)


def _slots_and_sums(learned: Learned) -> tuple[Slots | None, Tensor | None]:
    """The inverse of `_learned`."""
    if isinstance(learned, SlotsAndSums):
        return Slots(learned.count_B, learned.slot_BSD), learned.sums_BKD
    return (None, learned.sums_BKD) if isinstance(learned, Sums) else (learned, None)
