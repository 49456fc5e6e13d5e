"""What two processes of torchrun do together in `test_processes.py`: each writes what it saw to OUT/<rank>.json."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

# Started as a script.
sys.path.insert(0, str(Path(__file__).parents[1]))

from lifelong.artifact.folder import Artifact
from lifelong.cli import main
from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError
from lifelong.launch import launch
from lifelong.offline.data.batch import Batch
from lifelong.offline.evaluation.divided_tables import DividedTables
from lifelong.offline.evaluation.evaluate import evaluate, predict
from lifelong.offline.evaluation.processes import Processes, join
from lifelong.offline.export import saving
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import build
from lifelong.offline.models.base import Model
from lifelong.offline.training import loop
from lifelong.offline.training.compute import Compute
from lifelong.offline.training.display import Display
from lifelong.offline.training.gradients import Gradients, loss_of, masked_cross_entropy, part_of
from lifelong.offline.training.loop import first_targets
from lifelong.offline.training.optimiser import Optimiser, build_optimiser
from lifelong.offline.training.trainer import train
from lifelong.testing.worlds import INPUTS, random_batch
from support.artifacts import empty_graphs
from support.steps import after_steps

SETTINGS = {
    "min_steps": 0,
    "seed": 3,
    "threads": 1,
    "max_epochs": 2,
    "max_targets": 10,
    "batch_targets": 200,
    "validate_every": 0.5,
    "answer_minutes": 2.0,
}
MODELS: dict[str, dict[str, Any]] = {
    "hpmn": {"covariance": 0.5},
    "mimn": {"utilisation": 1.0},
    "hpmn_authors": {"authors_mode": True, "covariance": 0.1},
    "dien": {},
    "din": {},
    "sim": {"search": "soft"},
    "mf": {},
}
SPARSE = ("din", "mf")
"""Those of them that are tried with sparse tables."""


def run_config(**changes: Any) -> RunConfig:
    return RunConfig(train=TrainSettings.model_validate({**SETTINGS, **changes}), model={"dropout": 0.0})


def make_model(name: str) -> Model:
    torch.manual_seed(0)
    model = build("hpmn" if name == "hpmn_authors" else name, INPUTS, {"dropout": 0.0, **MODELS[name]})
    assert isinstance(model, Model)
    return model.double().eval()


def ragged() -> Batch:
    """Five users; targets of some are padding, so that the processes have different numbers of them."""
    batch = random_batch([40, 3, 17, 33, 9], targets=6)
    for user, real in enumerate([6, 1, 2, 6, 3]):
        batch.mask_BC[user, real:] = False
    return batch


BATCHES: dict[str, Callable[[], Batch]] = {
    "ragged": ragged,
    "one user": lambda: random_batch([12], targets=3),
    "a part without targets": lambda: first_targets(ragged(), 4),
}


def gradients(model: Model) -> list[torch.Tensor]:
    return [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
        for parameter in model.parameters()
    ]


def gradient_errors(processes: Processes) -> dict[str, Any]:
    """By model and batch: how far loss and gradients are from those of the whole batch."""
    join(processes.place)
    found: dict[str, Any] = {}
    for name in MODELS:
        for kind, make in BATCHES.items():
            model, batch = make_model(name), make()
            for table in model.tables():
                table.sparse = name in SPARSE
            whole = dien_loss(model, batch) if name == "dien" else loss_of(model(batch), batch).total
            torch.autograd.backward(whole)
            expected = gradients(model)
            model.zero_grad()
            step = Gradients(model, Compute(), processes).backward(batch, lambda: (processes.rank == 1, False))
            error = max(float((one - two).abs().max()) for one, two in zip(gradients(model), expected, strict=True))
            size = max(float(part.abs().max()) for part in expected)
            found[f"{name}, {kind}"] = {
                "gradient": error / size,
                "loss": abs(float(step.loss.total) - whole.item()) / abs(whole.item()),
                "answers": step.answers,
            }
    return found


def dien_loss(model: Model, batch: Batch) -> torch.Tensor:
    """Of a whole batch whose sampled events come from the processes' own parts: each mean over all of its things."""
    parts = [part for place in range(2) if (part := part_of(batch, place, 2)) is not None]
    outputs = [model(part) for part in parts]
    loss = torch.zeros(())
    for output, part in zip(outputs, parts, strict=True):
        own = masked_cross_entropy(output.logit_BCT, part.label_BCT, part.mask_BC)
        loss = loss + own * part.mask_BC.sum() / batch.mask_BC.sum()
    for name in ("next_event", "other_event"):
        size = sum(float(output.aux_sizes[name]) for output in outputs)
        assert size > 0
        for output in outputs:
            loss = loss + output.aux_losses[name] * output.aux_sizes[name] / size
    return loss


def rows(processes: Processes) -> list[Any]:
    """Process 0 has one row, process 1 three."""
    index = torch.arange(1 + 2 * processes.rank) + 10 * processes.rank
    where, value = processes.rows(index, index.float().unsqueeze(-1))
    return [where.tolist(), value[:, 0].tolist()]


def spread(processes: Processes) -> list[Any]:
    """What of each kind of number comes from the first process."""
    kinds = (torch.float32, torch.float16, torch.int64, torch.int16, torch.bool)
    some = [torch.tensor([[1 - processes.rank]], dtype=kind) for kind in kinds]
    processes.spread(some)
    return [value.tolist() for value in some]


def failures(processes: Processes) -> dict[str, str]:
    """What each process gets told when the first fails, and when they do not agree."""

    def fail() -> None:
        raise LifelongError("the disk is full")

    told = {}
    for name, call in {
        "first": lambda: processes.on_first(fail),
        "same": lambda: processes.check_same({"the data": processes.rank}),
        "sim": lambda: Gradients(cluster_sim(), Compute(), processes),
    }.items():
        try:
            call()
        except LifelongError as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


def cluster_sim() -> Model:
    model = build("sim", INPUTS, {"search": "cluster"})
    assert isinstance(model, Model)
    return model


def divided(dataset: Dataset, out: Path, rank: int) -> dict[str, Any]:
    """Of models with sparse tables: weights in OUT/<form> <model>, and which share of tables and moments is here."""
    found: dict[str, Any] = {}
    for name in SPARSE:
        optimisers: list[Optimiser] = []

        def build_and_keep(*given: Any, kept: list[Optimiser] = optimisers) -> Optimiser:
            kept.append(build_optimiser(*given))
            return kept[-1]

        options: dict[str, Any] = {"config": run_config(embeddings="sparse"), "progress": False}
        with mock.patch.object(loop, "build_optimiser", build_and_keep):
            train(dataset, name, out / f"divided {name}", **options)
        with mock.patch.object(loop, "DividedTables", lambda model, _: DividedTables(model, Processes())):
            train(dataset, name, out / f"whole {name}", **options)
        place = out / f"resumed {name}"
        assert "--resume" in interrupted(dataset, place, rank, model=name, embeddings="sparse")
        train(dataset, name, place, **options, resume=True)
        tables = [table.weight.numel() for table in load_model(Artifact.open(place)).tables()]
        (state,) = [part for part in optimisers[0]._parts if isinstance(part, torch.optim.SparseAdam)]
        kept = sum(own.numel() for group in state.param_groups for own in group["params"])
        moments = [
            value for entry in state.state.values() for value in entry.values() if isinstance(value, torch.Tensor)
        ]
        found[name] = (kept + sum(moment.numel() for moment in moments)) / (3 * sum(tables))
    return found


def interrupted(dataset: Dataset, out: Path, rank: int, model: str = "dnn", **changes: Any) -> str:
    """Ctrl-C in process 1 alone, after its third step."""
    interruption = after_steps(3, lambda: signal.raise_signal(signal.SIGINT)) if rank == 1 else contextlib.nullcontext()
    try:
        with interruption:
            train(dataset, model, out, config=run_config(**changes), progress=False)
    except KeyboardInterrupt as error:
        return str(error)
    return "not interrupted"


def command(*words: object) -> list[Any]:
    """Exit code and stdout of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        code = main([str(word) for word in words])
    return [code, stdout.getvalue()]


def summary(artifact: Artifact) -> dict[str, Any]:
    record = artifact.metrics
    names = ("examples_seen", "steps", "stopped_by", "processes", "learning_curve", "validation")
    return {"id": artifact.id, **{name: record[name] for name in names}}


def write_threads(out: Path) -> None:
    """The names of the threads that this process still has, by the operating system."""
    tasks = Path("/proc/self/task").iterdir()
    out.write_text(json.dumps([(task / "comm").read_text().strip() for task in tasks]))


def together(data: Path, out: Path) -> None:
    """Everything, once."""
    saving.write_graphs = empty_graphs
    dataset, place = Dataset(data), launch()
    # What is registered first is called last: after the process group has ended.
    atexit.register(write_threads, out / f"threads-{place.rank}.json")
    processes = Processes(place)
    found: dict[str, Any] = {"gradients": gradient_errors(processes), "rows": rows(processes)}
    found["spread"] = spread(processes)
    found["failures"] = failures(processes)
    trained = train(dataset, "dnn", out / "two", config=run_config(), progress=False)
    found["two"] = summary(trained)
    found["late"] = summary(train(dataset, "dnn", out / "late", config=run_config(max_minutes=1e-6), progress=False))
    found["resumed"] = summary(
        train(dataset, "dnn", out / "begun-alone", config=run_config(), resume=True, progress=False)
    )
    found["interrupted"] = interrupted(dataset, out / "begun-together", place.rank)
    found["divided"] = divided(dataset, out, place.rank)
    alone = Artifact.open(out / "alone")
    examples = dataset.examples("test")
    logit_NT = predict(load_model(alone), dataset, examples, processes=processes)
    np.save(out / f"logits-{place.rank}.npy", logit_NT)
    found["record"] = evaluate(alone, dataset, delays=(0, 86_400), bootstrap=20).model_dump(mode="json")
    found["evaluate"] = command("evaluate", out / "alone", data, "--json")
    found["models"] = command("models", "--json")
    (out / f"{place.rank}.json").write_text(json.dumps(found))


def lonely(data: Path, out: Path, fate: str) -> int:
    """A training, of which process 1 meets a fate; its exit code."""
    saving.write_graphs = empty_graphs
    step, place = Display.step, launch()

    def ending(self: Display, examples: int, speed: float, loss: float) -> None:
        step(self, examples, speed, loss)
        # Not before the first checkpoint, where another attempt has to go on.
        if fate == "dies" or (fate == "dies once" and place.restarts == 0 and examples > 1_500):
            os._exit(9)
        if fate == "hangs":
            signal.pause()

    if place.rank == 1:
        Display.step = ending
        # As on a machine that does not share the first one's disk.
        out = out.with_name("elsewhere") if fate == "is elsewhere" else out
    minutes = 0.05 if fate in ("dies", "hangs") else 0.5
    settings = {**SETTINGS, "answer_minutes": minutes}
    sets = [part for name, value in settings.items() for part in ("--set", f"train.{name}={value}")]
    as_json = [] if fate == "dies once" else ["--json"]
    return main(["train", str(data), "--model", "dnn", "--out", str(out), *sets, *as_json])


if __name__ == "__main__":
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) == 3:
        together(data, out)
    else:
        sys.exit(lonely(data, out, sys.argv[3]))
