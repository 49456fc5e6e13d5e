"""The report: one self-contained HTML page, with its tables and figures as files next to it.

OUT/index.html      no outside address, one script whose hash is in its policy; light and dark; readable on a phone
OUT/results.json    the result records
OUT/figures/        every figure as SVG and PNG
OUT/tables/         every table as Markdown, CSV, LaTeX and JSON
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from lifelong.evaluation.compare import ComparisonRow
from lifelong.evaluation.results import Result, best_first, format_duration, value_of
from lifelong.reports import tables
from lifelong.reports.dataset import FLIPPED, NEGATIVES
from lifelong.reports.drawing import css_variables
from lifelong.reports.sections import Section, safe, write_tables
from lifelong.reports.tables import Quantity, Table, brief, first_seeds

_NAMED = 6
"""The largest number of models named in the first sentences."""


def write_page(
    out: Path,
    results: Sequence[Result],
    parts: Sequence[Section],
    *,
    title: str,
    verdict: Sequence[str] = (),
    lead: Sequence[str] = (),
    ranked: Sequence[ComparisonRow] = (),
) -> Path:
    """Write given parts, their tables, and the records of the results.

    Args:
        out: folder.
        results: all that the page reports.
        parts: in their order; a part on the conditions follows.
        title: of the page.
        verdict: sentences right after the title: what a reader should do.
        lead: sentences before the generated ones.
        ranked: means over seeds, where there are several; else the first seeds are named.

    Returns:
        The path of `index.html`.
    """
    shown = first_seeds(results)
    body = _header(title, verdict, [*lead, *summary(shown, ranked)], shown[0]) + "".join(
        part.to_html() for part in parts
    )
    out.mkdir(parents=True, exist_ok=True)
    write_tables(out / "tables", parts)
    records = [result.model_dump(mode="json") for result in results]
    (out / "results.json").write_text(json.dumps(records, indent=2) + "\n")
    path = out / "index.html"
    path.write_text(_document(title, body + _conditions(shown)), encoding="utf-8")
    return path


def summary(results: Sequence[Result], rows: Sequence[ComparisonRow] = ()) -> list[str]:
    """What the results say, in plain sentences.

    Args:
        results: one per model.
        rows: their means over seeds.
    """
    first = results[0]
    counts = first.counts
    sentences = [
        f"Each model was asked about {counts.examples:,} targets of {counts.users:,} users in the {first.split} split "
        f"of {first.dataset}, {counts.positives:,} of them positive, and saw only what happened before each target."
    ]
    every: Sequence[Result | ComparisonRow] = rows or results
    ranked = [of for of in best_first(every) if value_of(of) is not None]
    if ranked:
        seeds = sorted({row.seeds for row in rows})
        means = f" (means over {' or '.join(map(str, seeds))} seeds)" if seeds and seeds[-1] > 1 else ""
        over = "users and seeds" if means else "users"
        named = [f"{result.title} {brief(result.metrics['auc'])}" for result in ranked[:_NAMED]]
        rest = f"; {len(ranked) - _NAMED} more are in the table" if len(ranked) > _NAMED else ""
        sentences.append(f"AUC{means}, from best to worst: {'; '.join(named)}{rest}.")
        sentences.append(
            "AUC is the chance that a target with a response is scored above one without; 0.5 is guessing. "
            f"The brackets are 95 % intervals over resampled {over}."
        )
    sentences.append(_meaning(first))
    return sentences


def _meaning(result: Result) -> str:
    if result.kind == "probability":
        return "Labels are logged responses, so the models' numbers are probabilities of a response."
    rule = NEGATIVES.get(result.negatives.rule)
    drawn = f" Negatives were {rule}, {result.negatives.ratio} per positive." if rule else ""
    if result.negatives.stored and result.negatives.rule == "uniform":
        drawn = f" Labels are {FLIPPED}."
    return (
        "The models' numbers are scores: they rank, but they are not rates of response, because the share of positives "
        f"here is that of the sample.{drawn}"
    )


def _header(title: str, verdict: Sequence[str], lead: Sequence[str], result: Result) -> str:
    facts = {
        "Dataset": result.dataset,
        "Protocol": result.protocol,
        "Negatives": result.negatives.rule,
        "Split": result.split,
        "Numbers are": {"score": "scores", "probability": "probabilities"}[result.kind],
        "Newest events hidden": format_duration(result.delay) if result.delay else "none",
    }
    cells = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in facts.items())
    first = (
        f'<p class="verdict"><strong>{safe(verdict[0])}</strong> {safe(" ".join(verdict[1:]))}</p>' if verdict else ""
    )
    sentences = "".join(f'<p class="lead">{safe(sentence)}</p>' for sentence in lead)
    return f'<header><h1>{safe(title)}</h1>{first}{sentences}<dl class="facts">{cells}</dl></header>'


def _conditions(results: Sequence[Result]) -> str:
    first = results[0]
    rows: list[list[tables.Cell]] = [
        [
            result.title,
            result.artifact_id or "–",
            Quantity(result.seconds, f"{result.seconds:.1f} s"),
            Quantity(result.peak_memory, f"{result.peak_memory / 2**30:.2f} GiB"),
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
    style, script = (resources.files("lifelong.reports").joinpath(name).read_text() for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is loaded and no other script runs, whatever a name in the data holds; figures have styles of their own.
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{safe(title)}</title><style>{css_variables(':root')}{style}</style></head>"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )
