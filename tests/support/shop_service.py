"""A service with the shop of `lifelong try`, at an address of its own, for tests in a browser."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.cli.try_ import BASE_RATE
from lifelong.online.ingestion.files import ingest
from lifelong.online.serving.app import create_app
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.store.opening import open_store

SHOP = Path(__file__).parents[2] / "lifelong" / "cli" / "shop"
PEOPLE = ("Ada", "Ben", "Carla")


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """The address of an app.

    Args:
        app: it ends with the context.
        options: of uvicorn.
    """
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the service did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def shop_service(folder: Path) -> Iterator[str]:
    """The address of a service with the events of `PEOPLE`; the folder is for the log."""
    log = folder / "events.csv"
    head, *rows = gzip.decompress((SHOP / "events.csv.gz").read_bytes()).decode().splitlines()
    log.write_text("\n".join([head, *(row for row in rows if row.split(",")[0] in PEOPLE)]) + "\n")
    artifact = Artifact.open(SHOP / "artifact")
    with closing(open_store("memory://")) as store:
        ingest(artifact, store, log, source="shop")
        with served(create_app(artifact, store, settings=ServiceSettings(base_rate=BASE_RATE))) as address:
            yield address
