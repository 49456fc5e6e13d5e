"""What tests of whole runs share: a tiny dataset, and artifacts without graphs, which take seconds to write."""

import pytest


@pytest.fixture(scope="module")
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Of the sizes that a module names in `DATASET`."""
    from lifelong.testing.datasets import tiny_dataset

    sizes = getattr(request.module, "DATASET", {"num_users": 20})
    return tiny_dataset(tmp_path_factory.mktemp("tiny"), **sizes)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Lets the training of a model fail."""
    from lifelong.offline.training import trainer

    real = trainer.train

    def fail(failing: str) -> None:
        def train(dataset, model, *words, **options):
            if model == failing:
                raise ValueError("no luck")
            return real(dataset, model, *words, **options)

        monkeypatch.setattr(trainer, "train", train)

    return fail


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Here, so that a module that is skipped without torch still is.
    from support.artifacts import empty_graphs

    from lifelong.offline.export import saving

    monkeypatch.setattr(saving, "write_graphs", empty_graphs)
