"""An artifact, and all that were continued from it, read the vault once."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support.artifacts import tiny_artifact

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.artifact.list_order import log_popularity
from lifelong.config import load_config
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.folder import Dataset
from lifelong.errors import DataError, DatasetError, MismatchError, UsageError
from lifelong.offline.evaluation import evaluate as evaluation
from lifelong.offline.evaluation.evaluate import drawn_for, evaluate, rows_in
from lifelong.offline.evaluation.ranking import Ranking, most_popular, rank_catalogue
from lifelong.offline.evaluation.vault import Opening, open_for, openings, readings_of, stored_result
from lifelong.offline.export.saving import load_model
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.training.trainer import train
from lifelong.testing.datasets import tiny_dataset

CLAIM = "The tiny model beats nothing at all"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    import pyarrow as pa

    drawn = random.Random(0)
    log = [(f"u{drawn.randrange(12)}", f"i{drawn.randrange(30)}", 1_000 + at) for at in range(900)]
    columns = dict(zip(("user", "item", "time"), map(list, zip(*log, strict=True)), strict=True))
    mapping = {name: name for name in columns}
    return prepare(pa.table(columns), out=tmp_path_factory.mktemp("data") / "data", vault=0.05, threads=1, **mapping)


@pytest.fixture
def dataset(prepared: Dataset, tmp_path: Path) -> Dataset:
    """One that nobody has opened."""
    shutil.copytree(prepared.folder, tmp_path / "data")
    return Dataset(tmp_path / "data")


@pytest.fixture(scope="module")
def artifact(prepared: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("a") / "one", prepared, model="counts")


@pytest.fixture(scope="module")
def other(prepared: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("a") / "two", prepared, model="popularity")


def test_the_vault_is_measured_once_and_keeps_what_came_out(dataset: Dataset, artifact: Artifact) -> None:
    result = evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert result.split == "vault" and result.counts.examples == len(dataset.vault.examples("vault")) == 90
    assert result.in_sample is False and result.data_hash == dataset.manifest.vault.data_hash  # type: ignore[union-attr]
    (record,) = openings(Dataset(dataset.folder))
    assert (record.artifact_id, record.family, record.result) == (artifact.id, artifact.id, result)
    with pytest.raises(MismatchError, match=rf"has been opened: .*{artifact.id[:12]}\) read it on \d{{4}}-") as caught:
        evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert "--stored" in caught.value.fix
    assert stored_result(dataset, artifact) == result
    check_fits(artifact, dataset.vault)  # so that a store can be filled from it


def test_how_often_an_item_was_drawn_is_found_by_its_id(tmp_path: Path) -> None:
    import pyarrow as pa

    items = ["b", "c", "c", "b", "c", "b"] * 100
    # Sorted before all others, and met in the vault alone.
    log = {"user": [f"u{at % 7}" for at in range(600)], "item": [*items[:-2], "a", "c"], "time": range(600)}
    table = pa.table({name: list(column) for name, column in log.items()})
    dataset = prepare(
        table, out=tmp_path / "data", vault=0.05, threads=1, user="user", item="item", time="time", min_count=1
    )
    by_id = {
        held.catalogue.ids.id_at(index): int(drawn_for(dataset, held)[FIRST_ROW + index])
        for held in (dataset, dataset.vault)
        for index in range(len(held.catalogue.ids))
    }
    end, later = dataset.manifest.cut_times
    last = items[end - (later - end) : end]
    assert by_id == {"a": 0, "b": last.count("b"), "c": last.count("c")}
    (most,) = rows_in(dataset.vault, dataset, most_popular(dataset, 1))
    assert dataset.vault.catalogue.ids.id_at(most - FIRST_ROW) == max("bc", key=last.count)


@pytest.mark.parametrize("popular", [None, 5])
def test_the_vault_is_ranked_with_its_own_histories_and_items(
    dataset: Dataset, artifact: Artifact, popular: int | None
) -> None:
    found = evaluate(
        artifact, dataset, split="vault", bootstrap=2, claim=CLAIM, ranking=Ranking((5,), popular=popular)
    ).ranking
    vault = dataset.vault
    model, examples = load_model(artifact), vault.examples("vault")
    drawn_V = drawn_for(dataset, vault)
    assert drawn_V is not None
    wanted = rank_catalogue(
        lambda asked: model.predict(vault, asked)[:, 0] + log_popularity(drawn_V[asked.row_N]),
        vault,
        examples,
        (5,),
        popular=None if popular is None else rows_in(vault, dataset, most_popular(dataset, popular)),
        resamples=2,
        seed=0,
    )
    assert found is not None and found.by_popularity
    assert found.model_copy(update={"seconds": 0, "by_popularity": False}) == wanted.model_copy(update={"seconds": 0})


@pytest.mark.parametrize("claim", [None, "", "tally gbdt", " a  b c "])
def test_a_reading_without_a_claim_is_refused_with_what_to_write(
    dataset: Dataset, artifact: Artifact, claim: str | None
) -> None:
    for read in (
        lambda: evaluate(artifact, dataset, split="vault", bootstrap=2, claim=claim),
        lambda: dataset.holding("vault", claim),
    ):
        with pytest.raises(UsageError) as caught:
            read()
        assert caught.value.expected.startswith(
            "a sentence of 4 words or more that says what this reading is to decide"
        )
        assert '--claim "Tally has a higher AUC than LightGBM"' in caught.value.fix
    assert not openings(dataset) and not readings_of(dataset)


def test_every_reading_is_counted_and_the_second_lists_the_claims_before(
    dataset: Dataset, artifact: Artifact, other: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert not caplog.records
    assert dataset.holding("vault", "Users with many events  differ").folder == dataset.vault.folder
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith('Reading 2 of this vault, to decide "Users with many events differ" (20')
    assert said.partition("before it: ")[2].startswith(f'"{CLAIM}" (20') and artifact.id[:12] in said
    evaluate(other, dataset, split="vault", bootstrap=2, claim="Popularity is level with counts")
    found = readings_of(Dataset(dataset.folder))
    assert [reading.claim for reading in found] == [
        CLAIM,
        "Users with many events differ",
        "Popularity is level with counts",
    ]
    assert {opening.claim for opening in openings(dataset)} == {CLAIM, "Popularity is level with counts"}
    assert dataset.holding("test") is dataset and len(readings_of(dataset)) == 3


def test_a_damaged_record_of_readings_is_named_and_nothing_is_read(dataset: Dataset, artifact: Artifact) -> None:
    record = dataset.vault.folder / "opened" / "readings.jsonl"
    record.parent.mkdir()
    record.write_text('{"claim": ')
    with pytest.raises(DataError, match="is not a record of readings"):
        evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert record.read_text() == '{"claim": '


def test_a_claim_for_another_split_is_refused(dataset: Dataset, artifact: Artifact) -> None:
    with pytest.raises(UsageError, match="a claim with the split 'test'"):
        evaluate(artifact, dataset, bootstrap=2, claim=CLAIM)


def test_each_family_opens_it_for_itself(dataset: Dataset, artifact: Artifact, other: Artifact) -> None:
    evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    with pytest.raises(UsageError, match="holds no result of this artifact's family"):
        stored_result(dataset, other)
    evaluate(other, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert [one.family for one in openings(dataset)] in ([artifact.id, other.id], [other.id, artifact.id])


@pytest.fixture(scope="module")
def generations(prepared: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Three artifacts, each continued from the one before."""
    folder, start, made = tmp_path_factory.mktemp("generations"), None, list[Artifact]()
    for at in range(3):
        config = load_config(None, ["train.max_epochs=1", "train.threads=1", f"train.seed={at}"])
        made.append(train(prepared, "mf", folder / str(at), config=config, start=start, progress=False))
        start = made[-1].path
    return made


def test_an_artifact_that_was_continued_from_another_is_of_its_family(
    dataset: Dataset, generations: list[Artifact]
) -> None:
    first, second, third = generations
    assert first.family == second.family == third.family == first.id != third.id
    result = evaluate(second, dataset, split="vault", bootstrap=2, claim=CLAIM)
    for one in (first, third):
        with pytest.raises(MismatchError, match=f"artifact {second.id[:12]}.*of the same family"):
            evaluate(one, dataset, split="vault", bootstrap=2, claim=CLAIM)
        assert stored_result(dataset, one) == result


def test_a_measurement_that_was_killed_is_repeated_with_the_same_artifact_alone(
    dataset: Dataset, generations: list[Artifact]
) -> None:
    first, second, _ = generations
    open_for(dataset, first, CLAIM)
    with pytest.raises(MismatchError, match="has been opened"):
        evaluate(second, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert evaluate(first, dataset, split="vault", bootstrap=2, claim=CLAIM) == stored_result(dataset, first)


def test_nothing_is_scored_where_it_cannot_be_written_down(
    dataset: Dataset, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Opening, path: Path) -> None:
        raise OSError(30, "Read-only file system")

    def never(*args: object, **settings: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr(Opening, "save", full)
    monkeypatch.setattr(evaluation, "predict", never)
    with pytest.raises(DatasetError, match=r"cannot be written down in .*Read-only"):
        evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)


def test_the_other_splits_are_measured_as_often_as_one_likes(dataset: Dataset, artifact: Artifact) -> None:
    one, two = (evaluate(artifact, dataset, bootstrap=2).metrics for _ in range(2))
    assert one == two and not openings(dataset)


def test_a_dataset_without_a_vault_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data")
    model = tiny_artifact(tmp_path / "artifact", data, model="popularity")
    with pytest.raises(DatasetError, match=r"has no vault.*--vault 0.05"):
        evaluate(model, data, split="vault", bootstrap=2, claim=CLAIM)


def test_an_artifact_whose_training_read_the_vaults_time_is_refused(
    dataset: Dataset, prepared: Dataset, tmp_path: Path
) -> None:
    # A dataset of the same log without a vault, of other cut times: its validation period goes on behind the cut.
    import pyarrow as pa

    histories, catalogue = dataset.vault.histories, dataset.vault.catalogue
    users = [
        dataset.vault.users.id_at(user)
        for user in range(histories.num_users)
        for _ in range(*histories.of(user).indices(10**9))
    ]
    log = pa.table(
        {
            "user": users,
            "item": [catalogue.id_of(int(row)) for row in histories.row_N],
            "time": [int(time) for time in histories.time_N],
        }
    )
    named = {name: name for name in ("user", "item", "time")}
    whole = prepare(
        log, out=tmp_path / "whole", cuts=(0.8, 0.97), start=dataset.folder, threads=1, min_count=2, **named
    )
    model = tiny_artifact(tmp_path / "artifact", whole, model="popularity")
    with pytest.raises(MismatchError, match=r"the vault period of .* overlaps what the artifact saw"):
        evaluate(model, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert not openings(dataset)


def test_from_python_the_vault_is_a_split_of_evaluate_alone(dataset: Dataset, artifact: Artifact) -> None:
    import lifelong

    result = lifelong.evaluate(artifact, dataset, split="vault", bootstrap=2, claim=CLAIM)
    assert lifelong.evaluate(artifact.path, dataset.folder, split="vault", stored=True) == result
    with pytest.raises(UsageError, match="stored = True with split = 'test'"):
        lifelong.evaluate(artifact, dataset, stored=True)
    with pytest.raises(UsageError, match=r'"train", "validation" or "test"\.'):
        lifelong.predict(artifact, dataset, split="vault")
