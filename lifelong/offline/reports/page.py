"""The report: one self-contained HTML page from `page.html`, with its tables and figures as files next to it.

OUT/index.html      no outside address, one script whose hash is in its policy; light and dark; readable on a phone
OUT/results.json    the result records
OUT/figures/        every figure as SVG and PNG
OUT/tables/         every table as Markdown, CSV and LaTeX
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from lifelong.offline.evaluation.compare import DifferenceEstimate
from lifelong.offline.evaluation.results import Estimate, Result, format_duration
from lifelong.offline.reports.drawing import Figure, css_variables
from lifelong.offline.reports.tables import Cell, Quantity, Table, first_seeds, shown, text

_WIDE = 8
"""Number of columns from which a LaTeX table is scaled to the width of the text."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Args:
        title: heading.
        paragraphs: plain sentences.
        tables: shown in this order.
        figures: shown after the tables.
        code: commands or output, shown as it is.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    code: str = ""


def write_page(
    out: Path, results: Sequence[Result], parts: Sequence[Section], *, title: str, verdict: Sequence[str] = ()
) -> Path:
    """Write given parts, their tables, and the records of the results.

    Args:
        out: folder.
        results: all that the page reports.
        parts: in their order; a part on the conditions follows.
        title: of the page.
        verdict: sentences right after the title: what a reader should do.

    Returns:
        The path of `index.html`.
    """
    first = first_seeds(results)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for part in parts:
        for place, table in enumerate(part.tables, 1):
            # Titles may hold anything, names of files should not.
            stem = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-") or "table"
            write_table(table, out / "tables" / (table.name or (f"{stem}-{place}" if len(part.tables) > 1 else stem)))
    records = [result.model_dump(mode="json") for result in results]
    (out / "results.json").write_text(json.dumps(records, indent=2) + "\n")
    here = resources.files("lifelong.offline.reports")
    style, script = (here.joinpath(name).read_text() for name in ("page.css", "page.js"))
    page = Environment(
        loader=PackageLoader("lifelong.offline", "reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page.filters |= {"shown": shown, "inline": _inline, "parts": _parts}
    made = page.get_template("page.html").render(
        title=title,
        verdict=verdict,
        facts=_facts(first[0]),
        parts=[*parts, _conditions(first)],
        settings={of.title: json.dumps(of.config, indent=2, default=str) for of in first if of.config},
        style=Markup(css_variables(":root") + style),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = out / "index.html"
    path.write_text(made + "\n", encoding="utf-8")
    return path


def write_table(table: Table, stem: Path) -> None:
    """Write a table as Markdown, CSV and LaTeX.

    CSV has full numbers: an estimate has the columns `name`, `name low`, `name high`, and a difference two of p.
    """
    cells = pd.DataFrame(list(table.rows), columns=list(table.columns), dtype=object)
    texts, right = cells.map(text), len(table.columns) - 1
    # A bar would end the cell in Markdown.
    marked = texts.replace({r"\|": r"\\|"}, regex=True)
    markdown = marked.to_markdown(index=False, disable_numparse=True, colalign=("left", *["right"] * right))
    stem.with_suffix(".md").write_text(
        "\n".join(filter(None, [markdown, table.caption and f"\n{table.caption}"])) + "\n"
    )
    # Where one cell of a column is an estimate, each of its cells has the columns of one.
    heads = [max(map(_parts, column), key=len, default={"": None}) for column in zip(*table.rows, strict=True)]
    columns = [name + end for name, head in zip(table.columns, heads, strict=False) for end in head]
    rows = [
        [_parts(cell).get(end) for cell, head in zip(row, heads, strict=True) for end in head] for row in table.rows
    ]
    pd.DataFrame(rows, columns=columns, dtype=object).to_csv(stem.with_suffix(".csv"), index=False)
    caption = re.sub(r"([&%$#_{}])", r"\\\1", table.caption)
    latex = texts.to_latex(index=False, escape=True, caption=caption or None, column_format="l" + "r" * right)
    if len(table.columns) >= _WIDE:
        latex = latex.replace(r"\begin{tabular}", "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}")
        latex = latex.replace(r"\end{tabular}", "\\end{tabular}}")
    for sign, written in {"−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}"}.items():
        latex = latex.replace(sign, written)
    stem.with_suffix(".tex").write_text(latex)


def _parts(cell: Cell) -> dict[str, str | int | float | None]:
    """The numbers of a cell, by the end of their column's name."""
    if isinstance(cell, Quantity):
        return {"": cell.value}
    if not isinstance(cell, Estimate | DifferenceEstimate):
        return {"": cell}
    p = {" p": cell.p_value, " p all": cell.family_p} if isinstance(cell, DifferenceEstimate) else {}
    return {"": cell.value, " low": cell.low, " high": cell.high, **p}


def _facts(result: Result) -> dict[str, Any]:
    counts, rule = result.counts, result.negatives
    return {
        "Dataset": result.dataset,
        "Protocol": result.protocol,
        "Split": result.split,
        "Targets": f"{counts.examples:,} of {counts.users:,} users, {counts.positives:,} positive",
        "Negatives": rule.rule if rule.rule == "none" else f"{rule.rule}, {rule.ratio} per positive",
        "Numbers are": {"score": "scores: negatives were sampled", "probability": "probabilities"}[result.kind],
        **({"Newest events hidden": format_duration(result.delay)} if result.delay else {}),
    }


def _conditions(results: Sequence[Result]) -> Section:
    first = results[0]
    rows = [
        [
            result.title,
            result.artifact_id,
            Quantity(result.seconds, f"{result.seconds:.1f} s"),
            Quantity(result.peak_memory, f"{result.peak_memory / 2**30:.2f} GiB"),
        ]
        for result in results
    ]
    made_by = {
        "data hash": first.data_hash,
        "resamples of the users": f"{first.resamples:,}, seed {first.seed}",
        "seed of negatives": str(first.negatives.seed),
        **first.versions,
    }
    tables = [
        Table(["model", "artifact", "scoring took", "peak memory"], rows, name="scoring"),
        Table(["what", "which"], list(made_by.items()), name="conditions", words=True),
    ]
    return Section("Conditions", tables=tables)


def _inline(figure: Figure) -> Markup:
    """The SVG as part of the page: without prolog and addresses, with ids of its own and a width that fits the page."""
    svg, name = figure.path.read_text(), figure.path.stem
    box = re.search(r'viewBox="([\d.]+ [\d.]+ ([\d.]+) [\d.]+)"', svg)
    assert box is not None, f"{figure.path} has no viewBox"
    drawn = svg[svg.index(">", box.start()) + 1 :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style>.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    # Ids of several figures on one page must differ: a reference would find the first figure's.
    drawn = re.sub(r'((?: id=")|(?:href="#)|(?:url\(#))', rf"\g<1>{name}-", drawn.replace("xlink:href", "href"))
    # Points to CSS pixels: a figure never grows beyond its natural width.
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}" style="max-width:{}px">')
    return head.format(box[1], f"{figure.title}. {figure.caption}", round(float(box[2]) * 4 / 3)) + Markup(drawn)
