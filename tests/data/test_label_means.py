"""Mean labels against plain loops, and what they must not know."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest

from lifelong.dataset.catalogue import Catalogue
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import Histories
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex
from lifelong.dtypes import IntArray
from lifelong.testing.datasets import tiny_dataset
from lifelong.zoo.inputs.label_means import STRENGTH, label_means, label_names


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("tiny") / "data", num_users=15)


def plain(dataset: Dataset, example: Examples) -> dict[str, float]:
    """The features of one example of one task, by loops over all answers."""
    user, row, now, position = (int(column[0]) for column in example.columns()[:4])
    times = dataset.histories.time_N[dataset.histories.of(user)][:position]
    number_VF = dataset.catalogue.number_VF
    train = answers(dataset, "train")
    prior = (sum(answer[3] for answer in train) + 1) / (len(train) + 2)
    mine = [
        answer
        for split in SPLITS
        for answer in answers(dataset, split)
        if answer[0] == user and len(times) and answer[2] <= int(times[-1])
    ]
    mine.sort(key=lambda answer: answer[2])

    def mean(chosen: list[tuple[int, int, int, float]], half_life: float = float("inf")) -> float:
        weights = [0.5 ** (age / half_life) for age in range(len(chosen))][::-1]
        total = sum(weight * answer[3] for weight, answer in zip(weights, chosen, strict=True))
        return (total + STRENGTH * prior) / (sum(weights) + STRENGTH)

    found = {"user.mean": mean(mine), "user.mean_5": mean(mine, 5), "user.mean_50": mean(mine, 50)}
    for place, field in enumerate(("item", "category")):

        def value(one: int, place: int = place) -> int:
            return one if place == 0 else int(number_VF[one, place])

        of_all = [answer for answer in train if value(answer[1]) == value(row) and answer[2] < now]
        of_user = [answer for answer in mine if value(answer[1]) == value(row)]
        found |= {f"{field}.mean": mean(of_all), f"{field}.answers": len(of_all), f"{field}.user_mean": mean(of_user)}
    return {f"response.{name}": number for name, number in found.items()}


def answers(dataset: Dataset, split: str) -> list[tuple[int, int, int, float]]:
    of = dataset.examples(split)  # type: ignore[arg-type]
    columns = (of.user_N, of.row_N, of.time_N, of.label_NT[:, 0])
    return list(zip(*(column.tolist() for column in columns), strict=True))


class Numbered(Dataset):
    """A dataset in which the moments of each user are at 0, 1, 2 and so on."""

    @cached_property
    def moments(self) -> list[IntArray]:
        """The times of each user's moments, as they were."""
        before = Histories.open(self.folder / "histories")
        return [np.unique(before.time_N[before.of(user)]) for user in range(before.num_users)]

    @cached_property
    def histories(self) -> Histories:
        found = Histories.open(self.folder / "histories")
        parts = [np.searchsorted(moments, found.time_N[found.of(user)]) for user, moments in enumerate(self.moments)]
        return replace(found, time_N=np.concatenate(parts).astype(np.int64))

    def examples(self, split: Split) -> Examples:
        found = super().examples(split)
        places = zip(found.user_N.tolist(), found.time_N.tolist(), strict=True)
        time_N = [np.searchsorted(self.moments[user], time) for user, time in places]
        return replace(found, time_N=np.array(time_N, np.int64))


def test_an_answer_of_the_moment_after_the_last_event_seen_is_not_known(dataset: Dataset) -> None:
    numbered = Numbered(dataset.folder)
    examples = numbered.examples("test")
    # The youngest moment is hidden: its answers are one step of time younger than the last event that is seen.
    before_N = numbered.histories.positions(examples.user_N, examples.time_N - 1).astype(np.int32)
    assert before_N.any()
    examples = replace(examples, position_N=before_N)
    found_NK = label_means(numbered, examples, SPLITS)
    names = label_names(numbered.schema)
    for at in range(0, len(examples), max(1, len(examples) // 40)):
        expected = plain(numbered, examples.take(slice(at, at + 1)))
        np.testing.assert_allclose(found_NK[at], [expected[name] for name in names], rtol=1e-5, err_msg=str(names))


class Lacking(Dataset):
    """A dataset in which every second item has no category, and the first user answered for one of them long ago."""

    @cached_property
    def catalogue(self) -> Catalogue:
        found = Catalogue.open(self.folder / "catalogue", self.vocabularies)
        number_VF = np.array(found.number_VF)
        number_VF[::2, 1] = UNKNOWN
        return Catalogue(found.ids, number_VF, found.vocabularies)

    def examples(self, split: Split) -> Examples:
        found = super().examples(split)
        if split != "train":
            return found
        user, row, time, position, label = (column[:1].copy() for column in found.columns())
        first = Examples(user * 0, row * 0 + 4, time * 0, position * 0, label * 0 + 1)
        return Examples(*map(np.concatenate, zip(first.columns(), found.columns(), strict=True)))


def test_a_target_without_a_value_has_the_average_of_all(dataset: Dataset) -> None:
    lacking = Lacking(dataset.folder)
    number_VF = lacking.catalogue.number_VF
    examples, names = lacking.examples("test"), label_names(lacking.schema)
    without_N = number_VF[examples.row_N, 1] == UNKNOWN
    found_NK = label_means(lacking, examples, SPLITS)
    mean, answers, own = (f"response.category.{part}" for part in ("mean", "answers", "user_mean"))
    of = {name: found_NK[without_N, names.index(name)] for name in (mean, answers, own)}
    train = lacking.examples("train").label_NT
    prior = (float(train.sum()) + 1) / (len(train) + 2)
    assert without_N.any() and not of[answers].any()
    np.testing.assert_allclose(np.stack([of[mean], of[own]]), prior, rtol=1e-5)
    assert found_NK[~without_N, names.index(answers)].any()


def test_means_are_what_loops_find(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    examples = examples.take(np.arange(0, len(examples), max(1, len(examples) // 40)))
    hidden = np.array(examples.position_N)
    hidden[::3] = np.maximum(hidden[::3] - 4, 0)
    examples = replace(examples, position_N=hidden)
    names = label_names(dataset.schema)
    found_NK = label_means(dataset, examples, SPLITS)
    for at in range(len(examples)):
        expected = plain(dataset, examples.take(slice(at, at + 1)))
        np.testing.assert_allclose(found_NK[at], [expected[name] for name in names], rtol=1e-5, err_msg=str(names))


def test_labels_from_the_moment_of_a_target_on_change_nothing(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    moment = int(np.median(examples.time_N))
    asked = examples.take(examples.time_N <= moment)
    before_NK = label_means(dataset, asked, SPLITS)

    class Changed(Dataset):
        def examples(self, split):  # type: ignore[no-untyped-def]
            found = super().examples(split)
            late_N = np.asarray(found.time_N) >= moment
            return replace(found, label_NT=np.where(late_N[:, None], 1 - found.label_NT, found.label_NT))

    assert len(asked)
    assert np.array_equal(label_means(Changed(dataset.folder), asked, SPLITS), before_NK)


def test_a_vault_reads_the_answers_of_the_dataset_that_it_belongs_to(dataset: Dataset) -> None:
    asked, before = dataset.examples("test"), label_means(dataset, dataset.examples("test"), SPLITS)
    vault = dataset.folder / "vault"
    shutil.copytree(dataset.folder, vault, ignore=shutil.ignore_patterns("examples", "vault"))
    assert np.array_equal(label_means(Dataset(vault), asked, SPLITS), before)


def test_a_vault_numbers_its_users_anew(dataset: Dataset) -> None:
    """The answers of the user who is the first one there count as those of all others do."""
    asked, names = dataset.examples("test"), label_names(dataset.schema)
    folder = dataset.folder / "renumbered"
    shutil.copytree(dataset.folder, folder, ignore=shutil.ignore_patterns("examples", "vault", "renumbered"))
    vault = Dataset(folder)
    ids = [dataset.users.id_at(user) for user in range(len(dataset.users))]
    vault.__dict__["users"] = IdIndex.build(ids[::-1])
    of_all = [names.index(f"response.{field}.{part}") for field in ("item", "category") for part in ("mean", "answers")]
    found = label_means(vault, asked, SPLITS)[:, of_all]
    assert np.array_equal(found, label_means(dataset, asked, SPLITS)[:, of_all])
