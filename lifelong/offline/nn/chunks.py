"""Computations with large intermediate tensors, a part at a time.

What the backward pass needs of a part is computed again when its turn comes (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NUMBERS_AT_ONCE = 2**22
"""How many numbers an intermediate tensor may have: 16 MiB in single precision."""


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], *parts: Tensor, axis: int, numbers: int
) -> tuple[Tensor, ...]:
    """`function(*parts)`, computed for a few entries along `axis` at a time and joined again along it.

    With more than one chunk, the backward pass computes each chunk again, so that the memory in use does not grow with
    the number of chunks.

    Args:
        function: treats the entries along `axis` independently and draws nothing at random; it may use other tensors,
            such as whole histories and weights.
        parts: tensors that are equally long along `axis`.
        axis: along which parts and results are cut.
        numbers: how many numbers the largest intermediate tensor has per entry.

    >>> value_BCL = torch.randn(2, 5, 7)
    >>> (found_BC,) = in_chunks(lambda some: (some.sum(dim=-1),), value_BCL, axis=1, numbers=2**21)
    >>> torch.equal(found_BC, value_BCL.sum(dim=-1))
    True
    """
    # The sizes of a graph that is being exported are not those of the requests it will serve.
    if torch.compiler.is_compiling() or parts[0].shape[axis] * numbers <= NUMBERS_AT_ONCE:
        return function(*parts)
    size = max(1, NUMBERS_AT_ONCE // numbers)
    results = []
    for chunk in zip(*(torch.split(part, size, dim=axis) for part in parts), strict=True):
        # The reentrant form would give no gradient where only tensors of the closure need one. As nothing is drawn, no
        # state of a generator need be kept for each chunk.
        if torch.is_grad_enabled():
            results.append(checkpoint(function, *chunk, use_reentrant=False, preserve_rng_state=False))
        else:
            results.append(function(*chunk))
    return tuple(torch.cat(pieces, dim=axis) for pieces in zip(*results, strict=True))
