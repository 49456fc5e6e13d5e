"""The base of all models that are trained by gradient: embeddings of the fields, the head, and what else it reads.

Shapes: B users, C targets per user, F fields, E width of an embedded target or context, S slots, T tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.dataset.events import InputSpec
from lifelong.dataset.folder import Dataset
from lifelong.dataset.scales import NUMBER, SCALES
from lifelong.dtypes import Float32Array, FloatArray
from lifelong.offline.data.batch import Batch
from lifelong.offline.nn.counted import ExactCounts
from lifelong.offline.nn.embeddings import FieldEmbedding
from lifelong.offline.nn.factors import UserFactors
from lifelong.offline.nn.head import Head

USER_NUMBER = "user number"
"""What the rows of a table of users are called, in place of a field."""


@dataclass(frozen=True, slots=True)
class Output:
    """Everything that `forward` produces.

    Args:
        logit_BCT: logits, also at padded targets (mask them).
        aux_losses: named terms, already weighted, that the trainer adds to the cross entropy.
        attention_BCS: first-hop attention over the slots, or over what a history model attends to, for models that
            have one.
        aux_sizes: over how many things the terms of `Model.aux_means` are means.
        members: of a model with several heads the logits of each; `logit_BCT` is made of them. Each learns by a loss
            of its own, so that none fits what the others leave over.
    """

    logit_BCT: Tensor
    aux_losses: Mapping[str, Tensor] = field(default_factory=dict)
    attention_BCS: Tensor | None = None
    aux_sizes: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[Tensor, ...] = ()

    @property
    def learned_BCT(self) -> tuple[Tensor, ...]:  # noqa: N802  named like the fields
        """Logits that each have a loss to learn from."""
        return self.members or (self.logit_BCT,)


class Model(nn.Module, ABC):
    """A history model: takes only events before each target's position.

    A subclass takes `(inputs, config)`: `config` is a frozen dataclass of the same file, `Config`, that has every
    setting with its default and help text.
    """

    Config: ClassVar[type[Any]]
    config: Any
    """The settings it was built with, a `Config`."""
    shared_settings: Mapping[str, Any] = {}
    """Settings that are the same for every model (`model.head`, `model.context` ...), where they are not as usual."""
    title: str
    """The model's name in tables, such as "GRU4Rec"; settings may choose another one."""
    source: ClassVar[str]
    """The paper: authors, venue."""
    state: ClassVar[str]
    """What a service must keep for a user."""
    not_served: str = "it reads the whole history at every request"
    """Why no service can score with it; empty if one can."""
    aux_means: ClassVar[tuple[str, ...]] = ()
    """Auxiliary losses that are means over something other than labelled targets; see `Output.aux_sizes`."""
    reads_context: ClassVar[bool] = True
    """Whether the fields of the context can be chosen: `model.context`."""
    aux_sums: ClassVar[tuple[str, ...]] = ()
    """Auxiliary losses that are sums over the batch."""
    vector_spread: ClassVar[float] = 1.0
    """Root of the mean square of the numbers in initial vectors of item fields that are made of co-occurrence; 0 where
    vectors mean something else, and these are not taken."""
    reads_popularity: bool = False
    """Whether it is given how often each value is the target in training: `learn_popularity`."""
    common_head: ClassVar[bool] = True
    """Whether its head is the common one, which can be given more to read: `give`."""

    periods: tuple[int, ...] = ()
    """After how many events each slot is rewritten, in a model with slots: training cuts histories at multiples of the
    largest."""

    recipe: ClassVar[Mapping[str, Any]] = {}
    """Settings of a run (`[train]`) that this model is trained with where nobody names them, in place of the usual."""
    few_epochs: ClassVar[bool] = False
    """Whether such a run ends after one or two epochs, by the size of the log; see `training.settings`."""

    exact: ExactCounts | None
    """Exact counts, which the head reads after the context; None unless they are given."""
    head: nn.Module
    """`head(interest, target, context)` -> logits `[..., T]`; linear models put their own in its place."""
    item_fields: tuple[str, ...]
    context_fields: tuple[str, ...]
    event_width: int
    target_width: int
    context_width: int

    def __init__(
        self,
        inputs: InputSpec,
        *,
        embedding: int,
        interest: int,
        dropout: float,
        codes: Collection[str] = (),
        factors: Mapping[str, int] | None = None,
    ) -> None:
        """Build the parts that all models share: embeddings and head.

        Args:
            inputs: sizes of all input fields.
            embedding: width of each field's trained vector.
            interest: width D of what `read` returns.
            dropout: of the head.
            codes: fields with vectors that also hold a fixed code of their number.
            factors: field -> width of the fixed factor that its vectors also hold.
        """
        super().__init__()
        self.inputs = inputs
        self.item_fields, self.context_fields = tuple(inputs.item), inputs.context_fields
        # A batch has all context fields that the data has.
        self._context_at = [list(inputs.context).index(field) for field in self.context_fields]
        self.history_fields: tuple[str, ...] = self.item_fields + tuple(inputs.event)
        self.embed: FieldEmbedding = FieldEmbedding(
            {**inputs.item, **inputs.event, **{field: inputs.context[field] for field in self.context_fields}},
            embedding,
            codes=codes,
            scales={**SCALES, **dict.fromkeys(inputs.numbers, NUMBER)},
            factors=factors,
        )
        self.event_width, self.target_width, self.context_width = (
            sum(self.embed.widths(fields)) for fields in (self.history_fields, self.item_fields, self.context_fields)
        )
        self.head = Head(interest + self.target_width + self.context_width, len(inputs.tasks), dropout=dropout)
        self.exact = None

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
        """Width of a field's vector, without what a model keeps after it."""
        return self.embed.dim

    def begin_with(
        self,
        vectors: Mapping[str, Float32Array],
        apart: Sequence[Mapping[str, Float32Array]] = (),
    ) -> None:
        """Let trained vectors of item fields begin as those given, times `vector_spread`.

        Args:
            vectors: field -> `[V, vector_width]`; a vector of zeros leaves the one there is.
            apart: those that each group of users is trained with (`cooccurrence.aligned_vectors`), of some fields.
        """
        with torch.no_grad():
            for field, table in self.embed.tables.items():
                if field in vectors:
                    start_VD = self.vector_spread * torch.from_numpy(vectors[field]).to(table.weight)
                    # Numbers without training events keep their random vectors. At zero they would all be alike.
                    trained_V = start_VD.any(dim=1)
                    table.weight[trained_V, : self.vector_width] = start_VD[trained_V]
        self.embed.set_differences(
            {
                field: self.vector_spread * torch.from_numpy(np.stack([part[field] - vectors[field] for part in apart]))
                for field in (apart[0] if apart else ())
            }
        )

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """Take in how many training targets have each number, before training; most models do not look at it.

        Args:
            counts: item field -> `[V]`.
        """
        if self.exact is not None:
            self.exact.popular.learn(counts)

    def validated(self, predict: Callable[[], FloatArray], label_NT: FloatArray) -> FloatArray:
        """Logits `[N, T]` of the validation examples, after setting what is chosen on them; in most models nothing is.

        Args:
            predict: logits `[N, T]` of these examples, by the model as it is.
            label_NT: their labels.
        """
        return predict()

    def learn_scales(self, batches: Iterable[Batch]) -> None:
        """Take in how large inputs are, before training and after all else is given; most models do not look at it.

        Args:
            batches: of training; as many are made as are read.
        """

    @property
    def factor_widths(self) -> Mapping[str, int]:
        """Item field -> width of the fixed factors that its values are to have, before training: `take_factors`."""
        return {field: table.shape[1] for field, table in self.embed.factors.items()}

    def take_factors(self, whole: Mapping[str, Tensor], apart: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in fixed factors; see `lifelong.offline.data.cooccurrence.unit_factors`.

        Args:
            whole: field -> `[V, width]`, made of all users.
            apart: the same for each group of users, made of all others: what the group is trained with.
        """
        self.embed.set_factors(whole)

    def tables(self) -> list[nn.Embedding]:
        """The tables that grow with the data; `forward` takes rows from them by calling them, and no other way."""
        return list(self.embed.tables.values())

    def table_numbers(self, batch: Batch) -> list[Tensor]:
        """For each of `tables`, the numbers of a batch that `forward` may look up, padding first: `[N]`."""
        columns = {field: [batch.length_B.new_zeros(1)] for field in self.embed.tables}
        for fields, number in (
            (self.history_fields, batch.history_BLF),
            (self.item_fields, batch.target_BCF),
            (self.context_fields, batch.context_BCF[..., self._context_at]),
            ((USER_NUMBER,), batch.user_B.unsqueeze(-1)),
        ):
            # The user's number may be a field, which has no column there.
            for name, column in zip(fields, number.unbind(dim=-1), strict=False):
                if name in columns:
                    columns[name].append(column.flatten())
        return [torch.unique(torch.cat(some)) for some in columns.values()]

    @property
    def undivided(self) -> str:
        """Why the users of a batch cannot be trained in several processes; empty if they can."""
        return ""

    @property
    def number_tables(self) -> dict[str, str]:
        """Names of the saved weights that hold a row per number -> the field, or `USER_NUMBER`."""
        own = {f"embed.table_list.{place}.weight": field for place, field in enumerate(self.embed.tables)}
        factors = {f"embed.{name}": field for field, name in self.embed.factor_names.items()}
        counts = {} if self.exact is None else self.exact.number_tables
        return own | factors | {f"exact.{name}": field for name, field in counts.items()}

    def embed_context(self, context_BCF: Tensor) -> Tensor:
        """Embedded context, width 0 if the model reads none; `context_BCF` as in `Batch`."""
        if not self.context_fields:
            return torch.zeros(*context_BCF.shape[:-1], 0, device=context_BCF.device)
        embedded: Tensor = self.embed(context_BCF[..., self._context_at], self.context_fields)
        return embedded

    def context_of(self, batch: Batch) -> Tensor:
        """What the head reads after interest and target: embedded context, then exact counts."""
        context_BCE = self.embed_context(batch.context_BCF)
        return context_BCE if self.exact is None else torch.cat([context_BCE, self.exact(batch)], dim=-1)

    def give_counts(self, *, dropout: float) -> None:
        """Let the common head also read exact counts; a new head takes the place of the one there is.

        Args:
            dropout: of the head.
        """
        assert isinstance(self.head, Head) and isinstance(self.head.layers[0], nn.Linear)
        counts = ExactCounts(self.inputs)
        self.head = Head(self.head.layers[0].in_features + counts.width, len(self.inputs.tasks), dropout=dropout)
        self.context_width += counts.width
        self.exact, self.reads_popularity = counts, True
        self.title = f"{self.title} + counts"
        self.not_served = self.not_served or ExactCounts.not_served

    def requirements(self, dataset: Dataset) -> list[str]:
        """What this model misses in a dataset, in words; empty if it can be trained on it."""
        return []


class UserModel(Model):
    """A model with a trained vector per user, of those who are in training."""

    not_served = "its user vectors are trained, not updated by events"
    users: UserFactors

    def tables(self) -> list[nn.Embedding]:
        """The users' too."""
        return [*super().tables(), self.users]

    def table_numbers(self, batch: Batch) -> list[Tensor]:
        """The users' too."""
        return [*super().table_numbers(batch), torch.unique(torch.cat([batch.user_B.new_zeros(1), batch.user_B]))]

    @property
    def number_tables(self) -> dict[str, str]:
        """The users' table too."""
        return {**super().number_tables, "users.weight": USER_NUMBER}
