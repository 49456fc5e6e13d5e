"""The endpoints: each turns a body into one call of the service, and its result into a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.convertors import StringConvertor, register_url_convertor

from lifelong.errors import StoreCorruptError
from lifelong.online.background import running
from lifelong.online.memory.event import MAX_ID
from lifelong.online.scoring.answer import Answer, Score, ScoreRequest
from lifelong.online.scoring.explanation import Explanation
from lifelong.online.scoring.features import FeatureTable
from lifelong.online.serving.bodies import (
    EventsBody,
    ExactRoute,
    ExplainBody,
    Ids,
    ItemsBody,
    JsonRoute,
    Purpose,
    ScoreBody,
    ScoreRequestBody,
    ScoreRequestsBody,
    ShortRoute,
    Time,
    encoded_list,
)
from lifelong.online.serving.errors import DOCUMENTED, error_parts
from lifelong.online.serving.replies import (
    ErasedReply,
    ErrorReply,
    EventsReply,
    FeaturesReply,
    ItemsReply,
    RemovedItemReply,
    ScoreReplies,
    ScoreReply,
    StateReply,
)
from lifelong.online.serving.service import Service, UserMemory


class _Text(StringConvertor):
    """Any text in an address, slashes and line breaks too: ids are up to the client."""

    regex = r"[\s\S]+"


register_url_convertor("text", _Text())


async def _service(request: Request) -> Service:
    # Asynchronous though it waits for nothing: a plain function would cost every request a thread.
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]
Item = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="id of the item")]
User = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="id of the user")]

# They get nearly all requests, so they are the first routes that are compared.
busy: APIRouter = APIRouter(prefix="/v1", responses=DOCUMENTED, tags=["service"], route_class=ShortRoute)
api: APIRouter = APIRouter(prefix="/v1", responses=DOCUMENTED, tags=["service"], route_class=JsonRoute)
operations: APIRouter = APIRouter(tags=["operations"], route_class=ExactRoute)


@busy.post("/events", summary="Fold events into the memories", response_model=EventsReply)
async def post_events(body: EventsBody, service: Served) -> bytes:
    """All events of the batch are written in one commit, or none of them."""
    applied = await service.add_events(body.events)
    counts = {name: count for name, count in asdict(applied).items() if name in EventsReply.model_fields}
    return msgspec.json.encode({**counts, "note": _note(counts)})


def _note(counts: dict[str, int]) -> str | None:
    """What a client should know about the outcome, in words."""
    notes = []
    if counts["no_dedup"]:
        notes.append(
            f"{counts['no_dedup']} came without event_id: sent again, they would count twice; send an event_id"
        )
    if counts["refused"]:
        notes.append(f"{counts['refused']} are older than their user's last event and were not folded in")
    if counts["backfilled"]:
        notes.append(
            f"{counts['backfilled']} are from before the moment until which a backfill has filled the store, and were"
            " taken as known"
        )
    if counts["unknown_types"]:
        notes.append(f"{counts['unknown_types']} have an event type that the model has not seen in training")
    return "; ".join(notes) or None


@busy.post("/score", summary="Score candidates of one user, or of many", response_model=ScoreReply | ScoreReplies)
async def post_score(
    body: Annotated[ScoreBody, Body()],
    service: Served,
    purpose: Annotated[
        Purpose, Query(alias="for", description="list: each candidate also has `in_list`, which orders a list")
    ] = None,
) -> bytes:
    """One user with candidates, or a list of such requests; the reply has the same form.

    In a list, a user with a damaged memory gets an error instead of scores; the others get their scores.
    """
    for_list = purpose == "list"
    if isinstance(body, ScoreRequestsBody):
        requests = [_request(entry, for_list=for_list) for entry in body.requests]
        return await service.answer_each(requests, lambda answers: msgspec.json.encode(_many(requests, answers)))
    return await service.answer(_request(body, for_list=for_list), lambda answer: msgspec.json.encode(_one(answer)))


@busy.post("/explain", summary="Explain scores: time scales and past events", response_model=Explanation)
async def post_explain(body: ExplainBody, service: Served) -> bytes:
    """Attention over slots or events for each candidate, and the events behind it if they are known."""
    return await service.explain(_request(body), msgspec.json.encode)


@busy.put("/items", summary="Add items, or change their fields", response_model=ItemsReply)
async def put_items(body: ItemsBody, service: Served) -> bytes:
    """They are durable; later scores and events use the new fields. Fields that are not named keep their value."""
    items: dict[str, dict[str, str | None]] = {}
    for item in body.items:
        # An item may come twice in one body: as in two requests, the later fields win.
        items.setdefault(item.item, {}).update(item.fields)
    return msgspec.json.encode({"stored": await service.put_items(items)})


@api.delete("/items/{item:text}", summary="Take away what was put online of an item")
async def delete_item(item: Item, service: Served) -> RemovedItemReply:
    """It is durable; later scores and events use the catalogue's fields again, or none."""
    return RemovedItemReply(item=item, removed=await service.remove_item(item))


@api.get(
    "/users/{user:text}/memory",
    summary="What is kept of a user",
    responses={404: {"model": ErrorReply, "description": "nothing is kept of this user"}},
)
async def get_memory(user: User, service: Served) -> UserMemory:
    """Size and state of the memory, not its vectors."""
    return await service.memory(user)


@api.get(
    "/users/{user:text}/features",
    summary="What the memory says of a user and candidates, as features",
    response_model=FeaturesReply,
)
async def get_features(
    user: User,
    service: Served,
    items: Annotated[Ids, Query(min_length=1, description="id of a candidate; once for each")],
    time: Annotated[Time | None, Query(description="moment of the request; now if absent")] = None,
) -> Response:
    """Counts, ages, score and read-out of each candidate, equal to those of the offline export."""

    def document(table: FeatureTable) -> bytes:
        rows = encoded_list(table.rows())
        return msgspec.json.encode({"user": user, "items": table.items, "names": table.names, "values": rows})

    return Response(await service.features(user, items, time, document), media_type="application/json")


@api.delete("/users/{user:text}/memory", summary="Erase a user")
async def delete_memory(user: User, service: Served) -> ErasedReply:
    """Erases the memory and the event log of a user; a second call finds nothing and succeeds."""
    return ErasedReply(user=user, erased=await service.erase(user))


@operations.get("/healthz", summary="The process runs", response_model_exclude_none=True)
async def healthz() -> StateReply:
    """Answers 200 as long as the process runs."""
    return StateReply(status="alive")


@operations.get(
    "/readyz",
    summary="Requests can be answered",
    response_model_exclude_none=True,
    responses={
        503: {
            "model": ErrorReply,
            "description": "the store is away or takes no writes, a topic is not followed, or the service stops",
        }
    },
)
async def readyz(service: Served) -> StateReply:
    """Answers 200 while the artifact is loaded, the store answers and takes writes, and a topic is followed."""
    await service.check()
    # Not why: an error may name users, and this needs no key.
    failing = [work.name for work in running() if work.failing is not None]
    model = service.artifact.config.model
    return StateReply(status="ready", artifact=service.artifact.id, model=model, failing=failing or None)


@operations.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
async def metrics(service: Served) -> Response:
    """Counts and latency histograms, of all processes that share the address."""
    # In no queue: it must say what is wrong with a service that has too much to do.
    return Response(await asyncio.to_thread(service.metrics.text), media_type=CONTENT_TYPE_LATEST)


class _Request(ScoreRequest):
    """A request of which the body's model has checked every part."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Nothing is left to check."""


def _request(body: ScoreRequestBody, *, for_list: bool = False) -> ScoreRequest:
    items = [item if isinstance(item, str) else item.item for item in body.items]
    fields = [None if isinstance(item, str) else item.fields for item in body.items]
    return _Request(body.user, items, body.time, fields if any(fields) else None, body.profile, for_list)


def _many(requests: Sequence[ScoreRequest], answers: Sequence[Answer | StoreCorruptError]) -> dict[str, object]:
    """A reply as `ScoreReplies` describes it."""
    named = zip(requests, answers, strict=True)
    return {"results": [_one(of) if isinstance(of, Answer) else _damaged(request.user, of) for request, of in named]}


def _one(answer: Answer) -> dict[str, object]:
    """A reply as `ScoreReply` describes it; making a model of each of a hundred scores takes as long as the scores."""
    # The reason why there is no probability is that of all candidates.
    first = answer.scores[0]
    reply: dict[str, object] = {
        "user": answer.user,
        "known_user": answer.known_user,
        "count": answer.count,
        "artifact": answer.artifact,
        "request_id": answer.request_id,
        "negatives": answer.negatives,
        "reason": first.reason,
    }
    if first.tasks is not None:
        reply["reasons"] = {task: of.reason for task, of in first.tasks.items()}
    reply["scores"] = values = [_value(score) for score in answer.scores]
    if answer.in_list_C is not None:
        for value, in_list in zip(values, answer.in_list_C.tolist(), strict=True):
            value["in_list"] = in_list
    return reply


def _value(score: Score) -> dict[str, object]:
    value: dict[str, object] = {
        "item": score.item,
        "known_item": score.known_item,
        "score": score.score,
        "probability": score.probability,
    }
    if score.tasks is not None:
        value["tasks"] = {task: {"score": of.score, "probability": of.probability} for task, of in score.tasks.items()}
    return value


def _damaged(user: str, error: StoreCorruptError) -> dict[str, object]:
    """A reply as `DamagedReply` describes it."""
    return {"user": user, "error": error_parts(error)}
