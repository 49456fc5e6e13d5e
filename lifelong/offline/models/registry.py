"""Which models there are, and every name that stands for one: the only registry.

    sim_soft_counts = sim_soft (a model or preset) + _counts (an ending)

Adding a model = one file + one line in `MODELS`: the contract tests, the commands, the comparison and the documentation
pick it up from there. Models of other packages: `lifelong.plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from lifelong.config import suggestion
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.models.hpmn import Hpmn
from lifelong.offline.models.tally import Tally
from lifelong.plugins import Registry, named_in_errors
from lifelong.zoo.attrec import AttRec
from lifelong.zoo.caser import Caser
from lifelong.zoo.counts import Counts
from lifelong.zoo.delta import GatedDelta
from lifelong.zoo.dien import Dien
from lifelong.zoo.din import Din
from lifelong.zoo.dnn import Dnn
from lifelong.zoo.eta import Eta
from lifelong.zoo.fm import Fm
from lifelong.zoo.fpmc import Fpmc
from lifelong.zoo.fpmc_users import FpmcUsers
from lifelong.zoo.gbdt import Gbdt
from lifelong.zoo.gru4rec import Gru4Rec
from lifelong.zoo.hpmn_authors import HpmnAuthors
from lifelong.zoo.hpmn_dynamic import HpmnDynamic
from lifelong.zoo.hstu import Hstu
from lifelong.zoo.lr import Lr
from lifelong.zoo.lstm import Lstm
from lifelong.zoo.memn2n import MemN2N
from lifelong.zoo.mf import Mf
from lifelong.zoo.mimn import Mimn
from lifelong.zoo.mingru import MinGru
from lifelong.zoo.popularity import Popularity
from lifelong.zoo.recanet import Recanet
from lifelong.zoo.rum_feature import RumFeature
from lifelong.zoo.rum_item import RumItem
from lifelong.zoo.sdim import Sdim
from lifelong.zoo.shan import Shan
from lifelong.zoo.sim import Sim
from lifelong.zoo.svdpp import Svdpp
from lifelong.zoo.tifu_knn import TifuKnn
from lifelong.zoo.topfreq import TopFreq
from lifelong.zoo.twin import Twin
from lifelong.zoo.ubr4ctr import Ubr4Ctr
from lifelong.zoo.upcf import Upcf

Entry = type[Model] | type[FittedModel]
MODEL = (
    "what lifelong.offline.models.base asks of a model; the checks of lifelong.testing.model_contract find what it "
    "lacks"
)
"""Said where a model of another package gives something that cannot be used."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A model with some settings chosen, trained and compared under a name of its own.

    Args:
        model: it has the settings of this one; also the model that an artifact names.
        entry: its class. If it is not the model's own, the settings select it, and it has settings of its own.
        settings: what is chosen.
    """

    model: str
    entry: Entry
    settings: Mapping[str, Any]

    @property
    def selects(self) -> bool:
        """Whether its settings select another class than the model's own."""
        return self.entry is not MODELS[self.model]

    def chosen_by(self, model: str, config: Mapping[str, Any]) -> bool:
        """Whether a model with these settings is this preset."""
        return model == self.model and all(config.get(key) == value for key, value in self.settings.items())


PRESETS: dict[str, Preset] = {
    "topfreq_personal": Preset("topfreq", TopFreq, {"everyone": False}),
    "hpmn_authors": Preset("hpmn", HpmnAuthors, {"authors_mode": True}),
    "fpmc_users": Preset("fpmc", FpmcUsers, {"user_factors": True}),
    "sim_soft": Preset("sim", Sim, {"search": "soft"}),
    "sim_cluster": Preset("sim", Sim, {"search": "cluster"}),
}
ENDINGS: dict[str, Mapping[str, Any]] = {
    "_counts": {"counts": True},
}
"""What may follow the name of a model or preset -> settings that all models share, set to these values."""


def _check_model(name: str, part: Any) -> None:
    """Raise if what another package registers as a model is none."""
    if not (isinstance(part, type) and issubclass(part, Model | FittedModel)):
        found = f"a class {part.__name__}" if isinstance(part, type) else f"an object of type {type(part).__name__}"
        raise UsageError(
            f"the model {name!r} is {found}",
            expected="a subclass of MemoryModel, HistoryModel or FittedModel of lifelong.offline.models.base",
            fix="`lifelong new model NAME` writes one",
        )
    missing = [one for one in ("Config", "title", "source", "state") if not hasattr(part, one)]
    if missing:
        raise UsageError(
            f"the class of the model {name!r}, {part.__name__}, lacks {', '.join(missing)}",
            expected="Config (a frozen dataclass of its settings), title, source and state",
            fix="`lifelong new model NAME` writes a class that has them",
        )


MODELS: MutableMapping[str, Entry] = Registry[Entry](
    "models",
    {
        "popularity": Popularity,
        "topfreq": TopFreq,
        "upcf": Upcf,
        "tifu_knn": TifuKnn,
        "recanet": Recanet,
        "counts": Counts,
        "gbdt": Gbdt,
        "lr": Lr,
        "fm": Fm,
        "mf": Mf,
        "fpmc": Fpmc,
        "dnn": Dnn,
        "svdpp": Svdpp,
        "gru4rec": Gru4Rec,
        "caser": Caser,
        "hstu": Hstu,
        "shan": Shan,
        "memn2n": MemN2N,
        "attrec": AttRec,
        "din": Din,
        "dien": Dien,
        "hpmn": Hpmn,
        "tally": Tally,
        "hpmn_dynamic": HpmnDynamic,
        "sim": Sim,
        "ubr4ctr": Ubr4Ctr,
        "eta": Eta,
        "sdim": Sdim,
        "twin": Twin,
        "lstm": Lstm,
        "mingru": MinGru,
        "gated_delta": GatedDelta,
        "mimn": Mimn,
        "rum_item": RumItem,
        "rum_feature": RumFeature,
    },
    # `all` is what commands take for every model.
    reserved=("all", *PRESETS),
    check=_check_model,
)


class Chosen(NamedTuple):
    """What a name and settings stand for."""

    model: str
    """Key of `MODELS`."""
    entry: Entry
    config: dict[str, Any]
    """The settings given and those that the name stands for, unchecked."""


def choose(name: str, config: Mapping[str, Any]) -> Chosen:
    """The model behind a name and settings.

    >>> choose("sim_soft_counts", {"hits": 8})[::2]
    ('sim', {'hits': 8, 'search': 'soft', 'counts': True})
    >>> choose("hpmn", {"authors_mode": True}).entry.__name__
    'HpmnAuthors'

    Raises:
        ConfigError: there is no such model, or the settings contradict the name.
    """
    plain, fixed = _without_endings(name)
    if plain in PRESETS:
        model, fixed = PRESETS[plain].model, {**PRESETS[plain].settings, **fixed}
    elif plain in MODELS:
        model = plain
    else:
        raise ConfigError(
            [f"there is no model {name!r}{suggestion(name, all_names())}"], fix="lifelong models lists all"
        )
    other = [key for key in fixed if key in config and config[key] != fixed[key]]
    if other:
        found = [f"model.{key}: {name} has {fixed[key]!r} (found {config[key]!r})" for key in other]
        raise ConfigError(found, fix=f"leave that out, or train {model}")
    return _selected(model, {**config, **fixed})


def _selected(model: str, config: dict[str, Any]) -> Chosen:
    """The model's class, or that of the preset that the settings select; a selecting flag that is off is left out."""
    selecting = [preset for preset in PRESETS.values() if preset.model == model and preset.selects]
    for preset in selecting:
        if preset.chosen_by(model, config):
            return Chosen(model, preset.entry, config)
    off = {key for preset in selecting for key in preset.settings if config.get(key) is False}
    return Chosen(model, MODELS[model], {key: value for key, value in config.items() if key not in off})


def model_class(name: str, config: Mapping[str, Any]) -> Entry:
    """The class behind a name and settings; raises as `choose`."""
    return choose(name, config).entry


def all_names() -> list[str]:
    """Models and presets; each may have endings.

    >>> all_names()[-2:]
    ['sim_soft', 'sim_cluster']
    """
    return [*MODELS, *PRESETS]


def plain_name(name: str) -> str:
    """The name of a model or preset without endings; any other name as it is.

    >>> plain_name("sim_soft_counts"), plain_name("counts")
    ('sim_soft', 'counts')
    """
    return _without_endings(name)[0]


def _without_endings(name: str) -> tuple[str, dict[str, Any]]:
    """The plain name, and the settings that its endings stand for; a name of no model as it is."""
    plain, settings = name, dict[str, Any]()
    while plain not in MODELS and plain not in PRESETS:
        ending = next((ending for ending in ENDINGS if plain.endswith(ending)), None)
        if ending is None:
            return name, {}
        plain, settings = plain.removesuffix(ending), {**settings, **ENDINGS[ending]}
    return plain, settings


def model_named_in_errors(model: Model | FittedModel, doing: str) -> AbstractContextManager[None]:
    """Say which model of another package failed, and while what was done; see `lifelong.plugins.named_in_errors`."""
    return named_in_errors("models", lambda: registered_name(model), doing, expected=MODEL)


def registered_name(model: Model | FittedModel) -> str | None:
    """The key in `MODELS` of a model's class; None if the class is not registered."""
    entry = type(model)
    owners = {
        **{preset.entry: preset.model for preset in PRESETS.values()},
        **{one: name for name, one in MODELS.items()},
    }
    return owners.get(entry)
