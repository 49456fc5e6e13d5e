from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset import catalogue as catalogues
from lifelong.dataset.catalogue import VALUES, Catalogue
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex, NumberVocabulary, Vocabulary, id_hash
from lifelong.errors import DatasetError, RequestError


def _catalogue() -> Catalogue:
    """Items a (known, red), b (in a bucket, blue); 4 buckets; colours red 2, blue 3."""
    items, colours = Vocabulary.build(["a"], buckets=4), Vocabulary.build(["red", "blue"])
    bucket = items.fallback_number("b")
    number_VF = np.array([[0, 0], [1, 1], [6, 2], [bucket, 3]], np.int32)
    return Catalogue(IdIndex.build(["a", "b"]), number_VF, {"item": items, "colour": colours})


def test_an_item_of_the_catalogue_has_its_numbers() -> None:
    assert _catalogue().numbers(["b", "a"]).tolist() == [[2 + id_hash("b") % 4, 3], [6, 2]]


def test_an_item_that_it_lacks_has_its_bucket_and_unknown_fields() -> None:
    assert _catalogue().numbers(["new"]).tolist() == [[2 + id_hash("new") % 4, UNKNOWN]]


def test_given_fields_win_over_the_catalogue() -> None:
    given = [{"colour": "blue"}, {"colour": "red"}, {"colour": None}]
    assert _catalogue().numbers(["a", "new", "a"], given)[:, 1].tolist() == [3, 2, UNKNOWN]


@pytest.mark.parametrize("room", [1, 2, 3, 4, 100])
def test_numbers_are_the_same_whatever_was_asked_before(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "_RECENT", room)
    catalogue, draw = _catalogue(), np.random.default_rng(room)
    for _ in range(50):
        items = draw.choice(["a", "b", "c", "d", "e"], draw.integers(0, 6)).tolist()
        found = catalogue.numbers(items)
        assert found.tolist() == [_catalogue().numbers([item])[0].tolist() for item in items]
        # What is given back is the caller's own.
        found[:] = -1


def test_an_unknown_given_field_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'size' is not a field.*Expected: colour"):
        _catalogue().numbers(["a"], [{"size": "L"}])


def test_rows_and_ids_are_inverse() -> None:
    catalogue = _catalogue()
    assert catalogue.rows(["b", "a", "new"]).tolist() == [3, 2, UNKNOWN]
    assert [catalogue.id_of(row) for row in range(4)] == [None, None, "a", "b"]


def test_what_was_saved_is_opened_again(tmp_path: Path) -> None:
    catalogue = _catalogue()
    catalogue.save(tmp_path)
    opened = Catalogue.open(tmp_path, catalogue.vocabularies)
    assert (len(opened), opened.fields) == (4, ("item", "colour"))
    assert np.array_equal(opened.number_VF, catalogue.number_VF)


def test_a_catalogue_of_another_shape_is_refused(tmp_path: Path) -> None:
    catalogue = _catalogue()
    catalogue.save(tmp_path)
    with pytest.raises(DatasetError, match=r"has shape \(4, 2\).*Expected: \(4, 1\)"):
        Catalogue.open(tmp_path, {"item": catalogue.vocabularies["item"]})


def _priced() -> Catalogue:
    """Items tea (2.95), oats (4.10), air (without a price)."""
    items, prices = Vocabulary.build(["tea", "oats", "air"]), NumberVocabulary()
    price_V = prices.numbers([None, None, "2.95", "4.10", None])
    number_VF = np.column_stack([[0, 1, 2, 3, 4], price_V]).astype(np.int32)
    value_VN = np.array([[np.nan], [np.nan], [2.95], [4.1], [np.nan]])
    return Catalogue(IdIndex.build(["tea", "oats", "air"]), number_VF, {"item": items, "price": prices}, value_VN)


def _price_texts(catalogue: Catalogue, items: list[str], given: list[str | None] | None = None) -> list[str | None]:
    fields = None if given is None else [None if price is None else {"price": price} for price in given]
    return catalogue.texts("price", items, catalogue.numbers(items, fields)[:, 1], given)


def test_a_price_is_shown_as_the_items_own_and_not_as_its_level(tmp_path: Path) -> None:
    priced = _priced()
    level = priced.vocabularies["price"].value_of(int(priced.number_VF[2, 1]))
    assert level is not None and float(level) == pytest.approx(3.034, abs=1e-3)
    priced.save(tmp_path)
    opened = Catalogue.open(tmp_path, priced.vocabularies)
    for catalogue in (priced, opened):
        assert _price_texts(catalogue, ["tea", "oats", "air", "new"]) == ["2.95", "4.1", None, None]


def test_a_price_that_came_with_an_event_is_shown_and_a_level_says_nothing_new() -> None:
    priced = _priced()
    level = priced.vocabularies["price"].value_of(int(priced.number_VF[2, 1]))
    # Of the catalogue's level, of another one, and the level itself, as a memory of numbers alone knows it.
    assert _price_texts(priced, ["tea"] * 3, ["2.99", "7.50", level]) == ["2.99", "7.50", "2.95"]
    # A catalogue that has another price now.
    number_N = priced.vocabularies["price"].numbers(["7.5"])
    assert priced.texts("price", ["tea"], number_N) == [priced.vocabularies["price"].value_of(int(number_N[0]))]


def test_own_values_of_another_shape_are_refused(tmp_path: Path) -> None:
    priced = _priced()
    priced.save(tmp_path)
    np.save(tmp_path / VALUES, np.zeros((2, 1)))
    with pytest.raises(DatasetError, match=r"value.npy holds float64 \(2, 1\).*Expected: float64 \(5, 1\)"):
        Catalogue.open(tmp_path, priced.vocabularies)
