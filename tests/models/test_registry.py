import inspect
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lifelong.artifact.graphs import memory_layout
from lifelong.errors import ConfigError, UsageError
from lifelong.memory.codec import make_codec
from lifelong.models import FORMS, MODELS, MODES, build, check_config, models_page, models_table, require_served
from lifelong.models.hpmn import Hpmn
from lifelong.models.hpmn_authors import HpmnAuthors
from lifelong.testing.worlds import INPUTS

pytestmark = pytest.mark.torch

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


NAMES = [
    "popularity",
    "counts",
    "gbdt",
    "lr",
    "fm",
    "mf",
    "fpmc",
    "dnn",
    "svdpp",
    "gru4rec",
    "caser",
    "hstu",
    "shan",
    "memn2n",
    "attrec",
    "din",
    "dien",
    "hpmn",
    "tally",
    "hpmn_dynamic",
    "sim",
    "ubr4ctr",
    "eta",
    "sdim",
    "twin",
    "lstm",
    "mingru",
    "gated_delta",
    "mimn",
    "rum_item",
    "rum_feature",
]
SERVED_NAMES = [name for name in NAMES if name not in ("popularity", "counts", "gbdt", "mf")]


@pytest.mark.parametrize("name", [name for name in SERVED_NAMES if name not in ("lr", "tally")])
def test_header_states_the_bytes_of_a_state_of_four_fields_with_default_settings(name: str) -> None:
    # Those of `lr` and `tally` depend on the data set.
    size = make_codec("fp32", memory_layout(require_served(build(name, INPUTS, {}), purpose="test"))).size
    header = " ".join((inspect.getmodule(MODELS[name]).__doc__ or "").split())
    assert f"{size - make_codec('fp32', ()).size:,} bytes" in header


def test_all_models_are_registered_in_this_order() -> None:
    assert list(MODELS) == NAMES


def test_every_model_file_is_registered() -> None:
    helpers = {"__init__", "__main__", "base", "sides"}
    files = {path.stem for path in Path(inspect.getfile(build)).parent.glob("*.py")} - helpers
    classes = [*MODELS.values(), *MODES.values()]
    assert {entry.__module__.rpartition(".")[2] for entry in classes} == files


def test_settings_left_out_have_their_defaults() -> None:
    assert check_config("hpmn", {"width": 8})["periods"] == (1, 2, 4, 8, 16, 32)


def test_a_list_of_periods_as_toml_gives_it_is_taken() -> None:
    model = build("hpmn", INPUTS, {"periods": [1, 3]})
    assert isinstance(model, Hpmn)
    assert model.periods == (1, 3)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build("hpmn", INPUTS, {"widht": 8, "periods": [1, 2, 3], "hops": 0})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "model.hops",
        "model.periods",
        "model.widht",
    ]
    assert "period 3 after 2" in str(caught.value)


def test_an_unknown_model_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ConfigError, match=f"no model 'dinn'.*{', '.join([*NAMES, *FORMS])}"):
        build("dinn", INPUTS, {})


@pytest.mark.parametrize(("flag", "expected"), [(True, HpmnAuthors), (False, Hpmn)])
def test_authors_mode_selects_the_authors_form(flag: bool, expected: type) -> None:
    assert type(build("hpmn", INPUTS, {"authors_mode": flag})) is expected


@pytest.mark.parametrize("name", list(FORMS))
def test_a_form_is_its_model_with_the_settings_that_make_it(name: str) -> None:
    model, settings = FORMS[name]
    assert check_config(name, {}) == check_config(model, settings)
    form = build(name, INPUTS, {})
    assert form.title not in {entry.title for entry in MODELS.values()}


def test_context_fields_that_the_data_lacks_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        build("hpmn", INPUTS, {"context": ["hour", "minute", "hour"]})
    assert [problem.removeprefix("model.context: ") for problem in caught.value.problems] == [
        "'hour' stands there twice",
        "there is no context field 'minute' (there are: gap, hour, weekday)",
    ]


@pytest.mark.parametrize(("name", "found"), [("hpmn", "hour"), ("hpmn", [1])])
def test_context_is_a_list_of_names(name: str, found: object) -> None:
    with pytest.raises(ConfigError, match=r"model.context: a list of context fields is expected \(found"):
        check_config(name, {"context": found})


@pytest.mark.parametrize("name", ["counts", "gbdt", "hpmn_authors"])
def test_a_model_that_reads_no_context_cannot_be_told_which(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.context: {name.split('_')[0]} has no such setting"):
        check_config(name, {"context": []})


def test_settings_that_make_another_form_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.search: sim_soft has 'soft' \(found 'hard'\)"):
        build("sim_soft", INPUTS, {"search": "hard"})


def test_a_floor_keeps_no_memory_and_says_why() -> None:
    with pytest.raises(UsageError, match=f"serving.*Counts.*it counts in the raw history.*{', '.join(SERVED_NAMES)}"):
        require_served(build("counts", INPUTS, {}), purpose="serving")


def test_a_memory_model_is_returned_as_it_is() -> None:
    model = build("dnn", INPUTS, {})
    assert require_served(model, purpose="serving") is model


def test_table_has_a_row_for_each_model_and_mode() -> None:
    names = [line.split("|")[1].strip() for line in models_table().splitlines()[2:]]
    modes = {"fpmc": "fpmc, user_factors = true", "hpmn": "hpmn, authors_mode = true"}
    rows = [row for name in NAMES for row in (name, modes.get(name)) if row is not None]
    assert names == [f"`{name}`" for name in rows]


def test_docs_are_fresh() -> None:
    assert DOCS.read_text() == models_page(), "write it anew: python -m lifelong.models > docs/models.md"
