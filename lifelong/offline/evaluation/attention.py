"""Attention of a trained model over its memory slots, and the ages of the events that are related to a target.

A *related* event has the target's item, or its category (the item field with such a name, else the first field). Its
*age* is counted in events: 1 is the last event before the target.

Shapes: N examples, S slots, L events before one target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import UsageError
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.models.base import Model

EXAMPLES = 30_000
"""About how many examples are read, of whole users drawn at random."""
SAME_CATEGORY, SAME_ITEM = 1, 2


@dataclass(frozen=True, slots=True)
class ReadAttention:
    """Targets of some users as one model reads them.

    Args:
        examples: the targets.
        logit_N: logits of the first task.
        attention_NS: attention of the first hop; 0 for empty slots.
        periods: of the slots, ascending.
        count_N: related events before the target.
        latest_N: age of the latest related event, 0 without one.
        oldest_N: age of the oldest, 0 without one.
    """

    examples: Examples
    logit_N: FloatArray
    attention_NS: FloatArray
    periods: tuple[int, ...]
    count_N: IntArray
    latest_N: IntArray
    oldest_N: IntArray

    @property
    def filled(self) -> IntArray:
        """Slots that were written at least once."""
        position_N1 = np.asarray(self.examples.position_N)[:, None]
        filled_N: IntArray = (position_N1 >= np.asarray(self.periods)).sum(1)
        return filled_N


def sampled_users(examples: Examples, *, most: int = EXAMPLES, seed: int = 0) -> Examples:
    """All examples of users drawn at random, until there are `most` examples."""
    users, count = np.unique(np.asarray(examples.user_N), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    before = np.cumsum(count[order]) - count[order]
    return examples.take(np.flatnonzero(np.isin(np.asarray(examples.user_N), users[order[before < most]])))


def read_attention(artifact: Artifact, dataset: Dataset, examples: Examples) -> ReadAttention:
    """Run a model over examples and record how much each target reads from each slot.

    Args:
        artifact: of a model with slots that are written periodically.
        dataset: with the histories.
        examples: the targets.

    Raises:
        UsageError: the model has no slots with periods.
        MismatchError: the dataset does not fit the model.
    """
    from lifelong.offline.export.saving import load_model

    check_fits(artifact, dataset)
    model = load_model(artifact)
    periods = tuple(artifact.config.settings.get("periods", ()))
    if not periods or not isinstance(model, Model):
        raise UsageError(
            f"{artifact.config.title} has no slots with periods",
            expected="a model such as hpmn",
            fix="train a model with slots, such as hpmn; `lifelong models` says which these are",
        )
    logit_N, attention_NS = np.zeros(len(examples)), np.zeros((len(examples), len(periods)))
    with torch.inference_mode():
        for batch in evaluation_batches(dataset, examples, counts=model.exact is not None):
            chosen_BC, output = batch.mask_BC & (batch.example_BC >= 0), model(batch)
            place = batch.example_BC[chosen_BC].numpy()
            logit_N[place] = output.logit_BCT[..., 0][chosen_BC].numpy()
            attention_NS[place] = output.attention_BCS[chosen_BC].numpy()
    ages = [_ages(dataset, examples, at) for at in range(len(examples))]
    count_N, latest_N, oldest_N = np.array(ages, np.int64).reshape(-1, 3).T
    return ReadAttention(examples, logit_N, attention_NS, periods, count_N, latest_N, oldest_N)


def category_field(dataset: Dataset) -> str | None:
    """The item field that makes events related: one with such a name, else the first; None if items have none."""
    fields = dataset.schema.item_fields[1:]
    return next((name for name in fields if "categor" in name.lower()), fields[0] if fields else None)


def relation(dataset: Dataset, examples: Examples, at: int) -> npt.NDArray[np.int8]:
    """How each event before one target is related to it: `SAME_ITEM`, `SAME_CATEGORY` or 0; int8 `[L]`."""
    start = dataset.histories.of(int(examples.user_N[at])).start
    row_L = np.asarray(dataset.histories.row_N[start : start + int(examples.position_N[at])])
    row, field = int(examples.row_N[at]), category_field(dataset)
    related_L = np.zeros(len(row_L), np.int8)
    if field is not None:
        column = dataset.schema.item_fields.index(field)
        number_V = dataset.catalogue.number_VF[:, column]
        # All unknown categories share a number, but are not the same category.
        if number_V[row] >= dataset.vocabularies[field].first_known:
            related_L[number_V[row_L] == number_V[row]] = SAME_CATEGORY
    related_L[row_L == row] = SAME_ITEM
    return related_L


def _ages(dataset: Dataset, examples: Examples, at: int) -> tuple[int, int, int]:
    """Number of related events, age of the latest, age of the oldest."""
    related_L = relation(dataset, examples, at)
    place = np.flatnonzero(related_L)
    return (len(place), len(related_L) - int(place[-1]), len(related_L) - int(place[0])) if len(place) else (0, 0, 0)
