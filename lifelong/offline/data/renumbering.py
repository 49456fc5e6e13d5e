"""Carries an embedding table from one vocabulary over to another, by id instead of number.

    before   padding  unknown | bucket x 2 | a b c d        known values of the earlier vocabulary
    now      padding  unknown | bucket x 4 | b d e f        b and d keep their rows, e and f are new, a and c are gone

A value without a number of its own has the number of its hash bucket (see `vocabulary`), so buckets are carried over:

    as many buckets    each keeps its row
    k times as many    each starts from the bucket that it was part of
    else               each starts from the mean of the buckets that its values can have been in; without buckets
                       before, its values were unknown, and it starts from that row

Shapes: V numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lifelong.dataset.vocabulary import FIRST_BUCKET, UNKNOWN, Vocabulary
from lifelong.dtypes import Float32Array, IntArray


@dataclass(frozen=True, slots=True)
class Renumbering:
    """One field's numbers, before and now.

    Args:
        size: numbers now.
        source_K: number before of each known value now, -1 where it is new.
        buckets: hash buckets now.
        earlier_buckets: hash buckets before.
        gone: earlier known values that are not known now.

    >>> numbers = Renumbering.of(Vocabulary.build(["a", "b"]), Vocabulary.build(["b", "c"]))
    >>> numbers.kept, numbers.new, numbers.gone
    (1, 1, 1)
    >>> numbers.carry(np.array([[0], [1], [2], [3]], np.float32), np.full((4, 1), 9, np.float32)).ravel().tolist()
    [0.0, 1.0, 3.0, 9.0]
    """

    size: int
    source_K: IntArray
    buckets: int
    earlier_buckets: int
    gone: int

    @classmethod
    def of(cls, earlier: Vocabulary, now: Vocabulary) -> Renumbering:
        """Compare two vocabularies of one field, value by value."""
        number_K = earlier.index.find_all(now.index)
        source_K = np.where(number_K >= 0, number_K + earlier.first_known, -1)
        gone = len(earlier.index) - int((number_K >= 0).sum())
        return cls(now.size, source_K, now.buckets, earlier.buckets, gone)

    @classmethod
    def none(cls, size: int) -> Renumbering:
        """The renumbering of a field with numbers that never change, such as the hour of the day."""
        return cls(size, np.arange(FIRST_BUCKET, size), 0, 0, 0)

    @property
    def kept(self) -> int:
        """How many known values are in both vocabularies."""
        return int((self.source_K >= 0).sum())

    @property
    def new(self) -> int:
        """How many known values were not known before."""
        return len(self.source_K) - self.kept

    def carry(self, earlier_VX: Float32Array, fresh_VX: Float32Array) -> Float32Array:
        """A table for the numbers of now: earlier rows where there are some, else the fresh ones."""
        table_VX = np.array(fresh_VX)
        table_VX[:FIRST_BUCKET] = earlier_VX[:FIRST_BUCKET]
        first = FIRST_BUCKET + self.buckets
        table_VX[FIRST_BUCKET:first] = self._bucket_rows(earlier_VX)
        carried = np.flatnonzero(self.source_K >= 0)
        table_VX[first + carried] = earlier_VX[self.source_K[carried]]
        return table_VX

    def _bucket_rows(self, earlier_VX: Float32Array) -> Float32Array:
        """The row that each bucket starts from: `[buckets, ...]`."""
        if not self.earlier_buckets:
            return earlier_VX[UNKNOWN : UNKNOWN + 1]
        # A hash is in bucket b of n and in bucket c of m exactly if b and c agree modulo the divisor of n and m.
        divisor = math.gcd(self.buckets, self.earlier_buckets)
        row_BX = earlier_VX[FIRST_BUCKET : FIRST_BUCKET + self.earlier_buckets]
        mean_GX = row_BX.reshape(-1, divisor, *row_BX.shape[1:]).mean(axis=0)
        bucket_BX: Float32Array = mean_GX[np.arange(self.buckets) % divisor]
        return bucket_BX

    def record(self) -> dict[str, object]:
        """Counts for `metrics.json`."""
        return {
            "kept": self.kept,
            "new": self.new,
            "gone": self.gone,
            "buckets": [self.earlier_buckets, self.buckets],
        }
