"""For the pages made from docstrings: an example after `>>>` is shown as code.

`mkdocs.yml` names this file as an extension of griffe, which reads the docstrings. Markdown alone would take `>>>` for
a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1(?! *\n)\S.*|\n\1 .*\S.*)*", flags=re.MULTILINE)


class DoctestFences(griffe.Extension):
    """Puts fences round the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute that was read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """A docstring with its examples in fences."""
    return _EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text)
