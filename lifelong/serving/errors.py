"""Errors as HTTP: one JSON shape, `{"error": {"type", "found", "expected", "fix"}}`, whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lifelong.errors import LifelongError, RequestError, StoreCorruptError, StoreUnavailableError, UsageError
from lifelong.serving.schemas import ErrorReply

logger = logging.getLogger(__name__)
DOCS = "GET /docs lists the endpoints and what they take"


class NotFoundError(RequestError):
    """The thing that the address names is not there."""


class RefusedError(RequestError):
    """What is asked for cannot be done as things are; nothing was changed."""


class TooLargeError(RequestError):
    """A request is larger than the service takes; nothing of it was kept."""


class UnauthorizedError(RequestError):
    """The request brings no API key, or a wrong one."""


class ForbiddenError(RequestError):
    """The API key does not open what was asked for."""


class TooManyError(RequestError):
    """A caller asks too often."""


class DeadlineError(LifelongError):
    """A request took too long; whether events of it were kept is not known."""


_STATUS: tuple[tuple[type[LifelongError], int], ...] = (
    (NotFoundError, 404),
    (RefusedError, 409),
    (TooLargeError, 413),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (TooManyError, 429),
    (DeadlineError, 504),
    (RequestError, 422),
    (UsageError, 422),
    (StoreUnavailableError, 503),
)

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorReply, "description": "no API key, or a wrong one"},
    403: {"model": ErrorReply, "description": "an API key of another scope"},
    413: {"model": ErrorReply, "description": "larger than the service takes; nothing was kept"},
    422: {"model": ErrorReply, "description": "the body is not what it should be; nothing was kept"},
    429: {"model": ErrorReply, "description": "too many requests from one caller; Retry-After says how long to wait"},
    500: {"model": ErrorReply, "description": "a fault of the service"},
    503: {"model": ErrorReply, "description": "the store does not answer, or the service stops"},
    504: {"model": ErrorReply, "description": "not answered in time; with an event_id it can be sent again"},
}
"""Error answers that every endpoint can give."""


def error_response(error: LifelongError, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error of ours as an answer."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"www-authenticate": "Bearer"} if status == 401 else headers
    return _json(status, type(error).__name__, error.found, error.expected, error.fix, headers=headers)


def error_parts(error: LifelongError) -> dict[str, str]:
    """What a client is told of an error."""
    return _parts(type(error).__name__, error.found, error.expected, error.fix)


def install(app: FastAPI) -> None:
    """Give every error of an app the one shape."""
    app.add_exception_handler(LifelongError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def _json(
    status: int, kind: str, found: str, expected: str, fix: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": _parts(kind, found, expected, fix)}, status, headers=headers)


def _parts(kind: str, found: str, expected: str, fix: str) -> dict[str, str]:
    return {"type": kind, "found": found, "expected": expected, "fix": fix}


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LifelongError)
    response = error_response(error)
    if response.status_code >= 500:
        # The error itself can name a user; it is in the answer.
        told = "a stored memory is damaged" if isinstance(error, StoreCorruptError) else str(error)
        logger.error("%s %s: %s", request.method, _route(request), told)
    return response


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    found = "; ".join(_problem(detail) for detail in details[:5])
    more = f"; and {len(details) - 5} more" if len(details) > 5 else ""
    return _json(422, "ValidationError", found + more, f"the body of {request.method} {request.url.path}", DOCS)


def _problem(detail: Mapping[str, Any]) -> str:
    """One problem in words; the value itself may be huge and stays out."""
    tags = {"body", "one", "many", "id", "candidate"}
    place = ".".join(str(part) for part in detail["loc"] if part not in tags)
    message = str(detail["msg"])
    if detail["type"] == "json_invalid":
        return f"the body is not JSON: {detail.get('ctx', {}).get('error', message)}"
    # An event that is no object; its fields are told in pydantic's words.
    one_of_many = detail["type"] == "dict_type" and isinstance(detail["loc"][-1], int)
    if one_of_many or detail["type"] in ("model_attributes_type", "model_type"):
        message = "should be a JSON object" if "candidate" not in detail["loc"] else "should be an item id or an object"
    if detail["type"] == "less_than_equal" and place.endswith("time"):
        message += " (times are UTC seconds, not milliseconds)"
    return f"{place or 'body'}: {message}"


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    headers = error.headers
    if error.status_code == 400:
        # The body could not even be decoded; every body that is not what it should be has one status.
        return _json(422, "ValidationError", f"{place}: {error.detail}", "JSON in UTF-8", DOCS, headers=headers)
    if error.status_code == 404:
        return _json(404, "NotFound", f"there is no {place}", "an address of this service", DOCS, headers=headers)
    if error.status_code == 405:
        allowed = (headers or {}).get("Allow", "another method")
        return _json(405, "MethodNotAllowed", f"{place} is not served", allowed, DOCS, headers=headers)
    if error.status_code == 413:
        return error_response(TooLargeError(str(error.detail), fix="send it in several requests"))
    return _json(error.status_code, "HttpError", f"{place}: {error.detail}", "", DOCS, headers=headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, _route(request), exc_info=error)
    return _json(500, "Internal", f"{type(error).__name__} in the service", "", "look into the log of the service")


def _route(request: Request) -> str:
    """A route's pattern, since a path can hold the id of a user."""
    return str(getattr(request.scope.get("route"), "path", "an unknown address"))
