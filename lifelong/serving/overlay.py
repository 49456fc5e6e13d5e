"""Items that were added or changed online: durable in the store, and kept in memory where no other process adds any.

Beside its item fields an item may have newer statistics (`item.reviews`), where the artifact's model reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.item_statistics import parsed
from lifelong.errors import RequestError, StoreConflictError, StoreUnavailableError
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.data.catalogue import Catalogue
    from lifelong.data.item_statistics import LatestStatistics
    from lifelong.memory.store import MemoryStore

Fields = Mapping[str, str | None]
_ATTEMPTS = 100
"""How often items are merged again because other processes put the same ones."""


class ItemOverlay:
    """Fields of items that win over the catalogue; fields that come with a request win over both.

    Args:
        catalogue: of the artifact.
        store: where they are kept; read once, at the start, and at each look-up if other processes write to it.
        statistics: of the artifact's items, if its model reads any.
    """

    def __init__(self, catalogue: Catalogue, store: MemoryStore, *, statistics: LatestStatistics | None = None) -> None:
        self.catalogue, self.store, self.statistics = catalogue, store, statistics
        rows = () if store.shared else store.items()
        self._fields: dict[str, Fields] = {item: json.loads(value) for item, value in rows}

    def beside(self, catalogue: Catalogue, *, statistics: LatestStatistics | None = None) -> ItemOverlay:
        """The same items for another artifact: what is put through one is seen through both."""
        other = ItemOverlay.__new__(ItemOverlay)
        other.catalogue, other.store, other._fields = catalogue, self.store, self._fields
        other.statistics = statistics
        return other

    @property
    def fields(self) -> tuple[str, ...]:
        """What an item can be given: item fields, and statistics that the model reads."""
        return (*self.catalogue.fields[1:], *self._statistic_fields)

    @property
    def _statistic_fields(self) -> tuple[str, ...]:
        return () if self.statistics is None else self.statistics.fields

    def of(self, item: str) -> Fields | None:
        """Fields put online, None if the item has none."""
        return self._online([item])[0]

    def put(self, items: Mapping[str, Fields]) -> int:
        """Add items or change their fields, durably; fields that are not named keep their value.

        Returns:
            How many items were stored.

        Raises:
            RequestError: a field is none that an item can be given, or a statistic is no number; nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; they can be put again.
        """
        self.check(field for fields in items.values() for field in fields)
        for fields in items.values():
            for field in self._statistic_fields:
                parsed(field, fields.get(field))
        for _ in range(_ATTEMPTS):
            try:
                merged = self._put(items)
            except StoreConflictError:
                continue
            if not self.store.shared:
                # One assignment per item: a reader sees an item's old fields or its new ones.
                self._fields.update(merged)
            return len(merged)
        raise StoreUnavailableError("other processes put the same items again and again", fix="put them again")

    def _put(self, items: Mapping[str, Fields]) -> dict[str, Fields]:
        """Merge fields into those that the store holds, and write them."""
        before = dict(zip(items, self.store.read_items(list(items)), strict=True))
        merged: dict[str, Fields] = {item: {**_decode(before[item]), **fields} for item, fields in items.items()}
        values = {item: json.dumps(fields).encode() for item, fields in merged.items()}
        self.store.commit(Commit(items=values, items_based_on=before))
        return merged

    def _online(self, items: Sequence[str]) -> list[Fields | None]:
        """Fields put online of each item, None where there are none."""
        if not self.store.shared:
            return [self._fields.get(item) for item in items]
        return [None if value is None else _decode(value) for value in self.store.read_items(items)]

    def check(self, fields: object) -> None:
        """Refuse fields that an item cannot have.

        Raises:
            RequestError: names the first of them.
        """
        known = self.fields
        for field in fields:  # type: ignore[attr-defined]
            if field not in known:
                raise RequestError(
                    f"{field!r} is not a field that an item can be given",
                    expected=", ".join(known) or "no fields: this model knows only item ids",
                    fix="leave it out",
                )

    def numbers(self, items: Sequence[str], given: Sequence[Fields | None] | None = None) -> npt.NDArray[np.int64]:
        """Field numbers of items, `[len(items), F]`.

        Args:
            items: item ids.
            given: per item the fields that came with the request, or None.

        Raises:
            RequestError: a given field is not an item field.
        """
        own_fields = self._statistic_fields
        if given is not None and own_fields:
            given = [_without(fields, own_fields) for fields in given]
        online = self._looked_up(items)
        if not any(online):
            return self.catalogue.numbers(items, given)
        inline = given or [None] * len(items)
        # An item may have been put with fields that another artifact has and this one not.
        known = [fields and self.catalogue.only_known(fields) for fields in online]
        merged = [{**(fields or {}), **(own or {})} for fields, own in zip(known, inline, strict=True)]
        return self.catalogue.numbers(items, merged)

    def statistics_of(
        self, items: Sequence[str], given: Sequence[Fields | None] | None = None
    ) -> npt.NDArray[np.int64]:
        """Context numbers of the statistics that the model reads, `[len(items), K]`.

        Those of a request win over those that were put online, and these over the artifact's, which are of the end of
        its log.

        Args:
            items: item ids.
            given: per item the fields that came with the request, or None.

        Raises:
            RequestError: a value is no number.
        """
        assert self.statistics is not None
        inline = given or [None] * len(items)
        online = self._looked_up(items) or inline
        newer = [{**(fields or {}), **(own or {})} for fields, own in zip(online, inline, strict=True)]
        return self.statistics.numbers(self.catalogue.rows(items), newer if any(newer) else None)

    def _looked_up(self, items: Sequence[str]) -> Sequence[Fields | None]:
        """Fields put online; empty where none ever were."""
        return self._online(items) if self._fields or self.store.shared else []


def _without(fields: Fields | None, names: Sequence[str]) -> Fields | None:
    return fields and {name: value for name, value in fields.items() if name not in names}


def _decode(value: bytes | None) -> Fields:
    fields: Fields = {} if value is None else json.loads(value)
    return fields
