"""Writes `tests/assets/tiny_artifact`, which lets tests run where torch is not installed.

Make it anew when the form of an artifact or a default of HPMN changes: `python tests/assets/make_tiny_artifact.py`.
"""

import shutil
import tempfile
from pathlib import Path

from support.artifacts import tiny_artifact

from lifelong.testing.datasets import tiny_dataset

OUT = Path(__file__).parent / "tiny_artifact"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tiny_artifact(OUT, tiny_dataset(Path(folder) / "data"))


if __name__ == "__main__":
    main()
