"""Writes `docs/settings.md` from the settings' own descriptions.

PYTHONPATH=tests python -m support.settings_page > docs/settings.md      writes it anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from lifelong.config import Record, TrainSettings
from lifelong.online.serving.settings import ServiceConfig

STOPPING = """
## When a run stops

A run validates after each `validate_every`, an epoch's share or a number of examples. It ends

* after `max_epochs`, `max_examples` or `max_minutes`, whichever comes first;
* after `patience` validations in a row without a new best, once it has made `min_steps` steps: before that, long
  histories may still be on the plateau on which training begins;
* at any time after `fall_patience` validations in a row without a new best that have clearly lost what was learnt:
  each has a log loss 1 % above that of the best weights, which is 1 % below that of a constant.

It keeps the weights of the best validation, whatever ended it; `metrics.json` says which that was (`best`), all
validations (`learning_curve`) and the end (`stopped_by`: `examples`, `time` or `patience`). With a learning rate that
falls to zero, validation often rises to the end, and then only the first rule ends the run. `tally` waits for three
validations after a fall (`fall_patience = 3`, unless `patience` is named): once it has learnt a small log by heart,
validation does not rise again.
"""


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
        *_table(TrainSettings),
        STOPPING,
        "## `service.toml`",
        "",
        "Read by `lifelong serve --config service.toml`, changed by `--set key=value`, printed by `lifelong serve "
        "--print-config`. From Python, `create_app` takes `ServiceSettings`: all of them but those from "
        "`allowed_hosts` on. Made from `lifelong/online/serving/settings.py`.",
        "",
        *_table(ServiceConfig),
        "",
    ]
    return "\n".join(lines)


def _table(kind: type[Record]) -> list[str]:
    """One row for each setting."""
    lines = ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    schema = kind.model_json_schema()["properties"]
    for name, setting in kind.model_fields.items():
        default = f"`{json.dumps(setting.default)}`"
        lines.append(f"| `{name}` | {default} | {_allowed(schema[name])} | {setting.description} |")
    return lines


def _allowed(schema: Mapping[str, Any]) -> str:
    """A setting's type and bounds in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_allowed(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    words = {"integer": "whole number", "number": "number", "null": "null", "string": "text", "boolean": "true, false"}
    words |= {"array": "list", "object": "table"}
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
