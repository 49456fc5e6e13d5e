"""What is drawn on a run's device depends on the seed of a step alone."""

from __future__ import annotations

import pytest
import torch

from lifelong.offline.training.compute import Compute


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_seed_fixes_what_is_drawn(seed: int) -> None:
    compute, ones = Compute(), torch.ones(1_000)
    compute.seed(seed)
    dropped = torch.nn.functional.dropout(ones, 0.5)
    torch.manual_seed(seed)
    assert torch.equal(dropped, torch.nn.functional.dropout(ones, 0.5))
    compute.seed(seed + 1 if seed < 2**63 - 1 else 0)
    assert not torch.equal(dropped, torch.nn.functional.dropout(ones, 0.5))
