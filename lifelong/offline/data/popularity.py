"""How often each value of an item field is that of a training target, for any user and any label."""

from __future__ import annotations

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray


def target_counts(dataset: Dataset) -> dict[str, FloatArray]:
    """Item field -> how many training targets have each number, `[V]`; labels are not looked at.

    The count of a hash bucket, which rare items share, is the mean over its items.
    """
    number_VF, row_N = dataset.catalogue.number_VF, dataset.examples("train").row_N
    found = {}
    for place, (field, size) in enumerate(dataset.inputs.item.items()):
        count_V = np.bincount(number_VF[row_N, place], minlength=size).astype(np.float64)
        if place == 0:
            count_V /= np.maximum(np.bincount(number_VF[FIRST_ROW:, place], minlength=size), 1)
        found[field] = count_V
    return found
