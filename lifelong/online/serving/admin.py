"""Endpoints for the operator, which need an admin key: artifacts that take over, and users who are forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from fastapi import APIRouter, Body, Depends, Request
from fastapi import Path as PathPart
from fastapi.responses import Response
from pydantic import ConfigDict, Discriminator, Field, Tag

from lifelong.online.serving.bodies import Id, JsonRoute, StrictBody, encoded_list, has_key, in_pieces
from lifelong.online.serving.errors import DOCUMENTED
from lifelong.online.serving.replies import ErrorReply, ForgottenUser
from lifelong.online.serving.routes import Served, User
from lifelong.online.serving.takeovers import ArtifactStates, Takeovers

_REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorReply, "description": "cannot be done in the present state; nothing was changed"}
}
admin: APIRouter = APIRouter(
    prefix="/v1/admin", responses=DOCUMENTED | _REFUSED, tags=["administration"], route_class=JsonRoute
)
Name = Annotated[str, PathPart(min_length=1, max_length=64, description="id of an artifact, or its first characters")]


async def _takeovers(request: Request) -> Takeovers:
    takeovers: Takeovers = request.app.state.takeovers
    return takeovers


Asked = Annotated[Takeovers, Depends(_takeovers)]
Folder = Annotated[str, Field(min_length=1, max_length=4096)]


class ArtifactBody(StrictBody):
    """An artifact to build memories for, next to those of the others."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"path": "/models/new"}]})

    path: Folder = Field(description="its folder, on the machine of the service")
    data: Folder | None = Field(
        None, description="a dataset with each user's first events, if the event log lacks them"
    )
    codec: Literal["fp32", "fp16", "int8"] | None = Field(
        None, description="codec of its memories; the artifact's own by default"
    )


class SwitchToBody(StrictBody):
    """The artifact to serve."""

    artifact: Id = Field(description="its id, or the first characters of it")


class SwitchBackBody(StrictBody):
    """The artifact that was served before."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"back": True}]})

    back: Literal[True]


SwitchBody = Annotated[
    Annotated[SwitchToBody, Tag("one")] | Annotated[SwitchBackBody, Tag("many")],
    Discriminator(lambda value: "many" if has_key(value, "back") else "one"),
]


@admin.get("/artifacts", summary="Artifacts that the store holds memories of")
async def get_artifacts(takeovers: Asked) -> ArtifactStates:
    """Which one is served, which ones could be, and how far a build is."""
    return await takeovers.look()


@admin.post("/artifacts", summary="Build the memories of a new artifact", status_code=202)
async def add_artifact(body: ArtifactBody, takeovers: Asked) -> ArtifactStates:
    """They are built next to the others while requests and events continue; the list says how far the build is."""
    data = None if body.data is None else Path(body.data)
    return await takeovers.add(Path(body.path), data, body.codec)


@admin.post("/switch", summary="Serve another artifact")
async def post_switch(body: Annotated[SwitchBody, Body()], takeovers: Asked) -> ArtifactStates:
    """At once and as a whole; the one before is kept up to date, so that `back` can return to it."""
    to = body.artifact if isinstance(body, SwitchToBody) else None
    return await takeovers.switch(to)


@admin.delete("/artifacts/{artifact}", summary="Drop the memories of an artifact")
async def delete_artifact(artifact: Name, takeovers: Asked) -> ArtifactStates:
    """Of an artifact that is not served."""
    return await takeovers.drop(artifact)


@admin.get("/users/{user:text}", summary="All that is kept of a user", response_model=dict[str, Any])
async def get_user(user: User, service: Served) -> Response:
    """The memory of each artifact, number by number, the event log, the event ids, and logged impressions of a user."""

    def text(export: dict[str, Any]) -> bytes:
        lists = {name: encoded_list(export[name]) for name in ("events", "impressions")}
        return msgspec.json.encode({**export, **lists})

    return in_pieces(await service.export(user, text))


@admin.delete("/users/{user:text}", summary="Forget a user")
async def delete_user(user: User, service: Served) -> ForgottenUser:
    """Erases all of it, and rewrites the store's files, so that nothing of the user is left in them."""
    return await service.forget(user)
