"""Run settings: file, overrides, and all problems at once."""

from pathlib import Path

import pytest
from support.settings_page import describe_settings

from lifelong.config import RunConfig, TrainSettings, load_config
from lifelong.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_without_file_and_overrides_there_are_defaults() -> None:
    assert load_config() == RunConfig(train=TrainSettings(), model={})


def test_file_is_read_and_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[train]\nlearning_rate = 0.5\nseed = 3\n[model]\nwidth = 48\n")
    config = load_config(path, ["train.learning_rate=0.001", "model.periods=[1,2,4]"])
    assert (config.train.learning_rate, config.train.seed) == (0.001, 3)
    assert config.model == {"width": 48, "periods": [1, 2, 4]}


def test_override_that_is_no_toml_is_a_string() -> None:
    assert load_config(None, ["train.select_on=log_loss"]).train.select_on == "log_loss"


def test_null_unsets_a_limit() -> None:
    assert load_config(None, ["train.max_history=null"]).train.max_history is None


def test_value_may_hold_an_equals_sign() -> None:
    assert load_config(None, ["model.name=a=b"]).model == {"name": "a=b"}


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[train]\nseed = -1\nlerning_rate = 1\n[modle]\nwidth = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["train.clip=much", "nonsense"])
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    parts = ("train.seed", "'learning_rate'", "did you mean 'model'", "train.clip", "'nonsense' is not of the form")
    assert all(part in text for part in parts)


def test_forgotten_section_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"did you mean train\.learning_rate=0\.1\?"):
        load_config(None, ["learning_rate=0.1"])


def test_problems_of_the_model_are_named_with_the_others() -> None:
    def refuse(table: object) -> None:
        raise ConfigError([f"model.width: {table}"])

    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.seed=-1", "model.width=0"], check_model=refuse)
    assert caught.value.problems[0].startswith("train.seed")
    assert caught.value.problems[1] == "model.width: {'width': 0}"


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("[train\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_config(tmp_path / "broken.toml")


def test_section_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("train = 1\nmodel = 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["train.seed=1"])
    assert caught.value.problems[0] == "train is not a table, so 'train.seed=1' cannot be applied"
    assert caught.value.problems[1:] == ["train = 1 is not a table", "model = 2 is not a table"]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_must_be_finite(value: str) -> None:
    with pytest.raises(ConfigError, match="finite number"):
        load_config(None, [f"train.learning_rate={value}"])


def test_a_seed_is_one_that_torch_takes() -> None:
    assert load_config(None, [f"train.seed={2**63 - 1}"]).train.seed == 2**63 - 1
    with pytest.raises(ConfigError, match=r"train.seed: must be below 9223372036854775808"):
        load_config(None, [f"train.seed={2**63}"])


def test_every_setting_has_a_help_text() -> None:
    assert all(setting.description for setting in TrainSettings.model_fields.values())


def test_settings_page_is_fresh() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == describe_settings(), "stale: run `make pictures`"
