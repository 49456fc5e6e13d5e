"""Histories in chunks, the memory carried on."""

from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor

from lifelong.config import RunConfig, TrainSettings
from lifelong.data.batch import Batch
from lifelong.errors import ConfigError
from lifelong.models import build
from lifelong.models.base import MemoryModel
from lifelong.testing.datasets import tiny_dataset
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.training.chunks import chunk_size, chunks, losses_of
from lifelong.training.losses import Loss, loss_of
from lifelong.training.parallel import ParallelGradients
from lifelong.training.trainer import train

pytestmark = pytest.mark.torch
CHUNK = 32


def ragged() -> Batch:
    """Users of several chunks, of a whole one, of less than one, and of no event; targets at and around the borders."""
    batch = random_batch([100, 64, 33, 7, 0], targets=12)
    for place, position in enumerate((31, 32, 33, 64, 65, 95, 96, 97)):
        batch.position_BC[0, 2 + place] = position
    batch.position_BC[:] = batch.position_BC.sort(dim=1).values
    batch.mask_BC[1, 9:] = False
    batch.mask_BC[3, 5:] = False
    return batch


def memory_model(name: str) -> MemoryModel:
    torch.manual_seed(0)
    model = build(name, INPUTS, {"dropout": 0.0})
    assert isinstance(model, MemoryModel)
    return model.double()


def logits_in_chunks(model: MemoryModel, batch: Batch) -> Tensor:
    """The logits of the real targets, user after user."""
    memory, found = model.initial_memory(len(batch.length_B)), torch.zeros(batch.mask_BC.shape, dtype=torch.float64)
    for part in chunks(batch, CHUNK):
        output, memory = model.go_on(memory, part)
        for user, places in enumerate(part.example_BC):
            for place, target in enumerate(places[part.mask_BC[user]].tolist()):
                found.view(-1)[target] = output.logit_BCT[user, place, 0]
    return found


@pytest.mark.parametrize("name", ["hpmn", "gru4rec"])
def test_logits_are_those_of_the_whole_history(name: str) -> None:
    model, batch = memory_model(name), ragged()
    whole = model(batch).logit_BCT[..., 0]
    mask_BC = batch.mask_BC
    torch.testing.assert_close(logits_in_chunks(model, batch)[mask_BC], whole[mask_BC], rtol=0, atol=1e-12)


def test_every_target_is_in_one_chunk_and_no_chunk_is_longer() -> None:
    batch = ragged()
    parts = list(chunks(batch, CHUNK))
    assert len(parts) == 4
    assert all(part.history_BLF.shape[1] <= CHUNK and int(part.position_BC.max()) <= CHUNK for part in parts)
    seen = torch.cat([part.example_BC[part.mask_BC] for part in parts])
    assert sorted(seen.tolist()) == batch.example_BC[batch.mask_BC].tolist()
    assert sum(int(part.length_B.sum()) for part in parts) == int(batch.length_B.sum())


def gradients(model: MemoryModel, losses: list[Loss]) -> list[Tensor]:
    total = torch.stack([loss.total for loss in losses]).sum()
    found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [
        torch.zeros_like(parameter) if one is None else one
        for one, parameter in zip(found, model.parameters(), strict=True)
    ]


def test_losses_add_up_to_that_of_the_whole_and_the_gradient_ends_at_chunks() -> None:
    model, batch = memory_model("hpmn"), ragged()
    whole = loss_of(model(batch), batch)
    parts = list(losses_of(model, batch, 1.0, chunk=CHUNK, autocast=nullcontext))
    assert len(parts) == 4
    torch.testing.assert_close(sum(part.total for part in parts), whole.total, rtol=0, atol=1e-12)
    torch.testing.assert_close(sum(part.cross_entropy for part in parts), whole.cross_entropy, rtol=0, atol=1e-12)
    names = [name for name, _ in model.named_parameters()]
    in_chunks, at_once = (dict(zip(names, gradients(model, losses), strict=True)) for losses in (parts, [whole]))
    for name in names:
        if name.startswith(("head", "scores")):
            torch.testing.assert_close(in_chunks[name], at_once[name], rtol=0, atol=1e-10)
    assert not torch.allclose(
        in_chunks["memory.layers.0.weight_hh_l0"], at_once["memory.layers.0.weight_hh_l0"], atol=1e-10
    )


def test_parts_in_threads_give_the_gradients_of_the_batch() -> None:
    model, batch = memory_model("hpmn"), ragged()
    expected = gradients(model, list(losses_of(model, batch, 1.0, chunk=CHUNK, autocast=nullcontext)))
    parallel = ParallelGradients(model, 2, nullcontext, chunk=CHUNK)
    parallel.backward(batch)
    parallel.close()
    for gradient, parameter in zip(expected, model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-9)


def test_a_run_in_chunks_labels_every_target_and_cuts_nothing(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "data", mean_events=90)
    settings = TrainSettings(threads=1, history="chunks", max_history=40, max_epochs=1, batch_events=512)
    record = train(
        dataset, "hpmn", tmp_path / "out", config=RunConfig(train=settings, model={"width": 8}), progress=False
    ).metrics
    assert record["examples_seen"] == 2 * len(dataset.examples("train"))
    assert record["cut"]["cut_windows"] == 0


@pytest.mark.parametrize(
    ("name", "max_history", "named"),
    [("din", 1024, "DIN"), ("hpmn", 31, "at least the largest period, 32"), ("hpmn", None, "max_history is None")],
)
def test_chunks_that_cannot_be_are_refused(name: str, max_history: int | None, named: str) -> None:
    model = build(name, INPUTS, {})
    with pytest.raises(ConfigError, match=named):
        chunk_size(model, TrainSettings(history="chunks", max_history=max_history))  # type: ignore[arg-type]


def test_a_chunk_is_a_multiple_of_the_largest_period() -> None:
    settings = TrainSettings(history="chunks", max_history=100)
    assert chunk_size(memory_model("hpmn"), settings) == 96
    assert chunk_size(memory_model("gru4rec"), settings) == 100
    assert chunk_size(memory_model("hpmn"), TrainSettings()) is None
