"""A figure of a page of results is on other pages as it is there, or rounded: as `docs/facts.toml` says."""

import importlib
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
facts: Any = importlib.import_module("facts")
printed: Any = importlib.import_module("printed")
NUMBER, places = printed.NUMBER, printed.places
FACTS = {
    name: fact
    for section in tomllib.loads((ROOT / "docs" / "facts.toml").read_text()).values()
    for name, fact in section.items()
}
FIRST = [
    *("README.md", "docs/index.md", "docs/choosing.md", "docs/results/index.md", "docs/models/tally.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs" / "understand").glob("*.md"))),
]
AUC = r"(?<![\d.])\.\d{3,4}\b"
MEASURED = rf"{NUMBER}\s(?:ms|kB|KiB|bytes|(?:labelled\s)?examples\sper\ssecond|(?:events|requests)\sper\ssecond)\b"


def _measured(text: str) -> list[re.Match[str]]:
    # Code shows what a command prints, which is compared elsewhere, and Tally's page has a table of its own command.
    text = re.sub(r"```.*?```", lambda found: " " * len(found[0]), text, flags=re.DOTALL)
    return [*re.finditer(f"{AUC}|{MEASURED}", text.partition("## What each part is worth")[0])]


def _strange(text: str) -> list[str]:
    """Figures of accuracy, speed and size that are no fact's."""
    known = {
        start
        for fact in FACTS.values()
        for phrase in fact["phrases"]
        for start, *_ in places(phrase, fact["value"], text)
    }
    return [found[0] for found in _measured(text) if found.start() not in known]


@pytest.mark.parametrize("page", FIRST)
def test_a_first_page_has_its_figures_from_the_facts(page: str) -> None:
    assert not _strange((ROOT / page).read_text()), (
        "give it a fact in docs/facts.toml, or leave it to a page of results"
    )


def test_a_figure_that_is_no_fact_is_found() -> None:
    text = "A memory of at most\n4 KiB, in 1.5 ms, AUC .837, not 0.5 or 2.833\n```text\n.999\n```\n"
    assert _strange(text) == ["1.5 ms", ".837"]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "results").glob("[!i]*.md")), ids=lambda page: page.stem)
def test_a_page_of_results_names_machine_commands_and_their_commits(page: Path) -> None:
    text = page.read_text()
    assert "two cores" in text and "python benchmarks/" in text
    for part in re.split(r"\n##+ ", text):
        assert "python benchmarks/" not in part or re.search(r"\bcommit `?[0-9a-f]{8}\b", part), part


def _unlike(fact: dict[str, Any], texts: list[str]) -> list[str]:
    """What is wrong with a fact: phrases that no page has, and figures that are not the fact's, or it rounded."""
    wrong = []
    for phrase in fact["phrases"]:
        shown = [(text[at:end], right) for text in texts for at, end, right in places(phrase, fact["value"], text)]
        wrong += [f"{one}, not {right}: {phrase}" for one, right in shown if one != right]
        wrong += [] if shown else [f"nowhere: {phrase}"]
    return wrong


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_is_the_same_on_every_page(name: str) -> None:
    assert not _unlike(FACTS[name], [page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]])


def test_another_figure_of_a_fact_is_found_and_a_rounded_one_is_none() -> None:
    fact = {"value": ".8373", "phrases": ["Tally {} here", "in {n} ms up to {}"]}
    assert _unlike(fact, ["Tally .837\nhere, in 7 ms up to .8373"]) == []
    assert _unlike(fact, ["Tally .838 here, Tally .84 here"]) == [
        ".838, not .837: Tally {} here",
        "nowhere: in {n} ms up to {}",
    ]


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if "code" in fact])
def test_a_fact_is_that_of_the_code(name: str) -> None:
    assert facts.figure(FACTS[name], None) == FACTS[name]["value"], (
        "run a benchmark's output through benchmarks/facts.py"
    )


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_says_where_it_is_from(name: str) -> None:
    assert len({"key", "code", "by"} & FACTS[name].keys()) == 1


LATENCY = "python benchmarks/latency.py --long 1000000 --seconds 8"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pages and their facts in a folder, where the script writes."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "tests" / "support" / "pages", tmp_path / "tests" / "support" / "pages")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    return tmp_path


def _run(monkeypatch: pytest.MonkeyPatch, folder: Path, document: Any, *options: str) -> object:
    """The exit code of the script, or its message."""
    text = json.dumps(document, indent=2 if "rows" in document else None)
    (folder / "output").write_text(text if "rows" in document else f"a table\n{text}\n")
    monkeypatch.setattr(sys, "argv", ["facts.py", str(folder / "output"), *options])
    with pytest.raises(SystemExit) as ended:
        facts.main()
    return ended.value.code or 0


def _latency(p50: float) -> dict[str, Any]:
    return {"command": f"{LATENCY} --dir /tmp", "tally": {"http": {"short": {"p50_ms": p50}}}}


def test_an_output_changes_its_facts_and_their_pages(copied: Path, monkeypatch, capsys) -> None:
    before = {path: path.read_text() for path in copied.rglob("*.*") if path.suffix in (".md", ".toml")}
    assert _run(monkeypatch, copied, _latency(2.84)) == 0
    on = ["docs/results/index.md", "docs/results/service.md"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "changed": {"tally_ms_over_http": ["3.1", "2.8", on]}
    }
    changed = {
        str(path.relative_to(copied)): path.read_text() for path, text in before.items() if path.read_text() != text
    }
    assert sorted(changed) == ["docs/facts.toml", *on]
    assert 'tally_ms_over_http = { value = "2.8"' in changed["docs/facts.toml"]
    assert "100 candidates in 2.8 ms" in changed[on[1]] and "| HTTP | 2.8, 6.7" in changed[on[1]]


def test_a_page_keeps_its_decimals(copied: Path, monkeypatch) -> None:
    command = "lifelong compare data --models all --config benchmarks/completejourney.toml --reference tally --seeds 1"
    rows = [
        {"model": name[:-4], "metrics": {"auc": {"value": float(FACTS[name]["value"])}}}
        for name in ("tally_auc", "gbdt_auc", "counts_auc", "hpmn_auc", "din_auc", "hstu_auc")
    ]
    rows.append(
        {"model": "sim_cluster", "metrics": {"auc": {"value": 0.824}}, "differences": {"auc": {"value": -0.013}}}
    )
    rows[0]["metrics"]["auc"]["value"] = 0.84125
    costs = {"sim_cluster": 40_024, "hstu": 20_504, "hpmn": 1_816, "rum_feature": 3_096, "dnn": 536}
    document = {
        "command": command,
        "rows": rows,
        "costs": {model: {"state_bytes": size} for model, size in costs.items()},
        "results": [{"model": "tally", "counts": {"examples": 293_862}}],
        "trends": {"value": 0.554},
    }
    assert _run(monkeypatch, copied, document) == 0
    readme = (copied / "README.md").read_text()
    assert "| in the next request | **.841** |" in readme and "the model of the paper | 1.8 kB" in readme
    accuracy = (copied / "docs" / "results" / "accuracy.md").read_text()
    assert "| 4,096 | **.8413** (" in accuracy and "| −.113 | 1,816 |" in accuracy
    assert not _unlike({**FACTS["tally_auc"], "value": ".8413"}, [readme, accuracy, _counting(copied)])


def _counting(folder: Path) -> str:
    return (folder / "docs" / "understand" / "counting.md").read_text()


def test_a_check_writes_nothing_and_fails_beyond_its_share(copied: Path, monkeypatch) -> None:
    before = (copied / "docs" / "facts.toml").read_text(), (copied / "docs" / "results" / "service.md").read_text()
    assert _run(monkeypatch, copied, _latency(3.3), "--check", ".1") == 0
    assert _run(monkeypatch, copied, _latency(3.6), "--check", ".1") == 1
    assert before == (
        (copied / "docs" / "facts.toml").read_text(),
        (copied / "docs" / "results" / "service.md").read_text(),
    )


def test_what_cannot_be_written_is_an_error(copied: Path, monkeypatch) -> None:
    assert "give a benchmark's output" in str(_run(monkeypatch, copied, {"tally": 1}))
    assert "docs/facts.toml names" in str(_run(monkeypatch, copied, {"command": "python benchmarks/latency.py"}))
    assert "no tally.http" in str(_run(monkeypatch, copied, {"command": LATENCY, "hpmn": {}}))
    page = copied / "docs" / "results" / "service.md"
    page.write_text(page.read_text().replace("for 100 candidates in", "for a hundred candidates in"))
    assert "no page has 'for 100 candidates in {} ms'" in str(_run(monkeypatch, copied, _latency(2.8)))
    behind = {"films": {"vault": {"all": {"gbdt less tally": {"auc": [0.002, 0, 0]}}}}}
    command = "python benchmarks/other_logs.py --logs flights films --trials 10"
    assert "rewrite its sentences" in str(_run(monkeypatch, copied, {"command": command, **behind}))


def test_the_page_on_privacy_names_every_model_that_keeps_numbers_of_users() -> None:
    zoo = {path.stem: path.read_text() for path in (ROOT / "lifelong" / "zoo").glob("*.py")}
    kept = {name for name, text in zoo.items() if "inputs.users" in text or "(NeighbourModel)" in text}
    (row,) = re.findall(r"^\| artifact \|.*$", (ROOT / "docs" / "privacy.md").read_text(), re.MULTILINE)
    assert kept and {*re.findall(r"`([a-z_]+)`", row)} - {*re.findall(r"`(test_\w+)`", row)} == kept
