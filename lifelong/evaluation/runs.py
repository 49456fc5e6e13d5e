"""The runs of a comparison: each is trained and scored once, kept in a folder of its own, and never done again.

    OUT/runs/NAME/run.json, artifact/, logits-<split>.npy, result-<split>.json          written in this order

Each of them appears whole or not at all, so that after an interruption, kill -9 too, what is there counts: a run with a
result is finished, one with an artifact is only scored, one with a checkpoint goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.data.examples import Split
from lifelong.errors import MismatchError, UsageError
from lifelong.evaluation.compare import Comparison, Runs, compare
from lifelong.evaluation.metrics import FloatArray, Sample
from lifelong.evaluation.results import Result
from lifelong.evaluation.significance import RESAMPLES

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

Train = Callable[[str, int, Path], Artifact]
"""(model name, seed, artifact folder) -> trained artifact."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training of one model, and its scores.

    Args:
        folder: where everything of it is kept.
        model: name.
        seed: of the training.
        split: what is scored.
        resamples: of the users, for its own intervals.
        settings: kept beside the run, so that a run with other settings is not taken for this one.
    """

    folder: Path
    model: str
    seed: int
    split: Split = "test"
    resamples: int = RESAMPLES
    settings: Any = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether it was trained and scored."""
        return self._result_path.exists()

    @property
    def result(self) -> Result:
        """Its measured record.

        Raises:
            DataError: it is not finished.
        """
        return Result.load(self._result_path)

    @property
    def logits(self) -> FloatArray:
        """Logits `[N, T]` of the split's examples."""
        logit_NT: FloatArray = np.load(self._logit_path).astype(np.float64)
        return logit_NT

    @property
    def artifact(self) -> Artifact:
        """What was trained.

        Raises:
            ArtifactError: it was not.
        """
        return Artifact.open(self.folder / "artifact", verify="sizes")

    @property
    def trained(self) -> bool:
        """Whether there is an artifact; it is put in place whole."""
        return (self.folder / "artifact" / "manifest.json").is_file()

    def claim(self, dataset: Dataset) -> None:
        """Write what the folder is for, or check that it is for the same.

        Raises:
            MismatchError: it holds a run on other data or with other settings.
        """
        path = self.folder / "run.json"
        wanted = {"data_hash": dataset.manifest.data_hash, "settings": self.settings}
        text = json.dumps(wanted, sort_keys=True, default=str, indent=2)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, text + "\n")
        elif json.loads(path.read_text()) != json.loads(text):
            raise MismatchError(
                f"{self.folder} holds a run on other data or with other settings",
                expected="runs of this comparison alone",
                fix="choose another --out, or delete that folder",
            )

    def finish(self, dataset: Dataset, train: Train) -> None:
        """Train and score what is not there yet."""
        if self.finished:
            return
        artifact = self.artifact if self.trained else train(self.model, self.seed, self.folder / "artifact")
        self._score(dataset, artifact)

    def _score(self, dataset: Dataset, artifact: Artifact) -> None:
        from lifelong.artifact.export import load_model
        from lifelong.evaluation import evaluate

        evaluate.check_fits(artifact, dataset)
        model, examples, start = load_model(artifact), dataset.examples(self.split), time.perf_counter()
        logit_NT = evaluate.predict(model, dataset, examples)
        seconds = time.perf_counter() - start
        scored = evaluate.scored_by(artifact, dataset, {0: logit_NT}, split=self.split, seconds=seconds)
        np.save(self._logit_path, logit_NT)
        origin = replace(evaluate.origin_of(artifact), model=self.model)
        result = evaluate.record(scored, origin, resamples=self.resamples)
        replace_text(self._result_path, result.model_dump_json(indent=2) + "\n")

    @property
    def _logit_path(self) -> Path:
        return self.folder / f"logits-{self.split}.npy"

    @property
    def _result_path(self) -> Path:
        return self.folder / f"result-{self.split}.json"


def gather(runs: Sequence[Run], dataset: Dataset) -> Runs:
    """The scores of finished runs of one model, as `compare` takes them."""
    examples = dataset.examples(runs[0].split)
    samples = [Sample.of(examples.label_NT[:, 0], run.logits[:, 0], examples.user_N) for run in runs]
    return Runs(runs[0].result.title, samples)


def replace_text(path: Path, text: str) -> None:
    """Write a file that is there whole or, after a crash, as it was."""
    fresh = path.with_name(f"{path.name}.unfinished")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `run_all` runs.

    Args:
        models: names, in the order of the rows.
        seeds: each model is trained once per seed.
        reference: whom the others are compared with; the first model by default.
        split: what is scored.
        settings: model -> settings of its runs; kept beside each run.
        resamples: of the users.
    """

    models: Sequence[str]
    seeds: Sequence[int] = (0,)
    reference: str | None = None
    split: Split = "test"
    settings: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = RESAMPLES


def run_all(
    dataset: Dataset, out: Path, plan: Plan, *, train: Train, progress: Callable[[str], None] | None = None
) -> Comparison:
    """Train and score what is not finished in `out` yet, one after another, then compare.

    Args:
        dataset: prepared.
        out: where runs and `comparison.json` are kept.
        plan: models, seeds, split.
        train: trains one model into a folder, or goes on where an interrupted run stopped.
        progress: is told what starts.

    Raises:
        MismatchError: `out` holds runs on other data or with other settings.
        UsageError: no models, or no seeds.
    """
    if not plan.models or not plan.seeds:
        raise UsageError("nothing to compare", expected="at least one model and one seed")
    runs = {
        model: [
            Run(out / "runs" / f"{model}-seed{seed}", model, seed, plan.split, plan.resamples, plan.settings.get(model))
            for seed in plan.seeds
        ]
        for model in dict.fromkeys(plan.models)
    }
    every = [run for of in runs.values() for run in of]
    for run in every:
        if progress is not None:
            progress(f"{run.model}, seed {run.seed}")
        run.claim(dataset)
        run.finish(dataset, train)
    reference = plan.reference or plan.models[0]
    gathered = {model: gather(of, dataset) for model, of in runs.items()}
    comparison = Comparison(
        reference=reference,
        resamples=plan.resamples,
        seed=0,
        rows=compare(gathered, reference=reference, resamples=plan.resamples),
        results=[run.result for run in every],
    )
    comparison.save(out / "comparison.json")
    return comparison
