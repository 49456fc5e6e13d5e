"""DIN: deep interest network, a sum of the events with weights that depend on the target.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.

    w_i = a(e_i, v)        activation unit, an MLP over both, their difference and product  (local activation unit)
    interest = sum_i w_i e_i                                                                    (equation 3)

The weights are not normalised, as in the paper and unlike in its public code. The interest therefore grows with the
number of matching events, and the number of matches is more informative than their share. `normalise` uses a softmax
instead. Without it w_i = a(e_i, v) / 32: the same functions, but with a scale at which a sum over a thousand events is
about as large as one event. Without this factor the model was still at chance after 350,000 examples of a real log.

With `pooled` the head has two more inputs, as in the authors' public code: the mean of the events (a sum there), and
its product with the target.

Differs from the paper: events have fields that targets lack, so the target is mapped into their space. The unit
compares by difference and elementwise product (the form of the public code) with ReLU. There is no activation that
depends on the batch (Dice).

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000.

Shapes: B users, L padded history length, C targets per user, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.attention import PairScore, TargetQuery
from lifelong.offline.nn.masks import masked_softmax
from lifelong.zoo.layers.pairs import visible_scores

_HIDDEN = (80, 40)
_UNIT = 1 / 32
"""Of a free weight: a sum of 1,000 random vectors is about 32 times as long as one of them."""


@dataclass(frozen=True)
class DinConfig(CommonSettings):
    """Settings of `din`."""

    normalise: bool = setting(False, "softmax over the weights of the events, instead of the paper's free sum")
    recent: PositiveInt = setting(1000, "last events that are read")
    pooled: bool = setting(False, "give the head the mean of the events, too, and its product with the target")


class Din(HistoryModel):
    """Target attention over all recent events."""

    Config = DinConfig
    title = "DIN"
    source = "Zhou et al., KDD 2018"
    state = "last 1,000 events"

    def __init__(self, inputs: InputSpec, config: DinConfig) -> None:
        width = config.embedding * (len(inputs.item) + len(inputs.event))
        super().__init__(inputs, config, interest=width, pooled=config.pooled)
        self.config: DinConfig = config
        self.free_weights: bool = not config.normalise
        self.query: TargetQuery = TargetQuery(self.target_width, self.event_width)
        self.score: PairScore = PairScore(self.event_width, _HIDDEN)

    def find(self, window: Window, query: Query) -> Found:
        """Sums of the visible events, weighted for each target."""
        event_BLE, end_BC = window.vector_BLE, query.position_BC
        first_BC = (end_BC - self.recent).clamp(min=0)
        score_BCL = visible_scores(self.score, self.query(query.vector_BCE), event_BLE, first_BC, end_BC)
        visible_BCL = self.visible(query, event_BLE.shape[1])
        if self.config.normalise:
            weight_BCL = masked_softmax(score_BCL, visible_BCL)
        else:
            weight_BCL = (_UNIT * score_BCL).masked_fill(~visible_BCL, 0.0)
        return Found(weight_BCL @ event_BLE, weight_BCL)
