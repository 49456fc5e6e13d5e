"""A world in one thread: a clock that jumps to what happens next, links that delay and break, a disk, and chance.

    seed --> chance --> what happens when --> clock: one thing after the other --> BrokenError, or nothing

Everything that could differ from one run to the next is drawn from the seed, so that a seed is a test of its own. What
is simulated is the real code where this has no sockets, threads and waits of its own.
"""

from __future__ import annotations

import gc
import heapq
import os
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

SEEDS = 10_000
"""How many worlds there are in an ordinary run of the tests."""
CHOSEN = "LIFELONG_SEED"
"""Environment variable with the one seed that is to be run."""


class BrokenError(AssertionError):
    """Something was seen that must not be."""


class Clock:
    """Seconds that pass only when nothing is left to do before.

    Example:
        >>> clock, seen = Clock(), []
        >>> clock.after(2, lambda: seen.append(clock.now))
        >>> clock.after(1, lambda: clock.after(0.5, lambda: seen.append(clock.now)))
        >>> clock.run(), seen
        (None, [1.5, 2.0])
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._next: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something later."""
        self.at(self.now + seconds, what)

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Do something at a moment; what was asked for first comes first."""
        heapq.heappush(self._next, (moment, next(self._order), what))

    def run(self, most: int = 20_000) -> None:
        """Do all that is to be done, and what comes of it.

        Raises:
            BrokenError: there is no end of it.
        """
        for _ in range(most):
            if not self._next:
                return
            self.now, _, what = heapq.heappop(self._next)
            what()
        raise BrokenError("it never comes to rest")


class Link:
    """A stream socket between two ends, 0 and 1: nothing is overtaken, and the end comes after what is still delivered.

    Args:
        clock: of the world.
        chance: of the world.
        received: for each end, called with each message that arrives there.
        ended: for each end, called once when nothing more will arrive.
    """

    CAPACITY = 40
    """Messages on the way to an end that reads nothing; the next one is not sent, and the link breaks."""

    def __init__(
        self,
        clock: Clock,
        chance: random.Random,
        received: tuple[Callable[[Link, Any], object], Callable[[Link, Any], object]],
        ended: tuple[Callable[[Link], object], Callable[[Link], object]],
    ) -> None:
        self._clock, self._chance, self._received, self._ended = clock, chance, received, ended
        self._free, self._on_way, self._lost, self.broken = [0.0, 0.0], [0, 0], [False, False], False

    def send(self, end: int, message: object) -> None:
        """Send a message to an end.

        Raises:
            OSError: the link is broken, or the end does not read.
        """
        if self._on_way[end] >= self.CAPACITY:
            self.hang_up()
        if self.broken:
            raise OSError
        self._on_way[end] += 1
        self._clock.at(self._arrival(end), lambda: self._arrive(end, message))

    def _arrival(self, end: int) -> float:
        # The moment itself: as a time from now on it would be rounded, and one message could overtake another.
        self._free[end] = max(self._free[end], self._clock.now + self._chance.random() * 0.01)
        return self._free[end]

    def _arrive(self, end: int, message: object) -> None:
        self._on_way[end] -= 1
        if not self._lost[end]:
            self._received[end](self, message)

    def hold(self, end: int, seconds: float) -> None:
        """Let nothing arrive at an end for a while."""
        self._free[end] = max(self._free[end], self._clock.now + seconds)

    def hang_up(self) -> None:
        """Break it; at each end what is on its way may still arrive, or not."""
        if self.broken:
            return
        self.broken = True
        for end in (0, 1):
            self._lost[end] = self._chance.random() < 0.5
            self._clock.at(self._arrival(end), lambda end=end: self._ended[end](self))  # type: ignore[misc]


class Disk:
    """A log of writes: what was synced survives everything, the rest a kill, and perhaps a power cut.

    Args:
        chance: of the world.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.log: list[Any] = []
        self.synced = 0

    def write(self, change: object) -> int:
        """Write at the end; gives where it ends."""
        self.log.append(change)
        return len(self.log)

    def lose(self) -> None:
        """Lose some of what was not synced, from the end."""
        del self.log[self._chance.randint(self.synced, len(self.log)) :]

    def read(self) -> list[Any]:
        """All that is there. Whoever opens a store syncs what it finds before it answers."""
        self.synced = len(self.log)
        return list(self.log)


def seeds(number: int = SEEDS, first: int = 0) -> Iterable[int]:
    """The seeds to run: so many, or the one that the environment names."""
    chosen = os.environ.get(CHOSEN)
    return range(first, first + number) if chosen is None else [int(chosen)]


def first_broken(world: Callable[[int], object], some: Iterable[int]) -> tuple[int, BrokenError] | None:
    """Run worlds until one breaks: its seed and what was seen; None if none does."""
    for seed in _without_collector(some):
        try:
            world(seed)
        except BrokenError as broken:
            return seed, broken
    return None


def _without_collector(some: Iterable[int]) -> Iterator[int]:
    """Seeds, between which alone garbage is collected: otherwise its moment would depend on the worlds before."""
    gc.disable()
    try:
        for place, seed in enumerate(some):
            if place % 50 == 0:
                gc.collect()
            yield seed
    finally:
        gc.enable()


def assert_no_world_breaks(world: Callable[[int], object], some: Iterable[int]) -> None:
    """Run worlds.

    Raises:
        AssertionError: one breaks; it says how to see it again.
    """
    found = first_broken(world, some)
    if found is not None:
        seed, broken = found
        raise AssertionError(f"seed {seed}: {broken}\nto see it again: {CHOSEN}={seed} pytest TEST") from broken
