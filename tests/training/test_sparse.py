"""Sparse tables: gradients and steps of the rows alone that a batch touches."""

from typing import Any

import pytest
import torch
from torch import nn

from lifelong.config import TrainSettings
from lifelong.errors import MismatchError
from lifelong.offline.evaluation.divided_tables import _Divided
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models import MODELS, build
from lifelong.offline.models.base import Model
from lifelong.offline.training import optimiser as optimisers
from lifelong.offline.training.compute import Compute
from lifelong.offline.training.gradients import Gradients
from lifelong.offline.training.optimiser import Optimiser, build_optimiser, clip_gradients, use_sparse_tables
from lifelong.testing.worlds import INPUTS, random_batch

TRAINED = [name for name, entry in MODELS.items() if issubclass(entry, Model)]


def made(name: str, embeddings: str, **changes: Any) -> tuple[Model, Optimiser]:
    torch.manual_seed(0)
    model = build(name, INPUTS, {"dropout": 0.0})
    assert isinstance(model, Model)
    settings = TrainSettings.model_validate({"embeddings": embeddings, **changes})
    use_sparse_tables(model, settings)
    return model.train(), build_optimiser(model, settings)


def backward(model: Model, seed: int = 0) -> None:
    torch.manual_seed(1)
    gradients = Gradients(model, Compute(), Processes())
    gradients.backward(random_batch([5, 9, 2], targets=3, seed=seed), lambda: (False,))
    gradients.close()


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_of_every_model_are_those_of_dense_tables(name: str) -> None:
    found = []
    for form in ("dense", "sparse"):
        model, _ = made(name, form)
        backward(model)
        found.append([part.grad for part in model.parameters()])
        own = {id(table.weight) for table in model.tables()}
        for part in model.parameters():
            if id(part) in own and part.grad is not None:
                assert part.grad.is_sparse == (form == "sparse")
    for dense, sparse in zip(*found, strict=True):
        if dense is None or sparse is None:
            # A table that nothing was looked up in.
            assert all(part is None or not part.to_dense().any() for part in (dense, sparse))
        else:
            torch.testing.assert_close(sparse.to_dense(), dense.to_dense())


@pytest.mark.parametrize("name", TRAINED)
def test_every_model_looks_up_only_numbers_that_it_names(name: str) -> None:
    model, _ = made(name, "sparse")
    batch, looked_up = random_batch([5, 9, 2], targets=3), []
    for place, table in enumerate(model.tables()):
        table.register_forward_pre_hook(lambda _, given, place=place: looked_up.append((place, given[0])))
    backward(model)
    numbers = model.table_numbers(batch)
    assert looked_up and len(numbers) == len(model.tables())
    for place, number in looked_up:
        assert set(number.flatten().tolist()) <= set(numbers[place].tolist())


def test_a_divided_table_has_the_rows_that_it_was_asked_for_and_refuses_others() -> None:
    table = nn.Embedding(9, 2, padding_idx=0, sparse=True)
    before = table.weight.detach().clone()
    part = _Divided(table, Processes())
    assert part.load(torch.tensor([0, 3, 5]), same=True) and table.weight.shape == (3, 2)
    asked = torch.tensor([[5, 3], [0, 5]])
    torch.testing.assert_close(table(asked), before[asked])
    with pytest.raises(MismatchError, match="does not have: its tables cannot be divided"):
        table(torch.tensor([3, 4]))


def test_first_step_is_adams_and_later_ones_leave_other_rows_alone() -> None:
    after = {}
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(5, 3, sparse=sparse)
        optimiser, after[sparse] = build_optimiser(table, TrainSettings()), [table.weight.detach().clone()]
        for rows in ([1, 2], [2, 3]):
            torch.autograd.backward(table(torch.tensor(rows)).square().sum())
            optimiser.step()
            optimiser.zero_grad()
            after[sparse].append(table.weight.detach().clone())
    torch.testing.assert_close(after[False][1], after[True][1], rtol=0, atol=1e-6)
    moved = {sparse: (steps[2] != steps[1]).any(dim=1).tolist() for sparse, steps in after.items()}
    assert moved[True] == [False, False, True, True, False]
    # Adam moves the row of the first step on, by its momentum.
    assert moved[False] == [False, True, True, True, False]


def test_padding_stays_zero() -> None:
    model, optimiser = made("hpmn", "sparse")
    for seed in range(3):
        backward(model, seed)
        optimiser.step()
    assert not any(table.weight[0].any() for table in model.tables())


def test_clipping_is_by_value_of_the_summed_row() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    torch.autograd.backward(
        (table(torch.tensor([1, 1, 2])) * torch.tensor([[3.0, 0.2], [3.0, 0.2], [-9.0, 0.1]])).sum()
    )
    clip_gradients(table.parameters(), 1.0)
    assert table.weight.grad is not None
    expected = torch.tensor([[0.0, 0.0], [1.0, 0.4], [-1.0, 0.1], [0.0, 0.0]])
    torch.testing.assert_close(table.weight.grad.to_dense(), expected)


def test_auto_makes_large_tables_sparse_and_leaves_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "SPARSE_FROM", 30)
    model, optimiser = made("dnn", "auto")
    assert [table.sparse for table in model.tables()] == [table.num_embeddings >= 30 for table in model.tables()]
    assert {table.sparse for table in model.tables()} == {True, False}
    backward(model)
    clip_gradients(model.parameters(), 1.0)
    optimiser.step()


def test_users_table_of_mf_may_be_sparse() -> None:
    model, optimiser = made("mf", "sparse")
    assert len(model.tables()) == 1 + len(model.embed.tables)
    backward(model)
    optimiser.step()


def test_state_comes_back_exactly() -> None:
    model, first = made("dnn", "sparse")
    for seed in range(2):
        backward(model, seed)
        first.step()
        first.zero_grad()
    other, second = made("dnn", "sparse")
    other.load_state_dict(model.state_dict())
    second.restore({key: value.clone() for key, value in first.tensors().items()})
    for one, optimiser in ((model, first), (other, second)):
        backward(one, 2)
        optimiser.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
