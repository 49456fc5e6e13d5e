"""The page in Chromium, with the shop of `lifelong try`; left out where there is no browser."""

from __future__ import annotations

import re
import shutil
from contextlib import closing

import pytest
from support.browser import PATIENCE, violations
from support.layout import areas_of, faults_of, kept, style, unstyle
from support.shop_service import SHOP, served, shop_service

from lifelong.artifact.folder import Artifact
from lifelong.artifact.manifest import make_manifest
from lifelong.dataset.catalogue import Catalogue
from lifelong.dataset.vocabulary import TextColumn
from lifelong.online.serving.app import create_app
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.store.opening import open_store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (lifelong[dev])")
pytestmark = [pytest.mark.slow, pytest.mark.full]

HOSTILE = "<img src=x onerror=alert(1)>"
WHY = re.compile(r"^Why .+\?")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with shop_service(tmp_path_factory.mktemp("page")) as found:
        yield found


def shown(page, address, view=""):
    """The page once its list and its reasons are there."""
    page.goto(f"{address}/{view}")
    page.get_by_role("heading", name=WHY).wait_for()
    page.wait_for_load_state("networkidle")
    return page


def listed(page):
    """Name, reason and number of each item of the list; the number is "" for an item that has only its rank."""
    rows = page.locator(".best > li").all()
    # Name and reason must be there: `inner_text` waits for them, and fails without.
    words = [[row.locator(part).inner_text() for part in (".name", ".reason")] for row in rows]
    return [
        (*word, "".join(row.locator(".number strong").all_inner_texts())) for word, row in zip(words, rows, strict=True)
    ]


def best(page, address, query="limit=10", user="Ada"):
    return page.request.get(f"{address}/v1/users/{user}/top?{query}").json()["items"]


# What is seen first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_the_answer_is_on_the_first_screen_without_a_click(page, address, scheme):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme=scheme)
    shown(page, address)
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("What will Ada choose next?")
    sentence = page.locator("header p")
    playwright.expect(sentence).to_contain_text(re.compile("Predicted from all 483 events since .+ 101 items"))
    playwright.expect(page.get_by_role("heading", name="Their rhythm")).to_contain_text("every 7 days, on Saturdays")
    assert len(listed(page)) == 10
    visible = """(names) => names.map((name) => [...document.querySelectorAll(name)].every((one) => {
      const box = one.getBoundingClientRect();
      return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
    }))"""
    first = ["h1", "header p", ".chip", ".lanes", ".best > li", ".parts", ".what", ".try"]
    assert page.evaluate(visible, first) == [True] * len(first)


def test_on_a_phone_the_user_the_sentence_and_the_first_items_come_first(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    shown(page, address)
    tops = [page.locator(name).first.bounding_box()["y"] for name in ("h1", "header p", ".best", ".parts", ".lanes")]
    assert tops == sorted(tops)
    sixth = page.locator(".best > li").nth(5).bounding_box()
    assert sixth["y"] + sixth["height"] < 844
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_list_has_names_and_probabilities_of_the_service(page, address):
    found = listed(shown(page, address))
    wanted = best(page, address)
    assert [name for name, _, _ in found] == [one["item"] for one in wanted]
    # The score moves on with time.
    numbers = [float(number.removesuffix(" %")) for _, _, number in found]
    assert numbers == pytest.approx([100 * one["probability"] for one in wanted], abs=1)


def test_the_reason_says_the_true_count_and_not_the_coarse_one_of_the_memory(page, address):
    found = listed(shown(page, address))
    history = page.request.get(f"{address}/v1/users/Ada/history").json()["items"]
    for name, reason, _ in found[:6]:
        true = history["index"].count(history["values"].index(name))
        assert reason.startswith(f"{true} times, last ")
        assert re.search(r"ago; (goes with other|usual|chosen by users|fits)", reason)
    body = {"user": "Ada", "items": [found[0][0]]}
    (candidate,) = page.request.post(f"{address}/v1/explain", data=body).json()["candidates"]
    value = candidate["counted"]["values"][0]
    assert (value["precision"], value["times"]) == ("at_least", 28) and value["logged"] > 28
    playwright.expect(page.locator(".parts")).to_contain_text(f"this item: {value['logged']} times")


def test_without_a_base_rate_items_have_ranks_and_without_a_log_counts_are_coarse(page, artifact):
    with closing(open_store("memory://")) as store:
        app = create_app(Artifact.open(SHOP / "artifact"), store, settings=ServiceSettings(event_log=False))
        with served(app) as address:
            events = [{"user": "u", "item": "cola", "time": 1_700_000_000 + at} for at in range(90)]
            page.request.post(f"{address}/v1/events", data={"events": events})
            found = listed(shown(page, address))
            assert [number for _, _, number in found] == [""] * 10
            assert page.locator(".best .rank").all_text_contents() == [str(rank) for rank in range(1, 11)]
            reasons = {name: reason for name, reason, _ in found}
            shown(page, address, "#user=u&item=cola")
            playwright.expect(page.locator(".parts")).to_contain_text(
                "this item: 28 or more times, including the last event"
            )
            assert "90" not in reasons.get("cola", "")
            playwright.expect(page.get_by_text("No event is known")).to_be_visible()


def test_items_are_shown_by_their_titles(page, tmp_path):
    shutil.copytree(SHOP / "artifact", tmp_path / "artifact")
    catalogue = Artifact.open(SHOP / "artifact").catalogue
    titles = TextColumn.of(f"The best {item}" for item in catalogue.ids.ids())
    parts = catalogue.ids, catalogue.number_VF, catalogue.vocabularies, catalogue.value_VN, titles
    Catalogue(*parts).save(tmp_path / "artifact" / "catalogue")
    (tmp_path / "artifact" / "manifest.json").write_text(make_manifest(tmp_path / "artifact").model_dump_json())
    with (
        closing(open_store("memory://")) as store,
        served(create_app(Artifact.open(tmp_path / "artifact"), store)) as at,
    ):
        page.request.post(f"{at}/v1/events", data={"events": [{"user": "u", "item": "cola", "time": 1_700_000_000}]})
        shown(page, at, "#user=u&item=cola")
        playwright.expect(page.get_by_role("heading", name="Why The best cola?")).to_be_visible()
        assert all(name.startswith("The best ") for name, _, _ in listed(page))
        page.get_by_role("combobox", name="Another item").fill("best gouda")
        playwright.expect(page.get_by_role("option").first).to_contain_text("gouda · dairy")


# What one does


def test_a_user_is_found_by_a_part_of_the_name_and_a_link_holds_what_is_shown(page, address):
    shown(page, address)
    box = page.get_by_role("combobox", name="Find a user")
    box.fill("arl")
    page.get_by_role("option", name="Carla").wait_for()
    box.press("Enter")
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("What will Carla choose next?")
    playwright.expect(page.get_by_role("heading", name="Their rhythm")).to_contain_text("with a pause of 9 months")
    page.locator(".best .item").nth(2).click()
    page.get_by_role("button", name=re.compile("^What if they now choose")).nth(1).click()
    playwright.expect(page.get_by_role("heading", name="Most likely, had they just chosen")).to_be_visible()
    chosen, link = page.get_by_role("heading", name=WHY).inner_text(), page.url
    page.wait_for_load_state("networkidle")
    after = listed(page)
    page.goto("about:blank")
    page.goto(link)
    playwright.expect(page.get_by_role("heading", name=chosen)).to_be_visible()
    playwright.expect(page.get_by_role("button", name="Undo")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert [name for name, _, _ in listed(page)] == [name for name, _, _ in after] and page.url == link


def test_pressing_an_item_moves_the_ten_and_stores_nothing(page, address):
    shown(page, address)
    before, cells = listed(page), page.request.get(f"{address}/v1/users/Ada/cells").json()
    name = before[1][0]
    page.get_by_role("button", name=f"What if they now choose {name}?").click()
    playwright.expect(page.get_by_role("heading", name=f"Most likely, had they just chosen {name}")).to_be_visible()
    page.wait_for_load_state("networkidle")
    after, wanted = listed(page), best(page, address, f"limit=10&after={name.replace(' ', '%20')}")
    assert [one for one, _, _ in after] == [one["item"] for one in wanted]
    assert after != before
    playwright.expect(page.locator(".moves li").first).to_contain_text(re.compile(rf"{name}.*% → .*%"))
    playwright.expect(page.locator(".best .was").first).to_be_visible()
    assert page.request.get(f"{address}/v1/users/Ada/cells").json() == cells
    page.get_by_role("button", name="Undo").click()
    playwright.expect(page.get_by_role("heading", name="Most likely now")).to_be_visible()
    assert [one for one, _, _ in listed(page)] == [one for one, _, _ in before] and "after=" not in page.url


def test_any_item_can_be_tried_and_moves_even_from_far_below(page, address):
    shown(page, address)
    box = page.get_by_role("combobox", name="Another item")
    box.fill("nappies")
    page.get_by_role("option", name="nappies").wait_for()
    box.press("Enter")
    playwright.expect(page.locator(".moves li").first).to_contain_text(re.compile(r"nappies.*% → .*%"))
    assert "after=nappies" in page.url


def test_who_and_why_and_what_if_are_reached_with_the_keyboard_alone(page, address):
    shown(page, address)

    def walk(wanted):
        for _ in range(60):
            page.keyboard.press("Tab")
            named = page.evaluate("(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()")
            if named.startswith(wanted):
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    walk("Ben")
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("What will Ben choose next?")
    page.get_by_role("heading", name=WHY).wait_for()
    page.wait_for_load_state("networkidle")
    third = listed(page)[2][0]
    walk(third)
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("heading", name=f"Why {third}?")).to_be_visible()
    walk("What if they now choose")
    page.keyboard.press("Space")
    playwright.expect(page.get_by_role("button", name="Undo")).to_be_visible()
    walk("For engineers")
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("heading", name="Service")).to_be_visible()


def test_what_engineers_ask_is_behind_one_press(page, address):
    shown(page, address)
    playwright.expect(page.get_by_text("curl")).to_have_count(1)
    page.get_by_text("For engineers").click()
    page.get_by_role("heading", name="Service").wait_for()
    command = page.locator("pre").inner_text()
    assert command == f"curl '{address}/v1/users/Ada/top?limit=10'"
    cells = page.request.get(f"{address}/v1/users/Ada/cells").json()["fields"]
    for field in cells:
        heading = page.get_by_role("heading", name=f"{field['field']}: {field['used']} of {field['size']} cells")
        playwright.expect(heading).to_be_visible()
    playwright.expect(page.get_by_role("region", name="Cells of item")).to_contain_text("28 or more times")
    prices = page.get_by_role("region", name="Cells of price").locator("tbody th").all_inner_texts()
    assert all(re.fullmatch(r"[\d.]+–[\d.]+", name) for name in prices)
    playwright.expect(page.locator(".figures")).to_contain_text("requests")
    playwright.expect(page.get_by_role("heading", name="Attention for")).to_be_visible()


# What goes wrong


@pytest.fixture
def failing(browser):
    """A page whose answers may fail: the browser reports them as errors."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    playwright.expect.set_options(timeout=PATIENCE)
    yield page
    page.close()


BUSY = {"error": {"found": "The service is busy.", "expected": "", "fix": ""}}


BUSY = {"error": {"found": "The service is busy.", "expected": "", "fix": ""}}


def test_a_part_that_could_not_be_read_is_asked_for_again(failing, address):
    page = failing
    for path in ("**/v1/users?*", "**/v1/users/Ada/history?*", "**/v1/users/Ada/top?*"):
        page.route(path, lambda route: route.fulfill(status=503, json=BUSY), times=1)
    page.goto(f"{address}/#user=Ada")
    for left in (3, 2, 1):
        again = page.get_by_role("button", name="Try again")
        playwright.expect(again).to_have_count(left)
        again.first.press("Enter")
    playwright.expect(page.get_by_role("heading", name=WHY)).to_be_visible()
    playwright.expect(page.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.mark.parametrize(("path", "words"), [("model", "Asking the service"), ("users/Ada/history?", "Reading")])
def test_what_was_refused_is_no_longer_said_to_be_on_its_way(failing, address, path, words):
    page, held, over = failing, [], []

    def hold(route):
        # The words may be there before the request is.
        if over:
            route.fulfill(status=403, json=BUSY)
        else:
            held.append(route)

    page.route(re.compile(re.escape(f"/v1/{path}")), hold)
    page.goto(f"{address}/#user=Ada")
    said = page.locator("header").get_by_text(f"{words} \u2026")
    playwright.expect(said).to_be_visible()
    over.append(True)
    while held:
        held.pop().fulfill(status=403, json=BUSY)
    playwright.expect(page.get_by_role("button", name="Try again").first).to_be_visible()
    playwright.expect(said).to_have_count(0)


@pytest.mark.parametrize(("typed", "chosen"), [("cola", "cola"), ("gou", "gouda"), ("qqq", "qqq")], ids=str)
def test_enter_before_the_items_are_there_takes_the_item_once_they_are(page, address, typed, chosen):
    shown(page, address)
    box = page.get_by_role("combobox", name="Another item")
    box.focus()
    page.locator(".try .combo li").first.wait_for()
    held = []
    page.route("**/v1/catalogue?*", lambda route: held.append(route))
    box.fill(typed)
    box.press("Enter")
    page.wait_for_timeout(300)
    assert len(held) == 1 and "after=" not in page.url
    held.pop().continue_()
    playwright.expect(page).to_have_url(re.compile(f"after={chosen}"))
    playwright.expect(box).to_have_value("")


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
    page.goto(f"{address}/#user={user}&item={item}&after={item}")
    playwright.expect(page.get_by_role("heading", name=f"Why {item}?")).to_be_visible()
    playwright.expect(page.get_by_role("heading", name="Most likely, had they just chosen")).to_contain_text(item)
    assert page.evaluate(MIXED) == []


def test_nor_does_one_in_a_sentence_of_the_service(failing, address):
    found = "the memory of user '\u05e9\u05dc\u05d5\u05dd' is not known"
    failing.route("**/v1/explain", lambda route: route.fulfill(status=409, json={"error": {"found": found}}))
    failing.goto(f"{address}/#user=Ada")
    playwright.expect(failing.get_by_text(found)).to_be_visible()
    assert failing.evaluate(MIXED) == []


@pytest.mark.parametrize("name", [HOSTILE, "x" * 256, "שלום \u202eעולם", "a/b?c#d&e=%20"], ids=range(4))
def test_ids_are_text_whatever_they_hold(page, address, name):
    page.request.post(f"{address}/v1/events", data={"events": [{"user": name, "item": name, "time": 1_700_000_000}]})
    page.set_viewport_size({"width": 1280, "height": 800})
    shown(page, address)
    box = page.get_by_role("combobox", name="Find a user")
    box.fill(name)
    page.get_by_role("option").first.wait_for()
    box.press("Enter")
    playwright.expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    item = page.get_by_role("combobox", name="Another item")
    item.fill(name)
    item.press("Enter")
    playwright.expect(page.get_by_role("heading", name="Most likely, had they just chosen")).to_contain_text(name)
    page.wait_for_load_state("networkidle")
    assert page.locator("img").count() == 0
    assert faults_of(page) == []


def test_nobody_of_this_name_is_said_to_be_new(page, address):
    shown(page, address, "#user=nobody")
    playwright.expect(page.locator("header p")).to_contain_text("Nothing is known of this user")


def test_there_is_content_before_the_script(page, address):
    held = []
    page.route("**/page/page.js", lambda route: held.append(route))
    page.goto(f"{address}/#user=Ada", wait_until="commit")
    playwright.expect(page.get_by_role("heading", name="Who will choose what next?")).to_be_visible()
    # Not `wait_for_function`: asking a second time, it evaluates a string, which the page's policy forbids.
    page.evaluate(
        "() => new Promise(seen => new PerformanceObserver(paints =>"
        " paints.getEntriesByName('first-contentful-paint').forEach(seen)).observe({type: 'paint', buffered: true}))"
    )
    assert page.get_by_role("navigation").count() == 0
    held.pop().continue_()
    page.get_by_role("heading", name=WHY).wait_for()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_count(1)
    # What comes before the first content, and the script, in bytes that were sent.
    sizes = page.evaluate("performance.getEntriesByType('resource').map((one) => [one.name, one.encodedBodySize])")
    sent = {name.rsplit("/", 1)[-1]: size for name, size in sizes if "/page/" in name}
    assert 0 < sent["page.css"] < 5_000 and 0 < sent["page.js"] < 32_000


STATES = ["", "#user=Carla&after=nappies&item=nappies", "#user=nobody", "#user=Ada engineers"]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, address, scheme, width):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    for state in STATES:
        view, _, opened = state.partition(" ")
        shown(page, address, view)
        page.reload()
        page.get_by_role("heading", name=WHY).wait_for()
        page.wait_for_load_state("networkidle")
        if opened:
            page.get_by_text("For engineers").click()
            page.get_by_role("heading", name="Service").wait_for()
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
    endpoint = page.locator("#operations-explorer-get_top")
    endpoint.click()
    endpoint.get_by_role("button", name="Try it out").click()
    endpoint.get_by_placeholder("user").fill("a/b")
    endpoint.get_by_role("button", name="Execute").click()
    playwright.expect(endpoint.locator(".live-responses-table")).to_contain_text('"user": "a/b"')
    assert "secret" not in page.url
    assert f"{keyed}/v1/users/a%2Fb/top?limit=20" in asked
    assert all(address.startswith((keyed, "data:")) for address in asked)


def test_the_page_asks_for_a_key_where_one_is_needed(failing, keyed):
    page = failing
    page.goto(f"{keyed}/#user=nobody")
    page.get_by_label("API key").fill("secret")
    page.get_by_role("button", name="Use").click()
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("What will nobody choose next?")
    playwright.expect(page.locator(".best > li")).to_have_count(10)
    assert "secret" not in page.url


VIEWS = {"user": "#user=Ada", "tried": "#user=Ada&after=nappies"}


@pytest.fixture(params=VIEWS)
def view(page, address, request):
    """Name of a view that the page shows."""
    page.emulate_media(reduced_motion="reduce")
    shown(page, address, VIEWS[request.param])
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
    style(page, "body, button, input { font-family: monospace }")
    page.emulate_media(color_scheme="light")
    assert areas_of(page) == kept(f"{view}, 360 px, light", areas_of(page))
    assert faults_of(page) == []


BROKEN = {
    ".view { display: block }": "area",
    ".panel { background: transparent }": "area",
    ":root { --text: #999 }": "area",
    ".panel { width: 140% }": "too wide",
    ".best .what { position: relative; left: -6rem }": "overlap",
    ".lane bdi { text-overflow: clip; max-width: 2rem }": "cut off",
    "button { min-height: 0; line-height: 1; padding: 0 }": "too small",
    ".reason, .soft { position: relative; left: 60rem }": "leaves its panel",
}


def test_a_broken_style_is_noticed(page, address):
    page.set_viewport_size({"width": 1280, "height": 800})
    shown(page, address, VIEWS["user"])
    for rule, expected in BROKEN.items():
        style(page, rule)
        found = areas_of(page)
        faults = faults_of(page) + ["an area differs"] * (found != kept("user, 1280 px, light", found))
        assert any(expected in fault for fault in faults), (rule, faults)
        unstyle(page)
    assert faults_of(page) == []
