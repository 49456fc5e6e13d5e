"""Which part of a user's history is read for which targets, and which of these parts share a batch.

A *pass* is one window of one user's history and the targets that it serves. A long history is cut into windows that
overlap, here with `max_history` 8, and 4 for both `phase` and overlap:

    events              0       4       8       12      16
    window 0            |===============|                     targets at positions 0 to 8
    window 1                    |-------========|             targets at positions 9 to 12
    window 2                            |-------========|     targets at positions 13 to 16

Windows start at multiples of `phase`, the model's largest period, so that every slot is written at the same events as
by a service, which counts from the first event. The part drawn as `---` warms the memory up: a target that would have
no more events than that after the cut is served by the window before. So each target is served by exactly one window,
and an epoch labels every target once.

Shapes: N targets, P passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifelong.dataset.arrays import is_first, ranks
from lifelong.dataset.examples import Examples
from lifelong.dtypes import IntArray
from lifelong.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of the histories training does not see, because windows are cut.

    Args:
        windows: windows of all users.
        cut_windows: those that do not start at the user's first event.
        events_cut: events before the starts of those windows, summed over them.
        targets: all targets.
        targets_behind_cut: targets that are served by a cut window.
    """

    windows: int
    cut_windows: int
    events_cut: int
    targets: int
    targets_behind_cut: int


@dataclass(frozen=True, slots=True)
class Passes:
    """P passes over N targets.

    Args:
        order_N: places in the examples, in the order in which passes use them.
        first_P: int64, P + 1; pass p serves the targets `order_N[first_P[p]:first_P[p + 1]]`.
        user_P: user.
        start_P: the user's event at which the window starts.
        length_P: events of the window, up to the last target's position.
    """

    order_N: IntArray
    first_P: IntArray
    user_P: IntArray
    start_P: IntArray
    length_P: IntArray

    def __len__(self) -> int:
        return len(self.user_P)

    @property
    def targets_P(self) -> IntArray:  # noqa: N802  named like the fields
        """Number of targets of each pass."""
        return np.diff(self.first_P)

    def cut(self) -> Cut:
        """How much of the histories the windows leave out."""
        window = np.unique(np.stack([self.user_P, self.start_P]), axis=1)
        behind = self.start_P > 0
        return Cut(
            windows=window.shape[1],
            cut_windows=int((window[1] > 0).sum()),
            events_cut=int(window[1].sum()),
            targets=len(self.order_N),
            targets_behind_cut=int(self.targets_P[behind].sum()),
        )


def plan_passes(
    examples: Examples, *, max_targets: int, max_history: int | None = None, phase: int = 1, overlap: int = 0
) -> Passes:
    """Cut users' targets into passes.

    Args:
        examples: the targets, in any order.
        max_targets: targets of one pass at most.
        max_history: events of one window at most; None = every window starts at the first event.
        phase: windows start at multiples of it; the model's largest period.
        overlap: events that a target in a cut window sees at least; `phase` if that is more.

    Raises:
        ConfigError: a window of `max_history` events has no room for a new target.
    """
    user_N, position_N = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    # By user first, so that a window is read once for all of its targets.
    order_N = np.lexsort((position_N, user_N))
    user_N, position_N = user_N[order_N], position_N[order_N]
    step, behind = _window_step(max_history, phase, overlap)
    # Window k >= 1 starts at event k * step and serves positions k * step + behind + 1 and later.
    window_N = np.zeros(len(user_N), np.int64) if step is None else np.maximum(0, (position_N - behind - 1) // step)
    return _cut(order_N, user_N, position_N, window_N * (step or 0), max_targets)


def _cut(order_N: IntArray, user_N: IntArray, position_N: IntArray, start_N: IntArray, max_targets: int) -> Passes:
    """Passes over sorted targets: a new one where user or start changes, and after `max_targets` targets."""
    # Ranks begin at 0 where a group begins, so that the remainder is 0 at its start and after every `max_targets`
    # targets.
    first_P = np.flatnonzero(ranks(is_first(user_N, start_N)) % max_targets == 0)
    bound_P = np.append(first_P, len(user_N)).astype(np.int64)
    # Positions ascend in a pass, so its last target says how far the window has to reach.
    length_P = position_N[bound_P[1:] - 1] - start_N[first_P]
    return Passes(order_N, bound_P, user_N[first_P], start_N[first_P], length_P)


def _window_step(max_history: int | None, phase: int, overlap: int) -> tuple[int | None, int]:
    """Events between the starts of two windows, None where nothing is cut; and events before the first target."""
    if max_history is None:
        return None, 0
    # Both are rounded to multiples of `phase`, the window down and the overlap up, so that starts are multiples too.
    whole = max_history // phase * phase
    behind = max(phase, -(-overlap // phase) * phase)
    if whole <= behind:
        raise ConfigError(
            [
                f"train.max_history = {max_history} leaves no room for new events: a window starts at a multiple of "
                f"the largest period {phase} and overlaps the one before by {behind} events"
            ],
            fix=f"set train.max_history to at least {behind + phase}, or a smaller train.overlap or period",
        )
    return whole - behind, behind


def pack(order: IntArray, length_P: IntArray, targets_P: IntArray, limits: tuple[int, int]) -> list[IntArray]:
    """Cut passes into batches, in the given order: users x longest history and users x most targets stay in limits.

    A pass that is larger than a limit has a batch of its own.

    Args:
        order: the passes, in order.
        length_P: events of each pass.
        targets_P: targets of each pass.
        limits: padded events and padded targets of a batch at most.

    >>> size = np.array([4, 4, 9])
    >>> [part.tolist() for part in pack(np.arange(3), size, size, (10, 100))]
    [[0, 1], [2]]
    """
    max_events, max_targets = limits
    bounds, size, longest, most = [0], 0, 0, 0
    for at, (length, targets) in enumerate(zip(length_P[order].tolist(), targets_P[order].tolist(), strict=True)):
        size, longest, most = size + 1, max(longest, length), max(most, targets)
        if size > 1 and (size * longest > max_events or size * most > max_targets):
            bounds.append(at)
            size, longest, most = 1, length, targets
    # The first bound is the beginning; splitting there would give an empty batch.
    return np.split(order, bounds[1:]) if len(order) else []
