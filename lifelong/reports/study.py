"""The parts of a comparison's page, from the questions answered in words to what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lifelong.data.dataset import Dataset
from lifelong.evaluation.attention import ReadAttention, SlotContents
from lifelong.evaluation.compare import Comparison, DifferenceEstimate
from lifelong.evaluation.results import Result, value_of
from lifelong.reports import answers, comparison_figures, comparison_tables, figures, tables
from lifelong.reports.cases import cases_section
from lifelong.reports.dataset import dataset_section
from lifelong.reports.figures import Curve
from lifelong.reports.sections import Section, calibration_sections
from lifelong.reports.slots import slots_section


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the page of a comparison reports.

    Args:
        comparison: the record.
        lifelong: name of the model that the questions are about.
        curves: title -> learning curve of the first seed.
        dataset: what it was made on, if at hand.
        pair: AUC of the lifelong model minus that of the best other one; None if it could not be tested.
        read: the lifelong model's attention; None if it could not be read.
        contents: attention compared with ages of related events.
        why_not: why attention was not read.
    """

    comparison: Comparison
    lifelong: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    dataset: Dataset | None = None
    pair: DifferenceEstimate | None = None
    read: ReadAttention | None = None
    contents: SlotContents | None = None
    why_not: str = "the trained model and the data were not at hand when this page was written"

    @property
    def results(self) -> list[Result]:
        """One per model, of the first seed."""
        return tables.first_seeds(self.comparison.results)

    @property
    def of_first_seeds(self) -> str:
        """Sentence of parts that are not means over seeds; empty where every model has one."""
        several = any(row.seeds > 1 for row in self.comparison.rows)
        return " These figures are of each model's first seed, not means over seeds." if several else ""

    @property
    def title(self) -> str:
        """The lifelong model's name in tables."""
        rows = self.comparison.rows
        return next((row.title for row in rows if row.model == self.lifelong), self.lifelong)


def study_sections(findings: Findings, folder: Path) -> list[Section]:
    """All parts, without commands."""
    comparison = findings.comparison
    parts = [_questions(findings), *_notes(comparison), _main(findings, folder), *_equal(comparison)]
    parts += [_history(findings, folder), *_sweep(findings, folder), *_training(findings, folder)]
    parts += [*_trades(comparison, folder), *_ablations(comparison, folder)]
    if findings.contents is not None:
        parts.append(slots_section(findings.contents, folder, title=findings.title))
    if findings.read is not None and findings.dataset is not None:
        parts.append(cases_section(findings.read, findings.dataset, folder, title=findings.title))
    else:
        parts.append(Section("Case studies", [f"None: {findings.why_not}."]))
    parts += [] if findings.dataset is None else [dataset_section(findings.dataset)]
    return [*parts, *calibration_sections(findings.results, note=findings.of_first_seeds)]


def _questions(findings: Findings) -> Section:
    comparison, lifelong = findings.comparison, findings.lifelong
    given = [
        answers.whole_history(comparison, lifelong),
        answers.best(comparison, lifelong, findings.pair),
        answers.slots(findings.contents, findings.title, findings.why_not),
    ]
    return Section("Three questions", answers=given)


def _notes(comparison: Comparison) -> list[Section]:
    return [Section("Notes", [f"{note.rstrip('.')}." for note in comparison.notes])] if comparison.notes else []


def _main(findings: Findings, folder: Path) -> Section:
    comparison, counts = findings.comparison, findings.results[0].counts
    budget = comparison.equal_examples if comparison.equal_rows == comparison.rows else None
    stop = (
        "Each model was trained until its validation value stopped rising, or a limit was reached."
        if budget is None
        else f"Each model was trained on {budget:,} labelled examples."
    )
    note = (
        f"{stop} GAUC leaves out {counts.one_class_users:,} of {counts.users:,} users ({counts.one_class_share:.1%}) "
        "with targets that are all positive or all negative. Lower is better for log loss, normalised entropy and ECE."
    )
    known = any(value_of(row) is not None for row in comparison.rows)
    drawn = [figures.metric_by_model(comparison.rows, folder)] if known else []
    return Section("All models", [note], [comparison_tables.main_table(comparison)], drawn)


def _equal(comparison: Comparison) -> list[Section]:
    table = None if comparison.equal_rows == comparison.rows else comparison_tables.equal_table(comparison)
    note = "How far each model gets on the same labelled examples, whatever the time that takes."
    return [] if table is None else [Section("The same number of examples for all", [note], [table])]


def _history(findings: Findings, folder: Path) -> Section:
    results = findings.results
    drawn = [figures.metric_by_history(results, folder, always=[findings.title])]
    note = f"The targets, by how many events their users had before them.{findings.of_first_seeds}"
    return Section("By length of the history", [note], [comparison_tables.slices_by_model(results)], drawn)


def _sweep(findings: Findings, folder: Path) -> list[Section]:
    comparison, shown = findings.comparison, comparison_tables.sweep_tables(findings.comparison)
    if not shown:
        return []
    sentence = answers.pays_from(comparison, findings.lifelong)
    drawn = [comparison_figures.sweep(comparison, folder, sentence=sentence, always=[findings.lifelong])]
    note = "The trained models stay as they are, and are given only the most recent events before each target."
    note += findings.of_first_seeds
    return [Section("By number of most recent events", [note, sentence], shown, drawn)]


def _training(findings: Findings, folder: Path) -> list[Section]:
    if not any(len(curve.value) for curve in findings.curves.values()):
        return []
    note = f"AUC on validation during training.{findings.of_first_seeds}"
    return [
        Section("Training", [note], figures=[figures.learning_curves(findings.curves, folder, always=[findings.title])])
    ]


def _trades(comparison: Comparison, folder: Path) -> list[Section]:
    drawn, costs = [], comparison.costs
    quality = {row.model: (row.title, row.metrics["auc"].value) for row in comparison.rows}
    known = [(model, title, value) for model, (title, value) in quality.items() if value is not None]
    at = comparison_tables.usual_length(costs.values())
    kinds: list[tuple[str, str, dict[str, float | None]]] = [
        ("auc-by-latency", f"latency with {at:,} events, ms per request", _latencies(comparison, at)),
        ("auc-by-state", "state, bytes a user", {model: cost.state_bytes for model, cost in costs.items()}),
    ]
    for name, cost, by_model in kinds:
        points = {title: (x, value) for model, title, value in known if (x := by_model.get(model) or 0.0) > 0}
        left_out = [title for _, title, _ in known if title not in points]
        if points:
            drawn.append(comparison_figures.quality_against(points, folder, name=name, cost=cost, left_out=left_out))
    return [Section("Quality against cost", figures=drawn)] if drawn else []


def _latencies(comparison: Comparison, at: int) -> dict[str, float | None]:
    return {model: (cost.latency_ms or {}).get(at) for model, cost in comparison.costs.items()}


def _ablations(comparison: Comparison, folder: Path) -> list[Section]:
    table = comparison_tables.ablation_table(comparison)
    if table is None:
        return []
    tested = any(row.difference is not None and row.difference.value is not None for row in comparison.ablations)
    drawn = [comparison_figures.ablations(comparison.ablations, folder)] if tested else []
    return [Section("Ablations", tables=[table], figures=drawn)]
