"""Tally: a memory that counts, the periodic slots of HPMN, and sums of factors, in a few kilobytes a user.

`lifelong.tally.spec` is the definition: what a memory holds, how an event changes it, what is known of a target, and
the logit. This module learns the weights: embeddings, slots, the query, and two heads. What is counted depends on no
learned weight, and is taken from the compiled loops of `lifelong.tally.kernel`.

    event --vectors--> GRU_1 --> slot 1 --every k-th--> GRU_2 --> slot 2 ...                      learned
          `-numbers--> cells, clock, repeats, sums                                                 counted
    target --numbers--> c: counts and ages, decayed; popularity; how much she repeats; affinities
           `-[; c]--W--> q, attention over the slots --> h
    [h ; q * h ; c ; w_f c_f] --head--> + v w_f c_f + <V x, e> --> logit 1
    c --head of the counts alone--> logit 2                           logit = (1 - s) logit 1 + s logit 2

A count says more about some values than about others: one item is bought again and again by few users, another once by
everybody. So each value has its own weights w for its counts, next to its embedding, and their result also reaches the
logit directly.

Two heads: one sees everything, the other only counts, times and the popularity of the target's values, and no learned
embeddings. Each learns by its own loss: what the first head makes of single values is noisy and goes out of date, what
the second one says is steady but knows no sequence, and their errors have little in common. The weight s is chosen on
validation, in twentieths: it grows with the length of training. Learned with the heads it would come out near 0, since
embeddings of single values are never fresher than in training.

Most targets are values that the user never met. Sums of fixed factors tell how well they suit her: each value of the
first item fields has a unit vector, such that values of the same users point in similar directions. The factors are
made of the training period by a singular value decomposition and not learned further. In training a user's factors are
made of other users' events alone: her own would give her targets away (`data/cooccurrence.py`). For the same reason the
initial embeddings of these fields are those of other users' events, too: a fixed difference to the one table that is
trained and that serves.

What suits a moment depends on the item: breakfast in the morning, a flight at its hour. So the logit also has the
products of the target's embedding e with a linear map V of the context x, the hour, weekday and gap (`ContextMatch`).

Some users come back to an item after a number of events that is their own: every 61st, or every 75th. Two steps per
doubling cannot tell these ages apart, so that Tally does not see it.

How popular a value is, its share of the training targets, is counted in the training period and not learned. Training
that continues from an artifact takes the popularities of its own period. Counts, ages and affinities are of very
different sizes. The heads' first layers see them at mean 0 and deviation 1 (`nn/head.py`), of the training period.

Shapes: B users, L padded history length, C targets per user, N targets, X moments, S slots, D slot width, E width of
an embedded event, F item fields, P features of a field, Y known numbers.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import embedding

from lifelong.dataset.events import InputSpec
from lifelong.dtypes import FloatArray
from lifelong.errors import ConfigError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.cooccurrence import group_of
from lifelong.offline.data.counts import standardising
from lifelong.offline.models.base import CountingModel, Event, History, Output, Target, spread_targets
from lifelong.offline.models.settings import Share, setting
from lifelong.offline.nn.head import ContextMatch, Head, ScaledLinear
from lifelong.offline.nn.hpmn import HpmnMemory, Slots
from lifelong.offline.nn.moments import Moments, moments_of
from lifelong.offline.nn.periods import check_periods
from lifelong.offline.nn.tally import KNOWN_PARTS, OWN_PARTS, Asked, Read, TallyReader, split_linear
from lifelong.tally import plan as plans
from lifelong.tally.plan import WHOLE, keys_of, plan_of, seconds_of
from lifelong.tally.spec import FEATURES

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
NAMES = {
    "slot": "slot_BSD",
    "sums": "sums_BXD",
    "clock": "clock_BJX",
    "repeats": "repeats_BX",
    "cell": "cell_BKX",
}
"""Parts of a memory, with their shapes."""


def _periods_or_none(periods: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return check_periods(periods) if periods else periods


@dataclass(frozen=True)
class TallyConfig:
    """Settings of `tally`."""

    state: Annotated[int, Field(ge=512, le=2**16)] = setting(
        4096, "bytes of a stored memory at most, all parts together"
    )
    embedding: PositiveInt = setting(16, "width of each field's embedding")
    width: PositiveInt = setting(32, "width of a memory slot")
    periods: Annotated[tuple[int, ...] | None, AfterValidator(_periods_or_none)] = setting(
        None,
        "slot j is written every periods[j] events; [] for no slots; null for [1, 9], none in less than 4,096 bytes",
    )
    dropout: Share = setting(0.1, "share of the heads' hidden units dropped in training")

    def __post_init__(self) -> None:
        """Say what null stands for, so that an artifact does."""
        if self.periods is None:
            object.__setattr__(self, "periods", PERIODS if self.state >= WHOLE else ())


@cache
def _memory_of(names: tuple[str, ...]) -> Any:
    """A memory of these parts: a NamedTuple of tensors."""
    return namedtuple("TallyMemory", ["count_B", *names])


def vectors_of(embedded: Tensor, widths: Sequence[int], dim: int) -> Tensor:
    """The first `dim` numbers of each part of some widths, one after another."""
    return torch.cat([part[..., :dim] for part in torch.split(embedded, list(widths), dim=-1)], dim=-1)


class TallyHead(nn.Module):
    """The head with the weighted counts straight to the logit, the head of the counts alone, and their sum.

    Args:
        head: the head that all models share.
        counter: the same for counts and context.
        tasks: T.
        match: products of the target's embedding and the context, if there are any.
        widths: of the target's embedded values.
        dim: how many of the first numbers of each are its vector: weights of counts are no quantities.
        found: how many numbers of the interest come before the counts.
        counts: how many, before the weighted counts, are counts.
        steady: s, the weight of the second head, until another one is chosen.
    """

    takes_one_context: ClassVar[bool] = True
    head: Head
    counter: Head
    match: ContextMatch | None
    fields: int
    widths: list[int]
    dim: int
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
        widths: Sequence[int],
        dim: int,
        found: int,
        counts: int,
        steady: float,
    ) -> None:
        super().__init__()
        self.head, self.counter, self.match, self.fields = head, counter, match, len(widths)
        self.widths, self.dim = list(widths), dim
        self.found, self.counts = found, counts
        # In full precision, so that it is what was set.
        self.register_buffer("steady", torch.tensor(steady, dtype=torch.float64))
        self.direct: nn.Linear = nn.Linear(self.fields, tasks, bias=False)
        nn.init.ones_(self.direct.weight)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`: the weighted sum of both."""
        return self.mixed(*self.members(interest, vectors_of(target, self.widths, self.dim), context))

    def scale(self, known_NY: Tensor, widths: Mapping[str, int]) -> None:
        """Let both heads see counts and affinities at mean 0 and deviation 1; embeddings stay as they are.

        Args:
            known_NY: these of many targets.
            widths: of the parts of the counts.
        """
        mean_X, scale_X = (torch.from_numpy(value) for value in standardising(known_NY.double().numpy()))
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
        logit: Tensor = self.head(interest, vector, context)
        if self.match is not None:
            logit = logit + self.match(context, vector)
        # The last number of each field is its weighted count; the counts are right before these.
        weighted = interest[..., -self.fields :]
        # Whatever attention found comes first and differs in width with the settings, so that counts are taken from the
        # end.
        counted = interest[..., : -self.fields][..., -self.counts :]
        # The second head reads no embedding: its target has no columns.
        return logit + self.direct(weighted), self.counter(counted, counted[..., :0], context)

    def members_at(
        self, read: Read, widths: Mapping[str, int], context_XE: Tensor, moment_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`members` of what `TallyReader.at_moments` gives: the same logits `[N, T]`, up to rounding.

        Args:
            read: of each target.
            widths: of the parts of its counts.
            context_XE: embedded context of each moment.
            moment_N: int64, the moment of each target.
        """
        context, kinds, fields = (context_XE, moment_N), widths["kind"], self.fields
        rest = {"context": context[0].shape[-1]}
        parts = {KNOWN_PARTS: read.known_NY, OWN_PARTS: read.own_NX}
        whole = {**widths, "weighted": fields, "vector": read.own_NX.shape[1] - kinds - fields, **rest}
        if read.found_NX is not None:
            whole, parts = {"found": read.found_NX.shape[1], **whole}, {**parts, ("found",): read.found_NX}
        logit_NT = self.head.above(split_linear(self.head.first, whole, parts, context))
        if self.match is not None:
            logit_NT = logit_NT + self.match.at(*context, read.own_NX[:, kinds + fields :])
        counted = {KNOWN_PARTS: read.known_NY, ("kind",): read.own_NX[:, :kinds]}
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
        try:
            plan = plan_of(asdict(config), list(inputs.item.values()), timed="gap" in inputs.event)
        except ValueError as error:
            raise ConfigError(
                [f"model of {len(inputs.item)} item fields: {error}"], fix="change model.state, width or periods"
            ) from error
        super().__init__(
            inputs,
            embedding=config.embedding + OWN,
            interest=plans.PARTS.kind,
            dropout=config.dropout,
            factors=dict(zip(inputs.item, plan.widths_G, strict=False)),
        )
        self.config: TallyConfig = config
        self.plan = plan
        self._grouped = False
        self.periods: tuple[int, ...] = tuple(config.periods or ())
        self._restart()
        self.memory: TallyReader = TallyReader(plan, plans.PARTS.kind)
        fields, found, counts = len(inputs.item), 2 * config.width if self.periods else 0, self.memory.size
        target, context, tasks = config.embedding * fields, self.context_width, len(inputs.tasks)
        interest = found + counts + fields
        plain = Head(interest + target + context, tasks, dropout=config.dropout, scaled=True)
        counter = Head(counts + context, tasks, dropout=config.dropout, scaled=True)
        self.head = TallyHead(
            plain,
            counter,
            ContextMatch(context, target, tasks) if plans.PARTS.products and context else None,
            tasks=tasks,
            widths=self.embed.widths(self.item_fields),
            dim=config.embedding,
            found=found,
            counts=counts,
            steady=STEADY if plans.PARTS.steady is None else plans.PARTS.steady,
        )
        if self.periods:
            event = config.embedding * len(self.history_fields)
            self.memory.slots = HpmnMemory(
                event,
                query_size=target + counts + fields,
                width=config.width,
                periods=self.periods,
                hops=1,
                aligned=target,
            )

    def _restart(self) -> None:
        """Small vectors, smaller weights of counts; until popularities are known, all values are equally popular."""
        dim, popularity = self.config.embedding, self.config.embedding + FEATURES
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
        return self.config.embedding

    def take_factors(self, whole: Mapping[str, Tensor], apart: Sequence[Mapping[str, Tensor]]) -> None:
        """Also those that each group of users is trained with."""
        super().take_factors(whole, apart)
        self._grouped = bool(apart)
        for field, name in self.embed.factor_names.items() if apart else ():
            # Of no use after training, so that they are not saved.
            groups = torch.cat([part[field] for part in apart]).to(self.embed.factors[field])
            self.register_buffer(f"apart_{name}", groups, persistent=False)

    def _factors(self, number: Tensor, user_B: Tensor | None) -> Tensor:
        """Factors `[B, X, D]` of the item fields of numbers `[B, X, F]`; in training those of the users' groups."""
        parts = [next(self.parameters()).new_zeros(*number.shape[:-1], 0)]
        for place, (field, name) in enumerate(self.embed.factor_names.items()):
            table, number_BX = self.embed.factors[field], number[..., place]
            if self.training and self._grouped and user_B is not None:
                # The factors of all groups lie in one table, group after group, each as long as the common one.
                number_BX = number_BX + len(table) * group_of(user_B).unsqueeze(-1)
                table = self.get_buffer(f"apart_{name}")
            parts.append(embedding(number_BX, table))
        return torch.cat(parts, dim=-1)

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """Logarithms of the shares of the targets that have each value, one more target for each."""
        with torch.no_grad():
            for field, table in self.embed.tables.items():
                if field in counts:
                    share_V = (counts[field] + 1) / max(1.0, counts[field].sum())
                    table.weight[:, self.config.embedding + FEATURES] = torch.from_numpy(np.log(share_V)).to(
                        table.weight
                    )

    def _popularity(self, number: Tensor) -> Tensor:
        """Of the values of the item fields, `[..., F]`; it is counted, so that nothing is learned of it."""
        column, tables = self.config.embedding + FEATURES, self.embed.tables | self.embed.scales
        with torch.no_grad():
            parts = [tables[field](number[..., place])[..., column] for place, field in enumerate(self.item_fields)]
        return torch.stack(parts, dim=-1)

    def _parts(self, embedded: Tensor, fields: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Vectors of embedded fields, one after another, and each field's weights of its features `[..., F, P]`."""
        dim, part = self.config.embedding, self.embed.trained_part(embedded, fields)
        return part[..., :dim].flatten(-2), part[..., dim : dim + FEATURES]

    # The memory

    def initial_memory(self, num_users: int) -> Any:
        """Empty slots, sums and cells."""
        weight = next(self.parameters())
        slot_BSD = weight.new_zeros(num_users, *self.plan.slots)
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return self._joined(count_B, slot_BSD, self._kernel.empty(self.plan, num_users, _kind_of(weight)))

    @property
    def _kernel(self) -> Any:
        # Compiling takes seconds where nothing is cached yet.
        from lifelong.tally import kernel

        return kernel

    def _joined(self, count: Tensor, slot: Tensor, counted: Any) -> Any:
        """A memory of slots and of what the kernel counted; leading axes are those of the count."""
        fields = {name: torch.from_numpy(value) for name, value in counted._asdict().items()} | {"slot_BSD": slot}
        kind = _memory_of(tuple(NAMES[part.name] for part in self.plan.layout))
        shapes = {NAMES[part.name]: part.shape for part in self.plan.layout}
        return kind(count, *(fields[name].to(count.device).reshape(*count.shape, *shapes[name]) for name in shapes))

    def _counted(self, memory: Any) -> Any:
        """What the kernel takes of a memory, a row for each user: copies."""
        users, weight = memory.count_B.numel(), next(self.parameters())
        counted = self._kernel.empty(self.plan, users, _kind_of(weight))._asdict()
        fields = {name: _array(value) for name, value in memory._asdict().items() if name in counted}
        # Copies, as the kernel writes in place: neither a read nor a write may change the memory that it was given.
        return self._kernel.Memory(
            **counted | {name: value.reshape(users, *counted[name].shape[1:]).copy() for name, value in fields.items()}
        )

    def _slots(self, memory: Any) -> Slots | None:
        return Slots(memory.count_B, memory.slot_BSD) if self.periods else None

    def write(self, memory: Any, event: Event) -> Any:
        """Step the slots that are due, and count."""
        counted, count_B, number_BF = self._counted(memory), memory.count_B + 1, event.number_BF
        gap_B = self._gaps(number_BF)
        factor_BD, rules = (
            _array(self._factors(number_BF, None)),
            self._kernel.rules_of(self.plan, counted.sums_BXD.dtype),
        )
        key_BF = self._keys(event.key_BF, number_BF)
        self._kernel.write(counted, np.arange(len(count_B)), key_BF, gap_B, factor_BD, _array(count_B), rules)
        slots, event_BE = self._slots(memory), self.embed(number_BF, self.history_fields)
        slot = count_B.new_zeros(len(count_B), 0, 0) if slots is None else self.write_vector(slots, event_BE).slot_BSD
        return self._joined(count_B, slot, counted)

    def write_vector(self, memory: Slots, event_BE: Tensor) -> Slots:
        """Step the slots that are due."""
        assert self.memory.slots is not None
        return self.memory.slots.step(memory, self._parts(event_BE, self.history_fields)[0])

    def encode(self, history: History, position_BC: Tensor) -> Any:
        """Slots layer by layer, all else by a compiled replay."""
        users, targets = position_BC.shape
        row_N = torch.arange(users).repeat_interleave(targets)
        key_BLF = self._keys(history.key_BLF, history.number_BLF)
        _, counted = self._replay(history.number_BLF, key_BLF, history.user_B, row_N, position_BC.flatten(), None)
        event_BLE = self.embed(history.number_BLF, self.history_fields, user=history.user_B)
        slots = self.encode_vector(event_BLE, history.length_B, position_BC)
        return self._joined(
            position_BC, position_BC.new_zeros(users, targets, 0, 0) if slots is None else slots.slot_BSD, counted
        )

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Slots | None:
        """The slots."""
        if self.memory.slots is None:
            return None
        vector_BLE = self._parts(event_BLE, self.history_fields)[0]
        slots: Slots = self.memory.slots(vector_BLE, length_B, position_BC)
        return slots

    def read(self, memory: Any, target: Target) -> tuple[Tensor, Tensor | None]:
        """What is known of the target, and attention over the slots that are not empty."""
        number_BCF, counted = target.number_BCF, self._counted(memory)
        users, candidates, _ = number_BCF.shape
        # A memory `[B, 1, ...]` is read by all of its user's targets.
        each = memory.count_B.numel() // max(users, 1)
        row_BC = torch.arange(users * each).view(users, each).expand(users, candidates)
        number_NF, factor_ND = number_BCF.flatten(0, 1), self._factors(number_BCF, None).flatten(0, 1)
        key_NF = self._keys(None if target.key_BCF is None else target.key_BCF.flatten(0, 1), number_NF)
        asked = self._targets(number_NF, key_NF, row_BC.flatten(), factor_ND)
        rules = self._kernel.rules_of(self.plan, counted.sums_BXD.dtype)
        known_of = self._kernel.unknown(rules, users * candidates, asked.factor_ND.dtype)
        self._kernel.read(counted, _array(memory.count_B.flatten()), asked, rules, known_of)
        known, kind = (
            torch.from_numpy(part).view(users, candidates, -1) for part in (known_of.known_NY, known_of.kind_NF)
        )
        target_BCE = self.embed(number_BCF, self.item_fields, user=target.user_BC)
        like = target_BCE.device
        return self.read_known(known.to(like), kind.to(like), self._slots(memory), target_BCE)

    def read_known(
        self, known_BCY: Tensor, kind_BCF: Tensor, slots: Slots | None, target_BCE: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What is known of the target, and attention over the slots that are not empty."""
        vector, weight = self._parts(target_BCE, self.item_fields)
        found: tuple[Tensor, Tensor | None] = self.memory(Asked(known_BCY, kind_BCF, vector, weight), slots)
        return found

    def respond(self, memory: Any, target: Target) -> tuple[Tensor, Tensor | None]:
        """Logits `[B, C, T]` and attention from a memory."""
        interest_BCX, attention_BCS = self.read(memory, target)
        target_BCE = self.embed(target.number_BCF, self.item_fields, user=target.user_BC)
        return self.head(interest_BCX, target_BCE, self.embed_context(target.context_BCF)), attention_BCS

    # Training

    def forward(self, batch: Batch) -> Output:
        """What `encode` and `respond` give, up to rounding; what targets of one moment share is computed once."""
        moments = self._moments(batch)
        read = self._read(batch, moments)
        context_XE = self.embed_context(batch.context_BCF.flatten(0, 1)[moments.first_X])
        heads = self.head.members_at(read, self.memory.widths, context_XE, moments.moment_N)
        first, second = (spread_targets(logit_NT, batch.mask_BC) for logit_NT in heads)
        attention = None if read.attention_NS is None else spread_targets(read.attention_NS, batch.mask_BC)
        members = (first,) if plans.PARTS.steady == 0 else (first, second)
        return Output(self.head.mixed(first, second), attention_BCS=attention, members=members)

    def learn_scales(self, batches: Iterable[Batch]) -> None:
        """Mean and deviation of counts and affinities."""
        known, asked = [], 0
        # Enough for a mean and a deviation. Batches are made as they are read, so that no more are made than that.
        for batch in batches:
            known.append(torch.from_numpy(self._known(batch, self._moments(batch)).known_NY))
            if (asked := asked + len(known[-1])) >= SCALED_BY:
                break
        self.head.scale(torch.cat(known), self.memory.widths)

    def validated(self, predict: Callable[[], FloatArray], label_NT: FloatArray) -> FloatArray:
        """The weight of the second head is chosen, unless it is given."""
        if plans.PARTS.steady is not None:
            return predict()
        # At 0 and at 1 the mixture is one head alone, so that two predictions are enough for all weights in between.
        self.head.steady.fill_(0.0)
        first_NT = predict()
        self.head.steady.fill_(1.0)
        second_NT = predict()
        weight = best_weight(first_NT, second_NT, label_NT)
        self.head.steady.fill_(weight)
        return (1 - weight) * first_NT + weight * second_NT

    def counted_numbers(self, batch: Batch) -> FloatArray:
        """Of the targets' cells."""
        numbers: FloatArray = self._known(batch, self._moments(batch)).number_NFX
        return numbers

    def _moments(self, batch: Batch) -> Moments:
        return moments_of(batch.position_BC, batch.context_BCF[..., self._context_at], batch.mask_BC)

    def _known(self, batch: Batch, moments: Moments) -> Any:
        """What is known of the real targets."""
        number_NF, user_N = self._real(batch, moments)
        factor_ND = self._factors(number_NF.unsqueeze(1), batch.user_B[user_N]).squeeze(1)
        position_N = batch.position_BC.flatten()[moments.real_N]
        key_NF = self._keys(batch.target_key_BCF.flatten(0, 1)[moments.real_N], number_NF)
        asked = self._targets(number_NF, key_NF, user_N, factor_ND)
        key_BLF = self._keys(batch.history_key_BLF, batch.history_BLF)
        return self._replay(batch.history_BLF, key_BLF, batch.user_B, user_N, position_N, asked)[0]

    def _real(self, batch: Batch, moments: Moments) -> tuple[Tensor, Tensor]:
        """Numbers of the real targets, and the row of each one's user."""
        number_NF = batch.target_BCF.flatten(0, 1)[moments.real_N]
        return number_NF, moments.real_N // max(1, batch.mask_BC.shape[1])

    def _read(self, batch: Batch, moments: Moments) -> Read:
        """What the memories say of all targets."""
        counted, (number_NF, user_N) = self._known(batch, moments), self._real(batch, moments)
        known_NY, kind_NF = (
            torch.from_numpy(part).to(number_NF.device) for part in (counted.known_NY, counted.kind_NF)
        )
        event_BLE, target_NFE = self._embedded(batch.history_BLF, number_NF, batch.user_B, batch.user_B[user_N])
        dim, slots = self.config.embedding, None
        asked = Asked(known_NY, kind_NF, target_NFE[..., :dim].flatten(-2), target_NFE[..., dim : dim + FEATURES])
        if self.memory.slots is not None:
            slot_BMSD = self.memory.slots(event_BLE, batch.length_B, moments.position_BM).slot_BSD
            of_moments = (moments.position_BM.flatten(), slot_BMSD.flatten(0, 1))
            slots = Slots(*(part[moments.place_X] for part in of_moments))
        return self.memory.at_moments(asked, slots, moments.moment_N)

    def _embedded(
        self, history_BLF: Tensor, number_NF: Tensor, user_B: Tensor, user_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors of events `[B, L, E]`, and the embeddings of targets `[N, F, dim + OWN]`, factors left out.

        Each table is asked once, so that it has one gradient.
        """
        tables, dim, events, targets = self.embed.tables | self.embed.scales, self.config.embedding, [], []
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

    # What the kernel takes

    def _gaps(self, number: Tensor) -> npt.NDArray[Any]:
        """Seconds since the event before, 0 without times."""
        if self.plan.levels == 1:
            return np.zeros(number.shape[:-1], np.int64)
        return seconds_of(_array(number[..., self.history_fields.index("gap")]))

    def _keys(self, key: Tensor | None, number: Tensor) -> npt.NDArray[Any]:
        """Keys of the item fields, or those of their numbers where there are none."""
        if key is None or not key.shape[-1]:
            return keys_of(_array(number[..., : len(self.item_fields)]))
        return _array(key)

    def _targets(self, number_NF: Tensor, key_NF: npt.NDArray[Any], row_N: Tensor, factor_ND: Tensor) -> Any:
        popularity_NF = _array(self._popularity(number_NF))
        return self._kernel.Targets(_array(row_N), key_NF, _array(number_NF), popularity_NF, _array(factor_ND))

    def _replay(
        self,
        number_BLF: Tensor,
        key_BLF: npt.NDArray[Any],
        user_B: Tensor | None,
        row_N: Tensor,
        position_N: Tensor,
        asked: Any,
    ) -> tuple[Any, Any]:
        """What is known of targets; or, if nothing is asked, the memories there."""
        kernel, gap_BL = self._kernel, self._gaps(number_BLF)
        factor_BLD, row, position = _array(self._factors(number_BLF, user_B)), _array(row_N), _array(position_N)
        dtype, size = factor_BLD.dtype, len(row)
        # By user, then by position: one pass over a history serves all of its targets.
        rules, order_N = kernel.rules_of(self.plan, dtype), np.lexsort((position, row))
        if asked is None:
            none = np.zeros((size, 0), dtype)
            asked = kernel.Targets(row, no_values := np.zeros((size, 0), np.int64), no_values, none, none)
            seen, after = kernel.unknown(rules, 0, dtype), kernel.empty(self.plan, size, dtype)
        else:
            seen, after = kernel.unknown(rules, size, dtype), kernel.empty(self.plan, 0, dtype)
        nobody, work = kernel.empty(self.plan, 1, dtype), kernel.empty(self.plan, 1, dtype)
        kernel.replay(nobody, work, key_BLF, gap_BL, factor_BLD, order_N, position, asked, rules, seen, after)
        return seen, after


def _kind_of(tensor: Tensor) -> Any:
    return np.float64 if tensor.dtype == torch.float64 else np.float32


def _array(value: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = value.detach().cpu().contiguous().numpy()
    return array


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
    # From logits and not from probabilities, which round to 0 and 1 and would make a loss infinite.
    loss_WN = np.logaddexp(0.0, logit_WN) - label_NT.ravel() * logit_WN
    # All weights are measured on the same examples, so that the error of the difference counts; that of a loss itself
    # is far larger and would call every weight close.
    above_WN = loss_WN - loss_WN[np.argmin(loss_WN.mean(axis=1))]
    error_W = above_WN.std(axis=1) / math.sqrt(above_WN.shape[1])
    close_W = weight_W[above_WN.mean(axis=1) <= error_W]
    return float(close_W[np.argmin(np.abs(close_W - STEADY))])
