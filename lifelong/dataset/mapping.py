"""The mapping file of a log: which of its files is what, which column is what, and a query that gives the rows.

The public logs that need no code are such files, in `lifelong/offline/preparation/mappings`. An artifact keeps the
mapping with which its dataset was prepared, so that new events are read by it, too.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from lifelong.config import Record, plain, read_mapping, suggestion
from lifelong.dataset.events import USUAL_CONTEXT
from lifelong.dataset.scales import SCALES
from lifelong.errors import ConfigError, UsageError


def words(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list.

    >>> words("buy, cart")
    ('buy', 'cart')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


if TYPE_CHECKING:
    from _csv import Reader as CsvReader

TITLE = "title of the item"
"""No field is called so, while one may be called `title`."""
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: words(value) if isinstance(value, str) else value)]
"""Names, also as one text with commas between."""
TimeUnit = Literal["s", "ms", "us", "ns", "iso", "ordinal"]
_UNIT = "\x1f"
"""Stands for a delimiter of several characters, which the csv reader does not take; no text holds it."""
JSON = "json"
"""The only column of a file of JSON lines for a query: the object of the line, as text."""
LOG = "log"
"""The table of the rows of the log."""
_ROLES = ("user", "item", "time", "event_type")
RESERVED = {"item", "user", "time", "sequence", "row", "event_type", "split", *USUAL_CONTEXT, *SCALES}


def _check_names(names: Iterable[str]) -> None:
    """Refuse names of fields and labels that are taken; the table engine ignores upper and lower case."""
    counted = Counter(name.lower() for name in names)
    reserved = sorted(RESERVED & set(counted))
    if reserved:
        raise ValueError(f"{', '.join(reserved)} cannot name an item field; give another name: {{name = 'column'}}")
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice)} names two fields; give one another name: {{name = 'column'}}")


class Text(Record):
    """How the rows of text files are written."""

    delimiter: str = ","
    header: bool = True
    """Whether the first line names the columns."""
    columns: Names = ()
    """Names of all columns, in order, if there is no header."""
    quoted: bool = True
    """Whether values may be in double quotes."""
    encoding: str = "utf-8"

    @field_validator("delimiter", mode="after")
    @classmethod
    def _tab(cls, value: str) -> str:
        # A shell passes \t as two characters.
        value = {"\\t": "\t", "tab": "\t"}.get(value, value)
        if not value or set(value) & set('"\r\n'):
            raise ValueError(f'{value!r} cannot separate values; give a character such as ";"')
        return value

    @field_validator("encoding", mode="after")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError as error:
            raise ValueError(f"there is no encoding {value!r}") from error
        return value.lower()

    @model_validator(mode="after")
    def _columns_named(self) -> Self:
        if not self.header and not self.columns:
            raise ValueError("header = false needs `columns`, the names of all columns in order")
        return self

    def opened(self, stream: Any) -> io.TextIOWrapper:
        """The text of a binary stream that can peek."""
        # Spreadsheets leave a mark of UTF-8 at the beginning, also before other encodings.
        if stream.peek(3)[:3] == codecs.BOM_UTF8:
            stream.read(3)
        return io.TextIOWrapper(stream, encoding=self.encoding, newline="")

    def rows(self, lines: Iterable[str]) -> CsvReader:
        """The values of lines."""
        return rows_of(lines, self.delimiter, quoted=self.quoted)


def rows_of(lines: Iterable[str], delimiter: str, *, quoted: bool) -> CsvReader:
    """The values of lines.

    >>> list(rows_of(["a::b c"], "::", quoted=True))
    [['a', 'b c']]
    """
    # The csv reader splits by one character alone: a longer delimiter becomes one that no text holds.
    one = delimiter if len(delimiter) == 1 else _UNIT
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    replaced = (line.replace(delimiter, one) for line in lines) if one != delimiter else lines
    return csv.reader(replaced, strict=quoted, delimiter=one, quoting=quoting)


class NamedTable(Text):
    """Some of the files that are named on the command line: those with a column, or with a name."""

    column: str | None = None
    """A column that only these files have."""
    file: str | None = None
    """Their names, as a pattern such as `*.inter`; where they are not told apart by a column."""

    @model_validator(mode="after")
    def _recognised(self) -> NamedTable:
        if (self.column is None) == (self.file is None):
            raise ValueError("give either the column that only these files have, or a pattern of their names as `file`")
        return self


class _Section(Text):
    query: str | None = None
    """SELECT of DuckDB over the tables of the log that gives these rows."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Field -> column; a list of columns names each field after its column."""
    numbers: Names = ()
    """Item fields that hold numbers of at least 0, such as a price."""
    title: str | None = None
    """Column with the item's name for people, which no model reads."""
    missing: tuple[str, ...] = ("",)
    """Texts that mean "no value" in a field."""

    @field_validator("fields", mode="before")
    @classmethod
    def _name_after_columns(cls, value: Any) -> Any:
        value = words(value) if isinstance(value, str) else value
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @field_validator("missing", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(text.strip() for text in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_names(self.fields)
        strange = [name for name in self.numbers if name not in self.fields]
        if strange:
            raise ValueError(f"numbers names {', '.join(strange)}, which is not one of the fields")
        return self

    @property
    def columns_read(self) -> dict[str, str]:
        """Field -> column, with the title as one more."""
        return self.fields | ({TITLE: self.title} if self.title else {})


class _Files(_Section):
    files: tuple[str, ...] = ()
    """Paths or globs, relative to the mapping file."""
    table: str | None = None
    """One of the `tables`; without files of it there are no such fields."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if sum(map(bool, (self.files, self.table, self.query))) != 1:
            raise ValueError("say where the rows are: `files`, one of the `tables` as `table`, or a `query`")
        return self


class ItemsMapping(_Files):
    """Files with one row per item."""

    item: str
    """Column with the item's id."""


class UsersMapping(_Files):
    """Files with one row per user: fields of their profiles."""

    user: str
    """Column with the user's id."""

    @field_validator("numbers", "title", mode="after")
    @classmethod
    def _none_of_users(cls, value: Any) -> Any:
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
    """Column with a rating, from which `--tasks` makes labels."""
    event_id: str | None = None
    """Column with an id of the event, which `prepare` does not read: `ingest` applies an event with it once."""
    split: str | None = None
    """With labels: column with train, validation or test, where the split is given."""
    history: Literal["all", "positive", "unlabelled"] | None = None
    """With labels: which rows are events; `unlabelled`: those without a label, and no others. Default: positive, those
    with a label above 0."""
    negatives: Literal["popularity", "uniform", "windowed", "following"] | None = None
    """Rule of negatives when the user names none."""
    name: str = "table"
    """Name of the data, for people."""
    tables: dict[str, NamedTable] = Field(default_factory=dict)
    """Name in queries -> which of the files it is; a text is the column that only these files have. The rows of the log
    are `log`, unless `query` says otherwise."""
    skip_invalid: bool = False
    """Count and skip rows without a user, an item, a time or (if named) an event type, and rows with a wrong time."""
    items: tuple[ItemsMapping, ...] = ()
    users: UsersMapping | None = None

    @field_validator("items", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("tables", mode="before")
    @classmethod
    def _by_column(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"column": each} if isinstance(each, str) else each for name, each in value.items()}

    @model_validator(mode="after")
    def _labels_agree(self) -> TableMapping:
        _check_names([*self.fields, *self.labels])
        if self.rating and self.labels:
            raise ValueError("give labels, or a rating, not both")
        if self.history and not self.labels:
            raise ValueError("history says which labelled rows are events; there are no labels")
        if self.target_types and not self.event_type:
            raise ValueError("target_types needs event_type")
        if self.split and not self.labels:
            raise ValueError("split is for labelled rows, and there are no labels")
        _check_names([*self.columns_read, *(name for section in self.items for name in section.columns_read)])
        self._check_tables()
        return self

    @property
    def asks(self) -> bool:
        """Whether there is a query."""
        return self.query is not None or any(section.query for section in self.sections)

    def _check_tables(self) -> None:
        # Once a query may run, the engine opens no files any more.
        if self.asks and any(section.files for section in self.sections):
            raise ValueError(
                "`files` of items and users are for mappings without a query; with a query, name them as tables"
            )
        if self.tables and not self.query and "log" not in self.tables:
            raise ValueError("no table is named log, and there is no query that gives the rows of the log")
        unknown = [each.table for each in self.sections if each.table and each.table not in self.tables]
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of the tables ({', '.join(self.tables) or 'there are none'})")

    @property
    def of_log(self) -> Text:
        """How the files of the log are written."""
        return self.tables.get(LOG, self)

    @property
    def sections(self) -> tuple[ItemsMapping | UsersMapping, ...]:
        """Those of items and of users."""
        return (*self.items, *([self.users] if self.users else []))


def load_mapping(options: Mapping[str, Any]) -> tuple[TableMapping, Path]:
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
    words = "by --column NAME=VALUE, such as --column user=COLUMN, or in a --mapping file; from Python by their names"
    return _checked({**given, **values}, f"in {path}" if path else words), folder


def mapping_from(given: Path | str | Mapping[str, Any]) -> TableMapping:
    """The mapping of a file, or of its settings.

    Raises:
        ConfigError: a setting is unknown or wrong; lists all of them.
        SourceError: the file cannot be read.
    """
    return load_mapping(given if isinstance(given, Mapping) else {"mapping": given})[0]


def mapping_of_events(base: TableMapping | None, columns: Mapping[str, Any], fields: Sequence[str]) -> TableMapping:
    """The mapping by which events are read.

    Args:
        base: a mapping, such as that of the dataset; None for the names that columns have by themselves.
        columns: what wins over it: our name, or a setting -> the file's name, or its value.
        fields: item fields of the artifact, which are named as columns are.

    Raises:
        UsageError: there is no such column or setting.
        ConfigError: a setting is wrong.

    >>> mapping_of_events(None, {"user": "customer", "brand": "maker"}, ["brand"]).fields
    {'brand': 'maker'}
    """
    settings = {} if base is None else base.model_dump(exclude_defaults=True)
    if "time_unit" in columns:
        # A unit that is named for these events rules out the format of the log's own times.
        settings.pop("time_format", None)
    settings["fields"] = dict(settings.get("fields", {}))
    for name, value in columns.items():
        if name in fields:
            settings["fields"][name] = value
        elif name in TableMapping.model_fields:
            settings[name] = value
        else:
            mappable = (*_ROLES, *fields)
            raise UsageError(
                f"there is no column {name!r} to map{suggestion(name, [*mappable, *TableMapping.model_fields])}",
                expected=f"one of: {', '.join(mappable)}; or a setting of a mapping, such as time_unit",
                fix="check the names of columns that are given, or those in the mapping file",
            )
    return _checked(settings, "by --column NAME=VALUE, or in a --mapping file")


def _checked(values: Mapping[str, Any], where: str) -> TableMapping:
    """The mapping of some settings, which are given `where`."""
    try:
        return TableMapping.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc'])) or 'mapping'}: {_words(detail)}" for detail in error.errors()]
        fix = f"give the settings {where}"
        if any(detail["type"] == "extra_forbidden" for detail in error.errors()):
            fix += f"; there are {', '.join(TableMapping.model_fields)}"
        elif isinstance(values.get("columns"), Mapping):
            fix = 'name columns at the top, without [columns], as in user = "customer"'
        elif any(detail["loc"] == ("time_unit",) for detail in error.errors()):
            fix = 'for texts such as 2017-11-25T18:00:00Z "iso"; for other texts a time_format such as "%d/%m/%Y"'
        raise ConfigError(problems, fix=fix) from None


def _words(problem: Mapping[str, Any]) -> str:
    """What is wrong with a setting."""
    words = {"missing": "is not given", "extra_forbidden": "there is no such setting"}
    found = f" (found {problem['input']!r})" if isinstance(problem["input"], str) else ""
    return words.get(problem["type"]) or plain(str(problem["msg"])) + found
