"""The pages for people: `/` to look into memories, `/docs` to read and try the endpoints, `/report` of a comparison.

They load nothing from elsewhere. Scripts and styles are built from `page/` of the repository (`make page`); those of
`/docs` are Swagger UI's, from the package `fastapi-swagger`.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from lifelong.errors import UsageError
from lifelong.online.serving.bodies import ExactRoute
from lifelong.online.serving.errors import NotFoundError

_OURS, _VIEWER = ("lifelong.online.serving", "page/page"), ("fastapi_swagger", "resources")
_FILES = {
    **dict.fromkeys(("page.js", "page.css", "docs.js"), _OURS),
    **dict.fromkeys(("swagger-ui-bundle.js", "swagger-ui.css"), _VIEWER),
}
"""Files of the pages -> the package and folder that have them."""
_DOCS = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>lifelong: endpoints</title><link rel=icon href='data:,'><link rel=stylesheet href='page/swagger-ui.css'>
<noscript>This page needs JavaScript. The endpoints as a document: <a href='openapi.json'>openapi.json</a></noscript>
<div id=endpoints></div><script src='page/swagger-ui-bundle.js'></script><script src='page/docs.js'></script></html>
"""
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What a page may load and where it may send: nothing, but what each adds."""
_OWN = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
"""Files of the service itself, and calls of it."""

pages: APIRouter = APIRouter(tags=["operations"], include_in_schema=False, route_class=ExactRoute)


@pages.get("/")
async def index() -> HTMLResponse:
    """The page for people."""
    return HTMLResponse(_file("lifelong.online.serving", "page", "index.html"), headers=_headers(_OWN))


@pages.get("/page/{name}")
def part(name: str, request: Request) -> Response:
    """A file of the pages, in a third of its bytes for a client that takes gzip."""
    # Not a coroutine: packing the viewer takes a tenth of a second of a thread, once.
    if name not in _FILES:
        raise NotFoundError(f"the page has no file {name!r}", expected=", ".join(_FILES), fix="open / for the page")
    place, kind = (*_FILES[name], name), "text/css" if name.endswith(".css") else "text/javascript"
    headers = {**_headers(), "vary": "accept-encoding"}
    if not _takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(_file(*place), media_type=kind, headers=headers)
    return Response(_packed(*place), media_type=kind, headers={**headers, "content-encoding": "gzip"})


@pages.get("/report")
async def report(request: Request) -> HTMLResponse:
    """The report of a comparison."""
    found: Report | None = request.app.state.report
    if found is None:
        raise NotFoundError("this service shows no report", fix="lifelong serve ... --set report=REPORT")
    return HTMLResponse(found.text, headers=_headers(found.policy))


@pages.get("/docs")
async def endpoints() -> HTMLResponse:
    """The endpoints as a page."""
    return HTMLResponse(_DOCS, headers=_headers(_OWN))


@pages.get("/openapi.json")
async def document(request: Request) -> Response:
    """The endpoints for machines; behind a proxy with a prefix, or in another app, with that."""
    prefix = request.scope.get("root_path", "").rstrip("/")
    servers = {"servers": [{"url": prefix}]} if prefix else {}
    text = await asyncio.to_thread(lambda: msgspec.json.encode({**request.app.openapi(), **servers}))
    return Response(text, media_type="application/json")


@dataclass(frozen=True, slots=True)
class Report:
    """The page that `lifelong compare` wrote.

    Args:
        text: its HTML.
        policy: what it may run: its own script, by its hash.
    """

    text: str
    policy: str

    @classmethod
    def read(cls, folder: Path) -> Report:
        """The page of a folder of `lifelong compare`.

        Raises:
            UsageError: there is none.
        """
        path, text, found = folder / "index.html", "", "it is no report"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            found = getattr(error, "strerror", None) or str(error)
        script = re.search(r"script-src ('sha256-[A-Za-z0-9+/=]+')", text[:2000])
        if script is None:
            raise UsageError(
                f"cannot read the report: {path}: {found}",
                expected="a folder that `lifelong compare` wrote",
                fix="check the path, or run `lifelong compare DATA --out FOLDER`",
            )
        return cls(text, f"script-src {script[1]}; style-src 'unsafe-inline'; img-src data:")


@cache
def _file(package: str, *path: str) -> bytes:
    return resources.files(package).joinpath(*path).read_bytes()


@cache
def _packed(package: str, *path: str) -> bytes:
    return gzip.compress(_file(package, *path), mtime=0)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding has gzip, and not with weight 0.

    >>> [_takes_gzip(value) for value in ("gzip, deflate, br", "br;q=1, GZIP;q=0.5", "gzip;q=0", "identity", "")]
    [True, True, False, False, False]
    """
    named = (part.replace(" ", "").lower().partition(";q=") for part in accepted.split(","))
    return any(coding == "gzip" and (not weight or weight.strip("0.") != "") for coding, _, weight in named)


def _headers(own: str = "") -> dict[str, str]:
    """Headers of a page; files keep their names from release to release, so that a browser has to ask again."""
    return {
        "content-security-policy": f"{_POLICY}; {own}" if own else _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
