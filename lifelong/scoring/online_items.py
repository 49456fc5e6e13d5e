"""Items that were added or changed online: durable in the store, which keeps those in RAM that are asked for.

Besides its item fields an item may have newer statistics (`item.reviews`), if the artifact's model reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from lifelong.data.catalogue import number_fields
from lifelong.data.item_statistics import parsed
from lifelong.dtypes import IntArray
from lifelong.errors import RequestError, StoreUnavailableError
from lifelong.store.contract import ITEMS, Commit, until_kept

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.catalogue import Catalogue
    from lifelong.data.item_statistics import LatestStatistics
    from lifelong.store.contract import MemoryStore

Fields = Mapping[str, str | None]
_SHORT = 1_024
"""Bytes of a stored value up to which its decoded fields are kept."""


class OnlineItems:
    """Fields of items that win over the catalogue; fields that come with a request win over both.

    Args:
        artifact: its catalogue has the fields of all other items, its statistics those of the end of its log.
        store: where they are kept; asked at each look-up, so what is put through one object is seen through all.
    """

    catalogue: Catalogue
    statistics: LatestStatistics | None
    store: MemoryStore

    def __init__(self, artifact: Artifact, store: MemoryStore) -> None:
        self.catalogue, self.statistics, self.store = artifact.catalogue, artifact.item_statistics, store

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
            RequestError: an item cannot be given a field, or a statistic is not a number; nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; they can be put again.
        """
        self.check(field for fields in items.values() for field in fields)
        for fields in items.values():
            for field in self._statistic_fields:
                parsed(field, fields.get(field))

        def attempt(refused: frozenset[str] | None) -> int:
            before = dict(zip(items, self.store.read_many(list(items), space=ITEMS), strict=True))
            merged = {item: {**(_decode(before[item]) or {}), **fields} for item, fields in items.items()}
            values = {item: json.dumps(fields).encode() for item, fields in merged.items()}
            self.store.commit(Commit(records={ITEMS: values}, bases={ITEMS: before}))
            return len(values)

        def failure() -> StoreUnavailableError:
            return StoreUnavailableError("other processes put the same items again and again", fix="put them again")

        return until_kept(attempt, failure)

    def remove(self, items: Sequence[str]) -> int:
        """Take fields away that were put online, durably: the catalogue's count again.

        Returns:
            How many of the items had any.

        Raises:
            StoreUnavailableError: the error says what was kept, if anything; they can be removed again.
        """

        def attempt(refused: frozenset[str] | None) -> int:
            before = dict(zip(items, self.store.read_many(list(items), space=ITEMS), strict=True))
            there = [item for item, value in before.items() if value is not None]
            if there:
                self.store.commit(Commit(bases={ITEMS: {item: before[item] for item in there}}, removed=there))
            return len(there)

        def failure() -> StoreUnavailableError:
            found = "other processes put the same items again and again"
            return StoreUnavailableError(found, fix="remove them again")

        return until_kept(attempt, failure)

    def _online(self, items: Sequence[str]) -> list[Fields | None]:
        """Fields that were put online, for each item; None if there are none."""
        return [_decode(value) for value in self.store.read_many(items, space=ITEMS)]

    def check(self, fields: Iterable[str]) -> None:
        """Refuse fields that an item cannot be given.

        Raises:
            RequestError: it names the first of them.
        """
        known = self.fields
        for field in fields:
            if field not in known:
                raise RequestError(
                    f"{field!r} is not a field that an item can be given",
                    expected=", ".join(known) or "no fields: this model knows only item ids",
                    fix="leave it out",
                )

    def numbers(self, items: Sequence[str], given: Sequence[Fields | None] | None = None) -> IntArray:
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
        online = self._online(items)
        if not any(online):
            return self.catalogue.numbers(items, given)
        inline = given or [None] * len(items)
        # An item may have been put with fields of another artifact, which this one lacks.
        known = [fields and self.catalogue.only_known(fields) for fields in online]
        merged = [{**(fields or {}), **(own or {})} for fields, own in zip(known, inline, strict=True)]
        return self.catalogue.numbers(items, merged)

    def texts(
        self,
        field: str,
        items: Sequence[str],
        number_N: IntArray,
        given: Sequence[Fields | None] | None = None,
    ) -> list[str | None]:
        """Values of one field of items, for people: see `Catalogue.texts`.

        Args:
            field: its name.
            items: item ids.
            number_N: the number of each.
            given: per item the fields that came with the request or the event, or None.
        """
        if field not in number_fields(self.catalogue.vocabularies):
            return self.catalogue.texts(field, items, number_N)
        online = dict(zip(distinct := list(dict.fromkeys(items)), self._online(distinct), strict=True))
        own = [
            (fields or {}).get(field) or (online[item] or {}).get(field)
            for item, fields in zip(items, given or [None] * len(items), strict=True)
        ]
        return self.catalogue.texts(field, items, number_N, own)

    def statistics_of(self, items: Sequence[str], given: Sequence[Fields | None] | None = None) -> IntArray:
        """Context numbers of the statistics that the model reads, `[len(items), K]`.

        Those of a request win over those that were put online, and these over the artifact's, which are those at the
        end of its log.

        Args:
            items: item ids.
            given: per item the fields that came with the request, or None.

        Raises:
            RequestError: a value is not a number.
        """
        assert self.statistics is not None
        inline = given or [None] * len(items)
        online = self._online(items)
        newer = [{**(fields or {}), **(own or {})} for fields, own in zip(online, inline, strict=True)]
        return self.statistics.numbers(self.catalogue.rows(items), newer if any(newer) else None)


def _without(fields: Fields | None, names: Sequence[str]) -> Fields | None:
    return fields and {name: value for name, value in fields.items() if name not in names}


def _decode(value: bytes | None) -> Fields | None:
    """The fields of a stored value; many items have the same ones."""
    if value is None:
        return None
    return _decode_short(value) if len(value) <= _SHORT else json.loads(value)


@lru_cache(maxsize=4_096)
def _decode_short(value: bytes) -> Fields:
    fields: Fields = json.loads(value)
    return fields
