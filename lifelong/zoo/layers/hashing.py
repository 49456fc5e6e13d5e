"""SimHash: on which sides of random hyperplanes a vector lies. Vectors at a small angle share most of the sides.

Two vectors at angle a lie on the same side of a hyperplane with probability 1 - a / pi. A side is a sign, and a sign
must not depend on the order in which a sum is taken: a memory that is written event by event, a batch, and an exported
graph have to agree bit for bit. So vectors and hyperplanes are rounded to whole numbers: their products and sums are
exact in double precision.

Source: Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002, section 3.

Shapes: E width of a vector, R hash bits, C targets, L events, G groups of bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 2.0**20
"""Vectors are rounded to this many steps per unit."""
LARGEST = 2.0**8
"""Larger components of a vector count as this."""
PLANE_STEPS = 2.0**10
LARGEST_PLANE = 2.0**13
# 2^28 x 2^13 x 4,096 components = 2^53: up to that width every sum is an exact whole number in double precision.


def hyperplanes(bits: int, width: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Normals of random hyperplanes through 0, rounded: int16 `[R, E]`.

    Whole numbers keep their type when a model changes its precision. Keep them in a buffer that is saved.

    Args:
        bits: R.
        width: E.
        generator: what to draw from; None for torch's own.

    >>> plane_RE = hyperplanes(64, width=8)
    >>> vector_E = torch.randn(8)
    >>> torch.equal(signature(vector_E, plane_RE), signature(3 * vector_E, plane_RE))
    True
    """
    normal_RE = torch.randn(bits, width, generator=generator)
    return (normal_RE * PLANE_STEPS).round().clamp(-LARGEST_PLANE, LARGEST_PLANE).to(torch.int16)


def signature(vector: Tensor, plane_RE: Tensor) -> Tensor:
    """Sides that `vector[..., E]` lies on: bool `[..., R]`, True where the product with the normal is 0 or more.

    A vector of zeros lies on the True side of every hyperplane. No gradient passes.
    """
    whole = (vector.detach().double().clamp(-LARGEST, LARGEST) * STEPS).round()
    return whole @ plane_RE.double().T >= 0


def shared_bits(left_BCR: Tensor, right_BLR: Tensor) -> Tensor:
    """How many bits of two signatures are equal, R less their Hamming distance: int64 `[B, C, L]`.

    A matrix product of signs, which is exact up to 256 bits in every floating type.
    """
    # Equal signs give 1, others -1: R - 2 x distance in all.
    signs = [torch.where(side, 1.0, -1.0) for side in (left_BCR, right_BLR)]
    return (signs[0] @ signs[1].transpose(-1, -2)).long().add(left_BCR.shape[-1]) // 2


def bucket_ids(side: Tensor, bits: int) -> Tensor:
    """The sides `side[..., G * bits]` of each group as a number below 2^bits, the first worth 1: int64 `[..., G]`.

    >>> bucket_ids(torch.tensor([True, False, True, True]), bits=2).tolist()
    [1, 3]
    """
    worth = 2 ** torch.arange(bits, device=side.device)
    group = side.reshape(*side.shape[:-1], side.shape[-1] // bits, bits)
    return (group.long() * worth).sum(dim=-1)
