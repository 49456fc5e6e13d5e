"""`verify` refuses a log whose numbers mean something else."""

from pathlib import Path

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.errors import MismatchError
from lifelong.online.memory.verify import verify
from lifelong.online.store.opening import open_store
from lifelong.testing.datasets import tiny_dataset


def test_a_dataset_with_another_vocabulary_is_refused_before_anything_is_folded(
    artifact: Artifact, tmp_path: Path
) -> None:
    other = tiny_dataset(tmp_path / "data", num_items=80)
    store = open_store("memory://")
    with pytest.raises(MismatchError, match="the field 'item' has"):
        verify(artifact, other, store)
    assert store.artifact_list().identity is None
