"""Whether a model was trained, stopped or calibrated on the period of the examples that it is measured on.

A measurement on the test split says how the model does on what it has not seen. That holds for the dataset of the
training, as its splits are apart, and for data with a test period outside of what the training read. Anything else
is refused, or marked in the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from lifelong.artifact.folder import Artifact
from lifelong.dataset.examples import VAULT, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.periods import in_words, overlaps, period_of
from lifelong.errors import MismatchError
from lifelong.offline.evaluation.vault import held_by

_UNSEEN = ("test", VAULT)


@dataclass(frozen=True, slots=True)
class InSample:
    """What is known about it.

    Args:
        answer: yes or no.
        why: in words, "" where there is nothing to say.
    """

    answer: bool
    why: str = ""


def check_in_sample(artifact: Artifact, dataset: Dataset, split: Split, *, allowed: bool = False) -> InSample:
    """Refuse a test period that the model has seen.

    Args:
        artifact: the finished model.
        dataset: that it is to be measured on.
        split: of the dataset; only "test" and "vault" promise examples that the model has not seen.
        allowed: do not refuse.

    Raises:
        MismatchError: the test period overlaps what the artifact was trained on; names the times.
    """
    found = _found(artifact, dataset, split)
    if found.answer and split in _UNSEEN and not allowed:
        raise MismatchError(
            found.why,
            expected=f"a {split} period that the artifact has not seen",
            fix="measure it on its own dataset or on a later one; --in-sample (in_sample=True) measures it anyway and "
            "marks the result",
        )
    return found


def _found(artifact: Artifact, dataset: Dataset, split: Split) -> InSample:
    config = artifact.config
    own = config.data_hash == dataset.manifest.data_hash
    if own and split not in _UNSEEN:
        return InSample(True, f"the model was {'trained' if split == 'train' else 'selected and calibrated'} on these")
    period = period_of(held_by(dataset, split), split)
    if period is None:
        return InSample(False)
    seconds = dataset.schema.time_unit == "seconds"
    # The dataset of its own training has its splits apart, whatever the times say (`paper`, `given`).
    others = [one for one in config.seen if one.data_hash != dataset.manifest.data_hash]
    parts = [(name, seen) for one in others for name, seen in one.seen.items() if overlaps(period, seen)]
    if parts:
        times = "; ".join(f"{name} read {in_words(seen, seconds=seconds)}" for name, seen in parts)
        here = f"the {split} period of {dataset.folder}, {in_words(period, seconds=seconds)}"
        return InSample(True, f"{here}, overlaps what the artifact saw: {times}")
    return InSample(False)
