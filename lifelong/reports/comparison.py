"""The page of a comparison: its record, and what its runs and its data set add to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.artifact.folder import Artifact
from lifelong.errors import LifelongError
from lifelong.evaluation.attention import read_attention, sampled_users, slot_contents
from lifelong.evaluation.compare import Comparison, DifferenceEstimate, compare
from lifelong.evaluation.runs import Run, gather
from lifelong.reports.answers import rivals
from lifelong.reports.figures import Curve
from lifelong.reports.page import write_page
from lifelong.reports.sections import Section
from lifelong.reports.study import LIFELONG, Findings, study_sections

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset


def write_comparison(
    out: Path,
    comparison: Comparison,
    *,
    dataset: Dataset | None = None,
    runs: Path | None = None,
    curves: Mapping[str, Curve] | None = None,
    lifelong: str = LIFELONG,
    title: str = "Comparison",
) -> Path:
    """Write the page of a comparison, its figures and its tables.

    Args:
        out: folder; files of an earlier report in it are replaced.
        comparison: the record.
        dataset: adds the data set table and, with `runs`, what the slots hold and case studies.
        runs: folder of `<model>-seed<k>`, for what is read from artifacts and logits.
        curves: title -> learning curve; by default those that the artifacts in `runs` recorded.
        lifelong: the model that the questions are about.
        title: of the page.

    Returns:
        The path of `index.html`.
    """
    findings = Findings(
        comparison,
        recorded_curves(comparison, runs) if curves is None else curves,
        lifelong=lifelong,
        dataset=dataset,
        pair=pair_difference(comparison, lifelong, dataset=dataset, runs=runs),
    )
    if dataset is not None and runs is not None:
        findings = _with_attention(findings, dataset, runs)
    parts = study_sections(findings, out / "figures")
    if comparison.command is not None:
        parts.append(Section("Commands", code=comparison.command))
    return write_page(out, comparison.results, parts, title=title)


def pair_difference(
    comparison: Comparison, lifelong: str, *, dataset: Dataset | None = None, runs: Path | None = None
) -> DifferenceEstimate | None:
    """AUC of the lifelong model minus that of the best other one: from the record, else from the logits of their runs.

    None where neither has it.
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
    """Title -> learning curve of the first seed, where an artifact recorded one."""
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
    """Of the first seed; with an equal budget, where there is no other."""
    for folder in (runs / f"{model}-seed0", runs / f"{model}-seed0-equal"):
        run = Run(folder, model, 0)
        if run.trained:
            return run.artifact
    return None


def _finished(runs: Path, model: str) -> list[Run]:
    """The finished runs of one model, by seed; those with an equal budget, where there are no others."""
    for suffix in ("", "-equal"):
        pattern = re.compile(rf"{re.escape(model)}-seed(\d+){suffix}")
        matches = [match for path in runs.iterdir() if (match := pattern.fullmatch(path.name))]
        every = [Run(runs / match[0], model, int(match[1])) for match in sorted(matches, key=lambda of: int(of[1]))]
        finished = [run for run in every if run.finished]
        if finished:
            return finished
    return []


def _reversed(of: DifferenceEstimate) -> DifferenceEstimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return of.model_copy(update={"value": minus(of.value), "low": minus(of.high), "high": minus(of.low)})
