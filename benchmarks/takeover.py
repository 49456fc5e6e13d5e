"""What a takeover costs a running service: latency of scores and of events in each phase of it, in one run.

Fills a store with the memories and events of so many users, starts `lifelong serve` on it, and sends score requests
and events at a set rate from two other processes, while a second artifact (the same model with other embeddings) is
built, served, and the first one dropped. The baseline is the first phase, of one artifact alone. At the end every
memory of the new artifact is compared with a replay of the store's own log.

    python benchmarks/takeover.py --artifact ARTIFACT --users 2000 --events 50

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from load import result, start
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store
from lifelong.online.store.rocksdb import RocksDbStore

# Servers, victims and tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.variants import other_artifact

MOMENT = 1_700_000_000
CANDIDATES = 100


def fill(artifact: Artifact, folder: Path, users: int, events: int, rng: np.random.Generator) -> list[str]:
    """A store of users with events, and the items that they are about."""
    rows = range(FIRST_ROW, min(len(artifact.catalogue), 2_000))
    items = [item for item in map(artifact.catalogue.id_of, rows) if item]
    store = RocksDbStore(folder, sync=False)
    updater = Updater(artifact, store)
    for step in range(events):
        chosen = rng.integers(0, len(items), users).tolist()
        updater.apply([UserEvent(f"u{user}", items[item], MOMENT + step) for user, item in enumerate(chosen)])
    store.close()
    return items


def call(address: str, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
    """One request of the administration."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def measure(address: str, folder: Path, bodies: dict[str, list[Any]], given: argparse.Namespace, seed: int) -> Any:
    """Latency of both kinds of request for some seconds."""
    running = {}
    for kind, rate in (("score", given.rate), ("events", given.rate / 4)):
        (folder / kind).mkdir(exist_ok=True)
        # Few connections: one that is idle for five seconds is closed by the service.
        options = {"rate": rate, "seconds": given.seconds, "connections": 8, "seed": seed}
        running[kind] = start(f"{address}/v1/{kind}", bodies[kind], folder / kind, **options)
    return {kind: asdict(result(process)) for kind, process in running.items()}


def takeover(address: str, folder: Path, bodies: dict[str, list[Any]], new: Artifact, given: argparse.Namespace) -> Any:
    """The phases, one after another; how long the build took stands in the last one."""
    found = {"alone": measure(address, folder, bodies, given, 1)}
    began, took = time.perf_counter(), 0.0
    call(address, "/v1/admin/artifacts", {"path": str(new.path)})
    found["build"] = measure(address, folder, bodies, given, 2)
    while True:
        state = next(one for one in call(address, "/v1/admin/artifacts")["artifacts"] if one["id"] == new.id)
        if state["phase"] == "ready":
            break
        if state["error"]:
            raise SystemExit(state["error"])
        time.sleep(0.1)
    took = time.perf_counter() - began
    began = time.perf_counter()
    call(address, "/v1/admin/switch", {"artifact": new.id})
    switched = time.perf_counter() - began
    found["both"] = measure(address, folder, bodies, given, 3)
    old = call(address, "/v1/admin/artifacts")["previous"]
    call(address, f"/v1/admin/artifacts/{old}", method="DELETE")
    found["dropped"] = measure(address, folder, bodies, given, 4)
    return {"phases": found, "build_seconds_at_most": took, "switch_ms": 1e3 * switched}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True, help="of a model that is served")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=50, help="per user")
    parser.add_argument("--rate", type=float, default=50.0, help="score requests a second; a quarter of it, events")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    given, rng = parser.parse_args(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = Artifact.open(given.artifact)
        new = other_artifact(old, folder / "new")
        items = fill(old, folder / "store", given.users, given.events, rng)
        users = rng.integers(0, given.users, 500).tolist()
        bodies: dict[str, list[Any]] = {
            "score": [{"user": f"u{user}", "items": rng.choice(items, CANDIDATES).tolist()} for user in users],
            "events": [
                {"events": [{"user": f"u{user}", "item": str(rng.choice(items)), "time": MOMENT + 10**6}]}
                for user in users
            ],
        }
        command = [sys.executable, "-m", "lifelong", "serve", str(given.artifact), "--port", "0", "--json"]
        process = subprocess.Popen(
            [*command, "--store", f"rocksdb://{folder}/store"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            found = takeover(address, folder, bodies, new, given)
        finally:
            process.terminate()
            process.wait()
        store = open_store(f"rocksdb://{folder}/store", read_only=True)
        report = verify(new, None, store)
        store.close()
    print("| phase | score p50 ms | p99 ms | failed | events p50 ms | p99 ms | failed |\n| --- | " + "--- | " * 6)
    for phase, row in found["phases"].items():
        parts = [f"{row[kind][part]:g}" for kind in ("score", "events") for part in ("p50_ms", "p99_ms", "failed")]
        print(f"| {phase} | {' | '.join(parts)} |")
    counts = {"users": given.users, "events_per_user": given.events, "model": old.config.model}
    equal = {"equal": report.equal, "compared": report.users, "events_replayed": report.events}
    print(last_line({**counts, **equal, **found}))


if __name__ == "__main__":
    main()
