"""A part of the report page, and its HTML."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lifelong.evaluation.results import Result
from lifelong.reports.drawing import TIP, Figure
from lifelong.reports.tables import Table, calibration_table


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, and its answer in words with the test behind it."""

    question: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Args:
        title: heading.
        paragraphs: plain sentences.
        tables: shown in this order.
        figures: shown after the tables.
        code: commands or output, shown as it is.
        answers: questions and answers, shown after the paragraphs.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)
    code: str = ""
    answers: Sequence[Answer] = ()

    def to_html(self) -> str:
        """A `<section>`; every text is escaped."""
        paragraphs = "".join(f"<p>{safe(paragraph)}</p>" for paragraph in self.paragraphs)
        answers = "".join(f"<h3>{safe(of.question)}</h3><p>{safe(of.text)}</p>" for of in self.answers)
        shown = "".join(table.to_html() for table in self.tables)
        drawn = "".join(_figure_html(figure) for figure in self.figures)
        code = f'<pre tabindex="0">{safe(self.code)}</pre>' if self.code else ""
        return f"<section><h2>{safe(self.title)}</h2>{paragraphs}{answers}{shown}{drawn}{code}</section>"


def calibration_sections(results: Sequence[Result], *, note: str = "") -> list[Section]:
    """Log loss and calibration error before and after the calibrators; nothing where no model has one.

    Args:
        results: one per model.
        note: appended to the explanation.
    """
    table = calibration_table(results)
    what = "A calibrator maps raw scores to probabilities at the share of positives of these examples; ranks stay."
    return [] if table is None else [Section("Calibration", [what + note], [replace(table, folded=True)])]


def write_tables(folder: Path, parts: Sequence[Section]) -> None:
    """Write every table of the parts as Markdown, CSV, LaTeX and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for place, table in enumerate(part.tables):
            stem = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-") or "table"
            stem = f"{stem}-{place + 1}" if len(part.tables) > 1 else stem
            stem = table.name or stem
            (folder / f"{stem}.md").write_text(table.to_markdown())
            (folder / f"{stem}.csv").write_text(table.to_csv())
            (folder / f"{stem}.tex").write_text(table.to_latex())
            (folder / f"{stem}.json").write_text(table.to_json())


def safe(value: str) -> str:
    """A text with its markup characters escaped.

    >>> safe("<b>")
    '&lt;b&gt;'
    """
    return html.escape(value, quote=True)


def _figure_html(figure: Figure) -> str:
    scroll = f'<div class="scroll" tabindex="0" role="group" aria-label="{safe(figure.title)}">'
    return (
        f"<figure>{scroll}{_inline(figure)}</div>"
        f"<figcaption><strong>{safe(figure.title)}.</strong> {safe(figure.caption)}</figcaption></figure>"
    )


def _inline(figure: Figure) -> str:
    """The SVG as part of the page: without prolog and addresses, with ids of its own and a width that fits the page."""
    svg = figure.svg.read_text()
    box = re.search(r'viewBox="([\d.]+ [\d.]+ ([\d.]+) [\d.]+)"', svg)
    assert box is not None, f"{figure.svg} has no viewBox"
    drawn = svg[svg.index(">", box.start()) + 1 :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style>.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'((?: id=")|(?:href="#)|(?:url\(#))', rf"\g<1>{figure.name}-", drawn.replace("xlink:href", "href"))
    # Without a script, a browser shows the title of what the pointer is on; page.js shows that of the nearest mark.
    tips = itertools.count()
    drawn = re.sub(
        rf' id="{re.escape(figure.name)}-{TIP}[^:"]*:([^"]*)">',
        lambda found: f' id="{figure.name}-tip-{next(tips)}"><title>{found[1]}</title>',
        drawn,
    )
    # Points to CSS pixels: a figure never grows beyond its natural width.
    width = round(float(box[2]) * 4 / 3)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{safe(figure.alt)}" style="max-width:{width}px">{drawn}'
