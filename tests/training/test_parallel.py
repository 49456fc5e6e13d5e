"""Gradients of parts of a batch, computed side by side."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from lifelong.offline.data.batch import Batch
from lifelong.offline.models import build
from lifelong.offline.models.base import Model
from lifelong.offline.training.gradients import ParallelGradients, loss_of, parallel_gradients, split
from lifelong.testing.worlds import INPUTS, random_batch


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def ragged() -> Batch:
    """Seven users; the last targets of some are padding."""
    batch = random_batch([40, 3, 0, 17, 33, 5, 9], targets=6)
    for user, real in enumerate([6, 1, 2, 6, 3, 4, 5]):
        batch.mask_BC[user, real:] = False
    return batch


def divisible(name: str, **config: object) -> Model:
    torch.manual_seed(0)
    model = build(name, INPUTS, {"dropout": 0.0, **config})
    assert isinstance(model, Model)
    assert model.divisible
    return model.double()


def test_parts_hold_all_users_and_no_more_padding_than_they_need() -> None:
    batch = ragged()
    parts = split(batch, 3)
    assert [len(part.length_B) for part in parts] == [2, 2, 3]
    assert torch.equal(torch.cat([part.user_B for part in parts]), batch.user_B)
    assert [tuple(part.history_BLF.shape[:2]) for part in parts] == [(2, 40), (2, 17), (3, 33)]
    assert [tuple(part.mask_BC.shape) for part in parts] == [(2, 6), (2, 6), (3, 5)]
    assert sum(int(part.mask_BC.sum()) for part in parts) == int(batch.mask_BC.sum())


DIVISIBLE = {
    "hpmn": {},
    "gru4rec": {},
    "dnn": {},
    "din": {},
    "twin": {},
    "eta": {},
    "sim": {"search": "soft"},
    "dien": {"next_event": 0.0},
}


@pytest.mark.parametrize("name", DIVISIBLE)
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_and_loss_are_those_of_the_whole_batch(name: str, count: int) -> None:
    model, batch = divisible(name, **DIVISIBLE[name]), ragged()
    whole = loss_of(model(batch), batch)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(whole.total, parameters, allow_unused=True)
    parallel = ParallelGradients(model, count, nullcontext)
    loss = parallel.backward(batch)
    parallel.close()
    for gradient, parameter in zip(expected, parameters, strict=True):
        # The hard search and the hashes give none to what only searches.
        if gradient is None:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(loss.total, whole.total.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.cross_entropy, whole.cross_entropy.detach(), rtol=1e-5, atol=0)


def test_one_user_is_one_part() -> None:
    model, batch = divisible("dnn"), random_batch([4], targets=3)
    parallel = ParallelGradients(model, 2, nullcontext)
    torch.testing.assert_close(parallel.backward(batch).total, loss_of(model(batch), batch).total.detach())
    parallel.close()


def test_two_calls_give_the_same_bits() -> None:
    model, batch = divisible("hpmn"), ragged()
    found = []
    for _ in range(2):
        parallel = ParallelGradients(model, 3, nullcontext)
        parallel.backward(batch)
        parallel.close()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True) if one is not None and two is not None)


def test_error_in_a_part_is_raised() -> None:
    parallel = ParallelGradients(divisible("dnn"), 2, nullcontext)
    batch = ragged()
    batch.target_BCF[:] = 10_000
    with pytest.raises(IndexError):
        parallel.backward(batch)
    parallel.close()


def test_threads_of_the_caller_are_as_before() -> None:
    with threads(2):
        ParallelGradients(divisible("dnn"), 2, nullcontext).close()
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("name", "config"), [("hpmn", {"authors_mode": True}), ("sim", {"search": "cluster"}), ("dien", {})]
)
def test_a_model_whose_users_depend_on_each_other_is_taken_whole(name: str, config: dict[str, object]) -> None:
    model = build(name, INPUTS, config)
    assert isinstance(model, Model)
    with threads(2):
        assert parallel_gradients(model, torch.device("cpu"), nullcontext) is None


def test_batches_are_divided_on_several_cores_alone() -> None:
    cpu, dnn = torch.device("cpu"), divisible("dnn")
    with threads(1):
        assert parallel_gradients(dnn, cpu, nullcontext) is None
    with threads(2):
        assert parallel_gradients(dnn, torch.device("cuda"), nullcontext) is None
        divided = parallel_gradients(dnn, cpu, nullcontext)
        assert divided is not None
        divided.close()
