"""From when to when the splits of a dataset go: what a model has seen of time, and what it has not.

Examples are of one moment, so a period is that of the targets; the training period begins with the first event of the
log, since the model has read it as history.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from lifelong.config import Record
from lifelong.dataset.examples import Split
from lifelong.dataset.folder import Dataset

Period = tuple[int, int]
"""First and last time, both included: UTC seconds, or ordinals."""


class Periods(Record):
    """What a training on one dataset reads, None for a split without examples; the test split is not looked at."""

    data_hash: str
    cut_times: tuple[int, ...]
    """Between training, validation and test, as the dataset's protocol has them; none where the split was given."""
    train: Period | None
    validation: Period | None

    @property
    def seen(self) -> dict[str, Period]:
        """What training on the dataset reads: the periods of training and validation."""
        named = {"training": self.train, "validation": self.validation}
        return {name: period for name, period in named.items() if period is not None}


def periods_of(dataset: Dataset) -> Periods:
    """The periods of a dataset; reads the times of the examples of training and validation.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from lifelong.testing.datasets import tiny_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     periods = periods_of(tiny_dataset(Path(folder) / "data"))
    >>> periods.train[1] < periods.cut_times[0] <= periods.validation[0] <= periods.validation[1] < periods.cut_times[1]
    True
    """
    train, histories = period_of(dataset, "train"), dataset.histories
    # A user without events has the offset of the next one, whose event is not hers.
    filled_U = np.flatnonzero(np.diff(histories.offset_U))
    if train is not None and len(filled_U):
        first = int(histories.time_N[histories.offset_U[filled_U]].min())
        train = (min(first, train[0]), train[1])
    return Periods(
        data_hash=dataset.manifest.data_hash,
        cut_times=dataset.manifest.cut_times,
        train=train,
        validation=period_of(dataset, "validation"),
    )


def period_of(dataset: Dataset, split: Split) -> Period | None:
    """First and last time of the targets of a split, None without examples."""
    time_N = dataset.examples(split).time_N
    return (int(time_N.min()), int(time_N.max())) if len(time_N) else None


def overlaps(one: Period, other: Period) -> bool:
    """Whether two periods have a moment in common.

    >>> overlaps((1, 5), (5, 9)), overlaps((1, 4), (5, 9))
    (True, False)
    """
    return one[0] <= other[1] and other[0] <= one[1]


def in_words(period: Period, *, seconds: bool) -> str:
    """A period for people.

    >>> in_words((0, 86_399), seconds=True), in_words((3, 9), seconds=False)
    ('1970-01-01T00:00:00Z to 1970-01-01T23:59:59Z', 'place 3 to 9')
    """
    try:
        if seconds:
            return " to ".join(f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}" for time in period)
    except (ValueError, OverflowError, OSError):
        # Beyond the calendar.
        return f"second {period[0]} to {period[1]}"
    return f"place {period[0]} to {period[1]}"
