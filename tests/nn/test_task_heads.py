"""Heads of several tasks against transcriptions of their equations, one example at a time."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.offline.models import build
from lifelong.offline.models.base import Model
from lifelong.offline.nn.tasks import HEADS, Esmm, Mmoe, Ple, both
from lifelong.testing.worlds import INPUTS, random_batch

TASKS = 3
INPUTS_2 = INPUTS.__class__(INPUTS.item, INPUTS.event, INPUTS.context, INPUTS.users, ("any", "buy"))


def parts(count: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(count, size, generator=generator, dtype=torch.float64) for size in (4, 3, 2))


def dense(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + (0 if layer.bias is None else layer.bias)


def expert(block: nn.Sequential, x: Tensor) -> Tensor:
    y = dense(block[0], x)
    return torch.where(y > 0, y, torch.exp(y) - 1)


def tower(block: nn.Sequential, x: Tensor) -> Tensor:
    y = dense(block[0], x)
    return dense(block[3], torch.where(y > 0, y, torch.exp(y) - 1))[0]


def softmax(x: Tensor) -> Tensor:
    return torch.exp(x) / torch.exp(x).sum()


def weighted(weights: Tensor, values: list[Tensor]) -> Tensor:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def naive_mmoe(head: Mmoe, x: Tensor) -> list[Tensor]:
    experts = [expert(block, x) for block in head.experts]
    return [tower(head.towers[t], weighted(softmax(dense(head.gates[t], x)), experts)) for t in range(TASKS)]


def naive_ple(head: Ple, x: Tensor) -> list[Tensor]:
    first, second = head.first, head.second
    own = [[expert(block, x) for block in first.own[t]] for t in range(TASKS)]
    shared = [expert(block, x) for block in first.shared]
    task = [weighted(softmax(dense(first.gates[t], x)), own[t] + shared) for t in range(TASKS)]
    common = weighted(softmax(dense(first.shared_gate, x)), [one for mine in own for one in mine] + shared)
    shared = [expert(block, common) for block in second.shared]
    logits = []
    for t in range(TASKS):
        mine = [expert(block, task[t]) for block in second.own[t]]
        logits.append(tower(head.towers[t], weighted(softmax(dense(second.gates[t], task[t])), mine + shared)))
    return logits


def naive_esmm(head: Esmm, x: Tensor) -> list[Tensor]:
    steps = [1 / (1 + torch.exp(-tower(head.towers[t], expert(head.bottoms[t], x)))) for t in range(TASKS)]
    reached = [steps[0], steps[0] * steps[1], steps[0] * steps[1] * steps[2]]
    return [torch.log(p / (1 - p)) for p in reached]


@pytest.mark.parametrize(
    ("kind", "naive"), [("mmoe", naive_mmoe), ("ple", naive_ple), ("esmm", naive_esmm)], ids=["mmoe", "ple", "esmm"]
)
def test_a_head_is_its_equations_in_value_and_gradient(kind: str, naive: object) -> None:
    torch.manual_seed(0)
    head = HEADS[kind](9, TASKS, dropout=0.0).double()
    results = []
    for fast in (True, False):
        leaves = [part.clone().requires_grad_() for part in parts()]
        rows = head(*leaves) if fast else [torch.stack(naive(head, x)) for x in torch.cat(leaves, dim=-1)]
        logit = rows if fast else torch.stack(rows)
        weight = torch.arange(1.0, 1 + logit.numel()).view_as(logit).double()
        results.append([logit.detach(), *torch.autograd.grad((logit * weight).sum(), [*leaves, *head.parameters()])])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("logit", [-80.0, -1.0, 0.0, 30.0, 80.0])
def test_the_logit_of_a_product_is_exact_at_the_ends(logit: float) -> None:
    value = torch.tensor([logit], requires_grad=True)
    found = both(value, torch.tensor([80.0]))
    found.sum().backward()
    assert found.item() == pytest.approx(min(logit, 80.0 - torch.log(torch.tensor(2.0)).item()), abs=1e-4)
    assert bool(value.grad.isfinite().all())


def test_esmm_never_gives_a_later_step_a_larger_probability() -> None:
    torch.manual_seed(0)
    logit = Esmm(9, TASKS, dropout=0.0).double()(*parts(200))
    assert bool((logit[:, 1:] <= logit[:, :-1]).all())


@pytest.mark.parametrize("kind", ["mmoe", "ple", "esmm"])
@pytest.mark.parametrize("name", ["hpmn", "gated_delta", "din", "gru4rec"])
def test_models_take_the_head_of_their_settings(name: str, kind: str) -> None:
    model = build(name, INPUTS_2, {"head": kind})
    assert isinstance(model, Model) and type(model.head) is HEADS[kind]
    logit = model.eval()(random_batch([9, 4], targets=3, inputs=INPUTS_2)).logit_BCT
    assert logit.shape == (2, 3, 2) and bool(logit.isfinite().all())


def test_one_task_has_no_head_of_several() -> None:
    with pytest.raises(ConfigError, match=r"model.head: 'mmoe' is for several tasks, and this data has one"):
        build("hpmn", INPUTS, {"head": "mmoe"})


@pytest.mark.parametrize("name", ["fm", "counts"])
def test_a_model_with_a_head_of_its_own_keeps_it(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.head"):
        build(name, INPUTS_2, {"head": "mmoe"})
