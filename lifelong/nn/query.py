"""A target in the space of events."""

from __future__ import annotations

import torch
from torch import nn


class TargetQuery(nn.Linear):
    """A linear map from embedded targets to embedded events, whose first fields are the target's.

    It starts as the identity on those fields, so that a target and the events of the same item are near each other from
    the first step.
    """

    def __init__(self, target: int, event: int) -> None:
        super().__init__(target, event)
        with torch.no_grad():
            self.weight.copy_(torch.eye(event, target))
            self.bias.zero_()
