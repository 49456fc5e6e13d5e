"""The report: one self-contained HTML page, with its tables and figures as files beside it.

OUT/index.html      no outside address, no script; light and dark; readable on a telephone
OUT/results.json    the result records
OUT/figures/        every figure as SVG and PNG
OUT/tables/         every table as Markdown, CSV and LaTeX
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from lifelong.errors import UsageError
from lifelong.evaluation.compare import Comparison
from lifelong.evaluation.results import Estimate, Result, format_duration
from lifelong.reports import figures as draw
from lifelong.reports import tables
from lifelong.reports.drawing import Figure, css_variables
from lifelong.reports.figures import Curve
from lifelong.reports.tables import Table

_NEGATIVES = {
    "popularity": "drawn in proportion to how often items occur in the target's own period",
    "uniform": "drawn uniformly from the items of the target's own period",
    "same_category": "drawn from the positive's own category",
}


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
    figures: Sequence[Figure] = field(default_factory=tuple)
    code: str = ""


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
    shown = list({result.model: result for result in reversed(results)}.values())[::-1]
    folder = out / "figures"
    parts = [_results_section(shown, folder), *_comparison_sections(comparison), _history_section(shown, folder)]
    parts += [*_delay_sections(shown), *_calibration_sections(shown), *_curve_sections(curves, folder), *sections]
    if commands:
        parts.append(Section("Commands", code="\n".join(commands)))
    body = _header(title, [*lead, *summary(shown)], shown[0]) + "".join(_section_html(part) for part in parts)
    out.mkdir(parents=True, exist_ok=True)
    _write_tables(out / "tables", parts)
    records = [result.model_dump(mode="json") for result in results]
    (out / "results.json").write_text(json.dumps(records, indent=2) + "\n")
    path = out / "index.html"
    path.write_text(_document(title, body + _conditions(shown)), encoding="utf-8")
    return path


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
        named = [f"{result.title} {_words(result.metrics['auc'])}" for result in ranked]
        sentences.append(f"AUC, from best to worst: {'; '.join(named)}.")
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
    rule = _NEGATIVES.get(result.negatives.rule)
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
    cells = "".join(f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in facts.items())
    sentences = "".join(f'<p class="lead">{_safe(sentence)}</p>' for sentence in lead)
    return f'<header><h1>{_safe(title)}</h1>{sentences}<dl class="facts">{cells}</dl></header>'


def _section_html(section: Section) -> str:
    paragraphs = "".join(f"<p>{_safe(paragraph)}</p>" for paragraph in section.paragraphs)
    shown = "".join(table.to_html() for table in section.tables)
    drawn = "".join(_figure_html(figure) for figure in section.figures)
    code = f'<pre tabindex="0">{_safe(section.code)}</pre>' if section.code else ""
    return f"<section><h2>{_safe(section.title)}</h2>{paragraphs}{shown}{drawn}{code}</section>"


def _figure_html(figure: Figure) -> str:
    scroll = f'<div class="scroll" tabindex="0" role="group" aria-label="{_safe(figure.title)}">'
    return (
        f"<figure>{scroll}{_inline(figure)}</div>"
        f"<figcaption><strong>{_safe(figure.title)}.</strong> {_safe(figure.caption)}</figcaption></figure>"
    )


def _inline(figure: Figure) -> str:
    """The SVG as part of the page: no prolog, no addresses, ids of its own, a width that follows the page."""
    svg = figure.svg.read_text()
    box = re.search(r'viewBox="([\d.]+ [\d.]+ ([\d.]+) [\d.]+)"', svg)
    assert box is not None, f"{figure.svg} has no viewBox"
    drawn = svg[svg.index(">", box.start()) + 1 :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style>.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'((?: id=")|(?:href="#)|(?:url\(#))', rf"\g<1>{figure.name}-", drawn.replace("xlink:href", "href"))
    # Points to CSS pixels: a figure never grows beyond its natural width.
    width = round(float(box[2]) * 4 / 3)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{_safe(figure.alt)}" style="max-width:{width}px">{drawn}'


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
        f"<details><summary>Settings of {_safe(result.title)}</summary>"
        f'<pre tabindex="0">{_safe(json.dumps(result.config, indent=2, default=str))}</pre></details>'
        for result in results
        if result.config
    )
    section = _section_html(Section("Conditions", paragraphs, [table]))
    return section.replace("</section>", f"{settings}</section>")


def _write_tables(folder: Path, parts: Sequence[Section]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for place, table in enumerate(part.tables):
            stem = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-") or "table"
            stem = f"{stem}-{place + 1}" if len(part.tables) > 1 else stem
            (folder / f"{stem}.md").write_text(table.to_markdown())
            (folder / f"{stem}.csv").write_text(table.to_csv())
            (folder / f"{stem}.tex").write_text(table.to_latex())


def _document(title: str, body: str) -> str:
    style = css_variables(":root") + resources.files("lifelong.reports").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{_safe(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _safe(value: str) -> str:
    return html.escape(value, quote=True)
