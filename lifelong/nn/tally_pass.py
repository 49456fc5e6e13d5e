"""The read of Tally for many targets at few moments, as in training: `TallyMemory.read` in value and gradient.

    moments --passes over histories--> clock, sums, slots       once for all targets of a moment
    targets --compiled loop----------> known: what depends on no learned weight, so that it needs no gradient
            `--tables----------------> own: embedded kinds of cells, weighted counts, vectors

What a layer reads is not put together: each part is multiplied by its own columns of the weight. So a part of the
moment is multiplied once, and no gradient is computed for what is known.

Shapes: N targets, X moments, S slots, D slot width, F item fields, P features of a field, J levels of the clock, K
sums, Q width of an embedded target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.compiled import Array
from lifelong.data.cell_plan import AGE_KINDS
from lifelong.nn.affinity import SHORTEST
from lifelong.nn.cells import Found
from lifelong.nn.counted_pass import count_targets, fit_targets
from lifelong.nn.hpmn import Slots
from lifelong.nn.moments import repeated
from lifelong.nn.scaled import weights_of
from lifelong.nn.tally import DAY, DAY_HALF_LIVES, FEATURES, HALF_LIVES, KINDS, TIMES, TallyMemory


class AtMoments(NamedTuple):
    """The part of the memories at moments that is read whole."""

    slots: Slots
    """`slot_BSD` has no entries where there are no slots."""
    clock_XJX: Tensor
    sums_XKD: Tensor | None


class ManyTargets(NamedTuple):
    """Targets, and what their cells say."""

    moment_N: Tensor
    """int64: at which moment each is asked."""
    cells: Found
    """Count, age and faded of each value `[N, F]`."""
    key_NF: Tensor
    vector_NQ: Tensor
    popularity_NF: Tensor
    weight_NFP: Tensor
    factor_ND: Tensor | None


class Read(NamedTuple):
    """An interest in its parts; see `TallyMemory.read`."""

    known_NX: Tensor
    """Features, then all other counts and affinities but the embedded kinds."""
    own_NX: Tensor
    """Embedded kinds, weighted counts, vectors."""
    found_NX: Tensor | None
    """What attention finds, and its product with the query; None without slots."""
    attention_NS: Tensor | None


def read_many(memory: TallyMemory, at: AtMoments, targets: ManyTargets) -> Read:
    """Read memories for targets of few moments."""
    fields = targets.key_NF.shape[1]
    known_NX, kind_NF = _known(memory, at, targets)
    part_NFP = known_NX[:, : fields * FEATURES].reshape(-1, fields, FEATURES)
    weighted_NF = (part_NFP * targets.weight_NFP).sum(dim=-1)
    own_NX = torch.cat([memory.counts.kind(kind_NF).flatten(-2), weighted_NF, targets.vector_NQ], dim=-1)
    if memory.slots is None:
        return Read(known_NX, own_NX, None, None)
    reader = memory.slots.reader
    assert isinstance(reader.query, nn.Linear)
    widths = {"vector": targets.vector_NQ.shape[1], **counted_widths(memory, fields), "weighted": fields}
    query_ND = split_linear(reader.query, widths, {KNOWN_PARTS: known_NX, OWN_PARTS: own_NX})
    filled_XS = memory.slots.filled(at.slots)
    found_ND, weight_NS = reader.attend_at_moments(query_ND, at.slots.slot_BSD, filled_XS, targets.moment_N)
    return Read(known_NX, own_NX, torch.cat([found_ND, query_ND * found_ND], dim=-1), weight_NS)


KNOWN_PARTS, OWN_PARTS = ("features", "others"), ("kind", "weighted", "vector")
"""Names of the parts of `Read.known_NX` and `Read.own_NX`."""


def counted_widths(memory: TallyMemory, fields: int) -> dict[str, int]:
    """Widths of the parts of the counts in an interest, in their order."""
    features, kind = fields * FEATURES, fields * memory.counts.kind.embedding_dim
    affinities = 0 if memory.affinity is None else memory.affinity.size
    return {"features": features, "kind": kind, "others": memory.counts.size - features - kind + affinities}


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
        total = torch.addmm(total, value_NX, torch.cat([weights[name] for name in names], dim=1).T)
    return total


def _known(memory: TallyMemory, at: AtMoments, targets: ManyTargets) -> tuple[Tensor, Tensor]:
    """`Read.known_NX`, and the kind of cell of each value."""
    counts, (rows, fields) = memory.counts, targets.key_NF.shape
    widths, like = counted_widths(memory, fields), counts.kind.weight
    known_NX = torch.empty(rows, widths["features"] + widths["others"], dtype=like.dtype)
    kind_NF, known, moment_N = torch.empty(rows, fields, dtype=torch.int64), known_NX.numpy(), _array(targets.moment_N)
    half_lives = np.array(HALF_LIVES), DAY * np.array(DAY_HALF_LIVES)
    times_NF, age_NF, faded_NF = map(_array, targets.cells)
    repeats = int(counts.plan.repeats)
    count_targets(
        (times_NF, age_NF, faded_NF),
        (_array(targets.key_NF), _array(targets.popularity_NF), moment_N),
        (_array(at.slots.count_B), *map(_array, (at.clock_XJX[:, repeats:], at.clock_XJX[:, :repeats]))),
        (_array(counts.scale_F.double()), *half_lives, _array(counts.age_A), np.array(TIMES)),
        memory.counts.plan.scale.age_steps // 2,
        AGE_KINDS,
        KINDS,
        known,
        kind_NF.numpy(),
    )
    if memory.affinity is not None and at.sums_XKD is not None and targets.factor_ND is not None:
        end_G, first = np.cumsum(memory.affinity.widths), known.shape[1] - memory.affinity.size
        fit_targets(_array(at.sums_XKD), _array(targets.factor_ND), moment_N, end_G, SHORTEST, known[:, first:])
    return known_NX.to(like.device), kind_NF.to(like.device)


def _array(value: Tensor) -> Array:
    array: Array = value.detach().cpu().contiguous().numpy()
    return array
