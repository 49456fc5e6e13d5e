"""How sure a number is: bootstrap over users, paired for two models; and the tests that the HPMN paper reports.

One resample draws as many users as there are, with replacement; a user drawn twice counts twice, with all her
examples. So a resample is a weight per user, and nothing is sorted again:

* AUC: positives and negatives are sorted once. Per resample, the cumulated weight of the negatives below each positive
  (ties by half) gives the numerator: O(examples), no sorting.
* everything else is a ratio of sums over users, or of absolute sums over calibration bins: resample weights times a
  matrix [users, columns].

Draws depend on (seed, number of users) only, so two models on the same examples are resampled alike: paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lifelong.errors import DataError
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import FloatArray, IntArray, Sample

RESAMPLES = 1000
CONFIDENCE = 0.95
_CHUNK_VALUES = 1 << 22
"""Drawn users held at once; bounds the memory of a bootstrap over millions of users."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of model A minus that of model B, on the same examples.

    Args:
        value: difference of the two point estimates.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: two-sided, of "no difference" (never 0: with R resamples at least 2 / (R + 1)).
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class PaperTests:
    """The tests of the HPMN paper, beside the bootstrap. They take examples for independent, which a user's are not.

    Args:
        mann_whitney_p: scores of positives above scores of negatives, one-sided (the model ranks better than chance).
        t_p: paired t test of the two models' losses per example, two-sided; NaN for one model alone.
    """

    mann_whitney_p: float
    t_p: float


class Resampler:
    """Metrics of a sample under user weights.

    Args:
        sample: the scored examples.
        users: all users that are drawn (ascending); those without an example here weigh nothing. By default the
            sample's own. Slices of one test set share the users of the whole.
    """

    def __init__(self, sample: Sample, users: IntArray | None = None) -> None:
        self.users = np.unique(sample.user) if users is None else users
        self._place = np.searchsorted(self.users, sample.user)
        self._sort_pairs(sample)
        self._sum_users(sample)

    def _sort_pairs(self, sample: Sample) -> None:
        """Sort once what AUC needs: the users of positives and negatives, and the negatives below each positive."""
        order = np.argsort(sample.logit, kind="stable")
        score, positive, place = sample.logit[order], sample.positive[order], self._place[order]
        self._positive, self._negative = place[positive], place[~positive]
        self._below = np.searchsorted(score[~positive], score[positive], side="left")
        self._not_above = np.searchsorted(score[~positive], score[positive], side="right")
        self._ties = bool(np.any(self._below != self._not_above))

    def _sum_users(self, sample: Sample) -> None:
        """Sums per user, [U, columns]: examples, labels, predictions, losses, GAUC's two sums, calibration gaps."""
        size, probability = len(self.users), metrics.sigmoid(sample.logit)

        def total(value: FloatArray) -> FloatArray:
            return np.bincount(self._place, weights=value, minlength=size).astype(np.float64)

        gauc_weight, gauc_sum = np.zeros(size), np.zeros(size)
        if len(sample):
            user, value, count = metrics.user_aucs(sample)
            at, both = np.searchsorted(self.users, user), ~np.isnan(value)
            gauc_weight[at[both]] = count[both]
            gauc_sum[at[both]] = count[both] * value[both]
        cell = self._place * metrics.CALIBRATION_BINS + metrics.calibration_bin(probability)
        gap = np.bincount(cell, weights=probability - sample.label, minlength=size * metrics.CALIBRATION_BINS)
        columns = [total(np.ones(len(sample))), total(sample.label), total(probability), total(metrics.losses(sample))]
        self._sums = np.column_stack([*columns, gauc_weight, gauc_sum, gap.reshape(size, metrics.CALIBRATION_BINS)])

    def auc(self, weight: FloatArray) -> float:
        """Pooled AUC when user u counts `weight[u]` times; NaN if a class has no weight."""
        cumulated = np.zeros(len(self._negative) + 1)
        np.cumsum(weight[self._negative], out=cumulated[1:])
        positive = weight[self._positive]
        below = cumulated[self._below]
        if self._ties:
            below = (below + cumulated[self._not_above]) / 2
        pairs = positive.sum() * cumulated[-1]
        return float(positive @ below / pairs) if pairs > 0 else float("nan")

    def values(self, weight_RU: FloatArray) -> dict[str, FloatArray]:
        """Every metric under each row of user weights, `[R]` each; NaN where it is not defined."""
        count, label, predicted, loss, gauc_weight, gauc_sum, *gap = (weight_RU @ self._sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_loss, base = loss / count, metrics.entropy(label / count)
            return {
                "auc": np.array([self.auc(weight) for weight in weight_RU]),
                "gauc": gauc_sum / gauc_weight,
                "log_loss": mean_loss,
                "normalised_entropy": np.where(base > 0, mean_loss / base, np.nan),
                "ece": np.abs(gap).sum(axis=0) / count,
                "predicted_observed": np.where(label > 0, predicted / label, np.nan),
            }


def draw_weights(num_users: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """How often each user is drawn in each resample, `[R, U]`."""
    drawn = rng.integers(0, num_users, (resamples, num_users))
    flat = np.bincount((drawn + num_users * np.arange(resamples)[:, None]).ravel(), minlength=resamples * num_users)
    return flat.reshape(resamples, num_users).astype(np.float64)


def bootstrap(
    samples: Mapping[str, Sample], *, users: IntArray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, FloatArray]]:
    """Resampled metrics of several samples (models, slices) under the same draws of users.

    Args:
        samples: name -> scored examples.
        users: whom to draw from (ascending), by default all users of all samples. Calls with as many users and one
            seed draw alike.
        resamples: R.
        seed: of the draws.

    Returns:
        name -> metric -> `[R]`.
    """
    if users is None:
        users = np.unique(np.concatenate([np.empty(0, np.int64), *(sample.user for sample in samples.values())]))
    rng = np.random.default_rng(seed)
    parts: dict[str, dict[str, list[FloatArray]]] = {name: {m: [] for m in metrics.METRICS} for name in samples}
    resamplers = {name: Resampler(sample, users) for name, sample in samples.items()}
    chunk = max(1, min(64, _CHUNK_VALUES // max(1, len(users))))
    for start in range(0, resamples if len(users) else 0, chunk):
        weight_RU = draw_weights(len(users), min(chunk, resamples - start), rng)
        for name, resampler in resamplers.items():
            for metric, values in resampler.values(weight_RU).items():
                parts[name][metric].append(values)
    return {
        name: {metric: np.concatenate(values or [np.empty(0)]) for metric, values in of.items()}
        for name, of in parts.items()
    }


def interval(values: FloatArray, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of resampled values; resamples where the metric is not defined are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(difference: FloatArray) -> float:
    """Two-sided bootstrap p-value of "the difference is 0"; NaN if it is never defined."""
    defined = difference[~np.isnan(difference)]
    if not len(defined):
        return float("nan")
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def family_p_values(differences: Mapping[str, tuple[float, FloatArray]]) -> dict[str, float]:
    """Two-sided p-values of several differences that hold for all of them together.

    Under paired resamples the largest of all standardised deviations says how far chance alone takes the best or the
    worst of so many models: a difference is unlikely where few resamples have any deviation as large. Unlike
    Bonferroni's or Holm's, this knows how the models depend on each other, and needs no more resamples for more models.

    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993, single-step maxT.

    Args:
        differences: name -> the difference and its resampled values `[R]`, of the same resamples for all names.

    Returns:
        name -> p-value, at least 1 / (R + 1); NaN where the difference or its spread is not defined, 1 where it is 0.
    """
    found = {name: float("nan") for name in differences}
    deviation = {name: float(np.std(drawn)) for name, (_, drawn) in differences.items()}
    for name, (value, _) in differences.items():
        if value == 0 and deviation[name] == 0:
            found[name] = 1.0
    tested = {name: of for name, of in differences.items() if deviation[name] > 0 and not math.isnan(of[0])}
    if tested:
        largest_R = np.max([np.abs(drawn - value) / deviation[name] for name, (value, drawn) in tested.items()], axis=0)
        for name, (value, _) in tested.items():
            exceeding = int((largest_R >= abs(value) / deviation[name]).sum())
            found[name] = (exceeding + 1) / (len(largest_R) + 1)
    return found


def compare_pair(first: Sample, second: Sample, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Difference]:
    """Paired bootstrap of every metric: first minus second.

    Raises:
        DataError: the two are not scores of the same examples.
    """
    if not (np.array_equal(first.user, second.user) and np.array_equal(first.label, second.label)):
        raise DataError("the two models scored different examples", fix="score one split of one dataset with both")
    drawn = bootstrap({"first": first, "second": second}, resamples=resamples, seed=seed)
    values = metrics.all_metrics(first), metrics.all_metrics(second)
    result = {}
    for name in metrics.METRICS:
        difference = drawn["first"][name] - drawn["second"][name]
        low, high = interval(difference)
        result[name] = Difference(values[0][name] - values[1][name], low, high, p_value(difference))
    return result


def paper_tests(first: Sample, second: Sample | None = None) -> PaperTests:
    """Mann-Whitney U of the first model's scores; paired t test of both models' losses."""
    from scipy import stats

    positive = first.positive
    mann_whitney = t_p = float("nan")
    if positive.any() and not positive.all():
        test = stats.mannwhitneyu(first.logit[positive], first.logit[~positive], alternative="greater")
        mann_whitney = float(test.pvalue)
    if second is not None:
        gap = metrics.losses(first) - metrics.losses(second)
        t_p = float(stats.ttest_1samp(gap, 0.0).pvalue) if len(gap) > 1 and np.ptp(gap) > 0 else 1.0
    return PaperTests(mann_whitney, t_p)
