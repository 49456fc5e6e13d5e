"""The scores of many pairs of a target and an event by one MLP, a block of pairs in one matrix product.

    targets q_1 ... q_C of a user -> matrices M_c = W4 * q_c + (W2 - W3) --+
    her events e_1 ... e_L ------------------------------------------------+--> hidden_lc = relu(M_c e_l + part of q_c)

`PairScore` is the specification. Its first layer is linear in the event once the target is known, so that no product
q * e is ever made; the matrix product is as long as the events and as wide as the targets' hidden units together. A
block is a few targets of one user and the events between the first and the last that any of them sees. Its hidden units
fit into a processor's second-level cache and are made again for the backward pass.

Source: this package; the MLP is the scorer of Zhou et al., "Deep Interest Network", KDD 2018, as in `PairScore`.

Shapes: B users, L padded history length, C targets per user, E width, K first hidden layer, J second hidden layer,
P = L x C pairs of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lifelong.offline.nn.attention import PairScore
from lifelong.offline.nn.traced import is_traced

NUMBERS_AT_ONCE = {"cpu": 2**19, "cuda": 2**26}
"""How many hidden units a block may have."""


def visible_scores(score: PairScore, query_BCE: Tensor, event_BLE: Tensor, first_BC: Tensor, end_BC: Tensor) -> Tensor:
    """`score` of each target's events from place `first` to before `end`, anything finite elsewhere: `[B, C, L]`.

    It is the faster, the nearer to each other neighbouring targets are in the history.

    Args:
        score: the MLP.
        query_BCE: queries of the targets.
        event_BLE: finite in padding, too; L may be 0.
        first_BC: int64 first place that a target sees.
        end_BC: int64 place after the last; more than L counts as L.

    >>> score, query_BCE, event_BLE = PairScore(4), torch.randn(1, 2, 4), torch.randn(1, 6, 4)
    >>> found_BCL = visible_scores(score, query_BCE, event_BLE, torch.tensor([[0, 2]]), torch.tensor([[6, 4]]))
    >>> torch.allclose(found_BCL[0, 1, 2:4], score(query_BCE[0, 1], event_BLE[0, 2:4]), atol=1e-5)
    True
    """
    if is_traced():
        return _all_scores(score, query_BCE, event_BLE)
    of_query, of_entry, of_difference, of_product = score.first.weight.chunk(4, dim=1)
    part_BCK = query_BCE @ (of_query + of_difference).T + score.first.bias
    weights = of_product, of_entry - of_difference, *score.second.parameters(), score.last.weight
    apply: Callable[..., Tensor] = _Scores.apply
    end_BC = end_BC.clamp(max=event_BLE.shape[1])
    return apply(query_BCE, part_BCK, event_BLE, first_BC, end_BC, *weights) + score.last.bias


def _all_scores(score: PairScore, query_BCE: Tensor, event_BLE: Tensor) -> Tensor:
    """`score` of every pair, in operations that a graph has: `[B, C, L]`."""
    of_query, of_entry, of_difference, of_product = score.first.weight.chunk(4, dim=1)
    matrix_BCEK = (of_entry - of_difference).T + query_BCE.unsqueeze(-1) * of_product.T
    part_BCK = query_BCE @ (of_query + of_difference).T + score.first.bias
    # The query's part is one more row of the matrix, for an input that is 1.
    matrix_BCXK = torch.cat([matrix_BCEK, part_BCK.unsqueeze(-2)], dim=-2)
    event_BLX = torch.cat([event_BLE, torch.ones_like(event_BLE[..., :1])], dim=-1)
    return score.above(torch.relu(event_BLX.unsqueeze(1) @ matrix_BCXK))


class _Scores(torch.autograd.Function):
    """All blocks as one differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BCE: Tensor,
        part_BCK: Tensor,
        event_BLE: Tensor,
        first_BC: Tensor,
        end_BC: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        product_KE, linear_KE, *upper = weights
        score_BCL = event_BLE.new_zeros(*query_BCE.shape[:2], event_BLE.shape[1])
        ctx.blocks = list(_blocks(first_BC, end_BC, len(product_KE)))
        for targets, events in ctx.blocks:
            matrix_NE = _matrices(query_BCE[targets], product_KE, linear_KE)
            first_PK, second_PJ = _hidden(event_BLE[events], matrix_NE, part_BCK[targets], *upper[:2])
            score_LC = (second_PJ @ upper[2][0]).view(-1, len(first_PK) // len(event_BLE[events]))
            score_BCL[(*targets, events[1])] = score_LC.T
        ctx.save_for_backward(query_BCE, part_BCK, event_BLE, *weights)
        return score_BCL

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query_BCE, part_BCK, event_BLE, product_KE, linear_KE, second_JK, bias_J, last_1J = ctx.saved_tensors
        grads = [torch.zeros_like(value) for value in ctx.saved_tensors]
        grad_query, grad_part, grad_event, grad_product, grad_linear, grad_second, grad_bias, grad_last = grads
        for targets, events in ctx.blocks:
            query_CE, event_LE = query_BCE[targets], event_BLE[events]
            matrix_NE = _matrices(query_CE, product_KE, linear_KE)
            first_PK, second_PJ = _hidden(event_LE, matrix_NE, part_BCK[targets], second_JK, bias_J)
            # Pairs are ordered by event, then target, as `_hidden` has them.
            grad_P = grad_outputs[0][(*targets, events[1])].T.reshape(-1)
            grad_last[0].addmv_(second_PJ.T, grad_P)
            grad_PJ = _through_relu(torch.outer(grad_P, last_1J[0]), second_PJ)
            grad_second.addmm_(grad_PJ.T, first_PK)
            grad_bias += grad_PJ.sum(dim=0)
            grad_LN = _through_relu(grad_PJ @ second_JK, first_PK).view(len(event_LE), -1)
            grad_event[events].addmm_(grad_LN, matrix_NE)
            grad_part[targets] = grad_LN.sum(dim=0).view_as(part_BCK[targets])
            # The matrix of target c is W4 * q_c + (W2 - W3): its gradient goes to all three.
            grad_CKE = (grad_LN.T @ event_LE).view(len(query_CE), *product_KE.shape)
            grad_linear += grad_CKE.sum(dim=0)
            grad_query[targets] = (grad_CKE * product_KE).sum(dim=1)
            grad_product += grad_CKE.mul_(query_CE.unsqueeze(1)).sum(dim=0)
        return grad_query, grad_part, grad_event, None, None, *grads[3:]


Place = tuple[int, slice]
"""A user, and a range of her targets or events."""


def _blocks(first_BC: Tensor, end_BC: Tensor, hidden: int) -> Iterator[tuple[Place, Place]]:
    """The places of each block in `[B, C]` and in `[B, L]`."""
    numbers = NUMBERS_AT_ONCE[first_BC.device.type]
    for user, (firsts, ends) in enumerate(zip(first_BC.tolist(), end_BC.tolist(), strict=True)):
        most = max((end - first for first, end in zip(firsts, ends, strict=True)), default=0)
        count = max(1, numbers // (hidden * max(1, most)))
        for start in range(0, len(ends), count):
            some = slice(start, start + count)
            low, high = min(firsts[some]), max(ends[some])
            if low < high:
                yield (user, some), (user, slice(low, high))


def _matrices(query_CE: Tensor, product_KE: Tensor, linear_KE: Tensor) -> Tensor:
    """The first layer of each target, W4 * q + (W2 - W3), one below the other: `[C * K, E]`."""
    return torch.addcmul(linear_KE, query_CE.unsqueeze(1), product_KE).flatten(0, 1)


def _hidden(
    event_LE: Tensor, matrix_NE: Tensor, part_CK: Tensor, second_JK: Tensor, bias_J: Tensor
) -> tuple[Tensor, Tensor]:
    """Both hidden layers of all pairs, `[P, K]` and `[P, J]`; the pairs of an event follow each other."""
    first_LN = torch.addmm(part_CK.flatten(), event_LE, matrix_NE.T).relu_()
    first_PK = first_LN.view(-1, part_CK.shape[1])
    return first_PK, torch.addmm(bias_J, first_PK, second_JK.T).relu_()


def _through_relu(grad: Tensor, result: Tensor) -> Tensor:
    """The gradient before a relu, from the one after it and the relu's result."""
    before: Tensor = torch.ops.aten.threshold_backward(grad, result, 0)
    return before
