"""GBDT: boosted trees on exact counts of the target's fields in the history.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, on what it calls historical
features; the trees' sum is the logit itself and feeds no linear model. Trees: Ke et al., "LightGBM: A Highly Efficient
Gradient Boosting Decision Tree", NeurIPS 2017.

Inputs of a target are those that an expert would compute, all from before the target (`zoo.inputs.target_features` has
names and definitions). For every item field: how often, in how many trips, how regularly and how long ago the target's
value occurs, with decayed counts. Of the user: events, trips, baskets and rhythm. Hour and weekday. For fields of many
values: the affinity of the target's vector with all, recent and last events. Further families (`zoo.inputs.further`):
the same of crossed fields, variety within the target's kind, fit to the part of the week, likeness to single events.
Also: how often each value is a training target; the value as a category, for fields with few values; if labels are
logged, smoothed mean labels of every value, of the user, and of both (`lifelong.zoo.inputs.label_means`).

Vectors come from the training period alone, by factorisation of which users had which values. Those that training
examples see come from targets before all of them: an item that few users had lies where these users are, so that a
target that helped to make the vectors would be given away by them. Boosting stops when the
log loss on validation has not improved for a number of trees; with an empty validation split it does not stop. Inputs
take longer than trees, and no setting of the trees changes them: the trials of `lifelong tune` compute them once.

State: for every value of every item field that the user met its counts and its last time. It grows with the history,
and no service keeps it.

Shapes: N examples, K features, T tasks, F item fields, V numbers of a field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.dtypes import Float32Array, FloatArray
from lifelong.errors import ConfigError, require
from lifelong.offline.data.counts import target_counts
from lifelong.offline.models.base import FittedModel, InputSpec, setting
from lifelong.zoo.inputs.affinity import unit_vectors
from lifelong.zoo.inputs.further import WEEK, Family, Further, chosen, week_odds
from lifelong.zoo.inputs.label_means import label_means
from lifelong.zoo.inputs.target_features import feature_names, fill_features

_Labelled = tuple[Float32Array, Float32Array]
_KNOWN: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class GbdtConfig:
    """Settings of `gbdt`."""

    max_examples: PositiveInt = setting(1_000_000, "training examples at most, negatives included, chosen at random")
    negatives: PositiveInt | None = setting(
        None, "negatives drawn for each positive, null takes as many as the dataset's rule says; weights make up for it"
    )
    later: Annotated[float, Field(gt=0, le=1)] = setting(
        0.5,
        "share of the training targets, the latest ones, that examples are of, with negatives of their period; the"
        " vectors that these see are of the earlier ones",
    )
    vectors: NonNegativeInt = setting(48, "numbers of a value's vector; 0 leaves affinities out")
    rounds: PositiveInt = setting(1000, "trees of a task at most")
    patience: PositiveInt = setting(20, "stop after this many trees without a better log loss on validation")
    learning_rate: PositiveFloat = setting(0.08, "share of each tree")
    leaves: Annotated[int, Field(gt=1)] = setting(127, "leaves of a tree at most")
    leaf_examples: PositiveInt = setting(200, "training examples of a leaf at least")
    input_share: Annotated[float, Field(gt=0, le=1)] = setting(0.5, "share of the inputs that each tree may split by")
    l2: NonNegativeFloat = setting(5.0, "regularisation of the values of leaves")
    families: tuple[Family, ...] = setting(
        ("pairs", "variety", "match", "likeness"), "further inputs: any of pairs, variety, match, likeness"
    )
    categories: NonNegativeInt = setting(1000, "item fields with fewer values than this are inputs themselves")


class Gbdt(FittedModel):
    """The strong baseline: knows every count and rhythm, and who else had what."""

    Config = GbdtConfig
    title = "LightGBM"
    source = "He et al., ADKDD 2014"
    state = "counters"
    not_served = "it counts in the raw history"
    counts_in_lists = True

    config: GbdtConfig

    def __init__(self, inputs: InputSpec, config: GbdtConfig) -> None:
        super().__init__(inputs, config)
        self.trees_T: list[Any] = []
        self.popularity_F: list[Float32Array] = []
        """For each item field: log of 1 + how often each number is the target in training, `[V]`."""
        self.vectors: dict[str, Float32Array] = {}
        """Vectors of the numbers of each field that has some, `[V, D]`; with `WEEK`, its log odds in the week."""
        self.further: Further = Further()

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Count the training period, then boost; validation decides when to stop."""
        self.popularity_F = [np.log1p(count_V).astype(np.float32) for count_V in target_counts(dataset).values()]
        self.further = chosen(dataset, tuple(self.config.families))
        examples, weight_N = self._examples(dataset, seed)
        value_NK = self._inputs(dataset, examples, self._made(dataset, seed, before=self._since(dataset)), _KNOWN)
        self.vectors = self._made(dataset, seed)
        validation = dataset.examples("validation")
        held_NK = self._inputs(dataset, validation, self.vectors, _KNOWN)
        # LightGBM wants a column of labels in one piece.
        label_TN, held_TN = (np.ascontiguousarray(part.label_NT.T) for part in (examples, validation))
        self.trees_T = [
            self._boost((value_NK, label_N), (held_NK, held_N), weight_N, seed=seed)
            for label_N, held_N in zip(label_TN, held_TN, strict=True)
        ]

    def _made(self, dataset: Dataset, seed: int, *, before: int | None = None) -> dict[str, Float32Array]:
        """Vectors of the training period, or of its part before a time."""
        width, match = self.config.vectors, "match" in self.config.families and dataset.schema.time_unit == "seconds"

        def made() -> dict[str, Float32Array]:
            vectors = unit_vectors(dataset, width, seed=seed, before=before) if width else {}
            return {**vectors, **(week_odds(dataset, before) if match else {})}

        return self.once((width, match, seed, before), made)

    def _since(self, dataset: Dataset) -> int:
        """From which time on training targets are examples; the earlier ones make the vectors that these see."""
        time_N = np.asarray(dataset.examples("train").time_N)
        # The lower neighbour, so that it is a time that occurs and no mean of two.
        return int(np.quantile(time_N, 1 - self.config.later, method="lower"))

    def _examples(self, dataset: Dataset, seed: int) -> tuple[Examples, Float32Array | None]:
        """Training examples and their weights, None where all weigh the same."""
        settings, rule = self.config, dataset.manifest.negatives
        if settings.negatives is not None and not rule.drawn_in_training:
            raise ConfigError(
                [f"model.negatives = {settings.negatives}, but no negatives are drawn in training on this dataset"],
                fix="leave model.negatives out",
            )
        examples = labelled_training_examples(
            dataset, seed=seed, limit=settings.max_examples, ratio=settings.negatives, since=self._since(dataset)
        )
        if settings.negatives in (None, rule.ratio):
            return examples, None
        # Both together weigh as they do by the dataset's rule, so that probabilities stay what they are.
        positive_N = np.asarray(examples.label_NT).max(axis=1) > 0
        return examples, np.where(positive_N, 1.0, rule.ratio / settings.negatives).astype(np.float32)

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        logit_NT = np.zeros((len(examples), len(self.inputs.tasks)))
        if len(examples):
            value_NK = self._inputs(dataset, examples, self.vectors, SPLITS)
            for task, trees in enumerate(self.trees_T):
                logit_NT[:, task] = trees.predict(value_NK, raw_score=True, num_threads=torch.get_num_threads())
        return logit_NT

    def save(self, folder: Path) -> None:
        """Also write the trees, in LightGBM's own text form, `trees-<task>.txt`."""
        fields = [*self.inputs.item, *(field + WEEK for field in self.inputs.item)]
        self.learned["crossed"] = np.array([*self.further.pairs, (self.further.kind, 0)])
        self.learned.update({f"popularity-{place}": value_V for place, value_V in enumerate(self.popularity_F)})
        self.learned.update({f"vectors-{fields.index(field)}": vector_VD for field, vector_VD in self.vectors.items()})
        super().save(folder)
        for task, trees in enumerate(self.trees_T):
            trees.save_model(folder / f"trees-{task}.txt")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        model = super().load(folder)
        model.popularity_F = [model.learned[f"popularity-{place}"] for place in range(len(model.inputs.item))]
        for place, name in enumerate([*model.inputs.item, *(field + WEEK for field in model.inputs.item)]):
            if f"vectors-{place}" in model.learned:
                model.vectors[name] = model.learned[f"vectors-{place}"]
        *pairs, (kind, _) = model.learned["crossed"].tolist()
        model.further = Further(tuple(model.config.families), tuple((left, right) for left, right in pairs), kind)
        model.trees_T = [
            _lightgbm().Booster(model_file=folder / f"trees-{task}.txt") for task in range(len(model.inputs.tasks))
        ]
        return model

    def _boost(self, train: _Labelled, held: _Labelled, weight_N: Float32Array | None, *, seed: int) -> Any:
        """Trees of one task, from inputs and labels of training and validation."""
        lightgbm, settings = _lightgbm(), self.config
        options = {
            # Labels may be graded; where they are 0 and 1 this is the binary log loss.
            "objective": "cross_entropy",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": settings.leaf_examples,
            "feature_fraction": settings.input_share,
            "lambda_l2": settings.l2,
            "num_threads": torch.get_num_threads(),
            "seed": seed,
            # Sums over threads would otherwise depend on their number, and the trees on the sums.
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        width = train[0].shape[1]
        categorical = list(range(width - len(self._few), width))
        data = lightgbm.Dataset(*train, weight=weight_N, categorical_feature=categorical, params={"verbose": -1})
        watched, stop = [], []
        if len(held[0]):
            watched, stop = [data.create_valid(*held)], [lightgbm.early_stopping(settings.patience, verbose=False)]
        trees = lightgbm.train(options, data, settings.rounds, valid_sets=watched, callbacks=stop)
        # Read back from its text, a model is what a saved one will be, and lets go of the training data.
        return lightgbm.Booster(model_str=trees.model_to_string())

    @property
    def _few(self) -> list[int]:
        """Places of the item fields that are inputs themselves."""
        return [place for place, size in enumerate(self.inputs.item.values()) if size < self.config.categories]

    def _inputs(
        self, dataset: Dataset, examples: Examples, vectors: Mapping[str, Float32Array], known: tuple[Split, ...]
    ) -> Float32Array:
        """All inputs of examples, the categories last, `[N, K]`; labels of the splits `known` may be read."""
        logged = dataset.manifest.negatives.rule == "none"
        seen: list[npt.NDArray[Any]] = [examples.user_N, examples.row_N, examples.time_N, examples.position_N]
        said = tuple(vectors), self.further, self.config.categories, known if logged else None
        key = (_digest([*seen, *vectors.values()]), *said)
        return self.once(key, lambda: self._computed(dataset, examples, vectors, known if logged else ()))

    def _computed(
        self, dataset: Dataset, examples: Examples, vectors: Mapping[str, Float32Array], known: tuple[Split, ...]
    ) -> Float32Array:
        number_NF = dataset.catalogue.number_VF[examples.row_N]
        popularity = [popularity_V[number_NF[:, place]] for place, popularity_V in enumerate(self.popularity_F)]
        parts = [np.stack([*popularity, *number_NF[:, self._few].T], axis=1)]
        if known:
            parts.insert(0, label_means(dataset, examples, known))
        week = {name: table for name, table in vectors.items() if name.endswith(WEEK)}
        vectors = {name: table for name, table in vectors.items() if name not in week}
        width = len(feature_names(dataset.schema, tuple(vectors), self.further))
        # Written once: of a catalogue's targets this is a gigabyte.
        value_NK = np.empty((len(examples), width + sum(part.shape[1] for part in parts)), np.float32)
        fill_features(value_NK[:, :width], dataset, examples, vectors, self.further, week)
        np.concatenate(parts, axis=1, out=value_NK[:, width:])
        return value_NK


def _digest(columns: Iterable[npt.NDArray[Any]]) -> bytes:
    """Of the values of arrays, whatever objects hold them."""
    digest = hashlib.blake2b()
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.digest()


def _lightgbm() -> ModuleType:
    return require("lightgbm", extra="gbdt", purpose="the model gbdt")
