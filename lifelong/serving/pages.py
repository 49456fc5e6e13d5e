"""The two pages for people: `/` to look into memories, `/docs` to read the endpoints. They load nothing from elsewhere.

The files of `/` are built from the sources in `page/` of the repository (`make page`).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from lifelong.serving.errors import NotFoundError

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.35rem }
h2 { margin: 2rem 0 .25rem; font-size: 1.05rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { background: color-mix(in srgb, CanvasText 7%, Canvas); padding: .75rem; overflow-x: auto; border-radius: .4rem }
.method { display: inline-block; min-width: 4.5em; font-weight: 700 }
"""


_FILES = {"page.js": "text/javascript", "page.css": "text/css"}
"""Files of the page next to its HTML, and what they are."""
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What a page may load and where it may send: nothing, but what each adds."""

pages: APIRouter = APIRouter(tags=["operations"], include_in_schema=False)


@pages.get("/")
async def index() -> HTMLResponse:
    """The page for people."""
    own = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
    return HTMLResponse(_file("index.html"), headers=_headers(own))


@pages.get("/page/{name}")
async def part(name: str) -> Response:
    """A file of the page."""
    if name not in _FILES:
        raise NotFoundError(f"the page has no file {name!r}", expected=", ".join(_FILES))
    return Response(_file(f"page/{name}"), media_type=_FILES[name], headers=_headers())


@pages.get("/docs")
async def endpoints(request: Request) -> HTMLResponse:
    """The endpoints as a page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return HTMLResponse(docs(request.app.openapi()), headers=_headers(f"style-src 'sha256-{digest}'"))


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


def docs(document: Mapping[str, Any]) -> str:
    """The endpoints of an OpenAPI document as one page."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(document['info']['title'])}: endpoints</title><style>{_STYLE}</style>",
        "<h1>Endpoints</h1>",
        f"<p>{html.escape(document['info'].get('summary', ''))} The whole description for machines is "
        "<a href='openapi.json'>openapi.json</a>; <a href='./'>a page to look into memories</a>.",
    ]
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method.upper(), path, operation, schemas)
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    parts = [
        f"<h2><span class=method>{method}</span> <code>{html.escape(path)}</code></h2>",
        f"<p>{html.escape(operation.get('summary', ''))}. {html.escape(operation.get('description', ''))}",
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parts += [f"<pre>{html.escape(json.dumps(example))}</pre>" for example in _examples(body or {}, schemas)]
    codes = ", ".join(
        f"{code} ({html.escape(answer['description'])})" for code, answer in operation["responses"].items()
    )
    return [*parts, f"<p>Answers: {codes}."]


def _examples(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[Any]:
    """Examples of a body, for each of its forms if it has several."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[-1]]
    return [
        *schema.get("examples", []),
        *(
            example
            for form in (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
            for example in _examples(form, schemas)
        ),
    ]
