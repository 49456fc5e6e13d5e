"""The outcome of `lifelong tune`: a TOML file that `--config` reads, with the record of the search in `[tuned]`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.atomic import replace_text
from lifelong.config import Record


class Trial(Record):
    """One set of settings that was tried."""

    number: int
    state: str
    """complete, given up (its learning curve was below the median), or failed."""
    auc: float | None
    """Best on validation."""
    examples: int | None
    """Labelled training examples that it saw; None for a model that is fitted at once."""
    seconds: float
    settings: dict[str, Any]
    """`train.x` or `model.x` -> value."""


class Tuned(Record):
    """The outcome of a search."""

    model: str
    auc: float
    """Best on validation."""
    best: int
    """Number of the trial that reached it."""
    seed: int
    examples: int
    """Labelled training examples of a trial at most."""
    dataset: str
    data_hash: str
    command: str | None
    trials: list[Trial]
    config: dict[str, dict[str, Any]]
    """`train` and `model`: the settings to use."""

    def save(self, out: Path) -> None:
        """Write the TOML file."""
        lines = [f"# Settings of {self.model}: the best of {len(self.trials)} trials by AUC on validation."]
        for section in ("train", "model"):
            lines += ["", f"[{section}]", *_pairs(self.config.get(section, {}))]
        record = self.model_dump(mode="json", exclude={"config", "trials"})
        lines += ["", "[tuned]", *_pairs(record)]
        for trial in self.trials:
            of = trial.model_dump(mode="json", exclude={"settings"})
            settings = ", ".join(_pairs({json.dumps(name): value for name, value in trial.settings.items()}))
            lines += ["", "[[tuned.trials]]", *_pairs(of), f"settings = {{ {settings} }}"]
        replace_text(out, "\n".join(lines) + "\n")


def _pairs(table: Mapping[str, Any]) -> list[str]:
    """`key = value` lines; None is left out, as TOML has no null."""
    # Texts, numbers, booleans and lists of them look alike in JSON and TOML.
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if value is not None]
