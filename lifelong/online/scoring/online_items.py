"""Items that were added or changed online: durable in the store, which keeps those in RAM that are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from lifelong.dataset.catalogue import number_fields
from lifelong.dtypes import IntArray
from lifelong.online.store.contract import ITEMS, Commit, until_kept

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.dataset.catalogue import Catalogue
    from lifelong.online.store.contract import MemoryStore

Fields = Mapping[str, str | None]
_BUSY = "other processes put the same items again and again"
_SHORT = 1_024
"""Bytes of a stored value up to which its decoded fields are kept."""


class OnlineItems:
    """Fields of items that win over the catalogue; fields that come with a request win over both.

    Args:
        artifact: its catalogue has the fields of all other items.
        store: where they are kept; asked at each look-up, so what is put through one object is seen through all.
    """

    catalogue: Catalogue
    store: MemoryStore

    def __init__(self, artifact: Artifact, store: MemoryStore) -> None:
        self.catalogue, self.store = artifact.catalogue, store

    @property
    def fields(self) -> tuple[str, ...]:
        """What an item can be given."""
        return self.catalogue.fields[1:]

    def of(self, item: str) -> Fields | None:
        """Fields put online, None if the item has none."""
        return self._online([item])[0]

    def put(self, items: Mapping[str, Fields]) -> int:
        """Add items or change their fields, durably; fields that are not named keep their value.

        Returns:
            How many items were stored.

        Raises:
            RequestError: an item cannot be given a field; nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; they can be put again.
        """
        self.catalogue.check_fields(field for fields in items.values() for field in fields)

        def attempt(refused: frozenset[str] | None) -> int:
            before = dict(zip(items, self.store.read_many(list(items), space=ITEMS), strict=True))
            merged = {item: {**_decode(before[item] or b"{}"), **fields} for item, fields in items.items()}
            values = {item: json.dumps(fields).encode() for item, fields in merged.items()}
            # Merged from what was there: of two processes that put one item, none loses its fields.
            self.store.commit(Commit(records={ITEMS: values}, bases={ITEMS: before}))
            return len(values)

        return until_kept(attempt, _BUSY, fix="put them again")

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

        return until_kept(attempt, _BUSY, fix="remove them again")

    def _online(self, items: Sequence[str]) -> list[Fields | None]:
        """Fields that were put online, for each item; None if there are none."""
        return [None if value is None else _decode(value) for value in self.store.read_many(items, space=ITEMS)]

    def numbers(self, items: Sequence[str], given: Sequence[Fields | None] | None = None) -> IntArray:
        """Field numbers of items, followed by their keys: `[len(items), 2 F]`.

        Args:
            items: item ids.
            given: per item the fields that came with the request, or None.

        Raises:
            RequestError: a given field is not an item field.
        """
        online = self._online(items)
        if not any(online):
            return self.catalogue.coded(items, given)
        inline = given or [None] * len(items)
        # An item may have been put with fields of another artifact, which this one lacks.
        online_here = [fields and self.catalogue.only_known(fields) for fields in online]
        merged = [{**(fields or {}), **(own or {})} for fields, own in zip(online_here, inline, strict=True)]
        return self.catalogue.coded(items, merged)

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


def _decode(value: bytes) -> Fields:
    """The fields of a stored value; many items have the same ones."""
    fields: Fields = _decode_short(value) if len(value) <= _SHORT else json.loads(value)
    return fields


@lru_cache(maxsize=4_096)
def _decode_short(value: bytes) -> Fields:
    fields: Fields = json.loads(value)
    return fields
