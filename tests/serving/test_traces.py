"""Spans of a service, by the SDK of OpenTelemetry and its exporter in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from support.client import Client

from lifelong import tracing
from lifelong.errors import UsageError
from lifelong.memory.updater import Updater
from lifelong.serving.app import create_app
from lifelong.store.opening import open_store

pytestmark = pytest.mark.full
sdk = pytest.importorskip("opentelemetry.sdk.trace")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
kinds = pytest.importorskip("opentelemetry.trace").SpanKind

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
EVENT = {"user": "ann-secret", "item": "i1", "time": 1_700_000_000, "event_id": "e1"}


@pytest.fixture
def exporter() -> Iterator[Any]:
    """What was exported, while tracing is on."""
    provider, found = sdk.TracerProvider(), memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(found))
    with tracing.tracing(provider):
        yield found
    provider.shutdown()


@pytest.fixture
def client(exporter, artifact, store) -> Iterator[Client]:
    app = create_app(artifact, store)
    yield Client(app)
    app.state.service.close()


def spans_of(exporter: Any) -> dict[str, Any]:
    """Name -> the span; the last one of each name."""
    return {span.name: span for span in exporter.get_finished_spans()}


def parents(spans: dict[str, Any]) -> dict[str, str | None]:
    name_of = {span.context.span_id: name for name, span in spans.items()}
    return {name: None if span.parent is None else name_of.get(span.parent.span_id) for name, span in spans.items()}


def test_a_score_goes_on_with_the_clients_trace_down_to_store_and_graphs(client, exporter) -> None:
    body = {"user": "ann-secret", "items": ["i1", "i2"]}
    assert client.request("POST", "/v1/score", json=body, headers=PARENT).status_code == 200
    spans = spans_of(exporter)
    request = spans["POST /v1/score"]
    assert request.kind is kinds.SERVER and request.parent.span_id == int(SPAN, 16)
    assert {span.context.trace_id for span in spans.values()} == {int(TRACE, 16)}
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
    }
    above = parents(spans)
    assert above["scores.answer"] == "POST /v1/score"
    assert above["store.read"] == above["graphs.score"] == "scores.answer"
    assert spans["graphs.score"].attributes["lifelong.candidates"] == 2


def test_scores_that_are_answered_together_have_one_span_with_links_to_all_requests(client, exporter) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        bodies = [{"user": f"u{number}", "items": ["i1", "i2"]} for number in range(3)]
        await asyncio.gather(*(http.post("/v1/score", json=body) for body in bodies))

    client.run(ask)
    requests = [span for span in exporter.get_finished_spans() if span.name == "POST /v1/score"]
    (answered,) = (span for span in exporter.get_finished_spans() if span.name == "scores.answer")
    assert dict(answered.attributes) == {"lifelong.requests": 3, "lifelong.candidates": 6}
    around = {answered.parent.span_id, *(link.context.span_id for link in answered.links)}
    assert around == {span.context.span_id for span in requests}


def test_work_in_a_thread_belongs_to_its_request(client, exporter) -> None:
    client.post("/v1/score", {"requests": [{"user": "ann-secret", "items": ["i1"]}]})
    assert parents(spans_of(exporter))["graphs.score"] == "POST /v1/score"


def test_events_are_folded_and_committed_in_their_requests_trace(client, exporter) -> None:
    assert client.post("/v1/events", {"events": [EVENT]}).status_code == 200
    spans = spans_of(exporter)
    above = parents(spans)
    assert above["events.fold"] == "POST /v1/events"
    assert above["graphs.write"] == above["store.commit"] == "events.fold"
    assert spans["store.commit"].attributes["lifelong.events"] == 1


def test_one_commit_of_many_requests_has_links_to_all_of_them(client, exporter, monkeypatch) -> None:
    """The writer begins when all requests wait."""
    service = client.app.state.service
    submit, held = service.writes._pool.submit, []
    monkeypatch.setattr(service.writes._pool, "submit", lambda work: held.append(work))

    async def send(http: httpx.AsyncClient) -> None:
        sent = [
            asyncio.create_task(http.post("/v1/events", json={"events": [{**EVENT, "user": name, "event_id": name}]}))
            for name in "abc"
        ]
        while len(held) < 3:
            await asyncio.sleep(0)
        submit(held[0])
        for answer in await asyncio.gather(*sent):
            assert answer.status_code == 200

    client.run(send)
    requests = [span for span in exporter.get_finished_spans() if span.name == "POST /v1/events"]
    fold = spans_of(exporter)["events.fold"]
    assert fold.attributes["lifelong.requests"] == 3
    around = {fold.parent.span_id, *(link.context.span_id for link in fold.links)}
    assert around == {span.context.span_id for span in requests}


def test_no_span_names_a_user_and_errors_are_known_by_their_type(client, exporter, monkeypatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ValueError("ann-secret")

    client.get("/v1/users/ann-secret/memory")
    monkeypatch.setattr(client.app.state.service.scorer.runtime, "decode", broken)
    assert client.post("/v1/score", {"user": "ann-secret", "items": ["i1"]}).status_code == 500
    spans = spans_of(exporter)
    assert "GET /v1/users/{user:text}/memory" in spans
    assert not spans["POST /v1/score"].status.is_ok
    assert "ann-secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_what_a_process_does_by_itself_has_no_spans(client, exporter, artifact, store) -> None:
    Updater(artifact, store)
    list(store.read_many(["ann-secret"]))
    assert exporter.get_finished_spans() == ()


def test_messages_of_a_topic_are_linked_with_those_who_sent_them(exporter, artifact, kafka, topic) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    from lifelong.ingestion.kafka import Stream
    from lifelong.ingestion.kafka_client import parse

    producer = confluent.Producer({"bootstrap.servers": kafka.address})
    for headers in ([("traceparent", PARENT["traceparent"].encode())], [("other", None)]):
        value = json.dumps(EVENT).encode()
        producer.produce(topic, value, key=b"ann-secret", partition=0, headers=headers)
    assert producer.flush(60) == 0
    store = open_store("memory://")
    tracing.watch(store)
    updater = Updater(artifact, store)
    stream = Stream(parse(kafka.url(topic)), store, updater.apply_table, artifact.config.dataset_schema)
    stream.run(lambda followed: stream.stop() if followed.places[0].offset == 1 else None)
    consumed = [span for span in exporter.get_finished_spans() if span.kind is kinds.CONSUMER]
    assert {span.name for span in consumed} == {f"process {topic}"}
    assert sum(span.attributes["messaging.batch.message_count"] for span in consumed) == 2
    assert [link.context.span_id for span in consumed for link in span.links] == [int(SPAN, 16)]
    assert parents(spans_of(exporter))["store.commit"] == f"process {topic}"


class Collector(ThreadingHTTPServer):
    """Takes what exporters send by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[tuple[str, str, str]] = []
        """Instance of the service, name and trace of each span."""
        Thread(target=self.serve_forever, daemon=True).start()


class _Export(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        body = self.rfile.read(int(self.headers["content-length"]))
        zipped = self.headers.get("content-encoding") == "gzip"
        sent = messages.ExportTraceServiceRequest.FromString(gzip.decompress(body) if zipped else body)
        for resource in sent.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            instance = names["service.instance.id"]
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            self.server.spans += [(instance, span.name, span.trace_id.hex()) for span in spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def test_each_of_several_workers_exports_its_spans_until_it_ends(artifact, redis_url) -> None:
    """What its last batch holds, too."""
    collector = Collector()
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", redis_url]
    command += ["--workers", "2", "--traces", "--port", "0", "--json"]
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "500"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        address, sent = json.loads(process.stdout.readline())["address"], 0
        deadline = time.monotonic() + 300
        # Each connection is answered by whichever worker takes it.
        while len({instance for instance, *_ in collector.spans}) < 2:
            assert time.monotonic() < deadline, collector.spans
            body = {"user": "ann-secret", "items": ["i1"]}
            assert httpx.post(f"{address}/v1/score", json=body, headers=PARENT, timeout=300).status_code == 200
            sent += 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
    collector.shutdown()
    collector.server_close()
    scored = [(instance, trace) for instance, name, trace in collector.spans if name == "POST /v1/score"]
    assert len(scored) == sent and {trace for _, trace in scored} == {TRACE}
    assert len({instance for instance, _ in scored}) == 2


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    return {name for name in done.stdout.split() if name.startswith("opentelemetry")}


def test_off_nothing_of_opentelemetry_is_imported(artifact) -> None:
    scored = (
        "from lifelong import Scorer, Updater, open_artifact, open_store\nfrom lifelong.ingestion.kafka import Stream\n"
        f"artifact, store = open_artifact({str(artifact.path)!r}), open_store('memory://')\n"
        "Updater(artifact, store)\nScorer(artifact, store).score('ann', ['i1'])\nassert 'commit' not in vars(store)"
    )
    assert not _modules_after(scored)
    # Recent releases of FastAPI import the interface themselves.
    served = f"{scored}\nfrom lifelong import create_app\ncreate_app(artifact, store).state.service.close()"
    assert not {name for name in _modules_after(served) if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))}


def test_fastapi_adds_no_spans_of_its_own(artifact, store) -> None:
    """They would hold the address, and so the user."""
    app = create_app(artifact, store)
    try:
        native = getattr(app, "_native_telemetry", None)
        assert native is None or not any(native.config[part] for part in ("tracing", "metrics", "logs"))
    finally:
        app.state.service.close()


def test_an_exporter_that_is_not_known_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    with pytest.raises(UsageError, match="OTEL_TRACES_EXPORTER=jaeger"), tracing.tracing():
        pass


def test_the_environment_names_where_spans_go(monkeypatch, capsys) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    with tracing.tracing(), tracing.span("work"):
        pass
    shown = capsys.readouterr().err
    assert '"name": "work"' in shown and '"service.name": "shop"' in shown
    assert not tracing.on()
