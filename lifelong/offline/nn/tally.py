"""What Tally learns to read: the kinds of cells, the slots, and the query that looks for them.

    q = W_q [target ; c ; w_f c_f]        h attention over slots        interest = [h ; q * h ; c ; w_f c_f]

`lifelong.tally` says what is known of a target; nothing of that is learned. c is what is known with the embedded kinds,
c_f the part of a field, w_f the trained weights of the target's value for it.

Shapes: B users, C targets per user, N targets, X moments, S slots, D slot width, F item fields, P features of a field,
Y known numbers, Q width of an embedded target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lifelong.offline.nn.head import weights_of
from lifelong.offline.nn.hpmn import HpmnMemory, Slots
from lifelong.offline.nn.moments import repeated
from lifelong.tally.plan import Plan
from lifelong.tally.spec import FEATURES, KINDS

STD_KIND = 0.1
"""Spread of the initial embeddings of kinds of cells."""
KNOWN_PARTS, OWN_PARTS = ("features", "others"), ("kind", "weighted", "vector")
"""Names of the parts of `Read.known_NY` and `Read.own_NX`."""


class Asked(NamedTuple):
    """Targets `[..., ]`, and what is known of them."""

    known: Tensor
    """`[..., Y]`, of `lifelong.tally`."""
    kind: Tensor
    """int64 `[..., F]`: kind of each value's cell, as a row of the table of kinds."""
    vector: Tensor
    """Embedded target `[..., Q]`."""
    weight: Tensor
    """`[..., F, P]`: trained weights of each value for its features: one item is bought again and again by few users,
    another one once by everybody."""


class Read(NamedTuple):
    """An interest in its parts."""

    known_NY: Tensor
    """Features, then all else that is known."""
    own_NX: Tensor
    """Embedded kinds, weighted features, vectors."""
    found_NX: Tensor | None
    """What attention finds, and its product with the query; None without slots."""
    attention_NS: Tensor | None


class TallyReader(nn.Module):
    """Embeds kinds of cells, and reads slots.

    Args:
        plan: sizes of the memory.
        width: of the embedding of a kind of cell.
    """

    plan: Plan

    def __init__(self, plan: Plan, width: int) -> None:
        super().__init__()
        self.plan, fields = plan, len(plan.sizes_F)
        # The embeddings of all fields lie in one table, field after field.
        self.kind: nn.Embedding = nn.Embedding(fields * KINDS, width)
        nn.init.normal_(self.kind.weight, std=STD_KIND)
        self.slots: HpmnMemory | None = None
        others = plan.known - fields * FEATURES
        self.widths: dict[str, int] = {"features": fields * FEATURES, "kind": fields * width, "others": others}
        """Widths of the parts of the counts in an interest, in their order."""
        self.size: int = sum(self.widths.values())

    def forward(self, asked: Asked, slots: Slots | None) -> tuple[Tensor, Tensor | None]:
        """Interest in each target `[B, C, X]`, and the attention over the slots `[B, C, S]`, None without slots.

        Args:
            asked: `[B, C, ...]`.
            slots: `[B, C, ...]`, or `[B, 1, ...]` for all targets of a user.
        """
        features = asked.known[..., : self.widths["features"]]
        weighted = (features.reshape(*asked.weight.shape) * asked.weight).sum(dim=-1)
        others = asked.known[..., self.widths["features"] :]
        counted = torch.cat([features, self.kind(asked.kind).flatten(-2), others, weighted], dim=-1)
        if self.slots is None or slots is None:
            return counted, None
        reader = self.slots.reader
        query = reader.query(torch.cat([asked.vector, counted], dim=-1))
        found, attention = reader.attend(query, slots.slot_BSD, self.slots.filled(slots))
        return torch.cat([found, query * found, counted], dim=-1), attention

    def at_moments(self, asked: Asked, slots: Slots | None, moment_N: Tensor) -> Read:
        """`forward` for many targets of few moments, as in training: parts are not put together.

        Each part is multiplied by its own columns of a weight. So a part of the moment is multiplied once, and no
        gradient is computed for what is known.

        Args:
            asked: `[N, ...]`.
            slots: `[X, ...]`.
            moment_N: int64: at which moment each is asked.
        """
        features = asked.known[:, : self.widths["features"]]
        weighted = (features.reshape(*asked.weight.shape) * asked.weight).sum(dim=-1)
        own = torch.cat([self.kind(asked.kind).flatten(-2), weighted, asked.vector], dim=-1)
        if self.slots is None or slots is None:
            return Read(asked.known, own, None, None)
        reader = self.slots.reader
        assert isinstance(reader.query, nn.Linear)
        widths = {"vector": asked.vector.shape[1], **self.widths, "weighted": weighted.shape[1]}
        query = split_linear(reader.query, widths, {KNOWN_PARTS: asked.known, OWN_PARTS: own})
        filled = self.slots.filled(slots)
        found, attention = reader.attend_at_moments(query, slots.slot_BSD, filled, moment_N)
        return Read(asked.known, own, torch.cat([found, query * found], dim=-1), attention)


def split_linear(
    layer: nn.Linear,
    widths: Mapping[str, int],
    parts: Mapping[tuple[str, ...], Tensor],
    context: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """What a layer gives of parts that were not put together.

    Args:
        layer: `nn.Linear`.
        widths: name -> width of the parts of what it reads, in their order.
        parts: names of neighbours in a value -> the value `[N, their widths together]`.
        context: the value of the part "context" `[X, E]` of each moment, and each row's moment; None for none.

    >>> layer, value_N4 = nn.Linear(4, 2), torch.randn(3, 4)
    >>> parts = {("b",): value_N4[:, 1:3], ("a", "c"): value_N4[:, [0, 3]]}
    >>> torch.allclose(split_linear(layer, {"a": 1, "b": 2, "c": 1}, parts), layer(value_N4), atol=1e-6)
    True
    """
    weight, total = weights_of(layer)
    weights = dict(zip(widths, torch.split(weight, list(widths.values()), dim=1), strict=True))
    if context is not None:
        context_XE, moment_N = context
        total = repeated(torch.addmm(total, context_XE, weights["context"].T), moment_N)
    for names, value_NX in parts.items():
        # Columns in the order of the part's names, which need not be their order in the layer.
        total = torch.addmm(total, value_NX, torch.cat([weights[name] for name in names], dim=1).T)
    return total
