from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lifelong.data import catalogue as catalogues
from lifelong.data.catalogue import Catalogue
from lifelong.data.vocabulary import UNKNOWN, IdIndex, Vocabulary, id_hash
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
