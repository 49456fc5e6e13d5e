"""Writes the pages of `docs/models`: an index, one for HPMN and one for Tally, and three that models share.

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

from lifelong.offline.models import ENDINGS, MODELS, PRESETS, SharedSettings
from lifelong.offline.models.builder import shared_names
from lifelong.offline.models.registry import Entry
from lifelong.offline.training.settings import ENOUGH, EPOCHS, SMALLEST, STEPS, TWICE
from lifelong.tally import spec

WRITTEN = Path(__file__).parent / "pages"
"""Pages with a text of their own, in which settings and quotes are filled in."""
SHARED = {
    "baselines": (
        "Baselines",
        "Simple and classical models that a comparison should include.",
        (
            *("popularity", "topfreq", "upcf", "tifu_knn", "recanet", "counts", "gbdt", "lr", "fm", "mf", "fpmc"),
            *("fpmc_users", "dnn", "svdpp", "gru4rec", "lstm"),
        ),
    ),
    "memories": (
        "Memory per user",
        "Models with a state of fixed size, besides [Tally](tally.md) and [HPMN](hpmn.md).",
        ("hpmn_dynamic", "hpmn_authors", "mingru", "gated_delta", "mimn", "rum_item", "rum_feature", "sdim"),
    ),
    "recent": (
        "Recent history",
        "Models that read a user's last events.",
        ("din", "dien", "sim", "ubr4ctr", "eta", "twin", "hstu", "shan", "attrec", "memn2n", "caser"),
    ),
}
"""Page -> its title, its first sentence, and its models."""
_MORE = "`lifelong models` lists their settings, docstrings in `lifelong/zoo` the differences from the papers."
PAGE_OF = {name: page for page, (_, _, names) in SHARED.items() for name in names}
USUAL = ("embedding", "dropout")
"""Settings that nearly every model has, and that the index explains."""
NUMBERS = {"TWICE": TWICE, "ENOUGH": ENOUGH, "EPOCHS": EPOCHS, "STEPS": STEPS, "SMALLEST": SMALLEST}


def pages() -> dict[str, str]:
    """File -> text."""
    return {
        "index.md": _index(),
        **{f"{page}.md": _shared(*texts) for page, texts in SHARED.items()},
        **{f"{name}.md": _own(name, entry) for name, entry in entries() if name not in PAGE_OF},
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
    return f"{PAGE_OF[name]}.md#{name}" if name in PAGE_OF else f"{name}.md"


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
    return _filled(template, texts)


def _names() -> str:
    presets = [
        f"| `{name}` | `{preset.model}` with {_assignments(preset.settings)} |" for name, preset in PRESETS.items()
    ]
    endings = [f"| `NAME{ending}` | `NAME` with {_assignments(chosen)} |" for ending, chosen in ENDINGS.items()]
    return _table("name", "what it is", rows=[*presets, *endings])


def _shared(title: str, intro: str, names: tuple[str, ...]) -> str:
    """A page of several models."""
    parts = [f"# {title}\n", f"{intro} {_MORE}\n"]
    for name, entry in entries():
        if name in names:
            parts += [f"## {entry.title} (`{name}`) {{ #{name} }}\n", *_described(entry)]
    return "\n".join(parts)


def _own(name: str, entry: Entry) -> str:
    """The page of a model with a written text."""
    written = (WRITTEN / f"{name}.md").read_text()
    return _filled(written, {"settings": _settings(entry), "trained": _trained(entry)})


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
    return "no" if entry.not_served else "yes"


def _described(entry: Entry) -> list[str]:
    """Of a module's docstring: the first paragraph, drawings and inputs; and who wrote the paper."""
    module: ModuleType = sys.modules[entry.__module__]
    first, *more = (module.__doc__ or "").strip().split("\n\n")
    cited = [f"{entry.source[0].upper()}{entry.source[1:]}."] if entry.source != "baseline" else []
    kept = [part for part in more if part.startswith((" ", "Inputs of"))]
    return [_markdown(part) for part in dict.fromkeys([first, *cited, *kept])]


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
