"""The mapping file of the `table` source: which column is what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from lifelong.config import Record, plain, read_mapping
from lifelong.data.events import USUAL_CONTEXT
from lifelong.data.scales import SCALES
from lifelong.errors import ConfigError
from lifelong.preparation.sources.expressions import Expression, parse
from lifelong.preparation.sources.staging import words

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: words(value) if isinstance(value, str) else value)]
"""Names, also as one text with commas between."""
TimeUnit = Literal["s", "ms", "us", "ns", "iso", "ordinal"]
Kind = TypeVar("Kind", bound=Record)
RESERVED = {"item", "user", "time", "sequence", "event_type", "split", *USUAL_CONTEXT, *SCALES}


def _check_names(names: Iterable[str]) -> None:
    """Refuse names of fields and labels that are taken; the table engine ignores upper and lower case."""
    counted = Counter(name.lower() for name in names)
    reserved = sorted(RESERVED & set(counted))
    if reserved:
        raise ValueError(f"{', '.join(reserved)} cannot name an item field; give another name: {{name = 'column'}}")
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice)} names two fields; give one another name: {{name = 'column'}}")


class _Section(Record):
    fields: dict[str, str] = Field(default_factory=dict)
    """Field -> column; a list of columns names each field after its column."""
    numbers: Names = ()
    """Item fields that hold numbers of at least 0, such as a price."""
    missing: tuple[str, ...] = ("",)
    """Texts that mean "no value" in a field."""
    delimiter: str = Field(default=",", min_length=1)
    header: bool = True
    """Whether the first line names the columns."""
    columns: Names = ()
    """Names of all columns, in order, if there is no header."""
    quoted: bool = True
    """Whether values may be in double quotes."""
    encoding: str = "utf-8"

    @field_validator("fields", mode="before")
    @classmethod
    def _name_after_columns(cls, value: Any) -> Any:
        value = words(value) if isinstance(value, str) else value
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @field_validator("missing", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(text.strip() for text in value.split(",")) if isinstance(value, str) else value

    @field_validator("delimiter", mode="after")
    @classmethod
    def _tab(cls, value: str) -> str:
        return {"\\t": "\t", "tab": "\t"}.get(value, value)

    @field_validator("encoding", mode="after")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError as error:
            raise ValueError(f"there is no encoding {value!r}") from error
        return value.lower()

    @model_validator(mode="after")
    def _consistent(self) -> _Section:
        if not self.header and not self.columns:
            raise ValueError("header = false needs `columns`, the names of all columns in order")
        _check_names(self.fields)
        strange = [name for name in self.numbers if name not in self.fields]
        if strange:
            raise ValueError(f"numbers names {', '.join(strange)}, which is not one of the fields")
        return self


class _Files(_Section):
    files: tuple[str, ...] = Field(min_length=1)
    """Paths or globs, relative to the mapping file."""


class ItemsMapping(_Files):
    """Files with one row per item."""

    item: str
    """Column with the item's id."""


class UsersMapping(_Files):
    """Files with one row per user: fields of their profiles."""

    user: str
    """Column with the user's id."""

    @field_validator("numbers", mode="after")
    @classmethod
    def _none_of_users(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            raise ValueError("a field of a profile is a category; give bands, such as 25-34")
        return value


class TableMapping(_Section):
    """The whole mapping; columns of the log at the top, files of fields under `items` and `users`."""

    item: str = "item"
    """Column with the item's id."""
    user: str = "user"
    """Column with the user's id."""
    time: str = "time"
    """Column with the time."""
    time_unit: TimeUnit = "s"
    """For numbers: s, ms, us, ns since 1970 (UTC), or ordinal; `iso` for texts such as 2017-11-25T18:00:00Z."""
    time_format: str | None = None
    """strptime pattern of a text, such as %d/%m/%Y %H:%M; taken as UTC."""
    event_type: str | None = None
    """Column with the kind of event."""
    target_types: Names | None = None
    """Event types that make a positive target when labels are sampled; default every event."""
    labels: Names = ()
    """Columns with 0/1 labels: every row is an impression."""
    rating: str | None = None
    """Column with a rating, from which `--tasks` makes labels; or label = rating >= threshold."""
    threshold: float | None = None
    history: Literal["all", "positive"] | None = None
    """With labels: which rows are events too. Default: all rated rows, and labelled rows with a label above 0."""
    negatives: Literal["popularity", "uniform", "windowed", "following"] | None = None
    """Rule of negatives when the user names none."""
    name: str = "table"
    """Name of the data, for people."""
    where: str | None = None
    """Expression of DuckDB over the columns of a row: rows for which it is not true are dropped and counted."""
    derived: dict[str, str] = Field(default_factory=dict)
    """Further column -> expression of DuckDB over the columns of the row; it may have any role."""
    skip_invalid: bool = False
    """Count and skip rows without a user, an item, a time or (if named) an event type, and rows with a wrong time."""
    items: ItemsMapping | None = None
    users: UsersMapping | None = None

    @field_validator("where", mode="after")
    @classmethod
    def _one_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse("where", value)
            except ValueError as error:
                raise ValueError(f"{value!r}: {error}") from None
        return value

    @field_validator("derived", mode="after")
    @classmethod
    def _expressions(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            try:
                parse(f"derived.{name}", text)
            except ValueError as error:
                raise ValueError(f"{name} = {text!r}: {error}") from None
        return value

    @property
    def filter(self) -> Expression | None:
        """`where`, parsed."""
        return None if self.where is None else parse("where", self.where)

    @property
    def computed(self) -> dict[str, Expression]:
        """`derived`, parsed."""
        return {name: parse(f"derived.{name}", text) for name, text in self.derived.items()}

    @model_validator(mode="after")
    def _labels_agree(self) -> TableMapping:
        if self.threshold is not None and self.rating is None:
            raise ValueError("threshold is for a rating, and none is named")
        _check_names([*self.fields, *self.labels])
        if self.rating and self.labels:
            raise ValueError("give labels, or a rating, not both")
        if self.history and not (self.rating or self.labels):
            raise ValueError("history says which labelled rows are events; there are no labels")
        if self.history == "positive" and self.rating and self.threshold is None:
            raise ValueError("history = positive needs the threshold from which a rating is positive")
        if self.target_types and not self.event_type:
            raise ValueError("target_types needs event_type")
        if self.items:
            _check_names([*self.fields, *self.items.fields])
        return self


def load_mapping(options: Mapping[str, str]) -> tuple[TableMapping, Path]:
    """Mapping from the file of the option `mapping`; the other options win over its settings.

    Returns:
        The mapping, and the folder that its `items.files` are relative to.

    Raises:
        ConfigError: a setting is unknown, missing or wrong; lists all of them.
        SourceError: the file cannot be read.
    """
    values, folder = dict(options), Path()
    path = values.pop("mapping", None)
    given: dict[str, Any] = {}
    if path is not None:
        given, folder = read_mapping(Path(path)), Path(path).parent
    _nest(values, given)
    try:
        return TableMapping.model_validate({**given, **values}), folder
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'mapping'}: {_words(one)}" for one in error.errors()]
        known = ", ".join(TableMapping.model_fields)
        words = (
            "by --option NAME=VALUE, such as --option user=COLUMN, or in a --mapping file; from Python by their names"
        )
        where = f"in {path}" if path else words
        raise ConfigError(problems, fix=f"give the settings {where}; there are {known}") from None


def _words(problem: Mapping[str, Any]) -> str:
    """What is wrong with a setting."""
    words = {"missing": "is not given", "extra_forbidden": "there is no such setting"}
    return words.get(problem["type"]) or plain(str(problem["msg"]))


def validated(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """A mapping that another format implies.

    Raises:
        ConfigError: a name is taken or a setting contradicts another; lists all of them.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [plain(problem["msg"]) for problem in error.errors()]
        raise ConfigError(problems, fix="choose other columns with --option fields=") from None


def _nest(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Make one table of `derived.NAME` options, on top of those of the file."""
    named = {name.partition(".")[2]: values.pop(name) for name in list(values) if name.startswith("derived.")}
    if named:
        values["derived"] = {**given.get("derived", {}), **values.get("derived", {}), **named}
