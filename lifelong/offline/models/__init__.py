"""The models, one file each.

`registry` says which there are and every name that stands for one, `builder` makes a model of a name and settings, and
`base` has what a model file needs.
"""

import sys
from types import ModuleType

from lifelong.offline.models.builder import SERVED, build, check_config, is_served, require_served
from lifelong.offline.models.listing import ModelList, model_list
from lifelong.offline.models.registry import (
    ENDINGS,
    MODELS,
    PRESETS,
    Preset,
    all_names,
    choose,
    model_class,
    plain_name,
    registered_name,
)
from lifelong.offline.models.shared import SharedSettings


class _Models(ModuleType):
    """Calls the list: importing this package puts it in the place of the function `lifelong.models`."""

    def __call__(self) -> ModelList:
        """The models that can be trained."""
        return model_list()


sys.modules[__name__].__class__ = _Models

__all__ = [
    "ENDINGS",
    "MODELS",
    "PRESETS",
    "SERVED",
    "Preset",
    "SharedSettings",
    "all_names",
    "build",
    "check_config",
    "choose",
    "is_served",
    "model_class",
    "plain_name",
    "registered_name",
    "require_served",
]
