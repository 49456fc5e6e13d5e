"""What a side of items costs a service: HPMN alone and with memories of items, untrained, on one log.

    python benchmarks/item_side.py --events 200000

Complete Journey, prepared with item histories. Both artifacts are backfilled to the last `--events` events of the log,
into RocksDB; then these come in, in the order of time, and users ask for 100 candidates each, drawn as often as they
are bought. `cold`: no window of an item is folded yet; `warm`: the same requests once more. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lifelong.artifact.export import write_artifact
from lifelong.data.dataset import Dataset
from lifelong.data.prepare import prepare
from lifelong.data.prepare_settings import PrepareSettings
from lifelong.memory.event_table import EventTable
from lifelong.memory.store import open_store
from lifelong.memory.updater import Updater
from lifelong.models import build
from lifelong.models.base import Model
from lifelong.serving.replay import user_events
from lifelong.serving.scorer import Scorer, ScoreRequest
from lifelong.training.backfill import backfill

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact

CANDIDATES, BATCH = 100, 8_192


def untrained(dataset: Dataset, out: Path, side: str) -> Artifact:
    """HPMN as in benchmarks/completejourney.toml."""
    config = {"width": 48, "hops": 1, "side": side}
    torch.manual_seed(0)
    model = build("hpmn", dataset.inputs, config)
    assert isinstance(model, Model)
    return write_artifact(out, model, dataset, run={"model": config}, metrics={}, calibrator=None)


def milliseconds(scorer: Scorer, requests: Sequence[ScoreRequest]) -> float:
    """Median of a request."""
    taken = []
    for request in requests:
        began = time.perf_counter()
        scorer.answer([request])
        taken.append(time.perf_counter() - began)
    return 1000 * float(np.median(taken))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--data", type=Path, help="a dataset with item histories; without it one is made")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"events": options.events, "requests": options.requests}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = PrepareSettings(item_histories=True)
        dataset = Dataset(options.data or prepare("completejourney", [], folder / "data", settings=settings).folder)
        time_N, rng = np.asarray(dataset.histories.time_N), np.random.default_rng(0)
        order_N = np.lexsort((dataset.histories.sequence_N, time_N))[-options.events :]
        table = EventTable.of(user_events(dataset, order_N))
        cut, last = int(time_N[order_N[0]]), int(time_N.max())
        row_NC = np.asarray(dataset.histories.row_N)[rng.integers(0, len(time_N), (options.requests, CANDIDATES))]
        users = [dataset.users.id_at(int(user)) for user in rng.integers(0, dataset.histories.num_users, len(row_NC))]
        requests = [
            ScoreRequest(user, [dataset.catalogue.id_of(int(row)) or "" for row in row_C], last + 60)
            for user, row_C in zip(users, row_NC, strict=True)
        ]
        for side in ("user", "both"):
            artifact = untrained(dataset, folder / side, side)
            store = open_store(f"rocksdb://{folder / side}-store")
            backfill(artifact, dataset, store, until=cut)
            updater, began = Updater(artifact, store), time.perf_counter()
            for start in range(0, len(table), BATCH):
                place_N = np.arange(start, min(start + BATCH, len(table)))
                updater.apply_table(table.take(place_N), source="file", offsets=place_N)
            seconds = time.perf_counter() - began
            scorer = Scorer(artifact, store)
            scorer.answer([replace(requests[0], items=["nothing"])])
            cold, warm = milliseconds(scorer, requests), milliseconds(scorer, requests)
            store.close()
            size = sum(path.stat().st_size for path in (folder / f"{side}-store").rglob("*") if path.is_file())
            record[side] = {
                "events_per_second": round(len(table) / seconds),
                "cold_ms": round(cold, 2),
                "warm_ms": round(warm, 2),
                "store_mb": round(size / 2**20, 1),
            }
            print(f"{side}: {record[side]}", flush=True)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
