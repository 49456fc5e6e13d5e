"""Models of this package beside public implementations of them: the same data, test examples and labelled examples.

    python -m venv DIR && DIR/bin/pip install torch-rechub fuxictr
    python benchmarks/public_models.py --public DIR/bin/python --models sim_soft eta sdim twin --rates 0.001

Complete Journey, all item fields, the last events of a history, vectors of 16, one pass over labelled training
examples, Adam, one thread. torch-rechub's DIN, and DIN, DIEN, SIM, ETA, SDIM and TWIN of FuxiCTR (model_zoo.LongCTR),
come with their own embedding, attention, head, loss and initial weights, at two learning rates; ours with the settings
of benchmarks/completejourney.toml, with vectors that begin at random and as factors. All are trained in batches of 256
targets, so that they take as many steps. AUC on test examples of whole users. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from train_throughput import rechub_din

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from lifelong.dataset.examples import Examples
    from lifelong.dataset.folder import Dataset

SETTINGS = Path(__file__).parent / "completejourney.toml"
BATCH = 256
BATCHES = (f"train.batch_targets={BATCH}", "train.batch_events=1024", "train.max_targets=32")
PUBLIC = {
    "din": ("torch-rechub DIN", "fuxictr DIN"),
    "dien": ("fuxictr DIEN",),
    "sim_soft": ("fuxictr SIM",),
    "eta": ("fuxictr ETA",),
    "sdim": ("fuxictr SDIM",),
    "twin": ("fuxictr TWIN",),
}
"""A model of this package, and its public implementations."""

Fields = dict[str, "NDArray[np.int64]"]


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


class Rechub:
    """torch-rechub's DIN, with a loss of its own for a batch."""

    def __init__(self, model: str, sizes: Mapping[str, int], rate: float) -> None:
        import torch

        self._model = rechub_din(dict(sizes))
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=rate)

    def _answer(self, past: Fields, item: Fields) -> torch.Tensor:
        import torch

        found = {name: torch.from_numpy(number_B) for name, number_B in item.items()}
        return self._model(found | {f"h_{name}": torch.from_numpy(number_BL) for name, number_BL in past.items()})

    def learn(self, past: Fields, item: Fields, label_B: NDArray[np.float32]) -> None:
        """Take a step."""
        import torch

        loss = torch.nn.functional.binary_cross_entropy(self._answer(past, item), torch.from_numpy(label_B))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def answer(self, past: Fields, item: Fields) -> NDArray[np.float32]:
        """Probabilities."""
        import torch

        self._model.eval()
        with torch.no_grad():
            return self._answer(past, item).numpy()


class Fuxictr:
    """A model of FuxiCTR's LongCTR, whose `train_step` takes the steps; an embedding for each field, padded before."""

    def __init__(self, model: str, sizes: Mapping[str, int], rate: float) -> None:
        from fuxictr.features import FeatureMap
        from model_zoo import LongCTR

        fields = FeatureMap("complete-journey", tempfile.gettempdir())
        fields.labels, fields.default_emb_dim = ["label"], 16
        fields.features.update(
            {
                name: {"source": "item", "type": "categorical", "vocab_size": size, "padding_idx": 0}
                for name, size in sizes.items()
            }
        )
        # What BaseModel wants to know although nothing is saved, and the sums that DIEN's authors' code has.
        needed = {"verbose": 0, "model_root": tempfile.gettempdir(), "metrics": ["AUC"], "enable_sum_pooling": True}
        self._model = getattr(LongCTR, model)(
            fields, embedding_dim=16, optimizer="adam", loss="binary_crossentropy", learning_rate=rate, **needed
        )
        self._model._max_gradient_norm, self._model._batch_index = 10.0, 0

    def _inputs(self, past: Fields, item: Fields, label_B: NDArray[np.float32]) -> Any:
        import torch

        joined = {name: np.concatenate([past[name], number_B[:, None]], axis=1) for name, number_B in item.items()}
        rows = {name: torch.from_numpy(number_BL.reshape(-1)) for name, number_BL in joined.items()}
        mask_BL = torch.from_numpy(next(iter(past.values())) > 0).float()
        return {"label": torch.from_numpy(label_B)}, rows, mask_BL

    def learn(self, past: Fields, item: Fields, label_B: NDArray[np.float32]) -> None:
        """Take a step."""
        self._model.train()
        self._model.train_step(self._inputs(past, item, label_B))

    def answer(self, past: Fields, item: Fields) -> NDArray[np.float32]:
        """Probabilities."""
        import torch

        self._model.eval()
        nothing_B = np.zeros(len(next(iter(item.values()))), dtype=np.float32)
        with torch.no_grad():
            return self._model(self._inputs(past, item, nothing_B))["y_pred"].numpy()[:, 0]


def public(folder: Path, contender: str, rate: float) -> None:
    """Train and score a public model; run by an interpreter that has it and needs nothing of this package."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    number_VF = np.load(folder / "numbers.npy")
    names = [f"field{place}" for place in range(number_VF.shape[1])]
    sizes = dict(zip(names, (number_VF.max(axis=0) + 1).tolist(), strict=True))
    library, _, name = contender.partition(" ")
    model = (Rechub if library == "torch-rechub" else Fuxictr)(name, sizes, rate)
    parts = ("history", "target", "label")
    arrays = {(name, part): np.load(folder / f"{name}-{part}.npy") for name in ("train", "test") for part in parts}

    def fields(name: str, part: str, chosen_B: NDArray[np.int64]) -> Fields:
        number = number_VF[arrays[name, part][chosen_B]]
        return {field: np.ascontiguousarray(number[..., place]) for place, field in enumerate(names)}

    def batches(name: str, order_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return iter(np.array_split(order_N, max(1, len(order_N) // BATCH)))

    label_N = arrays["train", "label"].astype(np.float32)
    for chosen_B in batches("train", np.random.default_rng(0).permutation(len(label_N))):
        model.learn(fields("train", "history", chosen_B), fields("train", "target", chosen_B), label_N[chosen_B])
    asked_N = np.arange(len(arrays["test", "label"]))
    found = [
        model.answer(fields("test", "history", chosen_B), fields("test", "target", chosen_B))
        for chosen_B in batches("test", asked_N)
    ]
    np.save(folder / "answers.npy", np.concatenate(found))


def theirs(folder: Path, python: str, contender: str, rate: float) -> NDArray[np.float64]:
    """Logits of a public model, trained and asked by an interpreter that has it."""
    subprocess.run([python, __file__, "--child", str(folder), contender, str(rate)], check=True)
    probability_N = np.load(folder / "answers.npy").astype(np.float64).clip(1e-7, 1 - 1e-7)
    return np.log(probability_N / (1 - probability_N))


def ours(
    dataset: Dataset, test: Examples, model: str, vectors: str, options: argparse.Namespace
) -> NDArray[np.float64]:
    """Logits of a model of this package."""
    from lifelong.cli.model_settings import model_configs
    from lifelong.offline.evaluation.evaluate import predict
    from lifelong.offline.export.saving import load_model
    from lifelong.offline.training.trainer import train

    limits = {"max_examples": options.examples, "validate_every": options.examples // 2}
    changes = [f"{model}.train.{name}={value}" for name, value in limits.items()]
    changes += [f"train.initial_vectors={vectors}", "train.calibration_examples=20000", *BATCHES, "train.threads=1"]
    # SDIM's sums hold the whole history.
    changes += [] if model == "sdim" else [f"{model}.recent={options.recent}"]
    config = model_configs([model], [SETTINGS], changes)[model]
    with tempfile.TemporaryDirectory() as name:
        artifact = train(dataset, model, Path(name) / model, config=config, progress=False)
        return predict(load_model(artifact), dataset, test, threads=1)[:, 0]


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public", required=True, help="python that has torch-rechub and fuxictr")
    parser.add_argument("--models", nargs="+", choices=PUBLIC, default=list(PUBLIC), help="of this package")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.001, 0.003], help="of learning, of public models")
    parser.add_argument("--examples", type=int, default=200_000, help="labelled examples of each training")
    parser.add_argument("--recent", type=int, default=200, help="events of a history")
    parser.add_argument("--test-users", type=int, default=300)
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        public(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
        return
    options = arguments()

    from lifelong.dataset.folder import Dataset
    from lifelong.dataset.negatives import labelled_training_examples
    from lifelong.offline.evaluation.compare import Runs, compare
    from lifelong.offline.evaluation.metrics import Sample, auc
    from lifelong.offline.preparation.prepare import prepare

    record: dict[str, object] = {"examples": options.examples, "recent": options.recent}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = Dataset(options.data or prepare("completejourney", [], folder / "data").folder)
        whole = dataset.examples("test")
        chosen_U = np.random.default_rng(0).choice(np.unique(whole.user_N), options.test_users, replace=False)
        test = whole.take(np.flatnonzero(np.isin(whole.user_N, chosen_U)))
        labelled = labelled_training_examples(dataset, seed=0, limit=options.examples)
        write(folder, "train", dataset, labelled, options.recent)
        write(folder, "test", dataset, test, options.recent)

        def measured(contender: str, answer: Callable[[], NDArray[np.float64]]) -> Sample:
            began = time.perf_counter()
            sample = Sample.of(test.label_NT[:, 0], answer(), test.user_N)
            seconds, value = time.perf_counter() - began, auc(sample.label, sample.logit)
            record[contender] = {"auc": round(value, 4), "seconds": round(seconds, 1)}
            print(f"{contender:40} AUC {value:.4f}   {seconds:.0f} s", flush=True)
            return sample

        for model in options.models:
            others = {}
            for contender, rate in itertools.product(PUBLIC[model], options.rates):
                named = f"{contender}, learning rate {rate}"
                others[named] = measured(named, partial(theirs, folder, options.public, contender, rate))
            random, first = f"lifelong {model}, random vectors", f"lifelong {model}, cooccurrence vectors"
            others[random] = measured(random, partial(ours, dataset, test, model, "random", options))
            best = measured(first, partial(ours, dataset, test, model, "cooccurrence", options))
            for other, sample in others.items():
                runs = {first: Runs(first, [best]), other: Runs(other, [sample])}
                found = compare(runs, reference=other)[0].differences["auc"]
                record[f"{first} less {other}"] = [found.value, found.low, found.high]
                print(f"{first} less {other}: {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})", flush=True)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
