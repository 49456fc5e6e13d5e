"""Tally, HPMN, and what every model is built on.

`registry` says which models there are and every name that stands for one, `builder` makes a model of a name and
settings, and `base` has what a model file needs. The other models are in `lifelong.zoo`.
"""

from lifelong.offline.models.builder import SERVED, SharedSettings, build, check_config, is_served, require_served
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
