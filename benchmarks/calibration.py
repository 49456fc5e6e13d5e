"""How well the scores of two models are calibrated, as trained and as served, on the runs of `lifelong compare`.

    lifelong compare data --models tally,gbdt --config benchmarks/completejourney.toml --out report
    python benchmarks/calibration.py --data data --first report/runs/tally-seed* --second report/runs/gbdt-seed*

Each run's calibrator is fitted on all validation examples and judged on the test examples. Means over the runs of a
model; the intervals of differences, first less second, are by a bootstrap over users that is paired. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation.calibration import fit_calibrator
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.evaluation.metrics import Sample, all_metrics
from lifelong.offline.evaluation.significance import bootstrap, interval
from lifelong.offline.export.saving import load_model

METRICS = ("ece", "log_loss")


def samples(dataset: Dataset, runs: Sequence[Path]) -> dict[str, list[Sample]]:
    """Test scores of each run, as trained and as served."""
    validation, test = dataset.examples("validation"), dataset.examples("test")
    label_N, user_N = test.label_NT[:, 0], np.asarray(test.user_N)
    found: dict[str, list[Sample]] = {"trained": [], "served": []}
    for run in runs:
        logit_N = np.load(run / "logits-test.npy").reshape(len(test), -1)[:, 0].astype(np.float64)
        model = load_model(Artifact.open(run / "artifact", verify="sizes"))
        fitted = fit_calibrator(predict(model, dataset, validation, threads=1)[:, 0], validation.label_NT[:, 0])
        assert fitted is not None, f"no calibrator of {run}"
        found["trained"].append(Sample.of(label_N, logit_N, user_N))
        found["served"].append(Sample.of(label_N, fitted.logit(logit_N), user_N))
        print(f"{run.name}: slopes {fitted.a:.3f} and {fitted.above or fitted.a:.3f}", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the prepared dataset of the runs")
    parser.add_argument("--first", type=Path, nargs="+", required=True, help="runs of one model")
    parser.add_argument("--second", type=Path, nargs="+", required=True, help="runs of the other")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    dataset, record = Dataset(options.data), dict[str, object]()
    of_model = [samples(dataset, runs) for runs in (options.first, options.second)]
    for form in ("trained", "served"):
        named = [{f"{place}-{k}": one for k, one in enumerate(of[form])} for place, of in enumerate(of_model)]
        drawn = bootstrap(named[0] | named[1], resamples=options.resamples)
        for metric in METRICS:
            values = [float(np.mean([all_metrics(one)[metric] for one in of.values()])) for of in named]
            of_draws = [np.mean([drawn[name][metric] for name in of], axis=0) for of in named]
            low, high = interval(of_draws[0] - of_draws[1])
            record[f"{form} {metric}"] = [*values, values[0] - values[1], low, high]
            print(
                f"{form}: {metric} {values[0]:.4f} and {values[1]:.4f}, "
                f"difference {values[0] - values[1]:+.4f} ({low:+.4f} to {high:+.4f})",
                flush=True,
            )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
