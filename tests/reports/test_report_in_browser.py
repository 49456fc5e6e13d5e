"""The report in Chromium: sorted tables, narrow screens, axe."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed (lifelong[dev])")

from playwright.sync_api import expect
from support.browser import violations
from support.comparisons import made_study

from lifelong.offline.reports import figures
from lifelong.offline.reports.comparison import write_comparison
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Table

pytestmark = [pytest.mark.slow, pytest.mark.full]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    curves = {"HPMN": [(1_000, 0.61), (2_000, 0.64)], "DIN": [(1_000, 0.6)]}
    training = Section("Training", figures=[figures.learning_curves(curves, out / "own")])
    mine = Section("Mine", tables=[Table(["name", "number"], [["x10", 2], ["x9", 10], ["x100", None]], name="mine")])
    return write_comparison(out, made_study(models=4), lifelong="hpmn", sections=[training, mine]).as_uri()


def column(page, heading, place):
    """Texts of a column in the table of a section."""
    rows = page.locator("section", has=page.get_by_role("heading", name=heading, exact=True)).locator("tbody tr")
    return [row.locator("th, td").nth(place).inner_text().split("\n")[0] for row in rows.all()]


def head(page, heading, name):
    section = page.locator("section", has=page.get_by_role("heading", name=heading, exact=True))
    return section.get_by_role("columnheader", name=name, exact=True)


def test_a_heading_sorts_up_then_down_then_as_written(page, address):
    page.goto(address)
    number = head(page, "Mine", "number")
    seen = []
    for _ in range(3):
        number.get_by_role("button").click()
        seen.append((number.get_attribute("aria-sort"), column(page, "Mine", 1)))
    assert seen == [
        ("ascending", ["2", "10", "–"]),
        ("descending", ["10", "2", "–"]),
        (None, ["2", "10", "–"]),
    ]


def test_the_keyboard_sorts_and_one_column_at_a_time_is_sorted(page, address):
    page.goto(address)
    head(page, "Mine", "number").get_by_role("button").click()
    head(page, "Mine", "name").get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert column(page, "Mine", 0) == ["x9", "x10", "x100"]
    expect(page.locator("[aria-sort]")).to_have_count(1)
    page.keyboard.press("Space")
    assert column(page, "Mine", 0) == ["x100", "x10", "x9"]


def test_estimates_sort_by_their_values_and_counts_of_examples_stay_on_top(page, address):
    page.goto(address)
    head(page, "All models", "AUC").get_by_role("button").click()
    assert column(page, "All models", 2) == ["0.6700", "0.6800", "0.6900", "0.7000"]
    page.get_by_text("Table: AUC by length").click()
    head(page, "By length of the history", "<50 events").get_by_role("button").click()
    assert column(page, "By length of the history", 1) == ["20", "0.6800", "0.6900", "0.7000", "0.7100"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(page, address, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
