"""What the page asks next to scores and events: users, histories, counters, items. Each answer is bounded."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lifelong.online.memory.event import MAX_ID
from lifelong.online.scoring.catalogue_view import FoundItems, TopItems, find_items, top_items
from lifelong.online.scoring.user_view import FoundUsers, MemoryCells, Timeline, cells_of, find_users, timeline
from lifelong.online.serving.bodies import Id, JsonRoute, Time, sent
from lifelong.online.serving.errors import DOCUMENTED
from lifelong.online.serving.replies import ModelReply
from lifelong.online.serving.routes import Served, User

MOST_EVENTS = 20_000
"""Events of one history: many times what a drawing has pixels for, and a quarter of a second of a reader."""
MOST_LISTED = 200
_NAMED_TYPES = 200
"""Event types that are named."""

explorer: APIRouter = APIRouter(prefix="/v1", responses=DOCUMENTED, tags=["explorer"], route_class=JsonRoute)

Text = Annotated[str, Query(max_length=MAX_ID, description="what the id holds; upper and lower case alike")]

Limit = Annotated[int, Query(ge=1, le=MOST_LISTED, description="how many are listed")]


@explorer.get("/model", summary="What the served model reads")
async def get_model(request: Request, service: Served) -> ModelReply:
    """Its fields, event types and tasks."""
    artifact, settings = service.artifact, service.settings
    schema, types = artifact.config.dataset_schema, artifact.event_types
    named = [] if types is None else types.index.search("", _NAMED_TYPES)
    return ModelReply(
        artifact=artifact.id,
        model=artifact.config.model,
        title=artifact.config.title,
        item_fields=list(schema.item_fields[1:]),
        number_fields=list(schema.number_fields),
        user_fields=list(schema.user_fields),
        event_types=named,
        tasks=list(schema.tasks),
        time_unit=schema.time_unit,
        items=len(artifact.catalogue.ids),
        event_log=settings.event_log,
        report=request.app.state.report is not None,
    )


@explorer.get("/users", summary="Find users", response_model=FoundUsers)
async def get_users(
    service: Served,
    q: Text = "",
    limit: Limit = 20,
) -> Response:
    """By a part of the id among the first memories of the store and the users of the latest events; by the whole id."""
    # Copied: events come while a thread reads it.
    recent = list(reversed(tuple(service.recent)))
    return await sent(service, lambda scorer: find_users(scorer, q, most=limit, recent=recent))


@explorer.get("/users/{user:text}/history", summary="A user's latest events, in columns", response_model=Timeline)
async def get_history(
    user: User,
    service: Served,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS, description="how many of the latest events")] = 10_000,
) -> Response:
    """From the event log, a dataset or the recent history, as far as they are known."""
    return await sent(service, lambda scorer: timeline(scorer, user, last=limit, dataset=service.dataset))


@explorer.get(
    "/users/{user:text}/cells",
    summary="What a user's memory counts",
    response_model=MemoryCells,
)
async def get_cells(user: User, service: Served) -> Response:
    """The counters of each item field; none for a model without counters."""
    return await sent(service, lambda scorer: cells_of(scorer, user))


@explorer.get(
    "/users/{user:text}/top",
    summary="A user's best items of the catalogue",
    response_model=TopItems,
)
async def get_top(
    user: User,
    service: Served,
    limit: Limit = 20,
    time: Annotated[Time | None, Query(description="moment of the request; now if absent")] = None,
    after: Annotated[
        Id | None, Query(description="as if the user had met this item just now; nothing is stored")
    ] = None,
) -> Response:
    """All items of a small catalogue are scored, the first ones of a large one."""
    return await sent(service, lambda scorer: top_items(scorer, user, most=limit, time=time, after=after))


@explorer.get("/catalogue", summary="Find items", response_model=FoundItems)
async def get_catalogue(service: Served, q: Text = "", limit: Limit = 20) -> Response:
    """By a part of the id."""
    return await sent(service, lambda scorer: find_items(scorer, q, most=limit))
