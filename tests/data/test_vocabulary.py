from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.dataset import vocabulary as module
from lifelong.dataset.blake2b import text_hashes
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex, TextColumn, Vocabulary, id_hash
from lifelong.errors import DatasetError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def test_a_hash_never_changes() -> None:
    assert (id_hash(""), id_hash("i1"), id_hash("é")) == (
        13020603013274838756,
        778860755400141486,
        3394012004367669963,
    )


def test_numbers_put_padding_unknown_and_buckets_before_known_values() -> None:
    vocabulary = Vocabulary.build(["a", "b"], buckets=3)
    assert vocabulary.size == 7
    assert vocabulary.numbers(["a", "b", None]).tolist() == [5, 6, UNKNOWN]
    assert vocabulary.numbers(["new"]).tolist() == [2 + id_hash("new") % 3]


def test_without_buckets_an_unseen_value_is_unknown() -> None:
    assert Vocabulary.build(["a"]).numbers(["new", "a"]).tolist() == [UNKNOWN, 2]


def test_fallback_sends_known_values_to_their_buckets_and_leaves_the_rest() -> None:
    vocabulary = Vocabulary.build(["a", "b"], buckets=3)
    assert vocabulary.fallback.tolist() == [0, 1, 2, 3, 4, 2 + id_hash("a") % 3, 2 + id_hash("b") % 3]


@given(st.lists(TEXT, unique=True, max_size=20), st.integers(0, 5))
def test_every_value_comes_back_from_its_number(values: list[str], buckets: int) -> None:
    vocabulary = Vocabulary.build(values, buckets=buckets)
    assert [vocabulary.value_of(int(number)) for number in vocabulary.numbers(values)] == values


@given(st.lists(TEXT, unique=True, min_size=1, max_size=20), st.data())
def test_taken_ids_are_found_at_their_new_place(ids: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(ids) - 1), unique=True))
    taken = IdIndex.build(ids).take(np.array(chosen, np.int64))
    assert taken.ids() == [ids[place] for place in chosen]
    assert taken.find([ids[place] for place in chosen]).tolist() == list(range(len(chosen)))


@pytest.mark.parametrize("many", [0, 100], ids=["compiled", "one by one"])
@pytest.mark.parametrize("chunk", [2, 100])
@settings(deadline=None)  # The first call compiles.
@given(st.lists(TEXT, unique=True, max_size=20), st.lists(TEXT, unique=True, max_size=20))
def test_an_index_is_the_dict_of_its_ids(many: int, chunk: int, ids: list[str], others: list[str]) -> None:
    place, wanted = {value: at for at, value in enumerate(ids)}, [*others, *ids[::2]]
    with mock.patch.multiple(module, _MANY=many, CHUNK=chunk), tempfile.TemporaryDirectory() as folder:
        IdIndex.build(ids).save(Path(folder))
        index = IdIndex.open(Path(folder))
        assert index.find(wanted).tolist() == [place.get(value, -1) for value in wanted]
        assert [index.find([value])[0] for value in wanted] == [place.get(value, -1) for value in wanted]
        assert index.find_all(IdIndex.build(others)).tolist() == [place.get(value, -1) for value in others]
        assert index.take(np.arange(len(ids))[::-2]).ids() == ids[::-2]
        assert index.hashes().tolist() == [id_hash(value) for value in ids]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_compiled_hashes_are_those_of_the_standard_library(texts: list[bytes]) -> None:
    text, offset = np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])
    wanted = [int.from_bytes(hashlib.blake2b(each, digest_size=8).digest(), "little") for each in texts]
    assert text_hashes(text, offset).tolist() == wanted


@pytest.mark.parametrize("size", [0, 1, 8, 127, 128, 129, 256, 257])
def test_compiled_hashes_of_texts_around_a_block(size: int) -> None:
    assert text_hashes(*TextColumn.of(["x" * size]).arrays().values()).tolist() == [id_hash("x" * size)]


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    Vocabulary.build(["x", "", "ÿ"], buckets=1).save(tmp_path)
    opened = Vocabulary.open(tmp_path)
    assert opened.numbers(["ÿ", "x", "", "y"]).tolist() == [5, 3, 4, 2]
    assert [opened.value_of(number) for number in range(6)] == [None, None, None, "x", "", "ÿ"]


def test_ids_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_text_hashes", lambda text, offset: np.full(len(offset) - 1, 7, np.uint64))
    monkeypatch.setattr(module, "id_hash", lambda value: 7)
    index = IdIndex.build(["a", "b", "c"])
    assert index.find(["c", "a", "d", "b"]).tolist() == [2, 0, -1, 1]
    with pytest.raises(DatasetError, match="'b' occurs twice"):
        IdIndex.build(["b", "a", "b"])


def test_a_repeated_id_is_named() -> None:
    with pytest.raises(DatasetError, match="the id 'a' occurs twice"):
        IdIndex.build(["a", "b", "a"])


def test_an_empty_index_finds_nothing() -> None:
    assert IdIndex.build([]).find(["a"]).tolist() == [-1]


def test_a_folder_without_a_vocabulary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no vocabulary in"):
        Vocabulary.open(tmp_path)
