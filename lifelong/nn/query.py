"""A target in the space of events, for attention to a history."""

from __future__ import annotations

import torch
from torch import nn


class TargetQuery(nn.Linear):
    """A linear map from embedded targets to embedded events; an event's first fields are those of the target.

    It starts as the identity on those fields, so that a target and the events of its item are near each other from the
    first step on.

    Args:
        target: width of an embedded target.
        event: width of an embedded event.

    >>> TargetQuery(2, 3)(torch.tensor([5.0, 7.0])).tolist()
    [5.0, 7.0, 0.0]
    """

    def __init__(self, target: int, event: int) -> None:
        super().__init__(target, event)
        with torch.no_grad():
            self.weight.copy_(torch.eye(event, target))
            self.bias.zero_()
