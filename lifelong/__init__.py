"""Lifelong user-behaviour modelling: one small memory per user, written per event, read per request.

The public names below are loaded when they are first used: importing the package starts nothing and loads no heavy
library.

    prepare -> Dataset -> train -> Artifact -> evaluate, backfill
                                   Artifact + open_store -> Updater, Scorer
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lifelong.version import __version__

if TYPE_CHECKING:
    from lifelong.api import backfill as backfill
    from lifelong.api import compare as compare
    from lifelong.api import evaluate as evaluate
    from lifelong.api import explain as explain
    from lifelong.api import ingest as ingest
    from lifelong.api import models as models
    from lifelong.api import predict as predict
    from lifelong.api import train as train
    from lifelong.api import tune as tune
    from lifelong.api import verify as verify
    from lifelong.artifact.folder import Artifact as Artifact
    from lifelong.config import RunConfig as RunConfig
    from lifelong.config import load_config as load_config
    from lifelong.data.dataset import Dataset as Dataset
    from lifelong.errors import LifelongError as LifelongError
    from lifelong.memory.updater import Updater as Updater
    from lifelong.memory.updater import UserEvent as UserEvent
    from lifelong.opening import open_artifact as open_artifact
    from lifelong.preparation.prepare import PrepareSettings as PrepareSettings
    from lifelong.preparation.prepare import prepare as prepare
    from lifelong.scoring.answer import ScoreRequest as ScoreRequest
    from lifelong.scoring.features import export_features as export_features
    from lifelong.scoring.features import features as features
    from lifelong.scoring.past import history as history
    from lifelong.scoring.scorer import Scorer as Scorer
    from lifelong.serving.app import create_app as create_app
    from lifelong.store.opening import open_store as open_store
    from lifelong.training.callbacks import Callback as Callback

if sys.platform == "win32":
    raise ImportError(
        "lifelong does not run on Windows: files there lack the locks and renames that it relies on; use WSL"
    )

_HOMES = {
    "Callback": "lifelong.training.callbacks",
    "Artifact": "lifelong.artifact.folder",
    "Dataset": "lifelong.data.dataset",
    "LifelongError": "lifelong.errors",
    "PrepareSettings": "lifelong.preparation.prepare",
    "RunConfig": "lifelong.config",
    "ScoreRequest": "lifelong.scoring.answer",
    "Scorer": "lifelong.scoring.scorer",
    "Updater": "lifelong.memory.updater",
    "UserEvent": "lifelong.memory.updater",
    "backfill": "lifelong.api",
    "compare": "lifelong.api",
    "create_app": "lifelong.serving.app",
    "evaluate": "lifelong.api",
    "explain": "lifelong.api",
    "export_features": "lifelong.scoring.features",
    "features": "lifelong.scoring.features",
    "history": "lifelong.scoring.past",
    "ingest": "lifelong.api",
    "load_config": "lifelong.config",
    "models": "lifelong.api",
    "open_artifact": "lifelong.opening",
    "open_store": "lifelong.store.opening",
    "predict": "lifelong.api",
    "prepare": "lifelong.preparation.prepare",
    "train": "lifelong.api",
    "tune": "lifelong.api",
    "verify": "lifelong.api",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
