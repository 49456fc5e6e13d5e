"""`lifelong serve`: the HTTP service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import ArtifactPath, BaseRate, Late, StoreUrl
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import require

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lifelong.serving.service import ServiceSettings


def serve(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    api_key_file: Annotated[Path | None, typer.Option("--api-key-file", help="File with one key a line.")] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DATA", help="Dataset for explanations.")] = None,
    late: Annotated[
        Late, typer.Option("--late", help="What happens to an event older than the user's last.")
    ] = "apply",
    base_rate: BaseRate = None,
) -> Reply:
    """Serve scores and take events over HTTP, until it is stopped."""
    from lifelong.memory.redis_client import without_password
    from lifelong.serving.run import check_workers, read_keys, run, run_workers

    check_workers(workers, store)
    keys = None if api_key_file is None else read_keys(api_key_file)
    require("fastapi", extra="serve", purpose="serving")
    from lifelong.serving.service import ServiceSettings

    make_app = partial(_open_app, artifact, store, keys, data, ServiceSettings(late=late, base_rate=base_rate))
    shown = {"store": without_password(store), "keys": keys is not None}

    def ready(artifact_id: str, address: str) -> None:
        _announce(terminal, {"address": address, "artifact": artifact_id, **shown})

    with make_app() as app:
        # Where there are more workers, this one only finds out what is wrong with the artifact or the store.
        announce = partial(ready, app.state.service.artifact.id)
        if workers == 1:
            run(app, host=host, port=port, ready=announce)
    if workers > 1:
        run_workers(make_app, workers=workers, host=host, port=port, ready=announce)
    return Reply(None, ["Stopped; every accepted event is in the store."])


@contextlib.contextmanager
def _open_app(
    artifact: Path, store: str, keys: list[str] | None, data: Path | None, settings: ServiceSettings
) -> Iterator[FastAPI]:
    """The app of one process, on a store that is open as long."""
    from lifelong.cli.opening import open_pair
    from lifelong.data.dataset import Dataset
    from lifelong.serving.app import create_app

    dataset = None if data is None else Dataset(data)
    with open_pair(artifact, store, read_only=False) as (opened, memories):
        yield create_app(opened, memories, api_keys=keys, dataset=dataset, settings=settings)


def _announce(terminal: Terminal, document: dict[str, Any]) -> None:
    terminal.emit(document)
    address = document["address"]
    terminal.say(f"Serving {document['artifact'][:12]} from {document['store']} at {address}  (Ctrl-C stops)")
    key = " -H 'X-API-Key: KEY'" if document["keys"] else ""
    body = """'{"user": "U", "items": ["I1", "I2"]}'"""
    terminal.say(f"Try: curl{key} -H 'Content-Type: application/json' -d {body} {address}/v1/score")
