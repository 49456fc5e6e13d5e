"""Refuses what is no scorer or no base rate, in words that say what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact


def checked_scorer(scorer: object) -> None:
    """Check that there is a scorer.

    Raises:
        UsageError: it is something else.

    >>> checked_scorer("artifact")
    Traceback (most recent call last):
    lifelong.errors.UsageError: a scorer of type str. Expected: a Scorer. To do: scorer = Scorer(artifact, store).
    """
    if not hasattr(scorer, "states"):
        found, fix = f"a scorer of type {type(scorer).__name__}", "scorer = Scorer(artifact, store)"
        raise UsageError(found, expected="a Scorer", fix=fix)


def base_rates(artifact: Artifact, given: float | Mapping[str, float] | None) -> Mapping[str, float]:
    """Task -> share of positives in production, as far as they are given.

    Args:
        artifact: the model with these tasks.
        given: of the first task alone, or by task.

    Raises:
        UsageError: the artifact does not have a task of that name.
    """
    tasks = artifact.config.dataset_schema.tasks
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = {tasks[0]: given}
    for rate in given.values():
        # True is a number in Python, and no share.
        if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 < rate < 1:
            raise UsageError(
                f"a base rate of {rate!r}",
                expected="a share between 0 and 1, or task -> share",
                fix="give the share of positives in production: 0.02 where 2 of 100 candidates are bought",
            )
    unknown = [task for task in given if task not in tasks]
    if unknown:
        raise UsageError(
            f"a base rate of {', '.join(unknown)}",
            expected=f"tasks of this model: {', '.join(tasks)}",
            fix="name its tasks, as in buy=0.01,cart=0.03",
        )
    return given
