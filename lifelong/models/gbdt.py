"""GBDT: boosted trees on exact counts of the target's fields in the history.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, on what it calls historical
features; the trees' sum is the logit itself and feeds no linear model. Trees: Ke et al., "LightGBM: A Highly Efficient
Gradient Boosting Decision Tree", NeurIPS 2017.

Inputs of a target, all from before it: for every item field how often its value stands in the history, in the last 5,
20 and 100 events and decayed by half-lives, and how long ago it last stood there (`lifelong.data.counts`); how many
events the user has had, in all and of late; how often each field's value stands among the targets of the training
period, whoever the user and whatever she answered; the value itself, as a category, of item fields with few values.
Boosting stops when the log loss on validation has not improved for a number of trees; with an empty validation split
it does not stop.

State: for every value of every item field that the user met its counts and its last time. It grows with the history,
and no service keeps it.

Shapes: N examples, K features, T tasks, F item fields, V numbers of a field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from lifelong.data.counts import count_features
from lifelong.data.events import InputSpec
from lifelong.data.labelled import labelled_training_examples
from lifelong.data.popularity import target_counts
from lifelong.errors import require
from lifelong.models.base import FittedModel

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples
    from lifelong.data.renumbering import Renumbering

FloatArray = npt.NDArray[np.float32]
_Labelled = tuple[FloatArray, FloatArray]

ACTIVITY_DAYS = (1, 7, 30)
"""The user's events of the last so many days are counted."""
_DAY = 86_400


@dataclass(frozen=True)
class GbdtConfig:
    """Settings of `gbdt`."""

    max_examples: Annotated[int, Field(gt=0)] = field(
        default=1_000_000, metadata={"help": "training examples at most, negatives included, chosen at random"}
    )
    rounds: Annotated[int, Field(gt=0)] = field(default=500, metadata={"help": "trees of a task at most"})
    patience: Annotated[int, Field(gt=0)] = field(
        default=20, metadata={"help": "stop after so many trees without a better log loss on validation"}
    )
    learning_rate: Annotated[float, Field(gt=0)] = field(default=0.1, metadata={"help": "share of each tree"})
    leaves: Annotated[int, Field(gt=1)] = field(default=127, metadata={"help": "leaves of a tree at most"})
    leaf_examples: Annotated[int, Field(gt=0)] = field(
        default=100, metadata={"help": "training examples of a leaf at least"}
    )
    categories: Annotated[int, Field(ge=0)] = field(
        default=1000, metadata={"help": "item fields with fewer values than this are inputs themselves"}
    )


class Gbdt(FittedModel):
    """The strong baseline: knows every count, and no sequence beyond."""

    Config = GbdtConfig
    title = "LightGBM"
    source = "He et al., ADKDD 2014"
    state = "counters"
    not_served = "it counts in the raw history"

    def __init__(
        self,
        inputs: InputSpec,
        *,
        max_examples: int = 1_000_000,
        rounds: int = 500,
        patience: int = 20,
        learning_rate: float = 0.1,
        leaves: int = 127,
        leaf_examples: int = 100,
        categories: int = 1000,
    ) -> None:
        super().__init__(inputs)
        self.settings = GbdtConfig(max_examples, rounds, patience, learning_rate, leaves, leaf_examples, categories)
        self.trees_T: list[Any] = []
        self._start_T: list[Any] | None = None
        """Trees of an earlier fit that boosting goes on from."""
        self.popularity_F: list[FloatArray] = []
        """Of each item field: log of 1 + how often each number is asked about in training, `[V]`."""

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Count the training period, then boost; validation decides when to stop."""
        self.popularity_F = [np.log1p(count_V).astype(np.float32) for count_V in target_counts(dataset).values()]
        examples = labelled_training_examples(dataset, seed=seed, limit=self.settings.max_examples)
        validation = dataset.examples("validation")
        value_NK, held_NK = self._inputs(dataset, examples), self._inputs(dataset, validation)
        # LightGBM wants a column of labels in one piece.
        label_TN, held_TN = (np.ascontiguousarray(part.label_NT.T) for part in (examples, validation))
        self.trees_T = [
            self._boost((value_NK, label_N), (held_NK, held_N), seed=seed, start=start)
            for label_N, held_N, start in zip(label_TN, held_TN, self._start_T or [None] * len(label_TN), strict=True)
        ]

    def start_from(self, earlier: Self, fields: Mapping[str, Renumbering]) -> list[str]:
        """Begin with the earlier trees; the numbers that they split by must still mean the same."""
        names = list(self.inputs.item)
        problems = [
            f"its trees split by the numbers of {name!r}, which mean other values now: prepare the new data with"
            " `--from` the earlier dataset or artifact"
            for name in (names[place] for place in self._few)
            if not fields[name].grown
        ]
        if self._few != earlier._few:
            others = ", ".join(names[place] for place in sorted({*self._few} ^ {*earlier._few}))
            problems.append(
                f"its inputs differ: model.categories is {self.settings.categories}, on one side of {others}"
            )
        if not problems:
            self._start_T = self.trees_T = earlier.trees_T
            self.popularity_F = [
                fields[name].carry(popularity_V, np.zeros(fields[name].size, np.float32))
                for name, popularity_V in zip(names, earlier.popularity_F, strict=True)
            ]
        return problems

    def predict(self, dataset: Dataset, examples: Examples) -> npt.NDArray[np.float64]:
        """Logits `[N, T]`."""
        logit_NT = np.zeros((len(examples), len(self.inputs.tasks)))
        if len(examples):
            value_NK = self._inputs(dataset, examples)
            for task, trees in enumerate(self.trees_T):
                logit_NT[:, task] = trees.predict(value_NK, raw_score=True, num_threads=torch.get_num_threads())
        return logit_NT

    def save(self, folder: Path) -> None:
        """Write `gbdt.json`, `popularity-<field>.npy` and, in LightGBM's own text form, `trees-<task>.txt`."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"inputs": asdict(self.inputs), "settings": asdict(self.settings)}
        (folder / "gbdt.json").write_text(json.dumps(record, indent=2) + "\n")
        for place, popularity_V in enumerate(self.popularity_F):
            np.save(folder / f"popularity-{place}.npy", popularity_V)
        for task, trees in enumerate(self.trees_T):
            trees.save_model(folder / f"trees-{task}.txt")

    @classmethod
    def load(cls, folder: Path) -> Gbdt:
        """Read what `save` wrote.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        record = json.loads((folder / "gbdt.json").read_text())
        model = cls(InputSpec(**record["inputs"]), **record["settings"])
        model.popularity_F = [np.load(folder / f"popularity-{place}.npy") for place in range(len(model.inputs.item))]
        model.trees_T = [
            _lightgbm().Booster(model_file=folder / f"trees-{task}.txt") for task in range(len(model.inputs.tasks))
        ]
        return model

    def _boost(self, train: _Labelled, held: _Labelled, *, seed: int, start: Any) -> Any:
        """Trees of one task, from inputs and labels of training and validation; the earlier ones come first.

        Earlier trees are kept alone where no further one makes validation better.
        """
        lightgbm, settings = _lightgbm(), self.settings
        options = {
            # Labels may be graded; where they are 0 and 1 this is the binary log loss.
            "objective": "cross_entropy",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": settings.leaf_examples,
            "num_threads": torch.get_num_threads(),
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        width = train[0].shape[1]
        categorical = list(range(width - len(self._few), width))
        data = lightgbm.Dataset(*train, categorical_feature=categorical, params={"verbose": -1})
        watched, stop = [], []
        if len(held[0]):
            watched, stop = [data.create_valid(*held)], [lightgbm.early_stopping(settings.patience, verbose=False)]
        trees = lightgbm.train(options, data, settings.rounds, valid_sets=watched, callbacks=stop, init_model=start)
        if start is not None and watched and _log_loss(trees, held) >= _log_loss(start, held):
            return start
        # Read back from its text, a model is what a saved one will be, and lets go of the training data.
        return lightgbm.Booster(model_str=trees.model_to_string())

    @property
    def _few(self) -> list[int]:
        """Places of the item fields that are inputs themselves."""
        return [place for place, size in enumerate(self.inputs.item.values()) if size < self.settings.categories]

    def _inputs(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """All inputs of examples, the categories last: float32 `[N, K]`."""
        number_NF = dataset.catalogue.number_VF[examples.row_N]
        popularity = [popularity_V[number_NF[:, place]] for place, popularity_V in enumerate(self.popularity_F)]
        columns = [*_activity(dataset, examples), *popularity, *number_NF[:, self._few].T]
        return np.concatenate([count_features(dataset, examples), np.stack(columns, axis=1)], axis=1, dtype=np.float32)


def _log_loss(trees: Any, held: _Labelled) -> float:
    """Mean log loss on validation; labels may be graded."""
    logit_N = trees.predict(held[0], raw_score=True, num_threads=torch.get_num_threads())
    return float((np.logaddexp(0.0, logit_N) - held[1] * logit_N).mean())


def _lightgbm() -> ModuleType:
    return require("lightgbm", extra="gbdt", purpose="the model gbdt")


def _activity(dataset: Dataset, examples: Examples) -> list[npt.NDArray[np.int64]]:
    """How many events the user had in the last days before each target; none of it without times in seconds."""
    if dataset.schema.time_unit != "seconds":
        return []
    time_N, position_N = np.asarray(examples.time_N), np.asarray(examples.position_N, np.int64)
    return [
        # Fewer may be visible than are earlier, where the youngest events are hidden.
        np.maximum(position_N - dataset.histories.positions(examples.user_N, time_N - days * _DAY), 0)
        for days in ACTIVITY_DAYS
    ]
