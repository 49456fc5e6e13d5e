"""What tests of whole runs share: a tiny dataset, and artifacts without graphs, which take seconds to write."""

import pytest


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    from lifelong.testing.datasets import tiny_dataset

    return tiny_dataset(tmp_path_factory.mktemp("tiny"), num_users=20)


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Here, so that a module that is skipped without torch still is.
    from support.artifacts import empty_graphs

    from lifelong.offline.export import saving

    monkeypatch.setattr(saving, "write_graphs", empty_graphs)
