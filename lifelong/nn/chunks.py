"""Large intermediate tensors a part at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NUMBERS_AT_ONCE = 2**22
"""Numbers of one intermediate tensor at most: 16 MiB in single precision."""


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], *parts: Tensor, axis: int, numbers: int
) -> tuple[Tensor, ...]:
    """`function(*parts)`, computed for a few entries along `axis` at a time and put together again along it.

    With more than one chunk, what the backward pass needs of a chunk is computed again when its turn comes, so that
    the memory does not grow with the number of chunks.

    Args:
        function: treats the entries along `axis` independently and draws nothing at random; other tensors that it uses
            (whole histories, weights) may be part of it.
        parts: equally long along `axis`.
        axis: along which to cut parts and results.
        numbers: how many numbers the largest intermediate tensor has per entry.
    """
    # A graph that is exported has sizes of its own, which do not say how to cut.
    if torch.compiler.is_compiling() or parts[0].shape[axis] * numbers <= NUMBERS_AT_ONCE:
        return function(*parts)
    size = max(1, NUMBERS_AT_ONCE // numbers)
    results = []
    for chunk in zip(*(torch.split(part, size, dim=axis) for part in parts), strict=True):
        if torch.is_grad_enabled():
            results.append(checkpoint(function, *chunk, use_reentrant=False, preserve_rng_state=False))
        else:
            results.append(function(*chunk))
    return tuple(torch.cat(pieces, dim=axis) for pieces in zip(*results, strict=True))
