"""The page in Chromium, with the shop of `lifelong try`; left out where there is no browser."""

from __future__ import annotations

import re
from contextlib import closing
from urllib.parse import quote_plus

import pytest
from support.browser import PATIENCE, violations
from support.layout import areas_of, faults_of, kept, style, unstyle
from support.shop_service import SHOP, served, shop_service
from support.variants import other_artifact

from lifelong.artifact.folder import Artifact
from lifelong.online.serving.app import create_app
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.store.opening import open_store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (lifelong[dev])")
pytestmark = [pytest.mark.slow, pytest.mark.full]

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return other_artifact(Artifact.open(SHOP / "artifact"), tmp_path_factory.mktemp("other") / "artifact")


@pytest.fixture(scope="module")
def address(tmp_path_factory, other):
    with shop_service(tmp_path_factory.mktemp("page"), other=other) as found:
        yield found


def test_a_user_is_found_by_her_story_and_her_best_items_are_explained(page, address):
    page.goto(f"{address}/")
    page.get_by_label("Short-term").check()
    page.get_by_role("button", name=re.compile("^Ben")).click()
    playwright.expect(page.get_by_role("heading", name="Ben")).to_be_visible()
    playwright.expect(page.get_by_role("button", pressed=True)).to_have_count(1)
    playwright.expect(page.get_by_role("heading", name=re.compile(r"Why .+\?"))).to_be_visible()
    playwright.expect(page.get_by_role("heading", name="category")).to_be_visible()
    assert "user=Ben" in page.url and "story=short_term" in page.url


def test_a_link_holds_the_state_and_an_unknown_item_is_marked(page, address):
    page.goto(f"{address}/#user=Ada&item=cola&item=rye+bread&item=nothing&chosen=nothing")
    playwright.expect(page.locator("table.candidates tbody tr")).to_have_count(3)
    playwright.expect(page.get_by_text("unknown item")).to_have_count(1)
    playwright.expect(page.get_by_role("heading", name="Why nothing?")).to_be_visible()


def test_a_link_holds_what_was_looked_for_how_the_history_is_drawn_and_what_is_open(page, address):
    page.goto(f"{address}/#user=Ada&item=cola&item=gouda")
    page.get_by_label("Side by side with").select_option(index=1)
    page.get_by_label("Rows by").select_option("item")
    page.get_by_label("Along").select_option("number")
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("application").press("End")
    page.get_by_role("searchbox", name="Find by id").fill("Be")
    page.get_by_text(re.compile("^Service: ")).click()
    words = (
        r"second=\w+",
        "rows=item",
        "along=number",
        r"view=[\d.]+\.\.[\d.]+",
        "event=483",
        "find=Be",
        "service=open",
    )
    for word in words:
        playwright.expect(page).to_have_url(re.compile(word))
    link, drawn = page.url, page.get_by_text(re.compile("^No. 483")).inner_text()
    page.goto("about:blank")
    page.goto(link)
    playwright.expect(page.get_by_role("region", name="What runs")).to_be_visible()
    playwright.expect(page.get_by_text(drawn)).to_be_visible()
    playwright.expect(page.get_by_role("searchbox", name="Find by id")).to_have_value("Be")
    playwright.expect(page.get_by_label("Rows by")).to_have_value("item")
    playwright.expect(page.get_by_text(re.compile("^The scores differ by"))).to_be_visible()
    assert page.url == link


def test_two_candidates_are_shown_side_by_side_with_their_fields(page, address):
    page.goto(f"{address}/#user=Ada&item=cola&item=gouda")
    page.get_by_label("Side by side with").select_option(index=1)
    panel = page.locator("section.panel", has=page.get_by_role("heading", name=re.compile("^Why ")))
    playwright.expect(panel.get_by_role("heading", level=3, name=re.compile("^(cola|gouda)$"))).to_have_count(2)
    playwright.expect(panel.get_by_role("table")).to_have_count(2)
    first, second = (float(score) for score in re.findall(r"Score (-?[\d.]+)", panel.inner_text()))
    differ = panel.get_by_text(re.compile("^The scores differ by")).inner_text().removesuffix(".").split()[-1]
    assert float(differ.replace("\u2212", "-")) == pytest.approx(first - second, abs=0.002)
    cheese = page.get_by_role("region", name="Candidates").get_by_role("row", name="gouda")
    category = page.request.get(f"{address}/v1/catalogue?q=gouda").json()["items"][0]["fields"]["category"]
    playwright.expect(cheese).to_contain_text(category)


def test_the_events_that_matter_most_are_those_of_the_largest_effect(page, address):
    page.goto(f"{address}/#user=Ada&item=cola&chosen=cola")
    counted = page.request.post(f"{address}/v1/explain", data={"user": "Ada", "items": ["cola"]}).json()
    values = [one for one in counted["candidates"][0]["counted"]["values"] if one["times"]]
    field = max(values, key=lambda one: abs(one["effect"]))["field"]
    words = f"The past events that matter most for cola: those of its {field}"
    playwright.expect(page.get_by_text(re.compile(words))).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_timeline_memory_and_candidates_are_on_the_first_screen(page, address, scheme):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/#user=Ada")
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    visible = """(names) => names.map((name) => {
      const box = document.querySelector(name).getBoundingClientRect();
      return box.top >= 0 && box.bottom <= innerHeight;
    })"""
    first = ["canvas", ".held h2", ".held tbody tr", ".list h2", ".list thead"]
    assert page.evaluate(visible, first) == [True] * len(first)


def test_a_price_is_shown_as_the_range_that_is_counted_as_explain_prints_it(page, address):
    from lifelong.cli.explain import counted_rows
    from lifelong.online.scoring.explanation import Counted, CountedValue

    page.goto(f"{address}/#user=Ada&item=gouda&chosen=gouda")
    counted = page.request.post(f"{address}/v1/explain", data={"user": "Ada", "items": ["gouda"]}).json()
    values = [CountedValue(**one) for one in counted["candidates"][0]["counted"]["values"]]
    rows = {row[0]: row[1] for row in counted_rows(Counted(values, [], None))}
    assert rows["price"] == "4.05 (counted as 3.94–4.69)"
    why = page.get_by_role("region", name="Why gouda?")
    playwright.expect(why.get_by_role("rowheader", name=f"price {rows['price']}")).to_be_visible()
    cells = page.get_by_role("region", name="price", exact=True)
    playwright.expect(cells.locator("tr.chosen th")).to_have_text("3.94–4.69")
    assert all(re.fullmatch(r"[\d.]+–[\d.]+", name) for name in cells.locator("tbody th").all_inner_texts())


def test_without_an_event_log_the_page_says_that_no_event_is_known(page, artifact):
    with closing(open_store("memory://")) as store:
        app = create_app(artifact, store, settings=ServiceSettings(event_log=False))
        with served(app) as address:
            events = [{"user": "u", "item": "i1", "time": 1_700_000_000 + at, "event_type": "view"} for at in range(9)]
            page.request.post(f"{address}/v1/events", data={"events": events})
            page.goto(f"{address}/#user=u&item=i1")
            page.get_by_role("heading", name="Why i1?").wait_for()
            playwright.expect(page.get_by_text("No event is known")).to_be_visible()


def test_the_list_over_the_catalogue_is_ordered_with_popularity_and_says_so_and_own_candidates_by_score(page, address):
    page.goto(f"{address}/#user=Ada")
    top = page.request.get(f"{address}/v1/users/Ada/top?limit=10").json()
    region, names = page.get_by_role("region", name="Best 10 of the catalogue"), [one["item"] for one in top["items"]]
    by_score = [one["item"] for one in sorted(top["items"], key=lambda one: -one["score"])]
    assert names != by_score
    playwright.expect(region.locator("tbody th button")).to_have_text(names)
    first = top["items"][0]
    shown = [float(text) for text in region.locator("tbody tr").first.locator("td.number").all_inner_texts()]
    # Rank, score, and with popularity and counts; the score moves on with time.
    added = first["popularity"] + first["from_counts"]
    assert shown == pytest.approx([1, first["score"], first["score"] + added], abs=0.02)
    playwright.expect(region).to_contain_text(f"Ordered {top['order']}.")
    page.goto(f"{address}/#user=Ada&" + "&".join(f"item={quote_plus(name)}" for name in names))
    own = page.get_by_role("region", name="Candidates")
    playwright.expect(own.locator("tbody th button")).to_have_text(by_score)
    playwright.expect(own.get_by_text("Ordered by")).to_have_count(0)


@pytest.fixture
def failing(browser):
    """A page whose answers may fail: the browser reports them as errors."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    playwright.expect.set_options(timeout=PATIENCE)
    yield page
    page.close()


BUSY = {"error": {"found": "The service is busy.", "expected": "", "fix": ""}}


def test_after_a_failure_one_tries_again_and_an_event_is_written_once(failing, address):
    page = failing
    page.goto(f"{address}/#user=tries+again&item=cola")
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    box = page.get_by_role("combobox", name="Item", exact=True)
    box.fill("cola")
    page.get_by_role("option", name="cola").first.wait_for()
    box.press("Enter")
    sent = []

    def late(route):
        # The first answer is lost behind the service, which has applied the event.
        sent.append(route.request.post_data_json["events"][0]["event_id"])
        answer = route.fetch()
        route.fulfill(status=503, json=BUSY) if len(sent) == 1 else route.fulfill(response=answer)

    page.route("**/v1/events", late)
    page.get_by_role("button", name="Write cola").click()
    page.get_by_role("button", name="Try again").click()
    playwright.expect(page.get_by_text("The memory has 1 event now, 0 before.")).to_be_visible()
    assert len(sent) == 2 and sent[0] == sent[1]


def test_a_part_that_could_not_be_read_is_asked_for_again(failing, address):
    page = failing
    for path, times in (("**/v1/users?*", 1), ("**/v1/users/Ada/history?*", 1), ("**/v1/explain", 1)):
        page.route(path, lambda route: route.fulfill(status=503, json=BUSY), times=times)
    page.goto(f"{address}/#user=Ada&item=cola")
    for left in (3, 2, 1):
        again = page.get_by_role("button", name="Try again")
        playwright.expect(again).to_have_count(left)
        again.first.press("Enter")
    playwright.expect(page.get_by_role("heading", name=re.compile(r"Why .+\?"))).to_be_visible()
    playwright.expect(page.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "words"), [("model", "Asking the service"), ("users?", "Looking"), ("users/Ada/history?", "Reading")]
)
def test_what_was_refused_is_no_longer_said_to_be_on_its_way(failing, address, path, words):
    page, held, over = failing, [], []

    def hold(route):
        # The words may be there before the request is.
        if over:
            route.fulfill(status=403, json=BUSY)
        else:
            held.append(route)

    page.route(re.compile(re.escape(f"/v1/{path}")), hold)
    page.goto(f"{address}/#user=Ada&item=cola")
    said = page.locator("header, nav, section.panel").get_by_text(f"{words} \u2026")
    playwright.expect(said).to_be_visible()
    over.append(True)
    while held:
        held.pop().fulfill(status=403, json=BUSY)
    playwright.expect(page.get_by_role("button", name="Try again").first).to_be_visible()
    playwright.expect(said).to_have_count(0)


@pytest.mark.parametrize(
    ("typed", "before", "chosen"), [("cola", "", "cola"), ("gou", "c", "gouda"), ("qqq", "", "qqq")], ids=str
)
def test_enter_before_the_items_are_there_takes_the_item_once_they_are(page, address, typed, before, chosen):
    page.goto(f"{address}/#user=Ada&item=kefir")
    box = page.get_by_role("combobox", name="Add an item")
    box.press_sequentially(before)
    box.focus()
    page.locator(".combo li").first.wait_for()
    held = []
    page.route("**/v1/catalogue?*", lambda route: held.append(route))
    box.fill(typed)
    box.press("Enter")
    playwright.expect(page.get_by_role("region", name="Candidates").locator("tbody tr")).to_have_count(1)
    page.wait_for_timeout(300)
    assert len(held) == 1
    held.pop().continue_()
    playwright.expect(page.get_by_role("heading", name=f"Why {chosen}?")).to_be_visible()
    playwright.expect(box).to_have_value("")
    assert f"item=kefir&item={chosen}" in page.url


def test_escape_calls_off_an_item_that_is_awaited(page, address):
    page.goto(f"{address}/#user=Ada&item=kefir")
    box, held = page.get_by_role("combobox", name="Add an item"), []
    page.get_by_role("heading", name="Why kefir?").wait_for()
    page.route("**/v1/catalogue?*", lambda route: held.append(route))
    box.fill("cola")
    box.press("Enter")
    box.press("Escape")
    page.unroute("**/v1/catalogue?*")
    box.press("ArrowDown")
    page.locator(".combo li", has_text="cola").first.wait_for()
    assert "cola" not in page.url


def test_the_history_is_walked_with_the_keyboard_alone(page, address):
    page.goto(f"{address}/#user=Carla")
    drawing = page.get_by_role("application", name=re.compile("History of Carla"))
    drawing.focus()
    drawing.press("Home")
    playwright.expect(page.get_by_text(re.compile(r"^No\. 1 ·"))).to_be_visible()
    drawing.press("ArrowRight")
    playwright.expect(page.get_by_text(re.compile(r"^No\. 2 ·"))).to_be_visible()


def test_an_event_is_written_and_its_effect_is_shown(page, address):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{address}/#user=new+user&item=cola&item=gouda")
    box = page.get_by_role("combobox", name="Item", exact=True)
    box.fill("gouda")
    page.get_by_role("option", name="gouda").wait_for()
    box.press("Enter")
    page.get_by_role("button", name="Write gouda").click()
    playwright.expect(page.get_by_text("The memory has 1 event now, 0 before.")).to_be_visible()
    playwright.expect(page.get_by_text("item gouda: 0 → 1 (a new cell)")).to_be_visible()
    playwright.expect(page.locator("table.candidates tbody tr").first).to_contain_text("gouda")


MIXED = """() => {
  const rightToLeft = /[\u0590-\u08ff]/, found = [];
  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const { data, parentElement: parent } = walker.currentNode;
    // A control or an option holds nothing but the name.
    if (rightToLeft.test(data) && !parent.closest("bdi, option, [dir=auto]")) found.push(data);
  }
  return found;
}"""


def test_a_right_to_left_name_turns_no_words_around_it(page, address):
    user, item = "\u05e9\u05dc\u05d5\u05dd", "\u05e2\u05d5\u05dc\u05dd 1"
    times = [1_700_000_000 + at * 86_400 for at in range(3)]
    events = [{"user": user, "item": name, "time": at} for name, at in zip([item, "cola", item], times, strict=True)]
    page.request.post(f"{address}/v1/events", data={"events": events})
    page.goto(f"{address}/#user={user}&item={item}&item=cola&chosen={item}&second=cola&find={user}x&rows=item")
    playwright.expect(page.locator("p", has_text="▲")).to_contain_text(item)
    page.get_by_role("application").press("Home")
    playwright.expect(page.locator("p.selected")).to_contain_text(f"No. 1 · {item}")
    page.get_by_text("The latest events as a table").click()
    assert page.evaluate(MIXED) == []


def test_nor_does_one_in_a_sentence_of_the_service(failing, address):
    found = "the memory of user '\u05e9\u05dc\u05d5\u05dd' is not known"
    failing.route("**/v1/explain", lambda route: route.fulfill(status=409, json={"error": {"found": found}}))
    failing.goto(f"{address}/#user=Ada&item=cola")
    playwright.expect(failing.get_by_text(found)).to_be_visible()
    assert failing.evaluate(MIXED) == []


@pytest.mark.parametrize("name", [HOSTILE, "x" * 256, "שלום \u202eעולם", "a/b?c#d&e=%20"], ids=range(4))
def test_ids_are_text_whatever_they_hold(page, address, name):
    page.request.post(f"{address}/v1/events", data={"events": [{"user": name, "item": name, "time": 1_700_000_000}]})
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/")
    page.get_by_role("searchbox", name="Find by id").fill(name)
    page.get_by_role("list").get_by_role("button").first.click()
    playwright.expect(page.get_by_role("heading", level=2).filter(has_text=name).first).to_be_visible()
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    assert page.locator("img").count() == 0
    assert faults_of(page) == []


def test_nothing_is_cut_off_on_a_narrow_screen(page, address):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{address}/#user=Ada")
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_two_artifacts_are_shown_next_to_each_other(page, address, other):
    page.goto(f"{address}/#user=Ada&item=cola&item=gouda")
    page.get_by_label("Compare with").select_option(other.id)
    row = page.get_by_role("region", name="Candidates").get_by_role("row", name="gouda")
    playwright.expect(row.get_by_role("cell")).to_have_count(6)
    playwright.expect(page.get_by_role("columnheader", name=f"Tally {other.id[:8]}")).to_be_visible()
    for title in ("What her memory holds", "Why "):
        panel = page.locator("section.panel", has=page.get_by_role("heading", name=re.compile(f"^{title}")))
        playwright.expect(panel.get_by_role("heading", name=f"Tally {other.id[:8]}")).to_be_visible()
    playwright.expect(page.get_by_role("heading", name="category", exact=True)).to_have_count(2)
    assert f"with={other.id[:12]}" in page.url


def test_two_artifacts_are_compared_with_the_keyboard_alone(page, address, other):
    page.goto(f"{address}/#user=Ada&item=cola&item=gouda")
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    page.wait_for_load_state("networkidle")

    def focused():
        return page.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()")

    def walk(wanted):
        for _ in range(80):
            page.keyboard.press("Tab")
            if focused().startswith(wanted):
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    walk("Compare with")
    page.keyboard.press("ArrowDown")
    region = page.get_by_role("region", name="Candidates")
    playwright.expect(region.get_by_role("columnheader", name=f"Tally {other.id[:8]}")).to_be_visible()
    page.wait_for_load_state("networkidle")
    # The page was put in another order meanwhile: who goes on with the keyboard is still where she was.
    assert focused().startswith("Compare with")
    last = region.locator("tbody th button").last.inner_text()
    walk(last)
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("heading", name=f"Why {last}?")).to_be_visible()
    walk("Side by side with")
    page.keyboard.press("ArrowDown")
    playwright.expect(page.get_by_role("heading", name=f"Tally {other.id[:8]}")).to_have_count(3)
    assert focused().startswith("Side by side with")
    page.keyboard.press("ArrowUp")
    page.get_by_label("Compare with").focus()
    page.keyboard.press("Home")
    playwright.expect(region.get_by_role("columnheader", name=f"Tally {other.id[:8]}")).to_have_count(0)
    assert focused().startswith("Compare with") and "with=" not in page.url


def test_there_is_content_before_the_script(page, address):
    held = []
    page.route("**/page/page.js", lambda route: held.append(route))
    page.goto(f"{address}/#user=Ada", wait_until="commit")
    playwright.expect(page.get_by_role("heading", name="Memory explorer")).to_be_visible()
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    assert page.get_by_role("navigation").count() == 0
    held.pop().continue_()
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_count(1)
    # What comes before the first content, and the script, in bytes that were sent.
    sizes = page.evaluate("performance.getEntriesByType('resource').map((one) => [one.name, one.encodedBodySize])")
    sent = {name.rsplit("/", 1)[-1]: size for name, size in sizes if "/page/" in name}
    assert 0 < sent["page.css"] < 5_000 and 0 < sent["page.js"] < 32_000


def test_the_service_says_in_words_what_runs_how_it_is_and_what_is_not_known(page, address, other):
    page.request.post(f"{address}/v1/score", data={"user": "Ada", "items": ["cola", "nothing"]})
    page.goto(f"{address}/")
    page.get_by_text(re.compile("^Service: ")).click()
    for title, words in (
        ("What runs", "Served artifact"),
        ("Load", "Refused under load"),
        ("Scores", "Of items unknown to the model"),
        ("Topic", "This service follows no topic."),
        ("Store", "This store gives no figures"),
        ("Artifacts", f"Tally {other.id[:8]}: ready"),
        ("Requests", "/v1/score"),
    ):
        playwright.expect(page.get_by_role("region", name=title, exact=True)).to_contain_text(words)
    # It is asked again while it is open.
    playwright.expect(page.get_by_text(re.compile("“Lately” is the last"))).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, address, other, scheme):
    page.emulate_media(color_scheme=scheme)
    for view in ("", "#user=Ada", f"#user=Ada&with={other.id[:12]}"):
        page.goto(f"{address}/{view}")
        page.reload()
        if view:
            page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
        assert violations(page) == []


@pytest.fixture(scope="module")
def keyed(artifact):
    """The address of a service that wants keys."""
    with closing(open_store("memory://")) as store, served(create_app(artifact, store, api_keys=["secret"])) as found:
        yield found


def test_an_endpoint_is_tried_with_a_key_and_nothing_is_asked_of_others(page, keyed):
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{keyed}/docs")
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("Value").fill("secret")
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close", exact=True).click()
    endpoint = page.locator("#operations-explorer-get_top_v1_users__user__top_get")
    endpoint.click()
    endpoint.get_by_role("button", name="Try it out").click()
    endpoint.get_by_placeholder("user").fill("a/b")
    endpoint.get_by_role("button", name="Execute").click()
    playwright.expect(endpoint.locator(".live-responses-table")).to_contain_text('"user": "a/b"')
    assert "secret" not in page.url
    assert f"{keyed}/v1/users/a%2Fb/top?limit=20" in asked
    assert all(address.startswith((keyed, "data:")) for address in asked)


VIEWS = {"user": "#user=Ada&item=cola&item=gouda", "start": ""}


@pytest.fixture(params=VIEWS)
def view(page, address, request):
    """Name of a view that the page shows."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{address}/{VIEWS[request.param]}")
    wanted = {"user": re.compile(r"Why .+\?"), "start": "Users"}
    page.get_by_role("heading", name=wanted[request.param]).wait_for()
    page.wait_for_load_state("networkidle")
    return request.param


def test_areas_lie_where_they_should_and_nothing_overlaps_or_is_cut_off_whatever_the_font(page, view):
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = areas_of(page)
            assert found == kept(f"{view}, {width} px, {scheme}", found)
        assert faults_of(page) == []
    # Fonts differ between machines: what holds must hold with a wide one, too.
    style(page, "body, button, input, select, canvas { font-family: monospace }")
    page.emulate_media(color_scheme="light")
    assert areas_of(page) == kept(f"{view}, 360 px, light", areas_of(page))
    assert faults_of(page) == []


BROKEN = {
    ".layout { grid-template-columns: 1fr 1fr }": "area",
    ".panel { background: transparent }": "area",
    ":root { --text: #999 }": "area",
    ".three { display: block }": "area",
    ".panel { width: 140% }": "too wide",
    ".tools .buttons { position: relative; left: -6rem }": "overlap",
    ".lanes bdi { text-overflow: clip; max-width: 2rem }": "cut off",
    "button { min-height: 0; line-height: 1; padding: 0 }": "too small",
    ".summary, .soft { position: relative; left: 60rem }": "leaves its panel",
}


def test_a_broken_style_is_noticed(page, address):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/{VIEWS['user']}")
    page.get_by_role("heading", name=re.compile(r"Why .+\?")).wait_for()
    page.wait_for_load_state("networkidle")
    for rule, expected in BROKEN.items():
        style(page, rule)
        found = areas_of(page)
        faults = faults_of(page) + ["an area differs"] * (found != kept("user, 1280 px, light", found))
        assert any(expected in fault for fault in faults), (rule, faults)
        unstyle(page)
    assert faults_of(page) == []
