"""The dataset of a comparison in one table, and items by names that people read."""

from __future__ import annotations

import datetime

import numpy as np

from lifelong.data.dataset import Dataset
from lifelong.data.examples import SPLITS
from lifelong.reports.sections import Section
from lifelong.reports.tables import Cell, Quantity, Table

NEGATIVES = {
    "popularity": "drawn in proportion to how often items occur in the target's own period",
    "uniform": "drawn uniformly from the items of the target's own period",
    "windowed": "drawn in proportion to how often items occur around the target in time",
    "following": "drawn in proportion to how often items occur from the target's time on",
}
"""How negatives are drawn, in words."""
FLIPPED = "a coin flip a user, made once: the last item, or in its place another one, uniform over all items of the log"
"""How the examples of the HPMN paper's protocol come by their labels, in words."""
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def dataset_section(dataset: Dataset) -> Section:
    """A table of sizes, lengths of histories, ties, splits, negatives and cut times."""
    manifest = dataset.manifest
    note = f"{manifest.name}, read as {manifest.source}, split by the protocol {manifest.protocol}."
    return Section("The data set", [note], [Table(["what", "how much"], _rows(dataset), name="dataset")])


def _rows(dataset: Dataset) -> list[list[Cell]]:
    manifest, counts = dataset.manifest, dataset.manifest.counts
    rows: list[list[Cell]] = [[name, counts[name]] for name in ("users", "items", "events") if name in counts]
    length_U = np.diff(np.asarray(dataset.histories.offset_U))
    for quantile in _QUANTILES if len(length_U) else ():
        name = {0.5: "median", 1.0: "longest"}.get(quantile, f"{quantile:.0%} quantile")
        rows.append([f"events of a user, {name}", int(np.quantile(length_U, quantile))])
    share = ties_share(dataset)
    rows.append(["events that share their time with the user's event before", Quantity(share, f"{share:.1%}")])
    for split in SPLITS:
        if f"{split}_examples" in counts:
            rows.append([f"{split} examples", counts[f"{split}_examples"]])
            rows.append([f"{split} positives", counts[f"{split}_positives"]])
    rows.append(["item fields", ", ".join(dataset.schema.item_fields)])
    if dataset.schema.user_fields:
        rows.append(["user fields", ", ".join(dataset.schema.user_fields)])
    rows.append(["negatives", _negatives(dataset)])
    rows.append(["cut times", _cuts(dataset)])
    rows.append(["data hash", manifest.data_hash])
    return rows


def item_label(dataset: Dataset, item: str, field: str | None) -> str:
    """An item as a person reads it: the value of one of its fields, and its id.

    Args:
        dataset: with the vocabularies.
        item: id.
        field: of the items; None, or "item" itself, for the id alone.
    """
    if field in (None, "item"):
        return item
    number = int(dataset.catalogue.numbers([item])[0, dataset.schema.item_fields.index(field)])
    value = dataset.vocabularies[field].value_of(number)
    return f"{value} ({item})" if value else item


def ties_share(dataset: Dataset) -> float:
    """Share of events with the same time as the user's previous event; as recorded in preparation, else counted."""
    recorded = dataset.manifest.record.get("ties_share")
    if isinstance(recorded, int | float):
        return float(recorded)
    time_N, offset_U = np.asarray(dataset.histories.time_N), np.asarray(dataset.histories.offset_U)
    same_N = np.zeros(len(time_N), bool)
    same_N[1:] = time_N[1:] == time_N[:-1]
    # The event before a user's first one is another user's.
    same_N[offset_U[:-1][offset_U[:-1] < len(time_N)]] = False
    return float(same_N.mean()) if len(same_N) else 0.0


def _negatives(dataset: Dataset) -> str:
    rule = dataset.manifest.negatives
    if rule.rule == "none":
        return "none drawn: the labels are logged"
    if rule.stored and rule.rule == "uniform":
        return f"{FLIPPED}; seed {rule.seed}"
    return f"{NEGATIVES[rule.rule]}; {rule.ratio} per positive, seed {rule.seed}"


def _cuts(dataset: Dataset) -> str:
    cuts = dataset.manifest.cut_times
    if not cuts:
        return "none: the split is given" if dataset.user_cuts is None else "each user's own"
    if dataset.schema.time_unit != "seconds":
        return ", ".join(str(cut) for cut in cuts)
    return ", ".join(f"{datetime.datetime.fromtimestamp(cut, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC" for cut in cuts)
