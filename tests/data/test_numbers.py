from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.dataset.folder import Dataset
from lifelong.dataset.scales import NUMBER
from lifelong.dataset.vocabulary import UNKNOWN, NumberVocabulary, Vocabulary
from lifelong.errors import ConfigError, DatasetError
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.preparation.settings import PrepareSettings


def prepared(folder: Path, **mapping: object) -> Dataset:
    lines = ["user,item,time"] + [f"u{user},i{at % 4},{at}" for user in range(4) for at in range(10)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("sku,cost\ni0,9.99\ni1,10.01\ni2,free\ni9,1e30\n")
    items = {"files": ["items.csv"], "item": "sku", "fields": {"price": "cost"}, "numbers": ["price"]}
    given = {"user": "user", "item": "item", "time": "time", "items": items, **mapping}
    (folder / "mapping.json").write_text(json.dumps(given))
    settings = PrepareSettings(mapping=folder / "mapping.json", threads=1, cuts=(0.5, 0.8))
    return prepare("table", [folder / "log.csv"], folder / "data", settings=settings)


def test_a_field_of_numbers_is_on_a_scale_that_no_data_changes(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    assert (dataset.schema.item_fields, dataset.schema.number_fields) == (("item", "price"), ("price",))
    vocabulary = dataset.vocabularies["price"]
    assert isinstance(vocabulary, NumberVocabulary) and vocabulary.size == NUMBER.size
    catalogue = dataset.catalogue
    price = dict(zip(catalogue.ids.ids(), catalogue.number_VF[2:, 1].tolist(), strict=True))
    assert price["i0"] == price["i1"] == vocabulary.numbers(["10"])[0]
    assert (price["i2"], price["i3"], price["i9"]) == (UNKNOWN, UNKNOWN, NUMBER.size - 1)
    assert float(vocabulary.value_of(price["i0"]) or 0) == pytest.approx(10, rel=0.1)
    assert dataset.inputs.numbers == ("price",)


def test_a_price_can_come_with_an_item_that_is_not_known(tmp_path: Path) -> None:
    catalogue = prepared(tmp_path).catalogue
    number = catalogue.numbers(["i0", "new", "new"], [{"price": "0.05"}, {"price": "0.05"}, None])
    assert number[:, 1].tolist() == [*catalogue.vocabularies["price"].numbers(["0.05"] * 2), UNKNOWN]


@pytest.mark.parametrize("text", [None, "", "cheap", "-1", "nan", "inf"])
def test_what_is_no_number_is_unknown(text: str | None) -> None:
    assert NumberVocabulary().numbers([text, "0"]).tolist() == [UNKNOWN, 2]


def test_levels_are_quarters_of_an_octave() -> None:
    vocabulary = NumberVocabulary()
    level = vocabulary.numbers([f"{0.01 * (2 ** (step / 4) - 1):.9f}" for step in range(161)])
    assert np.diff(level).tolist() == [1] * 160
    values = [vocabulary.value_of(int(number)) for number in level]
    assert vocabulary.numbers(values).tolist() == level.tolist()


def test_a_saved_scale_is_opened_as_one_and_another_is_refused(tmp_path: Path) -> None:
    NumberVocabulary().save(tmp_path)
    opened = Vocabulary.open(tmp_path)
    assert isinstance(opened, NumberVocabulary) and opened.content_hash() == NumberVocabulary().content_hash()
    (tmp_path / "scale.json").write_text('{"octaves": 3}')
    with pytest.raises(DatasetError, match=r"holds the scale .*octaves.*that of this release"):
        Vocabulary.open(tmp_path)


def test_numbers_name_fields_of_items(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="numbers names weight, which is not one of the fields"):
        prepared(tmp_path, numbers=["weight"])
    with pytest.raises(ConfigError, match="a field of a profile is a category"):
        prepared(tmp_path, users={"files": ["x"], "user": "u", "fields": ["age"], "numbers": ["age"]})
