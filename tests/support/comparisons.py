"""A comparison of many models with invented numbers, for tests of what is made from comparisons."""

from __future__ import annotations

from lifelong.offline.evaluation.compare import Comparison, ComparisonRow, Cost, DifferenceEstimate, Spread
from lifelong.offline.evaluation.metrics import METRICS
from lifelong.offline.evaluation.results import Estimate
from support.results import made_result

TITLES = {
    "hpmn": "HPMN",
    "popularity": "Item popularity",
    "counts": "Target counts",
    "gbdt": "LightGBM on exact counts",
    "lr": "LR",
    "fm": "FM",
    "mf": "MF",
    "fpmc": "FPMC",
    "dnn": "DNN",
    "svdpp": "SVD++",
    "gru4rec": "GRU4Rec",
    "caser": "Caser",
    "hstu": "HSTU",
    "shan": "SHAN",
    "memn2n": "MemN2N",
    "attrec": "AttRec",
    "din": "DIN",
    "dien": "DIEN",
    "sim": "SIM",
    "ubr4ctr": "UBR4CTR",
    "eta": "ETA",
    "sdim": "SDIM",
    "twin": "TWIN",
    "lstm": "LSTM",
    "mingru": "minGRU",
    "mimn": "MIMN",
    "rum_item": "RUM, item level",
    "rum_feature": "RUM, feature level",
    "topfreq": "GP-TopFreq",
    "upcf": "UP-CF",
    "tifu_knn": "TIFU-KNN",
    "recanet": "ReCANet",
}


def made_study(*, models: int = 28, p_value: float = 0.002) -> Comparison:
    """A comparison with everything: costs.

    HPMN, the reference, has AUC .70, the others .69, .68 and on down to .52; so HPMN is best. DNN hit a limit; the
    popularity floor has no state, no latency and was fitted.

    Args:
        models: how many; HPMN is the first.
        p_value: of every difference.
    """
    names = list(TITLES)[:models]
    auc = {name: max(0.70 - 0.01 * place, 0.52) for place, name in enumerate(names)}
    rows = [_row(name, auc[name], auc["hpmn"], p_value) for name in names]
    return Comparison(
        reference="hpmn",
        resamples=1000,
        seed=0,
        rows=rows,
        results=[made_result(name, title=TITLES[name], auc=auc[name]) for name in names],
        costs={name: _cost(name, place) for place, name in enumerate(names)},
        command="lifelong compare data --models all --seeds 3 --out report",
        notes=["spare is left out: the data has no event types"],
    )


def _row(name: str, auc: float, reference: float, p_value: float) -> ComparisonRow:
    gap = None if name == "hpmn" else _gap(auc - reference, p_value)
    return ComparisonRow(
        model=name,
        title=TITLES[name],
        seeds=2,
        metrics=_metrics(auc),
        spread=dict.fromkeys(METRICS, Spread(values=[auc - 0.001, auc + 0.001])),
        differences=None if gap is None else dict.fromkeys(METRICS, gap),
        mann_whitney_p=1e-9,
        t_p=None if name == "hpmn" else 0.03,
    )


def _cost(name: str, place: int) -> Cost:
    floor = name == "popularity"
    latency = {100: 0.5 + 0.1 * place, 1_000: 0.6 + 0.3 * (place % 9), 10_000: 0.7 + 2.0 * (place % 9)}
    return Cost(
        parameters=None if floor else 1_200_000 + 10_000 * place,
        examples_seen=None if floor else 3_000_000,
        train_seconds=0.8 if floor else 600.0 * (1 + place),
        examples_per_second=None if floor else 9_000.0 / (1 + place),
        stopped_by="fitted" if floor else "time" if name == "dnn" else "patience",
        hit_limit=name == "dnn",
        state_bytes=None if floor else 200 * 2 ** (place % 8),
        latency_ms=None if floor else latency,
    )


def _metrics(auc: float) -> dict[str, Estimate]:
    return {name: Estimate(value=auc, low=auc - 0.005, high=auc + 0.005) for name in METRICS}


def _gap(value: float, p_value: float) -> DifferenceEstimate:
    return DifferenceEstimate(value=value, low=value - 0.004, high=value + 0.004, p_value=p_value)
