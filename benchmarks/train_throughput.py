"""Training speed end to end: labelled examples and events a second of each contender, on the same data and threads.

    python benchmarks/train_throughput.py
    python benchmarks/train_throughput.py --lengths 1000 --contenders hpmn:32,stacked --threads 1

A contender is `model:targets`, a model of this package with so many labelled targets per user and pass (half of them
drawn negatives; a single one is stored with label 0 or 1), or one of

    stacked     HPMN as a stack of `nn.GRU`, layer j over every k-th output of the layer below, one target a pass, all
                users padded to one length: the shapes of its authors' graph, with this package's read and head
    rechub      DIN of torch-rechub, one target a pass; `--public PYTHON` names an interpreter that has it:
                    python -m venv DIR && DIR/bin/pip install torch-rechub        then --public DIR/bin/python

Each in a process of its own, in turns over several rounds. A step is everything: reading histories, drawing negatives,
forward, backward, optimiser. Rates are those of the best step by the clock, and per processor second, which other work
on the machine changes less. The data are made anew: users with equally many events, items by popularity. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from printed import last_line

ITEMS, CATEGORIES = 50_000, 500
PERIODS = (1, 2, 4, 8, 16, 32)
OWN = "gru4rec:32,din:32,dien:32,sim:32,eta:32,sdim:32"
Record = dict[str, float]


def make_data(folder: Path, users: int, events: int, targets: int) -> None:
    """Write a prepared dataset: per user half of `targets` as positives, or one label, in her second half."""
    from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
    from lifelong.dataset.events import Schema
    from lifelong.dataset.examples import SPLITS, Examples
    from lifelong.dataset.folder import FORMAT_VERSION, Manifest, NegativeRule, array_hash, write_manifest
    from lifelong.dataset.histories import Histories
    from lifelong.dataset.vocabulary import IdIndex, Vocabulary

    rng, names = np.random.default_rng(0), [f"i{item}" for item in range(ITEMS)]
    vocabularies = {
        "item": Vocabulary.build(names, buckets=8),
        "category": Vocabulary.build([f"c{place}" for place in range(CATEGORIES)]),
    }
    number_VF = np.zeros((FIRST_ROW + ITEMS, 2), np.int32)
    number_VF[1], number_VF[FIRST_ROW:, 0] = 1, vocabularies["item"].numbers(names)
    number_VF[FIRST_ROW:, 1] = vocabularies["category"].numbers([f"c{item % CATEGORIES}" for item in range(ITEMS)])
    for field, vocabulary in vocabularies.items():
        vocabulary.save(folder / "vocabulary" / field)
    Catalogue(IdIndex.build(names), number_VF, vocabularies).save(folder / "catalogue")
    IdIndex.build([f"u{user}" for user in range(users)]).save(folder / "users")
    row_UL = (FIRST_ROW + (ITEMS * rng.random((users, events)) ** 3).astype(np.int32)).astype(np.int32)
    time_UL = np.broadcast_to(1_600_000_000 + 60 * np.arange(events), (users, events))
    total = users * events
    Histories(
        np.arange(users + 1, dtype=np.int64) * events, row_UL.ravel(), time_UL.ravel(), np.arange(total, dtype=np.int64)
    ).save(folder / "histories")
    stored = max(1, targets // 2)
    position_C = np.linspace(events // 2, events - 1, stored + 1).astype(np.int32)[1:]
    user_N, position_N = np.repeat(np.arange(users, dtype=np.int32), stored), np.tile(position_C, users)
    label_NT = np.ones((len(user_N), 1), np.float32)
    if targets == 1:
        label_NT[:, 0] = rng.integers(0, 2, len(user_N))
    examples = Examples(user_N, row_UL[user_N, position_N], time_UL[user_N, position_N], position_N, label_NT)
    for split in SPLITS:
        if split != "train":
            examples.label_NT[::2] = 0
        examples.save(folder / "examples" / split)
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            name="throughput",
            source="synthetic",
            protocol="temporal",
            dataset_schema=Schema(item_fields=("item", "category"), event_types=False),
            negatives=NegativeRule(rule="none" if targets == 1 else "popularity"),
            cut_times=(2**40, 2**41),
            counts={"users": users, "events": total, "items": ITEMS},
            base_rate=None,
            data_hash=array_hash(folder),
            record={},
        ),
    )


def own_steps(model: str, targets: int, data: Path, users: int, threads: int) -> Iterator[tuple[int, int]]:
    """Steps of a model as `lifelong train` takes them; labelled examples and events of each."""
    import torch

    from lifelong.config import RunConfig, TrainSettings
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.data.batches import TrainingBatches, training_batches
    from lifelong.offline.models.base import Model
    from lifelong.offline.training.checkpoint import Checkpoint, Fingerprint
    from lifelong.offline.training.compute import open_compute
    from lifelong.offline.training.display import Display
    from lifelong.offline.training.loop import Loop
    from lifelong.offline.training.settings import build_model, largest_period

    dataset = Dataset(data)
    events = len(dataset.histories.row_N) // dataset.histories.num_users
    config = RunConfig(
        train=TrainSettings(
            threads=threads,
            device="cpu",
            max_history=None,
            max_targets=max(1, targets),
            batch_events=users * events,
            batch_targets=users * targets,
        )
    )
    torch.manual_seed(0)
    built = build_model(dataset, model, config.model)
    assert isinstance(built, Model)
    batches = TrainingBatches(dataset, config.train, phase=largest_period(built))
    loop = Loop(
        built,
        dataset,
        settings=config.train,
        batches=batches,
        compute=open_compute(config.train),
        checkpoint=Checkpoint(data / "unused", Fingerprint(data_hash="", model=model, settings={}, train={})),
        display=Display(1, enabled=False),
    )
    for epoch in range(1_000_000):
        for number, batch in training_batches(batches, epoch=epoch):
            loop._step(batch, number, lambda: False)
            yield int(batch.mask_BC.sum()), int(batch.length_B.sum())


def padded_batches(data: Path, users: int) -> Iterator[tuple[Any, Any, Any]]:
    """Whole histories of random users, a true or random item as the target, and its label."""
    offset_U, row_N = np.load(data / "histories/offset.npy"), np.load(data / "histories/row.npy", mmap_mode="r")
    number_VF = np.load(next((data / "catalogue").glob("number*.npy")))
    rng, events = np.random.default_rng(0), int(offset_U[1])
    while True:
        user_B = rng.integers(0, len(offset_U) - 1, users)
        row_BL = row_N[offset_U[user_B][:, None] + np.arange(events)]
        label_B = rng.integers(0, 2, users).astype(np.float32)
        target_B = np.where(label_B > 0, row_BL[:, -1], row_N[rng.integers(0, len(row_N), users)])
        yield number_VF[row_BL[:, :-1]].astype(np.int64), number_VF[target_B].astype(np.int64), label_B


def stacked_steps(data: Path, users: int, threads: int) -> Iterator[tuple[int, int]]:
    """Steps of HPMN as stacked `nn.GRU`."""
    import torch
    from torch import nn

    from lifelong.offline.nn.attention import PairScore
    from lifelong.offline.nn.embeddings import FieldEmbedding
    from lifelong.offline.nn.head import Head

    class Stacked(nn.Module):
        """One target a user; the read of `lifelong.offline.models.hpmn`."""

        def __init__(self, width: int = 32, hops: int = 3) -> None:
            super().__init__()
            sizes = {"item": ITEMS + 10, "category": CATEGORIES + 10}
            self.embed = FieldEmbedding(sizes, 16)
            self.layers = nn.ModuleList(nn.GRU(32, width, batch_first=True) for _ in PERIODS)
            self.query, self.pass_on = nn.Linear(32, width), nn.Linear(width, width, bias=False)
            self.scores = nn.ModuleList(PairScore(width) for _ in range(hops))
            self.head = Head(width + 32, 1, dropout=0.1)

        def forward(self, history: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            hidden_BLD, slots = self.embed(history, ("item", "category")), []
            for layer, stride in zip(self.layers, (1, *[2] * (len(PERIODS) - 1)), strict=True):
                hidden_BLD = layer(hidden_BLD[:, stride - 1 :: stride])[0]
                slots.append(hidden_BLD[:, -1])
            slot_BSD, target_BE = torch.stack(slots, dim=1), self.embed(target, ("item", "category"))
            query = self.query(target_BE)
            for score in self.scores:
                weight_BS = score(query, slot_BSD).softmax(dim=-1)
                query = self.pass_on(query) + (weight_BS.unsqueeze(-1) * slot_BSD).sum(dim=1)
            logit: torch.Tensor = self.head(query, target_BE, target_BE[:, :0])
            return logit.squeeze(-1)

    torch.set_num_threads(threads)
    model = Stacked()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for history, target, label in padded_batches(data, users):
        logit = model(torch.from_numpy(history), torch.from_numpy(target))
        loss = nn.functional.binary_cross_entropy_with_logits(logit, torch.from_numpy(label))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield len(label), history.shape[0] * history.shape[1]


def rechub_din(sizes: dict[str, int]) -> Any:
    """torch-rechub's DIN over fields of so many numbers, histories called `h_FIELD`; needs nothing of this package."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import DIN

    target = [SparseFeature(name, vocab_size=size, embed_dim=16) for name, size in sizes.items()]
    history = [
        SequenceFeature(f"h_{name}", vocab_size=size, embed_dim=16, pooling="concat", shared_with=name)
        for name, size in sizes.items()
    ]
    return DIN(
        features=target,
        history_features=history,
        target_features=target,
        mlp_params={"dims": [200, 80]},
        attention_mlp_params={"dims": [80, 40]},
    )


def rechub_steps(data: Path, users: int, threads: int) -> Iterator[tuple[int, int]]:
    """Steps of torch-rechub's DIN, with its own embedding, model and loss."""
    import torch

    torch.set_num_threads(threads)
    sizes = {"item": ITEMS + 10, "category": CATEGORIES + 10}
    model = rechub_din(sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for past, item, label in padded_batches(data, users):
        fields = {name: torch.from_numpy(item[:, place]) for place, name in enumerate(sizes)}
        fields |= {f"h_{name}": torch.from_numpy(past[..., place]) for place, name in enumerate(sizes)}
        loss = torch.nn.functional.binary_cross_entropy(model(fields), torch.from_numpy(label))
        model.zero_grad()
        loss.backward()
        optimizer.step()
        yield len(label), past.shape[0] * past.shape[1]


def child(contender: str, data: Path, users: int, threads: int, steps: int) -> None:
    """Take steps, the first of them not counted, and print the best rates."""
    others: dict[str, Callable[[Path, int, int], Iterator[tuple[int, int]]]] = {
        "stacked": stacked_steps,
        "rechub": rechub_steps,
    }
    if contender in others:
        taken = others[contender](data, users, threads)
    else:
        model, _, targets = contender.partition(":")
        taken = own_steps(model, int(targets), data, users, threads)
    best: Record = {}
    for number in range(steps + 1):
        clock, processor = time.perf_counter(), time.process_time()
        examples, events = next(taken)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        if number:
            found = {"examples_per_second": examples / clock, "examples_per_processor_second": examples / processor}
            found |= {"events_per_second": events / clock, "events_per_processor_second": events / processor}
            best = {name: max(value, best.get(name, 0.0)) for name, value in found.items()}
    print(json.dumps(best))


def measure(contenders: list[str], folder: Path, events: int, options: argparse.Namespace) -> dict[str, Record]:
    """The best rates of each contender at one length; those that cannot run are left out, with the reason."""
    best: dict[str, Record] = {}
    for number in range(options.rounds):
        for contender in contenders if number == 0 else list(best):
            targets = 1 if contender in ("stacked", "rechub") else int(contender.partition(":")[2])
            python = options.public if contender == "rechub" else sys.executable
            if python is None:
                print("rechub is left out: no --public interpreter (see --help)", flush=True)
                continue
            words = ["--child", contender, str(folder / f"{events}-{targets}"), str(options.users)]
            words += [str(options.threads), str(options.steps)]
            done = subprocess.run([python, __file__, *words], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{contender} is left out: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            found, before = json.loads(done.stdout.splitlines()[-1]), best.get(contender, {})
            best[contender] = {name: round(max(value, before.get(name, 0.0)), 1) for name, value in found.items()}
    return best


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        contender, data, *numbers = sys.argv[2:]
        child(contender, Path(data), *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="100,1000", help="events of a user, such as 100,1000,10000")
    parser.add_argument("--contenders", default=f"stacked,hpmn:1,hpmn:32,{OWN},rechub")
    parser.add_argument("--public", help="python that has torch-rechub")
    for name, default in (("users", 128), ("threads", 1), ("steps", 3), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    contenders, results = options.contenders.split(","), {}
    kinds = {1 if name in ("stacked", "rechub") else int(name.partition(":")[2]) for name in contenders}
    with tempfile.TemporaryDirectory() as name:
        for events in map(int, options.lengths.split(",")):
            for targets in kinds:
                make_data(Path(name) / f"{events}-{targets}", 2 * options.users, events, targets)
            results[events] = best = measure(contenders, Path(name), events, options)
            base = best.get("stacked", {})
            for contender, rates in best.items():
                times = rates["examples_per_processor_second"] / base.get("examples_per_processor_second", float("nan"))
                print(
                    f"{events:>6} events  {contender:11} {rates['examples_per_second']:>10,.0f} examples/s "
                    f"{rates['events_per_second']:>12,.0f} events/s   per processor second "
                    f"{rates['examples_per_processor_second']:>10,.0f} ({times:.1f} times stacked)",
                    flush=True,
                )
    print(last_line({"users": options.users, "threads": options.threads, "rates": results}))


if __name__ == "__main__":
    main()
