"""LR against a naive transcription: loops over users, targets, events and fields, sets of seen values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from finding import assert_logits_agree, rows_of
from support.artifacts import tiny_artifact
from torch import Tensor

from lifelong.dataset.events import InputSpec
from lifelong.offline.data.batch import Batch
from lifelong.offline.export.saving import load_model
from lifelong.offline.models.base import Event, MemoryModel, Target
from lifelong.testing.datasets import tiny_dataset
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.lr import Lr, LrConfig


def make(inputs: InputSpec = INPUTS, seed: int = 0) -> Lr:
    torch.manual_seed(seed)
    model = Lr(inputs, LrConfig()).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def naive_logit(model: Lr, batch: Batch, user: int, place: int) -> Tensor:
    """Scores b + sum of w + the mean bag's w' + the crosses of the category; a row holds w, then w'."""
    target, around, events = rows_of(model, batch, user, place)
    count = len(events)
    logit = model.head.constant[0] + sum(row[0] for row in target + around)
    logit = logit + sum(row[1] / count for event in events for row in event)
    category = int(batch.target_BCF[user, place, 1])
    times = sum(int(batch.history_BLF[user, t, 1]) == category for t in range(count))
    if times and category != 1:
        of_seen, of_share = model.head.cross.weight[0]
        logit = logit + of_seen + of_share * times / count
    return logit


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_are_those_of_the_regression(seed: int) -> None:
    model, batch = make(seed=seed), random_batch([7, 0, 1, 4], targets=4, seed=seed)
    assert_logits_agree(model, batch, lambda *cell: (naive_logit(model, batch, *cell), torch.zeros(())))


def test_a_value_seen_once_stays_seen_in_single_precision() -> None:
    model = make().float()
    memory = model.initial_memory(1)
    for event in ([2, 3], *[[2, 4]] * 2000):
        memory = model.write(memory, Event(torch.tensor([[*event, 1, 1]]), torch.zeros(1)))
    read = type(memory)(*(value.unsqueeze(1) for value in memory))
    target = Target(torch.tensor([[[9, 3], [9, 4], [9, 5]]]), torch.ones(1, 3, 3, dtype=torch.int64), torch.zeros(1, 3))
    assert model.read(read, target)[0][0, :, 1].tolist() == [1.0, 1.0, 0.0]


def test_item_and_huge_fields_are_not_crossed() -> None:
    item = {"item": 30, "category": 6, "type": 2_000, "seller": 20_000}
    model = make(InputSpec(item=item, event={}, context={}, users=9))
    assert model.crossed == ["category", "type"]
    assert model.initial_memory(1).share_BS.shape == (1, 4 + 512)


def test_a_log_of_items_alone_has_no_crosses() -> None:
    inputs = InputSpec(item={"item": 30}, event={}, context={}, users=9)
    assert make(inputs)(random_batch([3, 0], targets=2, inputs=inputs)).logit_BCT.isfinite().all()


@pytest.mark.slow
def test_tables_of_an_artifact_hold_the_codes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    dataset = tiny_dataset(tmp_path / "data")
    artifact = tiny_artifact(tmp_path / "artifact", dataset, model="lr")
    model = load_model(artifact)
    assert isinstance(model, MemoryModel)
    number_BCF = random_batch([1], targets=50, inputs=dataset.inputs).target_BCF
    looked_up = [artifact.tables[name][number_BCF[..., k]] for k, name in enumerate(model.item_fields)]
    embedded = model.embed(number_BCF, model.item_fields).detach().numpy()
    assert np.array_equal(np.concatenate(looked_up, axis=-1), embedded)
    assert embedded[..., -(dataset.inputs.item["category"] - 2) :].sum() > 1
