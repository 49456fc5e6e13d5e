"""A small result record with invented numbers, for tests of what is made from results."""

from __future__ import annotations

from lifelong.data.dataset import NegativeRule
from lifelong.evaluation.metrics import METRICS, length_slices
from lifelong.evaluation.results import Counts, DelayResult, Estimate, Kind, Result, SliceResult


def made_result(model: str = "hpmn", *, title: str = "HPMN", auc: float = 0.7, kind: Kind = "score") -> Result:
    """A record of 100 examples of 8 users, two of them with one class; the slice "1000+" is empty.

    Args:
        model: registry name.
        title: name in tables.
        auc: of all examples; the slices lie .01 above, the intervals reach .02 to both sides.
        kind: what the numbers are.
    """
    return Result(
        model=model,
        title=title,
        artifact_id=f"{model}-id",
        data_hash="0123abcd",
        dataset="tiny",
        protocol="temporal",
        negatives=NegativeRule(rule="popularity" if kind == "score" else "none"),
        split="test",
        task="response",
        kind=kind,
        delay=0,
        metrics=_metrics(auc),
        calibrated=_metrics(auc),
        slices=[_slice(name, auc + 0.01) for name in length_slices([])],
        unseen=_slice("unseen", auc - 0.1),
        delays=[DelayResult(delay=delay, metrics=_metrics(auc)) for delay in (0, 3600)],
        counts=Counts(examples=100, positives=50, users=8, one_class_users=2, one_class_examples=5),
        resamples=10,
        seed=0,
        seconds=1.5,
        peak_memory=2**30,
        versions={"python": "3.11.0"},
        config={"run": {"train": {"seed": 0}}},
    )


def _metrics(auc: float) -> dict[str, Estimate]:
    return {name: Estimate(value=auc, low=auc - 0.02, high=auc + 0.02) for name in METRICS}


def _slice(name: str, auc: float) -> SliceResult:
    if name == "1000+":
        empty = {metric: Estimate(value=None, reason="no examples") for metric in METRICS}
        return SliceResult(name=name, examples=0, positives=0, users=0, metrics=empty)
    return SliceResult(name=name, examples=20, positives=10, users=4, metrics=_metrics(auc))
