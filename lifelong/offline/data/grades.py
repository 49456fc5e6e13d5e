"""Ratings as tasks, one for each step of the scale, and the expected rating from their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import FloatArray

RATING = "rating"


def grade_tasks(grades: Sequence[float]) -> tuple[str, ...]:
    """Names of the tasks that make a graded rating: one for each value but the lowest.

    >>> grade_tasks([1, 2, 3])
    ('rating_2', 'rating_3')
    """
    return tuple(f"{RATING}_{value:g}" for value in grades[1:])


def expected_rating(tasks: Sequence[str], grades: Sequence[float], probability_NT: npt.ArrayLike) -> FloatArray:
    """The expected rating from the probabilities of its steps, `[N]`; from labels it is the rating itself.

    Args:
        tasks: all tasks, including those of `grade_tasks`.
        grades: values of the rating, ascending.
        probability_NT: probability, or label, of each task.

    >>> expected_rating(["rating_2", "rating_3"], [1, 2, 3], [[0.9, 0.5]]).tolist()
    [2.4]
    """
    at = [list(tasks).index(name) for name in grade_tasks(grades)]
    # The lowest value, plus each step times the probability that the rating reaches it.
    expected: FloatArray = grades[0] + np.asarray(probability_NT, np.float64)[:, at] @ np.diff(grades)
    return expected
