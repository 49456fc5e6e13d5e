"""How often each value of an item field is asked about in the training period, whoever the user and her answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.catalogue import FIRST_ROW

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

FloatArray = npt.NDArray[np.float64]


def target_counts(dataset: Dataset) -> dict[str, FloatArray]:
    """Item field -> how many training targets have each number, `[V]`; labels are not looked at.

    Rare items share a hash bucket: what one of them has is the bucket's mean.
    """
    number_VF, row_N = dataset.catalogue.number_VF, dataset.examples("train").row_N
    found = {}
    for place, (field, size) in enumerate(dataset.inputs.item.items()):
        count_V = np.bincount(number_VF[row_N, place], minlength=size).astype(np.float64)
        if place == 0:
            count_V /= np.maximum(np.bincount(number_VF[FIRST_ROW:, place], minlength=size), 1)
        found[field] = count_V
    return found
