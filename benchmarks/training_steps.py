"""Processor time of training steps on the Complete Journey log: labelled examples per processor second of each model.

    python benchmarks/training_steps.py --threads 2 --steps 40
    python benchmarks/training_steps.py --models tally --data DATA --rounds 3

Models are trained as the demo trains `hpmn`, and as `Model.recipe` says for all others, in turns over several rounds.
A step is everything: reading histories, drawing negatives, forward, backward, optimiser; what comes before the first
step and after the last one is not counted. To compare two versions of the package, run this with the PYTHONPATH of the
one and the other in turn, with `--data`. The last line is JSON: the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path


def rates(model: str, data: Path, threads: int, steps: int) -> tuple[float, float]:
    """Labelled examples per processor second and per second of so many steps."""
    import torch

    from lifelong.cli.demo import TRAINED
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.data.batches import training_batches
    from lifelong.offline.models.base import Model
    from lifelong.offline.training.checkpoint import Checkpoint, Fingerprint
    from lifelong.offline.training.compute import open_compute
    from lifelong.offline.training.display import Display
    from lifelong.offline.training.loop import Loop
    from lifelong.offline.training.settings import batches_for, build_model, with_recipe

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dataset = Dataset(data)
    own = TRAINED[model] if model == "hpmn" else ()
    settings = with_recipe(load_config(None, [*own, f"train.threads={threads}"]), model, dataset).train
    built = build_model(dataset, model, {"width": 48, "hops": 1, "dropout": 0.0} if model == "hpmn" else {})
    assert isinstance(built, Model)
    batches = batches_for(built, dataset, settings)
    loop = Loop(
        built,
        dataset,
        settings=settings,
        batches=batches,
        compute=open_compute(settings),
        checkpoint=Checkpoint(data / "unused", Fingerprint(data_hash="", model=model, settings={}, train={})),
        display=Display(1, enabled=False),
    )
    examples, processor, clock = 0, 0.0, 0.0
    taken = training_batches(batches, epoch=0)
    for place in range(steps + 5):
        if place == 5:
            # The first steps compile, and fill the queue of batches.
            examples, processor, clock = 0, time.process_time(), time.perf_counter()
        number, batch = next(taken)
        loop._step(batch, number, lambda: False)
        examples += int(batch.mask_BC.sum())
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    taken.close()
    return examples / processor, examples / clock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tally,hpmn")
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    for name, default in (("threads", 2), ("steps", 40), ("rounds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    from lifelong.offline.preparation.prepare import prepare

    found: dict[str, list[tuple[float, float]]] = {model: [] for model in options.models.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or prepare("completejourney", [], Path(folder) / "data").folder
        for _ in range(options.rounds):
            for model, each in found.items():
                each.append(rates(model, data, options.threads, options.steps))
                print(
                    f"{model}: {each[-1][0]:,.0f} examples a processor second, {each[-1][1]:,.0f} a second", flush=True
                )
    print(json.dumps({model: round(statistics.median(rate for rate, _ in each)) for model, each in found.items()}))


if __name__ == "__main__":
    main()
