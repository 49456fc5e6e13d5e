"""Variants of a model that show what each of its parts is worth: one thing is changed, everything else stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lifelong.errors import UsageError
from lifelong.offline.models import check_config
from lifelong.offline.models.tally import TallyConfig

Settings = Mapping[str, Any]


def variants(model: str, base: Settings) -> dict[str, dict[str, Any]]:
    """Name of a variant -> its complete `[model]` settings; a variant equal to the base is left out.

    Args:
        model: name.
        base: its settings; those left out have their defaults.

    Raises:
        UsageError: the model has no variants.

    >>> list(variants("hpmn", {"width": 48}))[:2]
    ['slots-1', 'slots-2']
    """
    if model not in _VARIANTS:
        raise UsageError(
            f"there are no ablations of {model!r}",
            expected=f"one of: {', '.join(_VARIANTS)}",
            fix="choose one of these models",
        )
    whole = check_config(model, base)
    checked = {name: check_config(model, settings) for name, settings in _VARIANTS[model](whole).items()}
    return {name: settings for name, settings in checked.items() if settings != whole}


def changed(base: Settings, variant: Settings) -> dict[str, Any]:
    """The settings of a variant that differ from the base's.

    >>> changed({"hops": 3, "width": 4}, {"hops": 1, "width": 4})
    {'hops': 1}
    """
    return {name: value for name, value in variant.items() if name not in base or base[name] != value}


def _hpmn(base: Settings) -> dict[str, dict[str, Any]]:
    """Slots, periods, hops, the covariance term, and the form of the authors' released code."""
    made: dict[str, dict[str, Any]] = {}
    for slots in (1, 2, 4, 6):
        made[f"slots-{slots}"] = {**base, "periods": tuple(2**place for place in range(slots))}
    made["periods-1-3-9-27"] = {**base, "periods": (1, 3, 9, 27)}
    made["periods-1-4-16-64"] = {**base, "periods": (1, 4, 16, 64)}
    for hops in (1, 3):
        made[f"hops-{hops}"] = {**base, "hops": hops}
    made["covariance-0"] = {**base, "covariance": 0.0}
    # The widths are the base's; dropout, covariance and sequence length keep the authors' values.
    made["authors-mode"] = {"authors_mode": True, **{name: base[name] for name in ("embedding", "width")}}
    return made


def _tally(base: Settings) -> dict[str, dict[str, Any]]:
    """Sizes of the state, and no slots."""
    made = {f"state-{state}": _of_size(base, state) for state in (1024, 2048, 4096, 8192, 16_384, 65_536)}
    made["no-slots"] = {**base, "periods": ()}
    return made


def _of_size(base: Settings, state: int) -> dict[str, Any]:
    """Another size, with the slots that are usual for it where the base has those that are usual for its own."""
    usual = tuple(base["periods"]) == TallyConfig(state=base["state"]).periods
    return {**base, "state": state, "periods": TallyConfig(state=state).periods if usual else base["periods"]}


_VARIANTS: dict[str, Callable[[Settings], dict[str, dict[str, Any]]]] = {"hpmn": _hpmn, "tally": _tally}
