"""Training steps of DIEN on long histories: compiled recurrences against loops that index at every step.

    python benchmarks/dien_throughput.py
    python benchmarks/dien_throughput.py --users 32 --events 300

Whole steps (forward, backward, clip, Adam) with one target per user. `compiled` is the model as it stands. `index` is
the same model with its two recurrences as they are often written: `x[:, t]` read and `out[:, t]` written inside the
loop, each of which makes the backward pass touch the whole tensor at every step. Both give the same loss, which is
checked. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import lifelong.zoo.dien as dien
from lifelong.offline.data.batch import Batch
from lifelong.offline.nn.recurrent import attended_states, gated_gru_step, gru_pass, gru_step
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.dien import Dien, DienConfig


def index_gru_pass(gru: nn.Module, input_BLE: Tensor, length_B: Tensor) -> Tensor:
    """The extractor's pass, indexing."""
    assert isinstance(gru, nn.GRU)
    out_BLD = input_BLE.new_zeros(*input_BLE.shape[:2], gru.hidden_size)
    state_BD = input_BLE.new_zeros(len(input_BLE), gru.hidden_size)
    for t in range(input_BLE.shape[1]):
        state_BD = gru_step(gru, input_BLE[:, t], state_BD)
        out_BLD[:, t] = state_BD
    return out_BLD


def index_augru(gru: nn.Module, input_BLE: Tensor, weight_BCL: Tensor, end_BC: Tensor) -> Tensor:
    """AUGRU, indexing: the last state."""
    assert isinstance(gru, nn.GRU)
    out_BLCD = input_BLE.new_zeros(*input_BLE.shape[:2], weight_BCL.shape[1], gru.hidden_size)
    state_BCD = input_BLE.new_zeros(*weight_BCL.shape[:2], gru.hidden_size)
    for t in range(input_BLE.shape[1]):
        state_BCD = gated_gru_step(gru, input_BLE[:, t].unsqueeze(1), weight_BCL[:, :, t], state_BCD)
        out_BLCD[:, t] = state_BCD
    return out_BLCD[:, -1]


def make(form: str) -> Dien:
    """The model in one of the two forms, with the same weights."""
    torch.manual_seed(0)
    model = Dien(INPUTS, DienConfig(dropout=0.0))
    return model.train()


def step(model: Dien, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    """One step of training; the loss before it."""
    torch.manual_seed(1)
    output = model(batch)
    loss = sum(output.aux_losses.values(), binary_cross_entropy_with_logits(output.logit_BCT, batch.label_BCT))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def measure(form: str, batch: Batch, steps: int, warm: int) -> tuple[float, float]:
    """Samples per second of the best step, and the loss before the first."""
    dien.gru_pass = index_gru_pass if form == "index" else gru_pass
    dien.attended_states = index_augru if form == "index" else attended_states
    model = make(form)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses, best = [], float("inf")
    for number in range(warm + steps):
        start = time.perf_counter()
        losses.append(step(model, batch, optimizer))
        seconds = time.perf_counter() - start
        best = min(best, seconds) if number >= warm else best
        print(f"{form:8} step {number}: {seconds:6.2f} s{'' if number >= warm else ' (not counted)'}", flush=True)
    return len(batch.length_B) / best, losses[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 128), ("events", 1000), ("threads", 1), ("steps", 5), ("index-steps", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = random_batch([arguments.events] * arguments.users, targets=2)
    # The first target of a random batch stands before all events, the last behind them.
    last = {name: getattr(batch, name)[:, -1:] for name in Batch.__slots__ if name.split("_")[-1].startswith("BC")}
    batch = Batch(**{name: last.get(name, getattr(batch, name)) for name in Batch.__slots__})
    good, loss = measure("compiled", batch, arguments.steps, warm=1)
    bad, same = measure("index", batch, arguments.index_steps, warm=0)
    assert abs(loss - same) < 1e-4, f"the two forms differ: loss {loss} and {same}"
    record = {
        "users": arguments.users,
        "events": arguments.events,
        "threads": arguments.threads,
        "samples_per_second": {"compiled": round(good, 1), "index": round(bad, 1)},
        "ratio": round(good / bad, 1),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
