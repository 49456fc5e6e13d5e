"""`lifelong prepare`: raw log -> prepared dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.options import literal, pairs
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import ConfigError

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset, Manifest
    from lifelong.data.prepare import PrepareSettings

Protocol = Literal["temporal", "paper", "impressions", "given"]
Rule = Literal["popularity", "uniform", "same_category"]
Engine = Literal["duckdb", "spark"]
OtherSettings = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Another setting: cuts, min_count, ratio, seed, threads ..."),
]


def prepare(
    terminal: Terminal,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of the raw format, such as taobao or table.")],
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH...", help="Files or globs.")] = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DATA", help="Folder of the dataset.")],
    mapping: Annotated[Path | None, typer.Option("--mapping", help="Mapping file of the source `table`.")] = None,
    protocol: Annotated[
        Protocol | None, typer.Option("--protocol", help="What is a target, and how it is split.")
    ] = None,
    negatives: Annotated[Rule | None, typer.Option("--negatives", help="How negatives are sampled.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="What to predict side by side: any,cart,buy; or liked=rating>=4,rating."),
    ] = None,
    engine: Annotated[Engine | None, typer.Option("--engine", help="Table engine.")] = None,
    master: Annotated[
        str | None,
        typer.Option(
            "--master", metavar="URL", help="Spark cluster, such as spark://host:7077; or LIFELONG_SPARK_MASTER is set."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="DATA|ARTIFACT", help="Keep the numbers of its values; new ones come behind."),
    ] = None,
    option: Annotated[list[str], typer.Option("--option", metavar="KEY=VALUE", help="Option of the source.")] = [],  # noqa: B006
    changes: OtherSettings = [],  # noqa: B006
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is already there.")] = False,
) -> Reply:
    """Turn a raw log into a prepared dataset: histories, examples, vocabularies."""
    from lifelong.data import prepare as preparing

    named = {
        "protocol": protocol,
        "negatives": negatives,
        "engine": engine,
        "master": master,
        "mapping": mapping,
        "start": start,
        "tasks": tasks,
    }
    given: dict[str, Any] = {key: literal(value) for key, value in pairs(changes, option="--set").items()}
    given |= {key: value for key, value in named.items() if value is not None}
    given |= {"options": pairs(option, option="--option"), "overwrite": overwrite}
    settings = _settings(given)
    dataset = preparing.prepare(source, paths or [], out, settings=settings, progress=terminal.say)
    return Reply(_document(dataset), _summary(dataset))


def _settings(given: Mapping[str, Any]) -> PrepareSettings:
    """Check the settings; all problems at once."""
    from pydantic import ValidationError

    from lifelong.data.prepare import PrepareSettings

    try:
        return PrepareSettings.model_validate(given)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']} (found {detail['input']!r})"
            for detail in error.errors()
        ]
        known = ", ".join(PrepareSettings.model_fields)
        raise ConfigError(problems, fix=f"settings of prepare: {known}") from error


def _document(dataset: Dataset) -> dict[str, Any]:
    return {"dataset": str(dataset.folder), **dataset.manifest.model_dump(mode="json")}


def _summary(dataset: Dataset) -> list[Any]:
    from rich.table import Table

    manifest, table = dataset.manifest, Table("counted", "number")
    for name, number in manifest.counts.items():
        table.add_row(name.replace("_", " "), f"{number:,}")
    # The settings are in the record too, but a person has just written them.
    for name, value in _flat({key: value for key, value in manifest.record.items() if key != "settings"}):
        table.add_row(name, value)
    return [f"{manifest.name}, prepared into {dataset.folder}", table, _next(manifest, dataset.folder)]


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The preparation record as rows."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} / ")
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)))
    return rows


def _next(manifest: Manifest, folder: Path) -> str:
    fields = ", ".join(manifest.dataset_schema.item_fields)
    return (
        f"Protocol {manifest.protocol}, negatives {manifest.negatives.rule}, item fields {fields}. "
        f"Next: lifelong train {folder} --model hpmn --out artifact"
    )
