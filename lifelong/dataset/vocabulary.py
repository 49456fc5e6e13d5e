"""Ids (external keys, strings) and numbers (dense indices): memory-mapped, torch-free, quick to open.

`IdIndex` is a plain two-way map between ids and 0..n-1. `Vocabulary` puts padding, unknown and hash buckets before it.

Numbers of one field:

    0         padding
    1         unknown (and missing values)
    2 ..      hash buckets, for values that the training period did not hold or held too rarely
    2 + buckets ..   the known values

A value also has a key, by which a memory counts it. Known values have keys of their own; the others are hashed into the
keys that are left, so that two values that share a number hardly ever share a key.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import AGAIN, CHUNK, check_lengths, open_arrays, ranges, save_arrays
from lifelong.dataset.scales import NUMBER
from lifelong.dtypes import BoolArray, FloatArray, Int32Array, IntArray
from lifelong.errors import DatasetError
from lifelong.tally.spec import NO_KEY, own_keys

PADDING = 0
UNKNOWN = 1
FIRST_BUCKET = 2
SEARCHED = 16 * 2**20
"""Bytes of ids that a search looks at."""

_MANY = 100_000
"""Ids that are hashed one by one about as quickly as the compiled loop is loaded."""
_TYPES = {"text": np.uint8, "offset": np.int64, "hash": np.uint64, "order": np.int64}
"""Files of an index, in the order of its parts."""


def id_hash(value: str) -> int:
    """64-bit hash of an id, equal on every machine and in every release (BLAKE2b, little-endian)."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")


def _text_hashes(text: npt.NDArray[np.uint8], offset: IntArray) -> npt.NDArray[np.uint64]:
    if len(offset) > _MANY:
        from lifelong.dataset.blake2b import text_hashes

        return text_hashes(text, offset)
    view, blake2b = text.tobytes(), hashlib.blake2b
    pairs = itertools.pairwise(offset.tolist())
    return np.frombuffer(
        b"".join(blake2b(view[start:end], digest_size=8).digest() for start, end in pairs), "<u8"
    ).astype(np.uint64)


class TextColumn:
    """n texts in two arrays, memory-mapped: all of them one after another, and where each begins.

    >>> column = TextColumn.of(["Rye bread", "Oat milk"])
    >>> column.at(1), column.places("BREAD", most=5)
    ('Oat milk', [0])

    Args:
        text: uint8, UTF-8.
        offset: int64, n + 1.
    """

    def __init__(self, text: npt.NDArray[np.uint8], offset: IntArray) -> None:
        self._text, self._offset = text, offset

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """The given texts, in the given order."""
        encoded = [value.encode() for value in texts]
        offset = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return TextColumn(np.frombuffer(b"".join(encoded), np.uint8), offset)

    def __len__(self) -> int:
        return len(self._offset) - 1

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Both arrays, by name."""
        return {"text": self._text, "offset": self._offset}

    def at(self, index: int) -> str:
        """The text of one index (0..n-1)."""
        return bytes(self._text[self._offset[index] : self._offset[index + 1]]).decode()

    def places(self, text: str, most: int) -> list[int]:
        """Indices of texts that hold a text, upper and lower case of ASCII letters alike, ascending.

        Args:
            text: what they hold; empty for the first ones.
            most: indices to give. Of a long column the first `SEARCHED` bytes are looked at.
        """
        if not text:
            return list(range(min(most, len(self))))
        wanted, whole = text.encode(errors="replace").lower(), bytes(self._text[:SEARCHED]).lower()
        found: list[int] = []
        at = whole.find(wanted)
        while at >= 0 and len(found) < most:
            # The text that this place is in; a match that runs into the next one does not count.
            index = int(np.searchsorted(self._offset, at, side="right")) - 1
            end = int(self._offset[index + 1])
            if at + len(wanted) <= end:
                found.append(index)
                at = end - 1
            at = whole.find(wanted, at + 1)
        return found


class IdIndex(TextColumn):
    """Two-way map between n distinct ids and 0..n-1, memory-mapped from a folder.

    Files: `text.npy` (uint8, all ids one after another), `offset.npy` (int64, n + 1), `hash.npy` (uint64, sorted) and
    `order.npy` (int64: place in `hash.npy` -> index). A look-up is a binary search among the hashes and a comparison
    of the text, so nothing is read at opening and processes share the pages.

    >>> index = IdIndex.build(["ada", "bob"])
    >>> index.find(["bob", "eve"]).tolist(), index.id_at(0)
    ([1, -1], 'ada')
    """

    def __init__(
        self,
        text: npt.NDArray[np.uint8],
        offset: IntArray,
        sorted_hash: npt.NDArray[np.uint64],
        order: IntArray,
    ) -> None:
        super().__init__(text, offset)
        self._hash, self._order = sorted_hash, order

    @classmethod
    def build(cls, ids: Sequence[str]) -> IdIndex:
        """Index the given ids in the given order.

        Raises:
            DatasetError: an id occurs twice.
        """
        return cls.from_text(*TextColumn.of(ids).arrays().values())

    @classmethod
    def from_text(cls, text: npt.NDArray[np.uint8], offset: IntArray) -> IdIndex:
        """Index ids that are one after another in one text; id i is `text[offset[i]:offset[i + 1]]`, UTF-8.

        Raises:
            DatasetError: an id occurs twice.
        """
        return cls._of(text, offset, _text_hashes(text, offset))

    @classmethod
    def _of(cls, text: npt.NDArray[np.uint8], offset: IntArray, hashes: npt.NDArray[np.uint64]) -> IdIndex:
        # Stable, so that the files are the same everywhere, also where two hashes are equal.
        order = np.argsort(hashes, kind="stable").astype(np.int64, copy=False)
        index = cls(text, offset, hashes[order], order)
        # Equal ids have equal hashes, so only neighbours with one hash need their text compared.
        same = np.flatnonzero(index._hash[1:] == index._hash[:-1])
        suspects = np.unique(np.concatenate([same, same + 1]))
        names = [index.id_at(int(order[at])) for at in suspects]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DatasetError(
                f"the id {twice!r} occurs twice in one index", expected="distinct ids", fix="prepare the dataset again"
            )
        return index

    def take(self, index: npt.NDArray[np.integer]) -> IdIndex:
        """The chosen ids, in the chosen order.

        Raises:
            DatasetError: one is chosen twice.
        """
        start, length = self._offset[index], np.diff(self._offset)[index]
        offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        text = np.empty(offset[-1], np.uint8)
        # Chunk by chunk: `ranges` gives eight bytes for each one of the texts.
        for first in range(0, len(index), CHUNK):
            last = min(first + CHUNK, len(index))
            text[offset[first] : offset[last]] = self._text[ranges(start[first:last], length[first:last])]
        return self._of(text, offset, self.hashes()[index])

    def followed_by(self, other: IdIndex) -> IdIndex:
        """These ids, followed by the other ones.

        Raises:
            DatasetError: an id is in both.
        """
        # The other text begins where this one ends, and its first offset is the last one here.
        offset = np.concatenate([self._offset, self._offset[-1] + other._offset[1:]])
        text, hashes = np.concatenate([self._text, other._text]), np.concatenate([self.hashes(), other.hashes()])
        return self._of(text, offset, hashes)

    def hashes(self) -> npt.NDArray[np.uint64]:
        """`id_hash` of every id, in order of their index."""
        hashes = np.empty(len(self), np.uint64)
        # The order says which id each place of the sorted hashes is of, so this undoes the sorting.
        hashes[self._order] = self._hash
        return hashes

    @classmethod
    def open(cls, folder: Path) -> IdIndex:
        """Map a saved index.

        Raises:
            DatasetError: a file is missing or not a numpy array, or their lengths contradict each other.
        """
        parts = open_arrays(folder, _TYPES, "id index")
        for name, values in parts.items():
            if values.ndim != 1 or values.dtype != _TYPES[name]:
                problem = f"{folder / name}.npy holds {values.dtype} {values.shape}"
                raise DatasetError(problem, expected=f"{np.dtype(_TYPES[name])}, one axis", fix=AGAIN)
        offset, count = parts["offset"], len(parts["offset"]) - 1
        check_lengths(folder, {name: parts[name] for name in ("hash", "order")}, count)
        check_lengths(folder, {"text": parts["text"]}, int(offset[-1]) if len(offset) else -1)
        return cls(*parts.values())

    def is_whole(self) -> bool:
        """Whether the parts of each id are where its offset and its order say; reads both."""
        offset, order = self._offset, self._order
        ascending = offset[0] == 0 and not (np.diff(offset) < 0).any()
        return bool(ascending and (order >= 0).all() and (order < len(self)).all())

    def save(self, folder: Path) -> None:
        """Write the four files into `folder`."""
        save_arrays(folder, {**self.arrays(), "hash": self._hash, "order": self._order})

    def content_hash(self) -> str:
        """SHA-256 over all ids in their order: two indexes have equal hashes only if they have equal ids."""
        # The offsets, too: the ids `ab`, `c` and `a`, `bc` are one text.
        digest = hashlib.sha256(np.ascontiguousarray(self._offset, "<i8").tobytes())
        digest.update(self._text.tobytes())
        return digest.hexdigest()

    def id_at(self, index: int) -> str:
        """The id of one index (0..n-1)."""
        return self.at(index)

    def ids(self) -> list[str]:
        """All ids, in order of their index."""
        whole, offset = bytes(self._text), self._offset.tolist()
        return [whole[start:end].decode() for start, end in itertools.pairwise(offset)]

    def search(self, text: str, most: int) -> list[str]:
        """Ids that hold a text, see `places`.

        >>> IdIndex.build(["green tea", "milk", "Tea"]).search("tea", most=5)
        ['green tea', 'Tea']
        """
        return [self.at(index) for index in self.places(text, most)]

    def find(self, ids: Sequence[str]) -> IntArray:
        """Index of each id, -1 where it is not held."""
        wanted = TextColumn.of(ids)
        return self._places_of(wanted, _text_hashes(wanted._text, wanted._offset))

    def find_all(self, other: IdIndex) -> IntArray:
        """Index of each id of another index, -1 where it is not held."""
        hashes, offset = other.hashes(), other._offset
        # A place in memory for each byte that is compared: of a chunk of the ids, so that they stay few.
        chunks = [
            self._places_of(TextColumn(other._text, offset[at : at + CHUNK + 1]), hashes[at : at + CHUNK])
            for at in range(0, len(other), CHUNK)
        ]
        return np.concatenate([np.empty(0, np.int64), *chunks])

    def _places_of(self, wanted: TextColumn, hashes: npt.NDArray[np.uint64]) -> IntArray:
        index_B = np.full(len(wanted), -1, np.int64)
        if not len(self):
            return index_B
        start = np.searchsorted(self._hash, hashes)
        # The first id with an equal hash is nearly always the right one; where its text differs, `_walk` continues.
        # A hash above all others has its place past the end.
        place_N = np.flatnonzero(self._hash[np.minimum(start, len(self) - 1)] == hashes)
        index_N = self._order[start[place_N]]
        same_N = self._is_text(index_N, wanted, place_N)
        index_B[place_N[same_N]] = index_N[same_N]
        for at in place_N[~same_N].tolist():
            index_B[at] = self._walk(wanted.at(at), hashes[at], int(start[at]))
        return index_B

    def _is_text(self, index_N: IntArray, wanted: TextColumn, place_N: IntArray) -> BoolArray:
        """Whether the id of each index is the text at its place; empty texts are left to `_walk`."""
        begin_N, first_N = self._offset[index_N], wanted._offset[place_N]
        size_N = wanted._offset[place_N + 1] - first_N
        same_N: BoolArray = (self._offset[index_N + 1] - begin_N == size_N) & (size_N > 0)
        if not same_N.any():
            return same_N
        # Texts of equal length are compared byte by byte, all in one array, and each text's bytes are joined by `and`.
        size = size_N[same_N]
        equal = self._text[ranges(begin_N[same_N], size)] == wanted._text[ranges(first_N[same_N], size)]
        # Of an empty run `reduceat` gives the value that follows: hence no empty texts.
        same_N[same_N] = np.logical_and.reduceat(equal, np.cumsum(size) - size)
        return same_N

    def _walk(self, value: str, hashed: np.uint64, at: int) -> int:
        """Index of an id among distinct ids with one hash, which are neighbours; -1 if it is none of them."""
        while at < len(self._hash) and self._hash[at] == hashed:
            index = int(self._order[at])
            if self.id_at(index) == value:
                return index
            at += 1
        return -1


class Vocabulary:
    """Numbers of one field, from the training period.

    Args:
        index: the known values.
        buckets: how many hash buckets come before them; 0 sends every unknown value to `UNKNOWN`.

    >>> vocabulary = Vocabulary.build(["tea", "milk"])
    >>> vocabulary.numbers(["milk", "coffee", None]).tolist()
    [3, 1, 1]
    >>> vocabulary.value_of(2)
    'tea'
    """

    index: IdIndex
    buckets: int

    def __init__(self, index: IdIndex, *, buckets: int = 0) -> None:
        self.index, self.buckets = index, buckets
        self.first_known: int = FIRST_BUCKET + buckets
        self.size: int = self.first_known + len(index)
        self._fallback: Int32Array | None = None

    @classmethod
    def build(cls, values: Sequence[str], *, buckets: int = 0) -> Vocabulary:
        """Number the given values in the given order."""
        return cls(IdIndex.build(values), buckets=buckets)

    @classmethod
    def open(cls, folder: Path) -> Vocabulary:
        """Map a saved vocabulary.

        Raises:
            DatasetError: the folder holds none.
        """
        try:
            buckets = int(json.loads((folder / "vocabulary.json").read_text())["buckets"])
            if buckets < 0:
                raise ValueError(f"{buckets} buckets")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise DatasetError(f"no vocabulary in {folder}: {error}", fix=AGAIN) from error
        if (folder / NumberVocabulary.FILE).exists():
            return NumberVocabulary.checked(folder)
        return cls(IdIndex.open(folder), buckets=buckets)

    def save(self, folder: Path) -> None:
        """Write the vocabulary into `folder`."""
        self.index.save(folder)
        (folder / "vocabulary.json").write_text(json.dumps({"buckets": self.buckets}) + "\n")

    def content_hash(self) -> str:
        """SHA-256 over buckets and known values: equal only if every number means the same value."""
        return hashlib.sha256(f"{self.buckets}:{self.index.content_hash()}".encode()).hexdigest()

    def fallback_number(self, value: str) -> int:
        """The number that `value` has while it is not known: its bucket, or `UNKNOWN`."""
        return FIRST_BUCKET + id_hash(value) % self.buckets if self.buckets else UNKNOWN

    def fallback_numbers(self, hashes: npt.NDArray[np.uint64]) -> IntArray:
        """`fallback_number` of values by their `id_hash`."""
        if not self.buckets:
            return np.full(len(hashes), UNKNOWN, np.int64)
        return FIRST_BUCKET + (hashes % np.uint64(self.buckets)).astype(np.int64)

    def numbers(self, values: Sequence[str | None]) -> IntArray:
        """Number of each value; `None` is `UNKNOWN`, an unseen value gets its bucket."""
        index_B = self.index.find([value or "" for value in values])
        return np.fromiter(
            (
                UNKNOWN if value is None else self.first_known + at if at >= 0 else self.fallback_number(value)
                for value, at in zip(values, index_B.tolist(), strict=True)
            ),
            dtype=np.int64,
            count=len(values),
        )

    def keys(self, values: Sequence[str | None], number_B: IntArray, keys: int) -> IntArray:
        """Key of each value; `NO_KEY` of a missing one.

        Args:
            values: known or not.
            number_B: their numbers.
            keys: how many the field has, see `spec.key_count`.

        >>> vocabulary, values = Vocabulary.build(["tea", "milk"]), ["milk", "coffee", "soap", None]
        >>> vocabulary.keys(values, vocabulary.numbers(values), keys=1024).tolist()
        [1, 571, 127, -1]
        """
        first_own = self.first_known if own_keys(len(self.index), keys) else self.size
        hashes = [
            0 if value is None or number >= first_own else id_hash(value)
            for value, number in zip(values, number_B.tolist(), strict=True)
        ]
        key_B = self.keys_by_hash(np.array(hashes, np.uint64), number_B, keys)
        return np.where([value is None for value in values], NO_KEY, key_B)

    def keys_by_hash(self, hash_N: npt.NDArray[np.uint64], number_N: npt.NDArray[np.integer], keys: int) -> IntArray:
        """`keys` of values that are not missing, by the `id_hash` of those without keys of their own."""
        own = own_keys(len(self.index), keys)
        key_N = own + (hash_N % np.uint64(keys - own)).astype(np.int64)
        return np.where(number_N >= self.first_known, number_N - self.first_known, key_N) if own else key_N

    def known_keys(self, keys: int) -> IntArray:
        """Keys of the known values, in the order of their numbers."""
        return self.keys_by_hash(self.index.hashes(), np.arange(self.first_known, self.size), keys)

    def value_of(self, number: int) -> str | None:
        """The value behind a number, None for padding, unknown and buckets."""
        return self.index.id_at(number - self.first_known) if number >= self.first_known else None

    @property
    def fallback(self) -> Int32Array:
        """For every number the one it falls back to; the trainer replaces 2 % of item occurrences by it."""
        if self._fallback is None:
            table = np.arange(self.size, dtype=np.int32)
            table[self.first_known :] = self.fallback_numbers(self.index.hashes())
            self._fallback = table
        return self._fallback


class NumberVocabulary(Vocabulary):
    """Numbers of a field that holds numbers itself: levels of one fixed scale, whatever the data.

    The known values are the values of the levels, so that it is saved, compared and read like any other vocabulary.
    """

    FILE = "scale.json"

    def __init__(self) -> None:
        super().__init__(IdIndex.build([f"{value:.12g}" for value in NUMBER.values().tolist()]))

    @classmethod
    def checked(cls, folder: Path) -> NumberVocabulary:
        """The vocabulary, once it is sure that a folder's scale is the one of this release.

        Raises:
            DatasetError: the folder was written for another scale.
        """
        scale = (folder / cls.FILE).read_text(errors="replace")
        if scale != cls._text():
            raise DatasetError(
                f"{folder / cls.FILE} holds the scale {scale.strip()}",
                expected=f"{cls._text().strip()}, that of this release",
                fix="use the release that wrote it, or prepare and train again",
            )
        return cls()

    @staticmethod
    def _text() -> str:
        return json.dumps(asdict(NUMBER)) + "\n"

    def save(self, folder: Path) -> None:
        """Write it like any other vocabulary, and its scale."""
        super().save(folder)
        (folder / self.FILE).write_text(self._text())

    def numbers(self, values: Sequence[str | None]) -> IntArray:
        """Level of each value; what is not a number of at least 0 is `UNKNOWN`."""
        value_N = quantities(values)
        return NUMBER.numbers(value_N, value_N >= 0)

    def keys(self, values: Sequence[str | None], number_B: IntArray, keys: int) -> IntArray:
        """Key of each value's level: two prices of one level are one value."""
        return np.where(number_B >= self.first_known, number_B - self.first_known, NO_KEY)

    def bounds_of(self, number: int) -> tuple[float, float | None] | None:
        """The least value of a level and of the one after it, None after the last; None for what is no level.

        >>> low, high = NumberVocabulary().bounds_of(int(NumberVocabulary().numbers(["1.25"])[0]))
        >>> f"{low:.2f} {high:.2f}"
        '1.16 1.39'
        """
        if number < self.first_known:
            return None
        low, high = NUMBER.bounds()[number - self.first_known].tolist()
        return low, high if np.isfinite(high) else None


def quantities(values: Sequence[str | None]) -> FloatArray:
    """The number of each text; NaN where it is not a finite number."""
    return np.array([_number(value) for value in values], np.float64)


def _number(text: str | None) -> float:
    """The number of a text, NaN where it is not a finite number."""
    try:
        number = float(text or "nan")
    except ValueError:
        return float("nan")
    return number if np.isfinite(number) else float("nan")
