"""Small result records with invented numbers, for tests of what is made from results."""

from __future__ import annotations

from lifelong.dataset.folder import NegativeRule
from lifelong.offline.evaluation.compare import Comparison, ComparisonRow, DifferenceEstimate, Spread
from lifelong.offline.evaluation.metrics import METRICS, length_slices
from lifelong.offline.evaluation.results import Counts, DelayResult, Estimate, Kind, Result, SliceResult


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
        repeats=[_slice("repeat", auc + 0.02), _slice("explore", auc - 0.05)],
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


def made_comparison() -> Comparison:
    """Two models with two seeds; "counts" is the reference, hpmn lies .0123 below with p = .004."""
    difference = DifferenceEstimate(value=-0.0123, low=-0.02, high=-0.0041, p_value=0.004)
    rows = [_row("counts", "Target counts", None), _row("hpmn", "HPMN", difference)]
    results = [made_result("counts", title="Target counts"), made_result()]
    return Comparison(reference="counts", resamples=10, seed=0, rows=rows, results=results)


def _row(model: str, title: str, difference: DifferenceEstimate | None) -> ComparisonRow:
    return ComparisonRow(
        model=model,
        title=title,
        seeds=2,
        metrics=_metrics(0.67),
        spread=dict.fromkeys(METRICS, Spread(values=[0.66, 0.68])),
        differences=None if difference is None else dict.fromkeys(METRICS, difference),
        mann_whitney_p=0.0001,
        t_p=None if difference is None else 0.04,
    )
