"""`lifelong models`: what can be trained."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import require


def models(terminal: Terminal) -> Reply:
    """List the models with their papers, what a service keeps of a user, and their settings."""
    require("torch", extra="train", purpose="the list of models")
    from rich.table import Table

    from lifelong.models import MODELS, MODES, SERVED

    entries = {**MODELS, **{f"{name}, {flag} = true": entry for (name, flag), entry in MODES.items()}}
    overview = Table("model", "title", "source", "state of a user", "served")
    settings = Table("model", "setting", "default", "meaning")
    document: dict[str, Any] = {}
    for name, entry in sorted(entries.items(), key=lambda pair: list(MODELS).index(pair[0].partition(",")[0])):
        served = issubclass(entry, SERVED)
        overview.add_row(name, entry.title, entry.source, entry.state, "yes" if served else "no")
        known = _settings(entry.Config)
        for setting in known:
            settings.add_row(name, setting["name"], str(setting["default"]), setting["help"])
        document[name] = {
            "title": entry.title,
            "source": entry.source,
            "state": entry.state,
            "served": served,
            "settings": known,
        }
    return Reply({"models": document}, [overview, settings])


def _settings(config: type[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": setting.name,
            "default": None if setting.default is MISSING else setting.default,
            "help": setting.metadata.get("help", ""),
        }
        for setting in fields(config)
    ]
