"""What the compiled GRU scan changes in a trained `hpmn`: test AUC after the same labelled examples, beside `nn.GRU`.

    python benchmarks/scan_accuracy.py --examples 600000

Both trainings have the same seed, batches and initial weights, on Complete Journey with the demo's settings of `hpmn`,
one thread; they differ in rounding alone, which many steps of training make larger. The difference is paired, its
interval by bootstrap over users. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def plain_pass(gru: nn.GRU, input_BLE: Tensor, length_B: Tensor) -> Tensor:
    """What `gru_scan` computes, by torch's own pass."""
    hidden_BLD: Tensor = gru(input_BLE)[0]
    return hidden_BLD


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=600_000, help="labelled examples of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    options = parser.parse_args()

    from lifelong.cli.demo import TRAINED
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.evaluation.compare import Runs, compare
    from lifelong.offline.evaluation.evaluate import predict
    from lifelong.offline.evaluation.metrics import Sample, auc
    from lifelong.offline.export.saving import load_model
    from lifelong.offline.nn import scan
    from lifelong.offline.preparation.prepare import prepare
    from lifelong.offline.training.trainer import train

    samples: dict[str, Sample] = {}
    record: dict[str, object] = {"examples": options.examples, "seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(options.data or prepare("completejourney", [], Path(folder) / "data").folder)
        examples = dataset.examples("test")
        limits = [
            "train.threads=1",
            "train.initial_vectors=random",
            f"train.seed={options.seed}",
            f"train.max_examples={options.examples}",
        ]
        config = load_config(None, [*TRAINED["hpmn"], *limits])
        compiled = scan.gru_scan
        for name, form in (("scan", compiled), ("nn.GRU", plain_pass)):
            scan.gru_scan = form
            start = time.process_time()
            artifact = train(dataset, "hpmn", Path(folder) / name.replace(".", "_"), config=config, progress=False)
            seconds = time.process_time() - start
            scan.gru_scan = compiled
            logit_NT = predict(load_model(artifact), dataset, examples, threads=1)
            samples[name] = Sample.of(examples.label_NT[:, 0], logit_NT[:, 0], examples.user_N)
            value = auc(samples[name].label, samples[name].logit)
            record[name] = {"test_auc": round(value, 5), "processor_seconds": round(seconds, 1)}
            print(f"{name:8} test AUC {value:.4f}   {seconds:.0f} processor seconds", flush=True)
    runs = {name: Runs(name, [sample]) for name, sample in samples.items()}
    difference = compare(runs, reference="nn.GRU")[0].differences["auc"]
    record["difference"] = {"value": difference.value, "low": difference.low, "high": difference.high}
    print(f"scan less nn.GRU: {difference.value:+.5f} ({difference.low:+.5f} to {difference.high:+.5f})")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
