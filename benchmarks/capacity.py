"""Nodes, disk, memory and partitions for some users and rates, each with its formula.

    python benchmarks/ingest_throughput.py > measured.txt       # on a machine like those that will run it
    python benchmarks/capacity.py --measured measured.txt --users 1e9 --events-per-user 100 --events 1e6 --requests 1e4

What is measured is read from there (its last line); bytes are those of docs/capacity.md unless they are given. All else
is arithmetic. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

HALF = 0.5
"""Share of its rate at which a node runs, so that it can catch up after an outage."""
PARTITIONS = 4
"""Of a topic for each node: room for growth."""
KEY, LOG_VALUE, LOG_KEY = 1, 30, 13
"""Bytes around an id: of a memory's key; of an event in the log, its value and its key."""
DAY = 86_400


def capacity(given: argparse.Namespace, rate: float) -> dict[str, tuple[float, str]]:
    """Name -> (number, how it comes about).

    Args:
        given: the options.
        rate: events per second that one node folds in at full load.
    """
    nodes = math.ceil(given.events / (HALF * rate))
    record = given.record + given.id + KEY
    event = LOG_VALUE + given.id + LOG_KEY
    found = {
        "nodes": (nodes, f"{given.events:,.0f} events/s / ({HALF} x {rate:,.0f} of one node)"),
        "partitions of the topic": (PARTITIONS * nodes, f"{PARTITIONS} x nodes"),
        "memories, TB": (given.users * record / 1e12, f"{given.users:,.0f} users x {record} bytes; twice that on disk"),
        "event log, TB a day": (
            given.events * DAY * event / 1e12,
            f"events/s x {DAY:,} s x {event} bytes; or leave it out",
        ),
        "hours to fill it": (
            given.users * given.events_per_user / (nodes * rate) / 3_600,
            f"{given.users:,.0f} x {given.events_per_user:,.0f} events / (nodes x {rate:,.0f})",
        ),
        "RAM of a server instead, TB": (
            given.users * given.server / 1e12,
            f"users x {given.server:,.0f} bytes in Redis or Valkey; as much again for each replica",
        ),
    }
    if given.requests:
        processes = math.ceil(given.requests / (HALF * given.requests_of_one))
        found["scoring processes"] = (
            processes,
            f"{given.requests:,.0f} / ({HALF} x {given.requests_of_one:,.0f} of one)",
        )
    return found


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, required=True, help="what ingest_throughput.py printed")
    parser.add_argument("--model", default="tally")
    parser.add_argument("--users", type=float, default=1e9)
    parser.add_argument("--events-per-user", type=float, default=100)
    parser.add_argument("--events", type=float, default=1e6, help="a second")
    parser.add_argument("--requests", type=float, default=0, help="a second")
    parser.add_argument("--requests-of-one", type=float, default=400, help="a second, of one process (latency.py)")
    parser.add_argument("--record", type=int, default=1_500, help="bytes of a memory on disk")
    parser.add_argument("--server", type=int, default=1_710, help="bytes of a user in Redis or Valkey")
    parser.add_argument("--id", type=int, default=12, help="bytes of a user's id")
    given = parser.parse_args()
    rows = json.loads(given.measured.read_text().splitlines()[-1])["uniform"][given.model]
    # The whole way of an event, with the log of events: by as many processes as are fastest.
    rate = max(row["events/s"] for name, row in rows.items() if name.startswith("memories and log"))
    found = capacity(given, rate)
    for name, (number, why) in found.items():
        print(f"{name:28} {number:>12,.6g}   {why}")
    print(json.dumps({name: number for name, (number, _) in found.items()}))


if __name__ == "__main__":
    main()
