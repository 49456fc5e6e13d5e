"""Training that starts from an artifact: its model and settings, on newer data with other numbers for the values.

    ARTIFACT --load--> earlier model --rows by id (`Renumbering`), the rest as it is--> new model --> training

    before   padding  unknown | bucket x 2 | a b c d        known values of the earlier vocabulary
    now      padding  unknown | bucket x 4 | b d e f        b and d keep their rows, e and f are new, a and c are gone

A value without a number of its own has the number of its hash bucket (see `vocabulary`), so buckets are carried over:

    as many buckets    each keeps its row
    k times as many    each starts from the bucket that it was part of
    else               each starts from the mean of the buckets that its values can have been in; without buckets
                       before, its values were unknown, and it starts from that row

The optimiser and the calibrator are not carried over: both start fresh on the new data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import FIRST_BUCKET, UNKNOWN, Vocabulary
from lifelong.dtypes import Float32Array, IntArray
from lifelong.errors import ConfigError, MismatchError
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import check_config, choose
from lifelong.offline.models.base import USER_NUMBER, FittedModel, Model
from lifelong.offline.training.checkpoint import json_safe


@dataclass(frozen=True, slots=True)
class Renumbering:
    """One field's numbers, before and now.

    Args:
        size: numbers now.
        source_K: number before of each known value now, -1 where it is new.
        buckets: hash buckets now.
        earlier_buckets: hash buckets before.
        gone: earlier known values that are not known now.

    >>> numbers = Renumbering.of(Vocabulary.build(["a", "b"]), Vocabulary.build(["b", "c"]))
    >>> numbers.kept, numbers.new, numbers.gone
    (1, 1, 1)
    >>> numbers.carry(np.array([[0], [1], [2], [3]], np.float32), np.full((4, 1), 9, np.float32)).ravel().tolist()
    [0.0, 1.0, 3.0, 9.0]
    """

    size: int
    source_K: IntArray
    buckets: int
    earlier_buckets: int
    gone: int

    @classmethod
    def of(cls, earlier: Vocabulary, now: Vocabulary) -> Renumbering:
        """Compare two vocabularies of one field, value by value."""
        number_K = earlier.index.find_all(now.index)
        source_K = np.where(number_K >= 0, number_K + earlier.first_known, -1)
        gone = len(earlier.index) - int((number_K >= 0).sum())
        return cls(now.size, source_K, now.buckets, earlier.buckets, gone)

    @classmethod
    def none(cls, size: int) -> Renumbering:
        """The renumbering of a field with numbers that never change, such as the hour of the day."""
        return cls(size, np.arange(FIRST_BUCKET, size), 0, 0, 0)

    @property
    def kept(self) -> int:
        """How many known values are in both vocabularies."""
        return int((self.source_K >= 0).sum())

    @property
    def new(self) -> int:
        """How many known values were not known before."""
        return len(self.source_K) - self.kept

    def carry(self, earlier_VX: Float32Array, fresh_VX: Float32Array) -> Float32Array:
        """A table for the numbers of now: earlier rows where there are some, else the fresh ones."""
        table_VX = np.array(fresh_VX)
        table_VX[:FIRST_BUCKET] = earlier_VX[:FIRST_BUCKET]
        first = FIRST_BUCKET + self.buckets
        table_VX[FIRST_BUCKET:first] = self._bucket_rows(earlier_VX)
        carried = np.flatnonzero(self.source_K >= 0)
        table_VX[first + carried] = earlier_VX[self.source_K[carried]]
        return table_VX

    def _bucket_rows(self, earlier_VX: Float32Array) -> Float32Array:
        """The row that each bucket starts from: `[buckets, ...]`."""
        if not self.earlier_buckets:
            return earlier_VX[UNKNOWN : UNKNOWN + 1]
        # A hash is in bucket b of n and in bucket c of m exactly if b and c agree modulo the divisor of n and m.
        divisor = math.gcd(self.buckets, self.earlier_buckets)
        row_BX = earlier_VX[FIRST_BUCKET : FIRST_BUCKET + self.earlier_buckets]
        mean_GX = row_BX.reshape(-1, divisor, *row_BX.shape[1:]).mean(axis=0)
        bucket_BX: Float32Array = mean_GX[np.arange(self.buckets) % divisor]
        return bucket_BX

    def record(self) -> dict[str, object]:
        """Counts for `metrics.json`."""
        return {
            "kept": self.kept,
            "new": self.new,
            "gone": self.gone,
            "buckets": [self.earlier_buckets, self.buckets],
        }


class Start:
    """An artifact that a training starts from.

    Args:
        artifact: all its files were checked.
        dataset: what is trained on now.
    """

    def __init__(self, artifact: Artifact, dataset: Dataset) -> None:
        self.artifact: Artifact = artifact
        self.dataset: Dataset = dataset

    @classmethod
    def open(
        cls,
        artifact: Artifact | Path | str,
        dataset: Dataset,
        *,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Start:
        """Open an artifact and check that training can start from it.

        Args:
            artifact: the artifact or its folder; every file is checked.
            dataset: what is trained on now.
            model: name given by the user, or None.
            settings: settings of the model given by the user.

        Raises:
            ArtifactError: the artifact is absent, damaged or foreign.
            ConfigError: the model, settings or fields of the dataset differ; names every difference.
        """
        # All checksums, although it takes a while: damage would go on into every later artifact.
        opened = Artifact.open(artifact.path if isinstance(artifact, Artifact) else artifact)
        start = cls(opened, dataset)
        problems = [*start._other_model(model, settings or {}), *start._other_fields()]
        if problems:
            raise ConfigError(
                problems,
                fix=f"leave out what differs: the model and its settings come from {opened.path}; "
                "or train a new model, without a start",
            )
        return start

    @property
    def name(self) -> str:
        """Name of the model in the registry."""
        return self.artifact.config.model

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the model."""
        return check_config(self.name, self.artifact.config.settings)

    @cached_property
    def model(self) -> Model | FittedModel:
        """The earlier model."""
        return load_model(self.artifact)

    @cached_property
    def fields(self) -> dict[str, Renumbering]:
        """Field -> how its numbers have changed; fields with the same numbers in every dataset are left out."""
        now, earlier = self.dataset, self.artifact
        # Context fields such as the hour have the same numbers everywhere, and need no renumbering.
        changed = {
            field: Renumbering.of(earlier.vocabularies[field], now.vocabularies[field]) for field in now.inputs.item
        }
        changed |= {
            field: Renumbering.of(earlier.profile_vocabularies[field], vocabulary)
            for field, vocabulary in now.profile_vocabularies.items()
        }
        if now.event_types is not None and earlier.event_types is not None:
            changed["event_type"] = Renumbering.of(earlier.event_types, now.event_types)
        return changed

    def carry_into(self, model: Model) -> None:
        """Give a new model for the dataset the earlier weights.

        Raises:
            MismatchError: it has an embedding per user and the dataset is another one, or other weights have another
                shape.
        """
        assert isinstance(self.model, Model)
        earlier, state = self.model.state_dict(), model.state_dict()
        tables = model.number_tables
        problems = [
            f"its weights {name} are {list(state[name].shape)} on this dataset, {_shape(earlier, name)} in the artifact"
            for name in state
            if name not in tables and (name not in earlier or earlier[name].shape != state[name].shape)
        ]
        if problems:
            raise MismatchError(
                f"{self.name} cannot go on from {self.artifact.path}: " + "; ".join(problems),
                expected="weights that do not depend on the number of values of a field",
                fix="train a new model, without a start",
            )
        for name, value in state.items():
            if name in tables:
                # New values keep the rows that the new model was initialised with.
                rows = self._numbers(tables[name], len(value)).carry(earlier[name].numpy(), value.numpy())
                state[name] = torch.from_numpy(rows)
            else:
                state[name] = earlier[name]
        model.load_state_dict(state)

    def record(self, before: Mapping[str, float]) -> dict[str, Any]:
        """What `metrics.json` says about the start.

        Args:
            before: metrics of the earlier weights on the validation examples of the new dataset.
        """
        return {
            "artifact": self.artifact.id,
            "data_hash": self.artifact.config.data_hash,
            "fields": {field: found.record() for field, found in self.fields.items()},
            "validation": dict(before),
        }

    def _numbers(self, field: str, size: int) -> Renumbering:
        # Numbers of users are places in a dataset, and the ids behind them are not in the artifact.
        if field == USER_NUMBER and self.dataset.manifest.data_hash != self.artifact.config.data_hash:
            raise MismatchError(
                f"{self.name} has an embedding per user, and an artifact does not hold the ids of its users",
                expected=f"the dataset that it was trained on, with the hash {self.artifact.config.data_hash[:12]}",
                fix="train a new model, without a start",
            )
        return self.fields.get(field) or Renumbering.none(size)

    def _other_model(self, model: str | None, given: Mapping[str, Any]) -> list[str]:
        """How the model and the settings that the user gave differ from the artifact's."""
        own = self.settings
        if model is not None:
            name, _, given = choose(model, given)
            if name != self.name:
                return [f"the model is {model!r}, the artifact's is {self.name!r}"]
        wanted = json_safe(given)
        problems = [f"model.{key}: {self.name} has no such setting" for key in wanted if key not in own and wanted[key]]
        return problems + [
            f"model.{key} is {wanted[key]!r}, the artifact's is {value!r}"
            for key, value in json_safe(own).items()
            if key in wanted and wanted[key] != value
        ]

    def _other_fields(self) -> list[str]:
        """How the fields of the dataset differ from the artifact's."""
        now, own = self.dataset.schema, self.artifact.config.dataset_schema
        both = {name: (getattr(now, name), getattr(own, name)) for name in type(own).model_fields}
        return [
            f"{name.replace('_', ' ')} of the dataset: {_words(mine)}; the artifact's: {_words(theirs)}"
            for name, (mine, theirs) in both.items()
            if mine != theirs
        ]


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _shape(state: Mapping[str, torch.Tensor], name: str) -> str:
    return str(list(state[name].shape)) if name in state else "absent"
