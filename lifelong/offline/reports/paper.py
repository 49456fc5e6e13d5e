"""The parts of the page of `lifelong paper`: what of it can be compared with the HPMN paper, and what differs.

Ren et al., "Lifelong Sequential Modeling with Personalized Memorization for User Response Prediction", SIGIR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.dataset.notes import too_small_notes
from lifelong.offline.evaluation.compare import Comparison
from lifelong.offline.evaluation.results import best_first
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Cell, Quantity, Table

WHOLE = 0.95
"""Share of what was published from which on files are taken to be the published ones."""
COMPARED = ("dnn", "svdpp", "gru4rec", "caser", "dien", "rum_item", "lstm", "shan", "hpmn")
"""The nine models of the paper, in its order; RUM in its form that reads items."""
FORMS = ("hpmn", "hpmn_authors")
"""The two forms of HPMN."""


@dataclass(frozen=True, slots=True)
class PaperLog:
    """A data set of the paper.

    Args:
        title: in words.
        published: `users`, `items` or `events` -> how many the published files have.
        recent: events of a history in the paper.
        auc: of HPMN in the paper, from a secondary note.
        remarks: (what, in the paper and its code, here) of this data set alone.
    """

    title: str
    published: Mapping[str, int]
    recent: int
    auc: float
    remarks: Sequence[tuple[str, str, str]] = ()

    def shares(self, dataset: Dataset) -> dict[str, float]:
        """How much of what was published a dataset holds."""
        return {name: dataset.manifest.counts[name] / count for name, count in self.published.items()}

    def is_whole(self, dataset: Dataset) -> bool:
        """Whether the files are the published ones, give or take a few rows."""
        return all(WHOLE <= share <= 2 - WHOLE for share in self.shares(dataset).values())


_SPLIT = (
    "split",
    "one target a user, the last event; the latest 30 % of the users, by its time, are test",
    "the same; of the others the latest 10 % are validation, which the paper does not have",
)
_FLIP = (
    "label",
    "a coin flip: the last item, or in its place another one, uniform over all items of the log",
    "the same, of other random numbers",
)
_TIES = "what a target sees of its own time"
_TIES_SEEN = (_TIES, "all events of the user but the last, also those of the same moment", "the same")

LOGS: dict[str, PaperLog] = {
    "amazon": PaperLog(
        "Amazon Electronics (5-core, 2014)",
        {"users": 192_403, "items": 63_001, "events": 1_689_188},
        100,
        0.7809,
        (_SPLIT, _FLIP, _TIES_SEEN, ("fields of items", "item and category", "the same; the brand is left out")),
    ),
    "taobao": PaperLog(
        "Taobao UserBehavior",
        {"users": 987_994, "items": 4_162_024, "events": 100_150_807},
        300,
        0.9240,
        (
            _SPLIT,
            _FLIP,
            _TIES_SEEN,
            ("behaviours", "any behaviour may be the target; its kind is a field of every event", "the same, but "
             "hpmn_authors is given no kinds"),
            ("rows outside the published days", "not said", "left out (`--set options.window=all` keeps them)"),
        ),
    ),
    "xlong": PaperLog(
        "XLong",
        {"items": 3_269_017},
        1000,
        0.8929,
        (
            ("split", "given: a file for training, one for testing", "the same; a tenth of the training lines, by the "
             "hash of the id, are validation"),
            ("label", "given: a positive and a negative item a line", "the same"),
            ("vectors of items at the start", "given (graph_emb.txt)", "random: the file is not read"),
            ("query of HPMN", "the event before the target", "the same in hpmn_authors; the target in hpmn"),
        ),
    ),
}  # fmt: skip
"""Name of a source -> the data set of the paper that it reads."""

_ALWAYS = (
    ("choice of the weights and of when to stop", "the best on the test split", "the best on validation"),
    ("HPMN", "the released code", "two models: hpmn_authors as released except for that choice, hpmn with a memory "
     "that a service can keep"),
    ("other models", "with heads, sizes and learning rates of their own, searched on the test split", "the models of "
     "this package: one head, one learning rate, nothing searched"),
    ("vectors of items", "one for each item of the log", "one for each item with two training events; rarer ones "
     "share, and 2 % of the occurrences are hidden in training"),
    ("the user's id", "a field of every event and target", "the same in hpmn_authors; no other model has it"),
    ("context (hour, weekday, gap)", "none", "none in the head; events have the gap to the one before where there are "
     "times, but in hpmn_authors"),
)  # fmt: skip


def paper_sections(
    name: str, comparison: Comparison, dataset: Dataset, configs: Mapping[str, RunConfig]
) -> list[Section]:
    """What comes before the parts of the comparison.

    Args:
        name: a key of `LOGS`.
        comparison: the record.
        dataset: it was made on.
        configs: settings of each model.
    """
    log = LOGS[name]
    return [_held(name, comparison, dataset), _data(log, dataset), _differences(log, dataset, configs)]


def verdict(name: str, dataset: Dataset) -> str:
    """Whether figures on this dataset can be compared with the paper's, in a sentence or two."""
    log = LOGS[name]
    shares = log.shares(dataset)
    held = ", ".join(f"{dataset.manifest.counts[of]:,} of {log.published[of]:,} {of}" for of in shares)
    if log.is_whole(dataset):
        return (
            f"The files are as large as the paper's {log.title} ({held}), so these figures can be compared with the "
            "paper's, with the differences that are listed."
        )
    return (
        f"These are not the paper's data: of {log.title} the files have {held}. The protocol, the models and the "
        "settings are as listed, but no figure here can be compared with one of the paper."
    )


def _held(name: str, comparison: Comparison, dataset: Dataset) -> Section:
    log = LOGS[name]
    whole = log.is_whole(dataset)
    rows: list[list[Cell]] = []
    for row in best_first(comparison.rows):
        is_hpmn = row.model in FORMS
        gap = (row.metrics["auc"].value or 0.0) - log.auc
        theirs: Cell = Quantity(log.auc, f"{log.auc:.4f}, not verified") if is_hpmn else "not at hand"
        against: Cell = Quantity(gap, f"{gap:+.4f}".replace("-", "−")) if is_hpmn and whole else None
        among = "yes" if row.model in COMPARED else "yes, the released code" if is_hpmn else "no"
        rows.append([row.title, among, row.metrics["auc"], row.metrics["log_loss"], theirs, against])
    columns = ["model", "in the paper", "AUC here", "log loss here", "AUC in the paper", "here minus paper"]
    caption = (
        "The paper's AUC is known here for HPMN alone, and from a secondary note that was not checked against the "
        "paper. Where the files are not the paper's, nothing is subtracted."
    )
    return Section("Against the paper", [verdict(name, dataset)], [Table(columns, rows, caption, name="paper")])


def _data(log: PaperLog, dataset: Dataset) -> Section:
    shares, counts = log.shares(dataset), dataset.manifest.counts
    rows: list[list[Cell]] = [
        [of, log.published[of], counts[of], Quantity(share, f"{share:.3%}")] for of, share in shares.items()
    ]
    length_U = np.diff(np.asarray(dataset.histories.offset_U))
    longer = float((length_U > log.recent).mean())
    note = (
        f"The paper cuts histories to the last {log.recent:,} events; {longer:.1%} of the {len(length_U):,} histories "
        f"here are longer than that, and the median has {int(np.median(length_U)):,} events."
    )
    small = too_small_notes(dataset.manifest.record)
    table = Table(["what", "published", "in these files", "share"], rows, f"{log.title}.", name="paper-data")
    return Section("How far these are the paper's data", [note, *small], [table])


def _differences(log: PaperLog, dataset: Dataset, configs: Mapping[str, RunConfig]) -> Section:
    rows: list[list[Cell]] = [list(row) for row in (*log.remarks, _lengths(log, configs), *_ALWAYS)]
    settings = dataset.manifest.record.get("settings", {})
    if dataset.manifest.protocol == "paper" and settings.get("ties") != "seen":
        hidden = "those of earlier times alone"
        rows = [[*row[:2], hidden] if row[0] == _TIES else row for row in rows]
    table = Table(["what", "the paper and its code", "here"], rows, name="paper-differences", words=True)
    return Section("What is as in the paper, and what differs", tables=[table])


def _lengths(log: PaperLog, configs: Mapping[str, RunConfig]) -> tuple[str, str, str]:
    by_number: dict[str, list[str]] = {}
    for name, config in configs.items():
        if "sequence" in config.model:
            here = f"the last {config.model['sequence']:,}, the target among them"
        else:
            here = f"the last {config.model['recent']:,}" if "recent" in config.model else "all of them"
        by_number.setdefault(here, []).append(name)
    here = "; ".join(f"{', '.join(some)}: {number}" for number, some in by_number.items())
    return "events that a model reads", f"the last {log.recent:,}", here
