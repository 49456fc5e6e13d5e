"""Writes the pages of `docs/models`: an index, one page for the baselines, one for each other model.

PYTHONPATH=tests python -m support.model_pages docs/models      writes them anew, and removes those that are no more
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import reduce
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from lifelong.dataset.events import USUAL_CONTEXT
from lifelong.offline.models import ENDINGS, MODELS, PRESETS, SharedSettings
from lifelong.offline.models.registry import Entry
from lifelong.offline.models.shared import shared_names
from lifelong.offline.nn.tasks import HEADS
from lifelong.offline.training.settings import ENOUGH, EPOCHS, SMALLEST, STEPS, TWICE
from lifelong.tally import spec

WRITTEN = Path(__file__).parent / "pages"
"""Pages with a text of their own, in which settings and quotes are filled in."""
BASELINES = (
    *("popularity", "topfreq", "upcf", "tifu_knn", "recanet", "counts", "gbdt", "lr", "fm", "mf", "fpmc", "fpmc_users"),
    *("dnn", "svdpp", "gru4rec", "lstm"),
)
"""Models that share a page."""
USUAL = ("embedding", "dropout")
"""Settings that nearly every model has, and that the index explains."""
KEPT = ("Differs", "Adapted", "Implemented: pointwise", "Inputs of", "* hard")
"""How paragraphs of a docstring begin that a page shows, besides its drawings and its first two."""
NUMBERS = {"TWICE": TWICE, "ENOUGH": ENOUGH, "EPOCHS": EPOCHS, "STEPS": STEPS, "SMALLEST": SMALLEST}


def pages() -> dict[str, str]:
    """File -> text."""
    return {
        "index.md": _index(),
        "baselines.md": _baselines(),
        **{f"{name}.md": _page(name, entry) for name, entry in entries() if name not in BASELINES},
    }


def entries() -> Iterator[tuple[str, Entry]]:
    """Every model, each followed by its presets that have a class of their own."""
    for name, entry in MODELS.items():
        yield name, entry
        for preset_name, preset in PRESETS.items():
            if preset.model == name and preset.home:
                yield preset_name, preset.entry


def models_table() -> str:
    """The models as a table."""
    rows = [
        f"| [`{name}`]({address(name)}) | {entry.title} | {entry.state} | {_served(entry)} |"
        for name, entry in entries()
    ]
    return _table("name", "model", "state of a user", "served", rows=rows)


def address(name: str) -> str:
    """Where a model is described."""
    return f"baselines.md#{name}" if name in BASELINES else f"{name}.md"


def settings_table(config: type[Any]) -> str:
    """The settings of a dataclass as a table."""
    shown = [one for one in fields(config) if one.name not in USUAL]
    rows = [f"| `{one.name}` | `{json.dumps(one.default)}` | {one.metadata['help']} |" for one in shown]
    return _table("setting", "default", "meaning", rows=rows)


def _index() -> str:
    """All models, and what any of them can have."""
    random = _code(name for name, entry in MODELS.items() if not getattr(entry, "vector_spread", 1.0))
    template = (WRITTEN / "index.md").read_text()
    settings = settings_table(SharedSettings)
    texts = {"models": models_table(), "names": _names(), "settings": settings, "random": random}
    return _filled(template, {**texts, "heads": "|".join(HEADS), "context": _code(USUAL_CONTEXT)})


def _names() -> str:
    presets = [
        f"| `{name}` | `{preset.model}` with {_assignments(preset.settings)} |" for name, preset in PRESETS.items()
    ]
    endings = [f"| `NAME{ending}` | `NAME` with {_assignments(chosen)} |" for ending, chosen in ENDINGS.items()]
    return _table("name", "what it is", rows=[*presets, *endings])


def _baselines() -> str:
    """The page of simple and classical models."""
    intro = (
        "Simple and classical models that a comparison should include. `lifelong models --json` explains each setting."
    )
    parts = ["# Baselines\n", f"{intro}\n"]
    for name, entry in entries():
        if name in BASELINES:
            parts += [f"## {entry.title} (`{name}`) {{ #{name} }}\n", *_described(entry, short=True)]
            own = [one for one in fields(entry.Config) if one.name not in USUAL]
            listed = "; ".join(f"`{one.name}` ({json.dumps(one.default)})" for one in own)
            parts += [f"Settings: {listed}.\n"] if listed else []
    return "\n".join(parts)


def _page(name: str, entry: Entry) -> str:
    """The page of one model."""
    if (written := WRITTEN / f"{name}.md").exists():
        return _filled(written.read_text(), {"settings": _settings(entry), "trained": _trained(entry)})
    served = "" if not entry.not_served else f" It cannot be served: {entry.not_served}."
    parts = [f"# {entry.title} (`{name}`)\n", *_described(entry)]
    parts += [f"State of a user: {entry.state}.{served}\n", "## Settings\n", _settings(entry)]
    presets = [(other, preset) for other, preset in PRESETS.items() if preset.model == name]
    listed = [
        f"[`{other}`]({address(other)})" if preset.home else f"`{other}` with {_assignments(preset.settings)}"
        for other, preset in presets
    ]
    parts += [f"Presets: {', '.join(listed)}.\n"] if listed else []
    path = f"lifelong/{Path(inspect.getfile(sys.modules[entry.__module__])).parent.name}/{_file(entry)}"
    return "\n".join([*parts, f"More, and the code: `{path}`.\n"])


def _file(entry: Entry) -> str:
    return Path(inspect.getfile(sys.modules[entry.__module__])).name


def _settings(entry: Entry) -> str:
    shared = [one.name for one in fields(SharedSettings) if one.name in _possible(entry)]
    usual = [one.name for one in fields(entry.Config) if one.name in USUAL]
    also = [f"the [usual ones](index.md#settings): {_code([*usual, *shared])}"] if usual or shared else []
    return "\n".join([settings_table(entry.Config), *(f"And {one}.\n" for one in also)])


def _trained(entry: Any) -> str:
    """What it is trained with unless something else is named."""
    return f"Unless you name others, it is trained with these settings of `[train]`: {_assignments(entry.recipe)}."


def _filled(template: str, texts: Mapping[str, str]) -> str:
    """A page with its `<<names>>` replaced: by these texts, by numbers of the code, or by quotes of Tally's law."""
    values = {**texts, **{name: f"{number:,}" for name, number in NUMBERS.items()}}
    text = re.sub(r"<<spec ([\w.]+)>>", lambda found: _quoted(found[1]), template)
    return re.sub(r"<<(\w+)>>", lambda found: values[found[1]].rstrip("\n"), text)


def _quoted(name: str) -> str:
    """A function of `lifelong.tally.spec` as it stands there."""
    return f"```python\n{dedent(inspect.getsource(reduce(getattr, name.split('.'), spec)))}```"


def _possible(entry: Any) -> set[str]:
    """The shared settings that a model can have at another value than the usual one."""
    possible = shared_names(entry)
    if possible and not entry.common_head:
        possible -= {"counts", "head"}
    return possible


def _served(entry: Entry) -> str:
    return f"no: {entry.not_served}" if entry.not_served else "yes"


def _described(entry: Entry, *, short: bool = False) -> list[str]:
    """Of the paragraphs of a module's docstring: the first ones, drawings, what differs from the paper, the state."""
    module: ModuleType = sys.modules[entry.__module__]
    first, *more = (module.__doc__ or "").strip().split("\n\n")
    kept = [part for part in more if part.startswith((" ", KEPT[3]) if short else (" ", *KEPT))]
    cited = ([f"{entry.source}."] if entry.source != "baseline" else []) if short else more[:1]
    # A list that follows is not shown, so neither is the sentence that announces it.
    return [_markdown(re.sub(r"\s*[^.]*:$", "", part)) for part in dict.fromkeys([first, *cited, *kept])]


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
