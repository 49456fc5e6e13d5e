"""The pages of the models are made from the models."""

import inspect
import re
from pathlib import Path
from textwrap import dedent

import pytest

pytest.importorskip("torch")
from support.model_pages import PAGE_OF, address, entries, models_table, pages, write

from lifelong.dataset.events import InputSpec
from lifelong.offline.models import MODELS, PRESETS, all_names, build
from lifelong.offline.models.base import Model
from lifelong.tally.spec import Memory

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
    assert rows == [f"[`{name}`]({address(name)})" for name in names]


def test_the_page_on_privacy_names_the_models_with_a_trained_vector_per_user() -> None:
    users = 777  # a size that nothing else has
    inputs = InputSpec(
        {"item": 30, "kind": 9}, {"event_type": 6, "gap": 36}, {"gap": 36, "hour": 26, "weekday": 9}, users
    )
    models = {name: model for name in all_names() if isinstance(model := build(name, inputs, {}), Model)}
    found = {name for name, model in models.items() if any(users in one.shape for one in model.state_dict().values())}
    (row,) = re.findall(r"trained vectors per user \((.*?)\)", (FOLDER.parent / "privacy.md").read_text())
    assert {*re.findall(r"`(\w+)`", row)} == found


def test_models_share_pages_with_a_heading_for_each() -> None:
    made = pages()
    assert all(f"(`{name}`) {{ #{name} }}" in made[f"{page}.md"] for name, page in PAGE_OF.items())
    assert {*PAGE_OF} <= {name for name, _ in entries()}


def test_a_page_says_what_can_be_set_and_the_index_whether_a_service_can_run_it() -> None:
    assert "(memories.md#hpmn_authors) | HPMN (authors' code) | history | no |" in pages()["index.md"]
    assert "| `periods` |" in pages()["hpmn.md"]


def test_every_preset_is_among_the_names() -> None:
    assert all(f"`{name}`" in pages()["index.md"] for name in PRESETS)


def test_a_page_names_the_usual_settings_that_the_model_can_have() -> None:
    usual = "the [usual ones](index.md#settings): `embedding`, `dropout`"
    assert f"{usual}, `head`, `context`, `counts`." in pages()["hpmn.md"]
    assert f"{usual}, `context`." in pages()["tally.md"]


def test_the_page_of_tally_quotes_its_specification() -> None:
    page = pages()["tally.md"]
    assert all(dedent(inspect.getsource(part)) in page for part in (Memory.write, Memory._count))


def test_pages_of_models_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("# Gone\n")
    write(tmp_path)
    assert {path.name for path in tmp_path.glob("*.md")} == {*pages()}
    assert not (tmp_path / "gone.md").exists()
