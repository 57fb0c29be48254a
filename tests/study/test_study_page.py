"""A study's page: what it says, and what it does in a real browser."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from study.made import made

from cellseg.draw import SCALE_KEY, keep_parts, parts_of, write_png
from cellseg.draw.page import document
from cellseg.errors import OutputError
from cellseg.study.folder import Study, load_study
from cellseg.study.page import PICTURES_BYTES, _figures, write_study
from cellseg.study.pictures import pictures
from cellseg.study.rows import Row
from cellseg.study.sizes import hexes

NASTY = "<script>window.ran=1<script>.tif"


@pytest.fixture
def opened(browser):
    """Open a page from the disk; it may fetch nothing but itself, and say no error."""
    context = browser.new_context()
    context.set_default_timeout(300_000)  # of a machine that does much else
    asked, said = [], []

    def call(path):
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield call
    context.close()
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert said == []


def painted(folder, *, outline="red", density="blue", side=200):
    """Pictures of two and two parts, as a count leaves them: only one part of each is shown."""
    for name, colours in (("outlines.png", (outline, "grey")), ("overview.png", ("grey", density))):
        image = Image.new("RGB", (2 * side + 30, side + 20), "white")
        parts = [
            (10 + place * (side + 10), 10, 10 + place * (side + 10) + side, 10 + side)
            for place in (0, 1)
        ]
        for part, colour in zip(parts, colours, strict=True):
            image.paste(colour, part)
        keep_parts(image, parts)
        image.info[SCALE_KEY] = "1,500 cells / mm²"
        write_png(image, folder / name)


@pytest.fixture
def study(tmp_path):
    """Three slides, one with a nasty name, one without pixel size; and one that failed."""
    made(
        tmp_path / "a.cellseg",
        image="/scans/a10.tif",
        radii=(5, 6, 7),
        classes=("tumour", "stroma"),
    )
    made(
        tmp_path / "b.cellseg",
        image=f"/scans/{NASTY}",
        radii=(5,),
        mpp=None,
        doubts=["is <b>small</b>"],
    )
    made(tmp_path / "x" / "c.cellseg", image="/scans/a9.tif", radii=range(4, 12))
    painted(tmp_path / "a.cellseg")
    failed = Row(image="d.tif", status="failed", warnings=("is <i>no</i> image",))
    return replace(load_study(tmp_path), failed=(failed,))


def test_the_picture_says_where_its_parts_are(tmp_path):
    painted(tmp_path)
    with Image.open(tmp_path / "outlines.png") as image:
        image.load()
        assert parts_of(image) == [(10, 10, 210, 210), (220, 10, 420, 210)]
    seen = pictures(tmp_path / "outlines.png", tmp_path / "overview.png", most_bytes=10**6)
    for data, colour in ((seen.outlines, (255, 0, 0)), (seen.density, (0, 0, 255))):
        found = Image.open(BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")
        assert np.abs(np.asarray(found).mean((0, 1)) - colour).max() < 8
    assert seen.scale == "1,500 cells / mm²"


def test_each_class_has_its_map(tmp_path):
    image = Image.new("RGB", (300, 100))
    for number, colour in enumerate([(9, 9, 9), (0, 0, 255), (0, 255, 0)]):
        image.paste(colour, (100 * number, 0, 100 * number + 100, 100))
    keep_parts(image, [(100 * n, 0, 100 * n + 100, 100) for n in range(3)])
    image.info[SCALE_KEY] = "10 cells / mm²\n<b>2+</b>: 4 cells / mm²\nno such part: 1"
    write_png(image, tmp_path / "overview.png")
    seen = pictures(tmp_path / "none.png", tmp_path / "overview.png", most_bytes=10**6)
    assert seen.scale == "10 cells / mm²"
    ((data, said),) = seen.by_class
    assert said == "<b>2+</b>: 4 cells / mm²"
    found = Image.open(BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")
    assert np.abs(np.asarray(found).mean((0, 1)) - (0, 255, 0)).max() < 8
    assert seen.bytes > len(data)
    shown = _figures(Row(image="a.tif"), seen)
    assert "Density of &lt;b&gt;2+&lt;/b&gt;: 4 cells / mm²" in shown


def test_damaged_pictures_are_left_out(tmp_path):
    (tmp_path / "outlines.png").write_bytes(b"no picture")
    seen = pictures(tmp_path / "outlines.png", tmp_path / "none.png", most_bytes=10**6)
    assert seen.outlines is seen.density is None


def test_tables_are_sorted_from_the_keyboard(opened, study):
    page = opened(write_study(study))
    names = (
        "() => [...document.querySelectorAll('table.sortable tbody th')].map(e => e.textContent)"
    )
    page.get_by_role("button", name="Cells", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(names) == [NASTY, "a10.tif", "a9.tif", "d.tif"]
    assert page.locator("th[aria-sort]").inner_text().startswith("Cells")
    page.keyboard.press("Enter")
    assert page.evaluate(names) == ["a9.tif", "a10.tif", NASTY, "d.tif"], (
        "what is unknown stays last"
    )
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Image", exact=True).click()
    assert page.evaluate(names)[1:] == ["a9.tif", "a10.tif", "d.tif"], "9 comes before 10"


def test_a_slides_name_stays_text(opened, study):
    page = opened(write_study(study))
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("#slide-1 h3").inner_text() == NASTY
    assert "is <b>small</b>" in page.locator("section.warnings").inner_text()
    assert "is <i>no</i> image" in page.locator("section.warnings").inner_text()


def test_pictures_are_there_and_named(opened, study):
    page = opened(write_study(study))
    seen = page.evaluate("[...document.images].map(e => [e.complete && e.naturalWidth, e.alt])")
    assert [width for width, _ in seen] == [200, 200]
    assert all("a10.tif" in alt for _, alt in seen)
    assert "brightest: 1,500 cells / mm²" in page.locator("#slide-0").inner_text()
    assert page.locator(".sizes svg[role=img]").count() == 3
    links = page.evaluate("[...document.querySelectorAll('#slide-2 a')].map(e => e.href)")
    assert links == [(study.folder / "x" / "c.cellseg" / "cells.csv").as_uri()]


def test_warnings_come_first(study):
    text = write_study(study).read_text(encoding="utf-8")
    places = [
        text.index(part) for part in ("To look at first", "<h2>Counts", "<h2>Sizes", "<h2>Slides")
    ]
    assert places == sorted(places)
    calm = replace(study, counted=study.counted[:1], failed=())
    assert "Nothing was found that speaks against" in write_study(calm).read_text(encoding="utf-8")


def test_positive_cells_and_wells_are_shown_and_sorted(opened, tmp_path):
    for name, positive, interval in (("a", 0.089, None), ("b", 0.5, [0.42, 0.58])):
        ki67 = {
            "name": "<b>Ki-67", "index": positive, "index_interval": interval,
            "h_score": 90.0, "allred": None, "regions": {},
        }  # fmt: skip
        image = f"/scans/plate.zarr/{name.upper()}/3/0"
        made(tmp_path / f"{name}.cellseg", image=image, summary={"labelling": [ki67]})
    page = opened(write_study(load_study(tmp_path)))
    shown = page.locator("table.sortable tbody").inner_text()
    assert "8.9\t90" in shown
    assert "50.0 (42.0 … 58.0)\t90" in shown
    assert "A3" in shown
    page.get_by_role("button", name="<b>Ki-67, % positive (95 %)", exact=True).click()
    page.keyboard.press("Enter")
    assert page.locator("table.sortable tbody th").all_inner_texts() == ["plate-B3-0", "plate-A3-0"]
    assert "Allred" not in page.locator("table.sortable thead").inner_text()
    assert "<b>Ki-67 50.0 % positive" in page.locator("#slide-1").inner_text()


def test_colours_of_several_classes_are_those_of_the_slide_s_picture(tmp_path):
    made(tmp_path / "a.cellseg", image="/scans/a.tif")
    made(tmp_path / "b.cellseg", image="/scans/b.tif", classes=("negative", "positive"))
    (key,) = re.findall("<p class='key'>.*?</p>", write_study(load_study(tmp_path)).read_text())
    assert re.findall("background:(#[0-9a-f]+)'></i>(\\w+)<", key) == list(
        zip(hexes(3), ("negative", "positive", "nucleus"), strict=True)
    )


def test_the_widest_usual_table_fits_a_laptop_s_screen(opened, study):
    classes = ("nucleus", "lymphocyte", "stromal", "tumour_epithelial")
    first, *others = study.counted
    whole = replace(
        first.whole, cells_per_class=dict.fromkeys(classes, 4377),
        density_per_mm2=10712.3, protocol="fluorescence", model="cellseg-nuclei-8",
    )  # fmt: skip
    several = replace(study, counted=[replace(first, rows=[whole]), *others])
    page = opened(write_study(several))
    page.set_viewport_size({"width": 1280, "height": 800})
    heads = page.locator("table.sortable th[scope=col]").all_text_contents()
    assert "Model" in heads  # its slides were counted by two
    assert set(classes) < set(heads)
    same = [replace(one, rows=[replace(one.whole, model="m")]) for one in several.counted]
    page = opened(write_study(replace(several, counted=same)))
    page.set_viewport_size({"width": 1280, "height": 800})
    assert "Model" not in page.locator("table.sortable thead").inner_text()
    assert page.locator("p.muted").first.inner_text().endswith(", by m")
    assert page.evaluate(
        "[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)"
    )


def test_a_narrow_screen_a_dark_one_and_paper(opened, study):
    page = opened(write_study(study))
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(23, 23, 27)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_hundred_slides_stay_below_five_megabytes(tmp_path):
    folder = made(tmp_path / "a.cellseg").path
    noise = np.random.default_rng(0).integers(0, 256, (500, 1000, 3), dtype=np.uint8)
    for name in ("outlines.png", "overview.png"):
        image = Image.fromarray(noise)
        keep_parts(image, [(0, 0, 500, 500), (500, 0, 1000, 500)])
        write_png(image, folder / name)
    each = pictures(
        folder / "outlines.png", folder / "overview.png", most_bytes=PICTURES_BYTES // 100
    )
    assert each.outlines
    assert each.density
    assert each.bytes <= PICTURES_BYTES // 100
    (one,) = load_study(tmp_path).counted
    row = replace(one.whole, warnings=("protocol he chosen from the image " * 3,) * 4)
    many = [replace(one, rows=[replace(row, image=f"{n} {'long ' * 10}.tif")]) for n in range(100)]
    for name in ("outlines.png", "overview.png"):
        (folder / name).unlink()
    size = write_study(Study(tmp_path, tuple(many))).stat().st_size
    assert size + PICTURES_BYTES < 5_000_000


def test_other_peoples_page_is_not_replaced(study, tmp_path):
    write_study(study)
    write_study(study)
    (tmp_path / "report.html").write_text("<h1>mine</h1>")
    with pytest.raises(OutputError, match="is no page of cellseg"):
        write_study(study)
    assert (tmp_path / "report.html").read_text() == "<h1>mine</h1>"


def test_a_page_with_pictures_beside_it_shows_them(opened, tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    text = document("t", ["<img src='a.png' alt=''>"], pictures="'self' file:")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = opened(tmp_path / "page.html")
    assert page.evaluate("document.images[0].naturalWidth") == 30
    assert re.search("default-src 'none'", text)
