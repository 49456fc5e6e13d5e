"""A figure stands on a page of results, and other pages repeat it as it is there, or rounded."""

import re
import tomllib
from pathlib import Path

import pytest

from lifelong.offline.models import all_names
from lifelong.offline.models.hpmn import HpmnConfig
from lifelong.offline.models.registry import MODELS
from lifelong.offline.models.tally import TallyConfig
from lifelong.online.memory import codec
from lifelong.tally.plan import EXACT, plan_of

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "docs" / "results").glob("[!i]*.md"))
PAGES = [
    *("README.md", "docs/index.md", "docs/choosing.md", "docs/results/index.md", "docs/models/tally.md"),
    *("docs/understand/memory.md", "docs/understand/counting.md", "docs/understand/lifelong-modelling.md"),
]
AUC = r"(?<![\d.])\.\d{3,4}\b"
NUMBER = r"[\d,.]*\d"
MEASURED = r"[\d,.]*\d (?:ms|examples per second|requests per second)"


def _measured(text: str) -> list[str]:
    # Code shows what a command prints, which is compared elsewhere.
    return re.findall(f"{AUC}|{MEASURED}", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_repeats_figures_of_the_results(page: str) -> None:
    results = "\n".join(path.read_text() for path in RESULTS)
    known = {float(figure) for figure in re.findall(r"\.\d{3,4}\b", results)}
    for figure in _measured((ROOT / page).read_text()):
        if figure.startswith(".") and figure[1:].isdigit():
            digits = len(figure) - 1
            assert any(abs(value - float(figure)) <= 0.5001 * 10**-digits for value in known), figure
        else:
            number = figure.split()[0]
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d])", results), figure


def test_figures_of_accuracy_and_speed_are_found_in_a_text() -> None:
    assert _measured("AUC .837 in 1.4 ms, not 0.5 or 2.833\n```text\n.999\n```\n") == [".837", "1.4 ms"]


def _facts() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "docs" / "facts.toml").read_text())


def _unlike(fact: list[str], text: str) -> list[str]:
    """What is wrong with a fact: phrases that no page has, and figures that are not the fact's, or it rounded."""
    value, *phrases = fact
    wrong = []
    for phrase in phrases:
        before, after = map(re.escape, phrase.split("{}"))
        shown = re.findall(f"{before}({NUMBER}){after}", text)
        same = [
            f"{float(value):.{len(one.partition('.')[2])}f}".lstrip("0") if "." in value else value for one in shown
        ]
        wrong += [f"{one}: {phrase}" for one, right in zip(shown, same, strict=True) if one != right]
        wrong += [] if shown else [f"nowhere: {phrase}"]
    return wrong


@pytest.mark.parametrize("name", _facts())
def test_a_fact_is_the_same_on_every_page(name: str) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert not _unlike(_facts()[name], "\n".join(" ".join(page.read_text().split()) for page in pages))


def test_another_figure_of_a_fact_is_found_and_a_rounded_one_is_none() -> None:
    fact = [".8373", "Tally {} here", "up to {}"]
    assert _unlike(fact, "Tally .837 here, up to .8373") == []
    assert _unlike(fact, "Tally .838 here, Tally .84 here") == [".838: Tally {} here", "nowhere: up to {}"]


def test_facts_are_those_of_the_code() -> None:
    found = {name: int(fact[0].replace(",", "")) for name, fact in _facts().items() if "." not in fact[0]}
    assert found["models"] == len(MODELS) and found["trainings"] == len(all_names())
    assert found["exact_counts"] == EXACT - 1 and found["header_bytes"] == codec._FIELDS
    hpmn, tally = HpmnConfig(), TallyConfig()
    assert found["hpmn_bytes"] == found["header_bytes"] + 4 * len(hpmn.periods) * hpmn.width
    assert found["tally_bytes"] == found["header_bytes"] + tally.state
    sizes = (40_854, 2_243, 303, 32, 4_994, 4, 2_956)  # of the fields of Complete Journey
    plan = plan_of({"state": tally.state, "width": tally.width, "periods": (1, 9)}, sizes, timed=True)
    assert found["cells"] == sum(plan.cells_F) // 50 * 50


def test_the_page_on_privacy_names_every_model_that_keeps_numbers_of_users() -> None:
    zoo = {path.stem: path.read_text() for path in (ROOT / "lifelong" / "zoo").glob("*.py")}
    kept = {name for name, text in zoo.items() if "inputs.users" in text or "(NeighbourModel)" in text}
    (row,) = re.findall(r"^\| artifact \|.*$", (ROOT / "docs" / "privacy.md").read_text(), re.MULTILINE)
    assert kept and {*re.findall(r"`([a-z_]+)`", row)} - {*re.findall(r"`(test_\w+)`", row)} == kept
