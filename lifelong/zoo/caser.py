"""Caser: the recent events as an image, read by horizontal and vertical convolutions.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018.

    last N events --filters of h events x all numbers--> ReLU --> largest over the window --> n numbers per height
                  --filters of N events x one number---> weighted sums of the events ----> m vectors
    interest = ReLU(W [both] + b)

Implemented: the horizontal convolutions and their pooling, the vertical ones ("Convolutional Layers"), and the layer
that joins them ("Fully-connected Layers"). As in the paper, a history of fewer than N events has zeros before it.
Differs from the paper: N is 50, with a few filter heights; the paper uses all heights from 1 to N, with N below 10.
There is no vector of the user, because the user's id is not an input. The common head replaces the paper's output
layer, and dropout is applied only there.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 1,200 bytes for four and the default of
50. Windows of targets overlap: each filter runs over the history once, and each target reads the results at its
position, so a pass costs O(L) for any number of targets.

Shapes: B users, L padded history length, C targets per user, E width of an embedded event, D width of the interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting


def check_heights(heights: tuple[int, ...]) -> tuple[int, ...]:
    """The heights, if they are positive and different.

    Raises:
        ValueError: they are not.
    """
    if not heights or min(heights) < 1 or len(set(heights)) < len(heights):
        raise ValueError(f"heights {list(heights)} are not different positive numbers; try, for example, [1, 2, 4, 8]")
    return heights


@dataclass(frozen=True)
class CaserConfig(CommonSettings):
    """Settings of `caser`."""

    width: PositiveInt = setting(32, "width of the interest")
    recent: PositiveInt = setting(50, "how many events before the target are read")
    heights: Annotated[tuple[int, ...], AfterValidator(check_heights)] = setting(
        (1, 2, 4, 8), "events that a horizontal filter spans; those above `recent` are left out"
    )
    horizontal: PositiveInt = setting(16, "horizontal filters of each height")
    vertical: PositiveInt = setting(4, "vertical filters")


class Caser(HistoryModel):
    """Union-level patterns from the horizontal filters, point-level ones from the vertical."""

    Config = CaserConfig
    title = "Caser"
    source = "Tang and Wang, WSDM 2018"
    state = "last 50 events"

    def __init__(self, inputs: InputSpec, config: CaserConfig) -> None:
        super().__init__(inputs, config, interest=config.width)
        self.config: CaserConfig = config
        self.heights: tuple[int, ...] = tuple(
            height for height in check_heights(tuple(config.heights)) if height <= config.recent
        )
        self.horizontal: nn.ModuleList = nn.ModuleList(
            nn.Conv1d(self.event_width, config.horizontal, height) for height in self.heights
        )
        self.vertical: nn.Conv1d = nn.Conv1d(1, config.vertical, config.recent, bias=False)
        self.both: nn.Linear = nn.Linear(
            config.horizontal * len(self.heights) + config.vertical * self.event_width, config.width
        )

    def find(self, window: Window, query: Query) -> Found:
        """Run all filters over the histories, and pick at each target's position."""
        # With N zeros in front, the window of a target at position p is the events p to p + N - 1.
        event_BEL = pad(window.vector_BLE.transpose(1, 2), (self.recent, 0))
        pattern_BXL = torch.cat([*self._horizontal(event_BEL), self._vertical(event_BEL)], dim=1)
        place_BXC = query.position_BC.unsqueeze(1).expand(-1, pattern_BXL.shape[1], -1)
        pattern_BCX = pattern_BXL.gather(2, place_BXC).transpose(1, 2)
        return Found(torch.relu(self.both(pattern_BCX)))

    def _horizontal(self, event_BEL: Tensor) -> list[Tensor]:
        """The largest response of each filter in each window, per height: `[B, filters, L + 1]`.

        Source: horizontal convolutional layer.
        """
        return [
            # A filter of height h fits into a window of N events at N - h + 1 places.
            max_pool1d(torch.relu(convolution(event_BEL)), self.recent - height + 1, stride=1)
            for height, convolution in zip(self.heights, self.horizontal, strict=True)
        ]

    def _vertical(self, event_BEL: Tensor) -> Tensor:
        """Weighted sums of the events of each window, one per filter: `[B, filters * E, L + 1]`.

        Source: vertical convolutional layer.
        """
        users, width, _ = event_BEL.shape
        sum_NFL: Tensor = self.vertical(event_BEL.flatten(0, 1).unsqueeze(1))
        return sum_NFL.view(users, width, *sum_NFL.shape[1:]).transpose(1, 2).flatten(1, 2)
