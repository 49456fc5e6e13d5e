"""`lifelong compare`: several models, several seeds -> comparison and report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.model_settings import model_configs, without_unmet
from lifelong.cli.options import DataPath, Settings, Threads, Track, names
from lifelong.cli.terminal import Reply, Terminal, rich_table
from lifelong.errors import UsageError
from lifelong.plugins import imported

if TYPE_CHECKING:
    from lifelong.offline.training.study import Outcome

_SWEEP = "20,50,100,300,1000,all"
_OPTIONS = {"changes": "set"}
"""Arguments with another name on the command line."""


def compare(
    terminal: Terminal,
    data: DataPath,
    *,
    models: Annotated[str, typer.Option(help="Models, as in hpmn,hpmn_counts,counts; or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Runs per model, with seeds 0, 1, ...")] = 1,
    out: Annotated[Path, typer.Option(metavar="REPORT", help="Folder of runs and report.")],
    reference: Annotated[
        str | None, typer.Option(help="Model to compare against (default: tally, else hpmn, else the first).")
    ] = None,
    config: Annotated[
        list[Path],
        typer.Option(help="Settings in TOML: [train], [MODEL] and [MODEL.train]; or what `tune` wrote. Repeatable."),
    ] = [],  # noqa: B006
    changes: Settings = [],  # noqa: B006
    max_hours: Annotated[float, typer.Option(help="Time limit of one training.")] = 3.0,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Also train every model on exactly this many labelled examples.")
    ] = None,
    only_equal: Annotated[bool, typer.Option("--only-equal", help="Run only the fixed-budget trainings.")] = False,
    sweep: Annotated[
        str, typer.Option(help="Numbers of most recent events given to each model; none skips the sweep.")
    ] = _SWEEP,
    sweep_examples: Annotated[int, typer.Option(min=1, help="Maximum number of test examples in the sweep.")] = 20_000,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings to run in parallel, each in its own process.")] = 1,
    threads: Threads = None,
    track: Track = [],  # noqa: B006
) -> Reply:
    """Train and score several models on the same examples; continues where an earlier call stopped."""
    command = command_line("compare", locals())
    from lifelong.cli.serving_cost import serving_of
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.models import all_names
    from lifelong.offline.reports.comparison import check_drawing, write_comparison
    from lifelong.offline.reports.verdict import subject
    from lifelong.offline.training.study import Study, plan, run_study
    from lifelong.offline.training.sweep import parse_steps
    from lifelong.offline.training.trackers import checked_callbacks

    if max_hours <= 0:
        raise UsageError(
            f"--max-hours {max_hours:g}",
            expected="a number above 0",
            fix="give a limit such as --max-hours 2, or leave it out",
        )
    every = all_names() if models == "all" else names(models)
    configs = model_configs(every, config, changes, threads)
    dataset, notes = Dataset(data), list[str]()
    if models == "all":
        configs, notes = without_unmet(dataset, configs)
    study = Study(
        configs=configs,
        seeds=range(seeds),
        reference=reference or subject(configs),
        max_minutes=60 * max_hours,
        examples=examples,
        only_equal=only_equal,
        sweep=() if sweep == "none" else parse_steps(sweep),
        sweep_examples=sweep_examples,
        workers=jobs,
        threads=threads,
        notes=notes,
        callbacks=checked_callbacks(track),
    )
    plan(study, out)
    check_drawing()
    for note in notes:
        terminal.say(note)
    outcome = run_study(dataset, out, study, measure=serving_of, command=command, progress=terminal.say)
    comparison = outcome.comparison
    page = write_comparison(out, comparison, lifelong=subject(configs), dataset=dataset, runs=out / "runs")
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
    given = [arguments[name] for name in places]
    modules = [word for name in imported() for word in ("--import", name)]
    words = ["lifelong", *modules, command, *(str(word) for value in given for word in _listed(value))]
    for name, value in arguments.items():
        option = f"--{_OPTIONS.get(name, name).replace('_', '-')}"
        if name in ("terminal", *places) or value is None or value is False:
            continue
        if value is True:
            words.append(option)
        else:
            for part in _listed(value):
                words += [option, f"{part:g}" if isinstance(part, float) else str(part)]
    return shlex.join(words)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def outcome_reply(outcome: Outcome, page: Path) -> Reply:
    """What a comparison found, for machines and for people."""
    from lifelong.offline.reports.comparison_tables import comparison_table

    comparison = outcome.comparison
    document = {**comparison.model_dump(mode="json"), "report": str(page), "failures": dict(outcome.failures)}
    limited = [model for model, cost in comparison.costs.items() if cost.hit_limit]
    lines: list[Any] = [*rich_table(comparison_table(comparison)), *comparison.notes]
    if limited:
        lines.append(f"A limit ended the training of these while validation still rose: {', '.join(limited)}")
    return Reply(document, [*lines, f"Report: {page}"], exit_code=1 if outcome.failures else 0)
