"""`compare` and `tune`: budgets, jobs, settings files, costs of serving."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is of the train extra")
pytest.importorskip("matplotlib", reason="matplotlib is of the report extra")

from support.artifacts import tiny_artifact

from lifelong.api import compare
from lifelong.artifact.folder import Artifact
from lifelong.cli.compare import command_line
from lifelong.cli.compare import compare as compare_command
from lifelong.cli.model_settings import model_configs
from lifelong.cli.paper import paper
from lifelong.cli.serving_cost import serving_of
from lifelong.errors import MissingExtraError, UsageError
from lifelong.offline.evaluation.significance import LEAST_SEEDS

pytestmark = pytest.mark.torch
QUICK = ("--set", "train.max_examples=200", "--set", "train.validate_every=100", "--set", "train.threads=1")


# compare


def test_what_is_compared_by_default_is_trained_often_enough_for_a_claim():
    for function in (compare_command, compare, paper):
        assert inspect.signature(function).parameters["seeds"].default == LEAST_SEEDS


@pytest.mark.slow
def test_compare_fills_every_part_of_the_comparison(run, dataset, tmp_path):
    words = ["--models", "counts,dnn"]
    words += ["--seeds", "1", *QUICK]
    outcome = run("compare", dataset.folder, "--out", tmp_path / "report", *words, "--json")
    assert outcome.code == 0
    document = outcome.document
    assert set(document["costs"]["dnn"]["latency_ms"]) == {"100", "1000", "10000"}
    assert document["costs"]["counts"]["latency_ms"] is None
    assert document["command"].startswith(f"lifelong compare {dataset.folder} --models counts,dnn")


def test_no_page_recommends_fewer_seeds():
    # The pages of results record what was measured, with however many seeds.
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *(page for page in (root / "docs").rglob("*.md") if "results" not in page.parts)]
    commands = [line for page in pages for line in page.read_text().splitlines() if "lifelong " in line]
    given = [int(seeds) for line in commands for seeds in re.findall(r"--seeds (\d+)", line)]
    assert given and min(given) >= LEAST_SEEDS


def test_without_matplotlib_nothing_is_trained(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run("compare", dataset.folder, "--models", "popularity", "--out", tmp_path / "report")
    assert outcome.code == 1 and "pip install 'lifelong[report]'" in outcome.stderr
    with pytest.raises(MissingExtraError):
        compare(dataset, "popularity", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_what_the_negatives_give_away_is_printed_and_on_the_page(run, dataset, tmp_path):
    pytest.importorskip("lightgbm", reason="lightgbm is of the gbdt extra")
    words = ("compare", dataset.folder, "--models", "popularity", "--seeds", "1", "--out", tmp_path / "report")
    said = " ".join(run(*words).stdout.split())
    (line,) = re.findall(r"Negatives by popularity: .* AUC 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)", said)
    assert line in (tmp_path / "report" / "index.html").read_text()
    trends = run(*words, "--json").document["trends"]
    assert f"{trends['value']:.4f} ({trends['low']:.4f} to {trends['high']:.4f})" in line


def test_a_model_that_fails_makes_the_exit_code_one_and_the_others_are_reported(run, dataset, tmp_path):
    words = ("--models", "popularity,dnn", "--set", "dnn.train.device=cuda", "--seeds", "1")
    outcome = run("compare", dataset.folder, "--out", tmp_path / "report", *words, "--json")
    assert outcome.code == 1
    assert list(outcome.document["failures"]) == ["dnn-seed0"]
    assert [row["model"] for row in outcome.document["rows"]] == ["popularity"]


def test_all_models_leaves_out_what_the_dataset_cannot_train_and_says_why(run, dataset, tmp_path, monkeypatch):
    from lifelong.offline.models import registry
    from lifelong.zoo.counts import Counts

    few = {name: registry.MODELS[name] for name in ("popularity", "counts")}
    monkeypatch.setattr(registry, "MODELS", few)
    monkeypatch.setattr(registry, "PRESETS", {})
    monkeypatch.setattr(Counts, "requirements", lambda self, dataset: ["it has no prices"])
    words = ("compare", dataset.folder, "--seeds", "1", "--json")
    document = run(*words, "--out", tmp_path / "all").document
    assert [row["model"] for row in document["rows"]] == ["popularity"]
    (left_out,) = document["notes"]
    assert left_out == "counts is left out: counts cannot be trained on this dataset: it has no prices"
    named = run(*words, "--models", "popularity,counts", "--out", tmp_path / "named")
    assert named.code == 1
    assert "it has no prices" in named.document["failures"]["counts-seed0"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--models", "hpmn,nonsense"], "nonsense"),
        (["--set", "hpmn.width=3"], "hpmn.width"),
        (["--set", "popularity.nonsense=3"], "nonsense"),
        (["--max-time", "0s"], "--max-time 0s"),
        (["--jobs", "0"], "jobs"),
        (["--reference", "hpmn"], "'hpmn' is not compared"),
    ],
)
def test_options_that_make_no_sense_are_bad_usage(run, dataset, tmp_path, words, found):
    outcome = run("compare", dataset.folder, "--models", "popularity", "--out", tmp_path / "report", *words, "--json")
    assert outcome.code == 2
    assert found in outcome.error["found"]
    assert not (tmp_path / "report").exists()


def test_a_file_in_the_place_of_the_report_is_bad_usage(run, dataset, tmp_path):
    taken = tmp_path / "report"
    taken.write_text("mine")
    for out in (taken, taken / "below"):
        outcome = run("compare", dataset.folder, "--models", "popularity", "--out", out, "--json")
        assert (outcome.code, outcome.error["found"]) == (2, f"{taken} is a file")
    assert taken.read_text() == "mine"
    outcome = run("compare", dataset.folder, "--models", "popularity", "--out", dataset.folder, "--json")
    assert (outcome.code, outcome.error["found"]) == (2, f"{dataset.folder} is a dataset")


@pytest.mark.slow
def test_a_comparison_killed_with_two_jobs_goes_on_without_doing_a_finished_run_again(dataset, tmp_path):
    out = tmp_path / "report"
    words = ["compare", str(dataset.folder), "--models", "popularity,gru4rec", "--seeds", "1"]
    words += ["--out", str(out)]
    sets = ("train.validate_every=200", "train.batch_targets=64", "train.patience=1000000", "train.max_examples=15000")
    words += ["--jobs", "2", *(word for each in (*sets, "gru4rec.width=4") for word in ("--set", each))]
    command = [sys.executable, "-m", "lifelong", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = out / "runs" / "popularity-seed0" / "result-test.json"
    checkpoint = out / "runs" / "gru4rec-seed0" / "artifact.checkpoint" / "state.safetensors"
    end = time.monotonic() + 120
    while not (result.exists() and checkpoint.exists()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stamp = result.stat().st_mtime_ns
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert result.stat().st_mtime_ns == stamp
    comparison = json.loads((out / "comparison.json").read_text())
    assert [row["model"] for row in comparison["rows"]] == ["popularity", "gru4rec"]
    assert comparison["costs"]["gru4rec"]["examples_seen"] == 15_000


@pytest.mark.slow
def test_a_form_of_a_model_is_compared_under_its_own_name(run, dataset, tmp_path):
    words = ("--models", "sim,sim_soft", "--seeds", "1", "--set", "sim.embedding=3", *QUICK)
    outcome = run("compare", dataset.folder, "--out", tmp_path / "report", *words, "--json")
    rows = [(row["model"], row["title"]) for row in outcome.document["rows"]]
    assert rows == [("sim", "SIM (hard)"), ("sim_soft", "SIM (soft)")]
    assert [result["model"] for result in outcome.document["results"]] == ["sim", "sim_soft"]


def test_a_model_given_counts_is_a_row_of_its_own_and_costs_no_service(run, dataset, tmp_path):
    words = ("--models", "dnn,dnn_counts", "--seeds", "1", "--set", "dnn.embedding=3", *QUICK)
    outcome = run("compare", dataset.folder, "--out", tmp_path / "report", *words, "--json")
    assert outcome.code == 0, outcome.stdout
    document = outcome.document
    rows = [(row["model"], row["title"]) for row in document["rows"]]
    assert rows == [("dnn", "DNN"), ("dnn_counts", "DNN + counts")]
    assert document["rows"][1]["differences"]["auc"]["low"] is not None
    assert [result["config"]["model"]["embedding"] for result in document["results"]] == [3, 3]
    assert document["costs"]["dnn"]["state_bytes"] and document["costs"]["dnn_counts"]["state_bytes"] is None


def test_a_command_can_be_typed_again(tmp_path):
    given = {"models": "a,b", "changes": ["x=[1, 2]", "y=1"], "open": True, "jobs": None, "max_time": 10_800.0}
    expected = "lifelong compare data --models a,b --set 'x=[1, 2]' --set y=1 --open --max-time 3h"
    assert command_line("compare", {"terminal": object(), "data": Path("data"), **given}) == expected


# settings of several models


def test_settings_reach_the_model_they_are_for(tmp_path):
    (tmp_path / "all.toml").write_text("[train]\nclip = 0.5\n[dnn]\nembedding = 4\n[dnn.train]\nlearning_rate = 0.1\n")
    made = model_configs(["dnn", "hpmn"], [tmp_path / "all.toml"], ["hpmn.train.seed=7", "hpmn.width=9"])
    assert made["dnn"].model == {"embedding": 4}
    assert made["hpmn"].model == {"width": 9}
    assert [of.train.learning_rate for of in made.values()] == [0.1, 0.003]
    assert [of.train.seed for of in made.values()] == [0, 7]
    assert [of.train.clip for of in made.values()] == [0.5] * 2


def test_a_model_given_counts_takes_the_settings_of_the_model_and_then_its_own(tmp_path):
    text = "[dnn]\nembedding = 4\ndropout = 0.2\n[dnn_counts]\nembedding = 5\n[dnn.train]\nclip = 0.5\n"
    (tmp_path / "all.toml").write_text(text)
    changes = ["dnn_counts.train.patience=3"]
    for models in (["dnn_counts"], ["dnn", "dnn_counts"]):
        made = model_configs(models, [tmp_path / "all.toml"], changes)
        assert made["dnn_counts"].model == {"embedding": 5, "dropout": 0.2}
        assert (made["dnn_counts"].train.clip, made["dnn_counts"].train.patience) == (0.5, 3)
    assert (made["dnn"].model, made["dnn"].train.patience) == ({"embedding": 4, "dropout": 0.2}, 8)


def test_one_file_serves_comparisons_of_some_of_its_models_too(tmp_path):
    (tmp_path / "all.toml").write_text("[train]\nclip = 0.5\n[sim_soft]\nhits = 8\n[dnn]\nembedding = 4\n")
    made = model_configs(["dnn"], [tmp_path / "all.toml"], [])
    assert {name: (of.model, of.train.clip) for name, of in made.items()} == {"dnn": ({"embedding": 4}, 0.5)}


@pytest.mark.parametrize(("name", "found"), [("all", r"all\.toml has \[dnm\]"), ("no", r"no\.toml")])
def test_a_section_of_no_model_and_a_file_that_cannot_be_read_are_named(tmp_path, name, found):
    (tmp_path / "all.toml").write_text("[dnm]\nembedding = 4\n")
    with pytest.raises(UsageError, match=found):
        model_configs(["dnn"], [tmp_path / f"{name}.toml"], [])


def test_tuned_settings_reach_their_own_model_alone(tmp_path):
    tuned = tmp_path / "hpmn.toml"
    tuned.write_text('[train]\nlearning_rate = 0.1\n[model]\nwidth = 9\n[tuned]\nmodel = "hpmn"\n')
    made = model_configs(["dnn", "hpmn"], [tuned], [])
    assert (made["hpmn"].train.learning_rate, made["hpmn"].model) == (0.1, {"width": 9})
    assert (made["dnn"].train.learning_rate, made["dnn"].model) == (0.003, {})
    assert model_configs(["dnn"], [tuned], [])["dnn"].train.learning_rate == 0.003


# costs of serving


def test_a_memory_holds_the_events_behind_which_latency_is_measured(dataset, tmp_path, monkeypatch):
    from lifelong.online.scoring import scorer

    artifact = tiny_artifact(tmp_path / "run" / "artifact", dataset)
    counts, real = [], scorer.Scorer.answer_from

    def answer_from(self, states, known, requests):
        counts.append((int(states.count_B[0]), len(requests[0].items)))
        return real(self, states, known, requests)

    monkeypatch.setattr(scorer.Scorer, "answer_from", answer_from)
    made = serving_of(artifact, events=(3, 20))
    assert dict.fromkeys(counts) == dict.fromkeys([(3, 100), (20, 100)])
    assert min(made.latency_ms.values()) > 0
    # 24 bytes of header, three slots of six floats.
    assert made.state_bytes == 24 + 3 * 6 * 4
    counts.clear()
    assert serving_of(Artifact.open(artifact.path), events=(3, 20)) == made
    assert counts == [], "measured again"


def test_a_history_model_is_measured_on_the_events_that_it_keeps(dataset, tmp_path):
    artifact = tiny_artifact(tmp_path / "run" / "artifact", dataset, model="caser")
    small, large = (serving_of(artifact, events=(count,)) for count in (10, 500))
    assert small.state_bytes == large.state_bytes
    assert set(large.latency_ms) == {500}


def test_a_model_that_cannot_be_served_has_no_cost_of_serving(dataset, tmp_path):
    assert serving_of(tiny_artifact(tmp_path / "run" / "artifact", dataset, model="popularity")) is None


# tune


@pytest.mark.slow
def test_what_tune_writes_is_read_by_train_and_by_compare(run, dataset, tmp_path):
    out = tmp_path / "dnn.toml"
    words = ("--model", "dnn", "--trials", "2", "--max-examples", "100", "--set", "model.dropout=0.25", *QUICK[-2:])
    outcome = run("tune", dataset.folder, *words, "--out", out, "--json")
    assert outcome.code == 0
    assert len(outcome.document["trials"]) == 2
    assert "trial 2:" in outcome.stderr
    tables = tomllib.loads(out.read_text())
    assert tables["model"]["dropout"] == 0.25
    artifact = tmp_path / "artifact"
    assert run("train", dataset.folder, "--model", "dnn", "--config", out, "--out", artifact, *QUICK).code == 0
    trained = json.loads((artifact / "metrics.json").read_text())["config"]
    assert trained["train"]["learning_rate"] == tables["train"]["learning_rate"]
    assert trained["model"] == tables["model"]
    words = ("--models", "popularity,dnn", "--config", out, "--seeds", "1", *QUICK)
    assert run("compare", dataset.folder, *words, "--out", tmp_path / "report").code == 0
    compared = json.loads((tmp_path / "report/runs/dnn-seed0/artifact/metrics.json").read_text())["config"]
    assert compared["model"] == tables["model"]


def test_tune_for_people_names_the_best_settings_and_what_comes_next(run, dataset, tmp_path):
    out = tmp_path / "popularity.toml"
    outcome = run("tune", dataset.folder, "--model", "popularity", "--trials", "2", "--out", out)
    assert outcome.code == 0
    assert "model.smoothing" in outcome.stdout
    assert f"--model popularity --config {out}" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [(["--model", "hpnm"], "hpnm"), (["--model", "dnn", "--trials", "0"], "trials")],
)
def test_a_wrong_option_of_tune_is_bad_usage(run, dataset, tmp_path, words, found):
    outcome = run("tune", dataset.folder, *words, "--out", tmp_path / "x.toml", "--json")
    assert outcome.code == 2
    assert found in outcome.error["found"]
