"""The page in a real browser: what it shows, and what it does."""

from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
from finished import copied, edit
from PIL import Image
from serve import served
from watched import watched

from cellseg.result import load_result

READY = "html[data-slide=shown][data-masks=shown]"
YELLOW, BLUE = (240, 228, 66), (86, 180, 233)


@pytest.fixture(scope="module")
def client(counted, tmp_path_factory):
    home = tmp_path_factory.mktemp("nasty")
    blank = copied(counted, home, "<img src=x onerror=window.ran=1>.cellseg", slide=False)
    edit(blank, warnings=["<b onclick=window.ran=1>bold</b> \x1b[2J"])
    with served.serving(counted, blank) as client:
        yield client


@contextmanager
def looking(browser, url):
    """The page, once its tiles have faded in."""
    with watched(browser, url) as look:
        page = look(url, 1300)
        page.wait_for_selector(READY)
        page.wait_for_timeout(600)
        yield page


@pytest.fixture
def opened(browser, client):
    with looking(browser, client.server.url) as page:
        yield page


def seen(page):
    """The slide's part of the window, (H, W, 3)."""
    shot = page.locator("main").screenshot()
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB")).astype(int)


def has(picture, colour):
    return int((np.abs(picture - np.array(colour)).max(axis=2) < 24).sum())


def on_screen(page, y, x):
    """Where a place of the slide is in the window."""
    return page.evaluate(
        """([y, x]) => {
          const at = view.viewport.viewportToViewerElementCoordinates(
            new OpenSeadragon.Point(x / state.about.width, y / state.about.width));
          const corner = document.getElementById("slide").getBoundingClientRect();
          return [at.x + corner.left, at.y + corner.top];
        }""",
        [float(y), float(x)],
    )


def test_first_view_and_outlines_by_class(opened, table):
    assert f"{len(table):,} nuclei" in opened.locator("#total").inner_text()
    assert opened.locator("#classes label").count() == 2
    assert served.NASTY in opened.locator("#classes").inner_text()
    counts = opened.locator("#classes .count").all_inner_texts()
    assert counts == [f"{number:,}" for number in served.per_class(table)]
    assert opened.locator("#bar span").inner_text().endswith("µm")
    both = seen(opened)
    assert has(both, YELLOW) > 500
    assert has(both, BLUE) > 500
    opened.locator("#classes input").first.uncheck()
    opened.wait_for_timeout(2500)
    assert has(seen(opened), YELLOW) < 20
    assert has(seen(opened), BLUE) > 500
    opened.keyboard.press("o")
    opened.wait_for_timeout(2500)
    assert has(seen(opened), BLUE) < 20


def test_zoom_to_single_pixels(opened):
    before = opened.evaluate("scaleNow()")
    box = opened.locator("#slide").bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(12):
        opened.mouse.wheel(0, -400)
        opened.wait_for_timeout(120)
    opened.wait_for_timeout(1500)
    after = opened.evaluate("scaleNow()")
    assert after > 4 > before
    assert "µm" in opened.locator("#bar span").inner_text()
    opened.get_by_label("The whole slide").click()
    opened.wait_for_timeout(1500)
    assert opened.evaluate("scaleNow()") == pytest.approx(before, rel=0.02)


def test_the_cell_under_the_pointer(opened, table):
    away = np.hypot(table["centroid_y_px"] - 600, table["centroid_x_px"] - 500)
    row = table.iloc[int(away.argmin())]
    x, y = on_screen(opened, row["centroid_y_px"] + 0.5, row["centroid_x_px"] + 0.5)
    opened.mouse.move(x, y)
    opened.wait_for_selector("#tip:not([hidden])")
    assert f"{row['area_um2']:.4g} µm²" in opened.locator("#tip").inner_text()
    assert opened.locator("#cell-name").inner_text() == f"Cell {row['label']}"
    assert "eccentricity" in opened.locator("#cell").inner_text()
    assert opened.locator("#world .cell").count() == 1
    box = opened.locator("#world .cell").bounding_box()
    assert box["x"] < x < box["x"] + box["width"]
    assert box["y"] < y < box["y"] + box["height"]
    opened.mouse.click(x, y)
    opened.get_by_text("Kept; Escape lets it go.").wait_for()
    opened.mouse.move(x + 300, y + 5)
    opened.wait_for_timeout(500)
    assert opened.locator("#cell-name").inner_text() == f"Cell {row['label']}"
    opened.keyboard.press("Escape")
    assert opened.locator("#cell-name").inner_text() == "A cell"


def test_the_count_of_a_rectangle_is_the_tables(opened, table):
    (x0, y0), (x1, y1) = on_screen(opened, 200, 300), on_screen(opened, 700, 1000)
    moved = opened.evaluate("view.viewport.getCenter().x")
    opened.get_by_text("Draw a rectangle").click()
    opened.mouse.move(x0, y0)
    opened.mouse.down()
    opened.mouse.move((x0 + x1) / 2, y1, steps=3)
    opened.mouse.move(x1, y1, steps=3)
    opened.mouse.up()
    opened.wait_for_selector("#inside table")
    at = opened.evaluate("box")
    assert np.allclose([at["y0"], at["x0"], at["y1"], at["x1"]], [200, 300, 700, 1000], atol=3)
    inside = served.inside(table, **at)
    rows = opened.locator("#inside tbody tr").all_inner_texts()
    numbers = [row.split("\t")[1] for row in rows]
    assert numbers == [f"{count:,}" for count in (len(inside), *served.per_class(inside))]
    assert "mm²" in opened.locator("#inside").inner_text()
    assert opened.evaluate("view.viewport.getCenter().x") == pytest.approx(moved)
    opened.keyboard.press("Escape")
    assert opened.locator("#inside table").count() == 0
    opened.keyboard.down("Shift")
    opened.mouse.move(x0, y0)
    opened.mouse.down()
    opened.mouse.move(x1, y1, steps=3)
    opened.mouse.up()
    opened.keyboard.up("Shift")
    opened.wait_for_selector("#inside table")


def test_another_result_without_its_slide_and_nasty_names(opened):
    assert opened.locator("#result option").count() == 2
    opened.locator("#result").select_option("1")
    opened.wait_for_selector("html[data-masks=shown]:not([data-slide])")
    opened.wait_for_timeout(600)
    notes = opened.locator("#notes").inner_text()
    assert "is not there any more" in notes
    assert "<b onclick=window.ran=1>bold</b> \\u001b[2J" in notes
    assert opened.locator("#notes b").count() == 0
    assert "<img" in opened.title()
    assert opened.locator("img").count() == 0
    assert has(seen(opened), YELLOW) > 500


def test_a_slide_that_is_counted_again_is_shown_anew(browser, folder, table):
    with served.serving(folder) as client, looking(browser, client.server.url) as page:
        page.evaluate("view.viewport.zoomTo(3, null, true)")
        page.wait_for_timeout(500)
        scale = page.evaluate("scaleNow()")
        served.recount(folder)
        page.get_by_text("the slide was counted again while this page was open").wait_for()
        page.wait_for_selector(READY)
        cells = len(load_result(folder).table)
        page.get_by_text(f"{cells:,} nuclei").wait_for()
        assert cells < len(table)
        assert page.evaluate("scaleNow()") == pytest.approx(scale, rel=0.01)
        edit(folder, warnings=["said later"])
        page.get_by_text("the result was changed while this page was open").wait_for()
        assert "said later" in page.locator("#notes").inner_text()


def test_a_narrow_window(opened):
    opened.set_viewport_size({"width": 390, "height": 800})
    opened.wait_for_timeout(800)
    slide, panel = (opened.locator(name).bounding_box() for name in ("main", "aside"))
    assert slide["width"] == panel["width"] == 390
    assert panel["y"] >= slide["y"] + slide["height"] - 1
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
