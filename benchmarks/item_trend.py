"""What an item's trend alone can tell under each rule of negatives, on the Complete Journey log.

    python benchmarks/item_trend.py
    python benchmarks/item_trend.py --rules following --windows 2,7,28

Prepares the log once for each rule and measures, without any user, on the stored test examples: AUC of the item's
trend (`item_trend`), AUC of its events of the last 28 days alone, and the share of examples with an item
that nobody had met before, among positives and among negatives. Intervals are over users. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DAYS = 28
"""What counts as recent."""
DAY = 86_400


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default="popularity,windowed,following")
    parser.add_argument("--windows", default="", help="days, for the rules with a window; by default each its own")
    options = parser.parse_args()

    from lifelong.dataset.negatives import WINDOWS

    windows = [float(days) for days in options.windows.split(",") if days]
    found = []
    for rule in options.rules.split(","):
        found += [_measured(rule, days) for days in (windows if rule in WINDOWS and windows else [None])]
    for line in found:
        print("  ".join(f"{name} {value}" for name, value in line.items()))
    print(json.dumps(found))


def _measured(rule: str, days: float | None) -> dict[str, Any]:
    import numpy as np

    from lifelong.offline.preparation.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        more = {} if days is None else {"window": days}
        dataset = prepare("completejourney", out=Path(folder) / "data", negatives=rule, threads=1, **more)
        examples = dataset.examples("test")
        until_N, recent_N = events_before(dataset, examples)
        label_N, user_N = np.asarray(examples.label_NT[:, 0]), np.asarray(examples.user_N)
        positive_N = label_N > 0
        return {
            "rule": rule,
            "days": dataset.manifest.negatives.window,
            "examples": len(examples),
            "trend": _auc(label_N, item_trend(dataset, examples), user_N),
            "recent": _auc(label_N, recent_N, user_N),
            "never met, positives": round(float((until_N[positive_N] == 0).mean()), 4),
            "never met, negatives": round(float((until_N[~positive_N] == 0).mean()), 4),
        }


def events_before(dataset: Any, examples: Any) -> tuple[Any, Any]:
    """How many events each target's item had before it, of all users: in all, and in the last days."""
    import numpy as np

    from lifelong.dataset.histories import count_earlier

    histories, row_N, time_N = dataset.histories, np.asarray(examples.row_N), np.asarray(examples.time_N, np.int64)
    order = np.lexsort((histories.time_N, histories.row_N))
    offset_V = np.searchsorted(np.asarray(histories.row_N)[order], np.arange(len(dataset.catalogue) + 1))
    of_rows = (offset_V, np.asarray(histories.time_N)[order], row_N)
    until_N = count_earlier(*of_rows, time_N)
    return until_N, until_N - count_earlier(*of_rows, time_N - DAYS * DAY)


def item_trend(dataset: Any, examples: Any) -> Any:
    """Logits from the trend of each example's item, `log(recent events + 1) - log(as many days of its usual rate + 1)`.

    Events are those of all users with a strictly earlier time than the target. It knows nothing of the user, so what
    its AUC differs from one half, in either direction, comes from how negatives were drawn.
    """
    import numpy as np

    until_N, recent_N = events_before(dataset, examples)
    passed_N = np.maximum(np.asarray(examples.time_N) - int(np.min(dataset.histories.time_N)), 1)
    return np.log1p(recent_N) - np.log1p(until_N * np.minimum(DAYS * DAY / passed_N, 1.0))


def _auc(label_N: Any, logit_N: Any, user_N: Any) -> Sequence[float]:
    """AUC with its interval over users."""
    from lifelong.offline.evaluation import metrics
    from lifelong.offline.evaluation.metrics import Sample
    from lifelong.offline.evaluation.significance import bootstrap, interval

    drawn = bootstrap({"": Sample.of(label_N, logit_N, user_N)}, resamples=200)[""]["auc"]
    return [round(float(value), 4) for value in (metrics.auc(label_N, logit_N), *interval(drawn))]


if __name__ == "__main__":
    main()
