"""Writes `docs/settings.md` from the settings' own descriptions.

PYTHONPATH=tests python -m support.settings_page > docs/settings.md      writes it anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from lifelong.config import TrainSettings


def describe_settings() -> str:
    """The page."""
    lines = [
        "# Settings of a run",
        "",
        "Read from `--config run.toml`, changed by `--set train.key=value`. Made from `lifelong/config.py`.",
        "The `[model]` section holds the model's own settings: see [the models](models/index.md). Nearly all of them "
        "have `context` there: see [context](context.md).",
        "A model may be trained with other settings than these defaults where nobody names them: its page says which.",
        "",
        "## `[train]`",
        "",
        "| setting | default | allowed | meaning |",
        "| --- | --- | --- | --- |",
    ]
    schema = TrainSettings.model_json_schema()["properties"]
    for name, setting in TrainSettings.model_fields.items():
        default = f"`{json.dumps(setting.default)}`"
        lines.append(f"| `{name}` | {default} | {_allowed(schema[name])} | {setting.description} |")
    return "\n".join(lines) + "\n"


def _allowed(schema: Mapping[str, Any]) -> str:
    """A setting's type and bounds in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_allowed(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    words = {"integer": "whole number", "number": "number", "null": "null", "string": "text", "boolean": "true, false"}
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return " ".join([words[schema["type"]], *bounds])


if __name__ == "__main__":
    sys.stdout.write(describe_settings())
