"""What a service counts, and what it says of its process and its store."""

from __future__ import annotations

import contextlib
import json
import os
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lifelong.online.serving.app import create_app
from lifelong.online.serving.metrics import Together


def test_a_service_says_what_runs_and_how_its_process_is(client):
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    (build,) = families["lifelong_build_info"].samples
    assert build.value == 1 and build.labels["artifact"] == client.app.state.service.artifact.id[:12]
    for name in ("process_resident_memory_bytes", "process_open_fds", "python_gc_collections"):
        assert families[name].samples[0].value >= 0
    assert {sample.labels["queue"] for sample in families["lifelong_waiting_requests"].samples} == {"reads", "writes"}


def test_a_service_counts_the_mean_score_of_each_user_of_a_request_and_changes_of_its_artifacts(client):
    body = {"user": "u", "items": ["i1", "i2"], "time": 1_700_000_000}
    scores = [one["score"] for one in client.post("/v1/score", body).json()["scores"]]
    client.post("/v1/score", {"requests": [body, body | {"user": "v"}]})
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    buckets = [one for one in families["lifelong_scores"].samples if one.name.endswith("_bucket")]
    below = {float(one.labels["le"]): one.value for one in buckets}
    assert below == {bound: 3.0 * (sum(scores) / 2 <= bound) for bound in below}
    assert {one.labels["artifact"] for one in buckets} == {client.app.state.service.artifact.id[:12]}
    epoch = client.app.state.service.store.artifact_list().epoch
    assert families["lifelong_artifact_list_epoch"].samples[0].value == epoch


@pytest.mark.parametrize("query", ["", "?shards=2"])
def test_a_service_says_how_its_store_is(artifact, tmp_path, client, query):
    pytest.importorskip("rocksdict")
    from lifelong.online.store.opening import open_store

    with contextlib.closing(open_store(f"rocksdb://{tmp_path}/store{query}")) as store:
        app = create_app(artifact, store)
        running = type(client)(app)
        assert "lifelong_store_background_errors 0.0" in running.get("/metrics").text
        before = store.figures()["records"]
        events = [{"user": f"u{user}", "item": "i1", "time": 1_700_000_000} for user in range(50)]
        running.post("/v1/events", {"events": events})
        assert store.figures()["records"] >= before + 50
        app.state.service.close()
    # A store that is closed, or opened anew, has no figures.
    assert store.figures() == {}


def test_figures_of_other_processes_are_shown_by_pid_and_those_of_dead_ones_are_not(tmp_path, monkeypatch):
    own = CollectorRegistry()
    Counter("parts", "Parts", ("of",), registry=own).labels("us").inc(3)
    for pid in (1, 2):
        rows = [["parts", "Parts", "counter", [["parts_total", {"of": "them"}, pid]]]]
        (tmp_path / f"figures-{pid}.json").write_text(json.dumps(rows))
    old = time.time() - 60
    os.utime(tmp_path / "figures-2.json", (old, old))
    text = generate_latest(Together(tmp_path, own)).decode()
    assert text.count("# TYPE parts_total counter") == 1
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("parts_total"))
    assert found == {f'parts_total{{of="us",pid="{os.getpid()}"}}': "3.0", 'parts_total{of="them",pid="1"}': "1.0"}


def test_a_process_writes_its_figures_down_and_takes_them_away_at_its_end(tmp_path):
    own = CollectorRegistry()
    Counter("parts", "Parts", registry=own).inc()
    together, file = Together(tmp_path, own), tmp_path / f"figures-{os.getpid()}.json"
    together.start()
    end = time.monotonic() + 300
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert ["parts_total", {}, 1.0] in json.loads(file.read_text())[0][3]
    together.close()
    assert not file.exists()
