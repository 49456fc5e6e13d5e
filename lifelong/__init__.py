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
    from lifelong.api import fold as fold
    from lifelong.api import ingest as ingest
    from lifelong.api import models as models
    from lifelong.api import predict as predict
    from lifelong.api import train as train
    from lifelong.api import tune as tune
    from lifelong.api import verify as verify
    from lifelong.artifact.folder import Artifact as Artifact
    from lifelong.config import RunConfig as RunConfig
    from lifelong.config import load_config as load_config
    from lifelong.dataset.folder import Dataset as Dataset
    from lifelong.errors import LifelongError as LifelongError
    from lifelong.offline.preparation.prepare import PrepareSettings as PrepareSettings
    from lifelong.offline.preparation.prepare import prepare as prepare
    from lifelong.offline.training.callbacks import Callback as Callback
    from lifelong.online.memory.event import UserEvent as UserEvent
    from lifelong.online.memory.updater import Updater as Updater
    from lifelong.online.opening import open_artifact as open_artifact
    from lifelong.online.scoring.answer import ScoreRequest as ScoreRequest
    from lifelong.online.scoring.features import export_features as export_features
    from lifelong.online.scoring.features import features as features
    from lifelong.online.scoring.scorer import Scorer as Scorer
    from lifelong.online.scoring.user_view import history as history
    from lifelong.online.serving.app import create_app as create_app
    from lifelong.online.store.opening import open_store as open_store

if sys.platform == "win32":
    raise ImportError(
        "lifelong does not run on Windows: files there lack the locks and renames that it relies on; use WSL"
    )

_HOMES = {
    "Callback": "lifelong.offline.training.callbacks",
    "Artifact": "lifelong.artifact.folder",
    "Dataset": "lifelong.dataset.folder",
    "LifelongError": "lifelong.errors",
    "PrepareSettings": "lifelong.offline.preparation.prepare",
    "RunConfig": "lifelong.config",
    "ScoreRequest": "lifelong.online.scoring.answer",
    "Scorer": "lifelong.online.scoring.scorer",
    "Updater": "lifelong.online.memory.updater",
    "UserEvent": "lifelong.online.memory.event",
    "backfill": "lifelong.api",
    "compare": "lifelong.api",
    "create_app": "lifelong.online.serving.app",
    "evaluate": "lifelong.api",
    "explain": "lifelong.api",
    "export_features": "lifelong.online.scoring.features",
    "fold": "lifelong.api",
    "features": "lifelong.online.scoring.features",
    "history": "lifelong.online.scoring.user_view",
    "ingest": "lifelong.api",
    "load_config": "lifelong.config",
    "models": "lifelong.api",
    "open_artifact": "lifelong.online.opening",
    "open_store": "lifelong.online.store.opening",
    "predict": "lifelong.api",
    "prepare": "lifelong.offline.preparation.prepare",
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
