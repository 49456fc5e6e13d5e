"""The two pages for people: `/` to look into memories, `/docs` to read and try the endpoints.

They load nothing from elsewhere. Scripts and styles are built from `page/` of the repository (`make page`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from lifelong.serving.addresses import ExactRoute
from lifelong.serving.api_page import api_page
from lifelong.serving.errors import NotFoundError

_FILES = {"page.js": "text/javascript", "docs.js": "text/javascript", "page.css": "text/css"}
"""Files of the page next to its HTML, and what they are."""
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What a page may load and where it may send: nothing, but what each adds."""
_OWN = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
"""Files of the service itself, and calls of it."""

pages: APIRouter = APIRouter(tags=["operations"], include_in_schema=False, route_class=ExactRoute)


@pages.get("/")
async def index() -> HTMLResponse:
    """The page for people."""
    return HTMLResponse(_file("index.html"), headers=_headers(_OWN))


@pages.get("/page/{name}")
async def part(name: str) -> Response:
    """A file of the page."""
    if name not in _FILES:
        raise NotFoundError(f"the page has no file {name!r}", expected=", ".join(_FILES))
    return Response(_file(f"page/{name}"), media_type=_FILES[name], headers=_headers())


@pages.get("/docs")
async def endpoints(request: Request) -> HTMLResponse:
    """The endpoints as a page."""
    return HTMLResponse(api_page(request.app.openapi()), headers=_headers(_OWN))


@cache
def _file(name: str) -> str:
    return (resources.files("lifelong.serving") / "page" / name).read_text(encoding="utf-8")


def _headers(own: str = "") -> dict[str, str]:
    """Headers of a page; files keep their names from release to release, so that a browser has to ask again."""
    return {
        "content-security-policy": f"{_POLICY}; {own}" if own else _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
