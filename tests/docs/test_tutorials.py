"""The tutorials' blocks run in their order, and print what the pages show."""

from pathlib import Path

import pytest
from support.tutorial import differences, run_page

pytestmark = pytest.mark.torch
PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compared = 0
    for step in run_page(page):
        if step.shown is not None:
            assert not differences(step.shown, step.printed), step.code
            compared += 1
    assert compared >= 4


SHOWN = "user u1\n...\n| item | 0.51 |\nArtifact ... is in a\n"


@pytest.mark.parametrize(
    ("printed", "equal"),
    [
        ("user u1\nx\n┃ item ┃ 0.52 ┃\nArtifact 7f is in a\n", True),
        ("user u2\nx\n┃ item ┃ 0.52 ┃\nArtifact 7f is in a\n", False),
        ("user u1\nx\n┃ item ┃ 0.92 ┃\nArtifact 7f is in a\n", False),
        ("user u1\nx\n┃ item ┃ 52 ┃\nArtifact 7f is in a\n", False),
        ("user u1\nx\n┃ item ┃ 0.52 ┃\n", False),
        ("user u1\nx\n┃ item ┃ 0.52 ┃\nArtifact 7f is in a\nmore\n", False),
    ],
)
def test_what_is_shown_is_compared_but_for_frames_and_last_digits(printed: str, equal: bool) -> None:
    assert (not differences(SHOWN.replace("|", "│"), printed)) == equal
