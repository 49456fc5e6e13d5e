"""The service as an ASGI app.

request -> Measure -> AccessLog -> KeyGate -> RateLimit -> ScopeGate -> Deadline -> BodyLimit -> route -> Service
        -> threads -> store
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from lifelong import __version__
from lifelong.serving.admin import admin
from lifelong.serving.errors import install
from lifelong.serving.guards import Deadline, RateLimit, ScopeGate
from lifelong.serving.logs import AccessLog
from lifelong.serving.middleware import BodyLimit, KeyGate, Measure
from lifelong.serving.routes import api, busy, operations
from lifelong.serving.service import Service, ServiceSettings
from lifelong.serving.sweeper import Sweeper
from lifelong.serving.takeovers import Takeovers

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.memory.store import MemoryStore


def create_app(
    artifact: Artifact,
    store: MemoryStore,
    *,
    api_keys: Sequence[str] | Mapping[str, frozenset[str]] | None = None,
    admin_keys: Sequence[str] | None = None,
    dataset: Dataset | None = None,
    shadow: Artifact | None = None,
    settings: ServiceSettings | None = None,
) -> FastAPI:
    """Build the service around one artifact and one store.

    Args:
        artifact: the model.
        store: an opened store of it; it is not closed here, since its owner may go on with it.
        api_keys: keys of which a request to `/v1/` must bring one, with the scopes of each if it does not open all
            but the administration (see `lifelong.serving.keys`); None lets every request in.
        admin_keys: keys of which a request to `/v1/admin/` must bring one, and that open all else; None where there are
            `api_keys` and none of them has the scope closes it.
        dataset: where explanations look up past events, beside the store's log.
        shadow: another artifact, which scores the same requests; no client gets its answers.
        settings: limits and threads.

    Raises:
        StoreForeignError: another artifact wrote the store.
        UsageError: users are to be forgotten after a time, and the artifact's events have no times.
    """
    settings = settings or ServiceSettings()
    service = Service(artifact, store, settings=settings, dataset=dataset)
    if shadow is not None:
        service.watch(shadow)
    takeovers, sweeper = Takeovers(service), Sweeper(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        takeovers.start()
        sweeper.start()
        yield
        sweeper.close()
        takeovers.close()
        service.close()

    app = FastAPI(
        title="lifelong",
        version=__version__,
        summary="Scores from one small memory per user, kept up to date event by event.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.takeovers = service, takeovers
    app.include_router(busy)
    app.include_router(admin)
    app.include_router(api)
    app.include_router(operations)
    install(app)
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=settings.max_body)
    app.add_middleware(Deadline, seconds=settings.timeout)
    owners = list(admin_keys or ())
    if isinstance(api_keys, Mapping):
        owners += [key for key, scopes in api_keys.items() if "admin" in scopes]
        app.add_middleware(ScopeGate, keys={**api_keys, **dict.fromkeys(owners, frozenset({"admin"}))})
    if settings.rate is not None:
        app.add_middleware(RateLimit, rate=settings.rate, keyed=api_keys is not None)
    if api_keys is not None or admin_keys is not None:
        app.add_middleware(KeyGate, keys=None if api_keys is None else list(api_keys), admin_keys=owners)
    app.add_middleware(AccessLog, users=settings.log_users)
    app.add_middleware(Measure, metrics=service.metrics)
    _describe(app, service, keys=api_keys is not None or admin_keys is not None)
    return app


def _describe(app: FastAPI, service: Service, *, keys: bool) -> None:
    """Make the OpenAPI document say what the artifact takes that is served: its fields, and the key."""
    generate = app.openapi

    def anew() -> None:
        app.openapi_schema = None

    service.on_switch = anew

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schema, bodies = service.artifact.config.dataset_schema, document["components"]["schemas"]
            _name_fields(bodies["EventBody"]["properties"]["fields"], schema.item_fields[1:])
            for model in ("CandidateBody", "ItemBody"):
                _name_fields(bodies[model]["properties"]["fields"], service.overlay.fields)
            for model in ("OneBody", "ExplainBody"):
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
    for part in (schema, *schema.get("anyOf", ())):
        if part.get("type") == "object":
            part.update({"propertyNames": {"enum": list(names)}} if names else {"maxProperties": 0})


def _secure(document: dict[str, Any]) -> None:
    """Mark the endpoints that want a key."""
    for path, operations_ in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations_.values():
                operation["security"] = [{"key": []}]
