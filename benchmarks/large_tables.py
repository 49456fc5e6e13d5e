"""Training steps with an embedding table of millions of rows: sparse gradients and SparseAdam against dense ones.

    python benchmarks/large_tables.py
    python benchmarks/large_tables.py --items 10000 100000 1000000 --rounds 3
    python benchmarks/large_tables.py --processes 2
    python benchmarks/large_tables.py --quality

Whole steps (forward, backward, clip, optimiser) of `hpmn` on random batches of 8,192 events and 4,096 targets, whose
items are drawn by popularity (Zipf); fewer rows are touched than there are numbers in a batch. `dense` is Adam in its
fused form, as for small tables. Every size and form runs in a process of its own, whose peak of resident memory is
measured; forms take turns. `divided` is `sparse` under torchrun: each process has some rows of the tables, and its peak
is that of the first process. `--quality` trains `dnn` in two forms instead, with several seeds, on a small log of
users who come back to their own few items (`lifelong.testing.datasets`) or on `--data`, and compares AUC on validation.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from printed import last_line

FORMS = ("dense", "sparse")
USERS, EVENTS, TARGETS = 16, 512, 256


def measure(form: str, items: int, width: int, steps: int) -> dict[str, float]:
    """Steps a second and peak memory of this process."""
    import torch

    from lifelong.config import TrainSettings
    from lifelong.dataset.events import InputSpec
    from lifelong.launch import launch
    from lifelong.offline.data.batch import Batch
    from lifelong.offline.evaluation.divided_tables import DividedTables
    from lifelong.offline.evaluation.processes import Processes, join
    from lifelong.offline.models import build
    from lifelong.offline.models.base import Model
    from lifelong.offline.training.compute import Compute
    from lifelong.offline.training.gradients import Gradients
    from lifelong.offline.training.optimiser import build_optimiser, clip_gradients, use_sparse_tables
    from lifelong.testing.worlds import random_batch

    inputs = InputSpec(item={"item": items, "category": 5_000}, event={"event_type": 6}, context={}, users=100)
    settings = TrainSettings.model_validate({"embeddings": "dense" if form == "dense" else "sparse"})
    torch.manual_seed(0)
    model = build("hpmn", inputs, {"embedding": width})
    assert isinstance(model, Model)
    use_sparse_tables(model, settings)
    join(launch())
    processes = Processes(launch())
    tables = DividedTables(model, processes)
    optimiser = build_optimiser(model, settings, tables)
    gradients = Gradients(model.train(), Compute(), processes)

    def batch(seed: int) -> Batch:
        made = random_batch([EVENTS] * USERS, targets=TARGETS, inputs=inputs, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for numbers in (made.history_BLF[..., 0], made.target_BCF[..., 0]):
            # Rank r has a share of about 1 / r.
            rank = (items ** torch.rand(numbers.shape, generator=generator, dtype=torch.float64)).long()
            numbers.copy_(rank.clamp(2, items - 1))
        return made

    batches = [batch(seed) for seed in range(steps + 2)]
    seconds = []
    for one in batches:
        start = time.perf_counter()
        tables.load(one)
        gradients.backward(one, lambda: (False, False))
        clip_gradients(model.parameters(), settings.clip)
        tables.hand_over()
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - start)
    gradients.close()
    rows = statistics.mean(len(one.history_BLF[..., 0].flatten().unique()) for one in batches)
    # The first steps make the optimiser's state and compile.
    return {
        "steps_per_second": 1 / statistics.median(seconds[2:]),
        "best_steps_per_second": 1 / min(seconds[2:]),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "rows_of_histories": rows,
    }


def quality(seed: int, form: str, data: str, examples: int) -> dict[str, float]:
    """Validation AUC of one training."""
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.training.trainer import train

    own = [f"train.seed={seed}", f"train.embeddings={form}", f"train.max_examples={examples}", "train.threads=1"]
    own += [f"train.validate_every={examples // 10 + 1}", "train.validation_examples=20000", "train.batch_targets=400"]
    with tempfile.TemporaryDirectory() as folder:
        artifact = train(Dataset(data), "dnn", f"{folder}/a", config=load_config(None, own), progress=False)
        found: dict[str, float] = artifact.metrics["validation"]
    return found


def child(*words: object, processes: int = 1) -> dict[str, float]:
    """The JSON that this script prints in another process, or in the first of several."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(several if processes > 1 else []), __file__, "--child", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare_speed(sizes: list[int], width: int, steps: int, rounds: int, processes: int) -> dict[str, Any]:
    """All forms in turns."""
    found: dict[str, Any] = {}
    counts = dict.fromkeys(FORMS, 1) | ({"divided": processes} if processes > 1 else {})
    for items in sizes:
        runs: dict[str, list[dict[str, float]]] = {form: [] for form in counts}
        for _ in range(rounds):
            for form, count in counts.items():
                runs[form].append(child("speed", form, items, width, steps, processes=count))
                print(f"{items:>10,} items, {form}: {runs[form][-1]}", flush=True)
        row: dict[str, Any] = {
            form: {name: round(statistics.median(run[name] for run in part), 3) for name in part[0]}
            for form, part in runs.items()
        }
        row["speed_up"] = round(row["sparse"]["steps_per_second"] / row["dense"]["steps_per_second"], 2)
        row["memory_ratio"] = round(row["sparse"]["peak_gb"] / row["dense"]["peak_gb"], 2)
        found[str(items)] = row
        print(f"{items:>10,} items: {row}", flush=True)
    return found


def compare_quality(data: Path | None, seeds: int, examples: int) -> dict[str, Any]:
    """Validation AUC of both forms by seed."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            from lifelong.testing.datasets import tiny_dataset

            data = tiny_dataset(Path(folder) / "data", num_users=200, num_items=300).folder
        found: dict[str, list[float]] = {form: [] for form in FORMS}
        for seed in range(seeds):
            for form in FORMS:
                found[form].append(round(child("quality", seed, form, data, examples)["auc"], 4))
            print(f"seed {seed}: { ({form: part[-1] for form, part in found.items()}) }", flush=True)
    gaps = [sparse - dense for dense, sparse in zip(found["dense"], found["sparse"], strict=True)]
    spread = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else None
    return {
        "auc": found,
        "mean_gap": round(statistics.mean(gaps), 4),
        "standard_error": None if spread is None else round(spread, 4),
        "examples": examples,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[5_000_000])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1, help="of the form `divided`; 1 leaves it out")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--data", type=Path, help="a prepared dataset for --quality")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, *words = arguments.child
        if kind == "speed":
            found = measure(words[0], *map(int, words[1:]))
        else:
            found = quality(int(words[0]), words[1], words[2], int(words[3]))
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
    elif arguments.quality:
        print(json.dumps(compare_quality(arguments.data, arguments.seeds, arguments.examples)))
    else:
        sizes, rounds = arguments.items, arguments.rounds
        found = compare_speed(sizes, arguments.width, arguments.steps, rounds, arguments.processes)
        print(last_line({"width": arguments.width, "items": found}))


if __name__ == "__main__":
    main()
