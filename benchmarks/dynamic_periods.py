"""Fixed against dynamic periods where what matters comes at irregular distances.

A world of sessions: each opens with an event of one of two colours, then up to `--longest` plain events follow, a
number drawn anew for each session. A target has a colour; it is responded to iff the session `--back` sessions ago (1 =
the current one) opened in that colour. So the deciding event is some tens of events away, at no fixed distance, and
every opening after it is a distraction. `hpmn` and `hpmn_dynamic` are trained on the same batches.

    python benchmarks/dynamic_periods.py
    python benchmarks/dynamic_periods.py --back 2 --longest 20 --steps 1500 --seeds 0,1,2

Prints AUC on new users after every `--every` steps, and the rates that were learned. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.offline.data.batch import Batch
from lifelong.offline.evaluation.metrics import auc
from lifelong.offline.models import build
from lifelong.offline.models.base import History, MemoryModel, Model
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.hpmn_dynamic import HpmnDynamic

RED, BLUE, PLAIN = 2, 3, 4
"""Numbers of categories."""


def sessions(users: int, events: int, *, back: int, longest: int, seed: int) -> Batch:
    """Histories of sessions, and four targets a user at positions from the middle on."""
    rng = np.random.default_rng(seed)
    batch = random_batch([events] * users, targets=4, seed=seed)
    category_UL, opening_UL = np.full((users, events), PLAIN), np.zeros((users, events), bool)
    for user in range(users):
        lengths = rng.integers(1, longest + 2, size=events)
        starts = np.cumsum(np.append(rng.integers(0, longest), lengths))
        opening_UL[user, starts[starts < events]] = True
    colour_UL = rng.integers(RED, BLUE + 1, size=category_UL.shape)
    category_UL = np.where(opening_UL, colour_UL, category_UL)
    position_UC = rng.integers(events // 2, events + 1, size=(users, 4))
    target_UC = rng.integers(RED, BLUE + 1, size=position_UC.shape)
    label_UC = np.zeros(position_UC.shape, np.float32)
    for user, target in np.ndindex(*position_UC.shape):
        seen = np.flatnonzero(opening_UL[user, : position_UC[user, target]])
        if len(seen) >= back:
            label_UC[user, target] = colour_UL[user, seen[-back]] == target_UC[user, target]
    batch.history_BLF[..., 1] = torch.from_numpy(category_UL)
    batch.target_BCF[..., 1] = torch.from_numpy(target_UC)
    batch.target_BCF[..., 0] = 1
    return replace(batch, position_BC=torch.from_numpy(position_UC), label_BCT=torch.from_numpy(label_UC).unsqueeze(-1))


def measured(model: Model, fresh: Batch) -> float:
    """AUC on new users."""
    model.eval()
    with torch.no_grad():
        logit = model(fresh).logit_BCT
    model.train()
    return auc(fresh.label_BCT.flatten().numpy(), logit.flatten().numpy()) or 0.5


def trained(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """One model: AUC by step, and rates."""
    torch.manual_seed(seed)
    settings = {"periods": [1, 4, 16], "dropout": 0.0, "covariance": 0.0}
    model = build(name, INPUTS, settings | ({"slack": 3.0} if name == "hpmn_dynamic" else {}))
    assert isinstance(model, MemoryModel)
    optimiser = torch.optim.Adam(model.parameters(), lr=arguments.learning_rate)
    dials = {"back": arguments.back, "longest": arguments.longest}
    fresh, curve = sessions(500, arguments.events, seed=10**6, **dials), []
    for step in range(1, arguments.steps + 1):
        batch = sessions(32, arguments.events, seed=step + 10**4 * seed, **dials)
        output = model(batch)
        loss = binary_cross_entropy_with_logits(output.logit_BCT, batch.label_BCT)
        optimiser.zero_grad()
        sum(output.aux_losses.values(), loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % arguments.every == 0:
            curve.append(round(measured(model, fresh), 4))
            print(f"{name:13} seed {seed} step {step:6} AUC {curve[-1]:.4f}", flush=True)
    history = History(fresh.history_BLF, fresh.time_BL, fresh.length_B)
    with torch.no_grad():
        memory = model.encode(history, fresh.length_B.unsqueeze(-1))
    learned = isinstance(model, HpmnDynamic)
    rates = memory.rate_BS.mean((0, 1)).tolist() if learned else [1 / period for period in model.periods]
    return {"model": name, "seed": seed, "auc": curve, "write_rate": [round(rate, 3) for rate in rates]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("back", 2), ("longest", 15), ("events", 100), ("steps", 1500), ("every", 250)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seeds", default="0,1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = [
        trained(name, int(seed), arguments) for seed in arguments.seeds.split(",") for name in ("hpmn", "hpmn_dynamic")
    ]
    print(json.dumps({"back": arguments.back, "longest": arguments.longest, "runs": runs}))


if __name__ == "__main__":
    main()
