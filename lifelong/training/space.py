"""Where `lifelong tune` looks: a range per name of a setting, whatever the model that has it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lifelong.config import RunConfig, TrainSettings
from lifelong.models import check_config, model_class
from lifelong.models.base import Model


class Suggests(Protocol):
    """The part of an Optuna trial that draws."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True, slots=True)
class Reals:
    """Numbers between two bounds."""

    low: float
    high: float
    log: bool = False

    def draw(self, trial: Suggests, name: str) -> float:
        """One of them."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def parameter(self, value: Any) -> Any:
        """A setting as Optuna keeps it; None if it cannot be drawn."""
        return float(value) if value is not None and self.low <= value <= self.high else None

    def including(self, value: Any) -> Reals:
        """The range, wide enough for a setting as it stands."""
        if value is None or (self.log and value <= 0):
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers between two bounds."""

    low: int
    high: int

    def draw(self, trial: Suggests, name: str) -> int:
        """One of them."""
        return trial.suggest_int(name, self.low, self.high)

    def parameter(self, value: Any) -> Any:
        """A setting as Optuna keeps it; None if it cannot be drawn."""
        return int(value) if value is not None and self.low <= value <= self.high else None

    def including(self, value: Any) -> Whole:
        """The range, wide enough for a setting as it stands."""
        if value is None:
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values, which may be lists."""

    values: tuple[Any, ...]

    def draw(self, trial: Suggests, name: str) -> Any:
        """One of them."""
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in self.values]))

    def parameter(self, value: Any) -> Any:
        """A setting as Optuna keeps it; None if it cannot be drawn."""
        text = json.dumps(value)
        return text if text in [json.dumps(known) for known in self.values] else None

    def including(self, value: Any) -> Choice:
        """The choice, with a setting as it stands among it."""
        return self if self.parameter(value) is not None else Choice((*self.values, value))


Range = Reals | Whole | Choice

TRAIN: Mapping[str, Range] = {
    "learning_rate": Reals(3e-4, 1e-2, log=True),
    "weight_decay": Choice((0.0, 1e-7, 1e-6, 1e-5)),
    "initial_vectors": Choice(("random", "cooccurrence")),
}
"""Of every model that is trained by gradient; initial vectors where a model takes them."""

MODEL: Mapping[str, Range] = {
    "embedding": Choice((8, 16, 32)),
    "factors": Choice((8, 16, 32, 64)),
    "width": Choice((16, 32, 48, 64)),
    "dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
    "periods": Choice(tuple([2**place for place in range(slots)] for slots in (3, 4, 5, 6, 7, 8))),
    "covariance": Reals(1e-4, 10.0, log=True),
    "hops": Whole(1, 4),
    "slots": Choice((4, 8, 16, 32)),
    "layers": Whole(1, 3),
    "heads": Choice((1, 2, 4)),
    "head_width": Choice((8, 16, 32)),
    "hits": Choice((32, 64, 128)),
    "bits": Choice((3, 4, 6, 24, 48)),
    "groups": Choice((8, 16, 24)),
    "buckets": Choice((32, 64, 128)),
    "near": Choice((2, 4, 8)),
    "channels": Choice((1, 2)),
    "utilisation": Reals(1e-3, 1.0, log=True),
    "strength": Reals(0.1, 10.0, log=True),
    "short": Choice((5, 10, 20, 50)),
    "window": Choice((20, 50, 100)),
    "horizontal": Choice((8, 16, 32)),
    "vertical": Choice((2, 4, 8)),
    "decay": Reals(1e-4, 1.0, log=True),
    "normalise": Choice((False, True)),
    "search_loss": Reals(0.1, 10.0, log=True),
    "smoothing": Reals(0.1, 1000.0, log=True),
    "l2": Reals(1e-3, 1e3, log=True),
    "learning_rate": Reals(0.02, 0.3, log=True),
    "leaves": Choice((31, 63, 127, 255)),
    "leaf_examples": Choice((20, 50, 100, 300, 1000)),
}
"""Of whatever model has the setting. `recent` stands for what a service keeps, not for quality, and is left alone."""

_OWN: Mapping[str, Mapping[str, Range]] = {
    "sdim": {"bits": Choice((2, 3, 4, 5))},
    "eta": {"bits": Choice((16, 32, 48))},
    "tally": {
        "faded": Choice((0.2, 0.3, 0.4, 0.5, 0.6)),
        "patience": Choice((0, 100, 400, 1600)),
        "steady": Choice((0.0, 0.15, 0.3, 0.45)),
    },
}
"""Where a name means something else in one model."""


def space_of(model: str, config: RunConfig, *, fixed: Collection[str] = ()) -> dict[str, Range]:
    """`train.x` or `model.x` -> its range, for every setting of a model that is searched.

    Args:
        model: name.
        config: the settings that are not searched.
        fixed: settings, as `train.x` or `model.x`, that were chosen by hand.
    """
    own, entry = check_config(model, config.model), model_class(model, config.model)
    found = {f"train.{name}": of for name, of in TRAIN.items()} if issubclass(entry, Model) else {}
    if issubclass(entry, Model) and not entry.vector_spread:
        # Its vectors begin at random always.
        del found["train.initial_vectors"]
    found |= {f"model.{name}": of for name, of in {**MODEL, **_OWN.get(model, {})}.items() if name in own}
    standing = {"train": config.train.model_dump(), "model": own}
    return {name: of.including(_standing(standing, name)) for name, of in found.items() if name not in fixed}


def _standing(settings: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    section, _, key = name.partition(".")
    return settings[section][key]


def defaults(model: str, config: RunConfig, space: Mapping[str, Range]) -> dict[str, Any]:
    """The settings as they stand, as far as they lie in the space, as Optuna keeps them."""
    standing = {"train": config.train.model_dump(), "model": check_config(model, config.model)}
    found = {name: of.parameter(_standing(standing, name)) for name, of in space.items()}
    return {name: value for name, value in found.items() if value is not None}


def apply(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The settings with some of them changed; keys are `train.x` and `model.x`."""
    train, model = config.train.model_dump(), dict(config.model)
    for name, value in values.items():
        section, _, key = name.partition(".")
        (train if section == "train" else model)[key] = value
    return RunConfig(train=TrainSettings.model_validate(train), model=model)
