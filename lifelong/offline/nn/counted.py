"""What a model that is given counts reads: standardised exact counts, and how popular the target is.

Shapes: B users, C targets per user, K counts, F item fields, V values of a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.dataset.events import InputSpec
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.errors import UsageError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.counts import count_input_names, count_inputs, standardising


class CountScale(nn.Module):
    """Subtracts the mean from each count and divides by the deviation; leaves counts as they are until it is fitted.

    Args:
        size: K, columns of `lifelong.offline.data.counts.count_inputs`.
    """

    mean_K: Tensor
    scale_K: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean_K", torch.zeros(size))
        self.register_buffer("scale_K", torch.ones(size))

    def fit(self, value_NK: FloatArray) -> None:
        """Take the mean and deviation of each column."""
        mean_K, scale_K = standardising(value_NK)
        self.mean_K.copy_(torch.from_numpy(mean_K))
        self.scale_K.copy_(torch.from_numpy(scale_K))

    def forward(self, count_BCK: Tensor) -> Tensor:
        """Standardised counts."""
        return (count_BCK - self.mean_K) * self.scale_K


class TargetPopularity(nn.Module):
    """Looks up how often each value of the target is a target in training, as a standardised logarithm; 0 until then.

    Args:
        sizes: item field -> V.

    >>> popularity = TargetPopularity({"item": 4})
    >>> popularity.learn({"item": np.array([0.0, 0.0, 90.0, 10.0])})
    >>> popularity(torch.tensor([[[2], [3]]])).flatten()
    tensor([ 0.3333, -3.0000])
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.fields: tuple[str, ...] = tuple(sizes)
        for place, size in enumerate(sizes.values()):
            self.register_buffer(f"popular_{place}", torch.zeros(size, 1))

    def learn(self, counts: Mapping[str, FloatArray]) -> None:
        """Take in how many training targets have each number of a field: field -> `[V]`."""
        for place, field in enumerate(self.fields):
            log_V, count_V = np.log1p(counts[field]), counts[field]
            asked = count_V.sum() or 1.0
            # Mean and deviation over targets, not over values: popular values weigh more.
            mean = float(log_V @ count_V / asked)
            deviation = float(np.sqrt((log_V - mean) ** 2 @ count_V / asked))
            self.get_buffer(f"popular_{place}").copy_(torch.from_numpy((log_V - mean) / max(deviation, 1e-6))[:, None])

    def forward(self, number_BCF: Tensor) -> Tensor:
        """`[B, C, F]` of the numbers of the item fields."""
        parts = [self.get_buffer(f"popular_{place}")[number_BCF[..., place]] for place in range(len(self.fields))]
        return torch.cat(parts, dim=-1)


class ExactCounts(nn.Module):
    """Exact counts of the target in the whole history, standardised, then how popular it is, for the head of any model.

    Where people repeat themselves, a model that counts has an advantage, whatever else it does. So that a comparison
    credits the memory and not the counts, every model that has the common head can be given them. With `model.counts =
    true` the head reads, with interest, target and context, what the baseline `counts` reads: for every item field how
    often the target's value occurs in the history before the target, in all of it, in the last 5, 20 and 100 events and
    decayed by half-lives, and how long ago it last occurred. They are logarithms, standardised by the training
    examples, of the counts that `gbdt` has, too (`lifelong.offline.data.counts`). After them follows, as in `gbdt` and
    `tally`, how often each value is the target in training. `gru4rec_counts`, a recurrent state and these numbers, is
    the trained baseline of repeat consumption.

    Such a state is unbounded, so these models are trained, evaluated and compared, but not served.

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
