"""A figure stands on a page of results, and other pages repeat it as it is there, or rounded."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "docs" / "results").glob("[!i]*.md"))
PAGES = [
    *("README.md", "docs/index.md", "docs/choosing.md", "docs/results/index.md", "docs/models/tally.md"),
    *("docs/understand/memory.md", "docs/understand/counting.md", "docs/understand/lifelong-modelling.md"),
]
AUC = r"(?<![\d.])\.\d{3,4}\b"
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
