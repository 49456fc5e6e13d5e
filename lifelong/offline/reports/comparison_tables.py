"""The tables of a comparison: quality, cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lifelong.offline.evaluation.compare import Comparison, ComparisonRow, Cost
from lifelong.offline.evaluation.results import Result, best_first, readable_duration
from lifelong.offline.reports.tables import (
    BY_HISTORY,
    ITEMS,
    LABELS,
    Cell,
    Quantity,
    Table,
    milliseconds,
    own_metrics,
    p_text,
)

MARK = " †"
"""Follows the name of a model if a limit ended its training."""
TESTED = ("auc", "log_loss")
"""Metrics that are followed by their difference from the reference."""
LATENCIES = (100, 1_000, 10_000)
_QUALITY = ("auc", "gauc", "log_loss", "normalised_entropy", "ece")
_MEANS = (
    "Means over seeds. Brackets: 95 % intervals, paired bootstrap over users and seeds; (all ...): p corrected for the "
    "number of models (Westfall and Young)."
)
_PAPER = (
    "Mann-Whitney U (scores of positives above those of negatives) and t test (losses against the reference) are the "
    "HPMN paper's, of the first seed; they take the examples of one user for independent."
)


def comparison_table(comparison: Comparison, metrics: Sequence[str] = TESTED) -> Table:
    """Models, best first, with metrics, also those of other packages, and differences from the reference.

    Args:
        comparison: the record.
        metrics: names.
    """
    given = best_first(comparison.rows)
    reference = next((row.title for row in comparison.rows if row.model == comparison.reference), comparison.reference)
    own = own_metrics(row.metrics for row in given)
    columns, cells = ["model", "seeds"], [list[Cell]([row.title, row.seeds]) for row in given]
    for name in [*metrics, *own]:
        label, tested = LABELS.get(name, name), name in (*TESTED, *own)
        columns += [label, *([f"{label} against {reference}"] if tested else [])]
        for row, of in zip(given, cells, strict=True):
            of += [row.metrics.get(name), *([(row.differences or {}).get(name)] if tested else [])]
    return Table(columns, cells, _MEANS)


def main_table(comparison: Comparison) -> Table:
    """One row per model, best first: quality with intervals, differences to the reference, the paper's tests, cost."""
    quality, costs = comparison_table(comparison, metrics=_QUALITY), comparison.costs
    # The usual lengths have columns even where one was not measured: a gap is seen, a missing column is not.
    lengths = sorted({*LATENCIES, *_measured(costs.values())}) if _measured(costs.values()) else []
    columns = [*quality.columns, "SD of AUC over seeds", "Mann-Whitney p", "t test p", "parameters", "training time"]
    columns += ["examples / s", "state, bytes a user", *(f"latency, {length:,} events" for length in lengths)]
    rows = list[list[Cell]]()
    for row, cells in zip(best_first(comparison.rows), quality.rows, strict=True):
        name = f"{row.title}{MARK if _limited(comparison, row) else ''}"
        rows.append([name, *cells[1:], *_tests(row), *_cost(costs.get(row.model), lengths)])
    caption = f"{_MEANS} {_PAPER}"
    if lengths:
        caption += " Latency: median of one request with 100 candidates, by events of the history."
    if any(_limited(comparison, row) for row in comparison.rows):
        caption += " † A limit ended the training while the validation value still rose: more may do better."
    return Table(columns, rows, caption, name="main")


def slices_by_model(results: Sequence[Result]) -> Table:
    """One row per model, one column per slice of history length, and of items: for many models."""
    named = {part.name: f"{part.name} events" for part in results[0].slices if part.examples} | ITEMS
    parts = [
        {part.name: part for part in (*of.slices, *of.repeats, of.unseen)} for of in [results[0], *best_first(results)]
    ]
    named = {name: head for name, head in named.items() if name in parts[0]}
    rows: list[list[Cell]] = [["examples", *(parts[0][name].examples for name in named)]]
    for result, of in zip(best_first(results), parts[1:], strict=True):
        rows.append([result.title, *(of[name].metrics.get("auc") if name in of else None for name in named)])
    return Table(["model", *named.values()], rows, BY_HISTORY, name="history-length", folded=True, fixed=1)


def usual_length(costs: Iterable[Cost]) -> int:
    """The history length at which latencies are compared: the middle one of those measured."""
    lengths = sorted(_measured(costs)) or list(LATENCIES)
    return lengths[len(lengths) // 2]


def _measured(costs: Iterable[Cost]) -> set[int]:
    return {length for cost in costs for length in cost.latency_ms or {}}


def _limited(comparison: Comparison, row: ComparisonRow) -> bool:
    cost = comparison.costs.get(row.model)
    return cost is not None and cost.hit_limit


def _tests(row: ComparisonRow) -> list[Cell]:
    deviation = row.spread["auc"].deviation if "auc" in row.spread else None
    cells: list[Cell] = [None if deviation is None else Quantity(deviation, f"{deviation:.4f}")]
    return [*cells, *(None if p is None else Quantity(p, p_text(p)) for p in (row.mann_whitney_p, row.t_p))]


def _cost(cost: Cost | None, lengths: Sequence[int]) -> list[Cell]:
    if cost is None:
        return [None] * (4 + len(lengths))
    rate, latency = cost.examples_per_second, cost.latency_ms or {}
    return [
        cost.parameters,
        Quantity(cost.train_seconds, readable_duration(cost.train_seconds)),
        None if rate is None else Quantity(rate, f"{rate:,.0f}"),
        cost.state_bytes,
        *(Quantity(latency[at], milliseconds(latency[at])) if at in latency else None for at in lengths),
    ]
