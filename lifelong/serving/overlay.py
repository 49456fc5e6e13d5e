"""Items that were added or changed online: durable in the store, kept in memory for look-ups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.errors import RequestError
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.data.catalogue import Catalogue
    from lifelong.memory.store import MemoryStore

Fields = Mapping[str, str | None]


class ItemOverlay:
    """Fields of items that win over the catalogue; fields that come with a request win over both.

    Args:
        catalogue: of the artifact.
        store: where they are kept; read once, at the start.
    """

    def __init__(self, catalogue: Catalogue, store: MemoryStore) -> None:
        self.catalogue, self.store = catalogue, store
        self._fields: dict[str, Fields] = {item: json.loads(value) for item, value in store.items()}

    def of(self, item: str) -> Fields | None:
        """Fields put online, None if the item has none."""
        return self._fields.get(item)

    def put(self, items: Mapping[str, Fields]) -> int:
        """Add items or change their fields, durably; fields that are not named keep their value.

        Returns:
            How many items were stored.

        Raises:
            RequestError: a field is not an item field; nothing was kept.
        """
        self.check(field for fields in items.values() for field in fields)
        merged = {item: {**self._fields.get(item, {}), **fields} for item, fields in items.items()}
        self.store.commit(Commit(items={item: json.dumps(fields).encode() for item, fields in merged.items()}))
        # One assignment per item: a reader sees an item's old fields or its new ones.
        self._fields.update(merged)
        return len(merged)

    def check(self, fields: object) -> None:
        """Refuse fields that an item cannot have.

        Raises:
            RequestError: names the first of them.
        """
        known = self.catalogue.fields[1:]
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
        if not self._fields:
            return self.catalogue.numbers(items, given)
        inline = given or [None] * len(items)
        merged = [{**(self._fields.get(item) or {}), **(own or {})} for item, own in zip(items, inline, strict=True)]
        return self.catalogue.numbers(items, merged)
