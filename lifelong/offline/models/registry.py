"""Which models there are, and every name that stands for one: the only registry.

    sim_soft_counts = sim_soft (a model or preset) + _counts (an ending)

Adding a model = one file + one line in `MODELS`: the contract tests, the commands, the comparison and the documentation
pick it up from there. Models of other packages: `lifelong.plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, NamedTuple

from lifelong.config import suggestion
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.models.hpmn import Hpmn
from lifelong.offline.models.tally import Tally
from lifelong.plugins import Registry, named_in_errors

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
        settings: what is chosen.
        home: module and name of a class other than the model's own, which the settings select, and which has settings
            of its own; None for the model's.
    """

    model: str
    settings: Mapping[str, Any]
    home: str | None = None

    @property
    def entry(self) -> Entry:
        """Its class."""
        entry: Entry = MODELS[self.model] if self.home is None else resolve_name(self.home)
        return entry

    def chosen_by(self, model: str, config: Mapping[str, Any]) -> bool:
        """Whether a model with these settings is this preset."""
        return model == self.model and all(config.get(key) == value for key, value in self.settings.items())


PRESETS: dict[str, Preset] = {
    "topfreq_personal": Preset("topfreq", {"everyone": False}),
    "hpmn_authors": Preset("hpmn", {"authors_mode": True}, "lifelong.zoo.hpmn_authors:HpmnAuthors"),
    "fpmc_users": Preset("fpmc", {"user_factors": True}, "lifelong.zoo.fpmc_users:FpmcUsers"),
    "sim_soft": Preset("sim", {"search": "soft"}),
    "sim_cluster": Preset("sim", {"search": "cluster"}),
}
ENDINGS: dict[str, Mapping[str, Any]] = {
    "_counts": {"counts": True},
}
"""What may follow the name of a model or preset -> settings that all models share, set to these values."""


def _check_model(name: str, part: Any) -> None:
    """Raise if what another package registers as a model is none."""
    if not (isinstance(part, type) and issubclass(part, Model | FittedModel)):
        kind = f"a class {part.__name__}" if isinstance(part, type) else f"an object of type {type(part).__name__}"
        raise UsageError(
            f"the model {name!r} is {kind}",
            expected="a subclass of MemoryModel, HistoryModel or FittedModel of lifelong.offline.models.base",
            fix="`lifelong new model NAME` writes one",
        )
    missing = [attribute for attribute in ("Config", "title", "source", "state") if not hasattr(part, attribute)]
    if missing:
        raise UsageError(
            f"the class of the model {name!r}, {part.__name__}, lacks {', '.join(missing)}",
            expected="Config (a frozen dataclass of its settings), title, source and state",
            fix="`lifelong new model NAME` writes a class that has them",
        )


MODELS: MutableMapping[str, Entry] = Registry[Entry](
    "models",
    {
        "popularity": "lifelong.zoo.popularity:Popularity",
        "topfreq": "lifelong.zoo.topfreq:TopFreq",
        "upcf": "lifelong.zoo.upcf:Upcf",
        "tifu_knn": "lifelong.zoo.tifu_knn:TifuKnn",
        "recanet": "lifelong.zoo.recanet:Recanet",
        "counts": "lifelong.zoo.counts:Counts",
        "gbdt": "lifelong.zoo.gbdt:Gbdt",
        "lr": "lifelong.zoo.lr:Lr",
        "fm": "lifelong.zoo.fm:Fm",
        "mf": "lifelong.zoo.mf:Mf",
        "fpmc": "lifelong.zoo.fpmc:Fpmc",
        "dnn": "lifelong.zoo.dnn:Dnn",
        "svdpp": "lifelong.zoo.svdpp:Svdpp",
        "gru4rec": "lifelong.zoo.gru4rec:Gru4Rec",
        "caser": "lifelong.zoo.caser:Caser",
        "hstu": "lifelong.zoo.hstu:Hstu",
        "shan": "lifelong.zoo.shan:Shan",
        "memn2n": "lifelong.zoo.memn2n:MemN2N",
        "attrec": "lifelong.zoo.attrec:AttRec",
        "din": "lifelong.zoo.din:Din",
        "dien": "lifelong.zoo.dien:Dien",
        "hpmn": Hpmn,
        "tally": Tally,
        "hpmn_dynamic": "lifelong.zoo.hpmn_dynamic:HpmnDynamic",
        "sim": "lifelong.zoo.sim:Sim",
        "ubr4ctr": "lifelong.zoo.ubr4ctr:Ubr4Ctr",
        "eta": "lifelong.zoo.eta:Eta",
        "sdim": "lifelong.zoo.sdim:Sdim",
        "twin": "lifelong.zoo.twin:Twin",
        "lstm": "lifelong.zoo.lstm:Lstm",
        "mingru": "lifelong.zoo.mingru:MinGru",
        "gated_delta": "lifelong.zoo.delta:GatedDelta",
        "mimn": "lifelong.zoo.mimn:Mimn",
        "rum_item": "lifelong.zoo.rum_item:RumItem",
        "rum_feature": "lifelong.zoo.rum_feature:RumFeature",
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
    # A name that says one thing and a setting that says another would train one under the name of the other.
    other = [key for key in fixed if key in config and config[key] != fixed[key]]
    if other:
        problems = [f"model.{key}: {name} has {fixed[key]!r} (found {config[key]!r})" for key in other]
        raise ConfigError(problems, fix=f"leave that out, or train {model}")
    return _selected(model, {**config, **fixed})


def _selected(model: str, config: dict[str, Any]) -> Chosen:
    """The model's class, or that of the preset that the settings select; a selecting flag that is off is left out."""
    selecting = [preset for preset in PRESETS.values() if preset.model == model and preset.home]
    for preset in selecting:
        if preset.chosen_by(model, config):
            return Chosen(model, preset.entry, config)
    # Only the class that such a flag selects has it as a setting: the model's own would refuse it, switched off or not.
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
        **{model_entry: name for name, model_entry in MODELS.items()},
    }
    return owners.get(entry)
