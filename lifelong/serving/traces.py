"""A span for each request, which continues the trace that the client's `traceparent` names."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong import tracing


class Traces:
    """Makes the spans; only there where tracing is on.

    A span has the method, the route's pattern and the status. Neither addresses nor bodies are in it: they name users.
    FastAPI's own spans have addresses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app within a span."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, status = scope["method"], 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        parent = tracing.sent_with(Headers(scope=scope))
        with tracing.span(method, kind="SERVER", attributes={"http.request.method": method}, parent=parent) as span:
            try:
                await self.app(scope, receive, noted)
            finally:
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_attribute("error.type", str(status))
                    tracing.failed(span)
