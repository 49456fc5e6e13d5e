"""What the documentation adds to its theme: names for screen readers, and a narrow page; left out without a browser."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import chromium, violations, watched_page

pytestmark = [pytest.mark.slow, pytest.mark.full]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "labels.js"
CODE = "<pre><nav class='md-code__nav'><button title='Copy to clipboard'>Copy</button></nav><code>x</code></pre>"
# As the theme writes them: the dialog in the page, the buttons of code later, by script.
THEME = f"""<!doctype html><html lang="en"><title>Docs</title><main><h1>Docs</h1><p id="code"></p></main>
<div class="md-search" role="dialog"><input aria-label="Search"></div>
<script>{SCRIPT.read_text()}</script>
<script>document.getElementById("code").outerHTML = "<div>{CODE}{CODE}</div>"</script>"""


def test_the_search_dialog_and_the_buttons_of_code_have_names() -> None:
    with chromium() as browser, watched_page(browser) as page:
        page.set_content(THEME)
        page.get_by_role("dialog", name="Search").wait_for()
        page.get_by_role("navigation", name="Code block 1").wait_for()
        page.get_by_role("navigation", name="Code block 2").wait_for()
        assert violations(page) == []


def test_the_theme_still_has_what_the_script_names() -> None:
    theme = Path(pytest.importorskip("material").__file__).parent / "templates"
    assert 'class="md-search"' in (theme / "partials" / "search.html").read_text()
    assert any("md-code__nav" in path.read_text() for path in (theme / "assets" / "javascripts").glob("bundle*.js"))


# Right edges of the third column, or of the last one, and lines of code, that a phone does not show.
HIDDEN = """() => [
    ...[...document.querySelectorAll("article table")].filter((table) => {
        const cells = table.rows[0].cells
        return cells[Math.min(2, cells.length - 1)].getBoundingClientRect().right > innerWidth
    }).map((table) => table.rows[0].innerText),
    ...[...document.querySelectorAll("pre code")].filter((code) => code.scrollWidth > code.clientWidth + 1)
        .map((code) => code.innerText.slice(0, 80)),
]"""


def test_a_phone_shows_three_columns_of_each_table_and_whole_lines_of_code(tmp_path) -> None:
    pytest.importorskip("material")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path], cwd=ROOT, check=True)
    pages = [page for page in tmp_path.rglob("index.html") if page.parts[len(tmp_path.parts)] != "reference"]
    assert len(pages) > 60
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        for path in pages:
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            assert page.evaluate(HIDDEN) == [], path
