"""Training, scoring and backfill with freed memory kept for the next step, against what glibc does by default.

    python benchmarks/freed_memory.py
    python benchmarks/freed_memory.py --models tally --threads 2 --rounds 3

By default glibc returns large blocks to the system when they are freed, and the next step has to get new pages
(`lifelong.allocator`). Each form is a process of its own; they alternate over rounds. Settings are the defaults of each
model. Processor seconds are those of a whole training (preparing batches, steps, a validation of 20,000 examples,
scores of the validation period for the calibration, writing the artifact) and of a backfill of every user into RocksDB;
a small training before them loads libraries and compiles. Both forms must end with equal weights. The peak is that of
resident memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FORMS = ("returned", "kept")
PARTS = ("train", "backfill")
NUMBERS = (*(f"{part}_{field}" for part in PARTS for field in ("user", "system", "page_faults")), "peak_mib")
CHILD = """
import hashlib, json, resource, sys, tempfile
from pathlib import Path
from lifelong import allocator
from lifelong.config import load_config
from lifelong.data.dataset import Dataset
from lifelong.evaluation.results import peak_memory
from lifelong.store.opening import open_store
from lifelong.training.backfill import backfill
from lifelong.training.trainer import train

def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"user": used.ru_utime, "system": used.ru_stime, "page_faults": used.ru_minflt}

form, data, model, examples, threads = sys.argv[1:]
if form == "returned":
    allocator._keeping._set = lambda values: None
common = [f"train.threads={threads}", "train.validation_examples=20000", "train.validate_every=1.0"]
with tempfile.TemporaryDirectory() as name:
    few = load_config(None, [*common, "train.max_examples=1000"])
    train(Dataset(data), model, Path(name, "first"), config=few, progress=False)
    config = load_config(None, [*common, f"train.max_examples={examples}"])
    start = spent()
    artifact = train(Dataset(data), model, Path(name, "out"), config=config, progress=False)
    trained = spent()
    backfill(artifact, Dataset(data), open_store(f"rocksdb://{name}/store"))
    filled = spent()
    weights = hashlib.sha256(Path(artifact.path, "weights.safetensors").read_bytes()).hexdigest()
print(json.dumps({
    **{f"train_{field}": round(trained[field] - start[field], 2) for field in start},
    **{f"backfill_{field}": round(filled[field] - trained[field], 2) for field in start},
    "peak_mib": peak_memory() // 2**20,
    "weights": weights,
}))
"""


def once(form: str, data: Path, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one training, in its own process."""
    words = (form, str(data), model, str(options.examples), str(options.threads))
    own = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    ended = subprocess.run([sys.executable, "-c", CHILD, *words], env=own, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(
        f"{model}, {form}: " + ", ".join(f"{name} {value}" for name, value in found.items() if name != "weights"),
        flush=True,
    )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tally", "hpmn", "sim"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=200_000, help="labelled examples of one training")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    options = parser.parse_args()

    from lifelong.preparation.prepare import prepare

    record: dict[str, Any] = {"threads": options.threads, "examples": options.examples, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as name:
        data = options.data or prepare("completejourney", [], Path(name) / "data").folder
        for model in options.models:
            runs = [{form: once(form, data, model, options) for form in FORMS} for _ in range(options.rounds)]
            if len({one["weights"] for both in runs for one in both.values()}) != 1:
                sys.exit(f"{model}: the forms ended with different weights, and should end with equal ones")
            mean = {
                form: {field: round(sum(both[form][field] for both in runs) / len(runs), 2) for field in NUMBERS}
                for form in FORMS
            }
            kept, returned = (
                {part: mean[form][f"{part}_user"] + mean[form][f"{part}_system"] for part in PARTS}
                for form in ("kept", "returned")
            )
            ratio = {part: round(kept[part] / returned[part], 3) for part in PARTS}
            print(f"{model}: kept / returned, processor seconds: {ratio}")
            record[model] = {"processor_seconds_ratio": ratio, **mean}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
