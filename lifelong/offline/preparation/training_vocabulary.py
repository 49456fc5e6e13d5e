"""Vocabularies from the training period, and the catalogue that is written in their numbers.

Known values are numbered by descending count in the training period, then by id. An item with fewer than `min_count`
training events has the number of its hash bucket, and so has every item that comes later. The values of an earlier
vocabulary come first, with the numbers that they had, whether this log has them or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex, NumberVocabulary, Vocabulary, quantities
from lifelong.dtypes import IntArray
from lifelong.tally.spec import KEYS, NO_KEY, key_count


def default_buckets(field: str, known: int) -> int:
    """Hash buckets of a field by its number of known values.

    One bucket for about 64 known values, as a power of two: 64 to 65,536 for items. Other fields have none below 1,000
    known values (where a new value is rare, and `unknown` is enough) and at most 4,096.

    >>> default_buckets("item", 10_000), default_buckets("category", 100)
    (256, 0)
    """
    wanted = 1 << max(known // 64, 1).bit_length()
    if field == "item":
        return min(max(wanted, 64), 65_536)
    return min(wanted, 4_096) if known >= 1_000 else 0


def vocabulary_of(
    field: str,
    ids: IdIndex,
    count_V: IntArray,
    *,
    min_count: int,
    buckets: int | None,
    earlier: Vocabulary | None = None,
) -> tuple[Vocabulary, IntArray]:
    """The vocabulary of a field, and the number of each of its values.

    Args:
        field: its name.
        ids: all values, sorted.
        count_V: events of each in the training period.
        min_count: a value with fewer events uses its bucket.
        buckets: None = as in `earlier`, or `default_buckets`.
        earlier: known values that keep their numbers.

    Returns:
        The vocabulary; int64 numbers of `ids`.
    """
    before = np.full(len(ids), -1) if earlier is None else earlier.index.find_all(ids)
    known = np.flatnonzero((count_V >= max(min_count, 1)) & (before < 0))
    known = known[np.argsort(-count_V[known], kind="stable")]
    index = ids.take(known)
    if earlier is not None:
        index, buckets = earlier.index.followed_by(index), earlier.buckets if buckets is None else buckets
    vocabulary = Vocabulary(index, buckets=default_buckets(field, len(index)) if buckets is None else buckets)
    number = vocabulary.fallback_numbers(ids.hashes())
    number[known] = vocabulary.size - len(known) + np.arange(len(known))
    kept = np.flatnonzero(before >= 0)
    number[kept] = vocabulary.first_known + before[kept]
    return vocabulary, number


def field_vocabulary(
    field: str, codes: IntArray, values: list[str], count_V: IntArray, **how: Any
) -> tuple[Vocabulary, IntArray]:
    """The vocabulary of a field, and the number of each value.

    Args:
        field: its name.
        codes: place in `values` for each entry of `count_V`, -1 where missing.
        values: distinct values.
        count_V: events in the training period for each code.
        how: `min_count`, `buckets` and `earlier` of `vocabulary_of`.
    """
    held, order = codes >= 0, np.array(sorted(range(len(values)), key=values.__getitem__), np.int64)
    count = np.bincount(codes[held], weights=count_V[held], minlength=len(values)).astype(np.int64)
    ids, number = IdIndex.build([values[place] for place in order]), np.empty(len(values), np.int64)
    vocabulary, number[order] = vocabulary_of(field, ids, count[order], **how)
    return vocabulary, number


def field_codes(table: Any, field: str, *, order: str = "row") -> tuple[IntArray, list[str]]:
    """Values of one field of items or users, dictionary-encoded, in the order of their numbers.

    Args:
        table: Ibis table with the order and the field, one row per item or user.
        field: its name.
        order: column of the numbers.

    Returns:
        int64 codes (-1 where missing or empty), one per row, and the distinct values.
    """
    column = table.order_by(order).select(field).to_pyarrow().column(field).combine_chunks().dictionary_encode()
    values = column.dictionary.to_pylist()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if "" in values:
        codes[codes == values.index("")] = -1
    return codes, values


def not_numbers(items: Any, catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Which fields of quantities have values that are none, such as prices with a decimal comma.

    Args:
        items: as in `build_catalogue`.
        catalogue: what it gave.

    Returns:
        field -> how many `items` have such a value, and the `first` of them; fields without any are left out.
    """
    found = {}
    for column, (field, vocabulary) in enumerate(catalogue.vocabularies.items()):
        # Most logs have none, and are not read again.
        if not isinstance(vocabulary, NumberVocabulary) or (catalogue.number_VF[FIRST_ROW:, column] != UNKNOWN).all():
            continue
        codes, values = field_codes(items, field)
        wrong = np.append(vocabulary.numbers(values) == UNKNOWN, False)[codes]
        if wrong.any():
            found[field] = {"items": int(wrong.sum()), "first": values[codes[int(wrong.argmax())]]}
    return found


def build_catalogue(
    items: Any,
    fields: Sequence[str],
    ids: IdIndex,
    count_V: IntArray,
    *,
    min_count: Mapping[str, int],
    buckets: Mapping[str, int],
    earlier: Mapping[str, Vocabulary] | None = None,
    scales: Collection[str] = (),
) -> Catalogue:
    """Vocabularies of all item fields, and all items in their numbers.

    Args:
        items: Ibis table `item`, `row` and the fields, one row per catalogue row.
        fields: names of the item fields other than `item`.
        ids: the same items in order of their rows.
        count_V: events of each row in the training period.
        min_count: per field, 1 where it is not named.
        buckets: per field; as in `earlier`, or `default_buckets`, where it is not named.
        earlier: field -> known values that keep their numbers.
        scales: fields of quantities, numbered by a fixed scale.
    """
    before = earlier or {}
    vocabulary, number = vocabulary_of(
        "item",
        ids,
        count_V[FIRST_ROW:],
        min_count=min_count.get("item", 1),
        buckets=buckets.get("item"),
        earlier=before.get("item"),
    )
    vocabularies = {"item": vocabulary}
    number_VF = np.zeros((FIRST_ROW + len(ids), 1 + len(fields)), np.int32)
    number_VF[UNKNOWN] = UNKNOWN
    number_VF[FIRST_ROW:, 0] = number
    key_VF = np.full_like(number_VF, NO_KEY)
    key_VF[FIRST_ROW:, 0] = vocabulary.keys_by_hash(ids.hashes(), number, KEYS)
    own_values = []
    for column, field in enumerate(fields, 1):
        codes, values = field_codes(items, field)
        if field in scales:
            vocabularies[field] = NumberVocabulary()
            of_value = vocabularies[field].numbers(values)
            own_values.append(np.append(quantities(values), np.nan)[codes])
        else:
            vocabularies[field], of_value = field_vocabulary(
                field,
                codes,
                values,
                count_V[FIRST_ROW:],
                min_count=min_count.get(field, 1),
                buckets=buckets.get(field),
                earlier=before.get(field),
            )
        # A missing value has code -1, which picks the last entry, the unknown.
        number_VF[FIRST_ROW:, column] = np.append(of_value, UNKNOWN)[codes]
        key_of_value = vocabularies[field].keys(values, of_value, key_count(vocabularies[field].size, first=False))
        key_VF[FIRST_ROW:, column] = np.append(key_of_value, NO_KEY)[codes]
    if not own_values:
        return Catalogue(ids, number_VF, vocabularies, key_VF=key_VF)
    value_VN = np.full((len(number_VF), len(own_values)), np.nan)
    value_VN[FIRST_ROW:] = np.column_stack(own_values)
    return Catalogue(ids, number_VF, vocabularies, value_VN, key_VF=key_VF)
