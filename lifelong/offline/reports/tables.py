"""Cells for people and for machines, and the tables of one result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lifelong.offline.evaluation.compare import DifferenceEstimate
from lifelong.offline.evaluation.results import Estimate, Result, format_duration

Cell: TypeAlias = "str | int | Quantity | Estimate | DifferenceEstimate | None"
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
_RANKING = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}


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


def shown(cell: Cell) -> tuple[str, str]:
    """What people read of a cell: the value, and its interval and p-value.

    >>> shown(Estimate(value=0.669, low=0.662, high=0.676))
    ('0.6690', '[0.6620, 0.6760]')
    """
    if not isinstance(cell, Estimate | DifferenceEstimate):
        plain = cell.text if isinstance(cell, Quantity) else f"{cell:,}" if isinstance(cell, int) else cell
        return plain or "–", ""
    difference = isinstance(cell, DifferenceEstimate)
    if cell.value is None:
        return getattr(cell, "reason", None) or "–", ""
    value, low, high = (
        None if number is None else f"{number:{'+' if difference else ''}.4f}".replace("-", "−")
        for number in (cell.value, cell.low, cell.high)
    )
    said = [] if low is None or high is None else [f"[{low}, {high}]"]
    if isinstance(cell, DifferenceEstimate):
        family = "" if cell.family_p is None else f" (all {p_text(cell.family_p)})"
        said.append(f"p {p_text(cell.p_value, equals=True)}{family}")
    return value or "–", ", ".join(said)


def text(cell: Cell) -> str:
    """A cell on one line.

    >>> text(Estimate(value=0.669, low=0.662, high=0.676))
    '0.6690 [0.6620, 0.6760]'
    """
    return " ".join(filter(None, shown(cell)))


def brief(value: Estimate) -> str:
    """An estimate in a sentence.

    >>> brief(Estimate(value=0.669, low=0.662, high=0.676))
    '0.669 [0.662, 0.676]'
    """
    interval = "" if value.low is None or value.high is None else f" [{value.low:.3f}, {value.high:.3f}]"
    return f"{value.value:.3f}{interval}"


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


def milliseconds(value: float, digits: int = 3) -> str:
    """A latency in a table or a sentence, never with an exponent.

    >>> milliseconds(1.634), milliseconds(1063.2), milliseconds(1063.2, 2)
    ('1.63 ms', '1,063 ms', '1,063 ms')
    """
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.{digits}g} ms"


def first_seeds(results: Sequence[Result]) -> list[Result]:
    """One result per model: of several seeds, the first."""
    # Read backwards, the last one that stays is the first seed's; turned round, the order is that of the results.
    return list({result.model: result for result in reversed(results)}.values())[::-1]


def own_metrics(records: Iterable[Mapping[str, Estimate]]) -> list[str]:
    """The metrics of other packages in records of metrics, which go by their own names.

    >>> own_metrics([{"auc": Estimate(value=0.6), "brier": Estimate(value=0.2)}])
    ['brier']
    """
    return list(dict.fromkeys(name for record in records for name in record if name not in LABELS))


def metrics_table(result: Result) -> Table:
    """All metrics with intervals, in one row."""
    return _metrics("model", {result.title: result.metrics}, "Metrics with 95 % intervals (bootstrap over users).")


def tasks_table(result: Result) -> Table | None:
    """One row per task: all metrics with intervals; None if there is one task."""
    tasks = {result.task: result.metrics, **result.other_tasks}
    return _metrics("task", tasks, "Metrics of each task.") if result.other_tasks else None


def _metrics(head: str, records: Mapping[str, Mapping[str, Estimate]], caption: str) -> Table:
    own = own_metrics(records.values())
    rows: list[list[Cell]] = [[name, *(of.get(metric) for metric in [*LABELS, *own])] for name, of in records.items()]
    return Table([head, *LABELS.values(), *own], rows, caption)


def slices_table(result: Result) -> Table:
    """One row per slice of history length, and of items that the user had or had not, or that training did not see."""
    named = [(f"{part.name} events", part) for part in result.slices]
    named += [(ITEMS[part.name], part) for part in (*result.repeats, result.unseen)]
    rows: list[list[Cell]] = [[name, part.examples, part.users, part.metrics.get("auc")] for name, part in named]
    return Table(["targets", "examples", "users", result.title], rows, BY_HISTORY)


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
            f" {', '.join(fitted)}: plus counts of each item's values; the weights of both were fitted on validation."
        )
    heads = [_RANKING.get(name.split("@")[0], name) + "@" + name.split("@")[-1] for name in names]
    return Table(["model", "items to find", "baskets", "items", *heads], rows, caption)


def calibration_table(results: Sequence[Result]) -> Table | None:
    """Raw and calibrated log loss and calibration error; None if no model has a calibrator."""
    names = ("log_loss", "ece", "predicted_observed")
    rows: list[list[Cell]] = [
        [f"{result.title}, {kind}", *(of.get(name) for name in names)]
        for result in results
        if result.calibrated is not None
        for kind, of in (("raw", result.metrics), ("calibrated", result.calibrated))
    ]
    caption = "Before and after the calibrator that was fitted on validation examples."
    return Table(["numbers", *(LABELS[name] for name in names)], rows, caption, folded=True) if rows else None
