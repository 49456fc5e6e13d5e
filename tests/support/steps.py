"""Something that happens while a training runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from unittest.mock import patch

from lifelong.offline.training.display import Display


@contextlib.contextmanager
def after_steps(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Trainings in this context do something after so many batches."""
    step, steps = Display.step, count(1)

    def counting(self: Display, examples: int, speed: float, loss: float) -> None:
        step(self, examples, speed, loss)
        if next(steps) == number:
            action()

    with patch.object(Display, "step", counting):
        yield
