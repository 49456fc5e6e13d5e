"""What a model is.

    Model         forward(batch) -> Output                                    any model that is trained by gradient
    HistoryModel  find(window, query)                                         reads the last events at every request
    MemoryModel   initial_memory, write, encode, read, (head)                 bounded state, O(1) per event
    FittedModel   fit, predict, save, load                                    not trained by gradient

Vectors and numbers: a memory model embeds the numbers of an event or target and then works on vectors alone
(`write_vector`, `encode_vector`, `read_vector`, `head`). The artifact exports exactly these functions as graphs and the
tables as arrays, so that a server needs no torch.

Shapes: B users, L padded history length, C targets per user, F fields, E width of an embedded event, D width of an
interest, S slots, T tasks, K counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from lifelong.data.events import NO_TIME, InputSpec
from lifelong.data.item_histories import HOW
from lifelong.data.scales import ITEM_SCALES, NUMBER, SCALES, SINCE
from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import UsageError
from lifelong.nn.counted import CountScale, TargetPopularity
from lifelong.nn.embeddings import FieldEmbedding, ScaleVectors
from lifelong.nn.factors import UserFactors
from lifelong.nn.head import Head
from lifelong.nn.hits import over_events
from lifelong.nn.masks import length_mask
from lifelong.nn.short_term import SHORT_WIDTH, ShortTerm
from lifelong.nn.windows import recent_mean

if TYPE_CHECKING:
    from lifelong.data.batches import Batch
    from lifelong.data.cell_plan import CellPacking
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples
    from lifelong.data.renumbering import Renumbering
    from lifelong.models.sides import ItemSide


@dataclass(frozen=True, slots=True)
class Output:
    """Everything that `forward` produces.

    Args:
        logit_BCT: logits, also at padded targets (mask them).
        aux_losses: named terms, already weighted, that the trainer adds to the cross entropy.
        attention_BCS: first-hop attention over the slots, or over what a history model attends to, for models that
            have one.
        aux_sizes: over how many things the terms of `Model.aux_means` are means.
        members: of a model with several heads the logits of each, of which `logit_BCT` is made. Each learns by a loss
            of its own, so that none fits what the others leave over.
    """

    logit_BCT: Tensor
    aux_losses: Mapping[str, Tensor] = field(default_factory=dict)
    attention_BCS: Tensor | None = None
    aux_sizes: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[Tensor, ...] = ()

    @property
    def learned_BCT(self) -> tuple[Tensor, ...]:  # noqa: N802  named like the fields
        """Logits whose losses are learned from."""
        return self.members or (self.logit_BCT,)


class Event(NamedTuple):
    """One event of each of B users."""

    number_BF: Tensor
    """int64, `schema.history_fields`."""
    time_B: Tensor
    """int64 UTC seconds."""


class History(NamedTuple):
    """Histories of B users, left-aligned."""

    number_BLF: Tensor
    time_BL: Tensor
    length_B: Tensor


class Target(NamedTuple):
    """C targets of each of B users."""

    number_BCF: Tensor
    """int64, `schema.item_fields`."""
    context_BCF: Tensor
    """int64, `schema.context_fields`."""
    time_BC: Tensor
    count_BCK: Tensor | None = None
    """See `Batch`; for a model that is given counts."""
    seen_BCX: Tensor | None = None
    """What the side of items read, of a model that has one."""


class Memory(Protocol):
    """A NamedTuple of tensors whose first axis is the user (after `encode`: user, target).

    The first field is always `count_B`: int64 number of events folded in; the others are float tensors. What a store
    keeps of a user is `count`, the time of her last event, and these fields.
    """

    @property
    def count_B(self) -> Tensor:  # noqa: N802  a field's name, with its shape
        """Events folded in."""

    def _asdict(self) -> dict[str, Any]: ...


USER_NUMBER = "user number"
"""What the rows of a table of users are called, in place of a field."""

M = TypeVar("M", bound=Memory, default=Any)
"""The NamedTuple of one memory model."""


class Model(nn.Module, ABC):
    """A history model: takes only events before each target's position.

    Subclasses take plain keyword arguments after `inputs`; a frozen dataclass `Config` in the same file names the same
    arguments with defaults and help texts, so that `Model(inputs, **asdict(config))` builds it.
    """

    Config: ClassVar[type[Any]]
    title: str
    """The model's name in tables, such as "GRU4Rec"; a form that settings choose may have its own."""
    source: ClassVar[str]
    """The paper: authors, venue."""
    state: ClassVar[str]
    """What a service must keep for a user."""
    not_served: str = "it reads the whole history at every request"
    """Why a model that is not a `MemoryModel` cannot be served from memories."""
    aux_means: ClassVar[tuple[str, ...]] = ()
    """Auxiliary losses that are means over something else than labelled targets; see `Output.aux_sizes`."""
    reads_context: ClassVar[bool] = True
    """Whether `model.context` is a setting of it."""
    sees_since: ClassVar[bool] = False
    """Whether it can look up when the target's values were last there."""
    aux_sums: ClassVar[tuple[str, ...]] = ()
    """Auxiliary losses that are sums over the batch."""
    vector_spread: ClassVar[float] = 1.0
    """Root of the mean square of the numbers in initial vectors of item fields that are made of co-occurrence; 0 where
    vectors mean something else, and these are not taken."""
    reads_popularity: ClassVar[bool] = False
    """Whether it is told how often each value is asked about in training: `learn_popularity`."""
    takes_counts: ClassVar[bool] = True
    """Whether its head is the common one, which can be given exact counts of the target, too."""

    counted: CountScale | None
    """Of a model that is given them (`model.counts`), None of others."""
    popular: TargetPopularity | None
    """Of the same."""
    item_side: ItemSide | None
    """Of a model that has one (`model.side`), None of others."""
    head: nn.Module
    """`head(interest, target, context)` -> logits `[..., T]`; linear models put their own in its place."""

    def __init__(
        self,
        inputs: InputSpec,
        *,
        embedding: int,
        interest: int,
        dropout: float,
        codes: Collection[str] = (),
        keys: Collection[str] = (),
    ) -> None:
        """Build the parts that all models share: embeddings and head.

        Args:
            inputs: sizes of all input fields.
            embedding: width of each field's trained vector.
            interest: width D of what `read` returns.
            dropout: of the head.
            codes: fields whose vectors also hold a fixed code of their number.
            keys: fields whose vectors also hold the key of their number.
        """
        super().__init__()
        self.inputs = inputs
        self.item_fields, self.context_fields = tuple(inputs.item), inputs.context_fields
        # A batch has all context fields that the data has.
        self._context_at = [list(inputs.context).index(field) for field in self.context_fields]
        self.history_fields = self.item_fields + tuple(inputs.event)
        self.embed = FieldEmbedding(
            {**inputs.item, **inputs.event, **{field: inputs.context[field] for field in self.context_fields}},
            embedding,
            codes=codes,
            keys=keys,
            scales={**SCALES, **ITEM_SCALES, **dict.fromkeys(inputs.numbers, NUMBER)},
        )
        self.event_width, self.target_width, self.context_width = (
            sum(self.embed.widths(fields)) for fields in (self.history_fields, self.item_fields, self.context_fields)
        )
        self.head = Head(interest + self.target_width + self.context_width, len(inputs.tasks), dropout=dropout)
        self.counted, self.popular, self.item_side = None, None, None

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Logits of all targets of a batch."""

    @property
    def divisible(self) -> bool:
        """Whether a batch's users may be trained in parts.

        Then `forward` treats them independently and changes nothing in the model, and auxiliary losses are means over
        labelled positions.
        """
        return False

    @property
    def vector_width(self) -> int:
        """Width of a field's vector, without what a model keeps behind it."""
        return self.embed.dim

    def begin_with(self, vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Let trained vectors of item fields begin as those given, times `vector_spread`.

        Args:
            vectors: field -> `[V, vector_width]`; a vector of zeros leaves the one there is.
        """
        with torch.no_grad():
            for field, table in self.embed.tables.items():
                if field in vectors:
                    given_VD = self.vector_spread * torch.from_numpy(vectors[field]).to(table.weight)
                    known_V = given_VD.any(dim=1)
                    table.weight[known_V, : self.vector_width] = given_VD[known_V]

    def learn_popularity(self, counts: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Take in how many training targets have each number, before training; most models do not look at it.

        Args:
            counts: item field -> `[V]`.
        """
        if self.popular is not None:
            self.popular.learn(counts)

    def tables(self) -> list[nn.Embedding]:
        """The tables that grow with the data; `forward` takes rows from them by calling them, and no other way."""
        tables = list(self.embed.tables.values())
        return tables if self.item_side is None else [*tables, *self.item_side.memory.tables()]

    @property
    def undivided(self) -> str:
        """Why the users of a batch cannot be trained in several processes; empty if they can."""
        return ""

    @property
    def number_tables(self) -> dict[str, str]:
        """Names of the saved weights that hold a row per number -> the field, or `USER_NUMBER`."""
        own = {f"embed.table_list.{place}.weight": field for place, field in enumerate(self.embed.tables)}
        if self.popular is not None:
            own |= {f"popular.popular_{place}": field for place, field in enumerate(self.popular.fields)}
        if self.item_side is None:
            return own
        of_items = self.item_side.memory.number_tables
        return own | {
            f"item_side.memory.{name}": USER_NUMBER if field == "user" else field for name, field in of_items.items()
        }

    def embed_context(
        self, context_BCF: Tensor, count_BCK: Tensor | None = None, target_BCF: Tensor | None = None
    ) -> Tensor:
        """Embedded context, width 0 if the model reads none; behind it, of a model that is given counts, these.

        Args:
            context_BCF: as in `Batch`.
            count_BCK: the same.
            target_BCF: numbers of the targets, whose popularity stands behind the counts.

        Raises:
            UsageError: it is given counts, and there are none.
        """
        embedded = torch.zeros(*context_BCF.shape[:-1], 0, device=context_BCF.device)
        if self.context_fields:
            embedded = self.embed(context_BCF[..., self._context_at], self.context_fields)
        if self.counted is None:
            return embedded
        if count_BCK is None or not count_BCK.shape[-1]:
            raise UsageError(f"{self.title} was given no counts", fix="make the batches with counts=True")
        assert self.popular is not None and target_BCF is not None
        return torch.cat([embedded, self.counted(count_BCK), self.popular(target_BCF)], dim=-1)

    def widen_head(self, more: int, *, dropout: float) -> None:
        """Put a new common head in place of the one there is, that takes so many more numbers behind the context."""
        assert isinstance(self.head, Head) and isinstance(self.head.layers[0], nn.Linear)
        self.head = Head(self.head.layers[0].in_features + more, len(self.inputs.tasks), dropout=dropout)
        self.context_width += more

    def requirements(self, dataset: Dataset) -> list[str]:
        """What this model misses in a dataset, in words; empty if it can be trained on it."""
        if self.item_side is None or dataset.has_item_histories:
            return []
        return [f"it has no item histories, which {self.title} reads ({HOW})"]


class UserModel(Model):
    """A model with a trained vector per user, of those who are in training."""

    not_served = "its user vectors are trained, not updated by events"
    users: UserFactors

    def tables(self) -> list[nn.Embedding]:
        """The users' too."""
        return [*super().tables(), self.users]

    @property
    def number_tables(self) -> dict[str, str]:
        """The users' table too."""
        return {**super().number_tables, "users.weight": USER_NUMBER}


class Window(NamedTuple):
    """What a history model reads: B histories, left-aligned."""

    vector_BLE: Tensor
    """Embedded events; 0 in padding."""
    number_BLF: Tensor
    """int64, `schema.history_fields`; 0 in padding."""
    time_BL: Tensor
    """int64 UTC seconds; anything in padding."""
    length_B: Tensor


class Query(NamedTuple):
    """C targets of each of B users, as a history model sees them; anything where a target is padding."""

    vector_BCE: Tensor
    number_BCF: Tensor
    """int64, `schema.item_fields`."""
    time_BC: Tensor
    position_BC: Tensor
    """int64: events of the window before the target."""


class Found(NamedTuple):
    """What a history model finds for C targets."""

    interest_BCD: Tensor
    attention_BCS: Tensor | None = None
    """Over whatever the model attends to; at least 0, sum 1 (or all 0 without events) unless its weights are free."""
    aux_losses: Mapping[str, Tensor] = {}
    """Already weighted."""
    place_BCS: Tensor | None = None
    """int64: of which event of the window each weight is; None where there is one for every event, in order."""
    aux_sizes: Mapping[str, Tensor] = {}
    """See `Output`."""

    def attention_over(self, length: int) -> Tensor | None:
        """The weight of each of the window's L events: `[B, C, L]`, 0 where the model did not look."""
        if self.attention_BCS is None or self.place_BCS is None:
            return self.attention_BCS
        return over_events(self.attention_BCS, self.place_BCS, length)


class HistoryModel(Model):
    """A model that reads the history itself at every request: its last `recent` events before the target.

    A service keeps those events of a user, so that state and cost grow with `recent`.
    """

    recent: int
    sees_since = True
    free_weights: bool = False
    """Whether its attention is of any size and sign, as in a plain sum, and no share of 1."""

    def __init__(
        self,
        inputs: InputSpec,
        *,
        embedding: int,
        interest: int,
        dropout: float,
        pooled: bool = False,
        short: int = 0,
    ) -> None:
        """Build the parts that all models share, and vectors of how long ago something was there, if any is chosen.

        Args:
            inputs: sizes of all input fields.
            embedding: width of each field's trained vector.
            interest: width D of what `find` returns.
            dropout: of the head.
            pooled: whether the head also has the mean of the events, and its product with the target.
            short: last events that have an attention of their own beside `find`; 0 for none.
        """
        since, pool = inputs.since_fields, 2 * embedding * len(inputs.item) if pooled else 0
        more = pool + len(since) * embedding + (SHORT_WIDTH if short else 0)
        super().__init__(inputs, embedding=embedding, interest=interest + more, dropout=dropout)
        self.since_fields, self.pooled = since, pooled
        self.short_term = ShortTerm(self.target_width, self.event_width, size=short) if short else None
        self.since_list = nn.ModuleList(ScaleVectors(SINCE, embedding) for _ in since)

    @property
    def divisible(self) -> bool:
        """Users have nothing to do with each other."""
        return True

    @abstractmethod
    def find(self, window: Window, query: Query) -> Found:
        """Interest in each target, from the last `recent` events before its position alone.

        `self.visible(query, L)` is the mask of those events. A target that is padding may give any finite numbers.
        """

    def visible(self, query: Query, size: int) -> Tensor:
        """Which of the events each target may see, its last `recent` ones: mask `[B, C, size]`."""
        place_L = torch.arange(size, device=query.position_BC.device)
        position_BC1 = query.position_BC.unsqueeze(-1)
        return (place_L < position_BC1) & (place_L >= position_BC1 - self.recent)

    def look(self, window: Window, query: Query) -> Found:
        """`find`, and behind its interest the short term, the mean, and when the target's values were last there."""
        found = self.find(window, query)
        parts = [found.interest_BCD]
        if self.short_term is not None:
            parts.append(self.short_term(window.vector_BLE, query.vector_BCE, query.position_BC))
        parts += [*self._pool(window, query), *self._since_vectors(window, query)]
        return found._replace(interest_BCD=torch.cat(parts, dim=-1)) if len(parts) > 1 else found

    def _pool(self, window: Window, query: Query) -> list[Tensor]:
        """The mean of the items of the events that each target sees, and its product with the target, if wanted."""
        if not self.pooled:
            return []
        mean_BCE = recent_mean(window.vector_BLE[..., : self.target_width], query.position_BC, self.recent)
        return [mean_BCE, mean_BCE * query.vector_BCE]

    def _since_vectors(self, window: Window, query: Query) -> list[Tensor]:
        if not self.since_fields:
            return []
        seconds_BCF, known_BCF = self.since(window, query)
        parts = []
        for at, vectors in enumerate(self.since_list):
            assert isinstance(vectors, ScaleVectors)
            parts.append(vectors.of_values(seconds_BCF[..., at], known_BCF[..., at]))
        return parts

    def since(self, window: Window, query: Query) -> tuple[Tensor, Tensor]:
        """Seconds since an event that the target sees had its value of each of `since_fields`, and whether one had.

        Unknown values are like no others. `[B, C, F]`, int64 and bool.
        """
        visible_BCL = self.visible(query, window.number_BLF.shape[1])
        seconds, known = [], []
        for name in self.since_fields:
            at = self.item_fields.index(name)
            own_BC1 = query.number_BCF[..., at].unsqueeze(-1)
            same_BCL = visible_BCL & (window.number_BLF[:, None, :, at] == own_BC1) & (own_BC1 > UNKNOWN)
            time_BCL = torch.where(same_BCL, window.time_BL.unsqueeze(1), NO_TIME)
            # One place more, since there may be no event at all.
            last_BC = torch.cat([time_BCL, torch.full_like(own_BC1, NO_TIME)], dim=-1).amax(dim=-1)
            known.append(last_BC != NO_TIME)
            seconds.append(query.time_BC - torch.where(known[-1], last_BC, query.time_BC))
        return torch.stack(seconds, dim=-1), torch.stack(known, dim=-1)

    def forward(self, batch: Batch) -> Output:
        """Embed, find, and respond."""
        window, query = self.asked(batch)
        found = self.look(window, query)
        context_BCE = self.embed_context(batch.context_BCF, batch.count_BCK, batch.target_BCF)
        logit_BCT = self.head(found.interest_BCD, query.vector_BCE, context_BCE)
        return Output(logit_BCT, found.aux_losses, found.attention_BCS, found.aux_sizes)

    def asked(self, batch: Batch) -> tuple[Window, Query]:
        """A batch as `find` takes it."""
        real_BL1 = length_mask(batch.length_B, batch.history_BLF.shape[1]).unsqueeze(-1)
        event_BLE = self.embed(batch.history_BLF, self.history_fields).masked_fill(~real_BL1, 0.0)
        number_BLF = batch.history_BLF.masked_fill(~real_BL1, 0)
        target_BCE = self.embed(batch.target_BCF, self.item_fields)
        return (
            Window(event_BLE, number_BLF, batch.time_BL, batch.length_B),
            Query(target_BCE, batch.target_BCF, batch.target_time_BC, batch.position_BC),
        )


class MemoryModel(Model, Generic[M]):
    """A model whose state per user is bounded and updated in O(1) per event.

    The law: `encode` at position n = folding `write` over the first n events.
    """

    continues: ClassVar[bool] = False
    """Whether a pass can begin with a memory: `continue_vector` is there."""

    @property
    def divisible(self) -> bool:
        """Users have nothing to do with each other."""
        return True

    @property
    def stack(self) -> Sequence[tuple[nn.GRU, int]]:
        """The layers and their periods, the lowest first, of a memory whose only field are the states of such layers.

        A layer steps every so many events, by the new state of the layer below. Empty for a memory of another kind.
        """
        return ()

    @property
    def cells(self) -> CellPacking | None:
        """How the field `cell_BKX` of a memory that counts is stored; None for a memory of another kind."""
        return None

    @abstractmethod
    def initial_memory(self, num_users: int) -> M:
        """Empty memories."""

    @abstractmethod
    def write_vector(self, memory: M, event_BE: Tensor) -> M:
        """Fold one embedded event per user into the memory; the specification of the model."""

    @abstractmethod
    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> M:
        """Memory after `position` events, for each target: fields `[B, C, ...]`. The fast form of `write_vector`.

        Padding (places from `length_B` on) may hold anything, NaN too, and changes neither values nor gradients.
        """

    def continue_vector(self, memory: M, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> M:
        """As `encode_vector`, from memories after a multiple of the largest period of events, one per user.

        Args:
            memory: fields `[B, ...]`.
            event_BLE: what comes after them.
            length_B: of these events.
            position_BC: from the first of these events on.
        """
        raise NotImplementedError

    @abstractmethod
    def read_vector(self, memory: M, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read with the target as the query.

        Args:
            memory: fields `[B, C, ...]` (from `encode`) or `[B, 1, ...]` (one memory for all candidates).
            target_BCE: embedded targets.

        Returns:
            interest `[B, C, D]` and the first-hop attention `[B, C, S]`, or None.
        """

    def write(self, memory: M, event: Event) -> M:
        """Fold one event per user into the memory."""
        return self.write_vector(memory, self.embed(event.number_BF, self.history_fields))

    def encode(self, history: History, position_BC: Tensor) -> M:
        """Whole history -> memory at each position."""
        event_BLE = self.embed(history.number_BLF, self.history_fields)
        return self.encode_vector(event_BLE, history.length_B, position_BC)

    def read(self, memory: M, target: Target) -> tuple[Tensor, Tensor | None]:
        """Interest and first-hop attention."""
        return self.read_vector(memory, self.embed(target.number_BCF, self.item_fields))

    def respond(self, memory: M, target: Target) -> tuple[Tensor, Tensor | None]:
        """Logits `[B, C, T]` and attention from a memory."""
        target_BCE = self.embed(target.number_BCF, self.item_fields)
        interest_BCD, attention_BCS = self.read_vector(memory, target_BCE)
        context_BCE = self.embed_context(target.context_BCF, target.count_BCK, target.number_BCF)
        if target.seen_BCX is not None:
            context_BCE = torch.cat([context_BCE, target.seen_BCX], dim=-1)
        return self.head(interest_BCD, target_BCE, context_BCE), attention_BCS

    def auxiliary(self, memory: M, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """Auxiliary losses on the memories at labelled positions; none by default."""
        return {}

    def facts(self, memory: M) -> Mapping[str, Tensor]:
        """What to report of memories after training, `[B, C, X]` by name: means over positions; nothing by default."""
        return {}

    def forward(self, batch: Batch) -> Output:
        """One history pass, then a read per real target; padded targets get logit 0."""
        history = History(batch.history_BLF, batch.time_BL, batch.length_B)
        return self._answer(self.encode(history, batch.position_BC), batch)

    def go_on(self, memory: M, batch: Batch) -> tuple[Output, M]:
        """The same from memories, and the memories after each user's last event, without gradient."""
        event_BLE = self.embed(batch.history_BLF, self.history_fields)
        position_BC = torch.cat([batch.position_BC, batch.length_B.unsqueeze(1)], dim=1)
        found = self.continue_vector(memory, event_BLE, batch.length_B, position_BC)
        at, last = _split_last(found)
        return self._answer(at, batch), last

    def _answer(self, memory: M, batch: Batch) -> Output:
        """Read the memory at each target, and respond."""
        real_N = batch.mask_BC.flatten().nonzero().squeeze(-1)
        memory = pick(memory, real_N)
        asked = (batch.target_BCF, batch.context_BCF, batch.target_time_BC, batch.count_BCK)
        target = Target(*(value.flatten(0, 1)[real_N].unsqueeze(0) for value in asked))
        aux_losses = self.auxiliary(memory, real_N.new_ones(1, len(real_N), dtype=torch.bool))
        if self.item_side is not None:
            seen_1NX, of_items = self.item_side(batch.items, real_N)
            target, aux_losses = target._replace(seen_BCX=seen_1NX), {**aux_losses, **of_items}
        logit_BNT, attention_BNS = self.respond(memory, target)
        return Output(
            spread_targets(logit_BNT.squeeze(0), batch.mask_BC),
            aux_losses,
            None if attention_BNS is None else spread_targets(attention_BNS.squeeze(0), batch.mask_BC),
        )


_Fields = TypeVar("_Fields")


def pick(fields: _Fields, real_N: Tensor) -> _Fields:
    """A NamedTuple `[B, C, ...]` of the real targets alone, as if they were one user's: `[1, N, ...]`."""
    assert isinstance(fields, tuple)
    return type(fields)(*(value.flatten(0, 1)[real_N].unsqueeze(0) for value in fields))


def _split_last(fields: _Fields) -> tuple[_Fields, _Fields]:
    """A NamedTuple `[B, C, ...]` without the last place, and that place `[B, ...]` without gradient."""
    assert isinstance(fields, tuple)
    return type(fields)(*(value[:, :-1] for value in fields)), type(fields)(
        *(value[:, -1].detach() for value in fields)
    )


def spread_targets(value_NX: Tensor, mask_BC: Tensor) -> Tensor:
    """Values of the real targets, in order, back at their places, 0 elsewhere: `[B, C, X]`."""
    real_N = mask_BC.flatten().nonzero().squeeze(-1)
    whole = value_NX.new_zeros(mask_BC.numel(), value_NX.shape[1]).index_copy(0, real_N, value_NX)
    return whole.view(*mask_BC.shape, -1)


class FittedModel(ABC):
    """A model that is fitted at once and not by gradient: floors, LightGBM. Same registry, commands and comparison."""

    Config: ClassVar[type[Any]]
    title: ClassVar[str]
    source: ClassVar[str]
    state: ClassVar[str]
    not_served: ClassVar[str] = "it reads the raw history"
    """Why no service can score with it."""
    not_continued: ClassVar[str] = "it is fitted at once, and nothing of an earlier fit would be left"
    """Why a fit cannot go on from an earlier one."""

    def __init__(self, inputs: InputSpec) -> None:
        """Subclasses take their settings as keyword arguments after `inputs`, as models do."""
        self.inputs = inputs

    @abstractmethod
    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Fit on the training period only."""

    def start_from(self, earlier: Self, fields: Mapping[str, Renumbering]) -> list[str]:
        """Let `fit` go on from an earlier model, or say why it cannot, in words.

        Args:
            earlier: of the same settings.
            fields: what became of the numbers of each field.
        """
        return [self.not_continued]

    @abstractmethod
    def predict(self, dataset: Dataset, examples: Examples) -> npt.NDArray[np.float64]:
        """Logits `[N, T]` of examples, each from the events before its position alone."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into `folder`, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> FittedModel:
        """Read what `save` wrote."""

    def requirements(self, dataset: Dataset) -> list[str]:
        """What this model misses in a dataset, in words."""
        return []
