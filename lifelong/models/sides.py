"""The side of items: the memory of a target's item over its users, written and read as that of a user over her items.

    user's events --memory model-----> user's memory --read with the item--> interest --.
    item's events --memory model-----> item's memory --read with the user--> interest ---+--> head --> logit
    target, context ---------------------------------------------------------------------'

An event of an item is that a user had to do with it: fields are the user's number, her profile, the type of the event
and the time since the item's event before. The model is the same with the same settings and weights of its own. `user`
is the model as it is, `item` has the second row alone, `both` has both: the switch of HPMN's released code.

Differs from the user's side: items have more events than users, so that a memory is of the last `item_recent` ones
before the target, in training, evaluation and service; and the head reads the time since the item's last event, as it
reads the time since the user's.

Shapes: B users, C targets per user, W windows, L padded length, K reads of a window, N real targets, D interest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lifelong.data.events import InputSpec
from lifelong.data.item_windows import ItemSpan
from lifelong.errors import ConfigError, UsageError
from lifelong.models.base import History, MemoryModel, Model
from lifelong.nn.head import Head

if TYPE_CHECKING:
    from lifelong.data.batches import ItemWindows

Side = Literal["user", "item", "both"]
SIDES: tuple[Side, ...] = ("user", "item", "both")
ITEM_RECENT = 100
"""Default of `item_recent`."""


def has_sides(entry: type[Any]) -> bool:
    """Whether a model can have a side of items: one with a memory that is read by the common way to the common head."""
    return issubclass(entry, MemoryModel) and entry.takes_counts and entry.forward is MemoryModel.forward


class ItemSide(nn.Module):
    """Reads the memory of each target's item with the user as the query.

    Args:
        memory: a model of `InputSpec.item_side`; its own head goes.
        recent: events of an item that a target sees at most.

    Raises:
        ConfigError: so few events that a slot could stay empty for ever.
    """

    def __init__(self, memory: MemoryModel, *, recent: int) -> None:
        super().__init__()
        head = memory.head
        assert isinstance(head, Head) and isinstance(head.layers[0], nn.Linear)
        self.width = head.layers[0].in_features - memory.target_width
        """Of what a target gets: the interest, and the time since the item's last event."""
        memory.head = nn.Identity()
        self.memory = memory
        self.span = ItemSpan(recent, max(getattr(memory, "periods", ()), default=1))
        if recent < 2 * self.span.period:
            raise ConfigError(
                [
                    f"model.item_recent = {recent}: windows start at multiples of the largest period, "
                    f"{self.span.period}, and are too short to write its slot"
                ],
                fix=f"at least {2 * self.span.period}, or smaller periods",
            )

    def forward(self, items: ItemWindows | None, real_N: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What the real targets get `[1, N, width]`, and auxiliary losses.

        Args:
            items: of the batch.
            real_N: places of the real targets among B x C.

        Raises:
            UsageError: the batch has no items' events.
        """
        if items is None:
            raise UsageError(
                "a model with a side of items was given no items' events", fix="make the batches with them"
            )
        model = self.memory
        history = History(items.number_WLF, torch.zeros_like(items.number_WLF[..., 0]), items.length_W)
        memory = model.encode(history, items.position_WK)
        place_N = items.place_BC.flatten()[real_N]
        memory = type(memory)(*(value.flatten(0, 1)[place_N].unsqueeze(0) for value in memory))
        user_N = real_N // items.place_BC.shape[1]
        query_1NE = model.embed(items.query_BF, model.item_fields)[user_N].unsqueeze(0)
        interest_1ND, _ = model.read_vector(memory, query_1NE)
        gap_1NE = model.embed_context(items.gap_BC.flatten()[real_N][None, :, None])
        losses = model.auxiliary(memory, torch.ones_like(real_N, dtype=torch.bool).unsqueeze(0))
        return torch.cat([interest_1ND, gap_1NE], dim=-1), {f"item_{name}": value for name, value in losses.items()}


class NoMemory(NamedTuple):
    """Of a user whose events are not read."""

    count_B: Tensor


class NoUserSide(MemoryModel[NoMemory]):
    """What is left of a model without the user's side: target and context."""

    def __init__(self, inputs: InputSpec, *, embedding: int, dropout: float) -> None:
        # Events are not read: their fields have no vectors.
        super().__init__(replace(inputs, event={}), embedding=embedding, interest=0, dropout=dropout)
        self.inputs = inputs

    def initial_memory(self, num_users: int) -> NoMemory:
        """No events."""
        return NoMemory(torch.zeros(num_users, dtype=torch.int64, device=next(self.parameters()).device))

    def write_vector(self, memory: NoMemory, event_BE: Tensor) -> NoMemory:
        """One event more."""
        return NoMemory(memory.count_B + 1)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> NoMemory:
        """The positions."""
        return NoMemory(position_BC)

    def encode(self, history: History, position_BC: Tensor) -> NoMemory:
        """The same without a look at the events."""
        return NoMemory(position_BC)

    def read_vector(self, memory: NoMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nothing."""
        return target_BCE[..., :0], None


def with_sides(
    entry: type[Model], inputs: InputSpec, settings: Mapping[str, Any], *, side: Side, recent: int
) -> MemoryModel:
    """A new model with a side of items.

    Args:
        entry: class of the model.
        inputs: of the dataset.
        settings: all of the model's.
        side: `item` or `both`.
        recent: events of an item that a target sees at most.

    Raises:
        ConfigError: see `ItemSide`, or the data counts each user's events for herself.
    """
    if not inputs.timed:
        raise ConfigError(
            [f"model.side = {side!r}: this data has no clock times, so that events of different users have no order"],
            fix="leave it out",
        )
    own = entry(inputs, **settings)
    other = entry(inputs.item_side, **settings)
    assert isinstance(own, MemoryModel) and isinstance(other, MemoryModel)
    title = own.title
    if side == "item":
        own = NoUserSide(inputs, embedding=settings["embedding"], dropout=settings["dropout"])
    own.title = f"{title}, {'item side' if side == 'item' else 'both sides'}"
    own.item_side = ItemSide(other, recent=recent)
    own.widen_head(own.item_side.width, dropout=settings["dropout"])
    return own
