"""The report: one self-contained HTML page, with its tables and figures as files beside it.

OUT/index.html      no outside address, no script; light and dark; readable on a telephone
OUT/results.json    the result records
OUT/figures/        every figure as SVG and PNG
OUT/tables/         every table as Markdown, CSV, LaTeX and JSON
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from lifelong.errors import UsageError
from lifelong.evaluation.compare import Comparison
from lifelong.evaluation.results import Estimate, Result, format_duration
from lifelong.reports import figures as draw
from lifelong.reports import tables
from lifelong.reports.dataset import NEGATIVES
from lifelong.reports.drawing import css_variables
from lifelong.reports.figures import Curve
from lifelong.reports.sections import Section as Section
from lifelong.reports.sections import safe, write_tables
from lifelong.reports.study import Findings, study_sections
from lifelong.reports.tables import Table

_NAMED = 6
"""Models that the first sentences name at most."""


def write_report(
    out: Path,
    results: Sequence[Result],
    *,
    title: str = "Results",
    lead: Sequence[str] = (),
    comparison: Comparison | None = None,
    curves: Mapping[str, Curve] | None = None,
    sections: Sequence[Section] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write the page, its figures and its tables.

    Args:
        out: folder; files of an earlier report in it are replaced.
        results: one per model; of several seeds of one model, the first is shown.
        title: of the page.
        lead: sentences before the generated ones.
        comparison: adds differences to a reference.
        curves: model -> learning curve.
        sections: further parts, after the results.
        commands: exact commands, to do it again and to go on.

    Returns:
        The path of `index.html`.

    Raises:
        UsageError: there is no result.
        MissingExtraError: matplotlib is not installed.
    """
    if not results:
        raise UsageError("a report of no results", expected="at least one result")
    shown, folder = first_seeds(results), out / "figures"
    if comparison is not None and comparison.costs:
        parts = study_sections(Findings(comparison, curves or {}), folder)
    else:
        parts = [_results_section(shown, folder), *_comparison_sections(comparison), _history_section(shown, folder)]
        parts += [*_delay_sections(shown), *_calibration_sections(shown), *_curve_sections(curves, folder)]
    parts += sections
    if commands:
        parts.append(Section("Commands", code="\n".join(commands)))
    return write_page(out, results, parts, title=title, lead=lead)


def write_page(
    out: Path, results: Sequence[Result], parts: Sequence[Section], *, title: str, lead: Sequence[str] = ()
) -> Path:
    """Write given parts, their tables, and the records of the results.

    Args:
        out: folder.
        results: all that the page tells of.
        parts: in their order; a part on the conditions follows.
        title: of the page.
        lead: sentences before the generated ones.

    Returns:
        The path of `index.html`.
    """
    shown = first_seeds(results)
    body = _header(title, [*lead, *summary(shown)], shown[0]) + "".join(part.to_html() for part in parts)
    out.mkdir(parents=True, exist_ok=True)
    write_tables(out / "tables", parts)
    records = [result.model_dump(mode="json") for result in results]
    (out / "results.json").write_text(json.dumps(records, indent=2) + "\n")
    path = out / "index.html"
    path.write_text(_document(title, body + _conditions(shown)), encoding="utf-8")
    return path


def first_seeds(results: Sequence[Result]) -> list[Result]:
    """One result per model: of several seeds, the first."""
    return list({result.model: result for result in reversed(results)}.values())[::-1]


def summary(results: Sequence[Result]) -> list[str]:
    """What the results say, in plain sentences."""
    first = results[0]
    counts = first.counts
    sentences = [
        f"Each model was asked about {counts.examples:,} targets of {counts.users:,} users in the {first.split} split "
        f"of {first.dataset}, {counts.positives:,} of them positive, and saw only what happened before each target."
    ]
    ranked = sorted(
        (result for result in results if result.metrics["auc"].value is not None),
        key=lambda result: -(result.metrics["auc"].value or 0.0),
    )
    if ranked:
        named = [f"{result.title} {_words(result.metrics['auc'])}" for result in ranked[:_NAMED]]
        rest = f"; {len(ranked) - _NAMED} more stand in the table" if len(ranked) > _NAMED else ""
        sentences.append(f"AUC, from best to worst: {'; '.join(named)}{rest}.")
        sentences.append(
            "AUC is the chance that a target with a response is scored above one without; 0.5 is guessing. "
            "The brackets are 95 % intervals over resampled users."
        )
    sentences.append(_meaning(first))
    return sentences


def _words(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _meaning(result: Result) -> str:
    if result.kind == "probability":
        return "Labels are logged responses, so the models' numbers are probabilities of a response."
    rule = NEGATIVES.get(result.negatives.rule)
    drawn = f" Negatives were {rule}, {result.negatives.ratio} per positive." if rule else ""
    return (
        "The models' numbers are scores: they rank, but they are not rates of response, because the share of positives "
        f"here is that of the sample.{drawn}"
    )


def _results_section(results: Sequence[Result], folder: Path) -> Section:
    figures = []
    if any(result.metrics["auc"].value is not None for result in results):
        figures.append(draw.metric_by_model(results, folder))
    one_class = results[0].counts
    note = (
        f"GAUC is the AUC inside each user, averaged with her number of targets. {one_class.one_class_users:,} of "
        f"{one_class.users:,} users ({one_class.one_class_share:.1%}) have positives only or negatives only and are "
        "left out of it. Lower is better for log loss, normalised entropy and ECE; predicted / observed is best at 1."
    )
    return Section("How well each model ranks and predicts", [note], [tables.metrics_table(results)], figures)


def _comparison_sections(comparison: Comparison | None) -> list[Section]:
    if comparison is None or len(comparison.rows) < 2:
        return []
    note = (
        "Differences are measured on the same users: a positive AUC difference, or a negative log loss difference, is "
        "in favour of the row's model. With a small p-value the difference is more than chance in who was sampled."
    )
    return [Section("Differences", [note], [tables.comparison_table(comparison), tables.tests_table(comparison)])]


def _history_section(results: Sequence[Result], folder: Path) -> Section:
    figures = [draw.metric_by_history(results, folder)] if any(part.examples for part in results[0].slices) else []
    note = "Does a long history help? The targets, sorted by how many events their users had before them."
    return Section("By length of the history", [note], [tables.slices_table(results)], figures)


def _delay_sections(results: Sequence[Result]) -> list[Section]:
    table = tables.delays_table(results)
    note = "Memories in production lag. Here events younger than the delay were hidden from the model."
    return [] if table is None else [Section("With delayed events", [note], [table])]


def _calibration_sections(results: Sequence[Result]) -> list[Section]:
    table = tables.calibration_table(results)
    note = "A calibrator maps raw scores to probabilities at the share of positives of these examples; ranks stay."
    return [] if table is None else [Section("Calibration", [note], [table])]


def _curve_sections(curves: Mapping[str, Curve] | None, folder: Path) -> list[Section]:
    if not curves or not any(len(curve.value) for curve in curves.values()):
        return []
    return [Section("Training", figures=[draw.learning_curves(curves, folder)])]


def _header(title: str, lead: Sequence[str], result: Result) -> str:
    facts = {
        "Dataset": result.dataset,
        "Protocol": result.protocol,
        "Negatives": result.negatives.rule,
        "Split": result.split,
        "Numbers are": {"score": "scores", "probability": "probabilities"}[result.kind],
        "Newest events hidden": format_duration(result.delay) if result.delay else "none",
    }
    cells = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in facts.items())
    sentences = "".join(f'<p class="lead">{safe(sentence)}</p>' for sentence in lead)
    return f'<header><h1>{safe(title)}</h1>{sentences}<dl class="facts">{cells}</dl></header>'


def _conditions(results: Sequence[Result]) -> str:
    first = results[0]
    rows: list[list[tables.Cell]] = [
        [
            result.title,
            result.artifact_id or "–",
            f"{result.seconds:.1f} s",
            f"{result.peak_memory / 2**30:.2f} GiB",
        ]
        for result in results
    ]
    table = Table(["model", "artifact", "scoring took", "peak memory"], rows)
    software = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    paragraphs = [
        f"Data hash {first.data_hash}. {first.resamples:,} resamples of the users, seed {first.seed}. Drawing of "
        f"negatives: rule {first.negatives.rule}, ratio {first.negatives.ratio}, seed {first.negatives.seed}.",
        f"Software: {software}.",
    ]
    settings = "".join(
        f"<details><summary>Settings of {safe(result.title)}</summary>"
        f'<pre tabindex="0">{safe(json.dumps(result.config, indent=2, default=str))}</pre></details>'
        for result in results
        if result.config
    )
    section = Section("Conditions", paragraphs, [table]).to_html()
    return section.replace("</section>", f"{settings}</section>")


def _document(title: str, body: str) -> str:
    style = css_variables(":root") + resources.files("lifelong.reports").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{safe(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )
