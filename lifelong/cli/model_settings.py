"""Settings of several models at once: `[train]` for all, `[MODEL]` for one, `[MODEL.train]` for its training.

A file that `lifelong tune` wrote has the settings of the one model that it names.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from lifelong.config import RunConfig
    from lifelong.dataset.folder import Dataset

TUNED = "tuned"


def model_configs(models: Sequence[str], paths: Sequence[Path], changes: Sequence[str]) -> dict[str, RunConfig]:
    """The settings of each model; later files override earlier ones, and `--set` overrides files.

    Args:
        models: names.
        paths: files of settings.
        changes: `train.x=..` for all, `MODEL.x=..` or `MODEL.train.x=..` for one.

    Raises:
        UsageError: there is no such model, or a file cannot be read.
        ConfigError: names every problem.
    """
    from lifelong.config import load_config, suggestion
    from lifelong.offline.models import all_names, check_config, plain_name

    names = all_names()
    unknown = [name for name in models if plain_name(name) not in names]
    if unknown:
        message = f"there is no model {unknown[0]!r}{suggestion(unknown[0], names)}"
        raise UsageError(message, fix="lifelong models lists all")
    everything = [*(change for path in paths for change in _file_changes(path, models)), *changes]
    sections = {"train", *models, *map(plain_name, models)}
    problems = [
        f"{change!r} is not a setting of a compared model" for change in everything if _owner(change) not in sections
    ]
    configs = {}
    for name in models:
        owners = ("train", plain_name(name), name)
        mine = [_mine(change) for change in everything if _owner(change) in owners]
        try:
            configs[name] = load_config(None, mine, check_model=functools.partial(check_config, name))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems, fix="docs/settings.md lists [train], `lifelong models` the settings of each model")
    return configs


def without_unmet(dataset: Dataset, configs: Mapping[str, RunConfig]) -> tuple[dict[str, RunConfig], list[str]]:
    """The models that a dataset can train, and a sentence on each that it cannot."""
    from lifelong.errors import MismatchError
    from lifelong.offline.training.settings import build_model

    settings, notes = {}, []
    for name, config in configs.items():
        try:
            build_model(dataset, name, config.model)
        except MismatchError as error:
            notes.append(f"{name} is left out: {error.found}")
        else:
            settings[name] = config
    return settings, notes


def _file_changes(path: Path, models: Sequence[str]) -> list[str]:
    """A settings file as changes; sections of models that are not compared are left out."""
    from lifelong.offline.models import all_names, plain_name

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"cannot read the settings in {path}: {error}",
            expected="TOML",
            fix="correct the file; `lifelong models NAME` lists the settings of a model",
        ) from error
    tuned = tables.pop(TUNED, None)
    if isinstance(tuned, dict):
        model = str(tuned.get("model"))
        if model not in (*models, *map(plain_name, models)):
            return []
        tables = {model: {**tables.get("model", {}), "train": tables.get("train", {})}}
    sections = {"train", *all_names()}
    wrong = [name for name, table in tables.items() if plain_name(name) not in sections or not isinstance(table, dict)]
    if wrong:
        raise UsageError(f"{path} has [{wrong[0]}]", expected=", ".join(sorted(sections)), fix="name the model")
    read = ("train", *models, *map(plain_name, models))
    compared = {name: table for name, table in tables.items() if name in read}
    return [f"{name}={json.dumps(value)}" for name, value in _flat(compared)]


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _owner(change: str) -> str:
    return change.partition("=")[0].partition(".")[0].strip()


def _mine(change: str) -> str:
    """A change of one model or of all models in the form of `load_config`."""
    change, name = change.strip(), _owner(change)
    if name == "train":
        return change
    if change.startswith(f"{name}.train."):
        return change.removeprefix(f"{name}.")
    return f"model{change.removeprefix(name)}" if change.startswith(f"{name}.") else change
