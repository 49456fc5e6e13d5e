"""`lifelong tune`: look for a model's best settings on validation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.compare import command_line
from lifelong.cli.options import DataPath, Settings, Threads
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.training.tuned import Tuned


def tune(
    terminal: Terminal,
    data: DataPath,
    *,
    model: Annotated[str, typer.Option("--model", help="Name of the model; see `lifelong models`.")],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Settings to try, earlier calls included.")] = 20,
    out: Annotated[
        Path, typer.Option("--out", metavar="TUNED.toml", help="Settings that --config of train and compare reads.")
    ],
    examples: Annotated[
        int, typer.Option("--examples", min=2, help="Labelled training examples of one trial at most.")
    ] = 1_000_000,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in TOML; these are not searched.")] = None,
    changes: Settings = [],  # noqa: B006
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn.")] = 0,
    threads: Threads = None,
) -> Reply:
    """Try settings of a model and keep the best on validation; goes on where an earlier call stopped."""
    command = command_line("tune", locals())
    from lifelong.config import load_config, named_settings
    from lifelong.data.dataset import Dataset
    from lifelong.models import check_config
    from lifelong.training.tuning import Search
    from lifelong.training.tuning import tune as search

    own = [] if threads is None else [f"train.threads={threads}"]
    settings = load_config(config, [*changes, *own], check_model=functools.partial(check_config, model))
    wanted = Search(
        model=model,
        trials=trials,
        examples=examples,
        seed=seed,
        fixed=named_settings(config, changes),
        command=command,
    )
    tuned = search(Dataset(data), wanted, out, config=settings, progress=terminal.say)
    document = {**tuned.model_dump(mode="json"), "out": str(out)}
    return Reply(document, _summary(tuned, data, out))


def _summary(tuned: Tuned, data: Path, out: Path) -> list[Any]:
    from rich.table import Table

    table = Table("setting", "value", "as it came")
    first = tuned.trials[0].settings
    for name, value in tuned.trials[tuned.best].settings.items():
        table.add_row(name, str(value), str(first.get(name)))
    given_up = sum(trial.state == "given up" for trial in tuned.trials)
    return [
        f"Validation AUC {tuned.auc:.4f} in trial {tuned.best + 1} of {len(tuned.trials)} ({given_up} given up early)",
        table,
        f"Next: lifelong train {data} --model {tuned.model} --config {out} --out ARTIFACT",
    ]
