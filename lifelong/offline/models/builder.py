"""From a name and settings to a model: settings are checked, all problems are named at once.

name, settings --registry.choose--> class, settings --pydantic--> its Config, SharedSettings --> model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, NamedTuple, TypeGuard, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from lifelong.config import problems_of
from lifelong.dataset.events import InputSpec
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.models.base import FittedModel, HistoryModel, MemoryModel, Model
from lifelong.offline.models.registry import MODEL, MODELS, Chosen, Entry, choose, plain_name
from lifelong.offline.models.settings import setting
from lifelong.offline.nn.head import Head
from lifelong.offline.nn.tasks import HEADS, TaskHead
from lifelong.plugins import named_in_errors


def _known_head(name: str) -> str:
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r} (there are: {', '.join(HEADS)})")
    return name


@dataclass(frozen=True)
class SharedSettings:
    """Checked and documented like a model's own settings; an artifact keeps those that differ from the default."""

    head: Annotated[str, AfterValidator(_known_head)] = setting(
        "shared", f"what tasks share, for data with several: {', '.join(HEADS)}"
    )
    context: tuple[str, ...] | None = setting(None, "context fields that the head reads; null takes the usual ones")
    counts: bool = setting(False, "the head also reads exact counts of the target, of the whole history")

    def unusual(self) -> dict[str, Any]:
        """The settings that are not as usual."""
        usual = asdict(SharedSettings())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def problems(self, entry: type[Model]) -> list[str]:
        """Which of them the model cannot have, in words."""
        if self.counts and not entry.common_head:
            return [f"model.counts: {entry.title} has a head of its own, which is given no counts"]
        return []


def shared_names(entry: type[Any]) -> set[str]:
    """Which of the shared settings a model has; none, if it is not trained by gradient."""
    if not issubclass(entry, Model):
        return set()
    return set(asdict(SharedSettings())) - (set() if entry.reads_context else {"context"})


Settings = TypeVar("Settings")


class _Checked(NamedTuple):
    """The settings of a model, all of them in range."""

    entry: Entry
    own: Any
    shared: SharedSettings


def check_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The complete settings of a model: those given, checked, and defaults for the rest.

    Settings that all models share are left out where they have their default.

    Raises:
        ConfigError: no such model, or settings unknown or out of range; names all of them.
    """
    checked = _checked(choose(name, config))
    return asdict(checked.own) | checked.shared.unusual()


def _checked(chosen: Chosen) -> _Checked:
    entry, given = chosen.entry, chosen.config
    # Before pydantic sees them: unknown and wrong settings are all reported at once.
    own_names, shared = [field.name for field in fields(entry.Config)], shared_names(entry)
    problems = [
        f"model.{key}: {chosen.model} has no such setting (it has: {', '.join(own_names)})"
        for key in given
        if key not in own_names and key not in shared
    ]
    own, wrong = _validated(entry.Config, {key: given[key] for key in own_names if key in given})
    common, wrong_common = _validated(SharedSettings, {key: given[key] for key in shared if key in given})
    problems += wrong + wrong_common
    if common is not None and issubclass(entry, Model):
        problems += common.problems(entry)
    if problems or common is None:
        raise ConfigError(sorted(problems), fix="lifelong models shows every model's settings")
    return _Checked(entry, own, common)


def _validated(kind: type[Settings], given: Mapping[str, Any]) -> tuple[Settings | None, list[str]]:
    """Settings as a dataclass, or None and what is wrong with them."""
    try:
        return TypeAdapter(kind).validate_python(given), []
    except ValidationError as error:
        return None, problems_of(error, "model.")


def build(name: str, inputs: InputSpec, config: Mapping[str, Any]) -> Model | FittedModel:
    """A new model of a registered name.

    Args:
        name: a model or preset, with or without endings.
        inputs: sizes of the dataset's fields.
        config: settings of the model; those left out have their defaults.

    Raises:
        ConfigError: no such model, or settings unknown or out of range; names all of them.
    """
    entry, own, shared = _checked(choose(name, config))
    maker: Any = entry
    if shared.context is not None:
        # Before the model is made: the head's width depends on the context.
        inputs = _choose_context(inputs, shared.context)
    with named_in_errors("models", plain_name(name), "it was made", expected=MODEL):
        model: Model | FittedModel = maker(inputs, own)
        if isinstance(model, Model):
            model = _extended(model, shared, dropout=getattr(own, "dropout", 0.0))
    model.shared_settings = shared.unusual()
    return model


def _extended(model: Model, shared: SharedSettings, *, dropout: float) -> Model:
    """The model with what the shared settings ask for."""
    if shared.counts:
        model.give_counts(dropout=dropout)
    if (head := HEADS[shared.head]) is not None:
        _put_head(model, head, name=shared.head, dropout=dropout)
    return model


def _choose_context(inputs: InputSpec, chosen: Sequence[str]) -> InputSpec:
    """The inputs of a model that reads the chosen context fields.

    Raises:
        ConfigError: the data lacks one, or one is named twice; names all of them.
    """
    there = ", ".join(inputs.context) or "none: this data has no clock times"
    problems = [
        f"model.context: there is no context field {field!r} (there are: {there})"
        for field in chosen
        if field not in inputs.context
    ]
    problems += [f"model.context: {field!r} is listed twice" for field in set(chosen) if chosen.count(field) > 1]
    if problems:
        raise ConfigError(sorted(problems), fix="docs/context.md says what each field is")
    return replace(inputs, chosen=tuple(chosen))


def _put_head(model: Model, head: type[TaskHead], *, name: str, dropout: float) -> None:
    """Give a model a head of several tasks.

    Raises:
        ConfigError: there is one task, or the model's own head is another than the common one.
    """
    tasks = len(model.inputs.tasks)
    if tasks < 2:
        raise ConfigError(
            [f"model.head: {name!r} is for several tasks, and this data has one"],
            fix="leave it out, or prepare with tasks",
        )
    # A subclass is a head of the model's own, too, which this one would take away.
    if type(model.head) is not Head:
        raise ConfigError([f"model.head: {model.title} has a head of its own"], fix="leave it out")
    width = model.head.layers[0].in_features
    assert isinstance(width, int)
    model.head = head(width, tasks, dropout=dropout)


SERVED = (MemoryModel, HistoryModel)
"""Models that a service can run: from a memory, or from the recent history that it keeps."""


def is_served(model: Model | FittedModel) -> TypeGuard[MemoryModel | HistoryModel]:
    """Whether a service can run this model: the settings of one that it could run may rule that out."""
    return isinstance(model, SERVED) and not model.not_served


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
    names = ", ".join(name for name, entry in MODELS.items() if not entry.not_served)
    raise UsageError(
        f"{purpose} needs a memory per user, and {model.title} cannot be served from one: {model.not_served}",
        expected=f"one of: {names}",
        fix="train such a model, without a mode that rules it out",
    )
