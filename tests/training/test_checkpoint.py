"""The state of an unfinished run on disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lifelong.config import TrainSettings
from lifelong.errors import ConfigError, DataError, UsageError
from lifelong.offline.training.checkpoint import (
    Checkpoint,
    CurvePoint,
    Fingerprint,
    Progress,
    State,
)
from lifelong.offline.training.optimiser import Optimiser, build_optimiser

POINT = CurvePoint(examples=7, seconds=0.1, train_loss=1 / 3, auc=0.6, log_loss=0.5)
STATE = State(
    Progress(epoch=1, batch=2, examples=7, seconds={"train": 0.1}, loss_sum=1 / 3, curve=[POINT], best=0),
    {"weight": torch.tensor([1.0, 2.0])},
    {"weight": torch.tensor([3.0, 4.0])},
    {(0, "step"): torch.tensor(5.0), (10, "exp_avg"): torch.tensor([[6.0]])},
)


def fingerprint(*, data_hash: str = "abc", width: int = 32, **train: object) -> Fingerprint:
    return Fingerprint(
        data_hash=data_hash,
        model="hpmn",
        settings={"width": width},
        train=TrainSettings.model_validate(train).model_dump(),
    )


def test_what_was_saved_comes_back_exactly(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "out", fingerprint())
    checkpoint.save(STATE)
    found = checkpoint.load()
    assert found.progress == STATE.progress
    for name in ("model", "best", "optimiser"):
        mine, theirs = getattr(STATE, name), getattr(found, name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_it_stands_beside_the_artifact_and_can_be_deleted(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "my.artifact", fingerprint())
    assert not checkpoint.exists()
    checkpoint.save(STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["my.artifact.checkpoint"]
    checkpoint.delete()
    assert not any(tmp_path.iterdir())


def test_newer_state_replaces_the_older_in_one_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "out", fingerprint())
    checkpoint.save(STATE)
    checkpoint.save(State(Progress(examples=99), {}, {}, {}))
    assert checkpoint.load().progress.examples == 99
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.safetensors"]


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint in"):
        Checkpoint(tmp_path / "out", fingerprint()).load()


def test_other_settings_and_data_are_refused_by_name(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "out", fingerprint()).save(STATE)
    other = fingerprint(data_hash="xyz", width=48, learning_rate=0.1).model_copy(update={"start": "0123456789abcdef"})
    with pytest.raises(ConfigError) as caught:
        Checkpoint(tmp_path / "out", other).load()
    assert caught.value.problems == [
        "the dataset's hash was 'abc', now 'xyz'",
        "the start was 'initial weights', now 'artifact 0123456789ab'",
        "model.width was 32, now 48",
        f"train.learning_rate was {TrainSettings().learning_rate}, now 0.1",
    ]


def test_settings_that_change_no_number_may_differ(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "out", fingerprint()).save(STATE)
    Checkpoint(tmp_path / "out", fingerprint(threads=2, max_minutes=3.0)).load()


@pytest.mark.parametrize("content", [b"", b"nonsense, and more than eight bytes of it"])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    checkpoint = Checkpoint(tmp_path / "out", fingerprint())
    checkpoint.save(STATE)
    checkpoint.path.write_bytes(content)
    with pytest.raises(DataError, match=r"state\.safetensors is damaged"):
        checkpoint.load()


def test_optimiser_steps_on_as_if_never_interrupted() -> None:
    def step(model: nn.Linear, optimiser: Optimiser) -> None:
        optimiser.zero_grad()
        torch.autograd.backward(model(torch.tensor([[1.0, -2.0]])).square().sum())
        optimiser.step()

    torch.manual_seed(0)
    straight = nn.Linear(2, 1)
    first = build_optimiser(straight, TrainSettings())
    step(straight, first)
    resumed = nn.Linear(2, 1)
    resumed.load_state_dict(straight.state_dict())
    second = build_optimiser(resumed, TrainSettings())
    second.restore({key: value.clone() for key, value in first.tensors().items()})
    step(straight, first)
    step(resumed, second)
    assert torch.equal(straight.weight, resumed.weight)
