"""`lifelong serve`: the HTTP service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.options import ArtifactPath, BaseRate, Late, StoreUrl, base_rate_of, pairs
from lifelong.cli.streaming import Column, DeadLetter, OnBad, OnGap, open_letters
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError, require

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lifelong.memory.kafka import StreamSettings
    from lifelong.memory.kafka_client import KafkaAddress
    from lifelong.serving.keys import Keys
    from lifelong.serving.logs import LogFormat
    from lifelong.serving.service import ServiceSettings


def serve(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with one key a line, and its scopes behind it.")
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option("--admin-key-file", help="File with one key a line, for /v1/admin/ and all else.")
    ] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let other machines in without a key.")] = False,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, help="Requests a second that one caller may make.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds until a request is answered.")] = 30.0,
    log: Annotated[
        Literal["text", "json"], typer.Option("--log", help="Form of the log; json has a line for each request.")
    ] = "text",
    log_users: Annotated[bool, typer.Option("--log-users", help="Let the log name users.")] = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="DATA", help="Dataset for explanations.")] = None,
    late: Annotated[
        Late, typer.Option("--late", help="What happens to an event older than the user's last.")
    ] = "apply",
    base_rate: BaseRate = None,
    place: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Follow a topic too: kafka://host:port,host:port/topic?group=NAME."),
    ] = None,
    column: Column = [],  # noqa: B006
    on_bad: OnBad = "stop",
    dead_letter: DeadLetter = None,
    on_gap: OnGap = "stop",
    shadow: Annotated[
        Path | None, typer.Option("--shadow", metavar="ARTIFACT", help="Score with this one too, for comparison only.")
    ] = None,
    impressions_log: Annotated[
        Path | None,
        typer.Option("--impressions-log", metavar="DIR", help="Write every scored request there, as parquet."),
    ] = None,
    forget_after: Annotated[
        float | None, typer.Option("--forget-after", metavar="DAYS", help="Forget users so long without an event.")
    ] = None,
    keep_events: Annotated[
        float | None, typer.Option("--keep-events", metavar="DAYS", help="Take older events out of the event log.")
    ] = None,
) -> Reply:
    """Serve scores and take events over HTTP, and from a topic if one is named, until it is stopped."""
    from lifelong.memory.redis_client import without_password
    from lifelong.serving.keys import check_exposure, read_keys
    from lifelong.serving.run import check_workers, run, run_workers

    check_workers(workers, store)
    check_exposure(host, keys=api_key_file is not None, open_to_all=no_keys)
    keys = None if api_key_file is None else read_keys(api_key_file)
    admin_keys = None if admin_key_file is None else read_keys(admin_key_file)
    require("fastapi", extra="serve", purpose="serving")
    from lifelong.serving.service import ServiceSettings

    following = None if place is None else _following(place, column, on_bad, on_gap, dead_letter)
    settings = ServiceSettings(
        late=late,
        base_rate=base_rate_of(base_rate),
        forget_after=forget_after,
        keep_events=keep_events,
        impressions_log=impressions_log,
        timeout=timeout,
        rate=rate,
        log_users=log_users,
    )
    make_app = partial(_open_app, artifact, store, keys, admin_keys, data, shadow, settings, following, log)
    shown = {"store": without_password(store), "keys": keys is not None}

    def ready(artifact_id: str, address: str) -> None:
        _announce(terminal, {"address": address, "artifact": artifact_id, **shown})

    with make_app() as app:
        # Where there are more workers, this one only finds out what is wrong with the artifact or the store.
        served = app.state.service.artifact
        if served.path.resolve() != artifact.resolve():
            terminal.say(f"The store was switched to {served.path}: that artifact is served.")
        announce = partial(ready, served.id)
        if workers == 1:
            run(app, host=host, port=port, ready=announce)
    if workers > 1:
        run_workers(make_app, workers=workers, host=host, port=port, ready=announce)
    return Reply(None, ["Stopped; every accepted event is in the store."])


@dataclass(frozen=True, slots=True)
class _Following:
    """A topic that is followed, and how."""

    address: KafkaAddress
    settings: StreamSettings
    dead_letter: str | None


def _following(place: str, column: list[str], on_bad: str, on_gap: str, dead_letter: str | None) -> _Following:
    """The topic that a URL names.

    Raises:
        UsageError: it names none.
    """
    from lifelong.memory.kafka import StreamSettings
    from lifelong.memory.kafka_client import EXPECTED, is_kafka, parse

    if not is_kafka(place):
        raise UsageError(f"--from {place}", expected=EXPECTED, fix="fill the store from files with `lifelong ingest`")
    columns = pairs(column, option="--column")
    return _Following(parse(place), StreamSettings(None, columns, on_bad, on_gap), dead_letter)


@contextlib.contextmanager
def _open_app(
    artifact: Path,
    store: str,
    keys: Keys | None,
    admin_keys: Keys | None,
    data: Path | None,
    shadow: Path | None,
    settings: ServiceSettings,
    following: _Following | None,
    log: LogFormat,
) -> Iterator[FastAPI]:
    """The app of one process, on a store that is open as long."""
    from lifelong.artifact.folder import Artifact
    from lifelong.cli.opening import open_pair
    from lifelong.data.dataset import Dataset
    from lifelong.serving.app import create_app
    from lifelong.serving.logs import log_as

    log_as(log)
    beside = None if shadow is None else Artifact.open(shadow)
    dataset = None if data is None else Dataset(data)
    with (
        open_pair(artifact, store, read_only=False) as (opened, memories),
        open_letters(None if following is None else following.dead_letter) as letters,
    ):
        app = create_app(
            opened,
            memories,
            api_keys=keys,
            admin_keys=None if admin_keys is None else list(admin_keys),
            dataset=dataset,
            shadow=beside,
            settings=settings,
        )
        if following is not None:
            app.state.service.follow(following.address, following.settings, letters)
        yield app


def _announce(terminal: Terminal, document: dict[str, Any]) -> None:
    terminal.emit(document)
    address = document["address"]
    terminal.say(f"Serving {document['artifact'][:12]} from {document['store']} at {address}  (Ctrl-C stops)")
    key = " -H 'X-API-Key: KEY'" if document["keys"] else ""
    body = """'{"user": "U", "items": ["I1", "I2"]}'"""
    terminal.say(f"Try: curl{key} -H 'Content-Type: application/json' -d {body} {address}/v1/score")
