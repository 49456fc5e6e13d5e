"""An artifact with periods 1, 2, 4, stores, and a client that calls the app without a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.memory.store import open_store
from lifelong.serving.app import create_app
from lifelong.testing.datasets import tiny_dataset


class Client:
    """Calls an ASGI app; bodies are JSON."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def run(self, work: Callable[[httpx.AsyncClient], Any]) -> Any:
        async def inside() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                return await work(http)

        return asyncio.run(inside())

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.run(lambda http: http.request(method, path, **options))

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.request("PUT", path, json=body)


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    """HPMN with periods 1, 2, 4 on `tiny_dataset`, untrained; `tests/assets/make_tiny_artifact.py` wrote it."""
    return Artifact.open(Path(__file__).parents[1] / "assets" / "tiny_artifact")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def store() -> Iterator[Any]:
    opened = open_store("memory://")
    yield opened
    opened.close()


@pytest.fixture
def empty_store() -> Iterator[Any]:
    opened = open_store("memory://")
    yield opened
    opened.close()


@pytest.fixture
def make_client(artifact) -> Iterator[Callable[..., Client]]:
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
    made = create_app(artifact, store)
    yield made
    made.state.service.close()


@pytest.fixture
def client(app) -> Client:
    return Client(app)


@pytest.fixture(params=[1, 2], ids=["one database", "two shards"])
def durable_client(request, artifact, tmp_path) -> Callable[[], contextlib.AbstractContextManager[Client]]:
    """Opens one and the same store on disk anew, and closes it."""

    @contextlib.contextmanager
    def opened() -> Iterator[Client]:
        store = open_store(f"rocksdb://{tmp_path}/store?shards={request.param}")
        app = create_app(artifact, store)
        try:
            yield Client(app)
        finally:
            app.state.service.close()
            store.close()

    return opened
