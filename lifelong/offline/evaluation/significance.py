"""How sure a number is: bootstrap over users, paired for two models; and the tests that the HPMN paper reports.

One resample draws as many users as there are, with replacement; a user drawn twice counts twice, with all her
examples. So a resample is a weight per user, and nothing has to be sorted again:

* AUC: positives and negatives are sorted once. Per resample, the summed weight of the negatives below each positive
  (ties count half) gives the numerator in O(examples).
* Everything else is a ratio of sums over users, or of absolute sums over calibration bins: resample weights times a
  matrix [users, columns].

Draws depend only on (seed, number of users), so that two models on the same examples get the same resamples: paired.
Where a model was trained with several seeds, another training is allowed for as well as other users (`over_seeds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lifelong.dtypes import FloatArray, IntArray
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample

RESAMPLES = 1000
CONFIDENCE = 0.95
POWER = 0.8
LEAST_SEEDS = 3
"""Fewer trainings say too little of how much another one would differ."""
_SEEDS = 1 << 32
"""The seeds' part is drawn from a stream of its own for each number of seeds, apart from that of users."""
_CHUNK_VALUES = 1 << 22
"""Drawn users in memory at once; bounds what a bootstrap over millions of users takes."""


@dataclass(frozen=True, slots=True)
class PaperTests:
    """The tests of the HPMN paper. They take examples to be independent, which those of one user are not.

    Args:
        mann_whitney_p: scores of positives above scores of negatives, one-sided (the model ranks better than chance).
        t_p: paired t test of the two models' losses per example, two-sided; NaN for a single model.
    """

    mann_whitney_p: float
    t_p: float


class Resampler:
    """Metrics of a sample under user weights.

    Args:
        sample: the scored examples.
        users: all users to draw from, ascending, also those without an example here; by default the sample's own.
            The slices of one test set share the users of the whole.
    """

    def __init__(self, sample: Sample, users: IntArray | None = None) -> None:
        self.users: IntArray = np.unique(sample.user) if users is None else users
        self._place = np.searchsorted(self.users, sample.user)
        self._sort_pairs(sample)
        self._sum_users(sample)

    def _sort_pairs(self, sample: Sample) -> None:
        """Sort once what AUC needs: the users of positives and negatives, and the negatives below each positive."""
        order = np.argsort(sample.logit, kind="stable")
        score, positive, user = sample.logit[order], sample.positive[order], self._place[order]
        self._positive, self._negative = user[positive], user[~positive]
        self._below = np.searchsorted(score[~positive], score[positive], side="left")
        self._not_above = np.searchsorted(score[~positive], score[positive], side="right")
        # Without ties one look-up a positive is enough, and this is the innermost loop of the bootstrap.
        self._ties = bool(np.any(self._below != self._not_above))

    def _sum_users(self, sample: Sample) -> None:
        """Sums per user, [U, columns]: examples, labels, predictions, losses, two sums for GAUC, calibration gaps."""
        size, probability = len(self.users), metrics.sigmoid(sample.logit)

        def total(value: FloatArray) -> FloatArray:
            return np.bincount(self._place, weights=value, minlength=size).astype(np.float64)

        gauc_weight, gauc_sum = np.zeros(size), np.zeros(size)
        if len(sample):
            user, value, count = metrics.user_aucs(sample)
            at, both = np.searchsorted(self.users, user), ~np.isnan(value)
            # A user of one class has no AUC: she counts in neither sum, instead of turning both into NaN.
            gauc_weight[at[both]] = count[both]
            gauc_sum[at[both]] = count[both] * value[both]
        # A cell is one user's part of one calibration bin, numbered user after user.
        cell = self._place * metrics.CALIBRATION_BINS + metrics.calibration_bin(probability)
        gap = np.bincount(cell, weights=probability - sample.label, minlength=size * metrics.CALIBRATION_BINS)
        columns = [total(np.ones(len(sample))), total(sample.label), total(probability), total(metrics.losses(sample))]
        columns += [total(metrics.mean_values(name, sample)) for name in metrics.MEANS]
        self._sums = np.column_stack([*columns, gauc_weight, gauc_sum, gap.reshape(size, metrics.CALIBRATION_BINS)])

    def auc(self, weight: FloatArray) -> float:
        """Pooled AUC when user u counts `weight[u]` times; NaN if a class has no weight."""
        # cumulated[k] is the weight of the k lowest negatives, hence that of those below a positive at place k.
        cumulated = np.zeros(len(self._negative) + 1)
        np.cumsum(weight[self._negative], out=cumulated[1:])
        positive = weight[self._positive]
        below = cumulated[self._below]
        if self._ties:
            # The mean of what is below and what is not above counts tied negatives half.
            below = (below + cumulated[self._not_above]) / 2
        pairs = positive.sum() * cumulated[-1]
        return float(positive @ below / pairs) if pairs > 0 else float("nan")

    def values(self, weight_RU: FloatArray) -> dict[str, FloatArray]:
        """Every metric under each row of user weights, `[R]` each; NaN where it is not defined."""
        count, label, predicted, loss, *others = (weight_RU @ self._sums).T
        means = dict(zip(metrics.MEANS, others, strict=False))
        gauc_weight, gauc_sum, *gap = others[len(means) :]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_loss, base = loss / count, metrics.entropy(label / count)
            return {
                "auc": np.array([self.auc(weight) for weight in weight_RU]),
                "gauc": gauc_sum / gauc_weight,
                "log_loss": mean_loss,
                "normalised_entropy": np.where(base > 0, mean_loss / base, np.nan),
                "ece": np.abs(gap).sum(axis=0) / count,
                "predicted_observed": np.where(label > 0, predicted / label, np.nan),
                **{name: summed / count for name, summed in means.items()},
            }


def draw_weights(num_users: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """How often each user is drawn in each resample, `[R, U]`."""
    drawn = rng.integers(0, num_users, (resamples, num_users))
    # Users of resample r are counted in the r-th block of `num_users` bins.
    flat = np.bincount((drawn + num_users * np.arange(resamples)[:, None]).ravel(), minlength=resamples * num_users)
    return flat.reshape(resamples, num_users).astype(np.float64)


def bootstrap(
    samples: Mapping[str, Sample], *, users: IntArray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, FloatArray]]:
    """Resampled metrics of several samples (models, slices) under the same draws of users.

    Args:
        samples: name -> scored examples.
        users: the users to draw from, ascending; by default those of all samples. Calls with equally many users and
            the same seed draw the same places.
        resamples: R.
        seed: of the draws.

    Returns:
        name -> metric -> `[R]`.
    """
    if users is None:
        # The empty array makes this work for no sample at all.
        users = np.unique(np.concatenate([np.empty(0, np.int64), *(sample.user for sample in samples.values())]))
    # A generator of its own for each call: equal seeds and equally many users give equal draws, which is what pairs two
    # models that are resampled one after the other.
    rng = np.random.default_rng(seed)
    parts: dict[str, dict[str, list[FloatArray]]] = {name: {m: [] for m in metrics.metric_names()} for name in samples}
    resamplers = {name: Resampler(sample, users) for name, sample in samples.items()}
    # Draws follow each other in the stream whatever the size of a chunk, so that memory can be bounded without changing
    # a result.
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


def over_seeds(drawn_KR: FloatArray, other_LR: FloatArray | None = None, *, seed: int = 0) -> FloatArray:
    """A metric's mean over seeds, or its difference from another model's, under resampled users and seeds, `[R]`.

    Users and seeds are crossed random effects: a seed's value is the truth, a deviation of its own, and users' noise
    of which the seeds share a part. The mean over seeds varies by the users' bootstrap (Owen, The pigeonhole
    bootstrap, Annals of Applied Statistics 1, 2007, resamples rows and columns alike; so few seeds cannot be
    resampled), and by the seeds' variance, the analysis of variance's: that between the seeds' values less what users'
    noise makes of it, and 0 where that is more (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4).
    Only the seeds' part is estimated from few values, so Student's t replaces the normal quantile by its share of the
    variance: K - 1 degrees of freedom divided by that share. Satterthwaite's formula (Biometrics Bulletin 2, 1946)
    divides by its square, and three seeds then hold the truth in only 91 of 100 cases. So many, or fewer, are what two
    seeds give where they differ far more than users explain; a single seed says nothing of another training.

    Two models with equally many seeds are paired seed by seed, so that equal models differ by 0 in each resample.
    Otherwise the variances of both models' seeds are added.

    Args:
        drawn_KR: the metric of each of K seeds under the same R resamples of the users.
        other_LR: the same of the model that is subtracted, under the same resamples.
        seed: of the draws of the seeds' part.

    >>> over_seeds(np.array([[0.7, 0.8]])).tolist()
    [0.7, 0.8]
    >>> bool(np.ptp(over_seeds(np.array([[0.7] * 50, [0.8] * 50]))) > 0.1)
    True
    """
    from scipy import special

    if other_LR is not None and len(other_LR) == len(drawn_KR):
        drawn_KR, other_LR = drawn_KR - other_LR, None
    trained = [drawn_KR] if other_LR is None else [drawn_KR, -other_LR]
    mean_R: FloatArray = np.sum([of.mean(axis=0) for of in trained], axis=0)
    effects = [(len(of), *_seeds_effect(of)) for of in trained if len(of) > 1]
    of_seeds = sum(variance for _, variance, _ in effects)
    if not of_seeds:
        return mean_R
    of_users = float(np.nanvar(mean_R))
    total, tail = of_users + of_seeds, (1 + CONFIDENCE) / 2
    degrees = total / sum(variance / (seeds - 1) for seeds, variance, _ in effects)
    # Not below 0, where it is rounding that makes seeds differ.
    stretched = max(0.0, (special.stdtrit(degrees, tail) / special.ndtri(tail)) ** 2 * total - of_users)
    # The number of seeds is part of the seed: models with different numbers of them must not share deviates by chance.
    for seeds, variance, direction_K in effects:
        normal_RK = np.random.default_rng([seed, _SEEDS + seeds]).standard_normal((len(mean_R), seeds))
        # All models get the same normal deviates, each turned to how its own seeds lie: models stay as dependent.
        mean_R = mean_R + math.sqrt(stretched * variance / of_seeds) * (normal_RK @ direction_K)
    return mean_R


def _seeds_effect(drawn_KR: FloatArray) -> tuple[float, FloatArray]:
    """The variance of the mean over K seeds that is the seeds' own, and the unit vector of their deviations, `[K]`."""
    defined_KR = drawn_KR[:, ~np.isnan(drawn_KR).any(axis=0)]
    if not defined_KR.size:
        return 0.0, np.zeros(len(drawn_KR))
    value_K = defined_KR.mean(axis=1)
    deviation_K = value_K - value_K.mean()
    between = float(deviation_K @ deviation_K) / (len(value_K) - 1)
    of_users = float((defined_KR - defined_KR.mean(axis=0)).var(axis=1).sum()) / (len(value_K) - 1)
    # The difference of two estimates can be negative, a variance cannot. Equal seeds have no direction, and are divided
    # by 1.
    return max(0.0, between - of_users) / len(value_K), deviation_K / (np.linalg.norm(deviation_K) or 1.0)


def detectable(drawn: FloatArray) -> float:
    """The smallest true difference that 80 % of repetitions would find at 5 %; NaN if it is not defined.

    Before any correction for several models: (1.96 + 0.84) standard errors.

    >>> round(detectable(np.array([-1.0, 1.0])), 2)
    2.8
    """
    from scipy import stats

    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return float("nan")
    return float((stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER)) * np.std(defined))


def interval(values: FloatArray, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of resampled values; resamples where the metric is not defined are left out.

    >>> interval(np.arange(101.0), confidence=0.5)
    (25.0, 75.0)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(difference: FloatArray) -> float:
    """Two-sided bootstrap p-value of "the difference is 0", never 0 itself; NaN if it is never defined.

    >>> p_value(np.array([-1.0, 1.0, 1.0, 1.0]))
    0.8
    """
    defined = difference[~np.isnan(difference)]
    if not len(defined):
        return float("nan")
    # Resamples at 0 count on both sides, and 1 is added: so few resamples cannot prove a probability of 0.
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def family_p_values(differences: Mapping[str, tuple[float, FloatArray]]) -> dict[str, float]:
    """Two-sided p-values of several differences, corrected for testing all of them.

    Under paired resamples the largest of all standardised deviations shows how far chance alone takes the best or the
    worst of so many models: a difference is unlikely where few resamples have any deviation as large. Unlike
    Bonferroni's or Holm's correction, this one accounts for how the models depend on each other, and more models do not
    need more resamples.

    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993, single-step maxT.

    Args:
        differences: name -> the difference and its resampled values `[R]`, of the same resamples for all names.

    Returns:
        name -> p-value, never below the uncorrected one (`p_value`); 1 where difference and spread are 0, NaN where
        either is not defined.
    """
    p_values = {name: float("nan") for name in differences}
    deviation = {name: float(np.std(drawn)) for name, (_, drawn) in differences.items()}
    for name, (value, _) in differences.items():
        if value == 0 and deviation[name] == 0:
            p_values[name] = 1.0
    # A difference without any spread would be divided by 0.
    tested = {name: of for name, of in differences.items() if deviation[name] > 0 and not math.isnan(of[0])}
    if tested:
        # The largest deviation within each resample keeps how the models depend on each other. That is what a
        # correction by their number alone would throw away.
        largest_R = np.max([np.abs(drawn - value) / deviation[name] for name, (value, drawn) in tested.items()], axis=0)
        for name, (value, _) in tested.items():
            exceeding = int((largest_R >= abs(value) / deviation[name]).sum())
            # The spread is taken to be that of all resamples, the uncorrected p looks at one tail: where it is skewed,
            # a family of few could seem surer than the single difference.
            p_values[name] = max((exceeding + 1) / (len(largest_R) + 1), p_value(differences[name][1]))
    return p_values


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
