"""Expressions of DuckDB over the columns of a log: which rows are kept (`where`), and further columns (`derived`).

    text --DuckDB's own parser--> syntax tree --every node is allowed--> columns that it reads
    rows --one query--> rows that `where` keeps, with the derived columns

Only nodes and functions that are listed here are allowed. None of them reads a file, a setting or another table, and
none depends on the clock or on chance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from lifelong.errors import ConfigError, UsageError
from lifelong.preparation.engine import is_spark

_NODES = {
    "COLUMN_REF",
    "CONSTANT",
    "FUNCTION",
    "COMPARISON",
    "CONJUNCTION",
    "OPERATOR",
    "CASE",
    "CAST",
    "BETWEEN",
    "TYPE",
}
_ALLOWED = """
    + - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape
    abs ceil ceiling exp fdiv floor fmod greatest isfinite isinf isnan least ln log log10 log2 mod pow power round sign
    sqrt trunc
    ascii chr concat concat_ws contains ends_with format lcase left length lower lpad ltrim md5 nullif prefix printf
    regexp_escape regexp_extract regexp_full_match regexp_matches regexp_replace replace reverse right rpad rtrim
    sha256 split split_part starts_with str_split string_split strip_accents strlen strpos substr substring suffix
    translate trim ucase upper url_decode
    array_extract array_length len list_contains list_element list_extract list_value struct_extract
    json_array_length json_exists json_extract json_extract_string json_type json_valid
    date_diff date_part date_trunc datediff datepart datetrunc day dayofweek dayofyear epoch epoch_ms epoch_ns epoch_us
    hour isodow last_day make_date make_timestamp minute month quarter second strftime strptime to_days to_hours
    to_minutes to_seconds to_timestamp try_strptime week year
"""
FUNCTIONS = frozenset(_ALLOWED.split())
"""Functions and operators, as DuckDB's parser names them."""
_CASTS = "values of text files are texts: CAST(price AS DOUBLE); TRY_CAST gives no value where a text is no number"


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a mapping, parsed.

    Args:
        setting: where it is written, such as "where" or "derived.department".
        text: as it is written.
        columns: columns of the log that it reads, in order.
    """

    setting: str
    text: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.setting} = {self.text!r}"


def parse(setting: str, text: str) -> Expression:
    """An expression, once it is sure that it reads nothing but columns of its row.

    Raises:
        ValueError: it is none, or holds something that is not allowed; says what.

    >>> parse("where", "CAST(price AS DOUBLE) > 3 AND lower(shop) <> 'test'").columns
    ('price', 'shop')
    >>> parse("where", "(SELECT true FROM 'secret.csv')")
    Traceback (most recent call last):
    ValueError: a subquery is not allowed: an expression reads the columns of its own row alone
    """
    with duckdb.connect(":memory:") as parser:
        # In brackets, as it is run; the line break closes a comment.
        query = f"SELECT ({text}\n) FROM log"
        found = parser.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    tree = json.loads(found[0]) if found else {}
    if tree.get("error", True):
        raise ValueError(f"cannot be parsed: {tree.get('error_message', 'not an expression')}")
    node = tree["statements"][0]["node"]
    if len(tree["statements"]) != 1 or not _is_plain(node):
        raise ValueError("this is not a single expression, such as CAST(price AS DOUBLE) > 3")
    columns: dict[str, None] = {}
    for part in _nodes(node["select_list"][0]):
        if part["class"] == "COLUMN_REF":
            columns[_column(part)] = None
        else:
            _check(part)
    return Expression(setting, text, tuple(columns))


def _is_plain(node: Mapping[str, Any]) -> bool:
    """Whether a query is `SELECT <one thing> FROM log`, and nothing more."""
    source = node.get("from_table") or {}
    clauses = ("where_clause", "group_expressions", "group_sets", "having", "qualify", "sample", "modifiers")
    return (
        node.get("type") == "SELECT_NODE"
        and len(node.get("select_list", ())) == 1
        and (source.get("type"), source.get("table_name")) == ("BASE_TABLE", "log")
        and not source.get("schema_name")
        and not any(node.get(clause) for clause in clauses)
        and not (node.get("cte_map") or {}).get("map")
    )


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every node of a syntax tree."""
    if isinstance(tree, Mapping):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _column(node: Mapping[str, Any]) -> str:
    names = node["column_names"]
    if len(names) != 1:
        raise ValueError(f"{'.'.join(names)} is not the name of a column; write it in double quotes if it has dots")
    return str(names[0])


def _check(node: Mapping[str, Any]) -> None:
    """Check a node that is not a column."""
    kind = str(node["class"])
    if kind not in _NODES:
        words = "a subquery" if kind == "SUBQUERY" else f"{kind.lower()} ({str(node.get('type')).lower()})"
        raise ValueError(f"{words} is not allowed: an expression reads the columns of its own row alone")
    if kind == "FUNCTION":
        name = str(node["function_name"]).lower()
        if name not in FUNCTIONS or node.get("schema") or node.get("catalog"):
            raise ValueError(f"the function {name} is not one of those that docs/sources.md lists")
        unusual = [part for part in ("filter", "distinct", "order_bys") if _said(node.get(part))]
        if unusual:
            raise ValueError(f"{unusual[0].upper()} in {name} is for aggregates, but an expression reads a single row")


def _said(part: Any) -> bool:
    """Whether a part of a function call is there."""
    return bool(part.get("orders")) if isinstance(part, Mapping) and "orders" in part else bool(part)


def evaluate(
    connection: Any, table: Any, alias: Mapping[str, str], where: Expression | None, derived: Mapping[str, Expression]
) -> tuple[Any, Mapping[str, str]]:
    """The rows that `where` keeps, with the derived columns.

    Args:
        connection: of the engine.
        table: staged rows.
        alias: column of the log -> its name in the table.
        where: true for the rows to keep, None keeps all; a row for which it has no value is dropped.
        derived: name of a new column -> its expression, which is computed for the kept rows alone.

    Returns:
        A table with the columns of `table` and the new ones; and `alias` with these, which win.

    Raises:
        UsageError: the engine is not DuckDB.
        ConfigError: an expression has wrong types, or cannot be computed for a row; names it.
    """
    import ibis

    every = [*([where] if where else []), *derived.values()]
    _check_engine(connection, every)
    plain = {name: f"\x1f{at}" for at, name in enumerate(table.columns)}
    made = {name: f"d{at}" for at, name in enumerate(derived)}
    # The expressions see columns of the log by their names; those of the table have names that no expression has.
    named = [(plain[alias[name]], name) for name in dict.fromkeys(name for each in every for name in each.columns)]
    staged = _select(list(plain.items()), f"({connection.compile(table)})")
    seen = f"(SELECT *{''.join(f', {_quoted(old)} AS {_quoted(new)}' for old, new in named)} FROM ({staged}))"
    kept = f"(SELECT * FROM {seen} WHERE ({where.text}\n))" if where else seen
    computed = "".join(f", ({each.text}\n) AS {_quoted(made[name])}" for name, each in derived.items())
    back = ", ".join(f"{_quoted(other)} AS {_quoted(name)}" for name, other in plain.items())
    for each in every:
        _check_type(connection, each, seen, truth=each is where)
    name = ibis.util.gen_name("lifelong_expressions")
    try:
        connection.raw_sql(f'CREATE TABLE "{name}" AS SELECT {back}{computed} FROM {kept}')
    except duckdb.Error as error:
        for each in every:
            _check_values(connection, each, seen if each is where else kept)
        raise ConfigError(
            [f"{each}: {_first_line(error)}" for each in every],
            fix="correct the expression: it is SQL of DuckDB over the columns of the log",
        ) from error
    return connection.table(name), {**alias, **made}


def _check_engine(connection: Any, every: Sequence[Expression]) -> None:
    if is_spark(connection):
        raise UsageError(
            f"{every[0]} is an expression of DuckDB, and the engine is spark",
            expected="the engine duckdb",
            fix=f"leave out --engine spark, or {every[0].setting}",
        )
    for each in every:
        twice = [name for name, number in Counter(name.lower() for name in each.columns).items() if number > 1]
        if twice:
            raise ConfigError(
                [f"{each}: the columns named {twice[0]} differ in upper and lower case alone"],
                fix="rename one of them in the file",
            )


def _select(columns: Sequence[tuple[str, str]], rows: str) -> str:
    """Columns under other names."""
    return f"SELECT {', '.join(f'{_quoted(old)} AS {_quoted(new)}' for old, new in columns)} FROM {rows}"


def _check_type(connection: Any, expression: Expression, rows: str, *, truth: bool) -> None:
    """Check what an expression gives, before any row is read."""
    try:
        described = connection.con.execute(f"DESCRIBE SELECT ({expression.text}\n) AS found FROM {rows}").fetchone()
    except duckdb.Error as error:
        raise ConfigError([f"{expression}: {_first_line(error)}"], fix=_CASTS) from error
    kind = str(described[1])
    if truth and kind != "BOOLEAN":
        raise ConfigError(
            [f"{expression} gives {kind}, and a filter is true or false"], fix="compare it with something"
        )
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        raise ConfigError([f"{expression} gives {kind}, and a column has one value"], fix="take one of its elements")


def _check_values(connection: Any, expression: Expression, rows: str) -> None:
    """Compute an expression for every row."""
    try:
        connection.con.execute(f"SELECT count(({expression.text}\n)) FROM {rows}").fetchone()
    except duckdb.Error as error:
        raise ConfigError([f"{expression}: {_first_line(error)}"], fix=_CASTS) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
