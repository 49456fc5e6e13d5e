"""The search space of `lifelong tune`: one range per name of a setting, for every model that has it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lifelong.config import RunConfig, TrainSettings
from lifelong.offline.models import check_config, model_class
from lifelong.offline.models.base import Model

_NEVER = 10**9


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a setting may take.

    Args:
        low: lower bound of numbers, which are whole where both bounds are.
        high: upper bound.
        log: whether numbers are drawn on a logarithmic scale.
        choices: a few values instead, which may be lists.
    """

    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def draw(self, trial: Any, name: str) -> Any:
        """A value, drawn by an Optuna trial."""
        if self.choices:
            # As text: Optuna takes no lists as choices.
            return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in self.choices]))
        suggest = trial.suggest_int if self._whole else trial.suggest_float
        return suggest(name, self.low, self.high, log=self.log)

    def parameter(self, value: Any) -> Any:
        """A setting as Optuna keeps it; None if it cannot be drawn."""
        if self.choices:
            text = json.dumps(value)
            return text if text in map(json.dumps, self.choices) else None
        if value is None or not self.low <= value <= self.high:
            return None
        return int(value) if self._whole else float(value)

    def including(self, value: Any) -> Range:
        """This range, widened to the present value of a setting."""
        if self.choices:
            return self if self.parameter(value) is not None else choice(*self.choices, value)
        if value is None or (self.log and value <= 0):
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    @property
    def _whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


def choice(*values: Any) -> Range:
    """One of a few values."""
    return Range(choices=values)


TRAIN: Mapping[str, Range] = {
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "weight_decay": choice(0.0, 1e-7, 1e-6, 1e-5),
    "initial_vectors": choice("random", "cooccurrence", "crossfitted"),
}
"""For every model that is trained by gradient; initial vectors only where the model takes them."""

MODEL: Mapping[str, Range] = {
    "embedding": choice(8, 16, 32),
    "factors": choice(8, 16, 32, 64),
    "width": choice(16, 32, 48, 64),
    "dropout": choice(0.0, 0.1, 0.2, 0.3, 0.5),
    "periods": choice(*([2**place for place in range(slots)] for slots in (3, 4, 5, 6, 7, 8))),
    "covariance": Range(1e-4, 10.0, log=True),
    "hops": Range(1, 4),
    "slots": choice(4, 8, 16, 32),
    "layers": Range(1, 3),
    "heads": choice(1, 2, 4),
    "head_width": choice(8, 16, 32),
    "hits": choice(32, 64, 128),
    "bits": choice(3, 4, 6, 24, 48),
    "groups": choice(8, 16, 24),
    "buckets": choice(32, 64, 128),
    "near": choice(2, 4, 8),
    "channels": choice(1, 2),
    "utilisation": Range(1e-3, 1.0, log=True),
    "strength": Range(0.1, 10.0, log=True),
    "short": choice(5, 10, 20, 50),
    "window": choice(20, 50, 100),
    "horizontal": choice(8, 16, 32),
    "vertical": choice(2, 4, 8),
    "decay": Range(1e-4, 1.0, log=True),
    "normalise": choice(False, True),
    "search_loss": Range(0.1, 10.0, log=True),
    "smoothing": Range(0.1, 1000.0, log=True),
    "l2": Range(1e-3, 1e3, log=True),
    "learning_rate": Range(0.02, 0.3, log=True),
    "leaves": choice(31, 63, 127, 255),
    "leaf_examples": choice(20, 50, 100, 200, 400, 1000),
    "input_share": choice(0.2, 0.35, 0.5, 0.8),
    "everyone": choice(False, True),
    "baskets": choice(1, 5, 25, 100),
    "locality": choice(1.0, 5.0, 10.0, 50.0, 100.0),
    "asymmetry": choice(0.0, 0.25, 0.5, 0.75, 1.0),
    "group": choice(3, 5, 7, 13, 23),
    "within": choice(0.6, 0.7, 0.8, 0.9, 1.0),
    "between": choice(0.1, 0.3, 0.5, 0.6, 0.7, 0.9),
    "alpha": choice(0.0, 0.1, 0.2, 0.4, 0.6, 0.7, 0.9),
    "neighbours": choice(100, 300, 500, 900),
}
"""For every model that has the setting. `recent` is left out: it says what a service keeps, not how good a model is. So
are those of `gbdt` that decide what is computed of the data (`later`, `vectors` ...): trials share that."""

_OWN: Mapping[str, Mapping[str, Range]] = {
    "sdim": {"bits": choice(2, 3, 4, 5)},
    "eta": {"bits": choice(16, 32, 48)},
    "gbdt": {"l2": Range(0.1, 100.0, log=True)},
    "recanet": {"window": choice(5, 10, 25, 50)},
}
"""Ranges of models in which a name means something else."""


def space_of(model: str, config: RunConfig, *, fixed: Collection[str] = ()) -> dict[str, Range]:
    """`train.x` or `model.x` -> its range, for every setting of a model that is searched.

    >>> list(space_of("dnn", RunConfig(), fixed={"train.weight_decay"}))
    ['train.learning_rate', 'train.initial_vectors', 'model.embedding', 'model.dropout']

    Args:
        model: name.
        config: the present settings.
        fixed: settings, as `train.x` or `model.x`, that were chosen by hand.
    """
    own, entry = check_config(model, config.model), model_class(model, config.model)
    ranges = {f"train.{name}": of for name, of in TRAIN.items()} if issubclass(entry, Model) else {}
    if issubclass(entry, Model) and not entry.vector_spread:
        # Its embeddings are always initialised at random.
        del ranges["train.initial_vectors"]
    ranges |= {f"model.{name}": of for name, of in {**MODEL, **_OWN.get(model, {})}.items() if name in own}
    # The present value always lies in its range, so that the first trial can be the settings as they are.
    present = {"train": config.train.model_dump(), "model": own}
    return {name: of.including(_value(present, name)) for name, of in ranges.items() if name not in fixed}


def _value(settings: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    section, _, key = name.partition(".")
    return settings[section][key]


def defaults(model: str, config: RunConfig, space: Mapping[str, Range]) -> dict[str, Any]:
    """The present settings that lie in the space, as Optuna keeps them."""
    present = {"train": config.train.model_dump(), "model": check_config(model, config.model)}
    parameters = {name: of.parameter(_value(present, name)) for name, of in space.items()}
    return {name: value for name, value in parameters.items() if value is not None}


def apply(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The settings with some of them changed; keys are `train.x` and `model.x`.

    >>> apply(RunConfig(), {"train.seed": 1, "model.width": 16}).model
    {'width': 16}
    """
    train, model = config.train.model_dump(), dict(config.model)
    for name, value in values.items():
        section, _, key = name.partition(".")
        (train if section == "train" else model)[key] = value
    return RunConfig(train=TrainSettings.model_validate(train), model=model)


def with_budget(model: str, config: RunConfig, examples: int) -> RunConfig:
    """The settings that make a training see exactly this many labelled examples.

    A model that is fitted takes at most as many, and all where it has no such setting.
    """
    if issubclass(model_class(model, config.model), Model):
        return config.with_train(max_examples=examples, max_epochs=_NEVER, max_minutes=None, patience=_NEVER)
    if "max_examples" not in check_config(model, config.model):
        return config
    return config.model_copy(update={"model": {**config.model, "max_examples": examples}})
