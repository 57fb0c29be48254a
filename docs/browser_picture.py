"""The docs' picture of the viewer: ``python docs/browser_picture.py RESULT OUT.jpg``.

Serves a result, zooms in, keeps a cell, draws a rectangle, and saves the window. Needs Chromium.
"""

from __future__ import annotations

import shutil
import sys
import threading
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from cellseg.serve import Server, Viewer

SIZE = {"width": 1280, "height": 780}
GO = """([zoom, x, y]) => {
  view.viewport.zoomTo(zoom, null, true);
  view.viewport.panTo(new OpenSeadragon.Point(x, y), true);
}"""


def look(page: Page) -> None:
    """The first cell that lies under a line through the middle, and a rectangle beside it."""
    page.evaluate(GO, [2.0, 0.45, 0.5])
    page.wait_for_timeout(2500)
    for x in range(430, 800, 9):
        page.mouse.move(x, 400)
        page.wait_for_timeout(250)
        if page.locator("#tip").is_visible():
            page.mouse.click(x, 400)
            break
    page.get_by_text("Draw a rectangle").click()
    page.mouse.move(120, 120)
    page.mouse.down()
    page.mouse.move(300, 300, steps=3)
    page.mouse.move(420, 360, steps=3)
    page.mouse.up()
    page.wait_for_selector("#inside table")
    page.mouse.move(60, 500)
    page.wait_for_timeout(800)


def main(result: Path, out: Path) -> None:
    """Serve, look, save."""
    server = Server(Viewer([result]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE)
        page.goto(server.url)
        page.wait_for_selector("html[data-slide=shown][data-masks=shown]")
        look(page)
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        picture.save(out, quality=82)
        browser.close()
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
