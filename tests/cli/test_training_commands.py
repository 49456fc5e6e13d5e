"""`prepare`, `train`, `evaluate`, `compare`, `backfill`, `models`: the commands of the train extra."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is of the train extra")

from support.variants import moved

from lifelong.dataset.folder import Dataset
from lifelong.dataset.periods import period_of
from lifelong.dataset.vocabulary import NumberVocabulary

pytestmark = pytest.mark.torch

TAOBAO = "".join(
    f"{user},{10 + (user * step) % 4},{100 + step % 2},pv,{1511600000 + 5000 * step + user}\n"
    for user in range(1, 6)
    for step in range(12)
)
QUICK = ("--set", "train.max_examples=200", "--set", "train.validate_every=1.0", "--set", "train.threads=1")
SMALL = ("--set", "model.embedding=4", "--set", "model.width=8", "--set", "model.periods=[1,2]")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(TAOBAO)
    return path


# prepare


def test_prepare_writes_a_dataset_and_says_what_it_counted(run, log, tmp_path):
    outcome = run("prepare", "taobao", log, "--out", tmp_path / "data")
    assert outcome.code == 0
    assert "users" in outcome.stdout and "lifelong train" in outcome.stdout
    assert "done" in outcome.stderr
    assert (tmp_path / "data" / "dataset.json").exists()


def test_prepare_for_machines_is_the_manifest(run, log, tmp_path):
    outcome = run("prepare", "taobao", log, "--out", tmp_path / "data", "--set", "seed=3", "--json")
    assert outcome.document["counts"]["users"] == 5
    assert outcome.document["negatives"]["seed"] == 3
    written = json.loads((tmp_path / "data/dataset.json").read_text())
    assert outcome.document == {"dataset": str(tmp_path / "data"), **written}


def test_a_place_that_cannot_be_written_is_named(run, log):
    outcome = run("prepare", "taobao", log, "--out", "/proc/data", "--json")
    assert outcome.code == 1
    assert "/proc/" in outcome.error["found"] and outcome.error["fix"] == "name another place, or change its rights"


# train, evaluate, backfill


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset) -> Path:
    """The floor: fitted in a moment."""
    from lifelong.cli import main

    out = tmp_path_factory.mktemp("trained") / "artifact"
    assert main(["train", str(dataset.folder), "--model", "popularity", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_train_backfill_verify_and_score_a_memory_model(run, dataset, tmp_path):
    out, url = tmp_path / "artifact", f"rocksdb://{tmp_path}/store"
    outcome = run(
        "train", dataset.folder, "--model", "hpmn", "--out", out, *QUICK, *SMALL, "--set", "train.seed=3", "--json"
    )
    assert outcome.code == 0, outcome.stdout
    assert outcome.document["artifact"] == str(out)
    assert len(outcome.document["id"]) == 64
    outcome = run("backfill", out, dataset.folder, "--store", url, "--json")
    assert outcome.code == 0
    assert outcome.document["users"] == dataset.histories.num_users
    assert run("verify", out, dataset.folder, "--store", url).code == 0
    scored = run("score", out, "--store", url, "--user", "u3", "--items", "i1,i2", "--json").document
    assert scored["known_user"] is True


def test_what_verify_says_to_do_makes_the_store_whole(run, artifact, filled, dataset):
    words = ("verify", artifact, dataset.folder, "--store", filled)
    outcome = run(*words)
    assert outcome.code == 1 and "in DATA, but without a memory in the store" in outcome.stdout
    (advice,) = [line for line in outcome.stdout.splitlines() if line.startswith("Next, to write these memories again")]
    program, *command = shlex.split(advice.partition("again: ")[2])
    assert (program, command[0]) == ("lifelong", "backfill")
    assert run(*command).code == 0
    outcome = run(*words)
    assert outcome.code == 0 and "Next" not in outcome.stdout


@pytest.mark.slow
def test_training_goes_on_from_an_artifact_and_says_what_changed(run, log, tmp_path):
    """The daily refresh: newer rows, the numbers and the weights of the day before."""
    small = ("--set", "model.embedding=4", "--set", "train.max_examples=40", "--set", "train.threads=1")
    settings = ("--set", "min_count=1", "--set", "buckets=4")
    assert run("prepare", "taobao", log, "--out", tmp_path / "old", *settings).code == 0
    assert run("train", tmp_path / "old", "--model", "dnn", "--out", tmp_path / "monday", *small).code == 0
    log.write_text(TAOBAO + "".join(f"{user},77,100,pv,{1511605000 + 100 * user}\n" for user in range(1, 40)))
    words = ("--start", tmp_path / "monday", "--set", "min_count=1", "--set", "cuts=[0.6,0.8]")
    assert run("prepare", "taobao", log, "--out", tmp_path / "new", *words).code == 0
    outcome = run("train", tmp_path / "new", "--start", tmp_path / "monday", "--out", tmp_path / "tuesday", *small)
    assert outcome.code == 0, outcome.stderr
    assert "ids kept" in outcome.stdout and "before," in outcome.stdout and "log loss" in outcome.stdout
    found = json.loads((tmp_path / "tuesday" / "metrics.json").read_text())["start"]["fields"]["item"]
    assert (found["new"], found["gone"], found["buckets"]) == (1, 0, [4, 4])


def test_a_start_of_another_model_is_bad_usage(run, trained, dataset, tmp_path):
    words = ("--start", trained, "--model", "dnn", "--out", tmp_path / "artifact", "--json")
    outcome = run("train", dataset.folder, *words)
    assert outcome.code == 2
    assert outcome.error["problems"] == ["the model is 'dnn', the artifact's is 'popularity'"]


def test_a_training_needs_a_model_or_a_start(run, dataset, tmp_path):
    outcome = run("train", dataset.folder, "--out", tmp_path / "artifact", "--json")
    assert outcome.code == 2
    assert "neither --model nor --start" in outcome.error["found"]


def test_evaluate_prints_tables(run, trained, dataset):
    outcome = run("evaluate", trained, dataset.folder)
    assert outcome.code == 0
    assert "AUC" in outcome.stdout and "negatives were sampled" in outcome.stdout


def test_evaluate_ranks_all_items_for_the_baskets_of_some_users(run, trained, dataset):
    words = ["--ranking", "5,10", "--max-users", "3"]
    document = run("evaluate", trained, dataset.folder, *words, "--json").document
    ranking = document["ranking"]
    assert (ranking["users"], ranking["items"], ranking["popular"]) == (3, len(dataset.catalogue) - 2, None)
    assert [part["name"] for part in ranking["parts"]] == ["all", "repeat", "explore"]
    assert set(ranking["parts"][0]["metrics"]) == {f"{name}@{k}" for name in ("recall", "ndcg", "mrr") for k in (5, 10)}
    assert "Recall@5" in run("evaluate", trained, dataset.folder, *words).stdout
    few = run("evaluate", trained, dataset.folder, *words, "--max-items", "4", "--json").document["ranking"]
    assert few["popular"] == 4 and few["parts"] != ranking["parts"]
    assert run("evaluate", trained, dataset.folder, "--ranking", "ten").code == 2


def test_evaluate_for_machines_is_the_record_with_every_delay(run, trained, dataset):
    words = ("--split", "validation", "--delay", "0s,1m,1h,1d", "--json")
    document = run("evaluate", trained, dataset.folder, *words).document
    assert document["split"] == "validation"
    assert [part["delay"] for part in document["delays"]] == [0, 60, 3600, 86400]


def test_evaluate_says_that_there_is_no_vault_and_that_only_a_vault_keeps_results(run, trained, dataset):
    outcome = run("evaluate", trained, dataset.folder, "--split", "vault", "--json")
    assert outcome.code == 1 and "has no vault" in outcome.error["found"] and "--vault 0.05" in outcome.error["fix"]
    outcome = run("evaluate", trained, dataset.folder, "--stored", "--json")
    assert outcome.code == 2 and outcome.error["expected"] == "--split vault"


def test_evaluate_prints_who_opened_a_vault_and_what_it_kept(run, tmp_path):
    words = ("--set", "options.users=60", "--set", "threads=1", "--vault", "0.05")
    assert run("prepare", "synthetic", "--out", tmp_path / "data", *words).code == 0
    assert run("train", tmp_path / "data", "--model", "popularity", "--out", tmp_path / "artifact").code == 0
    vault = ("evaluate", tmp_path / "artifact", tmp_path / "data", "--split", "vault")
    none = run(*vault, "--json")
    assert none.code == 2 and "without a claim" in none.error["found"]
    claim = ("--claim", "Popularity tells buyers from others")
    first = run(*vault, *claim)
    assert first.code == 0 and "has been opened 1 time(s): Popularity (artifact" in " ".join(first.stdout.split())
    assert 'Reading 1 of this vault, to decide "Popularity tells buyers from others"' in " ".join(first.stdout.split())
    again = run(*vault, *claim, "--json")
    assert again.code == 1 and "has been opened" in again.error["found"] and "--stored" in again.error["fix"]
    assert run(*vault, "--stored", "--json").document["split"] == "vault"


def test_evaluate_refuses_a_test_period_of_the_training_and_marks_it_where_it_is_wanted(run, dataset, tmp_path):
    first, last = period_of(dataset, "test")
    later = moved(dataset, tmp_path / "later", (last - first) // 2)
    run("train", later.folder, "--model", "popularity", "--out", tmp_path / "artifact")
    words = ("evaluate", tmp_path / "artifact", dataset.folder)
    outcome = run(*words, "--json")
    assert outcome.code == 1 and "overlaps what the artifact saw" in outcome.error["found"]
    assert run(*words, "--in-sample", "--json").document["in_sample"] is True
    assert "IN SAMPLE: the test period" in run(*words, "--in-sample").stdout.replace("\n", " ")
    there = run("evaluate", tmp_path / "artifact", later.folder, "--json").document
    assert there["in_sample"] is False


@pytest.mark.parametrize(
    ("command", "words", "found"),
    [
        *(("prepare", ("--set", word), found) for word, found in (("nonsense=1", "nonsense"), ("seed", "--set seed"))),
        ("prepare", ("--set", "cuts=[0.9,0.8]"), "cuts"),
        ("prepare", ("--column", "x"), "--column x"),
        ("prepare", ("--protocol", "magic"), "magic"),
        ("train", ("--model", "hpnm"), "hpnm"),
        ("train", ("--model", "hpmn", "--set", "train.nonsense=1"), "train.nonsense"),
        ("train", ("--model", "hpmn", "--set", "model.nonsense=1"), "model.nonsense"),
        ("train", ("--model", "hpmn", "--set", "nonsense"), "nonsense"),
        ("train", ("--model", "hpmn", "--config", "/no/such.toml"), "such.toml"),
        ("evaluate", ("--delay", "soon"), "'soon' is not a duration"),
        ("evaluate", ("--split", "all"), "'--split': 'all' is not one of"),
        ("evaluate", ("--max-users", "5"), "--max-users without --ranking"),
        ("evaluate", ("--max-items", "5"), "--max-items without --ranking"),
    ],
)
def test_a_wrong_setting_is_bad_usage_and_named(run, log, dataset, trained, tmp_path, command, words, found):
    out = ("--out", tmp_path / "out")
    of = {"prepare": ("taobao", log, *out), "train": (dataset.folder, *out), "evaluate": (trained, dataset.folder)}
    outcome = run(command, *of[command], *words, "--json")
    assert outcome.code == 2
    assert found in outcome.error["found"]
    assert not (tmp_path / "out").exists()


def test_a_place_that_the_result_cannot_have_is_said_before_the_work(run, dataset, tmp_path):
    file = tmp_path / "mine"
    file.write_text("x")
    for out, found in ((tmp_path, f"{tmp_path} is a folder"), (file / "result.json", f"{file} is a file")):
        outcome = run("tune", dataset.folder, "--model", "tally", "--out", out, "--json")
        assert (outcome.code, outcome.error["found"]) == (2, found)
    outcome = run("train", dataset.folder, "--model", "popularity", "--out", file / "artifact", "--json")
    assert (outcome.code, outcome.error["found"]) == (2, f"{file} is a file")


def test_backfill_of_a_model_without_memory_says_why_not(run, trained, dataset, tmp_path):
    outcome = run("backfill", trained, dataset.folder, "--store", f"rocksdb://{tmp_path / 'store'}", "--json")
    assert outcome.code in (1, 2)
    assert "cannot be served" in outcome.error["found"]
    assert outcome.error["fix"]


def test_commands_that_fill_a_store_refuse_one_that_ends_with_them(run, trained, dataset):
    for words in (["backfill", trained, dataset.folder], ["ingest", trained, "events.csv"]):
        outcome = run(*words, "--store", "memory://", "--json")
        assert (outcome.code, outcome.error["expected"]) == (2, "a store that outlives it")


# compare, models


def test_models_lists_every_model_with_its_settings(run):
    from lifelong.offline.models import MODELS

    listed = run("models", "--json").document
    document = listed["models"]
    assert set(document) == {*MODELS, "hpmn_authors", "fpmc_users"}
    assert document["hpmn"]["served"] is True
    assert {"name": "width", "default": 32, "help": "width of a memory slot"} in document["hpmn"]["settings"]
    assert "HPMN" in run("models").stdout
    assert [setting["name"] for setting in listed["shared_settings"]] == ["head", "context", "counts"]


def test_models_lists_the_names_of_presets_and_endings_with_what_they_stand_for(run):
    document = run("models", "--json").document
    assert document["presets"]["sim_soft"] == {"model": "sim", "settings": {"search": "soft"}}
    assert document["endings"] == {"_counts": {"counts": True}}
    assert 'sim with search = "soft"' in run("models").stdout


def test_the_mapping_of_a_public_log_is_printed_to_copy_and_used_without_a_copy(run, tmp_path):
    shown = run("prepare", "movielens", "--show-mapping")
    path = tmp_path / "movielens.toml"
    path.write_text(shown.stdout)
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{n % 9},{n % 7},{n % 5},{n * 3600}\n" for n in range(300))
    )
    own = run("prepare", "movielens", tmp_path / "ratings.csv", "--out", tmp_path / "own", "--json").document
    copied = ["table", tmp_path / "ratings.csv", "--mapping", path, "--out", tmp_path / "copied", "--json"]
    assert run("prepare", *copied).document["data_hash"] == own["data_hash"]
    assert (
        run("prepare", "taobao", "--show-mapping", "--json")
        .error["expected"]
        .startswith("one of anki_revlogs, ebnerd, ")
    )
    assert run("prepare", "movielens", tmp_path / "ratings.csv", "--json").error["expected"] == "--out DATA"


@pytest.mark.parametrize("column", ["price", "Preis (netto)"])
@pytest.mark.parametrize("text", ["3,10", "1.003,10", "free"])
def test_prices_that_are_no_numbers_are_named_and_can_be_read(run, tmp_path, text, column):
    """By the command, on a log of two items, one of which has a number for its price."""
    rows = [f"u{n % 9};i{n % 2};{text if n % 2 else '5'};{1_700_000_000 + 3600 * n}" for n in range(300)]
    (tmp_path / "log.csv").write_text("\n".join([f"user;item;{column};time", *rows]))
    mapping = tmp_path / "log.toml"
    mapping.write_text(f'delimiter = ";"\nnumbers = ["price"]\n[fields]\nprice = "{column}"\n')
    words = ["prepare", "table", tmp_path / "log.csv", "--mapping", mapping, "--out", tmp_path / "data", "--overwrite"]
    printed = run(*words).stdout
    assert f"price is unknown for 1 of 2 items: '{text}' is not a number of at least 0. To do: " in printed
    if text == "free":
        assert "To do: leave it out of numbers if it is none\n" in printed
        return
    query = shlex.split(printed[printed.index("--column ") :].splitlines()[0])
    assert "price is unknown" not in run(*words, *query).stdout
    level = Dataset(tmp_path / "data").catalogue.numbers(["i1"])[0, 1]
    assert level == NumberVocabulary().numbers([text.replace(".", "").replace(",", ".")])[0]


def test_columns_that_nothing_names_are_said_and_can_be_read(run, tmp_path):
    rows = [f"u{n % 9},i{n % 20},c{n % 2},b{n % 3},{1_700_000_000 + 3600 * n}" for n in range(300)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,category,brand,time", *rows]))
    words = ["prepare", tmp_path / "log.csv", "--out", tmp_path / "data", "--overwrite"]
    printed = run(*words).stdout
    assert "Not read, as nothing names them: category, brand. To do, where they describe the item: " in printed
    option = shlex.split(printed[printed.index("--column ") :].splitlines()[0])[:2]
    assert option == ["--column", "fields=COLUMN,COLUMN"]
    assert "columns_not_read" not in printed
    five = ["events", "users", "items", "train examples", "test examples"]
    assert re.findall(r"^│ ([a-z ]+?) +│ +[\d,]+ +│$", printed, re.MULTILINE) == five
    everything = run(*words, "--json").document
    assert everything["counts"].keys() >= {*(name.replace(" ", "_") for name in five), "validation_examples"}
    assert "time_first" in everything["record"] and everything["record"]["read"]["rows"] == 300
    printed = run(*words, "--column", "fields=category,brand").stdout
    assert "Not read" not in printed
    assert "item fields item, category, brand" in printed
