"""Another artifact from one that there is: the same model with other embeddings. Needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from lifelong.artifact.folder import Artifact, make_manifest


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
