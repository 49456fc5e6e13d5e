"""The gated delta rule over whole histories, a chunk of events at a time.

    S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T          keys of length 1, a and b in (0, 1)

    events --per chunk, all chunks at once--> what each writes, but for the state before the chunk
           --chunk after chunk--> the states before them
           --at any position--> a read S q, or the state itself

A step is S_t = a_t S_{t-1} + u_t k_t^T, where u_t = b_t (v_t - a_t S_{t-1} k_t) is what the value lacks. With S before
a chunk and g_t = a_1 ... a_t since its start, all u of the chunk solve one triangular system (the UT transform):

    (I + A) U = diag(b) V - diag(b g) K S^T          A_ti = b_t (g_t / g_i) k_t . k_i  for i < t, else 0
    S_t = g_t S + sum over i <= t of (g_t / g_i) u_i k_i^T

so that U = U_0 - W S^T, where U_0 and W know nothing of S. Quotients of g are differences of sums of logarithms, at
most 1 each: nothing overflows, and a state that has faded away is 0. `delta_step` is the specification.

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

from lifelong.nn.chunks import in_chunks


class Change(NamedTuple):
    """What events do to a memory."""

    key_BLHK: Tensor
    """Of length 1 at most."""
    value_BLHD: Tensor
    keep_BLH: Tensor
    """log a: at most 0."""
    strength_BLH: Tensor
    """b: from 0 to 1."""


class Chunks(NamedTuple):
    """A history in chunks: what every event wrote, and the state before each chunk; its rows are users x chunks, R."""

    state_RHDK: Tensor
    written_RHXD: Tensor
    key_RHXK: Tensor
    kept_RHX: Tensor
    """log g: of the chunk's start, what the events up to each leave."""
    chunks: int
    """Of a user."""


def delta_step(state_BHDK: Tensor, key_BHK: Tensor, value_BHD: Tensor, keep_BH: Tensor, strength_BH: Tensor) -> Tensor:
    """One event of each user; the specification."""
    faded_BHDK = state_BHDK * keep_BH.exp()[..., None, None]
    found_BHD = (faded_BHDK @ key_BHK.unsqueeze(-1)).squeeze(-1)
    written_BHD = strength_BH.unsqueeze(-1) * (value_BHD - found_BHD)
    return faded_BHDK + written_BHD.unsqueeze(-1) * key_BHK.unsqueeze(-2)


def delta_chunks(change: Change, size: int) -> Chunks:
    """A pass over whole histories, from empty states.

    Args:
        change: of all events, finite in padding, too; L may be 0.
        size: X, events of a chunk; the result does not depend on it.
    """
    change = Change(*(part.float() if part.dtype != torch.float64 else part for part in change))
    # Under mixed precision, too, in single: errors of a system's factors do not stay small.
    with torch.autocast(change.keep_BLH.device.type, enabled=False):
        return _chunks(change, size)


def _chunks(change: Change, size: int) -> Chunks:
    length = change.keep_BLH.shape[1]
    # One more than needed where the last chunk is full: the state behind the last event is a chunk's start, too.
    chunks = length // size + 1
    key, value = (_cut(part, chunks, size) for part in change[:2])
    keep, strength = (_cut(part.unsqueeze(-1), chunks, size) for part in change[2:])
    kept = keep.squeeze(-1).cumsum(dim=-1)
    lower_XX = torch.ones(size, size, dtype=torch.bool, device=key.device).tril()
    quotient = (kept.unsqueeze(-1) - kept.unsqueeze(-2)).masked_fill(~lower_XX, -torch.inf).exp()
    mixed = (strength * (key @ key.transpose(-1, -2)) * quotient).tril(-1)
    right = torch.cat([value, key * kept.exp().unsqueeze(-1)], dim=-1) * strength
    eye_XX = torch.eye(size, dtype=key.dtype, device=key.device)
    solved = torch.linalg.solve_triangular(mixed + eye_XX, right, upper=False, unitriangular=True)
    fresh, of_state = solved.split([value.shape[-1], key.shape[-1]], dim=-1)
    # Each event's key as it stands at the end of its chunk.
    last_key = key * (kept[..., -1:] - kept).exp().unsqueeze(-1)
    state, written = _pass_on(fresh, of_state, last_key, kept[..., -1].exp())
    return Chunks(state.flatten(0, 1), written.flatten(0, 1), key.flatten(0, 1), kept.flatten(0, 1), chunks)


def _cut(value: Tensor, chunks: int, size: int) -> Tensor:
    """`[B, L, H, ...]` in chunks, zeros behind: `[B, Z, H, X, ...]`."""
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
    for added_BHDK, lost_BHKK, left_BH in list(steps)[:-1]:
        state_BHDK = left_BH[..., None, None] * state_BHDK - state_BHDK @ lost_BHKK + added_BHDK
        states.append(state_BHDK)
    state = torch.stack(states, dim=1)
    return state, fresh - of_state @ state.transpose(-1, -2)


def states_after(chunks: Chunks, user_N: Tensor, position_N: Tensor) -> Tensor:
    """The state of a user after `position` events: `[N, H, D, K]`.

    Args:
        chunks: of the histories.
        user_N: int64.
        position_N: int64, at most L.
    """
    row_N, weight_NHX, left_NH = _places(chunks, user_N, position_N)
    written = chunks.written_RHXD[row_N] * weight_NHX.unsqueeze(-1)
    inside = written.transpose(-1, -2) @ chunks.key_RHXK[row_N]
    return chunks.state_RHDK[row_N] * left_NH[..., None, None] + inside


def reads_after(chunks: Chunks, user_N: Tensor, position_N: Tensor, query_NHK: Tensor) -> Tensor:
    """S q in the state after `position` events, which is never made: `[N, H, D]`.

    Args:
        chunks: of the histories.
        user_N: int64.
        position_N: int64, at most L.
        query_NHK: of the targets.
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
    """The chunk of each position, what of each of its events is left then, and what of the state before it."""
    size = chunks.kept_RHX.shape[-1]
    row_N, done_N11 = user_N * chunks.chunks + position_N // size, (position_N % size)[:, None, None]
    kept_NHX = chunks.kept_RHX[row_N]
    last_NH1 = kept_NHX.gather(-1, (done_N11 - 1).clamp(min=0).expand(-1, kept_NHX.shape[1], 1))
    last_NH1 = last_NH1.masked_fill(done_N11 == 0, 0.0)
    before_N1X = torch.arange(size, device=row_N.device) < done_N11
    return row_N, (last_NH1 - kept_NHX).masked_fill(~before_N1X, -torch.inf).exp(), last_NH1.squeeze(-1).exp()
