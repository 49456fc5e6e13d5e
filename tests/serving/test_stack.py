"""The services of `deploy/compose.yaml` as plain processes: their own commands and files, addresses of loopback."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import until
from support.valkey import free_port, server

pytest.importorskip("redis")

pytestmark = [pytest.mark.full, pytest.mark.slow]
DEPLOY = Path(__file__).parents[2] / "deploy"
START = 1_700_000_000
WITHOUT_NUMBERS = {
    # Nothing fails and nothing is refused.
    "Answers that are no success",
    "Shed requests",
    # Yesterday the service did not run.
    "Drift of scores",
    # Of a RocksDB store.
    "Size of the store",
    "Compactions of the store",
    "Writes that wait for compactions, tables to merge",
}


def ask(url: str, body: Any = None, key: str = "") -> Any:
    """The JSON that an address answers."""
    head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    sent = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, sent, head), timeout=60) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60):
        return True
    return False


@contextlib.contextmanager
def running(words: list[str], address: str, folder: Path) -> Iterator[None]:
    """A program, from when it answers at an address."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or answers(address), f"{address} does not answer")
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def stack(services, needs_valkey, artifact, kafka, tmp_path) -> Iterator[tuple[str, str, str]]:
    """Addresses of the service and of Prometheus, and the service's key."""
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    key, port, watching = secrets.token_hex(32), free_port(), free_port()
    (tmp_path / "keys").write_text(key)
    kafka.make("events", 8)
    words = iter(services["valkey"]["command"][1:])
    with server(tmp_path / "valkey", *words) as valkey:
        places = {
            "/artifact": str(artifact.path),
            "redis://valkey:6379": f"redis://127.0.0.1:{valkey.port}",
            "0.0.0.0": "127.0.0.1",
            "/run/secrets/keys": str(tmp_path / "keys"),
            "kafka://broker:9092": f"kafka://{kafka.address}",
        }
        command = ["-m", "lifelong", *services["lifelong"]["command"], "--port", str(port)]
        for ours, theirs in places.items():
            command = [word.replace(ours, theirs) for word in command]
        shutil.copy(DEPLOY / "alerts.yml", tmp_path)
        settings = (DEPLOY / "prometheus.yml").read_text().replace("lifelong:8000", f"127.0.0.1:{port}")
        (tmp_path / "prometheus.yml").write_text(settings.replace("15s", "1s"))
        prometheus = [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/numbers",
            f"--web.listen-address=127.0.0.1:{watching}",
        ]
        service, watcher = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{watching}"
        with (
            running([sys.executable, *command], f"{service}/readyz", tmp_path / "service"),
            running(prometheus, f"{watcher}/-/ready", tmp_path / "prometheus"),
        ):
            yield service, watcher, key


@pytest.mark.timeout(2_400)
def test_events_come_in_by_http_and_topic_and_prometheus_answers_what_dashboard_and_alerts_ask(stack, kafka):
    service, watcher, key = stack
    kafka.send("events", [{"user": "ada", "item": f"i{k}", "time": START + k} for k in range(5)])

    def use() -> int:
        """Send an event and ask for a score; the events of the topic's user."""
        use.time += 1
        event = {"user": "ben", "item": "i1", "time": use.time}
        assert ask(f"{service}/v1/events", {"events": [event]}, key)["applied"] == 1
        asked = {"user": "ada", "items": ["i1", "never seen"], "time": START + 100_000}
        return int(ask(f"{service}/v1/score", asked, key)["count"])

    use.time = START
    until(lambda: use() == 5, "the topic's events are not in the memory")

    def numbers(query: str) -> list[Any]:
        asked = query.replace("$instance", ".*").replace("$__rate_interval", "5m")
        answer = ask(f"{watcher}/api/v1/query?{urllib.parse.urlencode({'query': asked})}")
        assert answer["status"] == "success", (query, answer)
        return list(answer["data"]["result"])

    panels = json.loads((DEPLOY / "grafana/dashboards/lifelong.json").read_text())["panels"]
    queries = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}
    assert set(queries) > WITHOUT_NUMBERS
    wanted = {(title, query) for title, some in queries.items() for query in some if title not in WITHOUT_NUMBERS}
    missing = set(wanted)

    def all_answered() -> bool:
        use()
        missing.difference_update([one for one in missing if numbers(one[1])])
        return not missing

    until(all_answered, f"no numbers: {missing}")
    for title in WITHOUT_NUMBERS:
        for query in queries[title]:
            numbers(query)
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text())

    def rules() -> list[Any]:
        (group,) = ask(f"{watcher}/api/v1/rules")["data"]["groups"]
        return list(group["rules"])

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), "the rules are not evaluated")
    assert {rule["name"]: rule["health"] for rule in rules()} == dict.fromkeys(alerts, "ok")
    assert numbers('up{job="lifelong"} == 0') == [] and numbers('up{job="lifelong"} == 1')
