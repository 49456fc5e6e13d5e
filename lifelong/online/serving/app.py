"""The service as an ASGI app, and what runs with it.

request -> Measure -> HostGate -> KeyGate -> AddressGate -> Deadline -> BodyLimit -> ShortRoutes
(-> FastAPI) -> route -> Service -> threads -> store
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lifelong.errors import UsageError
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.following import Follower, StreamCollector
from lifelong.online.ingestion.kafka import Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import KafkaAddress
from lifelong.online.opening import AnyArtifact, AnyDataset, as_dataset, checked_store, open_artifact
from lifelong.online.serving.admin import admin
from lifelong.online.serving.bodies import ShortRoutes
from lifelong.online.serving.errors import install
from lifelong.online.serving.explorer import explorer
from lifelong.online.serving.figures import ServiceCollector
from lifelong.online.serving.impressions import ImpressionsLog
from lifelong.online.serving.keys import GivenKeys, KeyRing
from lifelong.online.serving.middleware import AddressGate, BodyLimit, Deadline, HostGate, KeyGate, Measure
from lifelong.online.serving.pages import Report, pages
from lifelong.online.serving.peers import Peers
from lifelong.online.serving.routes import api, busy, operations
from lifelong.online.serving.service import Service
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.serving.sweeper import Sweeper
from lifelong.online.serving.takeovers import Takeovers
from lifelong.online.serving.writer import Writer
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.part import Share
from lifelong.version import __version__


def create_app(
    artifact: AnyArtifact,
    store: MemoryStore,
    *,
    api_keys: GivenKeys | None = None,
    allowed_hosts: Sequence[str] | None = None,
    dataset: AnyDataset | None = None,
    report: Path | str | None = None,
    settings: ServiceSettings | None = None,
    writer: Writer | None = None,
    peers: Peers | None = None,
) -> FastAPI:
    """Build the service around one artifact and one store.

    Args:
        artifact: the model, or its folder.
        store: an opened store of it; it is not closed here, since its owner may continue to use it.
        api_keys: keys; a request to `/v1/` must bring one of them, with the scopes of each if it does not open all
            but the administration (see `lifelong.online.serving.keys`), or a `KeyFile`; None lets all in.
        allowed_hosts: names of the service in the `Host` header, next to localhost and any address; None for any name,
            which keeps no web page out that lets its own name point here.
        dataset: where explanations look up past events, with the store's log; or its folder.
        report: folder of `lifelong compare`, whose page is shown at `/report`; it may name users, and a browser that
            follows a link sends no key, so not together with `api_keys`.
        settings: limits and threads.
        writer: the process that owns the store and folds events in, as `lifelong serve` starts it for a store on disk;
            None where this process does both.
        peers: the nodes that have the other shards, for a store that has some.

    Raises:
        StoreForeignError: another artifact wrote the store.
        UsageError: users are to be forgotten after a time, and the artifact's events have no times; or an argument is
            something else than it should be.
    """
    artifact, store, settings = open_artifact(artifact), checked_store(store), _checked_settings(settings)
    dataset = None if dataset is None else as_dataset(dataset)
    shown = None if report is None else _report(report, keys=api_keys is not None)
    service = Service(artifact, store, settings=settings, dataset=dataset, writer=writer)
    app = FastAPI(
        title="lifelong",
        version=__version__,
        summary="Scores from one small memory per user, kept up to date event by event.",
        lifespan=_lifespan,
        # Made in a thread: see `pages`.
        openapi_url=None,
        # What generated clients call their methods: `score`, `get_top`.
        generate_unique_id_function=lambda route: route.name.removeprefix("post_"),
        # It would send a client to whatever name its request was for.
        redirect_slashes=False,
        # Its spans hold addresses and texts of errors, which name users; earlier releases have none.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _attach(app, service, shown)
    app.state.peers = peers
    routers = (busy, admin, api, explorer, operations, pages)
    app.state.routes = [route for router in routers for route in router.routes]
    for router in routers:
        app.include_router(router)
    install(app)
    app.add_middleware(ShortRoutes, routes=busy.routes)
    _guard(app, settings, api_keys)
    app.add_middleware(HostGate, hosts=allowed_hosts, origins=api_keys is None)
    app.add_middleware(Measure, metrics=service.metrics, users=settings.log_users)
    _describe(app, service, keys=api_keys is not None)
    return app


def _attach(app: FastAPI, service: Service, report: Report | None) -> None:
    """Put what runs with the app, and what its endpoints read, into its state."""
    app.state.service, app.state.takeovers = service, Takeovers(service)
    app.state.impressions, app.state.report = _impressions_log(service), report
    service.metrics.add(ServiceCollector(service, app.state.takeovers))
    if (together := service.metrics.together) is not None:
        # At once: a switch waits until the figures of all workers name the new artifact.
        service.on_switch.append(together.wake)
    keepers = [
        together,
        service.health,
        app.state.impressions,
        app.state.takeovers,
        Sweeper(service),
    ]
    app.state.keepers = [keeper for keeper in keepers if keeper is not None]


def _report(folder: Path | str, *, keys: bool) -> Report:
    if keys:
        raise UsageError(
            "a report next to API keys",
            expected="one of the two: the report may name users, and a browser that follows a link sends no key",
            fix=f"leave the report out, and open {Path(folder) / 'index.html'}",
        )
    return Report.read(Path(folder))


def _checked_settings(settings: ServiceSettings | None) -> ServiceSettings:
    """The settings that were given, or the usual ones."""
    if settings is None:
        return ServiceSettings()
    if not isinstance(settings, ServiceSettings):
        problem = f"settings of type {type(settings).__name__}"
        raise UsageError(problem, expected="ServiceSettings", fix="settings=ServiceSettings(max_body=1_000_000)")
    return settings


def follow(app: FastAPI, address: KafkaAddress, settings: StreamSettings, letters: FileLetters | None) -> None:
    """Fold the events of a topic in, too, while the app runs.

    Args:
        app: from `create_app`, not running.
        address: of the topic.
        settings: how it is followed.
        letters: where messages go that are no events.

    Raises:
        UsageError: a node would forget inactive users by itself.
    """
    service: Service = app.state.service
    schema = service.artifact.config.dataset_schema
    stream = Stream(address, service.store, service.apply, schema, settings=settings, letters=letters)
    if settings.share is not None:
        _write_through(service, stream, settings.share)
    follower = Follower(stream)
    service.metrics.add(StreamCollector(stream.report, lambda: follower.up))
    if letters is not None:
        # Users who are forgotten go from there too.
        service.on_forget["dead_letters"] = letters.forget
    app.state.keepers.append(follower)


def _write_through(service: Service, stream: Stream, share: Share) -> None:
    """Let a node's events and erasures go through its topic, so that a standby has them, too."""
    from lifelong.online.serving.topic_writes import TopicWrites

    if service.settings.forget_after is not None:
        raise UsageError(
            "forget_after on a node of several: each process would forget a user at another moment",
            expected="erasures that come through the topic",
            fix="leave it out, and erase users by DELETE /v1/admin/users/USER",
        )
    service.topic, service.probe = TopicWrites(stream, share), share.user()
    service.writes.fold_parts = service.topic.fold
    stream.on_erased.append(service.erased)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run what works next to the service; at the end the last one that was started ends first."""
    with contextlib.ExitStack() as running:
        # First in and last out: what the others still do at their end needs its threads.
        running.callback(app.state.service.close)
        for keeper in app.state.keepers:
            keeper.start()
            running.callback(keeper.close)
        yield
        if app.state.service.writer is not None:
            # What ends now waits for it.
            app.state.service.writer.end_soon()


def _impressions_log(service: Service) -> ImpressionsLog | None:
    if service.settings.impressions_log is None:
        return None

    def count(outcome: str, candidates: int) -> None:
        service.metrics.impressions.labels(outcome).inc(candidates)

    log = ImpressionsLog(service.settings.impressions_log, count=count)
    service.on_answers.append(log.offer)
    service.on_forget["impressions"] = log.forget
    service.on_export.append(log.of)
    return log


def _guard(app: FastAPI, settings: ServiceSettings, api_keys: GivenKeys | None) -> None:
    """Check keys, time and sizes before a request reaches its route; see `create_app`."""
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=settings.max_body, together=settings.max_bodies)
    app.add_middleware(Deadline, seconds=settings.timeout)
    app.add_middleware(AddressGate)
    if api_keys is not None:
        app.add_middleware(KeyGate, keys=KeyRing(api_keys))


def _describe(app: FastAPI, service: Service, *, keys: bool) -> None:
    """Make the OpenAPI document say what the artifact takes that is served: its fields, and the key."""
    generate = app.openapi

    def clear() -> None:
        app.openapi_schema = None

    service.on_switch.append(clear)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schema, bodies = service.artifact.config.dataset_schema, document["components"]["schemas"]
            _name_fields(bodies["EventBody"]["properties"]["fields"], schema.item_fields[1:])
            for model in ("CandidateBody", "ItemBody"):
                _name_fields(bodies[model]["properties"]["fields"], service.online_items.fields)
            for model in ("ScoreRequestBody", "ExplainBody"):
                _name_fields(bodies[model]["properties"]["profile"], schema.user_fields)
            if keys:
                document["components"]["securitySchemes"] = {
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
                }
                _secure(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _name_fields(schema: dict[str, Any], names: Sequence[str]) -> None:
    """Allow only this model's fields as keys."""
    for variant in (schema, *schema.get("anyOf", ())):
        if variant.get("type") == "object":
            variant.update({"propertyNames": {"enum": list(names)}} if names else {"maxProperties": 0})


def _secure(document: dict[str, Any]) -> None:
    """Mark the endpoints that want a key."""
    for path, operations_ in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations_.values():
                operation["security"] = [{"key": []}]
