"""From a finished model to an artifact folder, and back to a model.

    model --settings, weights, tables, graphs--> .ARTIFACT.<token>.unfinished --rename--> ARTIFACT --load_model--> model

The folder appears complete or not at all. Graphs take embeddings: events and targets are embedded outside of them, by
look-up in the tables.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.artifact.calibration import Calibrator
from lifelong.artifact.card import model_card
from lifelong.artifact.folder import DRAWN, Artifact, ArtifactConfig, Kind
from lifelong.artifact.list_order import ListOrder
from lifelong.artifact.manifest import CARD, FORMAT, make_manifest
from lifelong.atomic import building, check_folder, full_disk, put_in_place, remove_remains, unlocked
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.dataset.periods import periods_of
from lifelong.errors import ArtifactError, UsageError, require
from lifelong.offline.export.graphs import memory_layout, write_graphs
from lifelong.offline.models import MODELS, build, check_config, is_served, registered_name
from lifelong.offline.models.base import FittedModel, MemoryModel, Model
from lifelong.offline.models.registry import model_named_in_errors

_KEPT = "free some space; an earlier artifact is still there, and training continues with --resume from its last state"
_VERSIONED = ("lifelong", "torch", "numpy", "onnx", "onnxruntime")


def write_artifact(
    out: Path,
    model: Model | FittedModel,
    dataset: Dataset,
    *,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibrator: Calibrator | None,
    other_calibrators: Mapping[str, Calibrator | None] | None = None,
    list_order: ListOrder | None = None,
    start: Artifact | None = None,
) -> Artifact:
    """Write a model with everything that scoring needs; replaces an older artifact in `out`.

    Args:
        out: the folder.
        model: trained or fitted; put into evaluation mode.
        dataset: the dataset that it was trained on.
        run: settings of the run; `run["model"]` holds the settings of the model that are not defaults.
        metrics: what training measured.
        calibrator: of the first task, fitted on validation; or None.
        other_calibrators: calibrators of the other tasks.
        list_order: what orders the catalogue, fitted on validation; or None.
        start: the artifact that training started from.

    Raises:
        ArtifactError: an exported graph differs from the model.
        DataError: the disk is full; what was in `out` is still there.
        UsageError: `out` holds something that is not an artifact, or this model was not built from `run["model"]`.
    """
    check_replaceable(out, overwrite=True)
    settings = _settings(model, run.get("model", {}))
    remove_remains(out)
    with full_disk(out.parent, kept=_KEPT), building(out) as folder:
        _copy_data(dataset, folder)
        if is_served(model) and (drawn_V := drawn_counts(dataset)) is not None:
            np.save(folder / DRAWN, drawn_V)
        if isinstance(model, FittedModel):
            model.save(folder / "fitted")
        else:
            _write_weights(model.eval(), folder)
        config = _config(model, settings, dataset, run=run, calibrator=calibrator, others=other_calibrators or {})
        earlier = () if start is None else start.config.seen
        # What an earlier training saw stays seen: the weights were made of it.
        seen = tuple(dict.fromkeys((*config.seen, *earlier)))
        config = config.model_copy(update={"seen": seen, "list_order": list_order})
        (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n")
        (folder / "metrics.json").write_text(json.dumps(_plain(metrics), indent=2) + "\n")
        (folder / CARD).write_text(model_card(config, _plain(metrics)))
        # Last, as it has the checksums of all others.
        (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json(indent=2) + "\n")
        put_in_place(folder, out)
    return Artifact.open(out, verify="sizes")


def load_model(artifact: Artifact) -> Model | FittedModel:
    """The model of an artifact, in evaluation mode, on the CPU.

    Raises:
        ArtifactError: its weights do not fit its settings.
    """
    config = artifact.config
    model = build(config.model, config.input_spec, config.settings)
    if isinstance(model, FittedModel):
        with model_named_in_errors(model, "what it had fitted was read"):
            return type(model).load(artifact.path / "fitted")
    safetensors = require("safetensors.torch", extra="train", purpose="reading weights")
    try:
        model.load_state_dict(safetensors.load_file(artifact.path / "weights.safetensors"))
    except RuntimeError as error:
        raise ArtifactError(
            f"the weights in {artifact.path} do not fit its settings: {error}",
            fix="use the release that wrote it, or train again",
        ) from error
    return model.eval()


def model_name(model: Model | FittedModel) -> str:
    """The name under which a model is registered.

    Raises:
        UsageError: the model is not registered.
    """
    if (name := registered_name(model)) is not None:
        return name
    raise UsageError(
        f"{type(model).__name__} is not a registered model", expected=", ".join(MODELS), fix="add it to MODELS"
    )


def _settings(model: Model | FittedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the model, so that it can be built again.

    Raises:
        UsageError: the given settings are other ones.
    """
    name = model_name(model)
    # All of them, defaults included: a later release may have other defaults, and the weights fit these.
    settings = asdict(model.config) | dict(model.shared_settings)
    if check_config(name, given) != settings:
        raise UsageError(
            f"the settings {dict(given)} build another {name} than the model that is to be written",
            expected=str(settings),
            fix='give the settings that built it as run["model"]',
        )
    return settings


def _config(
    model: Model | FittedModel,
    settings: dict[str, Any],
    dataset: Dataset,
    *,
    run: Mapping[str, Any],
    calibrator: Calibrator | None,
    others: Mapping[str, Calibrator | None],
) -> ArtifactConfig:
    inputs, manifest = model.inputs, dataset.manifest
    layout = memory_layout(model) if is_served(model) else None
    kind: Kind = (
        "fitted" if isinstance(model, FittedModel) else "memory" if isinstance(model, MemoryModel) else "history"
    )
    return ArtifactConfig(
        kind=kind,
        model=model_name(model),
        title=model.title,
        settings=_plain(settings),
        dataset_schema=dataset.schema,
        inputs={"item": inputs.item, "event": inputs.event, "context": inputs.context},
        users=inputs.users,
        memory=layout,
        not_served=None if layout is not None else model.not_served,
        negatives=manifest.negatives,
        protocol=manifest.protocol,
        base_rate=manifest.base_rate,
        data_hash=manifest.data_hash,
        mapping=manifest.mapping,
        seen=(periods_of(dataset),),
        calibrator=calibrator,
        other_calibrators=dict(others),
        run=_plain(run),
        versions={name: _version(name) for name in _VERSIONED},
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _write_weights(model: Model, folder: Path) -> None:
    """Write the weights and, for a model that is served, embedding tables and graphs."""
    safetensors = require("safetensors.torch", extra="train", purpose="writing weights")
    # In memory order and on the CPU: safetensors refuses tensors that are views of others.
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    safetensors.save_file(weights, folder / "weights.safetensors")
    # safetensors makes a file that only its owner may read, but a service may run under another account.
    (folder / "weights.safetensors").chmod(0o644)
    if is_served(model):
        _write_tables(model, folder / "tables")
        write_graphs(model, folder / "graphs")


def _write_tables(model: Model, folder: Path) -> None:
    folder.mkdir()
    for field in model.embed.fields:
        # As the model reads them, factors and all: a service only looks rows up.
        vectors = model.embed.vectors(field).detach().cpu().numpy().astype(np.float32)
        np.save(folder / f"{field}.npy", vectors)


def _copy_data(dataset: Dataset, folder: Path) -> None:
    """Copy vocabularies and catalogue, but not the ids of users."""
    for field, vocabulary in (*dataset.vocabularies.items(), *dataset.profile_vocabularies.items()):
        vocabulary.save(folder / "vocabulary" / field)
    if dataset.event_types is not None:
        dataset.event_types.save(folder / "vocabulary" / "event_type")
    dataset.catalogue.save(folder / "catalogue")


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    return json.loads(json.dumps(value, default=_as_json))


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value) if isinstance(value, Path) else asdict(value)


def check_replaceable(out: Path, *, overwrite: bool) -> None:
    """Refuse to write over anything but an artifact that nobody uses, and over that only if the user says so.

    Raises:
        UsageError: something else is there, or a file in the place of a folder above it; or a process uses it.
    """
    check_folder(out.parent)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        manifest = json.loads((out / "manifest.json").read_text())
        is_artifact = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_artifact = False
    if not is_artifact:
        raise UsageError(
            f"{out} exists and is not an artifact",
            expected="a new folder, or an artifact to replace",
            fix="choose another folder",
        )
    with unlocked(out) as free:
        if not free:
            raise UsageError(
                f"{out} is the artifact of a service or command that runs, and its store holds memories of it",
                expected="a new folder, or an artifact that is not used",
                fix="choose another folder, and let the store change over to it: `lifelong switch`",
            )
    if not overwrite:
        raise UsageError(
            f"{out} already holds an artifact",
            expected="a new folder",
            fix="choose another, or replace it with --overwrite (overwrite=True)",
        )
