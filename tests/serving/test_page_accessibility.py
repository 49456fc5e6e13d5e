"""The page as a screen reader reads it, and as fingers move it; left out where there is no browser."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from support.shop_service import shop_service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (lifelong[dev])")
pytestmark = [pytest.mark.slow, pytest.mark.full]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with shop_service(tmp_path_factory.mktemp("page")) as found:
        yield found


# By ear

OUTSIDE = """
- banner:
  - heading "What will Ada choose next?" [level=1]
  - paragraph: /Predicted from all 483 events/
  - navigation "Users":
    - button "Ada" [pressed]
    - button "Ben"
    - button "Carla"
    - combobox "Find a user"
- main:
  - region /Their rhythm/:
    - heading /Their rhythm 483 events/ [level=2]
    - figure /Events by category, from .+ to .+/:
      - list:
        - listitem: dairy 109
  - region "Most likely now":
    - heading "Most likely now" [level=2]
  - region /Why .+/:
    - heading /Why .+/ [level=2]
    - list "What raises and lowers it, the strongest first"
    - heading "What if Ada now chooses …" [level=3]
    - combobox "Another item"
  - group: /For engineers/
"""

LIST = """
- list:
  - listitem:
    - button /gouda 30 times, last .+ ago/
    - strong: /\\d+ %/
    - button "What if they now choose gouda?"
"""


@pytest.fixture
def read(page, address):
    """The page, once all of it is there."""
    page.goto(f"{address}/#user=Ada")
    page.get_by_role("heading", name=re.compile("^Why .+")).wait_for()
    page.wait_for_load_state("networkidle")
    return page


def test_headings_landmarks_and_controls_are_named(read):
    playwright.expect(read.locator("body")).to_match_aria_snapshot(OUTSIDE)
    playwright.expect(read.get_by_role("region", name="Most likely now")).to_match_aria_snapshot(LIST)


def test_no_heading_level_is_left_out(read):
    read.get_by_text("For engineers").click()
    read.get_by_role("region", name="Cells of item").wait_for()
    levels = [int(level) for level in re.findall(r"heading .*\[level=(\d)\]", read.locator("body").aria_snapshot())]
    assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 8
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


NAMELESS = re.compile(r"- (button|link|textbox|searchbox|combobox|slider|radio|application)( \[.*\])?:?$", re.MULTILINE)


def test_no_control_is_without_a_name(read):
    read.get_by_text("For engineers").click()
    read.get_by_role("region", name="Cells of item").wait_for()
    found = read.locator("body").aria_snapshot()
    assert "combobox" in found
    assert NAMELESS.findall(found) == []


def test_what_moved_is_announced(read):
    # The region was there before its words change: only then do screen readers say them.
    said = read.locator(".try [aria-live=polite]")
    region = said.element_handle()
    playwright.expect(said).to_contain_text("nothing is stored")
    read.get_by_role("button", name="What if they now choose gouda?").press("Enter")
    playwright.expect(said).to_contain_text(re.compile(r"gouda.+% → .+%"))
    assert region.evaluate("(one) => one.isConnected")


def test_the_one_who_pressed_an_item_can_go_on_from_there(read):
    read.get_by_role("button", name="What if they now choose gouda?").press("Enter")
    read.get_by_role("button", name="Undo").wait_for()
    assert read.evaluate("document.activeElement.ariaLabel") == "What if they now choose gouda?"
