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
- link "Skip to the memory"
- banner:
  - heading "Memory explorer" [level=1]
  - textbox /API key/
  - button "Use"
- navigation "Users":
  - heading "Users" [level=2]
  - search:
    - searchbox "Find by id"
  - group "Find by story":
    - radio "Any" [checked]
    - radio "Long-term"
    - radio "Short-term"
    - radio "Several time scales"
    - radio "Came back"
  - list:
    - listitem:
      - button /Ada 483 events/
- main:
  - region "Ada":
    - heading "Ada" [level=2]
  - region "What her memory holds":
    - heading "What her memory holds" [level=2]
  - region "Candidates":
    - heading "Candidates" [level=2]
  - region "Why gouda?":
    - heading "Why gouda?" [level=2]
  - region "Write an event and see what changes":
    - heading "Write an event and see what changes" [level=2]
"""

USER = """
- combobox "Rows by"
- combobox "Along"
- group "View":
  - button "Earlier"
  - button "Later"
  - button "Zoom in"
  - button "Zoom out"
  - button "All"
- 'list "Rows: values of category, with their events"':
  - listitem: gouda 30
  - listitem: dairy 109
- 'application "History of Ada: 483 events"'
- paragraph: 483 events; select one in the timeline.
- paragraph: /The past events that matter most for gouda/
- group: The latest events as a table
- group: Keys and source
"""

CANDIDATES = """
- combobox "Add an item"
- status: /gouda. score -?\\d+\\.\\d{3}, rank \\d of 2/
- table:
  - rowgroup:
    - row:
      - columnheader "Rank"
      - columnheader "Item"
      - columnheader "Score"
      - columnheader "Parts"
      - columnheader "Remove"
  - rowgroup:
    - row /cola|gouda/:
      - rowheader:
        - button /cola|gouda/
      - cell:
        - button /Remove (cola|gouda)/
"""

CANDIDATE = "#user=Ada&item=cola&item=gouda&chosen=gouda"


@pytest.fixture
def read(page, address):
    """The page with two candidates, once all of it is there."""
    page.goto(f"{address}/{CANDIDATE}")
    page.get_by_role("heading", name="Why gouda?").wait_for()
    return page


def test_headings_landmarks_and_controls_are_named(read):
    playwright.expect(read.locator("body")).to_match_aria_snapshot(OUTSIDE)
    playwright.expect(read.get_by_role("region", name="Ada")).to_match_aria_snapshot(USER)
    playwright.expect(read.get_by_role("region", name="Candidates")).to_match_aria_snapshot(CANDIDATES)


def test_no_heading_level_is_left_out(read):
    levels = [int(level) for level in re.findall(r"heading .*\[level=(\d)\]", read.locator("body").aria_snapshot())]
    assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 8
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


NAMELESS = re.compile(r"- (button|link|textbox|searchbox|combobox|slider|radio|application)( \[.*\])?:?$", re.MULTILINE)


def test_no_control_is_without_a_name(read):
    read.get_by_text("The latest events as a table").click()
    read.get_by_text("Keys and source").click()
    found = read.locator("body").aria_snapshot()
    assert "application" in found
    assert NAMELESS.findall(found) == []


def test_the_timeline_says_how_it_is_used_and_its_events_are_announced(read):
    drawing = read.get_by_role("application", name="History of Ada: 483 events")
    assert drawing.evaluate("(one) => one.tabIndex") == 0
    playwright.expect(drawing).to_have_accessible_description(
        re.compile("Left and right arrows go from event to event")
    )
    said = read.get_by_role("region", name="Ada").locator("[aria-live=polite]")
    drawing.press("Home")
    playwright.expect(said).to_match_aria_snapshot("- paragraph: /No\\. 1 · .+ 2025/")
    drawing.press("ArrowRight")
    playwright.expect(said).to_match_aria_snapshot("- paragraph: /No\\. 2 · /")
    drawing.press("End")
    playwright.expect(said).to_match_aria_snapshot("- paragraph: /No\\. 483 · /")


def test_a_new_score_is_announced(read):
    # The region was there before its words change: only then do screen readers say them.
    said = read.get_by_role("region", name="Candidates").get_by_role("status")
    region = said.element_handle()
    playwright.expect(said).to_have_text(re.compile(r"^gouda: score -?\d+\.\d{3}, rank \d of 2$"))
    read.get_by_role("button", name="cola", exact=True).press("Enter")
    playwright.expect(said).to_have_text(re.compile("^cola: score"))
    shown = read.get_by_role("region", name="Candidates").get_by_role("row", name="cola").inner_text()
    assert re.search(r"-?\d+\.\d{3}", shown)[0] in said.inner_text()
    assert region.evaluate("(one) => one.isConnected")


# By touch


class Fingers:
    """Touches of a page, through Chromium's own input."""

    def __init__(self, page):
        self.page, self.session = page, page.context.new_cdp_session(page)
        self.session.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})

    def _send(self, kind, points):
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def move(self, *paths, steps=8):
        """Each finger from the first to the second of its places, all at once."""
        self._send("touchStart", [start for start, _ in paths])
        for step in range(1, steps + 1):
            share = step / steps
            self._send("touchMove", [(a + (c - a) * share, b + (d - b) * share) for (a, b), (c, d) in paths])
        self._send("touchEnd", [])

    def tap(self, place):
        self._send("touchStart", [place])
        self._send("touchEnd", [])


@pytest.fixture
def touched(page, address):
    """A narrow page and its fingers, with the timeline on the screen."""
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{address}/#user=Ada&item=gouda")
    page.get_by_role("heading", name="Why gouda?").wait_for()
    page.get_by_role("application").evaluate("(one) => one.scrollIntoView({ block: 'center' })")
    return page, Fingers(page)


def box_of(page):
    return page.get_by_role("application").bounding_box()


def view_of(page):
    """From and to, in seconds, as the address has them."""
    playwright.expect(page).to_have_url(re.compile(r"view=[\d.]+\.\.[\d.]+"))
    return tuple(float(part) for part in re.search(r"view=([\d.]+)\.\.([\d.]+)", page.url).groups())


def pinched(page, fingers):
    """The view after two fingers went three times as far apart around the middle."""
    box = box_of(page)
    y, (a, b, c, d) = box["y"] + 60, (box["x"] + box["width"] * share for share in (0.4, 0.2, 0.6, 0.8))
    fingers.move(((a, y), (b, y)), ((c, y), (d, y)))
    return view_of(page)


def test_a_tap_selects_the_event_at_the_finger(touched, address):
    page, fingers = touched
    times = page.request.get(f"{address}/v1/users/Ada/history").json()["time"]
    box = box_of(page)
    fingers.tap((box["x"] + box["width"] * 0.5, box["y"] + 60))
    playwright.expect(page.locator("p.selected")).to_contain_text("No. ")
    playwright.expect(page).to_have_url(re.compile(r"event=\d+"))
    chosen = times[int(re.search(r"event=(\d+)", page.url)[1]) - 1]
    middle = (times[0] + times[-1]) / 2
    # The whole history has a little room at both ends, alike.
    assert abs(chosen - middle) <= min(abs(time - middle) for time in times) + (times[-1] - times[0]) / box["width"]
    assert "view=" not in page.url


def test_two_fingers_zoom_around_their_middle(touched, address):
    page, fingers = touched
    times = page.request.get(f"{address}/v1/users/Ada/history").json()["time"]
    first, last = pinched(page, fingers)
    whole = times[-1] - times[0]
    assert last - first == pytest.approx(whole / 3, rel=0.1)
    assert (first + last) / 2 == pytest.approx((times[0] + times[-1]) / 2, abs=whole * 0.03)
    assert "event=" not in page.url


def test_one_finger_moves_the_view_with_it(touched):
    page, fingers = touched
    first, last = pinched(page, fingers)
    box = box_of(page)
    y = box["y"] + 60
    fingers.move(((box["x"] + box["width"] * 0.75, y), (box["x"] + box["width"] * 0.5, y)))
    playwright.expect(page).not_to_have_url(re.compile(re.escape(f"view={first:g}")))
    page.wait_for_function("(text) => !location.hash.includes(text)", arg=f"view={first}")
    moved = view_of(page)
    size = last - first
    assert moved[1] - moved[0] == pytest.approx(size, rel=0.01)
    assert moved[0] - first == pytest.approx(size / 4, rel=0.15)
    assert "event=" not in page.url


def test_a_finger_that_goes_up_scrolls_the_page_and_leaves_the_view(touched):
    page, fingers = touched
    before, box = page.evaluate("scrollY"), box_of(page)
    x = box["x"] + box["width"] / 2
    fingers.move(((x, box["y"] + 150), (x, box["y"] - 100)))
    page.wait_for_function("(before) => scrollY > before + 50", arg=before)
    page.wait_for_timeout(500)
    assert "view=" not in page.url and "event=" not in page.url
