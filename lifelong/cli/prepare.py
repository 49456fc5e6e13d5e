"""`lifelong prepare`: raw log -> prepared dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.options import Column, literal, pairs, source_options
from lifelong.cli.terminal import Reply, Terminal, columns
from lifelong.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from lifelong.dataset.folder import Dataset, Manifest
    from lifelong.offline.preparation.prepare import PrepareSettings

Protocol = Literal["temporal", "paper", "impressions", "given"]
Rule = Literal["popularity", "uniform", "windowed", "following"]
OtherSettings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another setting: cuts, min_count, ratio, seed ...; or one of the source, as in options.brand=drop.",
    ),
]


def prepare(
    terminal: Terminal,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of the raw format, such as taobao or table.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Files, or a pattern: 'log-*.csv'.")
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(metavar="DATA", help="Folder of the dataset.")] = None,
    show_mapping: Annotated[
        bool, typer.Option("--show-mapping", help="Print the mapping file of the source, to copy and change.")
    ] = False,
    mapping: Annotated[Path | None, typer.Option(metavar="FILE", help="Which column of a `table` is what.")] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="What the targets are, and how they are split.")] = None,
    negatives: Annotated[Rule | None, typer.Option(help="How negatives are sampled.")] = None,
    vault: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Hold out the last share, such as 0.05, for evaluate --split vault."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Take one of N parts of the users; items and counts are those of all."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="TASK,...", help="What to predict, as in any,cart,buy or liked=rating>=4.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA|ARTIFACT",
            help="Reuse this dataset's or artifact's numbering of ids; append new ids.",
        ),
    ] = None,
    column: Column = [],  # noqa: B006
    changes: OtherSettings = [],  # noqa: B006
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing dataset.")] = False,
) -> Reply:
    """Turn a raw log into a prepared dataset: histories, examples, vocabularies."""
    from lifelong.offline.preparation import prepare as preparing

    if show_mapping:
        text = _mapping_of(source)
        return Reply({"mapping": text}, [text.rstrip()])
    if out is None:
        fix = "name a new folder for the dataset: --out data"
        raise UsageError("--out is not given", expected="--out DATA", fix=fix)
    named: dict[str, Any] = {"protocol": protocol, "negatives": negatives, "vault": vault, "part": part}
    named |= {"tasks": tasks, "mapping": mapping, "start": start}
    changes, options = source_options(changes)
    chosen: dict[str, Any] = {key: literal(value) for key, value in pairs(changes, option="--set").items()}
    chosen |= {key: value for key, value in named.items() if value is not None}
    chosen |= {"options": pairs(column, option="--column") | options, "overwrite": overwrite}
    settings = _settings(chosen)
    dataset = preparing.prepare(source, paths or [], out, settings=settings, progress=terminal.say)
    return Reply(_document(dataset), _summary(dataset))


def _mapping_of(source: str) -> str:
    """The mapping file of a source.

    Raises:
        UsageError: there is none.
    """
    from lifelong.offline.preparation.sources import MAPPINGS, is_mapped

    if not is_mapped(source):
        raise UsageError(
            f"the source {source!r} has no mapping file",
            expected=f"one of {', '.join(sorted(each.stem for each in MAPPINGS.glob('*.toml')))}",
            fix="for a log of your own, docs/sources.md shows how to write one",
        )
    return (MAPPINGS / f"{source}.toml").read_text(encoding="utf-8")


def _settings(given: Mapping[str, Any]) -> PrepareSettings:
    """Check the settings; all problems at once."""
    from pydantic import ValidationError

    from lifelong.config import problems_of
    from lifelong.offline.preparation.prepare import PrepareSettings

    try:
        return PrepareSettings.model_validate(given)
    except ValidationError as error:
        names = ", ".join(PrepareSettings.model_fields)
        raise ConfigError(problems_of(error), fix=f"settings of prepare: {names}") from error


def _document(dataset: Dataset) -> dict[str, Any]:
    return {"dataset": str(dataset.folder), **dataset.manifest.model_dump(mode="json")}


def _summary(dataset: Dataset) -> list[Any]:
    manifest = dataset.manifest
    rows = [(name.replace("_", " "), f"{manifest.counts[name]:,}") for name in _MAIN]
    if (aside := manifest.vault) is not None:
        rows += [("vault examples", f"{aside.examples:,}"), ("vault positives", f"{aside.positives:,}")]
    # What a user allowed to be skipped is never left out.
    rows += _flat({"skipped": manifest.record.get("read", {}).get("skipped", {})})
    table = columns("counted", "number", rows=rows)
    return [f"{manifest.name}, prepared into {dataset.folder}", table, *dataset.notes, *_next(manifest, dataset.folder)]


_MAIN = ("events", "users", "items", "train_examples", "test_examples")
"""What a user looks at first; `--json` prints the rest."""


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A part of the preparation record as rows."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} / ")
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)))
    return rows


def _next(manifest: Manifest, folder: Path) -> list[str]:
    fields, test = ", ".join(manifest.dataset_schema.item_fields), manifest.record["splits"]["test"]
    share = test["examples_without_number"] / max(test["examples"], 1)
    return [
        f"{share:.0%} of test examples have an item without a number of its own".replace("%", " %"),
        f"Protocol {manifest.protocol}, negatives {manifest.negatives.rule}, item fields {fields}",
        f"Next: lifelong train {quote(str(folder))} --model tally --out artifact",
    ]
