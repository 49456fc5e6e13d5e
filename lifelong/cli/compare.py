"""`lifelong compare`: several models, several seeds -> comparison and report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.model_settings import model_configs, without_unmet
from lifelong.cli.options import DataPath, MaxTime, Settings, names
from lifelong.cli.terminal import Reply, Terminal, rich_table
from lifelong.errors import UsageError
from lifelong.plugins import imported

if TYPE_CHECKING:
    from lifelong.config import RunConfig
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.training.study import Outcome, Study

_OPTIONS = {"changes": "set"}
"""Arguments with another name on the command line."""


Models = Annotated[str, typer.Option(metavar="MODEL,...", help="Models, as in hpmn,hpmn_counts,counts; or all.")]
Seeds = Annotated[
    int, typer.Option(min=1, metavar="N", help="Runs per model, with seeds 0, 1, ...; fewer than 3 carry no claim.")
]
Report = Annotated[Path, typer.Option(metavar="REPORT", help="Folder of runs and report.")]
Reference = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Compare others with it; default: tally, else hpmn, else the first.")
]
Configs = Annotated[
    list[Path],
    typer.Option(metavar="FILE", help="TOML: [train], [MODEL] and [MODEL.train]; or what `tune` wrote. Repeatable."),
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Trainings to run in parallel, each in its own process.")]


def compare(
    terminal: Terminal,
    data: DataPath,
    *,
    models: Models = "all",
    seeds: Seeds = 3,
    out: Report,
    reference: Reference = None,
    config: Configs = [],  # noqa: B006
    changes: Settings = [],  # noqa: B006
    max_time: MaxTime = "3h",  # type: ignore[assignment]
    jobs: Jobs = 1,
) -> Reply:
    """Train and score several models on the same examples; continues where an earlier call stopped."""
    command = command_line("compare", locals())
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.reports.verdict import subject
    from lifelong.offline.training.study import Study

    if not max_time:
        raise UsageError("--max-time 0s", expected="more than 0s", fix="give a limit such as 2h, or leave it out")
    dataset = Dataset(data)
    configs, notes = _configs(dataset, models, config, changes)
    study = Study(
        configs=configs,
        seeds=range(seeds),
        reference=reference or subject(configs),
        max_minutes=max_time / 60,
        workers=jobs,
        notes=notes,
    )
    return _run(terminal, dataset, study, out, command)


def _configs(
    dataset: Dataset, models: str, config: Sequence[Path], changes: Sequence[str]
) -> tuple[dict[str, RunConfig], list[str]]:
    """The settings of each model, and a sentence on each of `all` that the dataset cannot train."""
    from lifelong.offline.models import all_names

    if models != "all":
        return model_configs(names(models), config, changes), []
    return without_unmet(dataset, model_configs(all_names(), config, changes))


def _run(terminal: Terminal, dataset: Dataset, study: Study, out: Path, command: str) -> Reply:
    """Run what is missing of a study, and write its report."""
    from lifelong.cli.serving_cost import serving_of
    from lifelong.offline.reports.comparison import check_drawing, write_comparison
    from lifelong.offline.reports.verdict import subject
    from lifelong.offline.training.study import plan, run_study

    plan(study, out)
    # Before hours of training, which would end without a page.
    check_drawing()
    for note in study.notes:
        terminal.say(note)
    outcome = run_study(dataset, out, study, measure=serving_of, command=command, progress=terminal.say)
    lifelong = subject(study.configs)
    page = write_comparison(out, outcome.comparison, lifelong=lifelong, dataset=dataset, runs=out / "runs")
    return outcome_reply(outcome, page)


def command_line(command: str, arguments: Mapping[str, Any], *, places: Sequence[str] = ("data",)) -> str:
    """A command that can be typed again: options without a value are left out.

    Args:
        command: its name.
        arguments: of the function behind it, by name.
        places: names of those that are no options, in their order.

    >>> command_line("tune", {"data": "data", "trials": 3, "changes": ["train.seed=1"], "config": None})
    'lifelong tune data --trials 3 --set train.seed=1'
    """
    from lifelong.offline.evaluation.results import format_duration

    values = [arguments[name] for name in places]
    modules = [word for name in imported() for word in ("--import", name)]
    words = ["lifelong", *modules, command, *(str(word) for value in values for word in _listed(value))]
    for name, value in arguments.items():
        option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
        if name in ("terminal", *places) or value is None or value is False:
            continue
        if value is True:
            words.append(option)
        else:
            for entry in _listed(value):
                words += [option, format_duration(int(entry)) if isinstance(entry, float) else str(entry)]
    return shlex.join(words)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def outcome_reply(outcome: Outcome, page: Path) -> Reply:
    """What a comparison found, for machines and for people."""
    from lifelong.offline.reports.comparison_tables import comparison_table

    comparison = outcome.comparison
    document = {**comparison.model_dump(mode="json"), "report": str(page), "failures": dict(outcome.failures)}
    limited = [model for model, cost in comparison.costs.items() if cost.hit_limit]
    lines: list[Any] = [*rich_table(comparison_table(comparison)), *comparison.gauge, *comparison.notes]
    if limited:
        lines.append(f"A limit ended the training of these while validation still rose: {', '.join(limited)}")
    return Reply(document, [*lines, f"Report: {page}"], exit_code=1 if outcome.failures else 0)
