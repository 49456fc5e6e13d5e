"""`lifelong compare`: several models, several seeds -> comparison and report."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import DataPath, Settings, Threads, names
from lifelong.cli.rendering import rich_table
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.config import RunConfig
    from lifelong.data.dataset import Dataset


def compare(
    terminal: Terminal,
    data: DataPath,
    *,
    models: Annotated[str, typer.Option("--models", help="Names, as in hpmn,counts; or all.")] = "all",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each model, with seeds 0, 1, ...")] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="REPORT", help="Folder of runs and report.")],
    reference: Annotated[str | None, typer.Option("--reference", help="Whom the others are compared with.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings in TOML: [train], and [MODEL] each.")
    ] = None,
    changes: Settings = [],  # noqa: B006
    threads: Threads = None,
) -> Reply:
    """Train and score several models on the same examples; goes on where an earlier call stopped."""
    from lifelong.data.dataset import Dataset
    from lifelong.evaluation.runs import Plan, run_all
    from lifelong.models import MODELS
    from lifelong.reports.page import write_report
    from lifelong.reports.tables import comparison_table

    chosen = list(MODELS) if models == "all" else names(models)
    dataset, settings = Dataset(data), _configs(chosen, config, changes, threads)
    plan = Plan(
        models=chosen,
        seeds=range(seeds),
        reference=reference,
        settings={name: of.model_dump(mode="json") for name, of in settings.items()},
    )
    comparison = run_all(dataset, out, plan, train=_trainer(dataset, settings), progress=terminal.say)
    page = write_report(out, comparison.results, comparison=comparison)
    document = {**comparison.model_dump(mode="json"), "report": str(page)}
    return Reply(document, [*rich_table(comparison_table(comparison)), f"Report: {page}"])


def _configs(
    models: Sequence[str], path: Path | None, changes: Sequence[str], threads: int | None
) -> dict[str, RunConfig]:
    """The settings of each model: `--set train.x=..` for all, `--set hpmn.x=..` for one.

    Raises:
        UsageError: there is no such model.
        ConfigError: names every problem.
    """
    from lifelong.config import load_config
    from lifelong.models import MODELS, check_config

    unknown = [name for name in models if name not in MODELS]
    if unknown:
        raise UsageError(f"there is no model {unknown[0]!r}", expected=", ".join(MODELS), fix="lifelong models")
    own = [] if threads is None else [f"train.threads={threads}"]
    everything = [*_file_changes(path, {"train", *models}), *changes, *own]
    problems = [f"{change!r} is of no compared model" for change in everything if not _known(change, models)]
    configs = {}
    for name in models:
        mine = [_mine(change, name) for change in everything if change.partition(".")[0] in ("train", name)]
        try:
            configs[name] = load_config(None, mine, check_model=functools.partial(check_config, name))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems, fix="docs/settings.md lists [train], `lifelong models` the settings of each model")
    return configs


def _file_changes(path: Path | None, sections: set[str]) -> list[str]:
    """A settings file as changes: `[train]` and one section per model.

    Raises:
        UsageError: the file cannot be read, or has another section.
    """
    if path is None:
        return []
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}", expected="TOML") from error
    wrong = [name for name, table in tables.items() if name not in sections or not isinstance(table, dict)]
    if wrong:
        raise UsageError(f"{path} has [{wrong[0]}]", expected=", ".join(sorted(sections)), fix="name the model")
    return [f"{name}.{key}={json.dumps(value)}" for name, table in tables.items() for key, value in table.items()]


def _known(change: str, models: Sequence[str]) -> bool:
    return change.partition(".")[0] in ("train", *models)


def _mine(change: str, name: str) -> str:
    """The change as one model's `load_config` takes it."""
    return f"model{change.removeprefix(name)}" if change.startswith(f"{name}.") else change


def _trainer(dataset: Dataset, settings: Mapping[str, RunConfig]) -> Any:
    from lifelong.training import trainer

    def train(model: str, seed: int, folder: Path) -> Artifact:
        config = settings[model]
        config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
        # An interrupted run leaves its checkpoint beside the artifact's place.
        resume = folder.with_name(f"{folder.name}.checkpoint").exists()
        return trainer.train(dataset, model, folder, config=config, resume=resume)

    return train
