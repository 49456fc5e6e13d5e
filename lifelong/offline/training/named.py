"""Settings of a run by their names: `epochs=1, width=32, device="cuda:1"` instead of `[train]` and `[model]`.

A name is one of the model, if the model has it; else one of `[train]`. `epochs`, `examples` and `minutes` are short for
`max_epochs`, `max_examples` and `max_minutes`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lifelong.config import RunConfig, TrainSettings, checked_config, load_config
from lifelong.errors import UsageError
from lifelong.offline.models import SharedSettings, check_config, model_class

SHORT = {"epochs": "max_epochs", "examples": "max_examples", "minutes": "max_minutes"}
AnyConfig = RunConfig | Mapping[str, Any] | Path | str | None


def run_config(model: str | None, config: AnyConfig, named: Mapping[str, Any]) -> RunConfig:
    """The settings of a run, checked.

    Args:
        model: its name; None where an artifact decides: then settings of the model are not checked.
        config: settings that named ones win over: a `RunConfig`, a TOML file, a dict of `train` and `model`, or a dict
            of names as in `named`.
        named: settings by their names.

    Raises:
        ConfigError: there is no such model or setting, or a value is wrong; names all of them.
        UsageError: `config` is something else.

    >>> found = run_config("hpmn", {"width": 16}, {"epochs": 2, "periods": [1, 2]})
    >>> found.train.max_epochs, found.model
    (2, {'width': 16, 'periods': [1, 2]})
    """
    if model is not None and not isinstance(model, str):
        raise UsageError(f"a model of type {type(model).__name__}", expected="its name", fix='train("data", "tally")')
    base, given = _base(config)
    own = _own_settings(model, base.model)
    train, of_model, problems = dict[str, Any](), dict[str, Any](), list[str]()
    for name, value in {**given, **named}.items():
        full = SHORT.get(name, name)
        if own is not None and (full in own or name in own):
            of_model[name if name in own else full] = value
        elif full in TrainSettings.model_fields:
            train[full] = value
        elif own is None:
            of_model[name] = value
        else:
            problems.append(f"there is no setting {name!r}{_close(name, own)}")
    # What nobody has named stays so: the model's recipe decides it.
    whole = base.train.model_dump(exclude_unset=True) | train
    check = None if model is None else functools.partial(check_config, model)
    return checked_config(whole, {**base.model, **of_model}, problems, check)


def _base(config: AnyConfig) -> tuple[RunConfig, Mapping[str, Any]]:
    """Settings in two sections, and settings by their names."""
    if config is None:
        return RunConfig(), {}
    if isinstance(config, RunConfig):
        return config, {}
    if isinstance(config, str | Path):
        return load_config(config), {}
    if not isinstance(config, Mapping):
        found = f"settings of type {type(config).__name__}"
        raise UsageError(found, expected="a dict, a TOML file or a RunConfig", fix='config={"epochs": 1}')
    return RunConfig(), names_of(config)


def names_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names, from a dict of them or of the sections `train` and `model`.

    >>> names_of({"train": {"seed": 1}, "width": 8})
    {'width': 8, 'seed': 1}
    """
    sections = [name for name in ("train", "model") if isinstance(config.get(name), Mapping)]
    given = {name: value for name, value in config.items() if name not in sections}
    for name in sections:
        given |= config[name]
    return given


def _own_settings(model: str | None, config: Mapping[str, Any]) -> Sequence[str] | None:
    if model is None:
        return None
    entry = model_class(model, config)
    return [field.name for kind in (entry.Config, SharedSettings) for field in fields(kind)]


def _close(name: str, own: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, [*own, *TrainSettings.model_fields, *SHORT], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
