"""Tasks from ratings: what `--tasks` may ask for where a log has ratings.

    liked=rating>=4      one task: is the rating at least 4
    rating               a task for every step of the scale, for stars `rating_2` to `rating_5`: is it at least so much

All steps together make the graded rating: the lowest value plus what each step adds (`Schema.grades`). Their
probabilities give its expectation.

Source: Li and Lin, "Ordinal Regression by Extended Binary Classification", NIPS 2006; their extended examples are tasks
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lifelong.errors import ConfigError, UsageError
from lifelong.offline.data.grades import RATING, grade_tasks
from lifelong.offline.preparation.engine import count, kth_smallest
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.offline.preparation.sources import RawLog

MOST_GRADES = 20
"""Values of a rating that may have a task each."""
_LEAST = re.compile(rf"\s*([^\s=<>]+)\s*=\s*{RATING}\s*>=\s*(\S+)\s*")
_TAKEN = {"user", "item", "time", "sequence", "split"}
"""Names of columns; the table engine ignores upper and lower case."""


def names_rating(task: str) -> bool:
    """Whether an entry of `--tasks` asks for labels from ratings."""
    return task.strip() == RATING or ">=" in task


def label_ratings(log: RawLog, settings: PrepareSettings) -> PrepareSettings:
    """Label a log by the tasks that ask for ratings: every rated row becomes an impression, and stays an event.

    Args:
        log: opened; it is changed.
        settings: their tasks are read.

    Returns:
        Settings without those tasks, which now belong to the log.

    Raises:
        ConfigError: a task is not of the form `NAME=rating>=NUMBER`; names all of them.
        UsageError: the log has no ratings or other labels, or they do not fit the tasks.
    """
    wanted = [task for task in settings.tasks or () if names_rating(task)]
    if not wanted or (log.ratings is None and log.event_types and not any(">=" in task for task in wanted)):
        return settings
    assert settings.tasks is not None
    _check_log(log, settings, [task for task in settings.tasks if task not in wanted])
    ratings: Any = log.ratings
    found = _seen(ratings, settings).group_by("rating").aggregate(rows=lambda table: table.count())
    found = found.to_pyarrow().to_pylist()
    number_of = {float(row["rating"]): int(row["rows"]) for row in found if row["rating"] is not None}
    least_of, grades = _thresholds(wanted, sorted(number_of))
    columns = {name: (ratings["rating"] >= least).cast("float64") for name, least in least_of.items()}
    log.impressions = ratings.select("user", "item", "time", "sequence", **columns)
    log.tasks, log.grades, log.protocol = tuple(least_of), grades, "impressions"
    log.record["ratings"] = {f"{value:g}": number_of[value] for value in sorted(number_of)}
    log.record["rating_tasks"] = {name: f"rating>={least:g}" for name, least in least_of.items()}
    return settings.model_copy(update={"tasks": None})


def _seen(ratings: Any, settings: PrepareSettings) -> Any:
    """The ratings that are not put aside: those of the vault make no task."""
    if not settings.vault:
        return ratings
    cut = kth_smallest(ratings["time"], int((1 - settings.vault) * count(ratings)))
    return ratings.filter(ratings["time"] < cut)


def _check_log(log: RawLog, settings: PrepareSettings, others: Sequence[str]) -> None:
    """Check that ratings can label the log."""
    if log.ratings is None:
        raise UsageError(
            f"tasks of ratings, and {log.name} holds none",
            expected="a log with ratings: amazon, movielens, or table with `rating`",
            fix="leave out the tasks, or name the column of ratings",
        )
    if others:
        raise UsageError(
            f"tasks of ratings together with {', '.join(others)}",
            expected="either ratings, which are logged labels, or types of events",
            fix="leave one kind out",
        )
    if log.impressions is not None:
        raise UsageError(
            "a threshold or labels together with tasks of ratings",
            expected="one of the two",
            fix="leave out the threshold",
        )
    if settings.protocol not in (None, "impressions"):
        raise UsageError(
            f"tasks of ratings with the protocol {settings.protocol!r}, which samples its labels",
            expected="impressions",
            fix="leave out --protocol",
        )


def _thresholds(wanted: Sequence[str], values: Sequence[float]) -> tuple[Mapping[str, float], tuple[float, ...]]:
    """Name of a task -> the smallest rating for which it is 1; and the values of the rating, if all steps are tasks."""
    least_of, problems, grades = dict[str, float](), list[str](), tuple[float, ...]()
    for task in wanted:
        steps: Mapping[str, Any] = {}
        if task.strip() == RATING:
            grades = _check_grades(values)
            steps = dict(zip(grade_tasks(grades), grades[1:], strict=True))
        elif match := _LEAST.fullmatch(task):
            steps = {match[1]: _number(match[2])}
        if not steps or any(math.isnan(least) for least in steps.values()):
            problems.append(f"tasks: {task!r} is not {RATING}, nor of the form NAME={RATING}>=NUMBER")
        taken = _TAKEN | {name.lower() for name in least_of}
        problems += [f"tasks: the name {name!r} is taken" for name in steps if name.lower() in taken]
        least_of |= steps
    if problems:
        raise ConfigError(problems, fix="such as --tasks 'liked=rating>=4,rating'")
    for name, least in least_of.items():
        if not values or not values[0] < least <= values[-1]:
            raise UsageError(
                f"the task {name} is {RATING}>={least:g}, and the ratings are {', '.join(f'{v:g}' for v in values)}",
                expected="a value that some ratings reach and others do not",
                fix="choose a threshold between these ratings",
            )
    return least_of, grades


def _check_grades(values: Sequence[float]) -> tuple[float, ...]:
    if not 2 <= len(values) <= MOST_GRADES:
        raise UsageError(
            f"the rating has {len(values)} values",
            expected=f"2 to {MOST_GRADES}, for one task per step",
            fix="name the steps that matter: --tasks liked=rating>=4",
        )
    return tuple(values)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
