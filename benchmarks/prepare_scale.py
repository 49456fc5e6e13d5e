"""Peak memory and seconds of `prepare` on a large log.

Writes a csv in the format of Taobao UserBehavior (users, items and categories in the proportions of the published file,
popularity skewed, rows in no order), prepares it in a child process, and prints what that took. The claim: 20 million
rows stay under 4 GiB.

    python benchmarks/prepare_scale.py --rows 20 --threads 2
    python benchmarks/prepare_scale.py --rows 20 --users 1/8    Parquet: CPU seconds of a part of the users, of all
    python benchmarks/prepare_scale.py --ids 10                 an index of ids alone: CPU seconds, bytes an id

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from printed import last_line

LIMIT_GIB = 4.0
START, DAYS = 1_511_539_200, 9
CHILD = """
import resource, sys, time
from lifelong.offline.preparation.prepare import PrepareSettings, prepare
started = time.monotonic()
settings = PrepareSettings(threads=int(sys.argv[3]), protocol=sys.argv[4], part=sys.argv[5] or None)
tell = lambda text: print(f"{time.monotonic() - started:7.1f} s  {text}", flush=True)
if sys.argv[1].endswith(".csv"):
    prepare("taobao", [sys.argv[1]], sys.argv[2], settings=settings, progress=tell)
else:
    prepare(sys.argv[1], out=sys.argv[2], settings=settings, progress=tell, fields=["category"], event_type="what")
"""


def write_log(path: Path, rows: int) -> None:
    """Write a csv or Parquet of so many rows: user, item, category, behaviour, time."""
    import duckdb

    users, items, categories = max(rows // 101, 1), max(rows // 24, 1), 9_439
    # Squaring and cubing uniform numbers skews them to the small ones: busy users, popular items.
    duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(path.parent)}).execute(
        f"""
        COPY (
            SELECT 1 + floor({users} * pow(a, 1.5))::bigint AS user,
                   1 + item AS item, 1 + hash(item) % {categories} AS category,
                   CASE WHEN d < .895 THEN 'pv' WHEN d < .951 THEN 'cart' WHEN d < .98 THEN 'fav' ELSE 'buy' END what,
                   {START} + floor({DAYS * 86_400} * c)::bigint AS time
            FROM (SELECT random() AS a, floor({items} * pow(random(), 3))::bigint AS item, random() AS c, random() AS d
                  FROM range({rows}))
        ) TO '{path}' ({"HEADER false" if path.suffix == ".csv" else "FORMAT parquet"})
        """
    )


def index_cost(ids: int) -> dict[str, Any]:
    """CPU seconds and the peak of memory of an index of so many ids, each of ten letters, with the ids themselves."""
    import numpy as np

    from lifelong.dataset.vocabulary import IdIndex

    text = np.empty((ids, 10), np.uint8)
    for digit in range(10):
        text[:, digit] = ord("0") + np.arange(ids) // 10**digit % 10
    offset = np.arange(ids + 1) * 10
    # The first one loads or compiles the loop.
    IdIndex.from_text(text[:200_000].ravel(), offset[:200_001])
    started = time.process_time()
    index = IdIndex.from_text(text.ravel(), offset)
    seconds = time.process_time() - started
    found = index.find_all(index)
    del index
    tracemalloc.start()
    IdIndex.from_text(text.ravel(), offset)
    peak = text.nbytes + offset.nbytes + tracemalloc.get_traced_memory()[1]
    return {
        "ids": ids,
        "cpu_seconds": round(seconds, 2),
        "bytes_an_id": round(peak / ids, 1),
        "all_found": bool((found == np.arange(ids)).all()),
    }


def cpu_of(log: Path, data: Path, arguments: argparse.Namespace, users: str = "") -> float:
    """CPU seconds of a preparation in a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = [str(arguments.threads), arguments.protocol, users]
    subprocess.run([sys.executable, "-c", CHILD, str(log), str(data), *options], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare_part(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a part of the users, and of all."""
    rows, log = int(arguments.rows * 1_000_000), folder / "log.parquet"
    write_log(log, rows)
    part = cpu_of(log, folder / "part", arguments, users=arguments.users)
    whole = cpu_of(log, folder / "whole", arguments)
    seconds = {"cpu_seconds_part": round(part, 1), "cpu_seconds_whole": round(whole, 1)}
    return {"rows": rows, "users": arguments.users, **seconds, "ratio": round(part / whole, 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=20, help="millions of rows")
    parser.add_argument("--threads", type=int, default=2, help="threads of the table engine")
    parser.add_argument("--protocol", default="temporal", choices=["temporal", "paper"])
    parser.add_argument("--dir", type=Path, default=None, help="where to put the temporary folder")
    parser.add_argument("--ids", type=float, default=0, help="millions of ids of an index; no log is prepared")
    parser.add_argument("--users", default="", help="a part of them, such as 1/8, compared with all")
    arguments = parser.parse_args()
    if arguments.ids:
        print(json.dumps(index_cost(int(arguments.ids * 1_000_000))))
        return
    rows = int(arguments.rows * 1_000_000)
    with tempfile.TemporaryDirectory(prefix="prepare-scale-", dir=arguments.dir) as folder:
        if arguments.users:
            print(json.dumps(compare_part(Path(folder), arguments)))
            return
        log, data = Path(folder) / "UserBehavior.csv", Path(folder) / "data"
        write_log(log, rows)
        started = time.monotonic()
        cpu_of(log, data, arguments)
        result = {
            "rows": rows,
            "protocol": arguments.protocol,
            "threads": arguments.threads,
            "seconds": round(time.monotonic() - started, 1),
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            "csv_gib": round(log.stat().st_size / 2**30, 2),
            "dataset_gib": round(sum(file.stat().st_size for file in data.rglob("*") if file.is_file()) / 2**30, 2),
        }
    result["within_limit"] = result["peak_rss_gib"] < LIMIT_GIB
    print(last_line(result))
    sys.exit(0 if result["within_limit"] else 1)


if __name__ == "__main__":
    main()
