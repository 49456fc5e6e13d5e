"""Vectors made of who had what, against a dense decomposition of a matrix that loops have filled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lifelong.dataset.folder import Dataset
from lifelong.offline.data.cooccurrence import GROUPS, aligned_vectors, cooccurrence_vectors, group_of, unit_factors
from lifelong.testing.datasets import tiny_dataset

WIDTH = 6

Made = Callable[[Dataset], tuple[dict[str, Any], list[dict[str, Any]]]]


def factors_of(dataset: Dataset) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return unit_factors(dataset, {"item": WIDTH}, seed=0)


def aligned_of(dataset: Dataset) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    whole = cooccurrence_vectors(dataset, WIDTH, seed=0)
    return whole, aligned_vectors(dataset, whole, ["item"], seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cooccurrence") / "data"
    tiny_dataset(folder, num_users=40, num_items=60, mean_events=30)
    return folder


def counts(dataset: Dataset, field: str) -> npt.NDArray[np.float64]:
    """How often each user had each number before or at her last training target."""
    histories, place = dataset.histories, list(dataset.inputs.item).index(field)
    count_UV = np.zeros((len(histories.offset_U) - 1, dataset.inputs.item[field]))
    examples = dataset.examples("train")
    for user in range(len(count_UV)):
        times = examples.time_N[examples.user_N == user]
        for event in range(histories.offset_U[user], histories.offset_U[user + 1]):
            if len(times) and histories.time_N[event] <= times.max():
                count_UV[user, dataset.catalogue.number_VF[histories.row_N[event], place]] += 1
    return count_UV


def dense(count_UV: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    there_V = count_UV.sum(axis=0) > 0
    log_UV = np.log(1 + count_UV)[:, there_V]
    log_UV = log_UV[log_UV.sum(axis=1) > 0]
    user_U, value_V = log_UV.sum(axis=1), np.sqrt((log_UV**2).sum(axis=0))
    _, strength_K, right_KV = np.linalg.svd(log_UV / np.sqrt(user_U)[:, None] / np.sqrt(value_V))
    part_VK = right_KV[1 : WIDTH + 1].T * np.sqrt(strength_K[1 : WIDTH + 1])
    vector_VK = np.zeros((len(there_V), WIDTH))
    vector_VK[there_V] = part_VK * np.sqrt(WIDTH) / np.linalg.norm(part_VK, axis=1, keepdims=True)
    return vector_VK


@pytest.mark.parametrize("field", ["item", "category"])
def test_vectors_are_those_of_a_dense_decomposition(folder: Path, field: str) -> None:
    dataset = Dataset(folder)
    found_VD, expected_VD = cooccurrence_vectors(dataset, WIDTH, seed=0)[field], dense(counts(dataset, field))
    # Signs are free: products of vectors are not.
    sign_D = np.sign((found_VD * expected_VD).sum(axis=0))
    assert found_VD == pytest.approx(expected_VD * sign_D, abs=1e-4)


def test_numbers_without_training_events_have_none(folder: Path) -> None:
    dataset = Dataset(folder)
    for field, vector_VD in cooccurrence_vectors(dataset, WIDTH, seed=0).items():
        there_V = counts(dataset, field).sum(axis=0) > 0
        assert there_V.any() and not there_V.all()
        assert not vector_VD[~there_V].any()
        assert np.square(vector_VD[there_V]).mean(axis=1) == pytest.approx(np.ones(there_V.sum()), rel=1e-5)


def test_events_behind_the_last_training_target_change_nothing(folder: Path) -> None:
    before, dataset = Dataset(folder), Dataset(folder)
    histories, examples = dataset.histories, dataset.examples("train")
    row_N, user_N = np.array(histories.row_N), np.repeat(np.arange(40), np.diff(histories.offset_U))
    last_U = np.zeros(40, np.int64)
    np.maximum.at(last_U, examples.user_N, examples.time_N)
    later_N = histories.time_N > last_U[user_N]
    assert later_N.any()
    row_N[later_N] = row_N[0]
    dataset.__dict__["histories"] = replace(histories, row_N=row_N)
    for field, vector_VD in cooccurrence_vectors(before, WIDTH, seed=0).items():
        assert np.array_equal(vector_VD, cooccurrence_vectors(dataset, WIDTH, seed=0)[field])


def test_of_a_long_log_a_part_of_the_users_is_read(folder: Path) -> None:
    dataset = Dataset(folder)
    whole, part = (cooccurrence_vectors(dataset, WIDTH, seed=0, most=most)["item"] for most in (10**9, 300))
    known_V, fewer_V = whole.any(axis=1), part.any(axis=1)
    assert 0 < fewer_V.sum() < known_V.sum()
    assert not (fewer_V & ~known_V).any()
    other = cooccurrence_vectors(dataset, WIDTH, seed=1, most=300)["item"]
    assert not np.array_equal(other.any(axis=1), fewer_V)


def test_fields_with_fewer_values_than_factors_are_filled_as_far_as_they_go(folder: Path) -> None:
    dataset = Dataset(folder)
    values = int((counts(dataset, "category").sum(axis=0) > 0).sum())
    vector_VD = cooccurrence_vectors(dataset, values + 3, seed=0)["category"]
    assert (np.abs(vector_VD).max(axis=0) > 0).sum() == values - 2
    assert np.isfinite(vector_VD).all()


def test_nothing_is_known_of_a_single_user(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "data", num_users=40, num_items=60, mean_events=30)
    few = cooccurrence_vectors(dataset, WIDTH, seed=0, most=1)
    assert not any(vector_VD.any() for vector_VD in few.values())


def test_factors_are_the_same_vectors_at_length_one(folder: Path) -> None:
    dataset = Dataset(folder)
    whole, _ = unit_factors(dataset, {"category": 2, "item": WIDTH}, seed=0)
    vector_VD = cooccurrence_vectors(dataset, WIDTH, seed=0)["item"]
    assert np.allclose(whole["item"] * np.sqrt(WIDTH), vector_VD, atol=1e-6)
    known_V = whole["item"].any(axis=1)
    assert np.linalg.norm(whole["item"][known_V], axis=1) == pytest.approx(np.ones(known_V.sum()), rel=1e-5)
    assert whole["category"].shape == (dataset.inputs.item["category"], 2)


@pytest.mark.parametrize("made", [factors_of, aligned_of])
def test_vectors_of_a_group_know_nothing_of_its_own_events(folder: Path, made: Made) -> None:
    before, dataset = Dataset(folder), Dataset(folder)
    histories = dataset.histories
    user_N = np.repeat(np.arange(40), np.diff(histories.offset_U))
    row_N, own_N = np.array(histories.row_N), group_of(2 + user_N) == 1
    row_N[own_N] = np.random.default_rng(0).permutation(row_N[own_N])
    dataset.__dict__["histories"] = replace(histories, row_N=row_N)
    (first, first_G), (second, second_G) = (made(one) for one in (before, dataset))
    # Inner products alone: turned vectors lie on the axes of all users, which have changed.
    same_G = [
        np.allclose(one["item"] @ one["item"].T, two["item"] @ two["item"].T, atol=1e-5)
        for one, two in zip(first_G, second_G, strict=True)
    ]
    assert same_G == [group == 1 for group in range(GROUPS)]
    assert not np.array_equal(first["item"], second["item"])


def test_aligned_vectors_are_a_rotation_nearer_to_those_of_all_users(folder: Path) -> None:
    dataset = Dataset(folder)
    whole = cooccurrence_vectors(dataset, WIDTH, seed=0)
    apart = aligned_vectors(dataset, whole, ["category"], seed=0)
    _, factors_G = unit_factors(dataset, {"category": WIDTH}, seed=0)
    for turned, plain in zip(apart, factors_G, strict=True):
        vector_VD, factor_VD = turned["category"], plain["category"] * np.sqrt(WIDTH)
        # A rotation changes no inner product, and brings the vectors nearer to those of all users.
        assert np.allclose(vector_VD @ vector_VD.T, factor_VD @ factor_VD.T, atol=1e-4)
        # No rotation brings them nearer, each value as often as it occurs: their products with those of all users then
        # add up to the singular values of the matrix of both (Schoenemann, 1966).
        weighted_VD = counts(dataset, "category").sum(axis=0)[:, None] * whole["category"]
        best = np.linalg.svd(factor_VD.T @ weighted_VD, compute_uv=False).sum()
        assert (vector_VD * weighted_VD).sum() == pytest.approx(best, rel=1e-4)
