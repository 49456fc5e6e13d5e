"""`lifelong paper`: the HPMN paper by one command, from raw files to a report.

    PATH... --prepare, as the paper splits--> REPORT/data --compare, with the authors' settings--> REPORT/index.html

A thin command: it chooses what `prepare` and `compare` are asked for, and adds to the report what the paper says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lifelong.cli.compare import Seeds, command_line, outcome_reply
from lifelong.cli.model_settings import model_configs
from lifelong.cli.options import Settings, names, source_options
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import MismatchError

if TYPE_CHECKING:
    from lifelong.config import RunConfig
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.training.study import Study

FLAGSHIP = "hpmn"
"""The model of the paper: the reference, and the one that the page is about."""
Log = Literal["amazon", "taobao", "xlong"]
MODELS = "dnn,svdpp,gru4rec,caser,dien,rum_item,lstm,shan,hpmn,hpmn_authors"
_MINUTES = 180.0
"""Limit of one training; `--set train.max_minutes=5` sets a shorter one."""


def paper(
    terminal: Terminal,
    log: Annotated[Log, typer.Argument(metavar="amazon|taobao|xlong", help="Data set of the paper.")],
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of the data set.")],
    *,
    out: Annotated[Path, typer.Option(metavar="REPORT", help="Folder of dataset, runs and report.")],
    models: Annotated[
        str, typer.Option(metavar="MODEL,...", help="By default the paper's nine, and HPMN as its authors released it.")
    ] = MODELS,
    seeds: Seeds = 3,
    config: Annotated[
        list[Path], typer.Option(metavar="FILE", help="TOML that overrides the authors' settings. Repeatable.")
    ] = [],  # noqa: B006
    changes: Settings = [],  # noqa: B006
) -> Reply:
    """Repeat the HPMN paper on its data: its protocol, its models, its figures; continues where it stopped."""
    command = command_line("paper", locals(), places=("log", "paths"))
    from lifelong.offline.reports.comparison import check_drawing
    from lifelong.offline.reports.paper import verdict
    from lifelong.offline.training.study import Study, plan

    changes, options = source_options(changes)
    configs = authors_configs(log, names(models), config, changes)
    study = Study(
        configs=configs,
        seeds=range(seeds),
        reference=FLAGSHIP if FLAGSHIP in configs else None,
        max_minutes=_MINUTES,
    )
    plan(study, out)
    check_drawing()
    dataset = prepared(terminal, log, paths, out, options)
    said = verdict(log, dataset)
    terminal.say(said)
    reply = _repeated(terminal, log, study, dataset, out, command)
    document = {**(reply.document or {}), "log": log, "verdict": said}
    return Reply(document, [*reply.summary, said], reply.exit_code)


def _repeated(terminal: Terminal, log: Log, study: Study, dataset: Dataset, out: Path, command: str) -> Reply:
    """Run what is missing, and write the report with what the paper says."""
    from lifelong.offline.reports.comparison import write_comparison
    from lifelong.offline.reports.paper import LOGS, paper_sections
    from lifelong.offline.training.study import run_study

    outcome = run_study(dataset, out, study, command=command, progress=terminal.say)
    page = write_comparison(
        out,
        outcome.comparison,
        lifelong=FLAGSHIP,
        dataset=dataset,
        runs=out / "runs",
        title=f"The HPMN paper on {LOGS[log].title}",
        opening=paper_sections(log, outcome.comparison, dataset, study.configs),
    )
    return outcome_reply(outcome, page)


def authors_configs(
    log: str, models: Sequence[str], config: Sequence[Path], changes: Sequence[str]
) -> dict[str, RunConfig]:
    """The settings of each model: the authors' for this data set, then those of files, then those of changes.

    Raises:
        UsageError, ConfigError: see `lifelong.cli.model_settings.model_configs`.
    """
    with as_file(files("lifelong.cli").joinpath("hpmn_paper", f"{log}.toml")) as authors:
        return model_configs(models, [authors, *config], changes)


def prepared(terminal: Terminal, log: str, paths: Sequence[str], out: Path, options: Mapping[str, str]) -> Dataset:
    """The dataset of an earlier call with the same files and options, or a new one.

    Args:
        terminal: says what is done.
        log: name of the source.
        paths: files or globs.
        out: the dataset's folder is `out / "data"`.
        options: of the source.

    Raises:
        MismatchError: the folder holds the dataset of other files or options.
    """
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.preparation.prepare import PrepareSettings, expand, prepare

    chosen = {"brand": "drop", **options} if log == "amazon" else dict(options)
    size_of = {str(path): path.stat().st_size for path in expand(paths) if path.exists()}
    claim, task = out / "paper.json", {"log": log, "files": size_of, "options": chosen}
    if (out / "data" / "dataset.json").exists() and claim.exists():
        if json.loads(claim.read_text()) != task:
            raise MismatchError(
                f"{out} holds a report on other files, or on these as they were",
                expected=claim.read_text().strip(),
                fix="choose another --out, or delete that folder",
            )
        return Dataset(out / "data")
    settings = PrepareSettings(
        protocol="given" if log == "xlong" else "paper",
        ties="hidden" if log == "xlong" else "seen",
        options=chosen,
        overwrite=True,
    )
    dataset = prepare(log, list(paths), out / "data", settings=settings, progress=terminal.say)
    # Last: a `prepare` that was interrupted leaves no claim on what it did not finish.
    claim.write_text(json.dumps(task) + "\n")
    return dataset
