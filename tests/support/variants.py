"""Another artifact or dataset from one that there is: other embeddings, other times. Needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.artifact.manifest import make_manifest
from lifelong.dataset.folder import Dataset, write_manifest


def other_artifact(artifact: Artifact, out: Path, *, seed: int = 1) -> Artifact:
    """Copy an artifact and change its embedding tables, so that memories and scores are others.

    Args:
        artifact: of a model that is served.
        out: the new folder.
        seed: of the change.
    """
    shutil.copytree(artifact.path, out)
    rng = np.random.default_rng(seed)
    for path in sorted((out / "tables").glob("*.npy")):
        table = np.load(path)
        np.save(path, table + rng.normal(0, 0.5, table.shape).astype(np.float32))
    (out / "manifest.json").write_text(make_manifest(out).model_dump_json())
    return Artifact.open(out)


def moved(dataset: Dataset, out: Path, seconds: int) -> Dataset:
    """The same log, with every time so much later."""
    shutil.copytree(dataset.folder, out)
    for path in [out / "histories" / "time.npy", *(out / "examples").glob("*/time.npy")]:
        np.save(path, np.load(path) + seconds)
    hashed, cuts = f"moved by {seconds}", tuple(cut + seconds for cut in dataset.manifest.cut_times)
    write_manifest(out, dataset.manifest.model_copy(update={"data_hash": hashed, "cut_times": cuts}))
    return Dataset(out)
