"""What a model is.

    Model         forward(batch) -> Output                                    any model that is trained by gradient
    HistoryModel  find(window, query)                                         reads the last events at every request
    MemoryModel   initial_memory, write, encode, read, (head)                 bounded state, O(1) per event
    CountingModel plan, write, encode, read_known                             a memory with a part that counts
    FittedModel   fit, predict, save, load                                    not trained by gradient

Vectors and numbers: a memory model embeds the numbers of an event or target and then works on vectors alone
(`write_vector`, `encode_vector`, `read_vector`, `head`). The artifact exports exactly these functions as graphs and the
tables as arrays, so that a server needs no torch.

This module has all names that a model file needs.
"""

from lifelong.dataset.events import InputSpec
from lifelong.offline.data.batch import Batch
from lifelong.offline.models.fitted_model import FittedModel
from lifelong.offline.models.history_model import Found, HistoryModel, Query, Window
from lifelong.offline.models.memory_model import (
    CountingModel,
    Event,
    History,
    M,
    Memory,
    MemoryModel,
    Target,
    pick,
    spread_targets,
)
from lifelong.offline.models.model import USER_NUMBER, Model, Output, UserModel
from lifelong.offline.models.settings import CommonSettings, Share, setting

__all__ = [
    "USER_NUMBER",
    "Batch",
    "CommonSettings",
    "CountingModel",
    "Event",
    "FittedModel",
    "Found",
    "History",
    "HistoryModel",
    "InputSpec",
    "M",
    "Memory",
    "MemoryModel",
    "Model",
    "Output",
    "Query",
    "Share",
    "Target",
    "UserModel",
    "Window",
    "pick",
    "setting",
    "spread_targets",
]
