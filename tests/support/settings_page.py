"""Writes `docs/settings.md` from the settings' own descriptions.

PYTHONPATH=tests python -m support.settings_page > docs/settings.md      writes it anew
"""

from __future__ import annotations

import json
import sys

from lifelong.config import Record, TrainSettings
from lifelong.online.serving.settings import ServiceConfig

STOPPING = """
## When a run stops

After `max_epochs`, `max_examples` or `max_minutes`, or when validation no longer improves (`patience`, after
`min_steps`) or has clearly become worse (`fall_patience`). It keeps the weights of the best validation; `metrics.json`
has all validations (`learning_curve`) and what ended the run (`stopped_by`).
"""


def describe_settings() -> str:
    """The page."""
    lines = [
        "# Settings of a run",
        "",
        "Read from `--config run.toml`, changed by `--set train.key=value`. `[model]` holds the settings of "
        "[the model](models/index.md), whose page also says which of these defaults it changes.",
        "",
        "## `[train]`",
        "",
        *_table(TrainSettings),
        STOPPING,
        "## `service.toml`",
        "",
        "Read by `lifelong serve --config service.toml`, changed by `--set key=value`. In Python, `create_app` takes "
        "`ServiceSettings`: those up to `allowed_hosts`.",
        "",
        *_table(ServiceConfig),
        "",
    ]
    return "\n".join(lines)


def _table(kind: type[Record]) -> list[str]:
    """One row for each setting."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, setting in kind.model_fields.items():
        # A duration is written with its unit, as in the example.
        default = setting.examples[0] if setting.examples and setting.default is not None else setting.default
        lines.append(f"| `{name}` | `{json.dumps(default)}` | {setting.description} |")
    return lines


if __name__ == "__main__":
    sys.stdout.write(describe_settings())
