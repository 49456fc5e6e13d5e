"""`paper`: the HPMN paper by one command."""

import json

import pytest

pytest.importorskip("torch", reason="torch is of the train extra")
pytest.importorskip("matplotlib", reason="matplotlib is of the report extra")

from support.papers import amazon_files, taobao_file, xlong_files

from lifelong.cli.paper import MODELS, authors_configs
from lifelong.offline.models import check_config
from lifelong.offline.reports.paper import COMPARED

pytestmark = pytest.mark.torch
QUICK = ("--set", "train.max_examples=60", "--set", "train.threads=1", "--set", "train.batch_targets=16")


def test_the_paper_is_repeated_and_goes_on_where_it_stopped(run, tmp_path):
    files = amazon_files(tmp_path, users=70)
    words = ("paper", "amazon", *files, "--out", tmp_path / "report", "--models", "dnn,hpmn", *QUICK)
    words = (*words, "--seeds", "1", "--json")
    outcome = run(*words)
    assert outcome.code == 0, outcome.stdout
    document = outcome.document
    assert [row["model"] for row in document["rows"]] == ["dnn", "hpmn"]
    assert "70 of 192,403 users" in document["verdict"]
    assert document["command"].startswith(f"lifelong paper amazon {files[0]} {files[1]} --out ")
    record = json.loads((tmp_path / "report/data/dataset.json").read_text())
    assert record["protocol"] == "paper" and record["record"]["settings"]["ties"] == "seen"
    assert record["dataset_schema"]["item_fields"] == ["item", "category"]
    page = (tmp_path / "report" / "index.html").read_text()
    for title in ("Against the paper", "What is as in the paper", "Training", "By length of"):
        assert f"<h2>{title}" in page, title
    assert "0.7809, not verified" in page and "here minus paper" in page
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "report/runs").rglob("result-test.json"))]
    again = run(*words)
    assert "2 of 2 are finished already" in again.stderr
    assert stamps == [path.stat().st_mtime_ns for path in sorted((tmp_path / "report/runs").rglob("result-test.json"))]
    files[0].write_text(files[0].read_text() + files[0].read_text().splitlines()[0] + "\n")
    changed = run(*words)
    assert changed.code == 1
    assert "other files" in changed.error["found"]


@pytest.mark.parametrize(("log", "protocol"), [("taobao", "paper"), ("xlong", "given")])
def test_each_data_set_has_the_protocol_of_the_paper(run, tmp_path, log, protocol):
    files = {"taobao": taobao_file, "xlong": xlong_files}[log](tmp_path, users=80)
    outcome = run("paper", log, *files, "--out", tmp_path / "report", "--models", "popularity", "--json")
    assert outcome.code == 0, outcome.stdout
    assert json.loads((tmp_path / "report/data/dataset.json").read_text())["protocol"] == protocol


@pytest.mark.parametrize(
    ("log", "periods", "rate", "sequence"),
    [
        ("amazon", (1, 2, 4), 0.003, 100),
        ("taobao", (1, 2, 4, 12), 0.001, 300),
        ("xlong", (1, 2, 4, 8, 16), 0.001, 1024),
    ],
)
def test_the_settings_are_the_authors(log, periods, rate, sequence):
    configs = authors_configs(log, MODELS.split(","), [], [])
    assert set(COMPARED) <= set(configs)
    for name, config in configs.items():
        assert config.train.learning_rate == rate and config.train.clip == 1.0 and config.train.weight_decay == 0.0
        assert config.train.batch_targets == (500 if log == "xlong" else 128)
        assert config.train.initial_vectors == "random"
        settings = check_config(name, config.model)
        assert settings.get("context", []) in ((), []), name
    for name in ("hpmn", "hpmn_authors"):
        settings = check_config(name, configs[name].model)
        assert tuple(settings["periods"]) == periods
        assert (settings["embedding"], settings["width"], settings["hops"], settings["dropout"]) == (16, 32, 3, 0.5)
    authors = check_config("hpmn_authors", configs["hpmn_authors"].model)
    assert authors["sequence"] == sequence and authors["query_before"] == (log == "xlong")
    assert authors["covariance"] == (5e-5 if log == "xlong" else 1e-5)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["movielens", "x.csv"], "movielens"),
        (["amazon", "x.json", "--models", "hpnm"], "hpnm"),
        (["amazon", "x.json", "--set", "train.max_minutes=0"], "max_minutes"),
    ],
)
def test_a_wrong_option_of_paper_is_bad_usage(run, tmp_path, words, found):
    outcome = run("paper", *words, "--out", tmp_path / "report", "--json")
    assert outcome.code == 2
    assert found in outcome.error["found"]
    assert not (tmp_path / "report").exists()
