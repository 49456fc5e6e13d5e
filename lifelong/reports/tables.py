"""Results as tables: one `Table`, written as Markdown, CSV, JSON, LaTeX or HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lifelong.evaluation.compare import Comparison, DifferenceEstimate
from lifelong.evaluation.results import Estimate, Result, format_duration

Cell: TypeAlias = "str | int | Quantity | Estimate | DifferenceEstimate | None"
_WIDE = 8
"""Number of columns from which a LaTeX table is scaled to the width of the text."""

LABELS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "normalised_entropy": "normalised entropy",
    "ece": "ECE",
    "predicted_observed": "predicted / observed",
}
ITEMS = {"repeat": "item had before", "explore": "item not had before", "unseen": "item unseen in training"}
BY_HISTORY = "AUC by length of the history at the target, and by whether the user had the item before."
GRADED = {"rmse": "RMSE", "mae": "MAE", "rmse_of_mean": "RMSE of the mean rating of training"}
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, and the text that people read in its place; files for machines have the number."""

    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A small table.

    Args:
        columns: headings; the first column names the row.
        rows: as many cells as columns.
        caption: one sentence or more.
        name: stem of its files; by default that of its section.
        folded: collapsed on the page, because it is long and there is a figure of it.
        words: its cells are sentences and not numbers.
        fixed: number of first rows that are about the others, and keep their place when a reader sorts the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    name: str = ""
    folded: bool = False
    words: bool = False
    fixed: int = 0

    def to_markdown(self) -> str:
        """GitHub-flavoured Markdown."""
        lines = [_bar(self.columns), _bar(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_bar([text(cell).replace("|", "\\|") for cell in row]) for row in self.rows]
        return "\n".join([*lines, *(["", self.caption] if self.caption else [])]) + "\n"

    def to_csv(self) -> str:
        """CSV with full numbers: an estimate has the columns `name`, `name low`, `name high`, and two of p."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        suffixes = [_suffixes([row[place] for row in self.rows]) for place in range(len(self.columns))]
        writer.writerow([name + suffix for name, of in zip(self.columns, suffixes, strict=True) for suffix in of])
        for row in self.rows:
            writer.writerow([_plain(cell, suffix) for cell, of in zip(row, suffixes, strict=True) for suffix in of])
        return buffer.getvalue()

    def to_json(self) -> str:
        """A list with one object per row, with full numbers."""
        rows = [{name: _record(cell) for name, cell in zip(self.columns, row, strict=True)} for row in self.rows]
        return json.dumps({"caption": self.caption, "rows": rows}, indent=2, ensure_ascii=False) + "\n"

    def to_latex(self) -> str:
        """A `booktabs` table; a wide one is scaled to the text (`graphicx`)."""
        rows = [[text(cell) for cell in row] for row in [self.columns, *self.rows]]
        lines = [" & ".join(cell.translate(_LATEX).replace("−", "$-$") for cell in row) + r" \\" for row in rows]
        body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        caption = [rf"\caption{{{self.caption.translate(_LATEX)}}}"] if self.caption else []
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}"
        tabular = [begin, *body, r"\end{tabular}"]
        if len(self.columns) >= _WIDE:
            tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
        return "\n".join([r"\begin{table}", *caption, *tabular, r"\end{table}"]) + "\n"

    def to_html(self) -> str:
        """A `<table>`; every text is escaped."""
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.columns)
        rows = "".join(
            f"<tr{' data-fixed' if place < self.fixed else ''}>"
            f'<th scope="row">{html.escape(text(row[0]))}</th>{"".join(_html_cell(cell) for cell in row[1:])}</tr>'
            for place, row in enumerate(self.rows)
        )
        # The caption is outside the box that scrolls, so that all of it is visible.
        caption = f'<p class="caption">{html.escape(self.caption)}</p>' if self.caption else ""
        label = html.escape(self.caption or self.name or "table")
        kind = "table sentences" if self.words else "table"
        whole = (
            f'<div class="{kind}"><div class="scroll" tabindex="0" role="group" aria-label="{label}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{caption}</div>"
        )
        named = html.escape(self.caption or "the numbers")
        return f"<details><summary>Table: {named}</summary>{whole}</details>" if self.folded else whole


def text(cell: Cell) -> str:
    """A cell as people read it.

    >>> text(Estimate(value=0.669, low=0.662, high=0.676))
    '0.6690 [0.6620, 0.6760]'
    """
    if cell is None:
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Quantity):
        return cell.text
    if cell.value is None:
        return (cell.reason if isinstance(cell, Estimate) else None) or "–"
    sign = "+" if isinstance(cell, DifferenceEstimate) else ""
    return _number(cell.value, sign) + _interval(cell, sign) + _p(cell)


def brief(value: Estimate) -> str:
    """An estimate in a sentence.

    >>> brief(Estimate(value=0.669, low=0.662, high=0.676))
    '0.669 [0.662, 0.676]'
    """
    interval = "" if value.low is None or value.high is None else f" [{value.low:.3f}, {value.high:.3f}]"
    return f"{value.value:.3f}{interval}"


def first_seeds(results: Sequence[Result]) -> list[Result]:
    """One result per model: of several seeds, the first."""
    return list({result.model: result for result in reversed(results)}.values())[::-1]


def own_metrics(records: Iterable[Mapping[str, Estimate]]) -> list[str]:
    """The metrics of other packages in records of metrics, which go by their own names.

    >>> own_metrics([{"auc": Estimate(value=0.6), "brier": Estimate(value=0.2)}])
    ['brier']
    """
    return list(dict.fromkeys(name for record in records for name in record if name not in LABELS))


def metrics_table(result: Result) -> Table:
    """All metrics with intervals, in one row."""
    own = own_metrics([result.metrics])
    row: list[Cell] = [result.title, *(result.metrics.get(name) for name in [*LABELS, *own])]
    return Table(["model", *LABELS.values(), *own], [row], "Metrics with 95 % intervals (bootstrap over users).")


def tasks_table(result: Result) -> Table | None:
    """One row per task: all metrics with intervals; None if there is one task."""
    if not result.other_tasks:
        return None
    tasks = {result.task: result.metrics, **result.other_tasks}
    own = own_metrics(tasks.values())
    rows: list[list[Cell]] = [[task, *(found.get(name) for name in [*LABELS, *own])] for task, found in tasks.items()]
    return Table(["task", *LABELS.values(), *own], rows, "Metrics of each task.", name="tasks")


def graded_table(result: Result) -> Table | None:
    """Errors of the expected rating; None where no rating is graded."""
    if not result.graded:
        return None
    header = ["", *(GRADED[name] for name in result.graded)]
    return Table(header, [["expected rating", *result.graded.values()]], "Errors of ratings.", name="graded")


def slices_table(result: Result) -> Table:
    """One row per slice of history length, and of items that the user had or had not, or that training did not see."""
    named = [(f"{part.name} events", part) for part in result.slices]
    named += [(ITEMS[part.name], part) for part in (*result.repeats, result.unseen)]
    rows: list[list[Cell]] = [[name, part.examples, part.users, part.metrics.get("auc")] for name, part in named]
    columns = ["targets", "examples", "users", result.title]
    return Table(columns, rows, BY_HISTORY)


def delays_table(result: Result) -> Table | None:
    """One row per delay; None if nothing was measured with a delay."""
    parts = sorted(result.delays, key=lambda part: part.delay)
    rows: list[list[Cell]] = [[format_duration(part.delay), part.metrics.get("auc")] for part in parts]
    caption = "AUC when events younger than the delay have not reached the memory yet."
    return Table(["delay", result.title], rows, caption) if rows else None


def ranking_table(results: Sequence[Result]) -> Table | None:
    """One row per result and part of the baskets' items, a column per metric; None if no catalogue was ranked."""
    ranked = [(result.title, result.ranking) for result in results if result.ranking is not None]
    if not ranked:
        return None
    names = list(dict.fromkeys(name for _, ranking in ranked for part in ranking.parts for name in part.metrics))
    rows: list[list[Cell]] = [
        [title, part.name, part.baskets, part.targets, *(part.metrics.get(name) for name in names)]
        for title, ranking in ranked
        for part in ranking.parts
    ]
    first = ranked[0][1]
    what = f"All {first.items:,} items are"
    if first.popular is not None:
        what = f"The {first.popular:,} most popular of {first.items:,} items, and those that the user had before, are"
    caption = (
        f"{what} ranked for each basket of {first.users:,} of {first.users_in_split:,} users: items "
        "that the user had before (repeat), or had not (explore)."
    )
    if first.popular is not None:
        caption += " Other items of a basket count as not found."
    if any(ranking.by_popularity for _, ranking in ranked):
        caption += " Models that learn from drawn negatives are ranked by logit plus log popularity."
    if fitted := [title for title, ranking in ranked if ranking.by_counts]:
        caption += (
            f" {', '.join(fitted)}: plus what the memory counts of each item; the weights of both were fitted on "
            "validation."
        )
    heads = [_RANKING.get(name.split("@")[0], name) + "@" + name.split("@")[-1] for name in names]
    return Table(["model", "items to find", "baskets", "items", *heads], rows, caption)


_RANKING = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}


def calibration_table(results: Sequence[Result]) -> Table | None:
    """Raw and calibrated log loss and calibration error; None if no model has a calibrator."""
    calibrated = [(result, result.calibrated) for result in results if result.calibrated is not None]
    if not calibrated:
        return None
    rows: list[list[Cell]] = []
    for result, after in calibrated:
        for kind, of in (("raw", result.metrics), ("calibrated", after)):
            rows.append(
                [f"{result.title}, {kind}", *(of.get(name) for name in ("log_loss", "ece", "predicted_observed"))]
            )
    columns = ["numbers", LABELS["log_loss"], LABELS["ece"], LABELS["predicted_observed"]]
    return Table(columns, rows, "Before and after the calibrator that was fitted on validation examples.")


def comparison_table(comparison: Comparison, metrics: Sequence[str] = ("auc", "log_loss")) -> Table:
    """Models with metrics, also those of other packages, and differences from the reference."""
    reference = next(row.title for row in comparison.rows if row.model == comparison.reference)
    metrics = [*metrics, *own_metrics(row.metrics for row in comparison.rows)]
    labels = [LABELS.get(name, name) for name in metrics]
    columns = ["model", "seeds", *labels, *(f"{label} against {reference}" for label in labels)]
    rows: list[list[Cell]] = []
    for row in comparison.rows:
        differences = row.differences or {}
        rows.append(
            [
                row.title,
                row.seeds,
                *(row.metrics.get(name) for name in metrics),
                *(differences.get(name) for name in metrics),
            ]
        )
    caption = (
        f"Means over seeds; intervals and p-values by a paired bootstrap over users and seeds against {reference}."
    )
    return Table(columns, rows, caption)


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, sign: str = "") -> str:
    digits = f"{value:{sign}.4f}"
    return digits.replace("-", "−")


def _interval(cell: Estimate | DifferenceEstimate, sign: str) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f" [{_number(cell.low, sign)}, {_number(cell.high, sign)}]"


def _p(cell: Estimate | DifferenceEstimate) -> str:
    if not isinstance(cell, DifferenceEstimate):
        return ""
    family = "" if cell.family_p is None else f" (all {p_text(cell.family_p)})"
    return f", p {p_text(cell.p_value, equals=True)}{family}"


def p_text(value: float | None, *, equals: bool = False) -> str:
    """A p-value as people read it.

    >>> p_text(0.04), p_text(0.00001), p_text(0.04, equals=True)
    ('0.040', '< 0.001', '= 0.040')
    """
    if value is None:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{'= ' if equals else ''}{value:.3f}"


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, Estimate | DifferenceEstimate) and cell.value is not None:
        sign = "+" if isinstance(cell, DifferenceEstimate) else ""
        below = (_interval(cell, sign) + _p(cell)).strip(", ")
        small = f"<small>{html.escape(below)}</small>" if below else ""
        return f'<td data-value="{cell.value}">{_number(cell.value, sign)}{small}</td>'
    number = _plain(cell, "")
    value = f' data-value="{number}"' if isinstance(number, int | float) else ""
    return f"<td{value}>{html.escape(text(cell))}</td>"


def _suffixes(cells: Sequence[Cell]) -> list[str]:
    if any(isinstance(cell, DifferenceEstimate) for cell in cells):
        return ["", " low", " high", " p", " p all"]
    return ["", " low", " high"] if any(isinstance(cell, Estimate) for cell in cells) else [""]


def _plain(cell: Cell, suffix: str) -> str | int | float | None:
    if isinstance(cell, Estimate | DifferenceEstimate):
        p, family = (cell.p_value, cell.family_p) if isinstance(cell, DifferenceEstimate) else (None, None)
        return {"": cell.value, " low": cell.low, " high": cell.high, " p": p, " p all": family}[suffix]
    value = cell.value if isinstance(cell, Quantity) else cell
    return value if suffix == "" else None


def _record(cell: Cell) -> Any:
    return cell.model_dump() if isinstance(cell, Estimate | DifferenceEstimate) else _plain(cell, "")
