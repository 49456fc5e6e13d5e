"""The service's log: text, or one JSON object per line. It names users only on request."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LogFormat = Literal["text", "json"]
access: logging.Logger = logging.getLogger("lifelong.access")
_TRACE = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""A `traceparent` header of W3C Trace Context, with the id of its trace."""


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and the entries of `extra={"data": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as(form: LogFormat, *, stream: IO[str] | None = None) -> None:
    """Write all logs to stderr in a format; `json` also has a line for each request, and for each Python warning.

    With `json`, what nobody catches is a line, too, in any thread.
    """
    if form == "text":
        return
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    access.setLevel(logging.INFO)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("lifelong").critical("an error that nobody caught", exc_info=(kind, error, trace))


class AccessLog:
    """Logs each request: method, route, status, milliseconds.

    Args:
        app: called for each request.
        users: whether the address itself is logged, which can hold the id of a user.
    """

    app: ASGIApp
    users: bool

    def __init__(self, app: ASGIApp, *, users: bool = False) -> None:
        self.app, self.users = app, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app and log."""
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # A route's pattern and not the path, which can hold the id of a user.
            data = {
                "method": scope["method"],
                "route": getattr(scope.get("route"), "path", None),
                "status": status or 500,
                "milliseconds": round(1e3 * (time.perf_counter() - started), 3),
            }
            if self.users:
                data["path"] = scope["path"]
            # The one header that is logged, and only if it is what the standard says: it is anybody's text.
            if named := _TRACE.fullmatch(dict(scope["headers"]).get(b"traceparent", b"")):
                data["trace"] = named[1].decode()
            access.info("request", extra={"data": data})
