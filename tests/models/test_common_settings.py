"""What several models do alike with a setting."""

from typing import Any

import pytest
import torch

from lifelong.offline.models import build
from lifelong.testing.worlds import INPUTS, random_batch


@pytest.mark.parametrize(
    ("name", "weight"), [("mf", "decay"), ("mimn", "utilisation"), ("hpmn", "covariance"), ("dien", "next_event")]
)
def test_an_auxiliary_loss_of_weight_zero_is_left_out(name: str, weight: str) -> None:
    batch = random_batch([7, 0, 1, 5], targets=3)
    assert build(name, INPUTS, {}).eval()(batch).aux_losses
    assert build(name, INPUTS, {weight: 0.0}).eval()(batch).aux_losses == {}


@pytest.mark.parametrize(("name", "settings"), [("dien", {}), ("sim", {"search": "soft"}), ("svdpp", {})])
def test_no_auxiliary_loss_is_computed_where_no_gradient_is_wanted(name: str, settings: dict[str, Any]) -> None:
    model, batch = build(name, INPUTS, settings).eval(), random_batch([40, 0, 1, 25], targets=3)
    assert model(batch).aux_losses
    with torch.no_grad():
        assert model(batch).aux_losses == {}


@pytest.mark.parametrize("name", ["eta", "sdim"])
def test_hyperplanes_are_saved_and_never_trained(name: str) -> None:
    model = build(name, INPUTS, {})
    assert "plane_RE" in model.state_dict()
    assert "plane_RE" not in dict(model.named_parameters())
    assert model.half().plane_RE.dtype == torch.int16


@pytest.mark.parametrize("name", ["eta", "twin"])
def test_a_width_that_the_heads_cannot_share_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="width 7 is not a multiple of 2 heads"):
        build(name, INPUTS, {"width": 7, "heads": 2})
