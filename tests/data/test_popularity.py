"""How often values are asked about in training, against a loop over the targets."""

from collections import Counter
from pathlib import Path

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.offline.data.counts import target_counts
from lifelong.testing.datasets import tiny_dataset


def test_counts_are_those_of_the_training_targets_and_buckets_have_their_items_mean(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "data", num_users=40, num_items=60, mean_events=30)
    number_VF, examples = dataset.catalogue.number_VF, dataset.examples("train")
    found = target_counts(dataset)
    assert list(found) == list(dataset.inputs.item)
    shared = 0
    for place, (field, size) in enumerate(dataset.inputs.item.items()):
        asked = Counter(int(number_VF[row, place]) for row in examples.row_N)
        items = Counter(number_VF[FIRST_ROW:, place].tolist())
        for number in range(size):
            wanted = asked[number] / max(1, items[number]) if place == 0 else asked[number]
            assert found[field][number] == wanted
            shared += place == 0 and items[number] > 1 and asked[number] > 0
    assert shared > 0
    assert np.isclose(sum(found["category"]), len(examples))
