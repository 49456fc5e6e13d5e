"""Affinity: how well a target fits all that a user met, by sums of fixed factors.

    event's factors f  --> s_1 <- s_1 + f,  s_2 <- 2^(-1/H) s_2 + f                                     step
    target's factors t --> of each field and each sum: t . s / |s|, and the logarithm of t . s          read

Counts say how often the user met this very value; most values she never met. A factor is a unit vector of a value, such
that values that the same users have point in similar directions (`lifelong.data.cooccurrence`). It is made of the
training period and not learned with the model. So the sum of the factors of a user's events is additive: it takes O(1)
an event, and says for every value how well it fits her, as a cosine and as how much of it there was.

One sum counts all events alike, the other one halves an event's weight every `half_life` events. Sums are float32, one
product and one addition an event and number, in the order of events on every path: they are the same, bit for bit.
An event moves a sum by about .2 a number, which is above float32's step up to a few million events in one direction;
from then on the sum of all events stays as it is, and the other one continues.

Shapes: B users, L padded history length, C targets per user, K = 2 sums, D numbers of all factors of an event, G fields
with factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.compiled import Array, jit
from lifelong.data.cell_plan import SUMS

HALF_LIFE = 100.0
"""In events: by how much an event weighs less in the second sum with its age."""
SHORTEST = 1e-6
"""Length that a sum is treated as at least."""


class Sums(NamedTuple):
    """Sums of B users."""

    count_B: Tensor
    """int64: events so far."""
    sums_BKD: Tensor


def affinity_size(widths: Sequence[int]) -> int:
    """How many numbers `Affinity.read` gives of a target."""
    return 2 * SUMS * len(widths)


class Affinity(nn.Module):
    """Sums of the factors of a user's events, and how targets fit them; nothing here is trained.

    Args:
        widths: numbers of the factor of each of G fields; an event has one factor of each, one after another.
        half_life: in events.

    >>> affinity = Affinity((2,))
    >>> factor_BLD = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    >>> at = affinity(factor_BLD, position_BC=torch.tensor([[0, 3]]))
    >>> at[0, 1, 0].tolist()
    [2.0, 1.0]
    >>> affinity.read(at, torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))[..., 0]
    tensor([[0.0000, 0.8944]])
    """

    keep_K: Tensor
    field_DG: Tensor
    """1 where a number belongs to a field: products of numbers become sums of each field."""
    widths: list[int]
    size: int

    def __init__(self, widths: Sequence[int], *, half_life: float = HALF_LIFE) -> None:
        super().__init__()
        self.widths, self.size = list(widths), affinity_size(widths)
        self.register_buffer("keep_K", torch.tensor([1.0, 2.0 ** (-1 / half_life)]), persistent=False)
        field_D = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
        self.register_buffer("field_DG", nn.functional.one_hot(field_D).to(self.keep_K), persistent=False)

    def initial(self, num_users: int) -> Tensor:
        """Sums `[B, K, D]` of users without events."""
        return self.keep_K.new_zeros(num_users, SUMS, sum(self.widths))

    def step(self, sums_BKD: Tensor, factor_BD: Tensor) -> Tensor:
        """Add one event of each user; the specification of `forward`."""
        return sums_BKD * self.keep_K.unsqueeze(-1) + factor_BD.unsqueeze(-2)

    def forward(self, factor_BLD: Tensor, position_BC: Tensor) -> Tensor:
        """The sums after the first `position` events, bit for bit: `[B, C, K, D]`.

        Args:
            factor_BLD: left-aligned; padding is not read. L may be 0.
            position_BC: int64, at most the user's number of events.
        """
        factors, position = factor_BLD.detach().cpu().numpy(), position_BC.cpu().numpy()
        found = np.zeros((*position.shape, SUMS, factors.shape[-1]), factors.dtype)
        order = np.argsort(position, axis=1, kind="stable")
        _fold(factors, order, position, self.keep_K.cpu().numpy(), found)
        return torch.from_numpy(found).to(factor_BLD.device)

    def read(self, sums_BCKD: Tensor, factor_BCD: Tensor) -> Tensor:
        """Cosine of each field's factor and each sum, then the signed logarithms of the products: `[B, C, size]`.

        Args:
            sums_BCKD: `[B, C, K, D]` or `[B, 1, K, D]`.
            factor_BCD: of the targets.
        """
        product_BCKG = (sums_BCKD * factor_BCD.unsqueeze(-2)) @ self.field_DG
        length_BCKG = (sums_BCKD.square() @ self.field_DG).sqrt()
        cosine_BCKG = product_BCKG / length_BCKG.clamp(min=SHORTEST)
        amount_BCKG = product_BCKG.sign() * torch.log1p(product_BCKG.abs()) / 2
        return torch.cat([cosine_BCKG, amount_BCKG], dim=-1).transpose(-1, -2).flatten(-2)


@jit
def _fold(factor_BLD: Array, order_BC: Array, position_BC: Array, keep_K: Array, sum_BCKD: Array) -> None:
    """Fill the sums at each target: one pass over a history serves all of them."""
    width = sum_BCKD.shape[-1]
    sum_KD = np.zeros((len(keep_K), width), sum_BCKD.dtype)
    for b in range(len(factor_BLD)):
        sum_KD[:] = 0
        n = 0
        for c in order_BC[b]:
            while n < position_BC[b, c]:
                for k in range(len(keep_K)):
                    for d in range(width):
                        sum_KD[k, d] = sum_KD[k, d] * keep_K[k] + factor_BLD[b, n, d]
                n += 1
            sum_BCKD[b, c] = sum_KD
