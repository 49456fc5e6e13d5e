"""The weights of what is added to logits to order the whole catalogue, fitted on validation baskets.

    validation --choices--> candidates of each basket --model--> logits, counts --fit_list_order--> ListOrder

Candidates are the items that the user had before and the most popular ones. Every item of the catalogue would take
hours, and what is neither known to the user nor popular is hardly ever among the first. Choosing among fewer candidates
than there are leaves the weights of a conditional logit as they are, as long as which ones does not depend on what was
bought; so what was bought and is no candidate is left out.

Source: McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974; fewer candidates: McFadden,
"Modelling the Choice of Residential Location", 1978.

Shapes: N candidates of all baskets, M baskets, K inputs, U users, V catalogue rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lifelong.artifact.list_order import INPUTS, NUMBERS, ListOrder, count_inputs
from lifelong.dataset.arrays import is_first
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.data.counts import count_features, feature_names
from lifelong.offline.evaluation.ranking import candidates, most_popular
from lifelong.offline.models.base import CountingModel, FittedModel, Model
from lifelong.tally.spec import FIRST, HOUR

POPULAR = 200
"""Most popular items that are candidates of every basket."""
BASKETS = 4
"""Baskets of a user at most: users differ more than one user's baskets do."""
PAIRS = 600_000
"""Candidates of all baskets that weights are fitted to, about: a model scores each of them once."""
_RIDGE = 1e-2
"""Penalty on squared distances from the weights of sampled softmax, in standard deviations of the inputs."""
_SURE = 2.0
"""Standard errors by which weights must be better than those, for users that they were not fitted to."""
_AT_ONCE = 100_000
"""Examples of which exact counts are held together."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Candidates of baskets, and which of them were bought.

    Args:
        examples: user, item and moment of each candidate.
        basket_N: its basket, ascending from 0.
        hit_N: whether it was bought.
    """

    examples: Examples
    basket_N: IntArray
    hit_N: BoolArray


def choices(dataset: Dataset, examples: Examples, *, pairs: int = PAIRS, seed: int = 0) -> Choices:
    """The candidates of baskets drawn at random, a few of each user.

    Args:
        dataset: with the histories.
        examples: of a split; those with a positive label of the first task were bought.
        pairs: users are drawn until there are about so many candidates.
        seed: of users and baskets.
    """
    bought = examples.take(np.asarray(examples.label_NT[:, 0]) >= 0.5)
    bought = bought.take(np.lexsort((bought.row_N, bought.time_N, bought.user_N)))
    first_M = np.flatnonzero(is_first(bought.user_N, bought.time_N))
    bound_M = np.append(first_M, len(bought))
    popular = most_popular(dataset, POPULAR)
    user_M, position_M = np.asarray(bought.user_N[first_M]), np.asarray(bought.position_N[first_M])
    # A stream of its own: other parts of a run draw from the same seed, and must not draw the same users.
    rng, taken = np.random.default_rng([seed, 2]), list[tuple[int, IntArray, BoolArray]]()
    for user in rng.permutation(np.unique(user_M)):
        if sum(len(row_N) for _, row_N, _ in taken) >= pairs:
            break
        # A few baskets of each user, so that none with very many of them takes all the room.
        for basket in np.sort(rng.permutation(np.flatnonzero(user_M == user))[:BASKETS]):
            row_N = candidates(dataset, int(user), int(position_M[basket]), popular)
            hit_N = np.isin(row_N, bought.row_N[bound_M[basket] : bound_M[basket + 1]])
            taken += [(int(basket), row_N, hit_N)] if hit_N.any() else []
    if not taken:
        nothing = np.zeros(0, np.int64)
        return Choices(bought.take(nothing), nothing, np.zeros(0, bool))
    basket_N = np.repeat(np.arange(len(taken)), [len(row_N) for _, row_N, _ in taken])
    moments = bought.take(first_M[[basket for basket, _, _ in taken]]).take(basket_N)
    candidate_N = np.concatenate([row_N for _, row_N, _ in taken]).astype(np.int32)
    asked = Examples(moments.user_N, candidate_N, *moments.columns()[2:])
    return Choices(asked, basket_N, np.concatenate([hit_N for _, _, hit_N in taken]))


def counts_in_lists(model: Model | FittedModel) -> bool:
    """Whether the model's lists are also ordered by counts: those of its memory, or exact ones."""
    return isinstance(model, CountingModel) or (isinstance(model, FittedModel) and model.counts_in_lists)


def counted_numbers(
    model: Model | FittedModel, dataset: Dataset, examples: Examples
) -> Iterator[tuple[IntArray, FloatArray]]:
    """What is counted of the examples' items: places of some examples, and `[N, F, X]` of these.

    See `lifelong.artifact.list_order.count_inputs`.

    Args:
        model: whose lists are ordered by counts, see `counts_in_lists`.
        dataset: with the histories.
        examples: at the positions that are visible.
    """
    if not isinstance(model, CountingModel):
        for start in range(0, len(examples), _AT_ONCE):
            place_N = np.arange(start, min(start + _AT_ONCE, len(examples)))
            yield place_N, exact_numbers(dataset, examples.take(place_N))
        return
    device = next(model.parameters()).device
    for batch in evaluation_batches(dataset, examples, counts=model.exact is not None):
        place_N = batch.example_BC[batch.mask_BC].numpy()
        with torch.inference_mode():
            number_NFX = model.counted_numbers(batch.to(device))
        yield place_N[place_N >= 0], number_NFX[place_N >= 0]


def exact_numbers(dataset: Dataset, examples: Examples) -> FloatArray:
    """The numbers of `counted_numbers` from the whole histories, `[N, F, X]`."""
    schema, names, raw_NK = dataset.schema, feature_names(dataset.schema), count_features(dataset, examples)
    number_NF = dataset.catalogue.number_VF[examples.row_N].astype(np.int64)
    number_NFX = np.zeros((*number_NF.shape, NUMBERS))
    # Without clock times nothing is hours ago.
    measures = {"count": 1.0, "events_since": 1.0, **({"seconds_since": HOUR} if schema.time_unit == "seconds" else {})}
    for at, (measure, unit) in enumerate(measures.items()):
        columns = [names.index(f"{field}.{measure}") for field in schema.item_fields]
        # The distance of what never was is below 0.
        number_NFX[:, :, at] = np.maximum(raw_NK[:, columns], 0) / unit
    number_NFX[:, :, 3] = np.maximum(number_NF - FIRST, 0)
    return number_NFX


def all_numbers(model: Model | FittedModel, dataset: Dataset, examples: Examples) -> FloatArray:
    """`counted_numbers` of all examples at once, `[N, F, X]`."""
    number_NFX = np.zeros((len(examples), len(dataset.schema.item_fields), NUMBERS))
    for place_N, of_place in counted_numbers(model, dataset, examples):
        number_NFX[place_N] = of_place
    return number_NFX


def fit_list_order(
    given: Choices, logit_N: FloatArray, popularity_N: FloatArray, number_NFX: FloatArray, fields: Sequence[str]
) -> ListOrder | None:
    """The weights under which what was bought is likeliest among the candidates of its basket; baskets count alike.

    Args:
        given: the candidates.
        logit_N: their logits.
        popularity_N: their log popularity.
        number_NFX: what is counted of them.
        fields: names of the item fields.

    Returns:
        The weights, in units of the logit; None where they are no better than logit plus log popularity for users
        that they were not fitted to, or where the logit would count nothing.
    """
    if not len(given.hit_N):
        return None
    input_NK = np.column_stack([logit_N, popularity_N, count_inputs(number_NFX)])
    plain_K = np.append(np.ones(2), np.zeros(input_NK.shape[1] - 2))
    user_M = np.asarray(given.examples.user_N)[is_first(given.basket_N)]
    # Every second user fits the weights that are tried on the others.
    half_M = np.searchsorted(np.unique(user_M), user_M) % 2 == 0
    gain_M = np.zeros(len(user_M))
    for fitted_M in (half_M, ~half_M):
        if not fitted_M.any():
            return None
        weight_K = _fitted(input_NK, given, fitted_M, plain_K)
        # Gains on the users left out alone: on those that were fitted, more weights are always better.
        gain_M[~fitted_M] = (_likelihood(input_NK @ weight_K, given) - _likelihood(input_NK @ plain_K, given))[
            ~fitted_M
        ]
    # Summed by user, whose baskets are not independent of each other.
    gain_U = np.bincount(np.unique(user_M, return_inverse=True)[1], gain_M)
    if gain_U.sum() <= _SURE * np.sqrt((gain_U**2).sum()):
        return None
    weight_K = _fitted(input_NK, given, np.ones(len(user_M), bool), plain_K)
    # Weights are given in units of the logit's, which then has to be positive.
    if weight_K[0] <= 0:
        return None
    popularity, *others = (weight_K[1:] / weight_K[0]).tolist()
    counts = {field: tuple(others[at * INPUTS : (at + 1) * INPUTS]) for at, field in enumerate(fields)}
    return ListOrder(popularity=popularity, counts=counts)


def _likelihood(value_N: FloatArray, given: Choices) -> FloatArray:
    """Mean log probability of what was bought in each basket, `[M]`."""
    start_M = np.flatnonzero(is_first(given.basket_N))
    # The largest value of a basket becomes 0. Otherwise exp overflows, or all of a basket becomes 0 and its logarithm
    # infinite.
    value_N = value_N - np.maximum.reduceat(value_N, start_M)[given.basket_N]
    whole_M = np.log(np.add.reduceat(np.exp(value_N), start_M))
    mean_M: FloatArray = np.add.reduceat(value_N * given.hit_N, start_M) / np.add.reduceat(given.hit_N * 1, start_M)
    return mean_M - whole_M


def _standardised(input_NK: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviations of the inputs, and the inputs in units of these, with means of 0.

    What is the same for all candidates orders none, and is 0: by its standard deviation of next to nothing it would be
    a huge number, next to which the others are lost to rounding.
    """
    mean_K, deviation_K = input_NK.mean(axis=0), input_NK.std(axis=0)
    varies_K = deviation_K > 1e-9 * np.maximum(np.abs(mean_K), 1)
    scale_K = np.where(varies_K, deviation_K, 1.0)
    return scale_K, np.where(varies_K, (input_NK - mean_K) / scale_K, 0.0)


def _fitted(input_NK: FloatArray, given: Choices, chosen_M: BoolArray, plain_K: FloatArray) -> FloatArray:
    """The likeliest weights for the chosen baskets."""
    from scipy.optimize import minimize

    chosen_N = chosen_M[given.basket_N]
    hit_N, basket_N = given.hit_N[chosen_N], np.unique(given.basket_N[chosen_N], return_inverse=True)[1]
    start_M = np.flatnonzero(is_first(basket_N))
    scale_K, scaled_NK = _standardised(input_NK[chosen_N])
    # A basket counts once however much was bought, so that its hits share a weight of 1.
    share_N = hit_N / np.add.reduceat(hit_N * 1, start_M)[basket_N]
    begin_K = plain_K * scale_K

    def shares(weight_K: FloatArray) -> tuple[FloatArray, float]:
        """Probability of each candidate in its basket, and the mean log probability of what was bought."""
        value_N = scaled_NK @ weight_K
        # For the same reason as in `_likelihood`: nothing may overflow.
        value_N -= np.maximum.reduceat(value_N, start_M)[basket_N]
        power_N = np.exp(value_N)
        whole_M = np.add.reduceat(power_N, start_M)
        return power_N / whole_M[basket_N], float(share_N @ value_N - np.log(whole_M).sum()) / len(start_M)

    def loss(weight_K: FloatArray) -> tuple[float, FloatArray]:
        (probability_N, mean), off_K = shares(weight_K), weight_K - begin_K
        slope_K = (share_N - probability_N) @ scaled_NK / len(start_M)
        return _RIDGE * float(off_K @ off_K) - mean, 2 * _RIDGE * off_K - slope_K

    def curvature(weight_K: FloatArray) -> FloatArray:
        """Variance of the inputs within baskets, by the probabilities."""
        weighed_NK = shares(weight_K)[0][:, None] * scaled_NK
        mean_MK = np.add.reduceat(weighed_NK, start_M)
        within: FloatArray = (scaled_NK.T @ weighed_NK - mean_MK.T @ mean_MK) / len(start_M)
        return within + 2 * _RIDGE * np.eye(len(weight_K))

    # Inputs are alike, so that methods without the curvature take hundreds of steps.
    minimum = minimize(loss, begin_K, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-6})
    return np.asarray(minimum.x / scale_K)
