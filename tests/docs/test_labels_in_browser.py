"""Names for screen readers that the documentation adds to its theme; left out where there is no browser."""

from pathlib import Path

import pytest
from support.browser import chromium, violations, watched_page

pytestmark = [pytest.mark.slow, pytest.mark.full]

SCRIPT = Path(__file__).parents[2] / "docs" / "labels.js"
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
