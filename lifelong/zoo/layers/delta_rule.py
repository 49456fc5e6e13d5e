"""The gated delta rule over whole histories, a chunk of events at a time.

    S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T          keys of length 1, a and b in (0, 1)

    events --within each chunk, all at once--> what each event writes, as a function of the state before its chunk
           --chunk after chunk--> these states
           --at any position--> a read S q, or the state itself

A step is S_t = a_t S_{t-1} + u_t k_t^T, where u_t = b_t (v_t - a_t S_{t-1} k_t) is what the value lacks. With S before
a chunk and g_t = a_1 ... a_t since its start, all u of the chunk solve one triangular system (the UT transform):

    (I + A) U = diag(b) V - diag(b g) K S^T          A_ti = b_t (g_t / g_i) k_t . k_i  for i < t, else 0
    S_t = g_t S + sum over i <= t of (g_t / g_i) u_i k_i^T

so that U = U_0 - W S^T, where U_0 and W do not depend on S. Quotients of g are exponentials of differences of sums of
logarithms, and at most 1: nothing overflows, and a state that has faded away is 0. `delta_step` is the specification.

Source: Yang et al., "Gated Delta Networks", ICLR 2025, section 3.3; Yang et al., "Parallelizing Linear Transformers
with the Delta Rule", NeurIPS 2024, section 3.2.

Shapes: B users, L padded history length, H heads, K width of a key, D width of a value, Z chunks, X events of a chunk,
N targets of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lifelong.offline.nn.chunks import in_chunks


class Change(NamedTuple):
    """What events do to a memory."""

    key_BLHK: Tensor
    """Keys, of length 1 at most."""
    value_BLHD: Tensor
    keep_BLH: Tensor
    """log a, at most 0."""
    strength_BLH: Tensor
    """b, from 0 to 1."""


class Chunks(NamedTuple):
    """Histories in chunks: what every event wrote, and the state before each chunk; a row R is a chunk of a user."""

    state_RHDK: Tensor
    written_RHXD: Tensor
    key_RHXK: Tensor
    kept_RHX: Tensor
    """log g: what the events up to each one leave of the state before the chunk."""
    chunks: int
    """Chunks of a user."""


def delta_step(state_BHDK: Tensor, key_BHK: Tensor, value_BHD: Tensor, keep_BH: Tensor, strength_BH: Tensor) -> Tensor:
    """The states after one event of each user; the specification.

    >>> state_BHDK, one = torch.zeros(1, 1, 1, 2), torch.ones(1, 1)
    >>> key_BHK, value_BHD = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[5.0]]])
    >>> delta_step(state_BHDK, key_BHK, value_BHD, keep_BH=0 * one, strength_BH=one).tolist()
    [[[[5.0, 0.0]]]]
    """
    faded_BHDK = state_BHDK * keep_BH.exp()[..., None, None]
    present_BHD = (faded_BHDK @ key_BHK.unsqueeze(-1)).squeeze(-1)
    written_BHD = strength_BH.unsqueeze(-1) * (value_BHD - present_BHD)
    return faded_BHDK + written_BHD.unsqueeze(-1) * key_BHK.unsqueeze(-2)


def delta_chunks(change: Change, size: int) -> Chunks:
    """A pass over whole histories, from empty states.

    Args:
        change: of all events, finite in padding, too; L may be 0.
        size: X, events of a chunk; it changes the speed, not the result.

    >>> key_BLHK = torch.nn.functional.normalize(torch.randn(2, 10, 1, 3), dim=-1)
    >>> change = Change(key_BLHK, torch.randn(2, 10, 1, 4), -torch.rand(2, 10, 1), torch.rand(2, 10, 1))
    >>> chunks, query_NHK = delta_chunks(change, size=4), torch.randn(3, 1, 3)
    >>> user_N, position_N = torch.tensor([0, 0, 1]), torch.tensor([0, 7, 10])
    >>> state_NHDK = states_after(chunks, user_N, position_N)
    >>> found_NHD = reads_after(chunks, user_N, position_N, query_NHK)
    >>> torch.allclose(found_NHD, (state_NHDK @ query_NHK.unsqueeze(-1)).squeeze(-1), atol=1e-5)
    True
    """
    change = Change(*(part.float() if part.dtype != torch.float64 else part for part in change))
    # In single precision also where the rest is mixed: errors in the factors of a system do not stay small.
    with torch.autocast(change.keep_BLH.device.type, enabled=False):
        return _chunks(change, size)


def _chunks(change: Change, size: int) -> Chunks:
    length = change.keep_BLH.shape[1]
    # One chunk more than needed where the last one is full: the state after the last event is the start of a chunk.
    chunks = length // size + 1
    key, value = (_cut(part, chunks, size) for part in change[:2])
    keep, strength = (_cut(part.unsqueeze(-1), chunks, size) for part in change[2:])
    # Sums of logarithms from the chunk's start alone: over a whole history they would grow, and their differences lose
    # digits.
    log_left = keep.squeeze(-1).cumsum(dim=-1)
    # g_t / g_i of every pair of a chunk's events, 0 for an i after t: that quotient could overflow.
    lower_XX = torch.ones(size, size, dtype=torch.bool, device=key.device).tril()
    quotient = (log_left.unsqueeze(-1) - log_left.unsqueeze(-2)).masked_fill(~lower_XX, -torch.inf).exp()
    # Without the diagonal: an event's value corrects what events before it wrote, not what it writes itself.
    mixed = (strength * (key @ key.transpose(-1, -2)) * quotient).tril(-1)
    right = torch.cat([value, key * log_left.exp().unsqueeze(-1)], dim=-1) * strength
    # One system gives both columns of U: U_0 from diag(b) V, and W from diag(b g) K.
    eye_XX = torch.eye(size, dtype=key.dtype, device=key.device)
    solved = torch.linalg.solve_triangular(mixed + eye_XX, right, upper=False, unitriangular=True)
    fresh, of_state = solved.split([value.shape[-1], key.shape[-1]], dim=-1)
    # Each event's key times what is left of it at the end of the chunk.
    last_key = key * (log_left[..., -1:] - log_left).exp().unsqueeze(-1)
    state, written = _pass_on(fresh, of_state, last_key, log_left[..., -1].exp())
    return Chunks(state.flatten(0, 1), written.flatten(0, 1), key.flatten(0, 1), log_left.flatten(0, 1), chunks)


def _cut(value: Tensor, chunks: int, size: int) -> Tensor:
    """`[B, L, H, ...]` in chunks, with zeros after the last event: `[B, Z, H, X, ...]`."""
    whole = pad(value, (0, 0, 0, 0, 0, chunks * size - value.shape[1]))
    return whole.view(len(value), chunks, size, *value.shape[2:]).transpose(2, 3)


def _pass_on(fresh: Tensor, of_state: Tensor, last_key: Tensor, left_BZH: Tensor) -> tuple[Tensor, Tensor]:
    """From chunk to chunk: the state before each, and what its events wrote.

    What a chunk makes of the state before it is linear: S' = g S - S W^T K_last + U_0^T K_last.
    """
    added = fresh.transpose(-1, -2) @ last_key
    lost = of_state.transpose(-1, -2) @ last_key
    state_BHDK = torch.zeros_like(added[:, 0])
    states = [state_BHDK]
    steps = zip(added.unbind(1), lost.unbind(1), left_BZH.unbind(1), strict=True)
    # The last chunk is left out, as its end is no chunk's start. A position there is read from within it.
    for added_BHDK, lost_BHKK, left_BH in list(steps)[:-1]:
        state_BHDK = left_BH[..., None, None] * state_BHDK - state_BHDK @ lost_BHKK + added_BHDK
        states.append(state_BHDK)
    state = torch.stack(states, dim=1)
    return state, fresh - of_state @ state.transpose(-1, -2)


def states_after(chunks: Chunks, user_N: Tensor, position_N: Tensor) -> Tensor:
    """The state of a user after `position` events: `[N, H, D, K]`.

    Args:
        chunks: from `delta_chunks`.
        user_N: int64 user of each target.
        position_N: int64, at most L.
    """
    row_N, weight_NHX, left_NH = _places(chunks, user_N, position_N)
    written = chunks.written_RHXD[row_N] * weight_NHX.unsqueeze(-1)
    inside = written.transpose(-1, -2) @ chunks.key_RHXK[row_N]
    return chunks.state_RHDK[row_N] * left_NH[..., None, None] + inside


def reads_after(chunks: Chunks, user_N: Tensor, position_N: Tensor, query_NHK: Tensor) -> Tensor:
    """S q in the state after `position` events, which is never made: `[N, H, D]`.

    Args:
        chunks: from `delta_chunks`.
        user_N: int64 user of each target.
        position_N: int64, at most L.
        query_NHK: queries of the targets.
    """

    def some(user_N: Tensor, position_N: Tensor, query_NHK: Tensor) -> tuple[Tensor]:
        row_N, weight_NHX, left_NH = _places(chunks, user_N, position_N)
        query_NHK1 = query_NHK.unsqueeze(-1)
        match_NHX = (chunks.key_RHXK[row_N] @ query_NHK1).squeeze(-1) * weight_NHX
        inside = (match_NHX.unsqueeze(-2) @ chunks.written_RHXD[row_N]).squeeze(-2)
        before = (chunks.state_RHDK[row_N] @ query_NHK1).squeeze(-1)
        return (before * left_NH.unsqueeze(-1) + inside,)

    numbers = max(part[0].numel() for part in chunks[:3])
    return in_chunks(some, user_N, position_N, query_NHK, axis=0, numbers=numbers)[0]


def _places(chunks: Chunks, user_N: Tensor, position_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chunk of each position, and what is left then of each of its events, and of the state before it."""
    size = chunks.kept_RHX.shape[-1]
    row_N, done_N11 = user_N * chunks.chunks + position_N // size, (position_N % size)[:, None, None]
    kept_NHX = chunks.kept_RHX[row_N]
    # At the start of a chunk none of its events is done: any is read, and the logarithm of 1 takes its place.
    last_NH1 = kept_NHX.gather(-1, (done_N11 - 1).clamp(min=0).expand(-1, kept_NHX.shape[1], 1))
    last_NH1 = last_NH1.masked_fill(done_N11 == 0, 0.0)
    before_N1X = torch.arange(size, device=row_N.device) < done_N11
    # -inf before exp, not 0 after it: the exponent of a later event is positive, and inf times 0 would be NaN in the
    # gradient.
    return row_N, (last_NH1 - kept_NHX).masked_fill(~before_N1X, -torch.inf).exp(), last_NH1.squeeze(-1).exp()
