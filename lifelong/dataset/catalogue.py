"""Item -> fields: every item of a log, with the numbers of its fields.

Next to its number each field has the key of its value, by which a memory counts it: see `vocabulary`.

A *row* of the catalogue is one item; histories and examples store rows (int32). Row 0 is padding, row 1 an item of
which nothing is known, row 2 + i the i-th item. Several rows can share an item number (rare and new items share hash
buckets) and yet have different categories.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import AGAIN, open_arrays
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex, NumberVocabulary, TextColumn, Vocabulary
from lifelong.dtypes import FloatArray, Int32Array, IntArray
from lifelong.errors import DatasetError, RequestError
from lifelong.tally.spec import NO_KEY, key_count

FIRST_ROW = 2
VALUES = "value.npy"
"""File of the items' own numbers."""
TITLES = ("title_text.npy", "title_offset.npy")
"""Files of the items' names for people."""
FOR_PEOPLE = (VALUES, *TITLES)
"""What models do not read; it is no part of a dataset's hash."""
_RECENT = 131_072
"""How many items have their numbers kept in RAM: a look-up on disk costs fifty times as much."""


class Catalogue:
    """All items of a dataset.

    Args:
        ids: item ids; item `ids.id_at(i)` has row `FIRST_ROW + i`.
        number_VF: int32, one row of field numbers per catalogue row (padding and unknown rows included), columns in the
            order of `vocabularies`.
        vocabularies: item field -> vocabulary; the first is `item`.
        value_VN: float64, the items' own values of the N fields of numbers, such as a price of 2.95, NaN where not
            known; for people, since models read levels alone. None without such a field.
        titles: name of each item, for people; empty where there is none. None where the log has no names.
        keys_F: how many keys each field has.
        key_VF: int32, the keys of the values behind `number_VF`; None for those of the ids and of the known values.
    """

    ids: IdIndex
    number_VF: Int32Array
    keys_F: list[int]
    key_VF: Int32Array
    vocabularies: dict[str, Vocabulary]
    value_VN: FloatArray | None
    titles: TextColumn | None

    def __init__(
        self,
        ids: IdIndex,
        number_VF: Int32Array,
        vocabularies: Mapping[str, Vocabulary],
        value_VN: FloatArray | None = None,
        titles: TextColumn | None = None,
        key_VF: Int32Array | None = None,
    ) -> None:
        self.ids, self.number_VF, self.vocabularies = ids, number_VF, dict(vocabularies)
        self.value_VN, self.titles = value_VN, titles
        sizes = [vocabulary.size for vocabulary in self.vocabularies.values()]
        self.keys_F = [key_count(size, first=not field) for field, size in enumerate(sizes)]
        self.key_VF = self._known_keys() if key_VF is None else key_VF
        self._recent = _Recent(self._looked_up, 2 * len(self.vocabularies))

    @classmethod
    def open(cls, folder: Path, vocabularies: Mapping[str, Vocabulary]) -> Catalogue:
        """Map a saved catalogue.

        Raises:
            DatasetError: a file is missing, or its size does not fit.
        """
        ids = IdIndex.open(folder)
        number_VF, key_VF = open_arrays(folder, ["number", "key"], "catalogue").values()
        shape = (FIRST_ROW + len(ids), len(vocabularies))
        for part in (number_VF, key_VF):
            if part.shape != shape:
                raise DatasetError(f"the catalogue in {folder} has shape {part.shape}", expected=str(shape), fix=AGAIN)
        titles = None
        if (folder / TITLES[0]).exists():
            titles = TextColumn(*open_arrays(folder, [Path(name).stem for name in TITLES], "catalogue").values())
            if len(titles) != len(ids):
                raise DatasetError(f"{folder} has {len(titles)} titles", expected=f"{len(ids)}, one an item", fix=AGAIN)
        if not number_fields(vocabularies):
            return cls(ids, number_VF, vocabularies, titles=titles, key_VF=key_VF)
        value_VN = open_arrays(folder, [Path(VALUES).stem], "catalogue")[Path(VALUES).stem]
        shape = (len(number_VF), len(number_fields(vocabularies)))
        if value_VN.shape != shape or value_VN.dtype != np.float64:
            found = f"{folder / VALUES} holds {value_VN.dtype} {value_VN.shape}"
            raise DatasetError(found, expected=f"float64 {shape}", fix=AGAIN)
        return cls(ids, number_VF, vocabularies, value_VN, titles, key_VF)

    def save(self, folder: Path) -> None:
        """Write the catalogue (without the vocabularies) into `folder`."""
        self.ids.save(folder)
        np.save(folder / "number.npy", self.number_VF)
        np.save(folder / "key.npy", self.key_VF)
        if self.value_VN is not None:
            np.save(folder / VALUES, self.value_VN)
        if self.titles is not None:
            for name, part in zip(TITLES, self.titles.arrays().values(), strict=True):
                np.save(folder / name, part)

    def __len__(self) -> int:
        """Number of rows, padding and unknown included."""
        return len(self.number_VF)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the item fields; the first is `item`."""
        return tuple(self.vocabularies)

    def rows(self, items: Sequence[str]) -> IntArray:
        """Row of each item id; 1 where the item is not in the catalogue."""
        index_N = self.ids.find(items)
        return np.where(index_N >= 0, index_N + FIRST_ROW, UNKNOWN)

    def id_of(self, row: int) -> str | None:
        """Item id of a row, None for padding and unknown."""
        return self.ids.id_at(row - FIRST_ROW) if row >= FIRST_ROW else None

    def titles_of(self, items: Sequence[str]) -> list[str | None]:
        """Names of items for people; None where there is none: the id is the name."""
        if self.titles is None:
            return [None] * len(items)
        return [(self.titles.at(at) or None) if at >= 0 else None for at in self.ids.find(items).tolist()]

    def search(self, text: str, most: int) -> list[str]:
        """Ids of items with a text in their id or their title, see `TextColumn.places`."""
        matches = self.ids.places(text, most)
        if text and self.titles is not None:
            matches = list(dict.fromkeys([*self.titles.places(text, most), *matches]))[:most]
        return [self.ids.at(at) for at in matches]

    def only_known(self, fields: Mapping[str, str | None]) -> dict[str, str | None]:
        """The fields of an item that this catalogue knows."""
        return {name: value for name, value in fields.items() if name in self.fields[1:]}

    def check_fields(self, names: Iterable[str]) -> None:
        """Refuse names that are not those of item fields.

        Raises:
            RequestError: one of them is not.
        """
        for name in names:
            if name not in self.fields[1:]:
                raise RequestError(
                    f"{name!r} is not a field that an item can be given",
                    expected=", ".join(self.fields[1:]) or "no fields: this dataset has only item ids",
                    fix="use a field of the catalogue; GET /v1/model lists them",
                )

    def numbers(self, items: Sequence[str], given: Sequence[Mapping[str, str | None] | None] | None = None) -> IntArray:
        """Field numbers of items by id: `[len(items), F]` of `coded`."""
        return self.coded(items, given)[:, : len(self.fields)]

    def of_rows(self, row: npt.NDArray[np.integer]) -> IntArray:
        """Field numbers of rows, followed by their keys: `[..., 2 F]`, like `coded`."""
        return np.concatenate([self.number_VF[row], self.key_VF[row]], axis=-1, dtype=np.int64)

    def coded(self, items: Sequence[str], given: Sequence[Mapping[str, str | None] | None] | None = None) -> IntArray:
        """Field numbers of items by id, followed by their keys, for scoring and updating.

        Args:
            items: item ids. An item that the catalogue lacks gets its hash bucket and unknown fields.
            given: per item the field values that came with the request, which win over the catalogue; or None.

        Returns:
            int64, `[len(items), 2 F]`.

        Raises:
            RequestError: a given field is not an item field.
        """
        number_BF = self._known_numbers(items)
        for field, (places, values) in _by_field(given).items() if given else ():
            self.check_fields([field])
            column, vocabulary = self.fields.index(field), self.vocabularies[field]
            number_BF[places, column] = number_N = vocabulary.numbers(values)
            number_BF[places, len(self.fields) + column] = vocabulary.keys(values, number_N, self.keys_F[column])
        return number_BF

    def texts(
        self,
        field: str,
        items: Sequence[str],
        number_N: npt.NDArray[np.integer],
        given: Sequence[str | None] | None = None,
    ) -> list[str | None]:
        """Values of one field, for people: a number is the item's own value, where that is known, and not its level.

        Args:
            field: its name.
            items: item ids.
            number_N: the number of each.
            given: the value that came with each from elsewhere, which wins over the catalogue; or None.

        Returns:
            None where a value is not known.
        """
        vocabulary = self.vocabularies[field]
        # Many items have one number: each is looked up once.
        value_of = {number: vocabulary.value_of(number) for number in np.unique(number_N).tolist()}
        level_N = [value_of[number] for number in number_N.tolist()]
        text_N = level_N
        for own in (self._own_values(field, items), given) if isinstance(vocabulary, NumberVocabulary) else ():
            if own is None:
                continue
            # Only a value of this very level: an event may have had another price than the catalogue has now. What was
            # written from a number alone is the level's own text, and says less than what was found before.
            same_N = (vocabulary.numbers(own) == number_N) & (number_N >= vocabulary.first_known)
            places = zip(same_N.tolist(), own, level_N, text_N, strict=True)
            text_N = [text if same and text != level else before for same, text, level, before in places]
        return text_N

    def _own_values(self, field: str, items: Sequence[str]) -> list[str | None] | None:
        if self.value_VN is None:
            return None
        value_N = self.value_VN[self.rows(items), number_fields(self.vocabularies).index(field)]
        return [None if np.isnan(value) else f"{value:.12g}" for value in value_N.tolist()]

    def _known_numbers(self, items: Sequence[str]) -> IntArray:
        """Numbers of items by the catalogue alone, from RAM where they were asked for lately."""
        number_BF = self._recent.numbers(items)
        if number_BF is None:
            # It is full: a new one is begun, and soon holds the items that are asked for now.
            self._recent = recent = _Recent(self._looked_up, 2 * len(self.vocabularies))
            number_BF = recent.numbers(items)
        return self._looked_up(items) if number_BF is None else number_BF

    def _looked_up(self, items: Sequence[str]) -> IntArray:
        number_BF, item = self.of_rows(self.rows(items)), self.vocabularies["item"]
        # By id: an item that the catalogue lacks has no row of its own, but a hash bucket and a key.
        number_BF[:, 0] = number_B = item.numbers(items)
        number_BF[:, len(self.fields)] = item.keys(items, number_B, self.keys_F[0])
        return number_BF

    def _known_keys(self) -> Int32Array:
        key_VF = np.full(self.number_VF.shape, NO_KEY, np.int32)
        for at, (vocabulary, keys) in enumerate(zip(self.vocabularies.values(), self.keys_F, strict=True)):
            unknown = np.full(vocabulary.first_known, NO_KEY)
            key_VF[:, at] = np.append(unknown, vocabulary.known_keys(keys))[self.number_VF[:, at]]
        item, number_N = self.vocabularies["item"], self.number_VF[FIRST_ROW:, 0]
        key_VF[FIRST_ROW:, 0] = item.keys_by_hash(self.ids.hashes(), number_N, self.keys_F[0])
        return key_VF


def with_columns(coded: npt.NDArray[Any], *columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers of events: those of their items `[..., F]`, further columns `[..., 1]`, and the items' keys `[..., F]`.

    Args:
        coded: of the items, see `Catalogue.coded`.
        columns: of `Schema.event_fields`.
    """
    fields = coded.shape[-1] // 2
    return np.concatenate([coded[..., :fields], *columns, coded[..., fields:]], axis=-1)


def number_fields(vocabularies: Mapping[str, Vocabulary]) -> list[str]:
    """Names of the fields that hold numbers, such as prices."""
    return [field for field, vocabulary in vocabularies.items() if isinstance(vocabulary, NumberVocabulary)]


class _Recent:
    """Numbers of the items that were asked for lately, up to `_RECENT` items. Threads may share it.

    Args:
        look_up: gives the numbers of items that are not held.
        fields: numbers of one item.
    """

    def __init__(self, look_up: Callable[[Sequence[str]], IntArray], fields: int) -> None:
        self._lock, self._look_up = threading.Lock(), look_up
        self._row_of: dict[str, int] = {}
        self._number_RF = np.zeros((_RECENT, fields), np.int64)

    def numbers(self, items: Sequence[str]) -> IntArray | None:
        """Numbers of items; those that are not held are looked up and added. None where there is no room for them."""
        place_N = np.fromiter(map(self._row_of.get, items, repeat(-1)), np.int64, len(items))
        missing_N = np.flatnonzero(place_N < 0)
        if len(missing_N):
            names = [items[at] for at in missing_N.tolist()]
            if not self._added(dict.fromkeys(names)):
                return None
            place_N[missing_N] = [self._row_of[name] for name in names]
        return self._number_RF[place_N]

    def _added(self, items: Iterable[str]) -> bool:
        """Add items, and say whether there was room for them."""
        with self._lock:
            # Another thread may have added some of them meanwhile.
            new, first = [item for item in items if item not in self._row_of], len(self._row_of)
            if first + len(new) > len(self._number_RF):
                return False
            self._number_RF[first : first + len(new)] = self._look_up(new)
            # Places last: another thread reads without the lock, and must not find a place before its numbers.
            self._row_of.update(zip(new, range(first, first + len(new)), strict=True))
            return True


def _by_field(given: Sequence[Mapping[str, str | None] | None]) -> dict[str, tuple[list[int], list[str | None]]]:
    """Field -> places of the items that have a value for it, and the values."""
    values_of: dict[str, tuple[list[int], list[str | None]]] = {}
    for at, values in enumerate(given):
        for field, value in (values or {}).items():
            places, of_field = values_of.setdefault(field, ([], []))
            places.append(at)
            of_field.append(value)
    return values_of
