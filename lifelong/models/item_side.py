"""Item-side memory: a memory of the target's item over its users, written and read like a user's over items.

    user's events --memory model-----> user's memory --read with the item--> interest --.
    item's events --memory model-----> item's memory --read with the user--> interest ---+--> head --> logit
    target, context ---------------------------------------------------------------------'

Each event of a user with an item is also an event of that item. Its fields are the user's number and profile, the type
of the event, and the time since the item's previous event. The item's memory is the same model with the same settings
and its own weights. `side = "user"` is the model as it is, `"item"` reads the second row alone, `"both"` reads both:
the switch of HPMN's released code.

Two things differ from the user's side. Items have more events than users, so a memory is built from the last
`item_recent` events before the target, in training and evaluation. And the head reads the time since the item's last
event, as it reads the time since the user's.

Shapes: B users, C targets per user, W windows, L padded length, K reads of a window, N real targets, D interest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lifelong.data.batch import Batch
from lifelong.data.dataset import Dataset
from lifelong.data.events import InputSpec
from lifelong.data.item_histories import HOW
from lifelong.data.item_windows import ItemSpan
from lifelong.errors import ConfigError, UsageError
from lifelong.models.extras import BatchParts, HeadInput
from lifelong.models.memory_model import History, MemoryModel, spread_targets
from lifelong.models.model import USER_NUMBER, Model
from lifelong.nn.head import Head

Side = Literal["user", "item", "both"]
ITEM_RECENT = 100
"""Default of `item_recent`."""


def can_have_item_side(entry: type[Any]) -> bool:
    """Whether a model can have an item-side memory: one with a memory that the common head reads in the common way."""
    return issubclass(entry, MemoryModel) and entry.common_head and entry.forward is MemoryModel.forward


class ItemSide(HeadInput):
    """Reads the memory of each target's item with the user as the query.

    Args:
        memory: a model of `InputSpec.item_side`; its own head goes.
        recent: events of an item that a target sees at most.
        alone: whether the user's memory is not read.

    Raises:
        ConfigError: so few events that a slot could stay empty forever.
    """

    not_served = (
        "it also reads a memory of the target's item, and a service keeps memories of users alone "
        "(model.side; such a model can be trained, evaluated and compared)"
    )
    not_chunked = "item-side memories are not part of a user's history"
    earlier_names: ClassVar[Mapping[str, str]] = {"item_side": ""}

    def __init__(self, memory: MemoryModel, *, recent: int, alone: bool) -> None:
        super().__init__()
        head = memory.head
        assert isinstance(head, Head) and isinstance(head.layers[0], nn.Linear)
        self.suffix = ", item side" if alone else ", both sides"
        # The interest, and the time since the item's last event.
        self.width: int = head.layers[0].in_features - memory.target_width
        memory.head = nn.Identity()
        self.memory = memory
        self.span: ItemSpan = ItemSpan(recent, max(memory.periods, default=1))
        if recent < 2 * self.span.period:
            raise ConfigError(
                [
                    f"model.item_recent = {recent}: windows start at multiples of the largest period, "
                    f"{self.span.period}, and are too short to write its slot"
                ],
                fix=f"at least {2 * self.span.period}, or smaller periods",
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What the targets get `[B, C, width]`, zeros for padding, and the auxiliary losses of items' memories.

        Raises:
            UsageError: the batch has no items' events.
        """
        items, model = batch.items, self.memory
        if items is None:
            raise UsageError(
                "a model with an item-side memory was given no items' events", fix="make the batches with them"
            )
        real_N = batch.mask_BC.flatten().nonzero().squeeze(-1)
        history = History(items.number_WLF, torch.zeros_like(items.number_WLF[..., 0]), items.length_W)
        memory = model.encode(history, items.position_WK)
        place_N = items.place_BC.flatten()[real_N]
        memory = type(memory)(*(value.flatten(0, 1)[place_N].unsqueeze(0) for value in memory))
        user_N = real_N // items.place_BC.shape[1]
        query_1NE = model.embed(items.query_BF, model.item_fields)[user_N].unsqueeze(0)
        interest_1ND, _ = model.read_vector(memory, query_1NE)
        gap_1NE = model.embed_context(items.gap_BC.flatten()[real_N][None, :, None])
        losses = model.auxiliary(memory, torch.ones_like(real_N, dtype=torch.bool).unsqueeze(0))
        seen_NX = torch.cat([interest_1ND, gap_1NE], dim=-1).squeeze(0)
        return spread_targets(seen_NX, batch.mask_BC), {f"item_{name}": value for name, value in losses.items()}

    def batch_parts(self, *, delay: int = 0) -> BatchParts:
        """The last events of the targets' items."""
        return {"items": replace(self.span, delay=delay)}

    def tables(self) -> list[nn.Embedding]:
        """Those of the items' memory."""
        return self.memory.tables()

    @property
    def number_tables(self) -> Mapping[str, str]:
        """Those of the items' memory, in which users are a field."""
        return {
            f"memory.{name}": USER_NUMBER if field == "user" else field
            for name, field in self.memory.number_tables.items()
        }

    def requirements(self, dataset: Dataset) -> list[str]:
        """Item histories."""
        problem = f"it has no item histories, which an item-side memory reads ({HOW})"
        return [] if dataset.has_item_histories else [problem]


class NoMemory(NamedTuple):
    """The memory of a user if users' events are not read."""

    count_B: Tensor


class NoUserSide(MemoryModel[NoMemory]):
    """What is left of a model without the user's side: target and context.

    Args:
        model: the whole one, which it replaces in an artifact.
    """

    inputs: InputSpec
    config: Any
    title: str

    def __init__(self, model: MemoryModel) -> None:
        config = model.config
        # Events are not read: their fields have no embeddings.
        super().__init__(
            replace(model.inputs, event={}), embedding=config.embedding, interest=0, dropout=config.dropout
        )
        self.remember(NoMemory)
        self.inputs, self.config, self.title, self._registered = (
            model.inputs,
            config,
            model.title,
            model.registered_class,
        )

    @property
    def registered_class(self) -> type[Model]:
        """The class of the whole model."""
        return self._registered

    def write_vector(self, memory: NoMemory, event_BE: Tensor) -> NoMemory:
        """One event more."""
        return NoMemory(memory.count_B + 1)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> NoMemory:
        """The positions."""
        return NoMemory(position_BC)

    def encode(self, history: History, position_BC: Tensor) -> NoMemory:
        """The positions; events are not read."""
        return NoMemory(position_BC)

    def read_vector(self, memory: NoMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nothing."""
        return target_BCE[..., :0], None


def with_item_side(own: MemoryModel, *, side: Side, recent: int) -> tuple[MemoryModel, ItemSide]:
    """The model that reads the user's side, and the item-side memory that it is to be given.

    Args:
        own: a new model.
        side: `item` or `both`.
        recent: events of an item that a target sees at most.

    Raises:
        ConfigError: see `ItemSide`, or the data counts each user's events for herself.
    """
    if not own.inputs.timed:
        raise ConfigError(
            [f"model.side = {side!r}: this data has no clock times, so that events of different users have no order"],
            fix="leave it out",
        )
    maker: Any = type(own)
    of_items = maker(own.inputs.item_side, own.config)
    alone = side == "item"
    return NoUserSide(own) if alone else own, ItemSide(of_items, recent=recent, alone=alone)
