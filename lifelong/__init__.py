"""Lifelong user-behaviour modelling: one small memory per user, written per event, read per request.

The public names below are loaded when they are first used: importing the package starts nothing and loads no heavy
library.

    prepare -> Dataset -> train -> Artifact -> evaluate, backfill
                                   Artifact + open_store -> Updater, Scorer
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.config import RunConfig, load_config
    from lifelong.data.dataset import Dataset
    from lifelong.data.prepare import PrepareSettings, prepare
    from lifelong.errors import LifelongError
    from lifelong.evaluation.evaluate import evaluate
    from lifelong.memory.ingest import ingest
    from lifelong.memory.store import open_store
    from lifelong.memory.updater import Updater, UserEvent
    from lifelong.memory.verify import verify
    from lifelong.serving.app import create_app
    from lifelong.serving.scorer import Scorer, ScoreRequest
    from lifelong.training.backfill import backfill
    from lifelong.training.trainer import train

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "lifelong.artifact.folder",
    "Dataset": "lifelong.data.dataset",
    "LifelongError": "lifelong.errors",
    "PrepareSettings": "lifelong.data.prepare",
    "RunConfig": "lifelong.config",
    "ScoreRequest": "lifelong.serving.scorer",
    "Scorer": "lifelong.serving.scorer",
    "Updater": "lifelong.memory.updater",
    "UserEvent": "lifelong.memory.updater",
    "backfill": "lifelong.training.backfill",
    "create_app": "lifelong.serving.app",
    "evaluate": "lifelong.evaluation.evaluate",
    "ingest": "lifelong.memory.ingest",
    "load_config": "lifelong.config",
    "open_store": "lifelong.memory.store",
    "prepare": "lifelong.data.prepare",
    "train": "lifelong.training.trainer",
    "verify": "lifelong.memory.verify",
}

__all__ = [
    "Artifact",
    "Dataset",
    "LifelongError",
    "PrepareSettings",
    "RunConfig",
    "ScoreRequest",
    "Scorer",
    "Updater",
    "UserEvent",
    "__version__",
    "backfill",
    "create_app",
    "evaluate",
    "ingest",
    "load_config",
    "open_store",
    "prepare",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
