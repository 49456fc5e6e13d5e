"""A training step of `gated_delta`, forward and backward: chunks of events against a loop over them.

`loop` folds `write_vector` over the events, the specification of the model, and keeps the states at the targets'
positions. Both give the same loss, which is checked. One thread, single precision, the best of several repetitions,
interleaved. The last line is JSON.

    python benchmarks/delta_chunks.py
    python benchmarks/delta_chunks.py --users 32 --events 1000 --targets 16 --chunks 16,32,64
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.offline.data.batch import Batch
from lifelong.offline.models.base import Target
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.delta import GatedDelta, GatedDeltaConfig, GatedDeltaMemory
from lifelong.zoo.layers.fold import State, fold_at


def by_chunks(model: GatedDelta, batch: Batch) -> Tensor:
    """Logits of the model as it stands."""
    return model(batch).logit_BCT


def by_loop(model: GatedDelta, batch: Batch) -> Tensor:
    """Logits from states that were written event by event."""

    def step(state: State, event_BE: Tensor) -> State:
        return tuple(model.write_vector(GatedDeltaMemory(*state), event_BE))

    event_BLE = model.embed(batch.history_BLF, model.history_fields)
    start = tuple(model.initial_memory(len(batch.length_B)))
    memory = GatedDeltaMemory(*fold_at(step, start, event_BLE, batch.position_BC))
    return model.respond(memory, Target(batch.target_BCF, batch.context_BCF, batch.target_time_BC))[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 8), ("events", 512), ("targets", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chunks", default="16,32,64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GatedDelta(INPUTS, GatedDeltaConfig(dropout=0.0)).train()
    batch = random_batch([arguments.events] * arguments.users, targets=arguments.targets)
    forms = {"loop": (1, by_loop)} | {
        f"chunks of {size}": (int(size), by_chunks) for size in arguments.chunks.split(",")
    }
    best, losses = dict.fromkeys(forms, float("inf")), {}
    for _ in range(arguments.repeats):
        for name, (size, form) in forms.items():
            model.config = replace(model.config, chunk=size)
            started = time.perf_counter()
            loss = binary_cross_entropy_with_logits(partial(form, model)(batch), batch.label_BCT)
            loss.backward()
            best[name] = min(best[name], time.perf_counter() - started)
            losses[name] = loss.item()
            model.zero_grad()
    assert max(losses.values()) - min(losses.values()) < 1e-5, losses
    for name, seconds in best.items():
        print(f"{name:14} {seconds * 1e3:8.1f} ms   {best['loop'] / seconds:6.1f} times the loop's speed")
    sizes = {name: getattr(arguments, name) for name in ("users", "events", "targets")}
    ratios = {name: round(best["loop"] / seconds, 2) for name, seconds in best.items()}
    print(json.dumps({**sizes, "seconds": best, "ratio_to_loop": ratios}))


if __name__ == "__main__":
    main()
