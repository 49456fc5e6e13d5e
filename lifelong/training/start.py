"""Training that goes on from an artifact: the same model with the same settings, on newer data with its own numbers.

    ARTIFACT --load--> earlier model --rows by id (`data.renumbering`), the rest as it is--> new model --> training

Weights are carried over, the optimiser and the calibrator are not: both are made anew from the new data.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lifelong.artifact.export import load_model
from lifelong.artifact.folder import Artifact
from lifelong.data.renumbering import Renumbering
from lifelong.data.vocabulary import Vocabulary
from lifelong.errors import ConfigError, MismatchError
from lifelong.models import check_config, without_form
from lifelong.models.base import USER_NUMBER, FittedModel, Model
from lifelong.training.checkpoint import json_safe

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset


class Start:
    """An artifact that a training begins from.

    Args:
        artifact: checked in full.
        dataset: what is trained on now.
        users_from: the dataset that the artifact was trained on, for models that keep a vector of each user.
    """

    def __init__(self, artifact: Artifact, dataset: Dataset, users_from: Dataset | None = None) -> None:
        self.artifact, self.dataset, self.users_from = artifact, dataset, users_from
        self._user_numbers: Renumbering | None = None

    @classmethod
    def open(
        cls,
        artifact: Artifact | Path | str,
        dataset: Dataset,
        *,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        users_from: Dataset | None = None,
    ) -> Start:
        """Open an artifact and check that training can go on from it.

        Args:
            artifact: the artifact or its folder; every file is checked.
            dataset: what is trained on now.
            model: name that the user gave, or None.
            settings: settings of the model that the user gave.
            users_from: see the class.

        Raises:
            ArtifactError: the artifact is absent, damaged or foreign.
            ConfigError: the model, a setting or the fields of the dataset differ; names all that differs.
        """
        opened = Artifact.open(artifact.path if isinstance(artifact, Artifact) else artifact)
        start = cls(opened, dataset, users_from)
        problems = [*start._other_model(model, settings or {}), *start._other_fields()]
        if problems:
            raise ConfigError(
                problems,
                fix=f"leave out what differs, since everything about the model comes from {opened.path}; "
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
        """Field -> what became of its numbers; those that mean the same in every dataset are left out."""
        now, earlier = self.dataset, self.artifact
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
        """Give a new model of the dataset the earlier weights.

        Raises:
            MismatchError: it keeps a vector of each user and who they were is not known, or other weights have another
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
                rows = self._numbers(tables[name], len(value)).carry(earlier[name].numpy(), value.numpy())
                state[name] = torch.from_numpy(rows)
            else:
                state[name] = earlier[name]
        model.load_state_dict(state)

    def carry_into_fitted(self, model: FittedModel) -> None:
        """Let a fitted model go on from the earlier one.

        Raises:
            MismatchError: it cannot, and why.
        """
        assert isinstance(self.model, FittedModel)
        problems = model.start_from(self.model, self.fields)
        if problems:
            raise MismatchError(
                f"{self.name} cannot go on from {self.artifact.path}: " + "; ".join(problems),
                fix="train a new model, without a start",
            )

    def record(self, before: Mapping[str, float]) -> dict[str, Any]:
        """What `metrics.json` says of the start.

        Args:
            before: metrics of the earlier weights on the validation examples of the new dataset.
        """
        users = {} if self._user_numbers is None else {USER_NUMBER: self._user_numbers}
        return {
            "artifact": self.artifact.id,
            "data_hash": self.artifact.config.data_hash,
            "fields": {field: found.record() for field, found in (self.fields | users).items()},
            "validation": dict(before),
        }

    def _numbers(self, field: str, size: int) -> Renumbering:
        if field == USER_NUMBER:
            self._user_numbers = self._users(size)
            return self._user_numbers
        return self.fields.get(field) or Renumbering.none(size)

    def _users(self, size: int) -> Renumbering:
        """Users by id; an artifact does not say who they were.

        Raises:
            MismatchError: nobody says it, or another dataset is named.
        """
        trained_on = self.artifact.config.data_hash
        if self.dataset.manifest.data_hash == trained_on:
            return Renumbering.none(size)
        if self.users_from is None or self.users_from.manifest.data_hash != trained_on:
            found = "the artifact does not say who they were"
            if self.users_from is not None:
                found = f"{self.users_from.folder} is not the dataset that it was trained on"
            raise MismatchError(
                f"{self.name} keeps a vector of each user, and {found}",
                expected=f"the dataset with the hash {trained_on[:12]}",
                fix="name the dataset that the artifact was trained on: --users-from DATA",
            )
        return Renumbering.of(Vocabulary(self.users_from.users), Vocabulary(self.dataset.users))

    def _other_model(self, model: str | None, given: Mapping[str, Any]) -> list[str]:
        """How the model and the settings that the user gave differ from the artifact's."""
        own = self.settings
        if model is not None:
            name, given = without_form(model, given)
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
        """How the fields of the dataset differ from those that the artifact knows."""
        now, own = self.dataset.schema, self.artifact.config.dataset_schema
        return [
            f"{what} of the dataset: {_words(mine)}; the artifact's: {_words(theirs)}"
            for what, mine, theirs in (
                ("item fields", now.item_fields, own.item_fields),
                ("number fields", now.number_fields, own.number_fields),
                ("user fields", now.user_fields, own.user_fields),
                ("statistics of items", now.item_statistics, own.item_statistics),
                ("range of ratings", now.rating_range, own.rating_range),
                ("event types", now.event_types, own.event_types),
                ("time unit", now.time_unit, own.time_unit),
                ("tasks", now.tasks, own.tasks),
            )
            if mine != theirs
        ]


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _shape(state: Mapping[str, torch.Tensor], name: str) -> str:
    return str(list(state[name].shape)) if name in state else "absent"
