"""Tally: the periodic slots of HPMN, a table that counts, and sums of factors, in a memory of fixed size.

Slots: Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR
2019. Counting cells and faded bits: this package (`nn/cells.py`), after Bloom, CACM 1970.

    event --vectors--> GRU_1 --> slot 1 --every k-th--> GRU_2 --> slot 2 ...                      write
          |--keys----> one cell of each field: count + 1, age 0; the stalest gives way, and leaves two bits
          |--gap-----> clock: the time of every 2^j-th event
          |--item----> repeats: was it met before?
          `--factors-> sums s_1 <- s_1 + f, s_2 <- 2^(-1/100) s_2 + f
    target --keys----> count, age, faded of each of its values --decays, logarithms--> c_f of field f
           |-factors-> cosine with each sum, and how much of it there was: more of c
           `-[; c]--W--> q, attention over the slots --> h                                        read
    [h ; q * h ; c ; w_f c_f] --head--> + v w_f c_f + <V x, e> --> logit 1
    c --head of the counts alone--> logit 2                           logit = (1 - s) logit 1 + s logit 2

A recurrent state cannot hold how often a user met each of a hundred thousand items, and how often and how long ago is
what predicts the next response best. The cells hold just that, for the values that the user meets most often or met
lately, for the item and for each of its other fields; slots add what sequences tell. A count says more about some
values than about others: one item is bought again and again by few users, another once by everybody. So each value has
its own weights w for its counts, next to its embedding, and their result also reaches the logit directly. What is in
the cells does not depend on learned weights: training takes it from a compiled replay of the history, and learns only
what to make of it.

Two heads: one sees everything, the other only counts, times and the popularity of the target's values, and no learned
embeddings. Each learns by its own loss: what the first head makes of single values is noisy and goes out of date, what
the second one says is steady but knows no sequence, and their errors have little in common. The weight s is chosen on
validation, in twentieths: it grows with the length of training. Learned with the heads it would come out near 0, since
embeddings of single values are never fresher than in training.

Most targets are values that the user never met. Sums of fixed factors tell how well they suit her (`nn/affinity.py`):
each value of the first item fields has a unit vector, such that values of the same users point in similar directions,
and a user has the sum of the vectors of her events. The factors are made of the training period by
a singular value decomposition and not learned further. Both heads are given the cosine of the target's vector with the
sum. In training a user's factors are made of other users' events alone: her own would give her targets away
(`data/cooccurrence.py`). For the same reason the initial embeddings of these fields are those of other users' events,
too: a fixed difference to the one table that is trained and that serves.

What suits a moment depends on the item: breakfast in the morning, a flight at its hour. So the logit also has the
products of the target's embedding e with a linear map V of the context x, the hour, weekday and gap (`ContextMatch`).

Whether the next item is a known one depends on the user, too: one repeats most of what she had, another one explores.
So the memory also counts how many of all and of the last events repeated an item (`nn/repeats.py`); both heads read it.

Some users come back to an item after a number of events that is their own: every 61st, or every 75th. Two steps per
doubling cannot tell these ages apart, so that Tally does not see it.

How popular a value is, its share of the training targets, is counted in the training period and not learned; with it
the model compares how often the user met the value with how often anybody would have, in as many events. Training that
continues from an artifact takes the popularities of its own period.

Counts, ages and affinities are of very different sizes. The heads' first layers see them at mean 0 and deviation 1
(`nn/scaled.py`), both of the training period.

State: `state` bytes, 4,096 by default: a vector of `width` numbers per slot (a smaller state has no slots); two sums,
each of as many numbers as the factors have; the clock (`nn/clock.py`), 136 bytes; repeats, 8 bytes; of what remains,
`faded` of it bits for values that fell out, and the rest cells, shared out over the item fields. A cell has 9 bits for
its count and age (`scale`), and what its key needs among the sorted keys of its field, about 15 bits together. A user
who has not filled all that takes less: cells, levels of the clock, slots and bits that are empty are not stored, which
leaves about 600 bytes after two events.

Shapes: B users, L padded history length, C targets per user, S slots, D slot width, E width of an embedded event, F
item fields, K cells, W words of faded bits, P features of a field.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import embedding

from lifelong.data.batch import Batch
from lifelong.data.cell_plan import (
    KEYS,
    NO_KEY,
    NUMBER_BYTES,
    SUMS,
    WHOLE,
    CellPacking,
    CellScale,
    clock_levels,
    default_shares,
    factor_widths,
    values_of,
)
from lifelong.data.cooccurrence import group_of
from lifelong.data.counts import standardising
from lifelong.data.events import InputSpec
from lifelong.data.vocabulary import FIRST_BUCKET
from lifelong.dtypes import FloatArray
from lifelong.errors import ConfigError
from lifelong.models.base import CountingModel, Output, spread_targets
from lifelong.models.settings import Share, setting
from lifelong.nn.affinity import Affinity, affinity_size
from lifelong.nn.cells import Found
from lifelong.nn.clock import clock_at, seconds_of
from lifelong.nn.head import ContextMatch, Head
from lifelong.nn.hpmn import HpmnMemory, Slots
from lifelong.nn.moments import Moments, moments_of
from lifelong.nn.periods import check_periods
from lifelong.nn.scaled import ScaledLinear
from lifelong.nn.tally import (
    FEATURES,
    CountMemory,
    Learned,
    SeenNumbers,
    TallyEvents,
    TallyMemory,
    TallyTargets,
    counted_size,
    parted,
)
from lifelong.nn.tally_pass import (
    KNOWN_PARTS,
    OWN_PARTS,
    AtMoments,
    ManyTargets,
    Read,
    counted_widths,
    read_many,
    split_linear,
)

OWN = FEATURES + 1
"""Numbers of a value next to its embedding: the weights of its counts, and the logarithm of its popularity."""
SCALED_BY = 20_000
"""About how many training targets counts are standardised by."""
WEIGHTS = 20
"""Steps of the weight of the second head."""
STEADY = 0.3
"""Weight of the second head until there is a validation."""
STD = 0.01
"""Standard deviation of the initial weights of counts."""
STD_VECTORS = 0.1
"""Standard deviation of the initial embeddings: counts say what target and history have in common, and large random
embeddings would be noise."""


PERIODS = (1, 9)
"""Periods of the slots of a state of `WHOLE` bytes and more; in a smaller one their bytes are worth more as cells."""


def _periods_or_none(periods: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return check_periods(periods) if periods else periods


@dataclass(frozen=True)
class TallyConfig:
    """Settings of `tally`."""

    state: Annotated[int, Field(ge=512, le=2**16)] = setting(
        4096, "bytes of a stored memory at most, slots, cells and bits together"
    )
    embedding: PositiveInt = setting(16, "width of each field's embedding")
    width: PositiveInt = setting(32, "width of a memory slot")
    periods: Annotated[tuple[int, ...] | None, AfterValidator(_periods_or_none)] = setting(
        None,
        "slot j is written every periods[j] events; [] for no slots; null for [1, 9], none in less than 4,096 bytes",
    )
    faded: Annotated[float, Field(ge=0, le=0.9)] = setting(
        0.25, "share of the counting part that are bits of values without a cell"
    )
    shares: tuple[PositiveFloat, ...] = setting(
        (),
        "how cells are shared out over the item fields; [] for 1, 1/2, 1/3 ..., to the power of 1.5 below 4,096 bytes",
    )
    scale: CellScale = setting(
        CellScale.COARSE,
        "how finely a cell keeps its count and its age: coarse takes 9 bits and leaves room for more cells, fine 15",
    )
    repeats: bool = setting(True, "whether to count how many events repeat an item")
    patience: NonNegativeInt = setting(400, "events for which a doubled count holds a cell; 0 keeps the latest values")
    kind: PositiveInt = setting(8, "width of the embedding of a count and an age together")
    factors: tuple[PositiveInt, ...] = setting(
        (32, 16), "numbers of the fixed factors of the first item fields, fewer if `state` is; [] for no affinities"
    )
    steady: Share | None = setting(
        None, "weight of the head that sees counts alone in the logit; null chooses it on validation"
    )
    products: bool = setting(
        True, "whether the logit has products of the target's embeddings with the context: hour, weekday, gap"
    )
    dropout: Share = setting(0.1, "share of the heads' hidden units dropped in training")

    def __post_init__(self) -> None:
        """Say what null stands for, so that an artifact does."""
        if self.periods is None:
            object.__setattr__(self, "periods", PERIODS if self.state >= WHOLE else ())


@dataclass(frozen=True, slots=True)
class Split:
    """Where the parts of embedded events and targets are.

    Each field has a vector, weights of counts and a popularity. Item fields come first and also have a key, and so has
    the gap, which is the last number of an event.

    Args:
        fields: item fields.
        dim: width of a field's vector.
        gap_at: where in an embedded context the key of the gap is; None if it is not read.
        factors: widths of the factors of the first item fields.
    """

    fields: int
    dim: int
    gap_at: int | None = None
    factors: tuple[int, ...] = ()

    def events(self, embedded: Tensor) -> TallyEvents:
        """Embedded events as the memory takes them."""
        parts = self._parts(embedded)
        # Without times there is no gap: all events are at the same moment.
        gap = parts["gap"][0] if "gap" in parts else torch.zeros_like(embedded[..., :1])
        seconds = seconds_of(_whole(gap).squeeze(-1))
        return TallyEvents(_joined(parts["vector"]), _whole(_joined(parts["key"])), seconds, _factor(parts))

    def targets(self, embedded: Tensor) -> TallyTargets:
        """Embedded targets as the memory takes them."""
        parts = self._parts(embedded)
        # Nothing is learned of a popularity: it is counted.
        popularity, weight = _joined(parts["popularity"]).detach(), torch.stack(parts["weight"], dim=-2)
        return TallyTargets(_joined(parts["vector"]), _whole(_joined(parts["key"])), popularity, weight, _factor(parts))

    def vectors(self, embedded: Tensor) -> Tensor:
        """The vectors alone, one after another."""
        return _joined(self._parts(embedded)["vector"])

    def keys(self, embedded: Tensor) -> Tensor:
        """Keys of the item fields: int64 `[..., F]`."""
        return _whole(_joined(self._parts(embedded)["key"]))

    def context(self, embedded: Tensor) -> Tensor:
        """An embedded context without the key of the gap."""
        at = self.gap_at
        return embedded if at is None else torch.cat([embedded[..., :at], embedded[..., at + 1 :]], dim=-1)

    def _parts(self, embedded: Tensor) -> Mapping[str, list[Tensor]]:
        """Name -> this part of each field that has it, in the order of the fields."""
        # A plain number also where a graph is traced.
        layout, found = self._layout(int(embedded.shape[-1])), defaultdict(list)
        parts = torch.split(embedded, [width for _, width in layout], dim=-1)
        for (name, _), part in zip(layout, parts, strict=True):
            found[name].append(part)
        return found

    def _layout(self, size: int) -> list[tuple[str, int]]:
        """Name and width of the parts of what is `size` wide, one after another."""
        layout, every = [], [("vector", self.dim), ("weight", FEATURES), ("popularity", 1)]
        for _, factor in zip_longest(range(self.fields), self.factors):
            layout += [*every, ("key", 1)] + ([("factor", factor)] if factor else [])
        others, timed = divmod(size - sum(width for _, width in layout), self.dim + OWN)
        # Of other fields no counts are kept.
        return layout + [("vector", self.dim), ("unread", OWN)] * others + [("gap", 1)] * timed


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=-1)


def _whole(number: Tensor) -> Tensor:
    """Whole numbers that were embedded as such; nothing is learned of them."""
    return number.detach().round().long()


def _factor(parts: Mapping[str, list[Tensor]]) -> Tensor | None:
    return _joined(parts["factor"]).detach() if "factor" in parts else None


class TallyHead(nn.Module):
    """The head with the weighted counts straight to the logit, the head of the counts alone, and their sum.

    Args:
        head: the head that all models share.
        counter: the same for counts and context.
        tasks: T.
        match: products of the target's embedding and the context, if there are any.
        split: takes what it may see of the vectors: keys and weights of counts are no quantities.
        found: how many numbers of the interest come before the counts.
        counts: how many, before the weighted counts, are counts.
        steady: s, the weight of the second head, until another one is chosen.
    """

    takes_one_context: ClassVar[bool] = True
    head: Head
    counter: Head
    match: ContextMatch | None
    split: Split
    found: int
    counts: int
    steady: Tensor

    def __init__(
        self,
        head: Head,
        counter: Head,
        match: ContextMatch | None,
        *,
        tasks: int,
        split: Split,
        found: int,
        counts: int,
        steady: float,
    ) -> None:
        super().__init__()
        self.head, self.counter, self.match, self.split = head, counter, match, split
        self.found, self.counts = found, counts
        # In full precision, so that it is what was set.
        self.register_buffer("steady", torch.tensor(steady, dtype=torch.float64))
        self.direct: nn.Linear = nn.Linear(split.fields, tasks, bias=False)
        nn.init.ones_(self.direct.weight)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`: the weighted sum of both."""
        return self.mixed(*self.members(interest, self.split.vectors(target), context))

    def scale(self, known_NX: Tensor, widths: Mapping[str, int]) -> None:
        """Let both heads see counts and affinities at mean 0 and deviation 1; embeddings stay as they are.

        Args:
            known_NX: these of many targets, see `Read`.
            widths: of the parts of the counts.
        """
        mean_X, scale_X = (torch.from_numpy(value) for value in standardising(known_NX.double().numpy()))
        # Embedded kinds lie between features and the others.
        at_X = torch.cat([torch.arange(widths["features"]), torch.arange(self.counts - widths["others"], self.counts)])
        for head, begin in ((self.head, self.found), (self.counter, 0)):
            assert isinstance(head.first, ScaledLinear)
            for value_X, part_X in ((head.first.mean_X, mean_X), (head.first.scale_X, scale_X)):
                value_X[begin + at_X] = part_X.to(value_X)

    def mixed(self, first: Tensor, second: Tensor) -> Tensor:
        """The weighted sum of both heads' logits."""
        steady = self.steady.to(first.dtype)
        return (1 - steady) * first + steady * second

    def members(self, interest: Tensor, vector: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[..., T]` of both heads; the interest ends with the counts and the weighted counts of each field.

        Of the target the vectors alone.
        """
        context = self.split.context(context)
        logit: Tensor = self.head(interest, vector, context)
        if self.match is not None:
            logit = logit + self.match(context, vector)
        # The last number of each field is its weighted count; the counts are right before these.
        weighted = interest[..., -self.split.fields :]
        counted = interest[..., : -self.split.fields][..., -self.counts :]
        return logit + self.direct(weighted), self.counter(counted, counted[..., :0], context)

    def members_at(
        self, read: Read, widths: Mapping[str, int], context_XE: Tensor, moment_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`members` of what `read_many` gives: the same logits `[N, T]`, up to rounding.

        Args:
            read: of each target.
            widths: of the parts of its counts.
            context_XE: embedded context of each moment.
            moment_N: int64, the moment of each target.
        """
        context, kinds, fields = (self.split.context(context_XE), moment_N), widths["kind"], self.split.fields
        rest = {"context": context[0].shape[-1]}
        parts = {KNOWN_PARTS: read.known_NX, OWN_PARTS: read.own_NX}
        whole = {**widths, "weighted": fields, "vector": read.own_NX.shape[1] - kinds - fields, **rest}
        if read.found_NX is not None:
            whole, parts = {"found": read.found_NX.shape[1], **whole}, {**parts, ("found",): read.found_NX}
        logit_NT = self.head.above(split_linear(self.head.first, whole, parts, context))
        if self.match is not None:
            logit_NT = logit_NT + self.match.at(*context, read.own_NX[:, kinds + fields :])
        counted = {KNOWN_PARTS: read.known_NX, ("kind",): read.own_NX[:, :kinds]}
        second_NT = self.counter.above(split_linear(self.counter.first, {**widths, **rest}, counted, context))
        return logit_NT + self.direct(read.own_NX[:, kinds : kinds + fields]), second_NT


class Tally(CountingModel[Any]):
    """Counts of the values that the user meets most often or met lately, and slots for the sequence."""

    Config = TallyConfig
    title = "Tally"
    source = "this package; slots of Ren et al., SIGIR 2019"
    state = "slots, sums, and a bounded table of counters"
    vector_spread: ClassVar[float] = 0.3
    common_head = False
    head: TallyHead
    reads_popularity = True
    earlier_names: ClassVar[Mapping[str, str]] = {
        "kind": "memory.counts.kind",
        "layers": "memory.slots.layers",
        "query": "memory.slots.reader.query",
        "score": "memory.slots.reader.scores.0",
    }
    earlier_settings: ClassVar[Mapping[str, Any]] = {
        "factors": (),
        "repeats": False,
        "scale": "fine",
        "products": False,
    }
    # Earlier first layers were plain ones, and the weight of the second head was its setting alone.
    later_buffers: ClassVar[tuple[str, ...]] = (
        "head.steady",
        *(f"head.{head}.layers.0.{name}" for head in ("head", "counter") for name in ("mean_X", "scale_X")),
    )
    # Whole histories, since counts of the last events alone would not be those of a service.
    recipe: ClassVar[Mapping[str, Any]] = {
        "initial_vectors": "crossfitted",
        "schedule": "cosine",
        "max_history": 8192,
        "max_targets": 128,
        "batch_events": 16_384,
        "batch_targets": 2_048,
        "negatives": 3,
        # Logs that it learns by heart lose in the second epoch what they gained in the first.
        "fall_patience": 3,
    }
    # A second epoch pays on a log of millions of examples, and brings nothing on a seventh of its users.
    few_epochs: ClassVar[bool] = True

    def __init__(self, inputs: InputSpec, config: TallyConfig) -> None:
        fields, levels = len(inputs.item), clock_levels(inputs)
        factors = dict(zip(inputs.item, factor_widths(config.factors, config.state, fields=fields), strict=False))
        counted = counted_size(fields, kind=config.kind, levels=levels, repeats=config.repeats)
        counts = counted + affinity_size(list(factors.values()))
        interest = counts + fields + (2 * config.width if config.periods else 0)
        timed = [field for field in inputs.event if field == "gap"]
        super().__init__(
            inputs,
            embedding=config.embedding + OWN,
            interest=interest,
            dropout=config.dropout,
            keys=(*inputs.item, *timed),
            factors=factors,
        )
        self.config: TallyConfig = config
        self._grouped = False
        self.periods: tuple[int, ...] = tuple(config.periods or ())
        read = self.context_fields
        gap_at = sum(self.embed.widths(read[: read.index("gap") + 1])) - 1 if timed and "gap" in read else None
        self.split: Split = Split(fields, config.embedding, gap_at, tuple(factors.values()))
        self._restart()
        counting = self._counting(levels)
        target, context, tasks = config.embedding * fields, self.context_width - (gap_at is not None), len(inputs.tasks)
        plain = Head(interest + target + context, tasks, dropout=config.dropout, scaled=True)
        counter = Head(counts + context, tasks, dropout=config.dropout, scaled=True)
        self.head = TallyHead(
            plain,
            counter,
            ContextMatch(context, target, tasks) if config.products and context else None,
            tasks=tasks,
            split=self.split,
            found=interest - fields - counts,
            counts=counts,
            steady=STEADY if config.steady is None else config.steady,
        )
        slots = self._slots(target, target + counts + fields) if self.periods else None
        self.memory: TallyMemory = TallyMemory(counting, slots, Affinity(self.split.factors) if factors else None)

    def _counting(self, levels: int) -> CountMemory:
        """The counting part, in the bytes that slots and sums leave."""
        config = self.config
        numbers = config.width * len(self.periods) + SUMS * sum(self.split.factors)
        try:
            return CountMemory(
                list(self.inputs.item.values()),
                state=config.state - NUMBER_BYTES * numbers,
                faded=config.faded,
                shares=config.shares or default_shares(len(self.inputs.item), config.state, config.scale),
                patience=config.patience,
                kind=config.kind,
                levels=levels,
                repeats=config.repeats,
                scale=config.scale,
            )
        except ValueError as error:
            raise ConfigError(
                [f"model of {len(self.item_fields)} item fields: {error}"], fix="change model.state or model.shares"
            ) from error

    def _slots(self, target: int, query_size: int) -> HpmnMemory:
        config, event = self.config, self.config.embedding * len(self.history_fields)
        return HpmnMemory(
            event,
            query_size=query_size,
            width=config.width,
            periods=self.periods,
            hops=1,
            aligned=target,
        )

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

    @property
    def vector_width(self) -> int:
        """Without the numbers that a value has next to its embedding."""
        return self.split.dim

    def take_factors(self, whole: Mapping[str, Tensor], apart: Sequence[Mapping[str, Tensor]]) -> None:
        """Also those that each group of users is trained with."""
        super().take_factors(whole, apart)
        self._grouped = bool(apart)
        for field, name in self.embed.factor_names.items() if apart else ():
            # Of no use after training, so that they are not saved.
            groups = torch.cat([part[field] for part in apart]).to(self.embed.factors[field])
            self.register_buffer(f"apart_{name}", groups, persistent=False)

    def _factors(self, number: Tensor, user_B: Tensor) -> Tensor | None:
        """Factors `[B, X, D]` of the item fields of numbers `[B, X, F]`; in training those of the users' groups."""
        parts = []
        for place, (field, name) in enumerate(self.embed.factor_names.items()):
            table, number_BX = self.embed.factors[field], number[..., place]
            if self.training and self._grouped:
                number_BX = number_BX + len(table) * group_of(user_B).unsqueeze(-1)
                table = self.get_buffer(f"apart_{name}")
            parts.append(embedding(number_BX, table))
        return torch.cat(parts, dim=-1) if parts else None

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """Logarithms of the shares of the targets that have each value, one more target for each."""
        with torch.no_grad():
            for field, table in self.embed.tables.items():
                if field in counts:
                    share_V = (counts[field] + 1) / max(1.0, counts[field].sum())
                    table.weight[:, self.split.dim + FEATURES] = torch.from_numpy(np.log(share_V)).to(table.weight)

    @property
    def cells(self) -> CellPacking:
        """Sorted by key, in about two bytes a cell."""
        plan = self.memory.counts.plan
        return CellPacking(plan.cells_F, values_of(list(self.inputs.item.values())), plan.scale)

    @property
    def counts(self) -> CountMemory:
        """Clock, cells and bits."""
        return self.memory.counts

    def learned(self, memory: Any) -> Learned:
        """Slots and sums."""
        return parted(memory)[1]

    def write_learned(self, learned: Learned, event_BE: Tensor) -> Learned:
        """Step the slots that are due, and add to the sums."""
        return self.memory.step_learned(learned, self.split.events(event_BE))

    def read_numbers(
        self, seen: SeenNumbers, count_BC: Tensor, learned: Learned, target_BCE: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What counts and sums say, and attention over the slots that are not empty."""
        return self.memory.read_numbers(seen, count_BC, learned, self.split.targets(target_BCE))

    def counted_numbers(self, batch: Batch) -> FloatArray:
        """Of the targets' cells, in a compiled loop."""
        # Compiling takes seconds where nothing is cached yet.
        from lifelong.nn.cell_replay import cells_found
        from lifelong.nn.counted_pass import number_targets

        counts, moments, asked_BCF = self.memory.counts, self._moments(batch), _keys(batch.target_BCF)
        key_BLF, gap_BL = self._counted(batch.history_BLF)
        found, _ = cells_found(key_BLF, batch.position_BC, asked_BCF, counts.stale_N, counts.plan)
        clock_BMJX = clock_at(gap_BL, moments.position_BM, counts.levels)
        of_targets = [part.flatten(0, 1)[moments.real_N] for part in (found.count_BCF, found.age_BCF, asked_BCF)]
        of_moments = [moments.position_BM.flatten(), clock_BMJX.flatten(0, 1)]
        parts = [*of_targets, moments.moment_N, *(part[moments.place_X] for part in of_moments), counts.age_A]
        times_NF, age_NF, key_NF, moment_N, count_X, clock_XJX, age_A = (part.cpu().numpy() for part in parts)
        number_NFX = np.zeros((*key_NF.shape, 4))
        number_targets((times_NF, age_NF), key_NF, (moment_N, count_X, clock_XJX), age_A, number_NFX)
        return number_NFX

    def initial_memory(self, num_users: int) -> Any:
        """Empty slots, sums and cells."""
        return self.memory.initial(num_users)

    def write_vector(self, memory: Any, event_BE: Tensor) -> Any:
        """Step the slots that are due, add to the sums, mark the time, and count."""
        return self.memory.step(memory, self.split.events(event_BE))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Any:
        """Slots layer by layer, sums and cells by compiled replays."""
        return self.memory(self.split.events(event_BLE), length_B, position_BC)

    def read_vector(self, memory: Any, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """What cells and sums know of the target, and attention over the slots that are not empty."""
        return self.memory.read(memory, self.split.targets(target_BCE))

    def forward(self, batch: Batch) -> Output:
        """What `encode` and `respond` give, up to rounding; see `nn/tally_pass.py`.

        No cells are made that no target reads, and what targets of one moment share is computed once.
        """
        moments = self._moments(batch)
        read = self._read(batch, moments)
        context_XE = self.embed_context(batch.context_BCF.flatten(0, 1)[moments.first_X])
        widths = counted_widths(self.memory, self.split.fields)
        heads = self.head.members_at(read, widths, context_XE, moments.moment_N)
        first, second = (spread_targets(logit_NT, batch.mask_BC) for logit_NT in heads)
        attention = None if read.attention_NS is None else spread_targets(read.attention_NS, batch.mask_BC)
        return Output(self.head.mixed(first, second), attention_BCS=attention, members=(first, second))

    def learn_scales(self, batches: Iterable[Batch]) -> None:
        """Mean and deviation of counts and affinities."""
        known, asked = [], 0
        with torch.no_grad():
            for batch in batches:
                known.append(self._read(batch, self._moments(batch)).known_NX)
                if (asked := asked + len(known[-1])) >= SCALED_BY:
                    break
        self.head.scale(torch.cat(known), counted_widths(self.memory, self.split.fields))

    def validated(self, predict: Callable[[], FloatArray], label_NT: FloatArray) -> FloatArray:
        """The weight of the second head is chosen, unless it was given."""
        if self.config.steady is not None:
            return predict()
        self.head.steady.fill_(0.0)
        first_NT = predict()
        self.head.steady.fill_(1.0)
        second_NT = predict()
        weight = best_weight(first_NT, second_NT, label_NT)
        self.head.steady.fill_(weight)
        return (1 - weight) * first_NT + weight * second_NT

    def _moments(self, batch: Batch) -> Moments:
        return moments_of(batch.position_BC, batch.context_BCF[..., self._context_at], batch.mask_BC)

    def _read(self, batch: Batch, moments: Moments) -> Read:
        """What the memories say of all targets."""
        # Compiling takes seconds where nothing is cached yet.
        from lifelong.nn.cell_replay import cells_found

        number_NF = batch.target_BCF.flatten(0, 1)[moments.real_N]
        user_N = batch.user_B[moments.real_N // max(1, batch.mask_BC.shape[1])]
        event_BLE, target_NFE = self._embedded(batch.history_BLF, number_NF, batch.user_B, user_N)
        counts, (key_BLF, gap_BL) = self.memory.counts, self._counted(batch.history_BLF)
        events = TallyEvents(event_BLE, key_BLF, gap_BL)
        asked_BCF = _keys(batch.target_BCF)
        found, row_BCRX = cells_found(key_BLF, batch.position_BC, asked_BCF, counts.stale_N, counts.plan)
        at = self._at_moments(batch, moments, events, row_BCRX.flatten(0, 1)[moments.first_X])
        factor_N1D = self._factors(number_NF.unsqueeze(1), user_N)
        dim, own = self.split.dim, self.split.dim + FEATURES
        return read_many(
            self.memory,
            at,
            ManyTargets(
                moments.moment_N,
                Found(*(part.flatten(0, 1)[moments.real_N] for part in found)),
                _keys(number_NF),
                target_NFE[..., :dim].flatten(-2),
                target_NFE[..., own],
                target_NFE[..., dim:own],
                None if factor_N1D is None else factor_N1D.squeeze(1),
            ),
        )

    def _counted(self, history_BLF: Tensor) -> tuple[Tensor, Tensor]:
        """Keys of the events' item fields `[B, L, F]`, and seconds since the event before, 0 without times."""
        key_BLF = _keys(history_BLF[..., : len(self.item_fields)])
        if "gap" not in self.inputs.event:
            return key_BLF, history_BLF.new_zeros(()).expand(key_BLF.shape[:2])
        return key_BLF, seconds_of(_keys(history_BLF[..., self.history_fields.index("gap")]))

    def _embedded(
        self, history_BLF: Tensor, number_NF: Tensor, user_B: Tensor, user_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors of events `[B, L, E]`, and the embeddings of targets `[N, F, dim + OWN]`, keys and factors left out.

        Each table is asked once, so that it has one gradient.
        """
        tables, dim, events, targets = self.embed.tables | self.embed.scales, self.split.dim, [], []
        size = history_BLF.shape[:2].numel()
        user_R = torch.cat([user_B.repeat_interleave(history_BLF.shape[1]), user_N])
        for place, field in enumerate(self.history_fields):
            number_R = history_BLF[..., place].flatten()
            if place < len(self.item_fields):
                number_R = torch.cat([number_R, number_NF[:, place]])
            made_RE = self.embed.of_group(field, number_R, user_R, tables[field](number_R))
            past_RE, asked_NE = made_RE.tensor_split([size])
            events.append(past_RE[:, :dim])
            targets.append(asked_NE)
        whole_NFE = torch.stack(targets[: len(self.item_fields)], dim=1)
        return torch.cat(events, dim=-1).view(*history_BLF.shape[:2], dim * len(events)), whole_NFE

    def _at_moments(self, batch: Batch, moments: Moments, events: TallyEvents, row_XRX: Tensor) -> AtMoments:
        """Clock and repeats, slots and sums at each moment."""
        memory, position_BM = self.memory, moments.position_BM
        count_X = position_BM.flatten()[moments.place_X]

        def pick_X(value_BMX: Tensor) -> Tensor:  # noqa: N802
            return value_BMX.flatten(0, 1)[moments.place_X]

        clock_XJX = pick_X(clock_at(events.gap_BL, position_BM, memory.counts.levels))
        clock_XJX = torch.cat([row_XRX.to(clock_XJX), clock_XJX], dim=1)
        slot_XSD = events.vector_BLE.new_zeros(len(count_X), 0, 0)
        if memory.slots is not None:
            slot_XSD = pick_X(memory.slots(events.vector_BLE, batch.length_B, position_BM).slot_BSD)
        factor_BLD = self._factors(batch.history_BLF, batch.user_B)
        sums_XKD = None
        if memory.affinity is not None and factor_BLD is not None:
            sums_XKD = pick_X(memory.affinity(factor_BLD, position_BM))
        return AtMoments(Slots(count_X, slot_XSD), clock_XJX, sums_XKD)


def _keys(number: Tensor) -> Tensor:
    """The key of each number, see `cell_plan.keys_of`."""
    return torch.where(number < FIRST_BUCKET, NO_KEY, (number - FIRST_BUCKET) % KEYS)


def best_weight(first_NT: FloatArray, second_NT: FloatArray, label_NT: npt.NDArray[np.floating]) -> float:
    """The weight of the second of two logits, in twentieths, with which their sum has about the least log loss.

    Of the weights within one standard error of the least loss the one that is nearest to `STEADY`, so that few examples
    change little (Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3).

    >>> rng = np.random.default_rng(0)
    >>> logit_NT = rng.normal(size=(10_000, 1))
    >>> label_NT = (rng.uniform(size=logit_NT.shape) < 1 / (1 + np.exp(-logit_NT))).astype(float)
    >>> best_weight(-logit_NT, logit_NT, label_NT), best_weight(logit_NT, logit_NT, label_NT)
    (1.0, 0.3)
    """
    weight_W = np.arange(WEIGHTS + 1) / WEIGHTS
    logit_WN = first_NT.ravel() + weight_W[:, None] * (second_NT - first_NT).ravel()
    loss_WN = np.logaddexp(0.0, logit_WN) - label_NT.ravel() * logit_WN
    above_WN = loss_WN - loss_WN[np.argmin(loss_WN.mean(axis=1))]
    error_W = above_WN.std(axis=1) / math.sqrt(above_WN.shape[1])
    close_W = weight_W[above_WN.mean(axis=1) <= error_W]
    return float(close_W[np.argmin(np.abs(close_W - STEADY))])
