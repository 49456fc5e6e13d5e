"""Periods of a hierarchy of layers.

Source: Ren et al., SIGIR 2019 (HPMN); nested periods are those of its experiments.
"""

from __future__ import annotations

import itertools


def check_periods(periods: tuple[int, ...]) -> tuple[int, ...]:
    """The periods, if they are nested: 1 first, strictly increasing, each dividing the next.

    Raises:
        ValueError: they are not; the message names the first wrong one.

    >>> check_periods((1, 2, 6))
    (1, 2, 6)
    """
    if not periods or periods[0] != 1:
        raise ValueError(f"periods {list(periods)} do not start with 1; expected, for example, [1, 2, 4, 8]")
    for below, above in itertools.pairwise(periods):
        if above <= below or above % below:
            raise ValueError(
                f"period {above} after {below} is not a larger multiple of it; expected, for example, [1, 2, 4, 8]"
            )
    return periods
