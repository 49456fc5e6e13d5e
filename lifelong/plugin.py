"""Everything that a model, source, store or metric of another package imports from here: the border that versions keep.

    from lifelong.plugin import MemoryModel, InputSpec, setting, register                a model
    from lifelong.plugin import Commit, ArtifactList, check_bases, register              a store, which loads no torch
    from lifelong.plugin import Sample, register                                         a metric
    from lifelong.plugin import RawLog, register                                         a source

`lifelong.testing` has the checks of models and stores. Names that need torch are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lifelong.errors import (
    DataError,
    SourceError,
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreLockedError,
    StoreUnavailableError,
)
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.preparation.sources.rawlog import RawLog, Source
from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact, StoreIdentity, space_of
from lifelong.online.store.contract import (
    ITEMS,
    Commit,
    Elapsed,
    MemoryStore,
    check_bases,
    check_reached,
    check_values,
    conflict,
    refuse_write,
)
from lifelong.online.store.ram import InMemoryStore
from lifelong.plugins import register

if TYPE_CHECKING:
    from lifelong.dataset.examples import Examples
    from lifelong.offline.models.base import (
        Batch,
        CommonSettings,
        Event,
        FittedModel,
        Found,
        History,
        HistoryModel,
        InputSpec,
        Memory,
        MemoryModel,
        Model,
        Output,
        Query,
        Share,
        Target,
        Window,
        pick,
        setting,
        spread_targets,
    )
    from lifelong.offline.nn.linear_scan import linear_scan
    from lifelong.offline.nn.masks import clear_padding, length_mask, masked_softmax
    from lifelong.offline.nn.recurrent import gru_pass, gru_step, states_at

__all__ = [
    "ITEMS",
    "ArtifactList",
    "Batch",
    "Commit",
    "CommonSettings",
    "DataError",
    "Elapsed",
    "Event",
    "Examples",
    "FittedModel",
    "Found",
    "History",
    "HistoryModel",
    "InMemoryStore",
    "InputSpec",
    "Memory",
    "MemoryModel",
    "MemoryStore",
    "Model",
    "Output",
    "Query",
    "RawLog",
    "Sample",
    "Share",
    "Source",
    "SourceError",
    "StoreConflictError",
    "StoreCorruptError",
    "StoreError",
    "StoreForeignError",
    "StoreIdentity",
    "StoreLockedError",
    "StoreUnavailableError",
    "StoredArtifact",
    "Target",
    "Window",
    "check_bases",
    "check_reached",
    "check_values",
    "clear_padding",
    "conflict",
    "gru_pass",
    "gru_step",
    "length_mask",
    "linear_scan",
    "masked_softmax",
    "pick",
    "refuse_write",
    "register",
    "setting",
    "space_of",
    "spread_targets",
    "states_at",
]

_LATER = (
    "lifelong.offline.models.base",
    "lifelong.offline.nn.masks",
    "lifelong.offline.nn.recurrent",
    "lifelong.offline.nn.linear_scan",
    "lifelong.dataset.examples",
)
"""Modules that are loaded when one of their names is used: nearly all of them load torch."""


def __getattr__(name: str) -> Any:
    """Load a name from its module (PEP 562)."""
    if name in __all__:
        for module in map(importlib.import_module, _LATER):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'lifelong.plugin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
