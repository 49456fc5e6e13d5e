"""Commits with event ids over simulated days: does one take longer on the last day than on the first?

A service's store gets `--ids` events with an id each day, `--batch` in a commit. The store's clock is moved on, nothing
else. Prints a JSON line: per day the mean and the 99th percentile of a commit in milliseconds, without the fsync, which
is the disk's.

    python benchmarks/event_ids.py --days 30 --ids 100000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lifelong.online.store.contract import Commit, Elapsed
from lifelong.online.store.rocksdb import RocksDbStore

DAY = 86_400


def run(days: int, ids: int, batch: int) -> dict[str, object]:
    """Write them; what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        store = RocksDbStore(Path(folder) / "store", sync=False)
        seconds, start = [0.0], 1_700_000_000
        store._ids.clock = Elapsed(start, passed=lambda: seconds[0])
        taken = np.zeros((days, ids // batch))
        for day in range(days):
            for number in range(ids // batch):
                seconds[0] = day * DAY + number * DAY / (ids // batch)
                taken[day, number] = commit(store, [f"{day}-{number}-{one}" for one in range(batch)])
        store.close()
    low, high = 1000 * taken.mean(1), 1000 * np.percentile(taken, 99, axis=1)
    return {
        "benchmark": "event_ids",
        "days": days,
        "ids_per_day": ids,
        "batch": batch,
        "mean_ms": low.round(3).tolist(),
        "p99_ms": high.round(3).tolist(),
        "last_to_first": round(float(low[-1] / low[0]), 2),
    }


def commit(store: RocksDbStore, names: list[str]) -> float:
    """Look ids up and write them, as a service does; the seconds that took."""
    keys = [(f"u{hash(name) % 10_000}", name) for name in names]
    begun = time.perf_counter()
    now = store.clock()
    assert not any(store.seen(keys, now=now))
    store.commit(Commit(records={0: {user: bytes(200) for user, _ in keys}}, event_ids=dict.fromkeys(keys, now + DAY)))
    return time.perf_counter() - begun


def main() -> None:
    """Read the options, print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=50)
    words = parser.parse_args()
    print(json.dumps(run(words.days, words.ids, words.batch)))


if __name__ == "__main__":
    main()
