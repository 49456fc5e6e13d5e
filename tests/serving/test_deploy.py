"""The files of `deploy/`: what they name is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lifelong.cli.program import build
from lifelong.online.ingestion.following import StreamCollector
from lifelong.online.ingestion.kafka import Followed, Place
from lifelong.online.serving.app import create_app
from lifelong.version import __version__

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana/dashboards/lifelong.json"
NAME = re.compile(r"(?:lifelong|process)_\w+")
LABELS = {"instance", "le", "job"}
"""Given by Prometheus itself, or part of a histogram."""


def queries():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return asked + re.findall(r"expr: (.*)", (DEPLOY / "alerts.yml").read_text())


@pytest.fixture
def samples(artifact, tmp_path, client):
    """Name of each sample that a service and its topic can give -> names of its labels, where seen."""
    pytest.importorskip("rocksdict")
    from lifelong.online.store.rocksdb import RocksDbStore

    with contextlib.closing(RocksDbStore(tmp_path / "store")) as store:
        app = create_app(artifact, store)
        yield samples_of(type(client)(app))
        app.state.service.close()


def samples_of(client):
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": 1_700_000_000}]})
    client.post("/v1/score", {"user": "u", "items": ["i1", "never seen"], "time": 1_700_000_001})
    others = CollectorRegistry()
    followed = Followed(places={0: Place(offset=3, lag=2)})
    others.register(StreamCollector(lambda: followed, lambda: True))
    found: dict[str, set[str]] = {}
    for text in (client.get("/metrics").text, generate_latest(others).decode()):
        for family in text_string_to_metric_families(text):
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            for ending in endings:
                found.setdefault(family.name + ending, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_the_dashboard_and_the_alerts_ask_for_numbers_that_there_are(samples):
    asked = {name for query in queries() for name in NAME.findall(query)}
    assert len(asked) > 10
    assert asked <= set(samples), sorted(asked - set(samples))


def test_they_group_by_labels_that_there_are(samples):
    for query in queries():
        known = LABELS.union(*(samples[name] for name in NAME.findall(query)))
        unseen = any(not samples[name] for name in NAME.findall(query))
        wanted = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
        wanted |= set(re.findall(r"[{,](\w+)[=!]", query))
        assert unseen or wanted <= known, (query, wanted - known)


def test_panels_do_not_overlap_and_have_a_description():
    places = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        where = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        }
        assert not covered & places and panel["description"]
        places |= covered


@pytest.mark.full
def test_the_image_runs_commands_and_options_that_there_are():
    """Commands of the Dockerfile, the compose file and the manifests are parsed by the program itself."""
    docker = json.loads(re.search(r"^CMD (\[.*\])", (DEPLOY / "Dockerfile").read_text(), re.M)[1])
    import yaml

    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["lifelong"]["command"]
    called = [docker, compose]
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if pod := document["spec"].get("template"):
                called += [container["args"] for container in pod["spec"]["containers"]]
    assert len(called) == 4
    for command, *words in called:
        assert command == "serve"
        found = build().commands[command].make_context("serve", [str(word) for word in words])
        assert found.params["host"] == "0.0.0.0" and found.params["api_key_file"] is not None


def test_images_have_the_version_of_the_package_and_extras_that_there_are():
    texts = [
        path.read_text() for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml") or path.name == "Dockerfile"
    ]
    versions = {found for text in texts for found in re.findall(r"lifelong:(\d+\.[\w.]*)", text)}
    assert versions == {__version__}
    extras = re.search(r"'\.\[(.*)\]'", (DEPLOY / "Dockerfile").read_text())[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])


def test_the_builder_of_the_image_is_given_what_it_copies():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    names = [name for line in copied for name in line.split()]
    assert "lifelong" in names and all((ROOT / name).exists() for name in names)
    assert {f"!{name}" for name in names} <= set((ROOT / ".dockerignore").read_text().splitlines())


@pytest.mark.full
@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("hadolint", ["Dockerfile"]),
        ("kubernetes-validate", ["--strict", "kubernetes/shared.yaml", "kubernetes/embedded.yaml"]),
        ("promtool", ["check", "rules", "alerts.yml"]),
        ("promtool", ["test", "rules", "../tests/assets/alerts.yml"]),
        ("promtool", ["check", "config", "prometheus.yml"]),
        ("docker-compose", ["--file", "compose.yaml", "config", "--quiet"]),
        ("docker-compose", ["--file", "../lifelong/cli/project/compose.yaml", "config", "--quiet"]),
    ],
)
def test_linters_find_nothing(tool, words):
    program = shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"{tool} is not installed")
    chosen = os.environ | {"ARTIFACT": "/artifact", "GRAFANA_PASSWORD": "secret"}
    done = subprocess.run([program, *words], cwd=DEPLOY, env=chosen, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
