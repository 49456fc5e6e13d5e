"""Run settings from TOML and `--set key=value`, checked; all problems are reported at once.

    run.toml:   [train]                        overrides:   train.learning_rate=0.001
                learning_rate = 0.002                       model.periods=[1,2,4]
                [model]
                width = 48

`[train]` has the same settings for all models and is checked here. `[model]` has the settings of the trained model, and
the model's config class checks it.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from lifelong.errors import ConfigError, SourceError


class Record(BaseModel):
    """Values that are checked and then stay as they are; unknown names are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=Record)


class TrainSettings(Record):
    """The `[train]` section: what a run does, for any model."""

    seed: int = Field(0, ge=0, lt=2**63, description="of initial weights, order of batches, negatives, dropout")
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads, as many as torch chooses if null; with one, a run is repeatable bit for bit",
    )
    device: str = Field(
        "auto",
        description="where to train: auto (a GPU if there is one), cpu, cuda, or a certain GPU as in cuda:1",
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        "auto", description="bf16 mixes in half precision; auto does so on a GPU and never on a CPU"
    )

    learning_rate: FiniteFloat = Field(0.003, gt=0, description="of Adam, at its highest")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine falls to a hundredth at the end of the run (by max_examples or max_epochs)"
    )
    embeddings: Literal["auto", "dense", "sparse"] = Field(
        "auto",
        description="sparse: a step moves only the rows that its batch has (SparseAdam); dense: all rows (Adam); auto: "
        "sparse for tables of a million rows or more",
    )
    initial_vectors: Literal["random", "cooccurrence", "crossfitted"] = Field(
        "cooccurrence",
        description="of item fields; cooccurrence: factors of which users had which values in the training events; "
        "crossfitted: the same, but a user is trained with factors of others' events; random: small random numbers",
    )
    weight_decay: FiniteFloat = Field(
        0.0, ge=0, description="mu: half mu times the squared weights is added to the loss, embedding tables left out"
    )
    clip: FiniteFloat = Field(1.0, ge=0, description="gradients are clipped by value to +-clip; 0 leaves them")

    max_epochs: int = Field(60, ge=1, description="an epoch labels every training target once")
    max_examples: int | None = Field(
        None, ge=1, description="stop after this many labelled examples, negatives included"
    )
    max_minutes: FiniteFloat | None = Field(None, gt=0, description="stop after this many minutes, validation included")

    validate_every: FiniteFloat = Field(
        0.25, gt=0, description="validate after this share of an epoch (up to 1), or after this many examples (above 1)"
    )
    validation_examples: int | None = Field(
        100_000,
        ge=1,
        description="examples that decide when to stop, of whole users drawn at random; null takes all",
    )
    calibration_examples: int | None = Field(
        300_000,
        ge=1,
        description="validation examples that the calibrator is fitted on; null takes all",
    )
    select_on: Literal["auc", "log_loss"] = Field("auc", description="what the kept weights are best in, on validation")
    select_task: str | None = Field(
        None,
        description="the task that decides when to stop, or `mean` for the mean over all; null takes the first",
    )
    patience: int = Field(8, ge=1, description="stop after this many validations in a row without a new best")
    fall_patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many validations in a row with a log loss at least 1 % above the best weights', "
        "once these are 1 % below a constant; null takes `patience`",
    )
    min_steps: int = Field(
        1000,
        ge=0,
        description="batches before which `patience` does not end a run: long histories start on a plateau",
    )

    max_history: int | None = Field(
        2048, ge=1, description="events of one window; longer histories are cut in training; null never cuts"
    )
    overlap: int | None = Field(
        None,
        ge=0,
        description="events that a target after a cut still sees at least; null takes half of a window, up to 1,000",
    )
    max_targets: int = Field(256, ge=1, description="targets of one user in one pass, before negatives are added")
    batch_events: int = Field(8_192, ge=1, description="events of a batch at most, padding included")
    batch_targets: int = Field(4_096, ge=1, description="targets of a batch at most, negatives and padding included")
    negatives: int | None = Field(
        None,
        ge=1,
        description="negatives drawn for each positive in training, weighted so that probabilities stay what they are; "
        "null takes as many as the dataset's rule says",
    )
    hide_items: FiniteFloat = Field(
        0.02, ge=0, lt=1, description="share of item occurrences that get the number the item has while unknown"
    )
    hide_fields: FiniteFloat = Field(
        0.01, ge=0, lt=1, description="share of occurrences of each other item field that become unknown"
    )
    answer_minutes: FiniteFloat = Field(
        10.0, gt=0, description="a process gives up after waiting so long for the others of its run (under torchrun)"
    )

    @field_validator("device", mode="before")
    @classmethod
    def _device(cls, device: Any) -> Any:
        name = str(device)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise ValueError("a device is auto, cpu, cuda or a certain GPU, as in cuda:1")
        return name


class RunConfig(Record):
    """All settings of a run."""

    train: TrainSettings = TrainSettings()
    model: dict[str, Any] = {}

    def with_train(self, **changes: Any) -> RunConfig:
        """These settings with some of `[train]` changed; the new values are not checked.

        >>> RunConfig().with_train(seed=7).train.seed
        7
        """
        return self.model_copy(update={"train": self.train.model_copy(update=changes)})

    @property
    def named(self) -> frozenset[str]:
        """The settings that somebody has named, as `train.x` and `model.x`."""
        return frozenset(
            [*(f"train.{name}" for name in self.train.model_fields_set), *(f"model.{x}" for x in self.model)]
        )


def problems_of(error: ValidationError, section: str = "") -> list[str]:
    """What is wrong with settings, as `section.name: what is wrong (what was found)`."""
    return [
        f"{section}{'.'.join(map(str, detail['loc']))}: {plain(detail['msg'])} (found {detail['input']!r})"
        for detail in error.errors()
    ]


_PLAIN = {
    "Input should be greater than or equal to ": "must be at least ",
    "Input should be less than or equal to ": "must be at most ",
    "Input should be greater than ": "must be above ",
    "Input should be less than ": "must be below ",
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a valid string": "must be a text",
    "Input should be a valid boolean": "must be true or false",
    "Input should be a valid tuple": "must be a list, as in [a, b]",
    "Input should be a valid list": "must be a list",
    "Input should be a valid dictionary": "must be a table",
    "Input should be ": "must be ",
}
"""Beginning of a message of pydantic -> what is said instead."""


def plain(message: str) -> str:
    """A message of pydantic about one value, in plain words.

    >>> plain("Input should be greater than or equal to 1"), plain("Input should be a valid integer, unable to parse")
    ('must be at least 1', 'must be a whole number')
    """
    message = message.removeprefix("Value error, ")
    for beginning, words in _PLAIN.items():
        if message.startswith(beginning):
            # What follows a kind of value is how pydantic failed to read it; what follows a bound is the bound.
            return words + message.removeprefix(beginning) if words.endswith(" ") else words
    return message


def load_config(
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    check_model: Callable[[Mapping[str, Any]], object] | None = None,
) -> RunConfig:
    """Read a TOML file, apply overrides, check.

    Args:
        path: TOML file, or None for defaults.
        overrides: `section.key=value`; the value is TOML, or a plain string if it is not valid TOML.
        check_model: checks the `[model]` table and raises `ConfigError`; its problems are reported with the others.

    Raises:
        ConfigError: names every problem.

    >>> load_config(None, ["train.seed=3", "model.periods=[1,2]"]).model
    {'periods': [1, 2]}
    """
    problems: list[str] = []
    tables = _read(path, problems)
    for override in overrides:
        _apply(tables, override, problems)
    train, model = tables.pop("train", {}), tables.pop("model", {})
    # The record of a search by `lifelong tune`; it has no settings of this run.
    tables.pop("tuned", None)
    problems += [f"there is no section {name!r}{suggestion(name, RunConfig.model_fields)}" for name in tables]
    return checked_config(train, model, problems, check_model)


def checked_config(
    train: Any, model: Any, problems: list[str], check_model: Callable[[Mapping[str, Any]], object] | None = None
) -> RunConfig:
    """The settings of both sections, if nothing is wrong with them.

    Args:
        train: the `[train]` table.
        model: the `[model]` table.
        problems: that were found before.
        check_model: see `load_config`.

    Raises:
        ConfigError: names every problem.
    """
    settings = _checked(TrainSettings, train, problems, "train")
    if not isinstance(model, dict):
        problems.append(f"model = {model!r} is not a table")
    elif check_model is not None:
        try:
            check_model(model)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems, fix="docs/settings.md lists [train], `lifelong models` the settings of each model")
    return RunConfig(train=settings, model=model)


def read_mapping(path: Path) -> dict[str, Any]:
    """Values of a mapping file, TOML or JSON: which column of a log is what.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"the mapping cannot be read: {getattr(error, 'strerror', None) or error}",
            file=str(path),
            expected="a TOML or JSON file",
            fix="check the path",
        ) from error
    try:
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"not JSON: {error.msg}",
            file=str(path),
            line=error.lineno,
            column=error.colno,
            fix="correct the line; a mapping in TOML has a name that ends in .toml",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"not TOML: {error}", file=str(path), fix="JSON mappings end in .json") from error
    if not isinstance(values, dict):
        raise SourceError(
            "the mapping is not a table of settings",
            file=str(path),
            expected='such as user = "column"',
            fix="write NAME = VALUE lines in TOML, or one object in JSON; see docs/sources.md",
        )
    return values


def _read(path: Path | str | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as error:
        problems.append(f"cannot read {path}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path} is not TOML: {error}")
    return {}


def _apply(tables: dict[str, Any], override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or not name:
        hint = f" (did you mean train.{override.strip()}?)" if section in TrainSettings.model_fields and equals else ""
        problems.append(f"{override!r} is not of the form section.key=value{hint}")
        return
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        problems.append(f"{section} is not a table, so {override!r} cannot be applied")
        return
    table[name] = _value(text.strip())


def _value(text: str) -> Any:
    # TOML has no word for it.
    if text in ("null", "none", "None"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def load_record(kind: type[R], path: Path | str | None, overrides: Sequence[str], *, fix: str) -> R:
    """Read a TOML file without sections, apply overrides, check.

    Args:
        kind: what the file holds.
        path: TOML file, or None for defaults.
        overrides: `key=value`, see `load_config`.
        fix: where all settings are listed.

    Raises:
        ConfigError: names every problem.

    >>> load_record(TrainSettings, None, ["seed=3"], fix="").seed
    3
    """
    problems: list[str] = []
    values = _read(path, problems)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            problems.append(f"{override!r} is not of the form key=value")
        values[key.strip()] = _value(text.strip())
    record = kind() if problems else _checked(kind, values, problems)
    if problems:
        raise ConfigError(problems, fix=fix)
    return record


def _checked(kind: type[R], table: Any, problems: list[str], section: str = "") -> R:
    if not isinstance(table, dict):
        problems.append(f"{section} = {table!r} is not a table")
        return kind()
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        problems += [setting_problem(kind, detail, section) for detail in error.errors()]
        return kind()


def setting_problem(kind: type[Record], detail: Any, section: str = "") -> str:
    """What is wrong with a setting, from an error of pydantic."""
    name = str(detail["loc"][0])
    shown = f"{section}.{name}" if section else name
    if detail["type"] == "extra_forbidden":
        return f"{shown}: there is no such setting{suggestion(name, kind.model_fields)}"
    return f"{shown}: {plain(detail['msg'])} (found {detail['input']!r})"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The name that was meant, or all that there are, for the end of a message.

    >>> suggestion("max_epoch", ["max_epochs", "seed"])
    " (did you mean 'max_epochs'?)"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (there are: {', '.join(known)})"
