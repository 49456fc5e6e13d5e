"""A recurrence with a large state over whole histories: only the states at the positions asked for are kept.

    inputs --step, step, step, ...--> states of the users who have a target here --cat--> states, in the targets' order

A stack of all states would have (users x events x numbers of a state) numbers; what is kept here grows with the targets
instead. What the backward pass needs of every step would be several times that stack: beyond `NUMBERS_AT_ONCE` it is
computed again, a few steps at a time (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).

Shapes: B users, L padded history length, C targets per user, N targets of a batch, X width of a step's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NUMBERS_AT_ONCE = 2**25
"""How many numbers the states of the steps may have that a backward pass holds at once: 128 MiB in single precision.

What these steps keep for it is about six times that. Computing steps again doubles the time of a pass, and is left to
batches that would not fit.
"""

State = tuple[Tensor, ...]
Step = Callable[[State, Tensor], State]


def fold_at(step: Step, start: State, input_BLX: Tensor, position_BC: Tensor) -> State:
    """The state after the first `position` inputs of a user, for each target: tensors `[B, C, ...]`.

    Args:
        step: (state, input `[B, X]`) -> next state; draws nothing at random.
        start: state before the first input, tensors `[B, ...]`.
        input_BLX: finite in padding, too; L may be 0.
        position_BC: int64, at most L.

    >>> step = lambda state, input_BX: (state[0] + input_BX,)
    >>> input_BLX, position_BC = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[3, 0, 2]])
    >>> (sum_BCX,) = fold_at(step, (torch.zeros(1, 1),), input_BLX, position_BC)
    >>> sum_BCX.flatten().tolist()
    [7.0, 0.0, 3.0]
    """
    # Targets by rising position: after each step, those that it serves come next.
    place_N = position_BC.flatten()
    order_N = place_N.argsort(stable=True)
    user_N, targets = order_N // position_BC.shape[1], torch.bincount(place_N, minlength=1).tolist()
    # Targets at position 0 come first, and are served by the start.
    first, *users = torch.split(user_N, targets)
    size = _steps_at_once(start)
    # Only states that a target asks for are kept.
    state, states = start, [_pick(start, first)]
    # Split, not sliced: the backward pass of each slice would fill a tensor as large as the whole.
    for number, inputs in enumerate(torch.split(input_BLX[:, : len(users)], size, dim=1)):
        chunk = (step, state, inputs, users[number * size : (number + 1) * size])
        if size < len(users) and torch.is_grad_enabled():
            state, served = checkpoint(_some_steps, *chunk, use_reentrant=False, preserve_rng_state=False)
        else:
            state, served = _some_steps(*chunk)
        states += served
    # The inverse of a permutation is its argsort: from the order of positions back to that of the targets.
    back_N = order_N.argsort()
    return tuple(
        torch.cat(parts)[back_N].view(*position_BC.shape, *parts[0].shape[1:]) for parts in zip(*states, strict=True)
    )


def _some_steps(step: Step, state: State, input_BLX: Tensor, users: Sequence[Tensor]) -> tuple[State, list[State]]:
    """The last state; and of the states after each step, those of its `users`."""
    served = []
    for input_BX, user_N in zip(input_BLX.unbind(1), users, strict=True):
        state = step(state, input_BX)
        # Most steps serve no target, and would only add empty tensors to the graph.
        if len(user_N):
            served.append(_pick(state, user_N))
    return state, served


def _pick(state: State, user_N: Tensor) -> State:
    return tuple(value[user_N] for value in state)


def _steps_at_once(state: State) -> int:
    return max(1, NUMBERS_AT_ONCE // max(1, sum(value.numel() for value in state)))
