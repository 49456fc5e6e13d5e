"""The service's log: text, or one JSON object per line. It names users only on request."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Literal

LogFormat = Literal["text", "json"]
access: logging.Logger = logging.getLogger("lifelong.access")
"""Gets a line for each request."""


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
    # In place of those that are there, which would write each record once more, as text.
    root.handlers[:] = [handler]
    access.setLevel(logging.INFO)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("lifelong").critical("an error that nobody caught", exc_info=(kind, error, trace))
