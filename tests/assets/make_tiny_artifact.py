"""Writes `tests/assets/tiny_artifact`: an untrained HPMN with periods 1, 2, 4 on `tiny_dataset`.

It lets tests run where torch is not installed. Make it anew when the form of an artifact changes:
`python tests/assets/make_tiny_artifact.py`.
"""

import shutil
import tempfile
from pathlib import Path

import torch

from lifelong.artifact.calibration import Calibrator
from lifelong.artifact.export import write_artifact
from lifelong.models import build
from lifelong.testing.datasets import tiny_dataset

OUT = Path(__file__).parent / "tiny_artifact"
SETTINGS = {"embedding": 4, "width": 8, "periods": [1, 2, 4], "hops": 2}


def main() -> None:
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        dataset = tiny_dataset(Path(folder) / "data")
        model = build("hpmn", dataset.inputs, SETTINGS)
        calibrator = Calibrator(a=1.0, b=0.0, sampled_rate=0.5)
        write_artifact(OUT, model, dataset, run={"model": SETTINGS}, metrics={}, calibrator=calibrator)


if __name__ == "__main__":
    main()
