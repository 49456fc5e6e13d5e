"""Spans of OpenTelemetry, where tracing is on; nothing of OpenTelemetry is imported where it is off.

    tracing()  --> a tracer for this process, until the context ends
    traced     a function with a span of its own      watched   a store with spans for its reads and commits
    carried    work for another thread, which continues the caller's span

A function or a store that is called outside of any span has none of its own: what a process repeats in the background
would be traces without end.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from lifelong.errors import UsageError, require
from lifelong.version import __version__

P = ParamSpec("P")
T = TypeVar("T")
Attributes = Mapping[str, str | int]

_tracer: Any = None
_LINKS = 128
"""Links of one span at most, as the standard has it."""


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces, by the standard's names.

    >>> wanted({}), wanted({"OTEL_TRACES_EXPORTER": "otlp"}), wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})
    (False, True, True)
    >>> wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"})
    False
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(environment.get(name) for name in names)


@contextlib.contextmanager
def tracing(provider: Any = None) -> Iterator[None]:
    """Make spans in this process while the context lasts; at its end, all of them are exported.

    Args:
        provider: a `TracerProvider`; None for the one that the process has already (`opentelemetry-instrument` sets
            it), or else for one that exports as the environment says (`OTEL_*`; by default OTLP over HTTP).

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
        UsageError: the environment names another exporter than "otlp" or "console" (on stderr).
    """
    global _tracer
    api = require("opentelemetry.trace", extra="opentelemetry", purpose="traces")
    own = None
    if provider is None and isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        provider = own = _provider()
    before, _tracer = _tracer, (provider or api.get_tracer_provider()).get_tracer("lifelong", __version__)
    try:
        yield
    finally:
        _tracer = before
        if own is not None:
            own.shutdown()


def _provider() -> Any:
    """A provider that exports as the environment says."""
    sdk = require("opentelemetry.sdk.trace", extra="opentelemetry", purpose="traces")
    export = require("opentelemetry.sdk.trace.export", extra="opentelemetry", purpose="traces")
    resources = require("opentelemetry.sdk.resources", extra="opentelemetry", purpose="traces")
    named = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if named == "console":
        # The standard output of `--json` is for the document.
        exporter = export.ConsoleSpanExporter(out=sys.stderr)
    elif named == "otlp":
        module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
        exporter = require(module, extra="opentelemetry", purpose="traces").OTLPSpanExporter()
    else:
        raise UsageError(
            f"OTEL_TRACES_EXPORTER={named}", expected="otlp, console or none", fix="set it to one of these, or unset it"
        )
    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "lifelong"}
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = resources.Resource.create({} if "service.name=" in given else name)
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return provider


def on() -> bool:
    """Whether spans are made."""
    return _tracer is not None


def traced(
    name: str,
    *,
    kind: str = "INTERNAL",
    attributes: Callable[..., Attributes] = lambda *_, **__: {},
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: the function has a span. Without tracing it costs a call and one test.

    Args:
        name: of the span.
        kind: as OpenTelemetry names it.
        attributes: of the span, from the arguments of the function.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> T:
            if _tracer is None or here() is None:
                return function(*args, **options)
            with span(name, kind=kind, attributes=attributes(*args, **options)):
                return function(*args, **options)

        return call

    return decorate


@contextlib.contextmanager
def span(
    name: str,
    *,
    kind: str = "INTERNAL",
    attributes: Attributes | None = None,
    parent: Any = None,
    links: Sequence[Any] = (),
) -> Iterator[Any]:
    """A span, which what happens in the context belongs to; only to be called where tracing is on.

    Args:
        name: of the span.
        kind: as OpenTelemetry names it.
        attributes: of the span.
        parent: context of the span that it belongs to; None for that of the thread.
        links: contexts of spans that it has to do with, see `here`.
    """
    api = require("opentelemetry.trace", extra="opentelemetry", purpose="traces")
    linked = [api.Link(one) for one in links[:_LINKS]]
    options = {"kind": api.SpanKind[kind], "attributes": attributes, "links": linked}
    # An error's text may name users; its type does not.
    with _tracer.start_as_current_span(
        name, parent, record_exception=False, set_status_on_exception=False, **options
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_attribute("error.type", type(error).__name__)
            failed(made)
            raise


def failed(made: Any) -> None:
    """Mark a span as one of an error."""
    made.set_status(require("opentelemetry.trace", extra="opentelemetry", purpose="traces").StatusCode.ERROR)


def here() -> Any:
    """The context of the present span, for links; None outside of any, and where tracing is off."""
    if _tracer is None:
        return None
    api = require("opentelemetry.trace", extra="opentelemetry", purpose="traces")
    found = api.get_current_span().get_span_context()
    return found if found.is_valid else None


def below(context: Any) -> Any:
    """What `span` takes as the parent, from what `here` gave in another thread."""
    api = require("opentelemetry.trace", extra="opentelemetry", purpose="traces")
    return api.set_span_in_context(api.NonRecordingSpan(context))


def carried(work: Callable[[], T]) -> Callable[[], T]:
    """Work that another thread does as a part of the present span."""
    if _tracer is None:
        return work
    context = contextvars.copy_context()
    return lambda: context.run(work)


def sent_with(headers: Mapping[str, str]) -> Any:
    """The context that the headers of a request or a message name (W3C `traceparent`), as a parent."""
    propagate = require("opentelemetry.propagate", extra="opentelemetry", purpose="traces")
    return propagate.extract(headers)


def context_of(parent: Any) -> Any:
    """The span's context in what `sent_with` gave; None if the headers named none."""
    api = require("opentelemetry.trace", extra="opentelemetry", purpose="traces")
    found = api.get_current_span(parent).get_span_context()
    return found if found.is_valid else None


def watch(store: Any) -> None:
    """Give a store's reads and commits spans; it knows nothing of them, and costs nothing where they are off."""
    store.read_many = traced("store.read", kind="CLIENT", attributes=_read)(store.read_many)
    store.commit = traced("store.commit", kind="CLIENT", attributes=_commit)(store.commit)


def _read(names: Sequence[str], *, space: int = 0) -> Attributes:
    return {"lifelong.keys": len(names), "lifelong.space": space}


def _commit(commit: Any) -> Attributes:
    return {"lifelong.keys": sum(map(len, commit.records.values())), "lifelong.events": len(commit.events)}
