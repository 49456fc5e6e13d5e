import inspect
from pathlib import Path
from typing import Any

import pytest

from lifelong import zoo
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.export.graphs import memory_layout
from lifelong.offline.models import (
    MODELS,
    PRESETS,
    all_names,
    build,
    check_config,
    choose,
    registered_name,
    require_served,
)
from lifelong.offline.models.hpmn import Hpmn, HpmnConfig
from lifelong.online.memory.codec import make_codec
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.hpmn_authors import HpmnAuthors

NAMES = list(MODELS)
NOT_SERVED = ("popularity", "topfreq", "upcf", "tifu_knn", "recanet", "counts", "gbdt", "mf")
SERVED_NAMES = [name for name in NAMES if name not in NOT_SERVED]


@pytest.mark.parametrize("name", [name for name in SERVED_NAMES if name not in ("lr", "tally")])
def test_header_states_the_bytes_of_a_state_of_four_fields_with_default_settings(name: str) -> None:
    # Those of `lr` and `tally` depend on the data set.
    size = make_codec("fp32", memory_layout(require_served(build(name, INPUTS, {}), purpose="test"))).size
    header = " ".join((inspect.getmodule(MODELS[name]).__doc__ or "").split())
    assert f"{size - make_codec('fp32', ()).size:,} bytes" in header


def test_every_model_file_is_registered() -> None:
    files = {f"lifelong.zoo.{path.stem}" for path in Path(zoo.__file__).parent.glob("*.py")}
    bases = {f"lifelong.zoo.{name}" for name in ("__init__", "neighbour_model", "scored_model")}
    classes = [*MODELS.values(), *(preset.entry for preset in PRESETS.values())]
    own = {"lifelong.offline.models.hpmn", "lifelong.offline.models.tally"}
    assert {entry.__module__ for entry in classes} == files - bases | own


def test_settings_left_out_have_their_defaults() -> None:
    assert check_config("hpmn", {"width": 8})["periods"] == (1, 2, 4, 8, 16, 32)


def test_a_list_of_periods_as_toml_gives_it_is_taken() -> None:
    model = build("hpmn", INPUTS, {"periods": [1, 3]})
    assert isinstance(model, Hpmn)
    assert model.periods == (1, 3)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build("hpmn", INPUTS, {"widht": 8, "periods": [1, 2, 3], "hops": 0})
    found = [problem.split(":")[0] for problem in caught.value.problems]
    assert found == ["model.hops", "model.periods", "model.widht"]
    assert "period 3 after 2" in str(caught.value)


def test_an_unknown_model_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"no model 'taly' \(did you mean 'tally'\?\)"):
        build("taly", INPUTS, {})


def test_an_unknown_model_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ConfigError, match=f"no model 'quartz'.*{', '.join(all_names())}"):
        build("quartz", INPUTS, {})


@pytest.mark.parametrize(("flag", "expected"), [(True, HpmnAuthors), (False, Hpmn)])
def test_authors_mode_selects_the_authors_form(flag: bool, expected: type) -> None:
    assert type(build("hpmn", INPUTS, {"authors_mode": flag})) is expected


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_its_model_with_some_settings_chosen(name: str) -> None:
    preset = PRESETS[name]
    assert check_config(name, {}) == check_config(preset.model, preset.settings)
    named, chosen = build(name, INPUTS, {}), build(preset.model, INPUTS, preset.settings)
    assert type(named) is type(chosen) is preset.entry
    assert named.title == chosen.title not in {entry.title for entry in MODELS.values()}


@pytest.mark.parametrize("name", list(PRESETS))
def test_an_artifact_names_the_model_of_a_preset(name: str) -> None:
    preset = PRESETS[name]
    assert registered_name(build(name, INPUTS, {})) == preset.model


def test_a_class_that_is_not_registered_has_no_name() -> None:
    class Other(Hpmn): ...

    assert registered_name(Other(INPUTS, HpmnConfig())) is None


def test_every_name_is_a_model_a_preset_or_one_of_these_with_endings() -> None:
    assert choose("sim_soft_counts", {}) == ("sim", MODELS["sim"], {"search": "soft", "counts": True})
    assert choose("hpmn_authors_counts", {}).entry is HpmnAuthors


def test_context_fields_that_the_data_lacks_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        build("hpmn", INPUTS, {"context": ["hour", "minute", "hour"]})
    assert [problem.removeprefix("model.context: ") for problem in caught.value.problems] == [
        "'hour' is listed twice",
        "there is no context field 'minute' (there are: gap, hour, weekday)",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"context": "hour"}, r"model.context: must be a list, as in \[a, b\] \(found 'hour'\)"),
        ({"context": [1]}, r"model.context.0: must be a text \(found 1\)"),
        ({"counts": "some"}, r"model.counts: must be true or false \(found 'some'\)"),
        ({"head": "tall"}, r"model.head: there is no head 'tall' \(there are: shared, mmoe, ple, esmm\)"),
    ],
)
def test_settings_that_all_models_share_are_checked_like_their_own(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"{problem}.*model.width: must be above 0"):
        check_config("hpmn", {**settings, "width": 0})


def test_shared_settings_are_left_out_where_they_are_as_usual() -> None:
    usual = {"head": "shared", "counts": False}
    assert check_config("hpmn", usual) == check_config("hpmn", {})
    unusual = check_config("hpmn", {"counts": True, "context": ["hour"]})
    assert unusual == {**check_config("hpmn", {}), "context": ("hour",), "counts": True}


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
