"""Training on two threads against one: parts of a batch side by side.

Trains `hpmn` on the Complete Journey log with the settings of the demo, first on one thread and then on several, each
in a process of its own; compares labelled examples a second of the training steps alone.

    python benchmarks/parallel_steps.py --threads 2 --examples 200000

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, sys
from lifelong.cli.demo import TRAINED
from lifelong.config import load_config
from lifelong.dataset.folder import Dataset
from lifelong.offline.training.trainer import train
data, out, threads, examples = sys.argv[1:]
limits = [f"train.threads={threads}", f"train.max_examples={examples}", "train.validate_every=10000000"]
artifact = train(Dataset(data), "hpmn", out, config=load_config(None, [*TRAINED["hpmn"], *limits]), progress=False)
print(json.dumps(artifact.metrics["examples_per_second"]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    arguments = parser.parse_args()

    from lifelong.offline.preparation.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or prepare("completejourney", [], Path(folder) / "data").folder
        rates = {}
        for threads in (1, arguments.threads):
            words = [str(data), f"{folder}/artifact-{threads}", str(threads), str(arguments.examples)]
            done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
            rates[threads] = json.loads(done.stdout.splitlines()[-1])
            print(f"{threads} thread(s): {rates[threads]:,.0f} examples a second", flush=True)
    ratio = round(rates[arguments.threads] / rates[1], 2)
    print(json.dumps({"examples_per_second": rates, "ratio": ratio, "examples": arguments.examples}))


if __name__ == "__main__":
    main()
