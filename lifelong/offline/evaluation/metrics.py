"""Metrics of binary responses: plain numpy, one number each, NaN where a metric is not defined.

Label: 0 or 1, or graded between (soft). Ranking metrics take a label of at least 0.5 as positive; the others use it as
it is. Logit: before the sigmoid. `docs/metrics.md` has the exact definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import is_first
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.errors import DataError
from lifelong.plugins import Registry

CALIBRATION_BINS = 20
LENGTH_BOUNDS = (0, 50, 100, 300, 1000)
"""Slices of history length are half-open: `[0, 50)`, `[50, 100)`, .., `[1000, inf)`."""
SHORT_BOUNDS = (0, 5, 10, 20, 50)
"""The same, where most histories are short."""
_MOSTLY = 0.9
RANGES: Mapping[str, tuple[float, float]] = {
    "auc": (0.0, 1.0),
    "gauc": (0.0, 1.0),
    "log_loss": (0.0, math.inf),
    "normalised_entropy": (0.0, math.inf),
    "ece": (0.0, 1.0),
    "predicted_observed": (0.0, math.inf),
}
"""Least and largest value of a metric; that of another package may have any."""
METRICS = ("auc", "gauc", "log_loss", "normalised_entropy", "ece", "predicted_observed")


@dataclass(frozen=True, slots=True)
class Sample:
    """N scored examples of one task, checked.

    Args:
        label: float64 in `[0, 1]`.
        logit: float64, finite.
        user: int64, any numbers; equal numbers are one user.
    """

    label: FloatArray
    logit: FloatArray
    user: IntArray

    @classmethod
    def of(cls, label: npt.ArrayLike, logit: npt.ArrayLike, user: npt.ArrayLike | None = None) -> Sample:
        """Check and convert; without `user`, all examples are one user's.

        Raises:
            DataError: lengths differ, a label lies outside of `[0, 1]`, or a logit is not finite.
        """
        labels, logits = np.asarray(label, np.float64).ravel(), np.asarray(logit, np.float64).ravel()
        users = np.zeros(len(labels), np.int64) if user is None else np.asarray(user, np.int64).ravel()
        if not len(labels) == len(logits) == len(users):
            raise DataError(
                f"{len(labels)} labels, {len(logits)} logits and {len(users)} users",
                expected="one of each per example",
                fix="pass arrays of one length",
            )
        if not np.all((labels >= 0) & (labels <= 1)):
            raise DataError(
                f"labels between {labels.min()} and {labels.max()}",
                expected="labels between 0 and 1",
                fix="scale the labels",
            )
        if not np.isfinite(logits).all():
            raise DataError(
                f"{int((~np.isfinite(logits)).sum())} of {len(logits)} logits are not finite numbers",
                fix="look for a loss that became NaN in training (a lower learning rate, gradient clipping)",
            )
        return cls(labels, logits, users)

    def take(self, chosen: BoolArray) -> Sample:
        """The chosen examples."""
        return Sample(self.label[chosen], self.logit[chosen], self.user[chosen])

    def __len__(self) -> int:
        return len(self.label)

    @property
    def positive(self) -> BoolArray:
        """Which examples count as positive for ranking."""
        return self.label >= 0.5

    @property
    def users(self) -> int:
        """Number of distinct users."""
        return len(np.unique(self.user))


@dataclass(frozen=True, slots=True)
class GroupedAuc:
    """GAUC, and what it leaves out.

    Args:
        value: mean of the users' AUCs, weighted by their numbers of examples; NaN if no user has both classes.
        users: number of all users.
        one_class_users: number of users with positive labels only or negative labels only, which are left out.
        one_class_examples: number of their examples.
    """

    value: float
    users: int
    one_class_users: int
    one_class_examples: int


def auc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Pooled AUC: the probability that a positive is scored above a negative, ties counting half.

    Computed from average ranks (Mann-Whitney). NaN if one class is absent.

    >>> auc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4])
    0.875
    """
    sample = Sample.of(label, score)
    if not len(sample):
        return math.nan
    return float(user_aucs(sample)[1][0])


def user_aucs(sample: Sample) -> tuple[IntArray, FloatArray, IntArray]:
    """Users (ascending), the AUC of each (NaN with one class), and their numbers of examples."""
    # One sort for all users: each one's examples are a block, ascending by score.
    order = np.lexsort((sample.logit, sample.user))
    user, score, positive = sample.user[order], sample.logit[order], sample.positive[order]
    first = is_first(user)
    group = np.cumsum(first) - 1
    count = np.bincount(group)
    start = np.flatnonzero(first)
    # Ranks count from the start of the whole array; less the start of a user's block they are ranks among her examples.
    positives = np.bincount(group, weights=positive)
    rank_sum = np.bincount(group, weights=np.where(positive, _average_ranks(first, score) - start[group], 0.0))
    pairs = positives * (count - positives)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(pairs > 0, (rank_sum - positives * (positives + 1) / 2) / pairs, np.nan)
    return user[start], value, count.astype(np.int64)


def _average_ranks(first: BoolArray, score: FloatArray) -> FloatArray:
    """Average rank, from 1, over the whole sorted array; equal scores of one user share theirs."""
    # Places start to end - 1 are tied: their ranks are start + 1 to end, and all of them get the mean.
    fresh = first | is_first(score)
    start = np.flatnonzero(fresh)
    end = np.append(start[1:], len(score))
    rank: FloatArray = ((start + 1 + end) / 2.0)[np.cumsum(fresh) - 1]
    return rank


def gauc(label: npt.ArrayLike, score: npt.ArrayLike, user: npt.ArrayLike) -> GroupedAuc:
    """Mean AUC of the users that have both classes, weighted by their numbers of examples.

    >>> gauc([1, 0, 1, 0, 1], [2.0, 1.0, 0.0, 1.0, 5.0], [7, 7, 8, 8, 9])
    GroupedAuc(value=0.5, users=3, one_class_users=1, one_class_examples=1)
    """
    sample = Sample.of(label, score, user)
    if not len(sample):
        return GroupedAuc(math.nan, 0, 0, 0)
    _, value, count = user_aucs(sample)
    both = ~np.isnan(value)
    mean = float(np.average(value[both], weights=count[both])) if both.any() else math.nan
    return GroupedAuc(mean, len(value), int((~both).sum()), int(count[~both].sum()))


def losses(sample: Sample) -> FloatArray:
    """Cross entropy of each example in nats, computed from the logit without overflow or clipping."""
    return np.logaddexp(0.0, sample.logit) - sample.label * sample.logit


def log_loss(label: npt.ArrayLike, logit: npt.ArrayLike) -> float:
    """Mean cross entropy of `sigmoid(logit)` in nats. NaN without examples.

    >>> round(log_loss([1, 0], [0.0, 0.0]), 4)
    0.6931
    """
    sample = Sample.of(label, logit)
    return float(losses(sample).mean()) if len(sample) else math.nan


def entropy(rate: npt.ArrayLike) -> FloatArray:
    """Entropy of a coin in nats; 0 at rates 0 and 1."""
    p = np.asarray(rate, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((p > 0) & (p < 1), -p * np.log(p) - (1 - p) * np.log1p(-p), 0.0)


def normalised_entropy(label: npt.ArrayLike, logit: npt.ArrayLike) -> float:
    """Log loss divided by the entropy of the base rate; 1 is no better than the rate. NaN with one class.

    Source: He et al., ADKDD 2014, equation 1.
    """
    sample = Sample.of(label, logit)
    base = float(entropy(sample.label.mean())) if len(sample) else 0.0
    return float(losses(sample).mean()) / base if base > 0 else math.nan


def sigmoid(logit: npt.ArrayLike) -> FloatArray:
    """Probability of a logit, without overflow."""
    x = np.asarray(logit, np.float64)
    small = np.exp(-np.abs(x))
    # The exponent is never positive. exp(-x) of a large negative logit would overflow.
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def calibration_bin(probability: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """Bin of each example: `bins` bins of equal mass, equal probabilities always in one bin."""
    # The outermost edges are left out: whatever lies beyond the inner ones belongs to the first or the last bin.
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]) if len(probability) else np.empty(0)
    return np.searchsorted(edges, probability, side="right").astype(np.int64)


def ece(label: npt.ArrayLike, logit: npt.ArrayLike, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: mean |predicted - observed| over bins of equal mass. NaN without examples."""
    sample = Sample.of(label, logit)
    if not len(sample):
        return math.nan
    probability = sigmoid(sample.logit)
    gap = np.bincount(calibration_bin(probability, bins), weights=probability - sample.label)
    return float(np.abs(gap).sum() / len(sample))


def predicted_observed(label: npt.ArrayLike, logit: npt.ArrayLike) -> float:
    """Sum of predicted probabilities / sum of labels; 1 = right on average. NaN if no label is positive."""
    sample = Sample.of(label, logit)
    observed = float(sample.label.sum())
    return float(sigmoid(sample.logit).sum()) / observed if observed > 0 else math.nan


MEANS: Mapping[str, Callable[[Sample], FloatArray]] = Registry("metrics", {})
"""Metrics of other packages: a function that gives a value per example `[N]`; the metric is their mean."""


def metric_names() -> tuple[str, ...]:
    """`METRICS`, and those of other packages."""
    return (*METRICS, *MEANS)


def mean_values(name: str, sample: Sample) -> FloatArray:
    """The values per example of a metric of another package.

    Raises:
        DataError: they are not one finite number per example.
    """
    value_N = np.asarray(MEANS[name](sample), np.float64)
    if value_N.shape != sample.logit.shape or not np.isfinite(value_N).all():
        found = f"the metric {name!r} gave {value_N.shape} for {len(sample)} examples"
        raise DataError(found, expected="one finite number per example", fix="correct the metric")
    return value_N


def all_metrics(sample: Sample) -> dict[str, float]:
    """Every metric of `metric_names()`."""
    label, logit = sample.label, sample.logit
    return {
        "auc": auc(label, logit),
        "gauc": gauc(label, logit, sample.user).value,
        "log_loss": log_loss(label, logit),
        "normalised_entropy": normalised_entropy(label, logit),
        "ece": ece(label, logit),
        "predicted_observed": predicted_observed(label, logit),
        **{name: float(mean_values(name, sample).mean()) if len(sample) else math.nan for name in MEANS},
    }


def length_slices(length: npt.ArrayLike) -> dict[str, BoolArray]:
    """Slice name -> which examples, by number of events before the target.

    Where nine in ten have fewer events than the first usual bound, the bounds are closer together.

    >>> [name for name, chosen in length_slices([20, 1500]).items() if chosen.any()]
    ['<50', '1000+']
    """
    events = np.asarray(length)
    slices = {}
    short = len(events) > 0 and float((events < LENGTH_BOUNDS[1]).mean()) >= _MOSTLY
    # With the usual bounds nearly all examples would be in one slice, and slices would show nothing.
    bounds = SHORT_BOUNDS if short else LENGTH_BOUNDS
    for low, high in zip(bounds, (*bounds[1:], None), strict=True):
        name = f"{low}+" if high is None else f"<{high}" if low == 0 else f"{low}-{high - 1}"
        slices[name] = (events >= low) & (events < (math.inf if high is None else high))
    return slices


def undefined_reason(name: str, sample: Sample) -> str | None:
    """Why a metric has no value on these examples, or None if it has one."""
    if not len(sample):
        return "no examples"
    label = sample.positive if name == "auc" else sample.label
    if name in ("auc", "normalised_entropy") and np.all(label == 1):
        return "all labels are positive"
    if name in ("auc", "normalised_entropy", "predicted_observed") and np.all(label == 0):
        return "all labels are negative"
    if name == "gauc" and np.isnan(user_aucs(sample)[1]).all():
        return "no user has both classes"
    return None
