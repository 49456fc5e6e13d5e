from pathlib import Path

import pytest
import torch

from lifelong.dataset.folder import Dataset
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return tiny_dataset(tmp_path / "data")
