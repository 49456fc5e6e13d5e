"""The model card: what an artifact is, for people; its `README.md`. It repeats config and metrics, and adds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lifelong.artifact.folder import ArtifactConfig

HEADER = 24
"""Bytes of a stored record next to the fields of the memory."""


def model_card(config: ArtifactConfig, metrics: Mapping[str, Any]) -> str:
    """The text of `README.md`, in Markdown.

    Args:
        config: of the artifact.
        metrics: what training measured.
    """
    return "\n".join(_lines(config, metrics)) + "\n"


def _lines(config: ArtifactConfig, metrics: Mapping[str, Any]) -> Iterator[str]:
    schema = config.dataset_schema
    yield f"# {config.title}\n"
    yield f"The model `{config.model}` of lifelong {config.versions['lifelong']}; `config.json` has its settings.\n"
    yield "## Data and protocol\n"
    yield f"* Dataset {config.data_hash[:12]}, protocol {config.protocol}; {_labels(config)}"
    if schema.time_unit == "seconds":
        periods = config.seen[0]
        yield f"* Trained on {_days(periods.train)}, validated on {_days(periods.validation)}"
    yield f"* Predicts {', '.join(schema.tasks)} from {', '.join(schema.history_fields)} of each event\n"
    yield "## Metrics\n"
    validation = metrics.get("validation", {})
    names = {"auc": "AUC", "log_loss": "log loss", "calibration_error_calibrated": "calibration error"}
    measured = [
        f"{words} {validation[name]:.4f}" for name, words in names.items() if isinstance(validation.get(name), float)
    ]
    on = (
        f" on {validation['examples']:,} validation examples, which chose the weights"
        if "examples" in validation
        else ""
    )
    yield f"* {', '.join(measured) or 'Nothing was measured in training'}{on if measured else ''}"
    yield "* Without intervals: `lifelong evaluate` measures on test, with them\n"
    yield f"## Calibration\n\n* {_calibration(config)}\n"
    yield "## Limits\n"
    yield f"* Fields of an item: {', '.join(schema.item_fields)}; of a user: {', '.join(schema.user_fields) or 'none'}"
    yield f"* Event types are {'read' if schema.event_types else 'not read: all events are alike'}"
    yield f"* Times are {'UTC seconds' if schema.time_unit == 'seconds' else 'ordinals: an order without ages'}"
    counts = config.memory is not None and any(part.cells is not None for part in config.memory)
    counted = "is counted from its first event on, and otherwise " if counts else ""
    yield f"* An item that training did not have {counted}is scored by its hash bucket and its known fields\n"
    yield "## How to serve\n"
    if config.memory is None:
        yield f"It cannot be served: {config.not_served}."
        return
    sizes = [
        part.size * np.dtype(part.dtype).itemsize if part.cells is None else part.cells.size for part in config.memory
    ]
    yield f"A store keeps {HEADER + sum(sizes):,} bytes a user without compression (codec fp32).\n"
    yield "    lifelong backfill ARTIFACT DATA --store rocksdb://store"
    yield "    lifelong serve ARTIFACT --store rocksdb://store"


def _labels(config: ArtifactConfig) -> str:
    if config.base_rate is not None:
        return f"labels were logged, {config.base_rate:.2%} of them positive"
    return "labels were given" if (rule := config.negatives.rule) == "none" else f"negatives were drawn, by {rule}"


def _calibration(config: ArtifactConfig) -> str:
    if config.calibrator is None:
        return "Not calibrated: it gives scores, and no probabilities"
    if config.calibrator.base_rate is None:
        return "Calibrated on drawn negatives: it gives probabilities once the setting `base_rate` says the true share"
    return f"Calibrated on validation, at a share of positives of {config.calibrator.base_rate:.2%}"


def _days(period: tuple[int, int] | None) -> str:
    if period is None:
        return "nothing"
    first, last = (datetime.fromtimestamp(second, UTC).date().isoformat() for second in period)
    return f"{first} to {last}"
