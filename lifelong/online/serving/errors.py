"""Errors as HTTP: one JSON shape, `{"error": {"type", "found", "expected", "fix"}}`, whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from lifelong.errors import (
    LifelongError,
    OtherShardError,
    RequestError,
    StoreCorruptError,
    StoreUnavailableError,
    StreamUnavailableError,
    UsageError,
)
from lifelong.online.serving.replies import ErrorReply

logger: logging.Logger = logging.getLogger(__name__)
CLIENT_GONE = 499
"""Status of a request if its client hung up before the answer."""
_LATER = "send it again after the seconds of Retry-After"
DOCS = "GET /docs lists the endpoints and what they take"


class NotFoundError(RequestError):
    """What the address names does not exist."""


class RefusedError(RequestError):
    """What is asked for cannot be done in the present state; nothing was changed."""


class TooLargeError(RequestError):
    """A request is larger than the service accepts; nothing of it was kept."""


class MediaTypeError(RequestError):
    """The body of a request is not said to be JSON."""


class UnauthorizedError(RequestError):
    """The request has no API key, or a wrong one."""


class ForbiddenError(RequestError):
    """The API key does not have the scope of what was asked for."""


class OverloadedError(LifelongError):
    """More is asked of the service than it can do; nothing of the request was kept."""


class DeadlineError(LifelongError):
    """A request took too long; whether events of it were kept is not known."""


# The first that fits counts: a class comes before those that it is derived from.
_STATUS: tuple[tuple[type[LifelongError], int], ...] = (
    (OverloadedError, 503),
    (NotFoundError, 404),
    (RefusedError, 409),
    (TooLargeError, 413),
    (MediaTypeError, 415),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (DeadlineError, 504),
    (RequestError, 422),
    (UsageError, 422),
    (StoreUnavailableError, 503),
    (StreamUnavailableError, 503),
    (OtherShardError, 421),
)

_HEADERS = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
"""Headers that every answer of a status has."""

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorReply, "description": "no API key, or a wrong one"},
    403: {"model": ErrorReply, "description": "an API key of another scope, another host's name, another site's page"},
    413: {"model": ErrorReply, "description": "larger than the service accepts; nothing was kept"},
    415: {"model": ErrorReply, "description": "the body has no Content-Type, or one that is not taken here"},
    421: {"model": ErrorReply, "description": "another node has this user; the header Location says which, if known"},
    422: {"model": ErrorReply, "description": "the body is not valid; nothing was kept"},
    500: {"model": ErrorReply, "description": "a fault of the service"},
    503: {
        "model": ErrorReply,
        "description": "too much to do, the store does not answer, or the service is stopping; see Retry-After",
    },
    504: {"model": ErrorReply, "description": "not answered in time; events with an event_id can be sent again"},
}
"""Error answers that every endpoint can give."""


def error_response(error: LifelongError, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response for an error of this package."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {**_HEADERS.get(status, {}), **(headers or {})}
    return _json(status, type(error).__name__, error.found, error.expected, error.fix, headers=headers)


def error_parts(error: LifelongError) -> dict[str, str]:
    """What a reply says of an error."""
    return _parts(type(error).__name__, error.found, error.expected, error.fix)


def install(app: FastAPI) -> None:
    """Give all errors of an app one shape."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _unexpected)


async def answer_to(request: Request, error: Exception) -> Response:
    """The answer to a request that ended with one of the errors `ANSWERED`."""
    return await next(handler for kind, handler in _HANDLERS.items() if isinstance(error, kind))(request, error)


def _json(
    status: int, kind: str, found: str, expected: str, fix: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": _parts(kind, found, expected, fix)}, status, headers=headers)


def _parts(kind: str, found: str, expected: str, fix: str) -> dict[str, str]:
    return {"type": kind, "found": found, "expected": expected, "fix": fix or DOCS}


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LifelongError)
    response = error_response(error, headers=_elsewhere(request, error))
    # A line for each request that is one too many would make it worse; metrics count them.
    if response.status_code >= 500 and not isinstance(error, OverloadedError):
        # The error itself can name a user; the answer has it, the log must not.
        message = "a stored memory is damaged" if isinstance(error, StoreCorruptError) else str(error)
        logger.error("%s %s: %s", request.method, _route(request), message)
    return response


def _elsewhere(request: Request, error: LifelongError) -> dict[str, str]:
    """Where to send a request about a user of another node."""
    peers = request.app.state.peers
    owner = peers.content().get(error.shard) if peers is not None and isinstance(error, OtherShardError) else None
    if owner is None:
        return {}
    # As it came, with all that is escaped in it.
    path, query = request.scope.get("raw_path") or request.url.path.encode(), request.scope["query_string"]
    return {"location": owner + path.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")}


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    problems = "; ".join(_problem(detail) for detail in details[:5])
    more = f"; and {len(details) - 5} more" if len(details) > 5 else ""
    expected = f"what GET /docs says of {request.method} {_route(request)}"
    return _json(
        422, "ValidationError", problems + more, expected, "correct it and send it again; nothing of it was kept"
    )


def _problem(detail: Mapping[str, Any]) -> str:
    """One problem in words; the value itself may be huge and stays out."""
    tags = {"body", "one", "many", "id", "candidate"}
    path = ".".join(str(step) for step in detail["loc"] if step not in tags)
    context = detail.get("ctx", {})
    if detail["type"] == "json_invalid":
        return f"the body is not JSON: {context.get('error', 'it cannot be parsed')}"
    message = _WORDS.get(detail["type"], "is not valid").format_map({"max_length": "", "min_length": "", **context})
    if "candidate" in detail["loc"] and detail["type"] in _NO_OBJECT:
        message = "should be an item id or an object"
    if detail["type"] == "less_than_equal" and path.endswith("time"):
        message += " (times are UTC seconds, not milliseconds)"
    return f"{path or 'body'}: {message}"


_NO_OBJECT = ("dict_type", "model_type", "model_attributes_type")
_WORDS = {
    **dict.fromkeys(_NO_OBJECT, "should be a JSON object"),
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "should be a text in quotes",
    "string_too_short": "should have at least {min_length} character",
    "string_too_long": "should be text of 1 to {max_length} characters",
    "string_unicode": "is not a text in UTF-8",
    "string_sub_type": "should be a text in quotes",
    "int_type": "should be a whole number, without quotes",
    "int_parsing": "should be a whole number, without quotes",
    "int_from_float": "should be a whole number",
    "int_parsing_size": "is a number that is too large",
    "finite_number": "should be a finite number",
    "greater_than_equal": "should be at least {ge}",
    "less_than_equal": "should be at most {le}",
    "list_type": "should be a list",
    "too_short": "should have at least {min_length} entry",
    "too_long": "should have at most {max_length} entries",
    "no_time": "should be UTC seconds without quotes, or a text of ISO 8601 such as 2025-12-01T00:00:00Z",
    "too_many_keys": "should have at most {most} keys",
    "bool_type": "should be true or false",
    "literal_error": "should be {expected}",
    "none_required": "should be null",
    "union_tag_invalid": "has none of the forms that are known",
    "union_tag_not_found": "has none of the forms that are known",
    "value_error": "is not valid",
}
"""pydantic's kind of problem -> what we say of a value."""


async def _gone(request: Request, error: Exception) -> Response:
    # Nobody reads this; metrics and log do, as nginx has it.
    return Response(status_code=CLIENT_GONE)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ClientDisconnect):
        # What FastAPI makes of it.
        return Response(status_code=CLIENT_GONE)
    address = f"{request.method} {quote(request.scope['path'], safe='/~!$&()*+,;=:@')}"
    headers = error.headers
    if error.status_code == 400:
        # The body could not be decoded; all invalid bodies have one status.
        return _json(422, "ValidationError", f"{address}: {error.detail}", "JSON in UTF-8", DOCS, headers=headers)
    if error.status_code == 404:
        return _json(404, "NotFound", f"there is no {address}", "an address of this service", DOCS, headers=headers)
    if error.status_code == 405:
        allowed = ", ".join(_methods(request)) or "another method"
        return _json(405, "MethodNotAllowed", f"{address} is not served", allowed, DOCS, headers={"allow": allowed})
    if error.status_code == 413:
        return error_response(TooLargeError(str(error.detail), fix="send it in several requests"))
    if error.status_code == 503:
        return error_response(OverloadedError(str(error.detail), expected="fewer at once", fix=_LATER))
    return _json(error.status_code, "HttpError", f"{address}: {error.detail}", "", DOCS, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods of all routes with a request's address: each method has a route of its own."""
    methods = set[str]()
    for route in request.app.state.routes:
        if route.path_regex.match(request.scope["path"]):
            methods |= route.methods
    return sorted(methods)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, _route(request), exc_info=error)
    return _json(500, "Internal", f"{type(error).__name__} in the service", "", "see the log of the service")


def _route(request: Request) -> str:
    """A route's pattern, since a path can hold the id of a user."""
    return str(getattr(request.scope.get("route"), "path_format", "an unknown address"))


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    LifelongError: _ours,
    RequestValidationError: _invalid,
    HTTPException: _http,
    ClientDisconnect: _gone,
}
ANSWERED: tuple[type[Exception], ...] = tuple(_HANDLERS)
"""Errors of a request with an answer of their own; all others are defects."""
