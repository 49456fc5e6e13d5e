"""The tables of a comparison: quality, cost, sweep, ablations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lifelong.evaluation.compare import Comparison, ComparisonRow, Cost, SweepPoint
from lifelong.evaluation.results import Result, best_first
from lifelong.reports.tables import BY_HISTORY, ITEMS, LABELS, Cell, Quantity, Table, own_metrics, p_text

MARK = " †"
"""Follows the name of a model if a limit ended its training."""
QUALITY = ("auc", "gauc", "log_loss", "normalised_entropy", "ece")
TESTED = ("auc", "log_loss")
"""Metrics that are followed by their difference from the reference."""
LATENCIES = (100, 1_000, 10_000)
_LIMIT = (
    "† A limit ended the training of this model while its validation value still rose: with more training it may "
    "do better."
)


def main_table(comparison: Comparison) -> Table:
    """One row per model, best first: quality with intervals, differences to the reference, the paper's tests, cost."""
    ordered = best_first(comparison.rows)
    quality_columns, quality = _quality(comparison, ordered)
    lengths = latency_lengths(comparison.costs.values())
    columns = [*quality_columns, "parameters", "training time", "examples / s", "state, bytes a user"]
    columns += [f"latency, {length:,} events" for length in lengths]
    rows = [
        [_name(row, comparison), *cells, *_cost(comparison.costs.get(row.model), lengths)]
        for row, cells in zip(ordered, quality, strict=True)
    ]
    marked = any(cost.hit_limit for cost in comparison.costs.values())
    latency = "Latency: median milliseconds of one request with 100 candidates, by events of the history."
    caption = " ".join([_tests(comparison), *([latency] if lengths else []), *([_LIMIT] if marked else [])])
    return Table(columns, rows, caption, name="main")


def equal_table(comparison: Comparison) -> Table | None:
    """The same models after equally many labelled examples; None if there are no such runs."""
    if not comparison.equal_rows:
        return None
    ordered = best_first(comparison.equal_rows)
    columns, quality = _quality(comparison, ordered)
    rows: list[list[Cell]] = [[row.title, *cells] for row, cells in zip(ordered, quality, strict=True)]
    budget = "" if comparison.equal_examples is None else f" {comparison.equal_examples:,}"
    caption = (
        f"Each model after the same{budget} labelled examples; models that are fitted at once saw what they are "
        f"fitted on. {_tests(comparison)}"
    )
    return Table(columns, rows, caption, name="equal-examples")


def sweep_tables(comparison: Comparison) -> list[Table]:
    """AUC, and its difference from all events: one row per model, one column per number of most recent events."""
    if not comparison.sweep:
        return []
    ticks = sweep_ticks(comparison)
    by_model: dict[str, dict[int | None, SweepPoint]] = {}
    for point in comparison.sweep:
        by_model.setdefault(point.title, {})[point.events] = point
    examples, least = comparison.sweep[0].examples, comparison.sweep_at_least
    among = f", with at least {least:,} events before each" if least else ""
    values: list[list[Cell]] = [
        [title, *(points[tick].metrics.get("auc") if tick in points else None for tick in ticks)]
        for title, points in by_model.items()
    ]
    gaps: list[list[Cell]] = [
        [title, *(points[tick].difference if tick in points else None for tick in ticks if tick is not None)]
        for title, points in by_model.items()
    ]
    names = [f"last {events_name(tick)}" if tick is not None else "all" for tick in ticks]
    tables = [
        Table(["model", *names], values, f"AUC on the same {examples:,} targets{among}.", name="sweep", folded=True)
    ]
    if any(point.difference is not None for point in comparison.sweep):
        caption = "AUC minus AUC with all events; below 0 says that all events are better. Paired over users."
        tables.append(
            Table(
                ["model", *(name for name in names if name != "all")], gaps, caption, "sweep-differences", folded=True
            )
        )
    return tables


def sweep_ticks(comparison: Comparison) -> list[int | None]:
    """The numbers of events of a sweep, ascending; None, all of them, last."""
    return sorted({point.events for point in comparison.sweep}, key=lambda events: (events is None, events or 0))


def usual_length(costs: Iterable[Cost]) -> int:
    """The history length at which latencies are compared: the middle one of those measured."""
    found = sorted({length for cost in costs for length in cost.latency_ms or {}}) or list(LATENCIES)
    return found[len(found) // 2]


def ablation_table(comparison: Comparison) -> Table | None:
    """Variants and their base; None without ablations."""
    if not comparison.ablations:
        return None
    rows: list[list[Cell]] = [
        [
            row.name,
            "; ".join(f"{key} = {_setting(value)}" for key, value in row.settings.items()) or "the base",
            row.metrics.get("auc"),
            row.metrics.get("log_loss"),
            row.difference,
        ]
        for row in comparison.ablations
    ]
    columns = ["variant", "what differs", "AUC", "log loss", "AUC against the base"]
    return Table(columns, rows, "A negative difference says that the base is better.", name="ablations")


def slices_by_model(results: Sequence[Result]) -> Table:
    """One row per model, one column per slice of history length, and of items: for many models."""
    parts = [part for part in results[0].slices if part.examples]
    items = {part.name: part for part in (*results[0].repeats, results[0].unseen)}
    columns = ["model", *(f"{part.name} events" for part in parts), *(ITEMS[name] for name in items)]
    rows: list[list[Cell]] = [["examples", *(part.examples for part in (*parts, *items.values()))]]
    for result in best_first(results):
        found = {part.name: part.metrics.get("auc") for part in (*result.slices, *result.repeats, result.unseen)}
        rows.append([result.title, *(found.get(name) for name in (*(part.name for part in parts), *items))])
    return Table(columns, rows, BY_HISTORY, name="history-length", folded=True, fixed=1)


def latency_lengths(costs: Iterable[Cost]) -> list[int]:
    """The usual history lengths and those at which a latency was measured, ascending; empty if none was measured."""
    found = {length for cost in costs for length in cost.latency_ms or {}}
    return sorted(found | set(LATENCIES)) if found else []


def events_name(events: int | None) -> str:
    """A number of most recent events in words; None is all of them.

    >>> events_name(1000), events_name(None)
    ('1,000', 'all')
    """
    return "all" if events is None else f"{events:,}"


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(750)
    '12.5 min'
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _quality(comparison: Comparison, given: Sequence[ComparisonRow]) -> tuple[list[str], list[list[Cell]]]:
    """Columns, the first of which names the model, and the cells after the name."""
    reference = next((row.title for row in comparison.rows if row.model == comparison.reference), comparison.reference)
    columns, own = ["model", "seeds"], own_metrics(row.metrics for row in given)
    for name in [*QUALITY, *own]:
        label = LABELS.get(name, name)
        columns += [label, *([f"{label} against {reference}"] if name in (*TESTED, *own) else [])]
    columns += ["SD of AUC over seeds", "Mann-Whitney p", "t test p"]
    return columns, [_quality_cells(row, own) for row in given]


def _quality_cells(row: ComparisonRow, own: Sequence[str]) -> list[Cell]:
    spread, cells = row.spread.get("auc"), list[Cell]([row.seeds])
    for name in [*QUALITY, *own]:
        cells += [row.metrics.get(name), *([(row.differences or {}).get(name)] if name in (*TESTED, *own) else [])]
    deviation = None if spread is None else spread.deviation
    cells.append(None if deviation is None else Quantity(deviation, f"{deviation:.4f}"))
    return [*cells, *(None if p is None else Quantity(p, p_text(p)) for p in (row.mann_whitney_p, row.t_p))]


def _cost(cost: Cost | None, lengths: Sequence[int]) -> list[Cell]:
    if cost is None:
        return [None] * (4 + len(lengths))
    rate, latency = cost.examples_per_second, cost.latency_ms or {}
    return [
        cost.parameters,
        Quantity(cost.train_seconds, duration(cost.train_seconds)),
        None if rate is None else Quantity(rate, f"{rate:,.0f}"),
        cost.state_bytes,
        *(Quantity(latency[at], milliseconds(latency[at])) if at in latency else None for at in lengths),
    ]


def _name(row: ComparisonRow, comparison: Comparison) -> str:
    cost = comparison.costs.get(row.model)
    return row.title + (MARK if cost is not None and cost.hit_limit else "")


def _tests(comparison: Comparison) -> str:
    return (
        f"Means over seeds. Brackets: 95 % intervals, bootstrap over users and seeds ({comparison.resamples:,} "
        "resamples); p of differences: paired on the same draws; (all ...): corrected for the number of models, by the "
        "largest "
        "deviation of any of them (Westfall and Young). Mann-Whitney U (scores of "
        "positives above those of negatives) and t test (losses against the reference) are the HPMN paper's, of the "
        "first seed; they take the examples of one user for independent."
    )


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def milliseconds(value: float, digits: int = 3) -> str:
    """A latency in a table or a sentence, never with an exponent.

    >>> milliseconds(1.634), milliseconds(1063.2), milliseconds(1063.2, 2)
    ('1.63 ms', '1,063 ms', '1,063 ms')
    """
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.{digits}g} ms"
