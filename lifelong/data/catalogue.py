"""Item -> fields: every item of a log, with the numbers of its fields.

A *row* of the catalogue stands for one item; histories and examples store rows (int32). Row 0 is padding, row 1 an
item of which nothing is known, row 2 + i the i-th item. Several rows can have one item number (rare and new items share
hash buckets) and yet different categories.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.vocabulary import UNKNOWN, IdIndex, Vocabulary
from lifelong.errors import DatasetError, RequestError

FIRST_ROW = 2
_RECENT = 131_072
"""Items whose numbers are kept at hand: a look-up on disk costs fifty times as much."""


class Catalogue:
    """All items of a dataset.

    Args:
        ids: item ids; item `ids.id_at(i)` has row `FIRST_ROW + i`.
        number_VF: int32, one row of field numbers per catalogue row (padding and unknown rows included), columns in the
            order of `vocabularies`.
        vocabularies: item field -> vocabulary; the first is `item`.
    """

    def __init__(self, ids: IdIndex, number_VF: npt.NDArray[np.int32], vocabularies: Mapping[str, Vocabulary]) -> None:
        self.ids, self.number_VF, self.vocabularies = ids, number_VF, dict(vocabularies)
        self._recent = _Recent(self._looked_up, len(self.vocabularies))

    @classmethod
    def open(cls, folder: Path, vocabularies: Mapping[str, Vocabulary]) -> Catalogue:
        """Map a saved catalogue.

        Raises:
            DatasetError: a file is missing, or its size does not fit.
        """
        ids = IdIndex.open(folder)
        try:
            number_VF = np.load(folder / "number.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot read the catalogue in {folder}: {error}", fix="make it anew") from error
        if number_VF.shape != (FIRST_ROW + len(ids), len(vocabularies)):
            raise DatasetError(
                f"the catalogue in {folder} has shape {number_VF.shape}",
                expected=f"({FIRST_ROW + len(ids)}, {len(vocabularies)})",
                fix="make it anew",
            )
        return cls(ids, number_VF, vocabularies)

    def save(self, folder: Path) -> None:
        """Write the catalogue (without the vocabularies) into `folder`."""
        self.ids.save(folder)
        np.save(folder / "number.npy", self.number_VF)

    def __len__(self) -> int:
        """Number of rows, padding and unknown included."""
        return len(self.number_VF)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the item fields; the first is `item`."""
        return tuple(self.vocabularies)

    def rows(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row of each item id; 1 where the item is not in the catalogue."""
        found = self.ids.find(items)
        return np.where(found >= 0, found + FIRST_ROW, UNKNOWN)

    def id_of(self, row: int) -> str | None:
        """Item id of a row, None for padding and unknown."""
        return self.ids.id_at(row - FIRST_ROW) if row >= FIRST_ROW else None

    def only_known(self, fields: Mapping[str, str | None]) -> dict[str, str | None]:
        """Those of an item's fields that an item of this catalogue can be given."""
        return {name: value for name, value in fields.items() if name in self.fields[1:]}

    def numbers(
        self, items: Sequence[str], given: Sequence[Mapping[str, str | None] | None] | None = None
    ) -> npt.NDArray[np.int64]:
        """Field numbers of items by id, for scoring and updating.

        Args:
            items: item ids. One that the catalogue lacks gets its hash bucket and unknown fields.
            given: field values that came with the request, or None; they win over the catalogue.

        Returns:
            int64, `[len(items), F]`.

        Raises:
            RequestError: a given field is not an item field.
        """
        number_BF = self._known_numbers(items)
        for field, (places, values) in _by_field(given).items() if given else ():
            if field == "item" or field not in self.vocabularies:
                raise RequestError(
                    f"{field!r} is not a field that an item can be given",
                    expected=", ".join(self.fields[1:]) or "no fields: this dataset has only item ids",
                )
            number_BF[places, self.fields.index(field)] = self.vocabularies[field].numbers(values)
        return number_BF

    def _known_numbers(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        """Numbers of items by what the catalogue alone knows of them; those asked lately are looked up in RAM."""
        found = self._recent.numbers(items)
        if found is None:
            self._recent = recent = _Recent(self._looked_up, len(self.vocabularies))
            found = recent.numbers(items)
        return self._looked_up(items) if found is None else found

    def _looked_up(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        number_BF = np.array(self.number_VF[self.rows(items)], np.int64)
        number_BF[:, 0] = self.vocabularies["item"].numbers(items)
        return number_BF


class _Recent:
    """Numbers of items that were asked lately, up to a number of them. Threads may share it.

    Args:
        look_up: gives the numbers of items.
        fields: numbers of one item.
    """

    def __init__(self, look_up: Callable[[Sequence[str]], npt.NDArray[np.int64]], fields: int) -> None:
        self._lock, self._look_up = threading.Lock(), look_up
        self._place: dict[str, int] = {}
        self._number_RF = np.zeros((_RECENT, fields), np.int64)

    def numbers(self, items: Sequence[str]) -> npt.NDArray[np.int64] | None:
        """Numbers of items; those that are not at hand are looked up. None where there is no room for these."""
        place_N = np.fromiter(map(self._place.get, items, repeat(-1)), np.int64, len(items))
        missing_N = np.flatnonzero(place_N < 0)
        if len(missing_N):
            names = [items[place] for place in missing_N.tolist()]
            if not self._added(dict.fromkeys(names)):
                return None
            place_N[missing_N] = [self._place[name] for name in names]
        return self._number_RF[place_N]

    def _added(self, items: Iterable[str]) -> bool:
        """Whether there was room for the items."""
        with self._lock:
            # Another thread may have added some of them meanwhile.
            new, first = [item for item in items if item not in self._place], len(self._place)
            if first + len(new) > len(self._number_RF):
                return False
            self._number_RF[first : first + len(new)] = self._look_up(new)
            # Places last: another thread reads without the lock.
            self._place.update(zip(new, range(first, first + len(new)), strict=True))
            return True


def _by_field(given: Sequence[Mapping[str, str | None] | None]) -> dict[str, tuple[list[int], list[str | None]]]:
    """Field -> places of the items that have a value for it, and the values."""
    found: dict[str, tuple[list[int], list[str | None]]] = {}
    for place, values in enumerate(given):
        for field, value in (values or {}).items():
            places, of_field = found.setdefault(field, ([], []))
            places.append(place)
            of_field.append(value)
    return found
