"""The pages of the models are made from the models."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
from support.model_pages import entries, models_table, pages, write

from lifelong.models import MODELS, PRESETS

pytestmark = pytest.mark.torch
FOLDER = Path(__file__).parents[2] / "docs" / "models"


def test_pages_are_fresh() -> None:
    found = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert found == pages(), "stale: run `make pictures`"


def test_the_table_has_a_row_for_each_model_and_preset_of_its_own_class() -> None:
    rows = [line.split("|")[1].strip() for line in models_table().splitlines()[2:]]
    names = list(MODELS)
    names.insert(names.index("hpmn") + 1, "hpmn_authors")
    names.insert(names.index("fpmc") + 1, "fpmc_users")
    assert rows == [f"[`{name}`]({name}.md)" for name in names]


def test_a_page_says_what_can_be_set_and_whether_a_service_can_run_it() -> None:
    page = pages()["mf.md"]
    for text in ("# MF (`mf`)", "no: its user vectors are trained", "| `factors` |", "## Settings"):
        assert text in page
    assert "| can a service run it? | yes |" in pages()["tally.md"]


def test_every_preset_is_on_the_page_of_its_model() -> None:
    for name, preset in PRESETS.items():
        assert f"`{name}`" in pages()[f"{preset.model}.md"]


def test_a_page_names_the_shared_settings_that_the_model_can_have() -> None:
    assert "any model can have](index.md#what-any-model-can-have): `head`, `context`, `counts`" in pages()["hpmn.md"]
    assert "any model can have](index.md#what-any-model-can-have): `context`." in pages()["tally.md"]
    assert "any model can have" not in pages()["gbdt.md"]


def test_pages_of_models_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("# Gone\n")
    write(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.md")} >= {name for name, _ in entries()}
    assert not (tmp_path / "gone.md").exists()
