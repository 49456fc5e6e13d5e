"""The two pages for people: `/` to try the service, `/docs` to read its endpoints. They load nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.35rem }
h2 { margin: 2rem 0 .25rem; font-size: 1.05rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { background: color-mix(in srgb, CanvasText 7%, Canvas); padding: .75rem; overflow-x: auto; border-radius: .4rem }
.method { display: inline-block; min-width: 4.5em; font-weight: 700 }
"""


@cache
def index() -> str:
    """The page at `/`."""
    return (resources.files("lifelong.serving") / "page" / "index.html").read_text(encoding="utf-8")


def docs(document: Mapping[str, Any]) -> str:
    """The endpoints of an OpenAPI document as one page."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(document['info']['title'])}: endpoints</title><style>{_STYLE}</style>",
        "<h1>Endpoints</h1>",
        f"<p>{html.escape(document['info'].get('summary', ''))} The whole description for machines is "
        "<a href='openapi.json'>openapi.json</a>; <a href='./'>a page to try it</a>.",
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
