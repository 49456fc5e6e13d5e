"""Rows of a table between two vocabularies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lifelong.dataset.vocabulary import FIRST_BUCKET, UNKNOWN, Vocabulary
from lifelong.offline.training.start import Renumbering

NAMES = [f"id{number}" for number in range(12)]


def table(vocabulary: Vocabulary, start: float = 0.0) -> np.ndarray:
    """A table in which every row is its own number."""
    return (start + np.arange(vocabulary.size, dtype=np.float32))[:, None]


def test_known_values_keep_their_rows_whatever_their_numbers():
    before, now = Vocabulary.build(list("abcd"), buckets=2), Vocabulary.build(list("dxb"), buckets=2)
    numbers = Renumbering.of(before, now)
    carried = numbers.carry(table(before), table(now, 100))[:, 0]
    assert carried.tolist() == [0, 1, 2, 3, 7, 105, 5], "d and b by id, x fresh"
    assert (numbers.kept, numbers.new, numbers.gone) == (2, 1, 2)


@given(
    st.lists(st.sampled_from(NAMES), unique=True),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.sampled_from([0, 1, 2, 3, 4, 6, 8]),
    st.sampled_from([0, 1, 2, 3, 4, 6, 8]),
)
def test_every_value_that_was_and_is_unknown_finds_a_row_it_could_have_had(old, new, buckets, more):
    before, now = Vocabulary.build(old, buckets=buckets), Vocabulary.build(new, buckets=more)
    carried = Renumbering.of(before, now).carry(table(before), table(now, 1000))[:, 0]
    for name in NAMES:
        row, earlier = carried[now.numbers([name])[0]], before.numbers([name])[0]
        if name in old and name in new:
            assert row == earlier
        elif name in new:
            assert row >= 1000
        elif name not in old and more and more % max(buckets, 1) == 0:
            assert row == earlier, "a bucket that was split, or one where all was unknown"
        elif name not in old and not more:
            assert row == UNKNOWN


def test_merged_buckets_start_from_their_mean():
    before, now = Vocabulary.build([], buckets=4), Vocabulary.build([], buckets=2)
    carried = Renumbering.of(before, now).carry(table(before), table(now))[:, 0]
    assert carried[FIRST_BUCKET:].tolist() == [(2 + 4) / 2, (3 + 5) / 2]


def test_fixed_fields_keep_all_rows():
    rows = np.arange(5, dtype=np.float32)[:, None]
    assert np.array_equal(Renumbering.none(5).carry(rows, rows + 50), rows)
