"""The models, one file each, and `MODELS`, the only registry.

Adding a model = one file + one line in `MODELS`: the contract tests, the commands, the comparison and the docs table
pick it up from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from textwrap import dedent
from types import ModuleType
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from lifelong.data.counts import count_input_names
from lifelong.data.events import USUAL_CONTEXT, InputSpec, since_context
from lifelong.errors import ConfigError, UsageError
from lifelong.models import sides
from lifelong.models.attrec import AttRec
from lifelong.models.base import FittedModel, HistoryModel, MemoryModel, Model
from lifelong.models.caser import Caser
from lifelong.models.counts import Counts
from lifelong.models.delta import GatedDelta
from lifelong.models.dien import Dien
from lifelong.models.din import Din
from lifelong.models.dnn import Dnn
from lifelong.models.eta import Eta
from lifelong.models.fm import Fm
from lifelong.models.fpmc import Fpmc
from lifelong.models.fpmc_users import FpmcUsers
from lifelong.models.gbdt import Gbdt
from lifelong.models.gru4rec import Gru4Rec
from lifelong.models.hpmn import Hpmn
from lifelong.models.hpmn_authors import HpmnAuthors
from lifelong.models.hpmn_dynamic import HpmnDynamic
from lifelong.models.hstu import Hstu
from lifelong.models.lr import Lr
from lifelong.models.lstm import Lstm
from lifelong.models.memn2n import MemN2N
from lifelong.models.mf import Mf
from lifelong.models.mimn import Mimn
from lifelong.models.mingru import MinGru
from lifelong.models.popularity import Popularity
from lifelong.models.rum_feature import RumFeature
from lifelong.models.rum_item import RumItem
from lifelong.models.sdim import Sdim
from lifelong.models.shan import Shan
from lifelong.models.sides import ITEM_RECENT, SIDES, has_sides, with_sides
from lifelong.models.sim import Sim
from lifelong.models.svdpp import Svdpp
from lifelong.models.tally import Tally
from lifelong.models.twin import Twin
from lifelong.models.ubr4ctr import Ubr4Ctr
from lifelong.nn import tasks as task_heads
from lifelong.nn.counted import CountScale, TargetPopularity
from lifelong.nn.head import Head
from lifelong.nn.tasks import HEADS, TaskHead

MODELS: dict[str, type[Model] | type[FittedModel]] = {
    "popularity": Popularity,
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
}

MODES: dict[tuple[str, str], type[Model] | type[FittedModel]] = {
    ("hpmn", "authors_mode"): HpmnAuthors,
    ("fpmc", "user_factors"): FpmcUsers,
}
"""(model, flag in its settings) -> the class that the flag selects, with settings of its own."""


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hpmn_authors": ("hpmn", {"authors_mode": True}),
    "fpmc_users": ("fpmc", {"user_factors": True}),
    "sim_soft": ("sim", {"search": "soft"}),
    "sim_cluster": ("sim", {"search": "cluster"}),
}
"""Name -> model and settings: forms of a model that are trained and compared under a name of their own."""
ADDED: dict[str, dict[str, Any]] = {
    "_counts": {"counts": True},
    "_item": {"side": "item"},
    "_both": {"side": "both"},
}
"""Behind the name of a model or form -> what all models have in common that is set then: exact counts, another side."""


def model_class(name: str, config: Mapping[str, Any]) -> type[Model] | type[FittedModel]:
    """The class behind a name and its settings (a flag can select another form of a model).

    Raises:
        ConfigError: no model or form has this name.
    """
    name, config = without_form(name, config)
    if name not in MODELS:
        raise ConfigError([f"there is no model {name!r}"], fix=f"choose one of: {', '.join([*MODELS, *FORMS])}")
    for (model, flag), chosen in MODES.items():
        if model == name and config.get(flag) is True:
            return chosen
    return MODELS[name]


def check_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The complete settings of a model: those given, checked, and defaults for the rest.

    Raises:
        ConfigError: no such model, or settings unknown or out of range; names all of them.
    """
    name, config = without_form(name, config)
    config_class = model_class(name, config).Config
    known = [field.name for field in fields(config_class)]
    given = {key: value for key, value in config.items() if not ((name, key) in MODES and value is False)}
    entry = model_class(name, config)
    head, counts, context, side, recent = SHARED_HEAD, False, None, SIDES[0], None
    if issubclass(entry, Model):
        head, counts = given.pop("head", SHARED_HEAD), given.pop("counts", False)
        side, recent = given.pop("side", side), given.pop("item_recent", None)
        context = given.pop("context", None) if entry.reads_context else None
    problems = [
        f"model.{key}: {name} has no such setting (it has: {', '.join(known)})" for key in given.keys() - set(known)
    ]
    try:
        checked = TypeAdapter(config_class).validate_python({key: given[key] for key in known if key in given})
    except ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()]
    if head not in HEADS:
        problems.append(f"model.head: there is no head {head!r} (there are: {', '.join(HEADS)})")
    if context is not None and not (isinstance(context, list | tuple) and all(isinstance(one, str) for one in context)):
        problems.append(f"model.context: a list of context fields is expected (found {context!r})")
    if not isinstance(counts, bool):
        problems.append(f"model.counts: true or false is wanted (found {counts!r})")
    elif counts and issubclass(entry, Model) and not entry.takes_counts:
        problems.append(f"model.counts: {entry.title} has a head of its own, which is given no counts")
    problems += _side_problems(entry, side, recent)
    if problems:
        raise ConfigError(sorted(problems), fix="lifelong models shows every model's settings")
    # Of what all models have in common nothing is said where it is as usual.
    common = {
        "head": None if head == SHARED_HEAD else head,
        "context": None if context is None else list(context),
        "counts": True if counts else None,
        "side": None if side == SIDES[0] else side,
        "item_recent": None if side == SIDES[0] else ITEM_RECENT if recent is None else recent,
    }
    return asdict(checked) | {key: value for key, value in common.items() if value is not None}


def without_form(name: str, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The model behind a name, and its settings, those that make the form among them.

    Raises:
        ConfigError: the settings make another form.
    """
    plain, settings = _without_added(name)
    model, form = FORMS.get(plain, (plain, {}))
    settings = {**form, **settings}
    other = [key for key in settings if key in config and config[key] != settings[key]]
    if other:
        found = [f"model.{key}: {name} has {settings[key]!r} (found {config[key]!r})" for key in other]
        raise ConfigError(found, fix=f"leave that out, or train {model}")
    return model, {**config, **settings}


def plain_name(name: str) -> str:
    """The name of a model or form without `ADDED`: `sim_soft` for `sim_soft_counts`; others are as they are."""
    return _without_added(name)[0]


def _without_added(name: str) -> tuple[str, dict[str, Any]]:
    """The plain name, and the settings that what stands behind it makes; a name of no model is as it is."""
    plain, settings = name, dict[str, Any]()
    while plain not in MODELS and plain not in FORMS:
        ending = next((ending for ending in ADDED if plain.endswith(ending)), None)
        if ending is None:
            return name, {}
        plain, settings = plain.removesuffix(ending), {**settings, **ADDED[ending]}
    return plain, settings


def _side_problems(entry: type[Any], side: object, recent: object) -> list[str]:
    """What is wrong with `model.side` and `model.item_recent`."""
    problems = []
    if side not in SIDES:
        problems.append(f"model.side: one of {', '.join(SIDES)} is wanted (found {side!r})")
    elif side != SIDES[0] and not has_sides(entry):
        able = ", ".join(name for name, one in MODELS.items() if has_sides(one))
        problems.append(f"model.side: {entry.title} has no side of items (these can have one: {able})")
    if recent is not None and side == SIDES[0]:
        problems.append("model.item_recent: without a side of items (model.side) there are no events of items")
    elif recent is not None and (not isinstance(recent, int) or isinstance(recent, bool) or recent < 1):
        problems.append(f"model.item_recent: a number of events is wanted (found {recent!r})")
    return problems


def _problem(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    return f"model.{place}: {detail['msg'].removeprefix('Value error, ')} (found {detail['input']!r})"


def build(name: str, inputs: InputSpec, config: Mapping[str, Any]) -> Model | FittedModel:
    """A new model of a registered name.

    Args:
        name: key of `MODELS` or `FORMS`.
        inputs: sizes of the dataset's fields.
        config: settings of the model; those left out have their defaults.

    Raises:
        ConfigError: no such model, or settings unknown or out of range; names all of them.
    """
    checked = check_config(name, config)
    head, counts = HEADS[checked.pop("head", SHARED_HEAD)], checked.pop("counts", False)
    side, recent = checked.pop("side", SIDES[0]), checked.pop("item_recent", ITEM_RECENT)
    if (context := checked.pop("context", None)) is not None:
        inputs = _choose_context(inputs, context, model_class(name, config))
    entry = model_class(name, config)
    model: Model | FittedModel
    if side != SIDES[0] and issubclass(entry, Model):
        model = with_sides(entry, inputs, checked, side=side, recent=recent)
    else:
        model = entry(inputs, **checked)
    if counts and isinstance(model, Model):
        _give_counts(model, dropout=checked.get("dropout", 0.0))
    if head is not None and isinstance(model, Model):
        _put_head(model, head, dropout=checked.get("dropout", 0.0))
    return model


def _choose_context(inputs: InputSpec, chosen: Sequence[str], entry: type[Any]) -> InputSpec:
    """The inputs of a model that reads the chosen context fields.

    Raises:
        ConfigError: the data lacks one, the model cannot have it, or one is named twice; names all of them.
    """
    since = list(map(since_context, inputs.item)) if set(USUAL_CONTEXT) <= set(inputs.context) else []
    readable = [*inputs.context, *(since if entry.sees_since else [])]
    there = ", ".join(readable) or "none: this data has no clock times"
    problems = [
        f"model.context: there is no context field {field!r} (there are: {there})"
        for field in chosen
        if field not in (*inputs.context, *since)
    ]
    if not entry.sees_since:
        able = ", ".join(name for name, one in MODELS.items() if getattr(one, "sees_since", False))
        problems += [
            f"model.context: {entry.title} keeps no events to look up {field!r} in (these do: {able})"
            for field in chosen
            if field in since
        ]
    problems += [f"model.context: {field!r} stands there twice" for field in set(chosen) if chosen.count(field) > 1]
    if problems:
        raise ConfigError(sorted(problems), fix="docs/context.md says what each field is")
    return replace(inputs, chosen=tuple(chosen))


def _give_counts(model: Model, *, dropout: float) -> None:
    """Widen the head of a model by exact counts of the target, and how popular it is; nothing can serve it then.

    Raises:
        ConfigError: the model's own head is another than the common one.
    """
    if type(model.head) is not Head:
        raise ConfigError([f"model.counts: {model.title} has a head of its own"], fix="leave it out")
    inputs = model.inputs
    model.counted = CountScale(len(count_input_names(tuple(inputs.item), timed=inputs.timed)))
    model.popular = TargetPopularity(inputs.item)
    model.widen_head(len(model.counted.mean_K) + len(inputs.item), dropout=dropout)
    model.title = f"{model.title} + counts"
    model.not_served = "exact counts of a whole history (model.counts) are no state of bounded size"


def _put_head(model: Model, head: type[TaskHead], *, dropout: float) -> None:
    """Give a model a head of several tasks.

    Raises:
        ConfigError: there is one task, or the model's own head is another than the common one.
    """
    tasks, name = len(model.inputs.tasks), next(name for name, entry in HEADS.items() if entry is head)
    if tasks < 2:
        raise ConfigError(
            [f"model.head: {name!r} is for several tasks, and this data has one"],
            fix="leave it out, or prepare --tasks",
        )
    if type(model.head) is not Head:
        raise ConfigError([f"model.head: {model.title} has a head of its own"], fix="leave it out")
    width = model.head.layers[0].in_features
    assert isinstance(width, int)
    model.head = head(width, tasks, dropout=dropout)


SHARED_HEAD = "shared"
SERVED = (MemoryModel, HistoryModel)
"""Models that a service can run: from a memory, or from the recent history that it keeps."""


def is_served(model: Model | FittedModel) -> TypeGuard[MemoryModel | HistoryModel]:
    """Whether a service can run this model: the settings of one that it could run may rule that out."""
    return isinstance(model, SERVED) and model.counted is None


def require_served(model: Model | FittedModel, *, purpose: str) -> MemoryModel | HistoryModel:
    """The model as one that a service can run.

    Args:
        model: any model.
        purpose: what needs it, such as "backfill"; starts the message.

    Raises:
        UsageError: no service can run it, and why.
    """
    if is_served(model):
        return model
    names = ", ".join(name for name, entry in MODELS.items() if issubclass(entry, SERVED))
    raise UsageError(
        f"{purpose} needs a memory per user, and {model.title} cannot be served from one: {model.not_served}",
        expected=f"one of: {names}",
        fix="train such a model, without a mode that rules it out",
    )


def models_table() -> str:
    """The models as a Markdown table: generated into `docs/models.md`."""
    lines = ["| name | model | source | state of a user | served |", "| --- | --- | --- | --- | --- |"]
    for name, entry in _entries():
        served = "yes" if issubclass(entry, SERVED) else f"no: {entry.not_served}"
        lines.append(f"| `{name}` | {entry.title} | {entry.source} | {entry.state} | {served} |")
    return "\n".join(lines) + "\n"


def settings_table(config_class: type[Any]) -> str:
    """The settings of one model as a Markdown table."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for setting in fields(config_class):
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        lines.append(f"| `{setting.name}` | `{json.dumps(default)}` | {setting.metadata['help']} |")
    return "\n".join(lines) + "\n"


VECTORS_PAGE = (
    "Positives and popularity negatives differ only in how the target fits the history, and that reaches the loss "
    "through products of trained vectors. While these are random, a model stays at AUC .50 for a million examples or "
    "more. With `--set train.initial_vectors=cooccurrence` the vectors of item fields begin as factors of which users "
    "had which values in the training events: for each field a truncated singular value decomposition of the matrix "
    "of users and values (`lifelong.data.cooccurrence`). Values that the same users have then have like vectors before "
    "the first step, and [a model leaves the plateau soon](results.md#vectors-that-begin-as-factors). Of each user "
    "only the events up to her last training target are read; numbers without training events keep random vectors, as "
    "do event fields and context.\n",
    "It is a choice of the run, the same for every model whose interest and head read vectors. "
    f"{', '.join(f'`{name}`' for name, entry in MODELS.items() if not getattr(entry, 'vector_spread', 1.0))}, whose "
    "vectors are weights or factors of a sum, begin at random always. Training moves the vectors as it moves any.\n",
)
COUNTS_PAGE = (
    "Where people repeat themselves, a model that counts has an advantage, whatever else it does. So that a comparison "
    "credits the memory and not the counts, every model that has the common head can be given them. With "
    "`--set model.counts=true` the head reads, beside interest, target and context, what the floor `counts` reads: for "
    "every item field how often the target's value stands in the history before the target, in all of it, in the last "
    "5, 20 and 100 events and decayed by half-lives, and how long ago it last stood there. They are logarithms, "
    "standardised by the training examples, of the counts that `gbdt` has, too (`lifelong.data.counts`). Beside them "
    "stands, as `gbdt` and `tally` have it, how often each value of the target is asked about in training.\n",
    "These counts are exact, and of the whole history, whatever window the model itself reads. That is no state of "
    "bounded size: such a model is trained, evaluated and compared, and refused by everything that serves.\n",
    "`NAME_counts` is a model or form with counts, as a row of its own: `lifelong compare DATA --models "
    "tally,hpmn,hpmn_counts,sim_soft_counts`. It takes the settings of `[NAME]`, and those of `[NAME_counts]`.\n",
)
"""What `models_page` says of `model.counts`."""

SIDES_PAGE = (
    "Chosen with `--set model.side=user|item|both`, for models with a memory that is read by the common way into the "
    f"common head: {', '.join(f'`{name}`' for name, entry in MODELS.items() if has_sides(entry))}. `NAME_item` and "
    "`NAME_both` are such a model as a row of its own in a comparison, with the settings of `[NAME]` and then its "
    "own: `lifelong compare DATA --models hpmn,hpmn_item,hpmn_both`.\n",
    "The dataset needs the events by item: `lifelong prepare SOURCE PATH... --set item_histories=true --out DATA`, of "
    "a log with clock times. A target sees the events of its item with an earlier time, of all users and splits, "
    "hers too; those that a delay of `evaluate` hides are hidden here, too. Users without an event in the training "
    "period are unknown, as are a share `train.hide_items` of all users in training.\n",
    "| setting | default | meaning |\n| --- | --- | --- |\n"
    f"| `side` | `{json.dumps(SIDES[0])}` | whose memory is read: the user's, the item's, or both |\n"
    f"| `item_recent` | `{ITEM_RECENT}` | last events of an item that a target sees at most; at least twice the "
    "largest period, at whose multiples windows start |\n",
    "It is served, too, from a store of one database: see [what a service keeps](serving.md#the-side-of-items). Of a "
    "user who is not in training an item's events tell neither number nor profile, in training and evaluation as in a "
    "service.\n",
)
"""What `models_page` says of `model.side`."""


def models_page() -> str:
    """All of `docs/models.md`."""
    bytes_note = "Bytes of a state are those of the `fp32` codec, beside the 24 of a record's header."
    parts = ["# Models\n", models_table(), f"{bytes_note}\n"]
    for name, entry in _entries():
        parts.append(f"## `{name}`\n")
        parts += _described(sys.modules[entry.__module__])
        parts.append(settings_table(entry.Config))
    parts += ["## Heads of several tasks\n"]
    parts += _described(task_heads)
    parts.append(
        f"Chosen with `--set model.head={'|'.join(HEADS)}`, for data that was prepared with several tasks "
        "(`prepare --tasks`, or several logged labels); of every model that has the common head.\n"
    )
    parts += [
        "## Context\n",
        "Every model that is trained by gradient, but for `authors_mode`, reads the context of a request in its head: "
        f"{', '.join(f'`{field}`' for field in USUAL_CONTEXT)}, or the fields that are listed in `model.context` "
        "instead, for all models the same: see [context](context.md). Among them are `item.reviews` and `item.rating`, "
        "how often the target's item was met before and how it was rated, where the data was prepared with "
        "`item_statistics`.\n",
    ]
    parts += ["## Initial vectors\n", *VECTORS_PAGE]
    parts += ["## Exact counts for any model\n", *COUNTS_PAGE]
    parts += ["## The side of items\n", *_described(sides), *SIDES_PAGE]
    return "\n".join(parts)


def _described(module: ModuleType) -> list[str]:
    """The paragraphs of a module's docstring, but for its shapes."""
    paragraphs = (module.__doc__ or "").strip().split("\n\n")
    return [_markdown(paragraph) for paragraph in paragraphs if not paragraph.startswith("Shapes:")]


def _markdown(paragraph: str) -> str:
    """A paragraph of a docstring; an indented one is a drawing or a list that keeps its lines."""
    return f"```text\n{dedent(paragraph)}\n```\n" if paragraph.startswith(" ") else f"{paragraph}\n"


def _entries() -> list[tuple[str, type[Model] | type[FittedModel]]]:
    modes = {name: (f"{name}, {flag} = true", entry) for (name, flag), entry in MODES.items()}
    return [
        pair for name, entry in MODELS.items() for pair in ((name, entry), *([modes[name]] if name in modes else []))
    ]
