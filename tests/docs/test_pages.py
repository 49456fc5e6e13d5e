"""What the pages name exists, and what is generated is up to date."""

import itertools
import re
from pathlib import Path

import pytest
from support.doctest_fences import fenced
from support.drawings import PICTURES
from support.errors_page import describe_errors
from support.imports import import_graph

import lifelong
from lifelong.cli.program import build
from lifelong.offline import nn

ROOT = Path(__file__).parents[2]
MODULES = import_graph()
TESTS = {
    str(path.relative_to(ROOT)): set(re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE))
    for path in (ROOT / "tests").rglob("test_*.py")
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\b(?:lifelong|benchmarks|tests|docs)/[\w/.-]+\.(?:py|toml|svg|md)\b", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\blifelong(?:\.[a-z_]+)+\b", text):
        assert name in MODULES or _is_named_in(*name.rsplit(".", 1)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    for file, name in re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)`", page.read_text()):
        assert name in (TESTS[file] if file else set().union(*TESTS.values())), f"{file} {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    commands = build().commands
    called = r"(?:`|^ *)lifelong (?:--import \w+ )*([a-z]+)\b([^`#|\n]*)"
    for name, rest in re.findall(called, page.read_text(), re.MULTILINE):
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {*re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)} <= known | {"--help", "--json", "--debug"}, (name, rest)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "decisions" not in page.parts], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_column_of_a_table_has_a_heading(page: Path) -> None:
    lines = page.read_text().splitlines()
    for head, rule in itertools.pairwise(lines):
        if rule.startswith("| ---"):
            assert all(cell.strip() for cell in head.strip().strip("|").split("|")), head


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_one_title(page: Path) -> None:
    # A comment of a command that has slipped out of its block of code would be a second one.
    text = re.sub(r"^( *)(```|~~~).*?^\1\2$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("page", "least"), [("security.md", 30), ("guarantees.md", 30), ("privacy.md", 8), ("backup.md", 6)]
)
def test_every_promise_names_its_test(page: str, least: int) -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    promises = [row for row in rows if "::test_" in row]
    assert len(promises) >= least
    header = ""
    for row in rows:
        if set(row) <= set("|- "):
            continue
        if row.rstrip("| ").endswith("test"):
            header = row
        elif row.count("|") == header.count("|"):
            assert "::test_" in row, row


def _is_named_in(module: str, name: str) -> bool:
    """Whether the module's file has the word: a function, a class, a public name of the package."""
    path = ROOT / module.replace(".", "/")
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return any(re.search(rf"\b{name}\b", file.read_text()) for file in files if file.exists())


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_from_the_code(name: str) -> None:
    assert (ROOT / "docs" / "understand" / name).read_text() == PICTURES[name](), "stale: run `make pictures`"


def test_the_page_of_errors_is_made_from_their_docstrings() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == describe_errors(), "stale: run `make pictures`"


def test_an_example_in_a_docstring_is_shown_as_code() -> None:
    text = "Adds.\n\n>>> 1 + 1\n2\n\nArgs:\n    x: y\n"
    assert fenced(text) == "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nArgs:\n    x: y\n"
    inner = "Args:\n    x: y\n\n    >>> f(\n    ...     3)\n    'a'\n    'b'\n"
    assert fenced(inner) == "Args:\n    x: y\n\n    ```pycon\n    >>> f(\n    ...     3)\n    'a'\n    'b'\n    ```\n"


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    shown = {name.rsplit(".", 1)[1] for name in re.findall(r"^::: (lifelong\.[\w.]+)$", text, flags=re.MULTILINE)}
    assert shown == {*lifelong.__all__} - {"__version__"}
    modules = (ROOT / "docs" / "reference" / "nn.md").read_text()
    assert {*re.findall(r"^::: lifelong\.offline\.nn\.(\w+)$", modules, flags=re.MULTILINE)} == {*nn.__all__}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page
