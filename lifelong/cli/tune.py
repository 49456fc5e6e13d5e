"""`lifelong tune`: search for the settings of a model that are best on validation."""

from __future__ import annotations

import functools
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.compare import command_line
from lifelong.cli.options import DataPath, Settings
from lifelong.cli.terminal import Reply, Terminal, columns

if TYPE_CHECKING:
    from lifelong.offline.training.tuned import Tuned


def tune(
    terminal: Terminal,
    data: DataPath,
    *,
    model: Annotated[str, typer.Option(metavar="MODEL", help="Name of the model; see `lifelong models`.")],
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Trials in all, with those of earlier calls.")] = 20,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Best settings, for --config of train and compare.")],
    max_examples: Annotated[
        int, typer.Option(min=2, metavar="N", help="Largest number of labelled examples per trial.")
    ] = 1_000_000,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML that are not searched.")] = None,
    changes: Settings = [],  # noqa: B006
) -> Reply:
    """Search for a model's best settings on validation; continues where an earlier call stopped."""
    command = command_line("tune", locals())
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.models import check_config
    from lifelong.offline.training.tuning import Search
    from lifelong.offline.training.tuning import tune as search

    settings = load_config(config, changes, check_model=functools.partial(check_config, model))
    task = Search(
        model=model,
        trials=trials,
        examples=max_examples,
        fixed=settings.named,
        command=command,
    )
    tuned = search(Dataset(data), task, out, config=settings, progress=terminal.say)
    document = {**tuned.model_dump(mode="json"), "out": str(out)}
    return Reply(document, _summary(tuned, data, out))


def _summary(tuned: Tuned, data: Path, out: Path) -> list[Any]:
    first, best = tuned.trials[0].settings, tuned.trials[tuned.best].settings
    rows = [[name, str(value), str(first.get(name))] for name, value in best.items()]
    given_up = sum(trial.state == "given up" for trial in tuned.trials)
    return [
        f"Validation AUC {tuned.auc:.4f} in trial {tuned.best + 1} of {len(tuned.trials)} ({given_up} given up early)",
        columns("setting", "value", "default", rows=rows),
        f"Next: lifelong train {quote(str(data))} --model {tuned.model} --config {quote(str(out))} --out ARTIFACT",
    ]
