"""The settings of a service: `service.toml`, `--set`, and what `--print-config` prints."""

import re
from pathlib import Path

import pytest

from lifelong.cli import main
from lifelong.config import load_record
from lifelong.errors import ConfigError
from lifelong.online.serving.settings import ServiceConfig, ServiceSettings, service_toml


def test_what_is_printed_are_the_defaults_and_all_settings(tmp_path, capsys):
    assert main(["serve", "--print-config"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "service.toml"
    path.write_text(text)
    assert load_record(ServiceConfig, path, [], fix="") == ServiceConfig()
    assert re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE) == list(ServiceConfig.model_fields)


def test_every_example_is_a_value_that_the_setting_can_have(tmp_path):
    path = tmp_path / "service.toml"
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", service_toml(), flags=re.MULTILINE))
    config = load_record(ServiceConfig, path, [], fix="")
    assert (config.keep_events, config.base_rate, config.data) == (90.0, 0.02, Path("data"))


def test_every_setting_says_what_it_means():
    assert all(field.description and field.description.endswith(".") for field in ServiceConfig.model_fields.values())


def test_a_file_and_set_give_the_settings_of_a_service(tmp_path):
    path = tmp_path / "service.toml"
    path.write_text('timeout = "5s"\nbase_rate = {any = 0.2, buy = 0.004}\ncolumns = {item = "product"}\n')
    config = load_record(
        ServiceConfig, path, ["timeout=2m", "late=refuse", "max_ahead=inf", "forget_after=12h"], fix=""
    )
    assert isinstance(config, ServiceSettings)
    assert (config.timeout, config.late, config.max_ahead, config.forget_after) == (120.0, "refuse", float("inf"), 0.5)
    assert (config.base_rate, config.columns) == ({"any": 0.2, "buy": 0.004}, {"item": "product"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("timeuot=3", "timeuot: there is no such setting (did you mean 'timeout'?)"),
        ("timeout=0", "timeout: must be above 0 (found 0)"),
        ("forget_after=1y", "forget_after: '1y' is not a duration, but a whole number with s, m, h or d"),
        ("late=drop", "late: must be 'apply' or 'refuse' (found 'drop')"),
        ("base_rate=2", "base_rate: a base rate is a share above 0 and below 1 (found 2)"),
        ("timeout", "'timeout' is not of the form key=value"),
    ],
)
def test_what_is_wrong_with_a_setting_is_named(change, said):
    with pytest.raises(ConfigError) as raised:
        load_record(ServiceConfig, None, [change], fix="`lifelong serve --print-config` prints all settings")
    assert len(raised.value.problems) == 1 and raised.value.problems[0].startswith(said)


def test_a_service_names_all_that_is_wrong_with_its_file_and_does_not_start(tmp_path, capsys):
    path = tmp_path / "service.toml"
    path.write_text("timeuot = 3\nmax_wait = 0\n")
    words = ["serve", str(tmp_path), "--store", "memory://", "--config", str(path)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "error: timeuot: there is no such setting" in said and "error: max_wait: must be above 0" in said
    assert "to do: `lifelong serve --print-config` prints all settings" in said
    path.write_text("timeout = \n")
    assert main(words) == 2 and "is not TOML" in capsys.readouterr().err
