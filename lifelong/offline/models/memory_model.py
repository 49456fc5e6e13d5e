"""Models with a memory of bounded size for each user.

Shapes: B users, L padded history length, C targets per user, N real targets, F fields, E width of an embedded event,
D width of an interest, S slots, T tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar

from lifelong.dtypes import FloatArray
from lifelong.offline.data.batch import Batch
from lifelong.offline.models.model import Model, Output
from lifelong.offline.nn.hpmn import Slots
from lifelong.tally.plan import CellPacking, Plan


class Event(NamedTuple):
    """One event of each of B users."""

    number_BF: Tensor
    """int64, `schema.history_fields`."""
    time_B: Tensor
    """int64 UTC seconds."""
    key_BF: Tensor | None = None
    """int64 keys of the item fields; None for those of their numbers."""


class History(NamedTuple):
    """Histories of B users, left-aligned."""

    number_BLF: Tensor
    time_BL: Tensor
    length_B: Tensor
    user_B: Tensor | None = None
    """int64 numbers of the users, which training alone asks for: `FieldEmbedding.set_differences`."""
    key_BLF: Tensor | None = None
    """int64 keys of the item fields; None for those of their numbers."""


class Target(NamedTuple):
    """C targets of each of B users."""

    number_BCF: Tensor
    """int64, `schema.item_fields`."""
    context_BCF: Tensor
    """int64, `schema.context_fields`."""
    time_BC: Tensor
    count_BCX: Tensor | None = None
    """Exact counts, if the model reads any."""
    user_BC: Tensor | None = None
    """int64 numbers of the users, which training alone asks for."""
    key_BCF: Tensor | None = None
    """int64 keys of the item fields; None for those of their numbers."""


class Memory(Protocol):
    """A NamedTuple of tensors with the user as first axis (after `encode`: user, target).

    The first field is always `count_B`: int64 number of events folded in; the others are float tensors. What a store
    keeps of a user is `count`, the time of the last event, and these fields.
    """

    @property
    def count_B(self) -> Tensor:  # noqa: N802  a field's name, with its shape
        """Events folded in."""

    def _asdict(self) -> dict[str, Any]: ...


M = TypeVar("M", bound=Memory, default=Any)
"""The NamedTuple of one memory model."""


class MemoryModel(Model, Generic[M]):
    """A model with bounded state per user, updated in O(1) per event.

    The law: `encode` at position n = folding `write` over the first n events.
    """

    not_served = ""

    @property
    def divisible(self) -> bool:
        """Users have nothing to do with each other."""
        return True

    @property
    def cells(self) -> CellPacking | None:
        """How the field `cell_BKX` of a memory that counts is stored; None for a memory of another kind."""
        return None

    def remember(self, kind: Callable[..., M], *shapes: Sequence[int]) -> None:
        """Say what a user's memory is: the count, and a field of each shape, which begins as zeros."""
        self._kind, self._shapes = kind, shapes

    def initial_memory(self, num_users: int) -> M:
        """Empty memories, on the model's device and in its precision: those of `remember`."""
        weight = next(self.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return self._kind(count_B, *(weight.new_zeros(num_users, *shape) for shape in self._shapes))

    @abstractmethod
    def write_vector(self, memory: M, event_BE: Tensor) -> M:
        """Fold one embedded event per user into the memory; the specification of the model."""

    @abstractmethod
    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> M:
        """Memory after `position` events, for each target: fields `[B, C, ...]`. The fast form of `write_vector`.

        Padding (places from `length_B` on) may hold anything, NaN too, and changes neither values nor gradients.
        """

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
        event_BLE = self.embed(history.number_BLF, self.history_fields, user=history.user_B)
        return self.encode_vector(event_BLE, history.length_B, position_BC)

    def read(self, memory: M, target: Target) -> tuple[Tensor, Tensor | None]:
        """Interest and first-hop attention."""
        return self.read_vector(memory, self.embed(target.number_BCF, self.item_fields, user=target.user_BC))

    def respond(self, memory: M, target: Target) -> tuple[Tensor, Tensor | None]:
        """Logits `[B, C, T]` and attention from a memory."""
        target_BCE = self.embed(target.number_BCF, self.item_fields, user=target.user_BC)
        interest_BCD, attention_BCS = self.read_vector(memory, target_BCE)
        context_BCE = self.embed_context(target.context_BCF)
        if target.count_BCX is not None:
            context_BCE = torch.cat([context_BCE, target.count_BCX], dim=-1)
        return self.head(interest_BCD, target_BCE, context_BCE), attention_BCS

    def auxiliary(self, memory: M, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """Auxiliary losses on the memories at labelled positions; none by default."""
        return {}

    def forward(self, batch: Batch) -> Output:
        """One history pass, then a read per real target; padded targets get logit 0."""
        history = History(batch.history_BLF, batch.time_BL, batch.length_B, batch.user_B, batch.history_key_BLF)
        memory = self.encode(history, batch.position_BC)
        # Only real targets are read. Users have different numbers of them, and reading padding would cost as much as
        # reading targets.
        real_N = batch.mask_BC.flatten().nonzero().squeeze(-1)
        memory = pick(memory, real_N)
        target = pick(self.targets(batch), real_N)
        logit_BNT, attention_BNS = self.respond(memory, target)
        return Output(
            spread_targets(logit_BNT.squeeze(0), batch.mask_BC),
            self.auxiliary(memory, real_N.new_ones(1, len(real_N), dtype=torch.bool)),
            None if attention_BNS is None else spread_targets(attention_BNS.squeeze(0), batch.mask_BC),
        )

    def targets(self, batch: Batch) -> Target:
        """A batch's targets as `respond` takes them."""
        count_BCX = None if self.exact is None else self.exact(batch)
        user_BC = batch.user_B.unsqueeze(1).expand_as(batch.position_BC)
        return Target(
            batch.target_BCF, batch.context_BCF, batch.target_time_BC, count_BCX, user_BC, batch.target_key_BCF
        )


class CountingModel(MemoryModel[M]):
    """A memory model that counts by `lifelong.tally`, and learns to read it and slots.

    Its graphs write and read the slots alone: `write_vector` and `encode_vector` are of these.
    """

    plan: Plan
    """Sizes of the memory."""

    @property
    def cells(self) -> CellPacking:
        """Sorted by key, in about two bytes a cell."""
        return self.plan.packing

    def read_vector(self, memory: M, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is counted is asked for by numbers: `read`, `read_known`."""
        raise NotImplementedError

    @abstractmethod
    def read_known(
        self, known_BCY: Tensor, kind_BCF: Tensor, slots: Slots | None, target_BCE: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """`read` from what is known of targets.

        Args:
            known_BCY: of each target, see `lifelong.tally.kernel.Found`.
            kind_BCF: int64.
            slots: `[B, 1, ...]`; None if there are none.
            target_BCE: embedded targets.
        """

    @abstractmethod
    def counted_numbers(self, batch: Batch) -> FloatArray:
        """What the counts say of the real targets' values: how often met, events ago, hours ago, rank; `[N, F, 4]`.

        Of a value that is not kept the first three are 0.
        """


_Fields = TypeVar("_Fields")


def pick(fields: _Fields, real_N: Tensor) -> _Fields:
    """A NamedTuple `[B, C, ...]` of the real targets alone, as if they were one user's: `[1, N, ...]`; None stays."""
    assert isinstance(fields, tuple)
    picked: list[Any] = [value if value is None else value.flatten(0, 1)[real_N].unsqueeze(0) for value in fields]
    return type(fields)(*picked)


def spread_targets(value_NX: Tensor, mask_BC: Tensor) -> Tensor:
    """Values of the real targets, in order, back at their places, 0 elsewhere: `[B, C, X]`."""
    real_N = mask_BC.flatten().nonzero().squeeze(-1)
    # Padding gets zeros and no gradient; real places are all different, so that a copy by index is well defined.
    whole = value_NX.new_zeros(mask_BC.numel(), value_NX.shape[1]).index_copy(0, real_N, value_NX)
    return whole.view(*mask_BC.shape, -1)
