"""An untrained HPMN with periods 1, 2, 4, its dataset, and one log as events."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.memory.store import open_store
from lifelong.memory.updater import UserEvent
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    """What `lifelong.testing.artifacts.tiny_artifact` writes for `tiny_dataset`."""
    return Artifact.open(Path(__file__).parents[1] / "assets" / "tiny_artifact")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def store():
    opened = open_store("memory://")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def log(dataset) -> list[UserEvent]:
    """All events of the dataset in the order of time, as clients would send them."""
    histories, events = dataset.histories, []
    for user in range(histories.num_users):
        place = histories.of(user)
        events += [
            UserEvent(
                dataset.users.id_at(user),
                dataset.catalogue.id_of(int(histories.row_N[at])),
                int(histories.time_N[at]),
                dataset.event_types.value_of(int(histories.event_type_N[at])),
            )
            for at in range(place.start, place.stop)
        ]
    return sorted(events, key=lambda event: event.time)
