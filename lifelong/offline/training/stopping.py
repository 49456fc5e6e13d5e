"""When a run validates, and when its validations show that continuing is of no use.

    due?        a share of an epoch, or a number of examples, since the last validation
    impatient   `patience` validations in a row without a new best, after `min_steps` batches
    fallen      `fall_patience` validations in a row that have clearly lost what was learnt, at any time

On a small log a model that learns of single values soon learns the log by heart: validation rises for half an epoch or
two, falls, and a learning rate that goes to zero does not bring it back. Where it rises to the end, neither rule ever
holds. A plateau before anything is learnt is no fall.
"""

from __future__ import annotations

from lifelong.config import TrainSettings
from lifelong.offline.training.checkpoint import Progress

CLEAR = 0.01
"""Share of a log loss by which another one is clearly worse."""


def validation_due(progress: Progress, settings: TrainSettings, per_epoch: int) -> bool:
    """Whether so many examples were trained on since the last validation that it is time for the next one.

    Args:
        progress: of the run.
        settings: `validate_every`, a share of an epoch or a number of examples.
        per_epoch: labelled examples of an epoch.

    >>> validation_due(Progress(loss_examples=30), TrainSettings(validate_every=0.25), per_epoch=100)
    True
    """
    every = settings.validate_every
    return progress.loss_examples >= (every * per_epoch if every <= 1 else every)


def impatient(progress: Progress, settings: TrainSettings) -> bool:
    """Whether the last `patience` validations gave no new best, and `min_steps` batches were trained on."""
    return progress.since_best >= settings.patience and progress.steps >= settings.min_steps


def has_fallen(progress: Progress, settings: TrainSettings, ignorant: float) -> bool:
    """Whether the model had learnt something, and the last `fall_patience` validations have clearly lost it.

    Args:
        progress: of the run, with its validations.
        settings: `fall_patience`, or `patience` if it is null.
        ignorant: the log loss of a constant.
    """
    last = settings.fall_patience or settings.patience
    if progress.best is None or progress.since_best < last:
        return False
    best = progress.curve[progress.best].log_loss
    least = min(point.log_loss for point in progress.curve[-last:])
    return best < (1 - CLEAR) * ignorant and least > (1 + CLEAR) * best
