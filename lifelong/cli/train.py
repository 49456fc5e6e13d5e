"""`lifelong train`: dataset + model -> artifact."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import DataPath, Settings, Threads
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact


def train(
    terminal: Terminal,
    data: DataPath,
    *,
    model: Annotated[str, typer.Option("--model", help="Name of the model; see `lifelong models`.")],
    out: Annotated[Path, typer.Option("--out", metavar="ARTIFACT", help="Folder of the artifact.")],
    config: Annotated[Path | None, typer.Option("--config", help="Settings in TOML.")] = None,
    changes: Settings = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = None,
) -> Reply:
    """Train a model, select on validation, fit the calibrator, write the artifact."""
    from lifelong.config import load_config
    from lifelong.data.dataset import Dataset
    from lifelong.models import check_config
    from lifelong.training import trainer
    from lifelong.training.trainer import ElsewhereError

    own = {"train.threads": threads, "train.seed": seed}
    overrides = [*changes, *(f"{key}={value}" for key, value in own.items() if value is not None)]
    settings = load_config(config, overrides, check_model=functools.partial(check_config, model))
    try:
        artifact = trainer.train(Dataset(data), model, out, config=settings, resume=resume, progress=True)
    except ElsewhereError:
        # All is well: the first process, on another machine, speaks for all.
        return Reply(None)
    return Reply(_document(artifact), _summary(artifact, data))


def _document(artifact: Artifact) -> dict[str, Any]:
    return {"artifact": str(artifact.path), "id": artifact.id, "metrics": artifact.metrics}


def _summary(artifact: Artifact, data: Path) -> list[Any]:
    return [
        f"Artifact {artifact.id[:12]} is in {artifact.path}",
        f"Next: lifelong evaluate {artifact.path} {data}",
    ]
