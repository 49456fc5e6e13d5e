"""The events of a prepared dataset, folded one by one through an artifact's write graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.events import gap_numbers
from lifelong.errors import MismatchError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.memory.runtime import Runtime
    from lifelong.memory.state import States

IntArray = npt.NDArray[np.int64]


class HistoryFold:
    """Folds users of a dataset.

    Args:
        artifact: whose memories are made.
        runtime: its graphs, and the codec that rounds after every event.
        dataset: with the fields and vocabularies of the artifact's training.

    Raises:
        MismatchError: it has others.
    """

    def __init__(self, artifact: Artifact, runtime: Runtime, dataset: Dataset) -> None:
        check_fits(artifact, dataset)
        self.runtime, self.dataset, self.schema = runtime, dataset, dataset.schema
        self.first_U = np.asarray(dataset.histories.offset_U, np.int64)[:-1]

    def find(self, users: Sequence[str]) -> IntArray:
        """Indices of users, -1 where one is not in the dataset."""
        return self.dataset.users.find(users)

    def count(self, user: str) -> int:
        """How many events of a user the dataset holds, 0 of one who is not in it."""
        index = int(self.find([user])[0])
        place = self.dataset.histories.of(index) if index >= 0 else slice(0, 0)
        return place.stop - place.start

    def event(self, user: str, position: int) -> tuple[str, int]:
        """Item and time of one of a user's events, the first one at 0."""
        at = int(self.first_U[int(self.find([user])[0])]) + position
        histories = self.dataset.histories
        return self.dataset.catalogue.id_of(int(histories.row_N[at])) or "", int(histories.time_N[at])

    def fold(self, user_B: IntArray, count_B: IntArray) -> States:
        """Memories of users after so many of their events."""
        order = np.argsort(-count_B, kind="stable")
        states = self.runtime.empty(len(user_B))
        for step, active in _steps(count_B[order]):
            place_B = order[:active]
            event_B = self.first_U[user_B[place_B]] + step
            number_BF, time_B = self._numbers(event_B, states.last_time_B[place_B])
            states.put(place_B, self.runtime.write(states.take(place_B), number_BF, time_B))
        return states

    def _numbers(self, event_B: IntArray, previous_B: IntArray) -> tuple[IntArray, IntArray]:
        """Numbers of `schema.history_fields`, and times."""
        histories = self.dataset.histories
        time_B = np.asarray(histories.time_N[event_B], np.int64)
        columns = [np.asarray(self.dataset.catalogue.number_VF[histories.row_N[event_B]], np.int64)]
        if histories.event_type_N is not None and self.schema.event_types:
            columns.append(np.asarray(histories.event_type_N[event_B], np.int64)[:, None])
        if "gap" in self.schema.event_fields:
            columns.append(gap_numbers(time_B, previous_B)[:, None])
        return np.concatenate(columns, axis=1), time_B


def counts_until(dataset: Dataset, until: int | None) -> IntArray:
    """For each user the number of events with an earlier time, of all if None."""
    histories = dataset.histories
    offset_U = np.asarray(histories.offset_U, np.int64)
    if until is None:
        return offset_U[1:] - offset_U[:-1]
    every = np.arange(histories.num_users)
    return histories.positions(every, np.full(len(every), until, np.int64))


def check_fits(artifact: Artifact, dataset: Dataset) -> None:
    """Refuse a dataset whose numbers mean something else than the model's.

    Raises:
        MismatchError: other fields, or other values in a vocabulary.
    """
    fix = "give the dataset of the training, or one prepared with its vocabularies"
    if dataset.schema != artifact.config.dataset_schema:
        raise MismatchError(
            "this dataset has other fields than the model", expected=str(artifact.config.dataset_schema), fix=fix
        )
    pairs = [(name, mine, dataset.vocabularies[name]) for name, mine in artifact.vocabularies.items()]
    if artifact.event_types is not None and dataset.event_types is not None:
        pairs.append(("event_type", artifact.event_types, dataset.event_types))
    for name, mine, theirs in pairs:
        if mine.content_hash() != theirs.content_hash():
            raise MismatchError(
                f"the numbers of the field {name!r} stand for other values in this dataset",
                expected="the vocabulary of the training",
                fix=fix,
            )


def _steps(count_B: IntArray) -> Iterator[tuple[int, int]]:
    """(step, number of users who have such an event), users sorted by falling counts."""
    for step in range(int(count_B[0]) if len(count_B) else 0):
        yield step, int(np.searchsorted(-count_B, -step, side="left"))
