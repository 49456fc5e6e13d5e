"""Item -> fields: every item of a log, with the numbers of its fields.

A *row* of the catalogue stands for one item; histories and examples store rows (int32). Row 0 is padding, row 1 an
item of which nothing is known, row 2 + i the i-th item. Several rows can have one item number (rare and new items share
hash buckets) and yet different categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.vocabulary import UNKNOWN, IdIndex, Vocabulary
from lifelong.errors import DatasetError, RequestError

FIRST_ROW = 2


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
        number_BF = np.array(self.number_VF[self.rows(items)], np.int64)
        number_BF[:, 0] = self.vocabularies["item"].numbers(items)
        for place, values in enumerate(given or ()):
            for field, value in (values or {}).items():
                if field == "item" or field not in self.vocabularies:
                    raise RequestError(
                        f"{field!r} is not a field that an item can be given",
                        expected=", ".join(self.fields[1:]) or "no fields: this dataset has only item ids",
                    )
                number_BF[place, self.fields.index(field)] = self.vocabularies[field].numbers([value])[0]
        return number_BF
