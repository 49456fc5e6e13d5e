"""The page of a comparison: its record, with what its runs and its dataset add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.errors import LifelongError, require
from lifelong.evaluation.attention import read_attention, sampled_users, slot_contents
from lifelong.evaluation.compare import Comparison, DifferenceEstimate, compare
from lifelong.reports.answers import rivals
from lifelong.reports.figures import Curve
from lifelong.reports.page import write_page
from lifelong.reports.sections import Section
from lifelong.reports.study import Findings, study_sections
from lifelong.reports.verdict import verdict
from lifelong.training.runs import Run, gather

_EQUAL = "-equal"
"""End of the folder's name of a run with an equal budget."""


def check_drawing() -> None:
    """Check that a report can be drawn: to be called before the trainings that it is about.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", purpose="drawing figures")


def write_comparison(
    out: Path,
    comparison: Comparison,
    *,
    lifelong: str,
    dataset: Dataset | None = None,
    runs: Path | None = None,
    title: str = "Comparison",
    lead: Sequence[str] = (),
    opening: Sequence[Section] = (),
    sections: Sequence[Section] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write the page of a comparison, its figures and its tables.

    Args:
        out: folder; files of an earlier report in it are replaced.
        comparison: the record.
        lifelong: name of the model that the questions are about.
        dataset: adds the data set table and, with `runs`, what the slots hold and the case studies.
        runs: folder of `<model>-seed<k>`; their artifacts and logits are read.
        title: of the page.
        lead: sentences before the generated ones.
        opening: parts before those of the comparison.
        sections: further parts, after those of the comparison.
        commands: that repeat it or continue from it; by default the one in the record.

    Returns:
        The path of `index.html`.
    """
    pair = pair_difference(comparison, lifelong, dataset=dataset, runs=runs)
    findings = Findings(comparison, lifelong, recorded_curves(comparison, runs), dataset=dataset, pair=pair)
    if dataset is not None and runs is not None:
        findings = _with_attention(findings, dataset, runs)
    parts = [*opening, *study_sections(findings, out / "figures"), *sections]
    if code := "\n".join(commands) or comparison.command:
        parts.append(Section("Commands", code=code))
    said = verdict(comparison, lifelong, pair)
    return write_page(out, comparison.results, parts, title=title, verdict=said, lead=lead, ranked=comparison.rows)


def pair_difference(
    comparison: Comparison, lifelong: str, *, dataset: Dataset | None = None, runs: Path | None = None
) -> DifferenceEstimate | None:
    """AUC of the lifelong model minus that of the best other one; None if it cannot be computed.

    It is taken from the record, else computed from the logits of the two models' runs.
    """
    mine, other = rivals(comparison, lifelong)
    if mine is None or other is None:
        return None
    if comparison.reference == other.model and mine.differences is not None:
        return mine.differences["auc"]
    if comparison.reference == mine.model and other.differences is not None:
        return _reversed(other.differences["auc"])
    if dataset is None or runs is None:
        return None
    found = {model: _finished(runs, model) for model in (mine.model, other.model)}
    if not all(found.values()):
        return None
    gathered = {model: gather(of, dataset) for model, of in found.items()}
    row = compare(gathered, reference=other.model, resamples=comparison.resamples)[0]
    return None if row.differences is None else row.differences["auc"]


def recorded_curves(comparison: Comparison, runs: Path | None) -> dict[str, Curve]:
    """Title -> learning curve of the first seed, for models with a recorded one."""
    curves = {}
    for row in comparison.rows if runs is not None else ():
        artifact = _artifact(runs, row.model) if runs is not None else None
        points = [] if artifact is None else artifact.metrics.get("learning_curve") or []
        if points:
            curves[row.title] = Curve([point["examples"] for point in points], [point["auc"] for point in points])
    return curves


def _with_attention(findings: Findings, dataset: Dataset, runs: Path) -> Findings:
    artifact = _artifact(runs, findings.lifelong)
    if artifact is None:
        return replace(findings, why_not=f"there is no trained {findings.title}")
    try:
        read = read_attention(artifact, dataset, sampled_users(dataset.examples("test")))
    except LifelongError as error:
        return replace(findings, why_not=str(error).rstrip("."))
    contents = slot_contents(read, resamples=findings.comparison.resamples)
    return replace(findings, read=read, contents=contents)


def _artifact(runs: Path, model: str) -> Artifact | None:
    """The artifact of the first seed that was trained."""
    return next((run.artifact for run in _runs(runs, model) if run.trained), None)


def _finished(runs: Path, model: str) -> list[Run]:
    """The finished runs of one model, by seed; those with an equal budget, where there are no others."""
    finished = [run for run in _runs(runs, model) if run.finished]
    return [run for run in finished if not run.name.endswith(_EQUAL)] or finished


def _runs(runs: Path, model: str) -> list[Run]:
    """The runs of one model, by seed; those with an equal budget come last."""
    pattern = re.compile(rf"{re.escape(model)}-seed(\d+)({_EQUAL})?")
    matches = [match for path in runs.iterdir() if (match := pattern.fullmatch(path.name))]
    return [Run(runs / of[0], model) for of in sorted(matches, key=lambda of: (of[2] is not None, int(of[1])))]


def _reversed(of: DifferenceEstimate) -> DifferenceEstimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return of.model_copy(update={"value": minus(of.value), "low": minus(of.high), "high": minus(of.low)})
