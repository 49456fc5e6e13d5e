"""Exact counts of the target in the whole history, and how popular it is, for the head of any model.

Where people repeat themselves, a model that counts has an advantage, whatever else it does. So that a comparison
credits the memory and not the counts, every model that has the common head can be given them. With `model.counts =
true` the head reads, with interest, target and context, what the baseline `counts` reads: for every item field how
often the target's value occurs in the history before the target, in all of it, in the last 5, 20 and 100 events and
decayed by half-lives, and how long ago it last occurred. They are logarithms, standardised by the training examples, of
the counts that `gbdt` has, too (`lifelong.offline.data.counts`). After them follows, as in `gbdt` and `tally`, how
often each value is the target in training. `gru4rec_counts`, a recurrent state and these numbers, is the trained
baseline of repeat consumption.

These counts are exact, and of the whole history, whatever window the model itself reads. Such a state is unbounded, so
these models are trained, evaluated and compared, but not served.

Shapes: B users, C targets per user, K counts, F item fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from lifelong.dataset.events import InputSpec
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.errors import UsageError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.counts import count_input_names, count_inputs
from lifelong.offline.nn.counted import CountScale, TargetPopularity


class ExactCounts(nn.Module):
    """Standardised counts of each target, then how popular it is.

    Args:
        inputs: of the model.
    """

    not_served: ClassVar[str] = "exact counts of a whole history (model.counts) are no state of bounded size"
    scale: CountScale
    popular: TargetPopularity

    def __init__(self, inputs: InputSpec) -> None:
        super().__init__()
        counts = len(count_input_names(tuple(inputs.item), timed=inputs.timed))
        self.width: int = counts + len(inputs.item)
        self.scale, self.popular = CountScale(counts), TargetPopularity(inputs.item)

    def forward(self, batch: Batch) -> Tensor:
        """Numbers `[B, C, K + F]`, anything finite where a target is padding.

        Raises:
            UsageError: the batch has no counts.
        """
        if not batch.count_BCK.shape[-1]:
            raise UsageError("a model with counts was given no counts", fix="make the batches with counts=True")
        return torch.cat([self.scale(batch.count_BCK), self.popular(batch.target_BCF)], dim=-1)

    @property
    def number_tables(self) -> Mapping[str, str]:
        """The popularity of each value."""
        return {f"popular.popular_{place}": field for place, field in enumerate(self.popular.fields)}

    def fit(self, dataset: Dataset, examples: Examples) -> None:
        """Take the mean and deviation of each count from labelled training examples."""
        self.scale.fit(count_inputs(dataset, examples))
