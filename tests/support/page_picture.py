"""The picture of the service's page in the docs, drawn anew from the page that is shipped.

PYTHONPATH=tests:. python -m support.page_picture docs/page.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image, PngImagePlugin

from support.browser import chromium
from support.shop_service import shop_service

BUILT = Path(__file__).parents[2] / "lifelong" / "online" / "serving" / "page" / "sources.sha256"


def page_of(picture: Path) -> str:
    """The hash of the page's sources that a picture shows; empty if it does not say so."""
    with Image.open(picture) as opened:
        return str(opened.info.get("sources", ""))


def main(out: Path) -> None:
    """Write the first screen of the page."""
    with tempfile.TemporaryDirectory() as folder, shop_service(Path(folder)) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{address}/#user=Ada")
        page.locator(".parts").wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=str(out))
    note = PngImagePlugin.PngInfo()
    note.add_text("sources", BUILT.read_text().strip())
    with Image.open(out) as taken:
        small = taken.quantize(64)
    small.save(out, pnginfo=note, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
