"""A study's page: what it says, and what it does in a real browser."""

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from study.made import made, marker, region
from watched import watched

from cellseg.draw.sheet import write_png
from cellseg.errors import OutputError
from cellseg.palette import as_hex, colours
from cellseg.study.folder import (
    Study,
    load_study,
    write_cells,
    write_spreadsheet,
    write_summary,
)
from cellseg.study.page import PICTURES_BYTES, thumbnails, write_study
from cellseg.study.rows import checks, failed_row

NASTY = "<script>window.ran=1<script>.tif"
HOSTILE = '"><img src="http://evil.invalid/x" onerror="window.ran=1">{{ 7*7 }}\x1b[2J'
"""Markup that leaves an attribute, fetches, runs; a template's own words; a terminal's control."""


@pytest.fixture
def opened(browser):
    """Open a page from the disk."""
    with watched(browser, "file:") as look:
        yield lambda path, *width: look(path.as_uri(), *width)


def painted(folder, colours=(("red", "grey"), ("grey", "blue")), *, scale="1,500 cells / mm²"):
    """Pictures of parts, as a count leaves them."""
    for name, parts in zip(("outlines.png", "overview.png"), colours, strict=True):
        image = Image.new("RGB", (10 + 210 * len(parts), 220), "white")
        boxes = [(10 + 210 * n, 10, 210 + 210 * n, 210) for n in range(len(parts))]
        for box, colour in zip(boxes, parts, strict=True):
            image.paste(colour, box)
        write_png(image, folder / name, boxes, scale=scale)


def shown(folder, most_bytes=10**6):
    return thumbnails(folder / "outlines.png", folder / "overview.png", most_bytes=most_bytes)


def colour_of(picture):
    data = base64.b64decode(picture.data.partition(",")[2])
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).mean((0, 1))


@pytest.fixture
def study(tmp_path):
    """Three slides, one with a nasty name, one without pixel size; and one that failed."""
    home = made(tmp_path / "a.cellseg", image="/scans/a10.tif", radii=(5, 6, 7),
                classes=("tumour", "stroma")).path  # fmt: skip
    painted(home)
    made(tmp_path / "b.cellseg", image=f"/scans/{NASTY}", radii=(5,), mpp=None,
         doubts=["is <b>small</b>"])  # fmt: skip
    made(tmp_path / "x" / "c.cellseg", image="/scans/a9.tif", radii=range(4, 12))
    failed = failed_row("d.tif", "/scans/d.tif", "is <i>no</i> image")
    return replace(load_study(tmp_path), failed=(failed,))


def test_a_name_that_is_no_utf8_has_its_row_and_its_links(tmp_path, not_utf8):
    made(not_utf8)
    study = load_study(tmp_path)
    page = write_study(study).read_text(encoding="utf-8")
    assert 'href="./sl%FFide.cellseg/cells.csv"' in page
    write_summary(study)
    write_cells(study)
    write_spreadsheet(study, tmp_path / "study.xlsx")


def test_a_page_elsewhere_is_written_though_the_summary_cannot_be(tmp_path, cellseg):
    made(tmp_path / "results" / "a.cellseg")
    (tmp_path / "results" / "summary.csv").write_text("mine", encoding="utf-8")
    page = tmp_path / "study.html"
    _, _, err = cellseg("report", tmp_path / "results", "-o", page, ends=5)
    assert "is no summary of cellseg" in err
    assert f"report: {page}" in err
    assert "1 slide counted" in page.read_text(encoding="utf-8")


def test_parts_of_the_pictures_become_thumbnails_and_damaged_ones_are_left_out(tmp_path):
    colours = (("red", "grey"), ("grey", "blue", "lime"))
    scale = "10 cells / mm²\n<b>2+</b>: 4 cells / mm²\nno such part: 1"
    painted(tmp_path, colours, scale=scale)
    found = shown(tmp_path)
    assert [picture.caption for picture in found] == [
        "Outlines", "Density, brightest: 10 cells / mm²", "Density of <b>2+</b>: 4 cells / mm²",
    ]  # fmt: skip
    for picture, wanted in zip(found, ((255, 0, 0), (0, 0, 255), (0, 255, 0)), strict=True):
        assert np.abs(colour_of(picture) - wanted).max() < 8
    assert shown(tmp_path, most_bytes=100) == []
    (tmp_path / "outlines.png").write_bytes(b"no picture")
    (tmp_path / "overview.png").unlink()
    assert shown(tmp_path) == []


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


def test_what_to_look_at_first_comes_first_and_pictures_are_named(opened, study):
    path = write_study(study)
    text = path.read_text(encoding="utf-8")
    places = [
        text.index(part) for part in ("To look at first", "<h2>Counts", "<h2>Sizes", "<h2>Slides")
    ]
    assert places == sorted(places)
    page = opened(path)
    first = page.locator("section.warnings").inner_text()
    assert f"{NASTY}: is <b>small</b>" in first
    assert "d.tif: was not counted: is <i>no</i> image" in first
    seen = page.evaluate("[...document.images].map(e => [e.complete && e.naturalWidth, e.alt])")
    assert [width for width, _ in seen] == [200, 200]
    assert all("a10.tif" in alt for _, alt in seen)
    assert "brightest: 1,500 cells / mm²" in page.locator("#slide-0").inner_text()
    assert page.locator(".sizes svg[role=img]").count() == 3
    links = page.evaluate("[...document.querySelectorAll('#slide-2 a')].map(e => e.href)")
    assert links == [(study.folder / "x" / "c.cellseg" / "cells.csv").as_uri()]


def test_hostile_names_stay_text(opened, tmp_path):
    """In every place where a name of a file, a class, a region or a person's words stands."""
    scores = {"h_score": 90.0, "allred": 3}
    part = marker(HOSTILE, 0.5, **scores)
    home = made(
        tmp_path / "a.cellseg", image=f"/scans/{HOSTILE.replace('/', '|')}.tif",
        classes=(HOSTILE, "items"), doubts=[HOSTILE], warnings=[f"x{HOSTILE}"],
        model={"name": HOSTILE, "checksum": "0" * 64}, protocol={"name": HOSTILE, "score": 0.5},
        summary={"labelling": [marker(HOSTILE, 0.5, **scores, regions={HOSTILE: part})],
                 "regions": [region(HOSTILE, HOSTILE, 1, 0.1, of=HOSTILE)]},
    ).path  # fmt: skip
    painted(home, scale=f"{HOSTILE}\n{HOSTILE}")
    made(tmp_path / "b.cellseg", image="/scans/b.tif")
    (tmp_path / "<img src=x>.cellseg").mkdir()
    study = load_study(tmp_path)
    study = replace(study, failed=(failed_row(HOSTILE, HOSTILE, HOSTILE),))
    page = opened(write_study(study))
    page.locator("summary").click()
    text = page.locator("body").inner_text()
    assert text.count("<img src=") >= 12
    assert "\x1b" not in text
    assert "{{ 7*7 }}" in text
    assert page.evaluate("[document.scripts.length, document.images.length]") == [1, 2]
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_a_page_without_doubts_says_what_was_checked_and_what_was_not(opened, tmp_path):
    sizes = {"limits_px": [10, 500], "usual_px": 12.0, "mpp": 0.5, "own_model": False}
    made(tmp_path / "a.cellseg", radii=(5, 6) * 10, expected_sizes=sizes)
    made(tmp_path / "b.cellseg", image="/scans/b.tif", mpp=None, expected_sizes=sizes)
    study = load_study(tmp_path)
    page = opened(write_study(study))
    assert page.locator("section.warnings").count() == 0
    assert "Nothing was found" not in page.locator("body").inner_text()
    full, few = (page.locator(f"#slide-{n} .checks").inner_text() for n in (0, 1))
    assert "area of the cells within the tissue, median size" in full.partition("Not checked")[0]
    assert "median size" in few.partition("Not checked")[2]
    for said in (full, few):
        assert "focus" in said.partition("Not checked")[2]
    passed, left = checks(next(iter(study.results)))
    assert len(passed) == 8
    assert not {*passed} & {*left}


def test_positive_cells_and_wells_are_shown_and_sorted(opened, tmp_path):
    for name, positive, interval in (("a", 0.089, None), ("b", 0.5, [0.42, 0.58])):
        ki67 = marker("<b>Ki-67", positive, index_interval=interval, h_score=90.0)
        image = f"/scans/plate.zarr/{name.upper()}/3/0"
        made(tmp_path / f"{name}.cellseg", image=image, summary={"labelling": [ki67]})
    page = opened(write_study(load_study(tmp_path)))
    rows = page.locator("table.sortable tbody").inner_text()
    assert "8.9\t90" in rows
    assert "50.0 (42.0 … 58.0)\t90" in rows
    assert "A3" in rows
    page.get_by_role("button", name="<b>Ki-67, % positive (95 %)", exact=True).click()
    page.keyboard.press("Enter")
    assert page.locator("table.sortable tbody th").all_inner_texts() == ["plate-B3-0", "plate-A3-0"]
    assert "Allred" not in page.locator("table.sortable thead").inner_text()
    assert "<b>Ki-67 50.0 % positive" in page.locator("#slide-1").inner_text()


def test_colours_of_several_classes_are_those_of_the_slide_s_picture(tmp_path):
    made(tmp_path / "a.cellseg", image="/scans/a.tif")
    made(tmp_path / "b.cellseg", image="/scans/b.tif", classes=("negative", "positive"))
    text = write_study(load_study(tmp_path)).read_text(encoding="utf-8")
    (key,) = re.findall('<p class="key">.*?</p>', text)
    names = ["negative", "positive", "nucleus"]
    shown = list(zip(map(as_hex, colours(names, "he")), names, strict=True))
    assert re.findall('background:(#[0-9a-f]+)"></i>(\\w+)<', key) == shown


def changed(study, **values):
    """A study whose slides' rows say something else."""
    results = {
        result: [{**row, **values} for row in rows] for result, rows in study.results.items()
    }
    return replace(study, results=results)


def test_the_widest_usual_table_fits_a_laptop_s_screen(opened, study):
    classes = ("nucleus", "lymphocyte", "stromal", "tumour_epithelial")
    wide = {"classes": dict.fromkeys(classes, 4377), "density_per_mm2": 10712.3}
    wide = changed(study, **wide, protocol="fluorescence")
    next(iter(wide.results.values()))[0]["model"] = "cellseg-nuclei-8"
    heads = opened(write_study(wide)).locator("table.sortable th[scope=col]").all_text_contents()
    heads = [head.strip() for head in heads]
    assert "Model" in heads  # its slides were counted by two
    assert set(classes) < set(heads)
    page = opened(write_study(changed(wide, model="m")))
    assert "Model" not in page.locator("table.sortable thead").inner_text()
    assert page.locator("p.muted").first.inner_text().endswith(", by m")
    assert page.evaluate(
        "[...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)"
    )


def test_a_narrow_screen_a_dark_one_and_paper(opened, study):
    page = opened(write_study(study), 400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(23, 23, 27)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_hundred_slides_stay_below_five_megabytes(tmp_path):
    home = made(tmp_path / "a.cellseg").path
    noise = np.random.default_rng(0).integers(0, 256, (500, 1000, 3), dtype=np.uint8)
    for name in ("outlines.png", "overview.png"):
        image = Image.fromarray(noise)
        write_png(image, home / name, [(0, 0, 500, 500), (500, 0, 1000, 500)])
    each = shown(home, most_bytes=PICTURES_BYTES // 100)
    assert len(each) == 2
    assert sum(len(one.data) for one in each) <= PICTURES_BYTES // 100
    for name in ("outlines.png", "overview.png"):
        (home / name).unlink()
    ((result, (row,)),) = load_study(tmp_path).results.items()
    row = {**row, "warnings": ("protocol he chosen from the image " * 3,) * 4}
    many = {replace(result): [{**row, "image": f"{n} {'long ' * 10}.tif"}] for n in range(100)}
    size = write_study(Study(tmp_path, many)).stat().st_size
    assert size + PICTURES_BYTES < 5_000_000


def test_other_peoples_page_is_not_replaced(study, tmp_path):
    write_study(study)
    write_study(study)
    (tmp_path / "report.html").write_text("<h1>mine</h1>")
    with pytest.raises(OutputError, match="is no page of cellseg"):
        write_study(study)
    assert (tmp_path / "report.html").read_text() == "<h1>mine</h1>"
