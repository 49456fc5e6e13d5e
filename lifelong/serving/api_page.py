"""The page of `/docs`: each endpoint with what it takes and answers, in words, and a form that sends a request.

OpenAPI document --> HTML that needs no script --page/docs.js--> forms that can be sent
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from lifelong.serving.keys import scope_of

Schema = Mapping[str, Any]
_GROUPS = {
    "service": "Events, scores and items",
    "explorer": "Users, histories and memories",
    "administration": "Administration",
    "operations": "Operations",
}
"""Tags of the document, in the order of the page."""
_READING = {("POST", "/v1/score"), ("POST", "/v1/explain")}
"""Endpoints that change nothing though their method could."""


@dataclass(frozen=True, slots=True)
class Part:
    """One value of a request or a reply.

    Args:
        name: its place, such as `scores[].item`.
        kind: its type in words.
        text: what it means.
        required: whether it is always there.
    """

    name: str
    kind: str
    text: str
    required: bool


def api_page(document: Schema) -> str:
    """The endpoints of an OpenAPI document as one page.

    >>> "openapi.json" in api_page({"info": {"title": "lifelong"}, "paths": {}, "components": {}})
    True
    """
    schemas: Schema = document["components"].get("schemas", {})
    groups: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    ordered = {name: groups[tag] for tag, name in _GROUPS.items() if tag in groups}
    return "\n".join(
        [*_head(document), *_contents(ordered), "<main id=main tabindex=-1>", *_main(ordered, schemas), "</main></div>"]
    )


def _head(document: Schema) -> Iterator[str]:
    title = f"{escape(document['info']['title'])}: endpoints"
    yield "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    yield f"<meta name=color-scheme content='light dark'><title>{title}</title><link rel=icon href='data:,'>"
    yield "<link rel=stylesheet href='page/page.css'><script type=module src='page/docs.js'></script>"
    yield "<div class=docs><a class=skip href='#main'>Skip to the endpoints</a><header><h1>Endpoints</h1>"
    yield f"<p>{escape(document['info'].get('summary', ''))} The whole description for machines is "
    yield "<a href='openapi.json'>openapi.json</a>; there is also <a href='./'>a page to look into memories</a>.</p>"
    if document["components"].get("securitySchemes"):
        yield "<form class=key id=key hidden><label>API key, for the calls that are sent from this page"
        yield "<input type=password autocomplete=off></label></form>"
    yield "<noscript><p>Sending requests from this page needs JavaScript; reading it does not.</p></noscript></header>"


def _contents(groups: Mapping[str, list[tuple[str, str, Schema]]]) -> Iterator[str]:
    yield "<nav aria-label='Endpoints' class=panel>"
    for name, operations in groups.items():
        yield f"<details open><summary>{name}</summary><ul>"
        for method, path, operation in operations:
            link = f"<a href='#{_anchor(method, path)}'><code>{method} {escape(path)}</code></a>"
            yield f"<li>{link} {escape(operation.get('summary', ''))}</li>"
        yield "</ul></details>"
    yield "</nav>"


def _main(groups: Mapping[str, list[tuple[str, str, Schema]]], schemas: Schema) -> Iterator[str]:
    for name, operations in groups.items():
        yield f"<h2>{name}</h2>"
        for method, path, operation in operations:
            yield from _operation(method, path, operation, schemas)


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    anchor = _anchor(method, path)
    yield f"<section class=panel aria-labelledby={anchor}>"
    yield f"<h3 id={anchor}><span class=method>{method}</span> <code>{escape(path)}</code></h3>"
    yield f"<p><strong>{escape(operation.get('summary', ''))}.</strong></p>"
    yield from (f"<p>{_prose(part)}</p>" for part in operation.get("description", "").split("\n\n") if part)
    if operation.get("security"):
        yield f"<p class='small soft'>Needs a key with the scope <code>{scope_of(path)}</code>.</p>"
    parameters, body = operation.get("parameters", []), _body(operation)
    examples = _examples(body or {}, schemas)
    if parameters or body is not None:
        yield f"<details><summary>What it takes<span class=hidden>: {method} {escape(path)}</span></summary>"
        yield from _list([_parameter(one, schemas) for one in parameters])
        yield from _forms(body or {}, schemas)
        yield from (f"<pre>{escape(_pretty(example))}</pre>" for example in examples)
        yield "</details>"
    yield from _replies(method, path, operation, schemas)
    yield from _form(method, path, parameters, schemas, None if body is None else next(iter(examples), {}))
    yield "</section>"


def _replies(method: str, path: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    yield f"<details><summary>What it answers<span class=hidden>: {method} {escape(path)}</span></summary><dl>"
    for code, answer in operation["responses"].items():
        # The document's own words for a success say nothing.
        text = "as asked" if answer["description"] == "Successful Response" else answer["description"]
        yield f"<dt>{code}</dt><dd>{escape(text)}</dd>"
    yield "</dl>"
    success = next(answer for code, answer in operation["responses"].items() if code.startswith("2"))
    schema = success.get("content", {}).get("application/json", {}).get("schema")
    if schema is not None:
        yield from _forms(schema, schemas, title="A success has")
    yield "</details>"


def _forms(schema: Schema, schemas: Schema, *, title: str = "") -> Iterator[str]:
    """The values of a body; of one with several forms, those of each form."""
    forms = (*schema.get("oneOf", ()), *schema.get("anyOf", ())) or (schema,)
    for form in forms:
        named = _resolved(form, schemas).get("description", "") if len(forms) > 1 else title
        if named:
            yield f"<h4>{_prose(named)}</h4>"
        yield from _list(list(_parts(form, schemas)))


def _list(parts: list[Part]) -> Iterator[str]:
    if not parts:
        return
    yield "<dl>"
    for part in parts:
        must = "; required" if part.required else ""
        yield f"<dt><code>{escape(part.name)}</code> <span class=soft>{escape(part.kind)}{must}</span></dt>"
        yield f"<dd>{_prose(part.text)}</dd>"
    yield "</dl>"


def _form(method: str, path: str, parameters: list[Schema], schemas: Schema, example: Any) -> Iterator[str]:
    yield f"<form class=try data-method={method} data-path='{escape(path)}' hidden>"
    for one in parameters:
        must = " required" if one.get("required") else ""
        name, several = escape(one["name"]), _resolved(one["schema"], schemas).get("type") == "array"
        field = f"textarea rows=2{must} data-in={one['in']} name='{name}'"
        if several:
            yield f"<label>{name}, one a line<{field} data-several></textarea></label>"
        else:
            yield f"<label>{name}{'' if must else ' (optional)'}<{field.replace('textarea rows=2', 'input')}></label>"
    if example is not None:
        text = escape(_pretty(example))
        yield f"<label>Body<textarea data-in=body rows={min(text.count(chr(10)) + 1, 14)} spellcheck=false>"
        yield f"{text}</textarea></label>"
    if method != "GET" and (method, path) not in _READING:
        yield "<p class=small><strong>Sending it changes what the service holds.</strong></p>"
    yield f"<button type=submit class=primary>Send {method} {escape(path)}</button></form>"


def _body(operation: Schema) -> Schema | None:
    content = operation.get("requestBody", {}).get("content", {})
    found: Schema | None = content.get("application/json", {}).get("schema")
    return found


def _parameter(one: Schema, schemas: Schema) -> Part:
    where = {"path": "in the address", "query": "in the query", "header": "header"}[one["in"]]
    default = one["schema"].get("default")
    text = one.get("description") or one["schema"].get("description", "")
    if default not in (None, ""):
        text = f"{text}; {default} if absent"
    return Part(one["name"], f"{_kind(one['schema'], schemas)}, {where}", text, bool(one.get("required")))


def _parts(schema: Schema, schemas: Schema, place: str = "", seen: tuple[str, ...] = ()) -> Iterator[Part]:
    """The named values of a schema and of what it holds, each once where it holds itself."""
    name = schema.get("$ref", "")
    if name in seen:
        return
    seen, schema = (*seen, name) if name else seen, _resolved(schema, schemas)
    for form in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _parts(form, schemas, place, seen)
    if "items" in schema:
        yield from _parts(schema["items"], schemas, f"{place}[]", seen)
    elif isinstance(values := schema.get("additionalProperties"), Mapping):
        yield from _parts(values, schemas, f"{place}.*" if place else "*", seen)
    for key, value in schema.get("properties", {}).items():
        full, required = f"{place}.{key}" if place else key, key in schema.get("required", ())
        yield Part(full, _kind(value, schemas), _text(value, schemas), required)
        yield from _parts(value, schemas, full, seen)


def _text(schema: Schema, schemas: Schema) -> str:
    """What a value means: its own words, else those of what it can be."""
    forms = (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()))
    resolved = (_resolved(one, schemas) for one in forms)
    return next((of["description"] for of in resolved if "description" in of), "")


def _kind(schema: Schema, schemas: Schema) -> str:
    """A type in words.

    >>> _kind({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}, {})
    'whole number from 0 or null'
    """
    schema = _resolved(schema, schemas)
    forms = (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    if forms:
        return " or ".join(dict.fromkeys(_kind(form, schemas) for form in forms if form))
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind: str = schema.get("type", "any value")
    if kind == "array":
        values = _kind(schema.get("items", {}), schemas)
        return f"list of ({values})" if " or " in values else f"list of {values}"
    if kind == "object":
        return _object(schema, schemas)
    return _NAMES.get(kind, kind) + _bounds(schema)


_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def _object(schema: Schema, schemas: Schema) -> str:
    values, keys = schema.get("additionalProperties"), schema.get("propertyNames", {}).get("enum")
    if schema.get("maxProperties") == 0:
        return "object, empty for this model"
    if not isinstance(values, Mapping):
        return "object"
    return f"object ({', '.join(keys or ['any key'])}: {_kind(values, schemas)})"


def _bounds(schema: Schema) -> str:
    if schema.get("type") == "string":
        least, most = schema.get("minLength"), schema.get("maxLength")
        if most is None:
            return ""
        return f" of {least} to {most} characters" if least else f" of up to {most} characters"
    least, most = schema.get("minimum"), schema.get("maximum")
    return (f" from {least:.15g}" if least is not None else "") + (f" to {most:.15g}" if most is not None else "")


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    return schemas[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema


def _examples(schema: Schema, schemas: Schema) -> list[Any]:
    """Examples of a body, for each of its forms if it has several."""
    schema = _resolved(schema, schemas)
    forms = (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
    return [*schema.get("examples", []), *(example for form in forms for example in _examples(form, schemas))]


def _prose(text: str) -> str:
    """A text, with what it quotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _anchor(method: str, path: str) -> str:
    """A name for the address bar.

    >>> _anchor("GET", "/v1/users/{user}/top")
    'get-v1-users-user-top'
    """
    return re.sub(r"\W+", "-", f"{method}{path}".lower()).strip("-")
