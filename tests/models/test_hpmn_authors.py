"""The authors' form against numbers computed with their TensorFlow graph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.dataset.events import InputSpec
from lifelong.errors import UsageError
from lifelong.offline.models import build, require_served
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.hpmn_authors import HpmnAuthors, HpmnAuthorsConfig, memory_loss, sequences

GOLDEN = Path(__file__).parents[1] / "assets" / "hpmn_authors_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(golden: dict[str, np.ndarray]) -> HpmnAuthors:
    """The authors' graph: one table for all three fields, so the weights stand three times here."""
    inputs = InputSpec(item={"item": 50, "category": 50}, event={}, context={}, users=50)
    model = HpmnAuthors(
        inputs, HpmnAuthorsConfig(embedding=4, width=8, periods=(1, 2, 4), hops=3, dropout=0.0)
    ).double()
    with torch.no_grad():
        for name, places in weights(model).items():
            for parameter, transposed in places:
                value = torch.from_numpy(golden[f"w.{name}"]).double()
                parameter.copy_(value.T if transposed else value)
    return model


def weights(model: HpmnAuthors) -> dict[str, list[tuple[Tensor, bool]]]:
    """The authors' name -> our parameters, and whether theirs is transposed."""
    found: dict[str, list[tuple[Tensor, bool]]] = {
        "Embedding.emb_mtx": [(table.weight, False) for table in model.embed.tables.values()],
        "User.map": [(model.pass_on.weight, True)],
        "output.bn1.gamma": [(model.norm.scale, False)],
        "output.bn1.beta": [(model.norm.shift, False)],
    }

    def linear(name: str, layer: nn.Linear) -> None:
        found[f"{name}.kernel"], found[f"{name}.bias"] = [(layer.weight, True)], [(layer.bias, False)]

    for place, layer in enumerate(model.layers):
        linear(f"User.GRU{place}.rnn.gru_cell.gates", layer.gates)
        linear(f"User.GRU{place}.rnn.gru_cell.candidate", layer.candidate)
    linear("User.dense", model.query)
    dense = [part for score in model.scores for part in (score.first, score.second, score.last)]
    for place, layer in enumerate(dense, start=1):
        linear(f"User.dense_{place}", layer)
    for place, layer in enumerate((part for part in model.head.layers if isinstance(part, nn.Linear)), start=1):
        linear(f"output.fc{place}", layer)
    return found


def run(model: HpmnAuthors, golden: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, first-hop attention, memory loss and log loss of the golden input."""
    logit_NT, attention_NS, memory_NSD = model.forward_sequences(torch.from_numpy(golden["input_ids"]).long())
    label_N = torch.from_numpy(golden["labels"]).double()
    log_loss = binary_cross_entropy_with_logits(logit_NT[:, 0], label_N)
    return logit_NT[:, 0], attention_NS, memory_loss(memory_NSD), log_loss


def test_prediction_attention_and_losses_are_the_authors(model: HpmnAuthors, golden: dict[str, np.ndarray]) -> None:
    logit_N, attention_NS, memory, log_loss = run(model, golden)
    np.testing.assert_allclose(torch.sigmoid(logit_N).detach(), golden["prediction"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(attention_NS.detach(), golden["attention_first_hop"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(memory.detach(), golden["memory_loss"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(log_loss.detach(), golden["log_loss"], rtol=0, atol=1e-5)


def test_every_gradient_is_the_authors(model: HpmnAuthors, golden: dict[str, np.ndarray]) -> None:
    names = weights(model)
    assert {f"grad.{name}" for name in names} == {name for name in golden if name.startswith("grad.")}
    model.zero_grad()
    _, _, memory, log_loss = run(model, golden)
    (log_loss + 1e-5 * memory).backward()
    for name, places in names.items():
        parts = [parameter.grad.T if transposed else parameter.grad for parameter, transposed in places]
        np.testing.assert_allclose(sum(parts), golden[f"grad.{name}"], rtol=0, atol=1e-5, err_msg=name)
        scale = np.abs(golden[f"grad.{name}"]).max()
        if scale > 1e-6:
            # 1e-5 says little of gradients of 1e-5: most are right to five digits.
            np.testing.assert_allclose(sum(parts) / scale, golden[f"grad.{name}"] / scale, rtol=0, atol=1e-3)


def test_sequences_are_front_padded_with_the_target_last_and_the_user_as_a_field() -> None:
    batch = random_batch([2, 5], targets=1)
    history, target, user = batch.history_BLF.tolist(), batch.target_BCF.tolist(), batch.user_B.tolist()
    batch.position_BC[:] = torch.tensor([[2], [4]])
    assert sequences(batch, 4).tolist() == [
        [[0, 0, 0], [*history[0][0][:2], user[0]], [*history[0][1][:2], user[0]], [*target[0][0], user[0]]],
        [*([*history[1][place][:2], user[1]] for place in (1, 2, 3)), [*target[1][0], user[1]]],
    ]


def test_loss_of_equal_rows_has_gradient_zero_and_no_nan() -> None:
    memory_NSD = torch.ones(2, 3, 4, requires_grad=True)
    memory_loss(memory_NSD).backward()
    assert memory_NSD.grad is not None and memory_NSD.grad.eq(0).all()


def test_query_before_the_target_does_not_see_the_target_itself() -> None:
    torch.manual_seed(0)
    model = HpmnAuthors(
        INPUTS, HpmnAuthorsConfig(embedding=3, width=4, periods=(1, 2), sequence=6, query_before=True, dropout=0.0)
    )
    seen = []
    model.query.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    number_NTF = torch.randint(1, 6, (1, 6, 3))
    model.forward_sequences(number_NTF)
    model.forward_sequences(torch.cat([number_NTF[:, :-1], number_NTF[:, -1:] % 5 + 1], dim=1))
    assert torch.equal(seen[0], seen[1])


def test_sequence_is_rounded_up_to_the_largest_period() -> None:
    assert HpmnAuthors(INPUTS, HpmnAuthorsConfig(periods=(1, 2, 4, 12), sequence=50)).sequence == 60


def test_authors_mode_says_that_it_cannot_be_served() -> None:
    with pytest.raises(UsageError, match=r"serving needs a memory per user.*memory depends on the target"):
        require_served(build("hpmn", INPUTS, {"authors_mode": True}), purpose="serving")
