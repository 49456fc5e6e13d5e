"""`lifelong models`: what can be trained, and the card of what was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from lifelong.cli.terminal import Reply, Terminal, columns
from lifelong.errors import require

Row = tuple[str, ...]


def models(
    terminal: Terminal,
    card: Annotated[
        Path | None, typer.Option("--card", metavar="ARTIFACT", help="Print the model card of an artifact instead.")
    ] = None,
) -> Reply:
    """List the models: their papers, what a service keeps per user, their settings, and the names of presets."""
    if card is not None:
        from rich.text import Text

        from lifelong.artifact.card import model_card
        from lifelong.artifact.folder import Artifact

        artifact = Artifact.open(card, verify="sizes")
        text = model_card(artifact.config, artifact.metrics)
        return Reply({"artifact": artifact.id, "card": text}, [Text(text)])
    require("torch", extra="train", purpose="the list of models")
    from lifelong.offline.models import ENDINGS, MODELS, PRESETS, SharedSettings

    own = {name: preset.entry for name, preset in PRESETS.items() if preset.home}
    overview, settings, document = list[Row](), list[Row](), dict[str, Any]()
    for name, entry in {**MODELS, **own}.items():
        served = not entry.not_served
        overview.append((name, entry.title, entry.source, entry.state, "yes" if served else "no"))
        document[name] = {
            "title": entry.title,
            "source": entry.source,
            "state": entry.state,
            "served": served,
            "settings": _settings(entry.Config, name, settings),
        }
    presets = {name: {"model": preset.model, "settings": dict(preset.settings)} for name, preset in PRESETS.items()}
    endings = {ending: dict(chosen) for ending, chosen in ENDINGS.items()}
    listing = {
        "models": document,
        "shared_settings": _settings(SharedSettings, "all trained by gradient", settings),
        "presets": presets,
        "endings": endings,
    }
    tables = [
        columns("model", "title", "source", "state of a user", "served", rows=overview),
        columns("model", "setting", "default", "meaning", rows=settings),
        columns("name", "stands for", rows=_names(presets, endings)),
    ]
    return Reply(listing, tables)


def _names(presets: Mapping[str, Any], endings: Mapping[str, Any]) -> Iterator[Row]:
    """What the names of presets and endings stand for."""
    for name, preset in presets.items():
        yield name, f"{preset['model']} with {_assignments(preset['settings'])}"
    for ending, chosen in endings.items():
        yield f"NAME{ending}", f"NAME with {_assignments(chosen)}"


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


def _settings(config: type[Any], model: str, rows: list[Row]) -> list[dict[str, Any]]:
    """The settings of a dataclass, which also become rows of a table."""
    described = [
        {"name": setting.name, "default": setting.default, "help": setting.metadata["help"]}
        for setting in fields(config)
    ]
    rows += [(model, setting["name"], str(setting["default"]), setting["help"]) for setting in described]
    return described
