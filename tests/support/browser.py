"""Chromium for the tests of pages; they are left out where there is no browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120_000
"""Milliseconds for anything to appear: a loaded machine is slow, not broken."""
_AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (lifelong[dev])")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("chromium is not installed (Debian: chromium)")
    with playwright.sync_playwright() as driver:
        # No sandbox: tests in containers run as root.
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@contextmanager
def watched_page(browser: Any) -> Iterator[Any]:
    """A page; what its scripts or its policy complain about fails the test."""
    from playwright.sync_api import expect

    opened, problems = browser.new_page(), list[str]()

    def refuse(dialog: Any) -> None:
        problems.append("a dialog")
        dialog.dismiss()

    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", refuse)
    yield opened
    opened.close()
    assert problems == []


def violations(page: Any) -> list[tuple[str, Any]]:
    """What axe finds: rule and place."""
    if not _AXE.exists():
        pytest.skip("page/node_modules is absent: `make page` installs axe-core")
    page.evaluate(_AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [(one["id"], one["nodes"][0]["target"]) for one in found["violations"]]
