"""Tasks from ratings: `--tasks liked=rating>=4` where a log has ratings: is the rating at least 4?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.engine import count, kth_smallest
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.offline.preparation.sources import RawLog

_LEAST = re.compile(r"\s*([^\s=<>]+)\s*=\s*rating\s*>=\s*(\S+)\s*")
_TAKEN = {"user", "item", "time", "sequence", "split"}
"""Names of columns; the table engine ignores upper and lower case."""


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
    wanted = [task for task in settings.tasks or () if ">=" in task]
    _check_log(log, settings, [task for task in settings.tasks or () if task not in wanted])
    ratings: Any = log.ratings
    # Thresholds are checked against what is not put aside, or an error would tell of the vault's ratings.
    by_rating = _seen(ratings, settings).group_by("rating").aggregate(rows=lambda table: table.count())
    by_rating = by_rating.to_pyarrow().to_pylist()
    number_of = {float(row["rating"]): int(row["rows"]) for row in by_rating if row["rating"] is not None}
    least_of = _thresholds(wanted, sorted(number_of))
    columns = {name: (ratings["rating"] >= least).cast("float64") for name, least in least_of.items()}
    log.impressions = ratings.select("user", "item", "time", "sequence", **columns)
    log.tasks, log.protocol = tuple(least_of), "impressions"
    log.record["ratings"] = {f"{value:g}": number_of[value] for value in sorted(number_of)}
    log.record["rating_tasks"] = {name: f"rating>={least:g}" for name, least in least_of.items()}
    # They are labels of the log from here on; left in the settings, they would be read as event types.
    return settings.model_copy(update={"tasks": None})


def _seen(ratings: Any, settings: PrepareSettings) -> Any:
    """The ratings that are not put aside: those of the vault make no task."""
    if not settings.vault:
        return ratings
    (cut,) = kth_smallest(ratings["time"], int((1 - settings.vault) * count(ratings)))
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
            "labels together with tasks of ratings",
            expected="one of the two",
            fix="leave out the tasks, or the labels of the mapping",
        )
    if settings.protocol not in (None, "impressions"):
        raise UsageError(
            f"tasks of ratings with the protocol {settings.protocol!r}, which samples its labels",
            expected="impressions",
            fix="leave out protocol",
        )


def _thresholds(wanted: Sequence[str], values: Sequence[float]) -> Mapping[str, float]:
    """Name of a task -> the smallest rating for which it is 1."""
    least_of, problems = dict[str, float](), list[str]()
    for task in wanted:
        match = _LEAST.fullmatch(task)
        if match is None or math.isnan(least := _number(match[2])):
            problems.append(f"tasks: {task!r} is not of the form NAME=rating>=NUMBER")
        # The name becomes a column of the engine, which ignores upper and lower case.
        elif match[1].lower() in _TAKEN | {name.lower() for name in least_of}:
            problems.append(f"tasks: the name {match[1]!r} is taken")
        else:
            least_of[match[1]] = least
    if problems:
        raise ConfigError(problems, fix="such as tasks=liked=rating>=4")
    for name, least in least_of.items():
        if not values or not values[0] < least <= values[-1]:
            raise UsageError(
                f"the task {name} is rating>={least:g}, and the ratings are {', '.join(f'{v:g}' for v in values)}",
                expected="a value that some ratings reach and others do not",
                fix="choose a threshold between these ratings",
            )
    return least_of


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
