"""When a run validates and when it ends, on made-up validations and with a made-up clock."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lifelong.config import RunConfig, TrainSettings, load_config
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.offline.training import loop
from lifelong.offline.training.checkpoint import CurvePoint, Progress
from lifelong.offline.training.loop import has_fallen, impatient, validation_due
from lifelong.offline.training.settings import with_recipe
from lifelong.offline.training.trainer import train

pytestmark = pytest.mark.usefixtures("no_graphs")

IGNORANT = 0.6931
LEARNT_BY_HEART = (0.352, 0.349, 0.3505, 0.3605, 0.3613, 0.3605, 0.3668, 0.3668, 0.3724, 0.3740)
"""Log losses of `tally` on a log of 50,000 events of 2,500 users, a quarter of an epoch apart."""
RISES = (0.5709, 0.5604, 0.5468, 0.5467, 0.5526, 0.5378, 0.5371, 0.5420, 0.5370, 0.5369)


def after(losses: Sequence[float], *, seconds: float = 10.0, steps: int = 0) -> Progress:
    """A run with these validations; the higher the AUC, the lower the log loss."""
    curve = [
        CurvePoint(examples=100 * place, seconds=seconds * place, train_loss=None, auc=1 - loss, log_loss=loss)
        for place, loss in enumerate(losses, start=1)
    ]
    return Progress(curve=curve, best=int(np.argmin(losses)), steps=steps, seconds={"train": seconds * len(curve)})


def ends(losses: Sequence[float], settings: TrainSettings) -> int | None:
    """After how many of these validations a run ends by a fall; None for never."""
    fallen = (size for size in range(1, len(losses) + 1) if has_fallen(after(losses[:size]), settings, IGNORANT))
    return next(fallen, None)


@pytest.mark.parametrize(
    ("losses", "patience", "wanted"),
    [
        (LEARNT_BY_HEART, 3, 6),
        ([*LEARNT_BY_HEART, 0.38], None, 11),
        # What varies and rises to the end.
        (RISES, 3, None),
        # Nearly as good as the best, and not.
        ([0.5, 0.504, 0.504, 0.504, 0.504, 0.504], 3, None),
        ([0.5, 0.506, 0.506, 0.506], 3, 4),
        # A plateau before anything is learnt.
        ([0.69, 0.75, 0.75, 0.75, 0.75, 0.75], 3, None),
    ],
)
def test_a_fall_is_what_has_clearly_lost_what_was_learnt(
    losses: Sequence[float], patience: int | None, wanted: int | None
) -> None:
    assert ends(losses, TrainSettings(fall_patience=patience)) == wanted


def test_no_validation_is_no_fall() -> None:
    assert not has_fallen(Progress(), TrainSettings(fall_patience=1), IGNORANT)


@pytest.mark.parametrize(("validations", "steps", "wanted"), [(8, 1000, False), (9, 999, False), (9, 1000, True)])
def test_patience_is_over_after_as_many_validations_and_the_least_number_of_steps(
    validations: int, steps: int, wanted: bool
) -> None:
    losses = [0.5] * validations
    assert impatient(after(losses, steps=steps), TrainSettings(patience=8, min_steps=1000)) is wanted


@pytest.mark.parametrize(("every", "examples", "due"), [(0.25, 24, False), (0.25, 25, True), (30.0, 29, False)])
def test_a_validation_is_due_after_a_share_of_an_epoch_or_a_number_of_examples(
    every: float, examples: int, due: bool
) -> None:
    progress = Progress(loss_examples=examples)
    assert validation_due(progress, TrainSettings(validate_every=every), per_epoch=100) is due


def test_a_run_ends_by_a_fall_and_keeps_the_best_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(LEARNT_BY_HEART)

    def measured(logit_NT: np.ndarray, examples: Examples, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
        loss = next(given, LEARNT_BY_HEART[-1])
        return {task: {"auc": 1 - loss, "log_loss": loss} for task in tasks}

    monkeypatch.setattr(loop, "measure_tasks", measured)
    monkeypatch.setattr(loop, "log_loss_of_shares", lambda *_: IGNORANT)
    settings = {"threads": 1, "max_targets": 10, "batch_targets": 200, "validate_every": 200, "fall_patience": 3}
    config = RunConfig(train=TrainSettings.model_validate(settings))
    record = train(dataset, "dnn", tmp_path / "out", config=config, progress=False).metrics
    assert (record["stopped_by"], len(record["learning_curve"])) == ("patience", 6)
    assert record["best"]["log_loss"] == min(LEARNT_BY_HEART)


def test_tally_waits_shorter_for_a_fall_unless_patience_is_named(dataset: Dataset) -> None:
    assert with_recipe(load_config(), "tally", dataset).train.fall_patience == 3
    assert with_recipe(load_config(None, ["train.patience=20"]), "tally", dataset).train.fall_patience is None
    named = load_config(None, ["train.patience=20", "train.fall_patience=5"])
    assert with_recipe(named, "tally", dataset).train.fall_patience == 5
    assert with_recipe(load_config(), "hpmn", dataset).train.fall_patience is None
