"""Runs a command whose days are short: its clocks, and the pauses of its sweeps, go so many times as fast.

    python -m support.fast_clock SPEED BEGIN ZERO serve ARTIFACT ...

BEGIN is the UTC second at the moment ZERO of the system's monotonic clock, which all processes share. Timeouts and
pauses between tries stay as they are.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

_passed = time.monotonic


@dataclass(frozen=True, slots=True)
class FastClock:
    """A clock that goes so many times as fast.

    Args:
        speed: how many times.
        begin: UTC seconds at the moment `zero`.
        zero: of the system's monotonic clock.
    """

    speed: float
    begin: float
    zero: float

    def now(self) -> float:
        """UTC seconds now."""
        return self.begin + (_passed() - self.zero) * self.speed


def go_fast(speed: float, begin: float, zero: float) -> FastClock:
    """Let the clock of this process, and of one that writes for it, go fast."""
    clock = FastClock(speed, begin, zero)
    time.time = clock.now

    from lifelong.online.serving import owner
    from lifelong.online.store.contract import Elapsed

    defaults = Elapsed.__init__.__kwdefaults__
    assert defaults is not None
    defaults["passed"] = clock.now
    owner.BEFORE = f"from support.fast_clock import go_fast; go_fast({speed!r}, {begin!r}, {zero!r}); "
    return clock


def main(speed: str, begin: str, zero: str, *words: str) -> int:
    """Run a command with a fast clock."""
    clock = go_fast(float(speed), float(begin), float(zero))

    from lifelong.cli import main as run
    from lifelong.online.serving import sweeper

    sweeper.EVERY /= clock.speed
    return run(list(words))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4], *sys.argv[4:]))
