"""Each setting of a run changes what the run learns: one that is accepted and forgotten fails here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.folder import Dataset
from lifelong.offline.models import build
from lifelong.offline.models.base import Model, Output
from lifelong.offline.training import loop
from lifelong.offline.training.gradients import loss_of
from lifelong.offline.training.optimiser import learning_rate
from lifelong.offline.training.settings import batches_for
from lifelong.offline.training.trainer import train
from lifelong.testing.worlds import INPUTS, random_batch

pytestmark = pytest.mark.usefixtures("no_graphs")


def learned(dataset: Dataset, out: Path, *, model: dict[str, Any] | None = None, **settings: Any) -> torch.Tensor:
    """All weights of a short run, one after another; of the first validation, which is the only one."""
    own = {"min_steps": 0, "seed": 3, "threads": 1, "max_epochs": 1, "max_targets": 10, "batch_targets": 50}
    run = TrainSettings.model_validate({**own, "validate_every": 1.0, **settings})
    artifact = train(dataset, "dnn", out, config=RunConfig(train=run, model=model or {}), progress=False)
    weights = load_file(artifact.path / "weights.safetensors")
    return torch.cat([weights[name].float().flatten() for name in sorted(weights)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("clip", 1e-7), ("schedule", "cosine"), ("weight_decay", 0.5), ("learning_rate", 0.1), ("negatives", 3)),
        *(("seed", 4), ("model", {"dropout": 0.5})),
    ],
)
def test_a_setting_of_training_changes_what_is_learned(
    dataset: Dataset, tmp_path: Path, name: str, value: object
) -> None:
    plain, other = learned(dataset, tmp_path / "plain"), learned(dataset, tmp_path / "other", **{name: value})
    assert not torch.equal(plain, other)


def test_every_step_takes_the_rate_that_the_schedule_has_at_that_many_examples(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, wanted = [], []

    def step(optimiser: Any) -> None:
        taken.append({group["lr"] for group in optimiser.param_groups})
        stepped(optimiser)

    def rate(settings: TrainSettings, examples: int, total: int) -> float:
        wanted.append(learning_rate(settings, examples, total))
        return wanted[-1]

    stepped = loop.build_optimiser(torch.nn.Linear(1, 1), TrainSettings()).__class__.step
    monkeypatch.setattr("lifelong.offline.training.optimiser.Optimiser.step", step)
    monkeypatch.setattr(loop, "learning_rate", rate)
    learned(dataset, tmp_path / "out", schedule="cosine", learning_rate=0.01)
    assert len(taken) > 3
    assert all(len(one) == 1 for one in taken)
    assert [one.pop() for one in taken] == sorted(set(wanted), reverse=True)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, None) for name in ("dnn", "din", "hpmn", "tally", "sim", "lr", "fm", "mf", "svdpp", "fpmc")),
        *(("dnn", head) for head in ("mmoe", "ple", "esmm")),
    ],
)
def test_the_head_drops_units_in_training_and_nowhere_else(name: str, head: str | None) -> None:
    inputs = INPUTS if head is None else replace(INPUTS, tasks=("any", "buy"))
    model = build(name, inputs, {"dropout": 0.5} | ({} if head is None else {"head": head}))
    batch = random_batch([6, 9, 12], targets=4, inputs=inputs)
    assert isinstance(model, Model)
    with torch.no_grad():
        # Some models begin with zeros, of which nothing can be dropped.
        for parameter in model.parameters():
            parameter.normal_(std=0.1)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(batch).logit_BCT

    model.train()
    assert not torch.equal(logits(), logits())
    model.eval()
    assert torch.equal(logits(), logits())


def test_the_weights_of_targets_reach_the_loss() -> None:
    batch = random_batch([3, 4], targets=2)
    output = Output(torch.randn(2, 2, 1, generator=torch.Generator().manual_seed(0)))
    weight_BC = torch.tensor([[3.0, 0.0], [0.5, 0.5]])
    alone = [
        loss_of(output, replace(batch, weight_BC=torch.eye(4)[place].view(2, 2))).cross_entropy for place in range(4)
    ]
    weighted = sum(float(weight) * float(one) for weight, one in zip(weight_BC.flatten(), alone, strict=True))
    assert float(loss_of(output, replace(batch, weight_BC=weight_BC)).cross_entropy) == pytest.approx(weighted)


def test_the_search_loss_of_soft_sim_teaches_the_embeddings() -> None:
    model, batch = build("sim_soft", INPUTS, {}), random_batch([6, 9, 12], targets=4)
    assert isinstance(model, Model)
    (term,) = model(batch).aux_losses.values()
    torch.autograd.backward(term)
    tables = [table.weight.grad for table in model.tables()]
    assert any(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in tables)


@pytest.mark.parametrize(
    ("name", "config", "period"),
    [
        ("hpmn", {"periods": [1, 3, 9]}, 9),
        ("hpmn_counts", {"periods": [1, 3, 9]}, 9),
        ("tally", {"periods": [1, 2, 10]}, 10),
        ("gru4rec", {}, 1),
    ],
)
def test_training_windows_start_where_every_slot_of_the_model_is_written(
    name: str, config: dict[str, Any], period: int, dataset: Dataset
) -> None:
    # Otherwise a slot is written at other events in training than in the service, which begins with the first event.
    settings = TrainSettings(max_history=20, overlap=0, threads=1)
    batches, examples = batches_for(build(name, dataset.inputs, config), dataset, settings), dataset.examples("train")
    starts = set[int]()
    for number, pass_B in enumerate(batches.epoch(0)):
        batch = batches.make(pass_B, 0, number)
        shown_BC = batch.mask_BC & (batch.example_BC >= 0)
        true_N = examples.position_N[batch.example_BC[shown_BC].numpy()]
        starts |= set((true_N - batch.position_BC[shown_BC].numpy()).tolist())
    assert all(start % period == 0 for start in starts)
    # The window is as long as it may be: a model without periods is not cut as one with them.
    assert min(starts - {0}) == (20 // period * period) - period
