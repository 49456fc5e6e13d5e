"""The page of a comparison: its record, with what its runs and its dataset add."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.examples import SPLITS
from lifelong.dataset.folder import Dataset
from lifelong.errors import LifelongError, require
from lifelong.offline.evaluation.attention import read_attention, sampled_users
from lifelong.offline.evaluation.compare import Comparison, DifferenceEstimate, compare
from lifelong.offline.evaluation.results import Result, value_of
from lifelong.offline.reports import comparison_tables, figures
from lifelong.offline.reports.attention import cases_section
from lifelong.offline.reports.drawing import Figure
from lifelong.offline.reports.page import Section, write_page
from lifelong.offline.reports.tables import Cell, Quantity, Table, calibration_table, first_seeds
from lifelong.offline.reports.verdict import rivals, verdict
from lifelong.offline.training.runs import Run, gather

NEGATIVES = {
    "popularity": "drawn in proportion to how often items occur in the target's own period",
    "uniform": "drawn uniformly from the items of the target's own period",
    "windowed": "drawn in proportion to how often items occur around the target in time",
    "following": "drawn in proportion to how often items occur from the target's time on",
}
"""How negatives are drawn, in words."""
_FLIPPED = "a coin flip a user: the last item, or another one, uniform over all items of the log"


def check_drawing() -> None:
    """Check that a report can be drawn: to be called before the trainings that it is about.

    Raises:
        MissingExtraError: a package that draws or writes reports is not installed.
    """
    for package in ("matplotlib", "adjustText", "tabulate"):
        require(package, extra="report", purpose="writing reports")


def write_comparison(
    out: Path,
    comparison: Comparison,
    *,
    lifelong: str,
    dataset: Dataset | None = None,
    runs: Path | None = None,
    title: str = "Comparison",
    opening: Sequence[Section] = (),
    sections: Sequence[Section] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write the page of a comparison, its figures and its tables.

    Args:
        out: folder; files of an earlier report in it are replaced.
        comparison: the record.
        lifelong: name of the model that the page is about.
        dataset: adds the data set table and, with `runs`, the case studies.
        runs: folder of `<model>-seed<k>`; their artifacts and logits are read.
        title: of the page.
        opening: parts before those of the comparison.
        sections: further parts, after those of the comparison.
        commands: that repeat it or continue from it; by default the one in the record.

    Returns:
        The path of `index.html`.
    """
    name = next((row.title for row in comparison.rows if row.model == lifelong), lifelong)
    folder, results, costs = out / "figures", first_seeds(comparison.results), comparison.costs
    read, notes = _attention(comparison, dataset, runs, folder, lifelong=lifelong, title=name)
    calibration = calibration_table(results)
    several = any(row.seeds > 1 for row in comparison.rows)
    first = ["These figures are of each model's first seed, not means over seeds."] if several else []
    curves = {} if runs is None else recorded_curves(comparison, runs)
    parts = [*opening]
    if given := [*comparison.notes, *notes]:
        parts.append(Section("Notes", [f"{note.rstrip('.')}." for note in given]))
    parts.append(_main(comparison, results[0], folder))
    drawn = [figures.metric_by_history(results, folder, always=[name])]
    parts.append(Section("By length of the history", first, [comparison_tables.slices_by_model(results)], drawn))
    if curves:
        parts.append(Section("Training", first, figures=[figures.learning_curves(curves, folder, always=[name])]))
    at = comparison_tables.usual_length(costs.values())
    latency = {model: (cost.latency_ms or {}).get(at) for model, cost in costs.items()}
    state = {model: cost.state_bytes for model, cost in costs.items()}
    drawn = _trade(comparison, latency, folder, "auc-by-latency", f"latency with {at:,} events, ms per request")
    drawn += _trade(comparison, state, folder, "auc-by-state", "state, bytes a user")
    if drawn:
        parts.append(Section("Quality against cost", figures=drawn))
    parts += [*read, *([] if dataset is None else [dataset_section(dataset)])]
    if calibration is not None:
        what = "A calibrator maps raw scores to probabilities at the share of positives of these examples; ranks stay."
        parts.append(Section("Calibration", [what, *first], [calibration]))
    parts += sections
    if code := "\n".join(commands) or comparison.command:
        parts.append(Section("Commands", code=code))
    said = verdict(comparison, lifelong, pair_difference(comparison, lifelong, dataset=dataset, runs=runs))
    return write_page(out, comparison.results, parts, title=title, verdict=said)


def pair_difference(
    comparison: Comparison, lifelong: str, *, dataset: Dataset | None = None, runs: Path | None = None
) -> DifferenceEstimate | None:
    """AUC of the lifelong model minus that of the best other one; None if it cannot be computed.

    It is taken from the record, else computed from the logits of the two models' runs.
    """
    mine, other = rivals(comparison, lifelong)
    if mine is None or other is None:
        return None
    # The record has differences from the reference alone: it may be either of the two.
    if comparison.reference == other.model and mine.differences is not None:
        return mine.differences["auc"]
    if comparison.reference == mine.model and other.differences is not None:
        return _reversed(other.differences["auc"])
    if dataset is None or runs is None:
        return None
    finished = {model: _finished(runs, model) for model in (mine.model, other.model)}
    if not all(finished.values()):
        return None
    gathered = {model: gather(of, dataset) for model, of in finished.items()}
    row = compare(gathered, reference=other.model, resamples=comparison.resamples)[0]
    return None if row.differences is None else row.differences["auc"]


def recorded_curves(comparison: Comparison, runs: Path) -> dict[str, list[tuple[float, float]]]:
    """Title -> (examples, AUC) of each validation of the first seed, for models with a recorded curve."""
    curves = {}
    for row in comparison.rows:
        artifact = _artifact(runs, row.model)
        points = [] if artifact is None else artifact.metrics.get("learning_curve") or []
        if points:
            curves[row.title] = [(point["examples"], point["auc"]) for point in points]
    return curves


def dataset_section(dataset: Dataset) -> Section:
    """A table of sizes, lengths of histories, ties, splits, negatives and cut times."""
    manifest, counts = dataset.manifest, dataset.manifest.counts
    rows: list[list[Cell]] = [[name, counts[name]] for name in ("users", "items", "events") if name in counts]
    length_U = np.diff(np.asarray(dataset.histories.offset_U))
    for name, quantile in {"median": 0.5, "90% quantile": 0.9, "longest": 1.0}.items() if len(length_U) else ():
        rows.append([f"events of a user, {name}", int(np.quantile(length_U, quantile))])
    if isinstance(share := manifest.record.get("ties_share"), int | float):
        rows.append(["events that share their time with the user's event before", Quantity(share, f"{share:.1%}")])
    sizes = [f"{split}_{what}" for split in SPLITS for what in ("examples", "positives")]
    rows += [[size.replace("_", " "), counts[size]] for size in sizes if size in counts]
    rule = manifest.negatives
    drawn = f"{NEGATIVES.get(rule.rule)}; {rule.ratio} per positive, seed {rule.seed}"
    if rule.rule == "none":
        drawn = "none drawn: the labels are logged"
    elif rule.stored and rule.rule == "uniform":
        drawn = f"{_FLIPPED}; seed {rule.seed}"
    rows += [
        ["item fields", ", ".join(dataset.schema.item_fields)],
        ["user fields", ", ".join(dataset.schema.user_fields) or None],
        ["negatives", drawn],
        ["cut times", _cuts(dataset)],
        ["data hash", manifest.data_hash],
    ]
    note = f"{manifest.name}, read as {manifest.source}, split by the protocol {manifest.protocol}."
    return Section("The data set", [note], [Table(["what", "how much"], rows, name="dataset", words=True)])


def _cuts(dataset: Dataset) -> str:
    cuts = dataset.manifest.cut_times
    if not cuts:
        return "none: the split is given"
    if dataset.schema.time_unit != "seconds":
        return ", ".join(str(cut) for cut in cuts)
    return ", ".join(f"{datetime.datetime.fromtimestamp(cut, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC" for cut in cuts)


def _main(comparison: Comparison, first: Result, folder: Path) -> Section:
    counts = first.counts
    note = (
        "Each model was trained until its validation value stopped rising, or a limit was reached. GAUC leaves out "
        f"{counts.one_class_users:,} of {counts.users:,} users ({counts.one_class_share:.1%}) "
        "with targets that are all positive or all negative. Lower is better for log loss, normalised entropy and ECE."
    )
    is_measured = any(value_of(row) is not None for row in comparison.rows)
    drawn = [figures.metric_by_model(comparison.rows, folder)] if is_measured else []
    return Section("All models", [*comparison.gauge, note], [comparison_tables.main_table(comparison)], drawn)


def _trade(
    comparison: Comparison, costs: Mapping[str, float | None], folder: Path, name: str, cost: str
) -> list[Figure]:
    points = {
        row.title: (x, value)
        for row in comparison.rows
        if (x := costs.get(row.model) or 0.0) > 0 and (value := value_of(row)) is not None
    }
    return [figures.quality_against(points, folder, name=name, cost=cost)] if points else []


def _attention(
    comparison: Comparison, dataset: Dataset | None, runs: Path | None, folder: Path, *, lifelong: str, title: str
) -> tuple[list[Section], list[str]]:
    """The case studies; or a note that says why there are none."""
    if dataset is None or runs is None:
        return [], []
    artifact, missing = _artifact(runs, lifelong), f"No case studies of {title}"
    if artifact is None:
        return [], [f"{missing}: it was not trained"]
    try:
        read = read_attention(artifact, dataset, sampled_users(dataset.examples("test")))
    except LifelongError as error:
        return [], [f"{missing}: {error}"]
    return [cases_section(read, dataset, folder, title=title)], []


def _artifact(runs: Path, model: str) -> Artifact | None:
    """The artifact of the first seed that was trained."""
    return next((run.artifact for run in _runs(runs, model) if run.trained), None)


def _finished(runs: Path, model: str) -> list[Run]:
    """The finished runs of one model, by seed."""
    return [run for run in _runs(runs, model) if run.finished]


def _runs(runs: Path, model: str) -> list[Run]:
    """The runs of one model, by seed."""
    pattern = re.compile(rf"{re.escape(model)}-seed(\d+)")
    matches = [match for path in runs.iterdir() if (match := pattern.fullmatch(path.name))]
    return [Run(runs / of[0], model) for of in sorted(matches, key=lambda of: int(of[1]))]


def _reversed(of: DifferenceEstimate) -> DifferenceEstimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    # The ends of the interval change places with their signs.
    return of.model_copy(update={"value": minus(of.value), "low": minus(of.high), "high": minus(of.low)})
