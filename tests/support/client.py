"""A client that calls an ASGI app without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx


class Client:
    """Calls an ASGI app; bodies are JSON."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def run(self, work: Callable[[httpx.AsyncClient], Any]) -> Any:
        async def inside() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                return await work(http)

        return asyncio.run(inside())

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        response: httpx.Response = self.run(lambda http: http.request(method, path, **options))
        return response

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.request("PUT", path, json=body)
