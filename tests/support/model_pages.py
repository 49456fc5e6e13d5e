"""Writes the pages of `docs/models`: one for each model, one for each thing that any model can have, and an index.

PYTHONPATH=tests python -m support.model_pages docs/models      writes them anew, and removes those that are no more
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from lifelong.data.events import USUAL_CONTEXT
from lifelong.models import ENDINGS, MODELS, PRESETS, SharedSettings, exact_counts
from lifelong.models.registry import Entry
from lifelong.models.shared import shared_names
from lifelong.nn import tasks
from lifelong.nn.tasks import HEADS
from lifelong.tally import spec
from lifelong.training.settings import ENOUGH, EPOCHS, SMALLEST, STEPS, TWICE

SHARED_PAGES = {
    "several-tasks": "Several tasks",
    "exact-counts": "Exact counts for any model",
    "initial-embeddings": "Initial embeddings",
}
"""Page -> title: what any model can have."""


def pages() -> dict[str, str]:
    """File -> text."""
    shared = {
        "several-tasks": _several_tasks(),
        "exact-counts": _exact_counts(),
        "initial-embeddings": _initial_embeddings(),
    }
    return {
        "index.md": _index(),
        **{f"{page}.md": "\n".join([f"# {SHARED_PAGES[page]}\n", *parts]) for page, parts in shared.items()},
        **{f"{name}.md": _page(name, entry) for name, entry in entries()},
    }


def entries() -> Iterator[tuple[str, Entry]]:
    """Every model, each followed by its presets that have a class of their own."""
    for name, entry in MODELS.items():
        yield name, entry
        for preset_name, preset in PRESETS.items():
            if preset.model == name and preset.selects:
                yield preset_name, preset.entry


def models_table() -> str:
    """The models as a table."""
    rows = [
        f"| [`{name}`]({name}.md) | {entry.title} | {entry.source} | {entry.state} | {_served(entry)} |"
        for name, entry in entries()
    ]
    return _table("name", "model", "source", "state of a user", "served", rows=rows)


def settings_table(config: type[Any]) -> str:
    """The settings of a dataclass as a table."""
    rows = [f"| `{one.name}` | `{json.dumps(one.default)}` | {one.metadata['help']} |" for one in fields(config)]
    return _table("setting", "default", "meaning", rows=rows)


def _index() -> str:
    """All models, and what any of them can have."""
    shared = "\n".join(f"* [{title}]({page}.md)" for page, title in SHARED_PAGES.items())
    return "\n".join(
        [
            "# Models\n",
            models_table(),
            "Bytes of a state on the models' pages are those of the `fp32` codec, without the 24 of a record's header. "
            "Which one to take: [by question, data, state and latency](../choosing.md).\n",
            "## Names\n",
            "A preset is a model with some settings chosen; it is trained and compared under its own name. Every name "
            "may be followed by the endings below.\n",
            _names(),
            "## What any model can have\n",
            f"{shared}\n",
            settings_table(SharedSettings),
            "Set them in `[model]`, with the model's own settings. Models that are fitted at once (`popularity`, "
            "`counts`, `gbdt`) have none of them.\n",
            "## Context\n",
            "Every model that is trained by gradient, except `hpmn_authors`, reads the context of a request in its "
            f"head: {_code(USUAL_CONTEXT)}, or the fields that are listed in `model.context` instead; see "
            "[context](../context.md).\n",
            "## A model of your own\n",
            "One file in `lifelong/models`, with a frozen dataclass of its settings and a class that has them as "
            "`Config`, and one line in `lifelong/models/registry.py`. The contract tests (`lifelong.testing`), the "
            "commands, the comparison and these pages pick it up from there.\n",
        ]
    )


def _names() -> str:
    presets = [
        f"| `{name}` | `{preset.model}` with {_assignments(preset.settings)} |" for name, preset in PRESETS.items()
    ]
    endings = [f"| `NAME{ending}` | `NAME` with {_assignments(chosen)} |" for ending, chosen in ENDINGS.items()]
    return _table("name", "what it is", rows=[*presets, *endings])


def _page(name: str, entry: Entry) -> str:
    """The page of one model."""
    facts = [
        f"| source | {entry.source} |",
        f"| state of a user | {entry.state} |",
        f"| can a service run it? | {_served(entry)} |",
    ]
    parts = [
        f"# {entry.title} (`{name}`)\n",
        _table("property", "value", rows=facts),
        *_described(sys.modules[entry.__module__]),
    ]
    parts += ["## Settings\n", settings_table(entry.Config)]
    if shared := [one.name for one in fields(SharedSettings) if one.name in _possible(entry)]:
        parts.append(f"And of those that [any model can have](index.md#what-any-model-can-have): {_code(shared)}.\n")
    if recipe := getattr(entry, "recipe", {}):
        parts.append(f"{_trained(entry, recipe)}\n")
    presets = [
        f"| [`{other}`]({other}.md) | {_assignments(preset.settings)} |"
        if preset.selects
        else f"| `{other}` | {_assignments(preset.settings)} |"
        for other, preset in PRESETS.items()
        if preset.model == name
    ]
    if presets:
        parts += ["## Presets\n", _table("name", "settings", rows=presets)]
    if name == "tally":
        source = Path(spec.__file__).read_text()
        parts += [
            "## The definition\n",
            f"`lifelong/tally/spec.py`, which the compiled form equals bit for bit:\n\n```python\n{source}```\n",
        ]
    return "\n".join(parts)


def _trained(entry: Any, recipe: Mapping[str, Any]) -> str:
    """What it is trained with where nobody names it."""
    text = f"Where nothing else is named, it is trained with these settings of `[train]`: {_assignments(recipe)}"
    epochs = (
        f"; and for two epochs, one if an epoch has more than {TWICE:,} examples, or as many as {ENOUGH:,} examples "
        f"take, {EPOCHS} at most. Where a run would have fewer than {STEPS:,} steps, its batches are smaller, down to "
        f"{SMALLEST} targets"
    )
    return f"{text}{epochs if entry.few_epochs else ''}."


def _possible(entry: Any) -> set[str]:
    """The shared settings that a model can have at another value than the usual one."""
    possible = shared_names(entry)
    if possible and not entry.common_head:
        possible -= {"counts", "head"}
    return possible


def _several_tasks() -> list[str]:
    return [
        *_described(tasks),
        f"Chosen with `--set model.head={'|'.join(HEADS)}`, for data that was prepared with several tasks "
        "(`prepare --tasks`, or several logged labels; see [several tasks](../tasks.md)); of every model that has the "
        "common head.\n",
    ]


def _exact_counts() -> list[str]:
    return [
        *_described(exact_counts),
        "`NAME_counts` is a model or preset with counts, as a row of its own: `lifelong compare DATA --models "
        "tally,hpmn,hpmn_counts,sim_soft_counts`. It takes the settings of `[NAME]`, and those of `[NAME_counts]`.\n",
    ]


def _initial_embeddings() -> list[str]:
    random = _code(name for name, entry in MODELS.items() if not getattr(entry, "vector_spread", 1.0))
    return [
        "Positives and popularity negatives differ only in how the target fits the history, and that reaches the loss "
        "through products of trained embeddings. While these are random, a model stays at AUC .50 for a million "
        'examples or more. So by default (`train.initial_vectors = "cooccurrence"`) the embeddings of item fields are '
        "initialised by factorisation of which users had which values in the training events: for each field a "
        "truncated singular value decomposition of the matrix of users and values (`lifelong.data.cooccurrence`). "
        "Values that the same users have then have similar embeddings before the first step, and "
        "a model leaves the plateau soon. Of each user only the events up to the last training target are read; "
        "numbers without training events keep random embeddings, as "
        "do event fields and context.\n",
        "Every model with an interest and a head that read embeddings starts in this way, so that a comparison with "
        "default settings gives all of them the same; with "
        "`--set train.initial_vectors=random` they start at random. "
        f"{random} always start at random: their embeddings are weights or factors of a sum. Training updates them "
        "like any other.\n",
        "A user's training targets are among these events: a target lies nearer to her history in training than later "
        "on, and a model that trusts this becomes worse the longer it is trained. With `crossfitted` each of four "
        "groups of users is trained with embeddings of the first two item fields that the others' events have "
        "initialised ([decision 26](../decisions/0026-factors-of-other-users.md)). `tally` does so where "
        "nothing else is named. For other models it is worth a try in long runs: what gives targets away also helps a "
        "model to leave the plateau.\n",
    ]


def _served(entry: Entry) -> str:
    return f"no: {entry.not_served}" if entry.not_served else "yes"


def _described(module: ModuleType) -> list[str]:
    """The paragraphs of a module's docstring, but for its shapes."""
    paragraphs = (module.__doc__ or "").strip().split("\n\n")
    return [_markdown(paragraph) for paragraph in paragraphs if not paragraph.startswith("Shapes:")]


def _markdown(paragraph: str) -> str:
    """A paragraph of a docstring; an indented one is a drawing or a list that keeps its lines."""
    return f"```text\n{dedent(paragraph)}\n```\n" if paragraph.startswith(" ") else f"{paragraph}\n"


def _table(*heads: str, rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |", *rows]) + "\n"


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in settings.items())


def _code(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def write(folder: Path) -> None:
    """Write all pages into a folder, and remove other pages from it."""
    folder.mkdir(exist_ok=True)
    wanted = pages()
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
