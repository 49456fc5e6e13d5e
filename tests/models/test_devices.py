"""What can be known of other devices without one: tensors stay on the model's device, and bfloat16 computes the same.

The meta device holds no numbers, but refuses, as a GPU does, to compute with a tensor that is somewhere else.
"""

import pytest
import torch
from torch.fx.experimental import _config as tracing

from lifelong.offline.models import MODELS, PRESETS, build
from lifelong.offline.models.base import Model
from lifelong.offline.training.gradients import loss_of
from lifelong.testing.worlds import INPUTS, random_batch

CASES = {
    **{name: (name, {}) for name, entry in MODELS.items() if issubclass(entry, Model)},
    **{name: (name, {}) for name, preset in PRESETS.items() if preset.home},
    "sim-soft": ("sim", {"search": "soft"}),
    "sim-cluster": ("sim", {"search": "cluster"}),
}
VALUES = {
    "din": "reads the numbers of a batch to plan its blocks (visible_scores)",
    "mimn": "reads the numbers of a batch to plan its loop (fold_at)",
    "rum_feature": "reads the numbers of a batch to plan its loop (fold_at)",
    "tally": "counts on the CPU, in compiled code",
    "hpmn_dynamic": "decides on the CPU, in compiled code",
    "gated_delta": "switches autocast off, which the meta device does not have",
}
"""Models that the meta device cannot run, and why."""


def made(case: str) -> Model:
    torch.manual_seed(0)
    name, config = CASES[case]
    model = build(name, INPUTS, {"dropout": 0.0, **config})
    assert isinstance(model, Model)
    return model.train()


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_of_a_step_is_made_on_the_models_device(case: str) -> None:
    if case in VALUES:
        pytest.skip(VALUES[case])
    model, batch = made(case).to("meta"), random_batch([5, 9, 2, 30], targets=3).to("meta")
    with tracing.patch(meta_nonzero_assume_all_nonzero=True):
        loss = loss_of(model(batch), batch)
        torch.autograd.backward(loss.total)
    assert loss.total.device.type == "meta"
    assert {part.grad.device.type for part in model.parameters() if part.grad is not None} == {"meta"}


@pytest.mark.parametrize("case", CASES)
def test_a_step_in_mixed_precision_gives_nearly_the_same_loss_and_gradients(case: str) -> None:
    batch, found = random_batch([5, 9, 2, 30], targets=3), []
    for half in (False, True):
        model = made(case)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            output = model(batch)
        loss = loss_of(output, batch)
        torch.autograd.backward(loss.total)
        gradients = [part.grad.flatten() for part in model.parameters() if part.grad is not None]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        found.append((loss.total.item(), torch.cat(gradients)))
    (exact, gradient), (rounded, rounded_gradient) = found
    assert rounded == pytest.approx(exact, rel=0.02)
    # A search may find other events where scores are nearly equal; the direction stays.
    assert torch.cosine_similarity(gradient, rounded_gradient, dim=0) > 0.9
