"""DIN of this package beside DIN of torch-rechub: the same data, test examples and number of labelled examples.

    python -m venv DIR && DIR/bin/pip install torch-rechub
    python benchmarks/public_din.py --public DIR/bin/python --examples 200000

Complete Journey, all item fields, the last events of a history, vectors of 16, one pass over labelled training
examples, Adam, one thread. torch-rechub's DIN comes with its own embedding, attention, head and initial weights, and is
trained in batches of 256, at two learning rates; ours with the settings of benchmarks/completejourney.toml, with
vectors that begin at random and as factors. AUC on test examples of whole users. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from train_throughput import rechub_din

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples

SETTINGS = Path(__file__).parent / "completejourney.toml"
RATES = (0.001, 0.003)


def write(folder: Path, name: str, dataset: Dataset, examples: Examples, recent: int) -> None:
    """Padded histories, targets and labels, as arrays that need nothing of this package."""
    number_VF, histories = np.asarray(dataset.catalogue.number_VF), dataset.histories
    end_N = np.asarray(histories.offset_U)[examples.user_N] + examples.position_N
    place_NL = end_N[:, None] - np.arange(recent, 0, -1)
    there_NL = place_NL >= end_N[:, None] - examples.position_N[:, None]
    row_NL = np.where(there_NL, np.asarray(histories.row_N)[np.maximum(place_NL, 0)], 0)
    np.save(folder / f"{name}-history.npy", row_NL)
    np.save(folder / f"{name}-target.npy", np.asarray(examples.row_N))
    np.save(folder / f"{name}-label.npy", np.asarray(examples.label_NT[:, 0]))
    np.save(folder / "numbers.npy", number_VF.astype(np.int64))


def rechub(folder: Path, rate: float) -> None:
    """Train and score with torch-rechub alone; run by an interpreter that has it."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    number_VF = np.load(folder / "numbers.npy")
    names = [f"field{place}" for place in range(number_VF.shape[1])]
    sizes = dict(zip(names, (number_VF.max(axis=0) + 1).tolist(), strict=True))
    model = rechub_din(sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def fields(name: str, chosen_B: np.ndarray) -> dict[str, torch.Tensor]:
        past, item = number_VF[arrays[name, "history"][chosen_B]], number_VF[arrays[name, "target"][chosen_B]]
        found = {field: torch.from_numpy(item[:, place]) for place, field in enumerate(names)}
        return found | {f"h_{field}": torch.from_numpy(past[..., place]) for place, field in enumerate(names)}

    parts = ("history", "target", "label")
    arrays = {(name, part): np.load(folder / f"{name}-{part}.npy") for name in ("train", "test") for part in parts}
    label_N = arrays["train", "label"]
    for chosen_B in np.array_split(np.random.default_rng(0).permutation(len(label_N)), len(label_N) // 256):
        answer = model(fields("train", chosen_B))
        loss = torch.nn.functional.binary_cross_entropy(answer, torch.from_numpy(label_N[chosen_B]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    asked_N = np.arange(len(arrays["test", "label"]))
    with torch.no_grad():
        found = [model(fields("test", chosen_B)).numpy() for chosen_B in np.array_split(asked_N, len(asked_N) // 256)]
    np.save(folder / "answers.npy", np.concatenate(found))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        rechub(Path(sys.argv[2]), float(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public", required=True, help="python that has torch-rechub")
    parser.add_argument("--examples", type=int, default=200_000, help="labelled examples of each training")
    parser.add_argument("--recent", type=int, default=100, help="events of a history")
    parser.add_argument("--test-users", type=int, default=300)
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    options = parser.parse_args()

    from lifelong.artifact.export import load_model
    from lifelong.cli.model_settings import model_configs
    from lifelong.data.dataset import Dataset
    from lifelong.data.labelled import labelled_training_examples
    from lifelong.data.prepare import prepare
    from lifelong.evaluation.evaluate import predict
    from lifelong.evaluation.metrics import Sample, auc
    from lifelong.evaluation.significance import compare_pair
    from lifelong.training.trainer import train

    record: dict[str, object] = {"examples": options.examples, "recent": options.recent}
    samples: dict[str, Sample] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = Dataset(options.data or prepare("completejourney", [], folder / "data").folder)
        whole = dataset.examples("test")
        chosen_U = np.random.default_rng(0).choice(np.unique(whole.user_N), options.test_users, replace=False)
        test = whole.take(np.flatnonzero(np.isin(whole.user_N, chosen_U)))
        write(
            folder,
            "train",
            dataset,
            labelled_training_examples(dataset, seed=0, limit=options.examples),
            options.recent,
        )
        write(folder, "test", dataset, test, options.recent)

        def keep(contender: str, logit_N: np.ndarray, seconds: float) -> None:
            samples[contender] = Sample.of(test.label_NT[:, 0], logit_N, test.user_N)
            value = auc(samples[contender].label, samples[contender].logit)
            record[contender] = {"auc": round(value, 4), "seconds": round(seconds, 1)}
            print(f"{contender:32} AUC {value:.4f}   {seconds:.0f} s", flush=True)

        for rate in RATES:
            began = time.perf_counter()
            subprocess.run([options.public, __file__, "--child", str(folder), str(rate)], check=True)
            probability_N = np.load(folder / "answers.npy").astype(np.float64).clip(1e-7, 1 - 1e-7)
            logit_N = np.log(probability_N / (1 - probability_N))
            keep(f"torch-rechub, learning rate {rate}", logit_N, time.perf_counter() - began)
        for vectors in ("random", "cooccurrence"):
            limits = [f"din.train.max_examples={options.examples}", f"din.train.validate_every={options.examples // 2}"]
            changes = [f"train.initial_vectors={vectors}", f"din.recent={options.recent}", *limits]
            began = time.perf_counter()
            config = model_configs(["din"], [SETTINGS], changes, threads=1)["din"]
            artifact = train(dataset, "din", folder / vectors, config=config, progress=False)
            logit_NT = predict(load_model(artifact), dataset, test, threads=1)
            keep(f"lifelong, {vectors} vectors", logit_NT[:, 0], time.perf_counter() - began)
    first, *others = [name for name in samples if name.startswith("lifelong")][::-1] + list(samples)[:2]
    for other in others:
        found = compare_pair(samples[first], samples[other])["auc"]
        record[f"{first} less {other}"] = [found.value, found.low, found.high]
        print(f"{first} less {other}: {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
