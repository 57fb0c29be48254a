"""Regions that people draw in the browser: kept, counted at once, and nothing else written."""

import csv
import json
from contextlib import contextmanager

import pytest
from finished import changed_file
from serve import served

from cellseg.annotations.geojson import read_regions
from cellseg.annotations.region import Region, Regions
from cellseg.derive.places import keep_drawn
from cellseg.export import export
from cellseg.result import load_result
from cellseg.study.folder import load_study, write_summary
from cellseg.study.page import write_study

READY = "html[data-slide=shown][data-masks=shown]"


@pytest.fixture
def client(folder):
    said = []
    with served.serving(folder, on_region=said.append) as client:
        client.said = said
        yield client


def post(client, content, *, tag="", kind="application/json", **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    about = {"Content_Type": kind, "Content_Length": str(len(body)), **headers}
    return client.ask(f"0/regions?tag={tag}", method="POST", body=body, **about)


def drawn(*regions):
    return Regions.of(regions).as_geojson() if regions else {"features": []}


LEFT = Region.box(0, 0, 999, 300, name="left")
RIGHT = Region.box(0, 400, 999, 1399, name="right")
FAR = Region.box(9000, 9000, 9100, 9100, name="far")


def unchecked(*features):
    """Regions that could not be made with :class:`Regions`."""
    return {"type": "FeatureCollection", "features": list(features)}


def test_regions_are_kept_and_counted_at_once(client, folder, table):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert client.ask("0/regions").json["edit"] is True
    first = post(client, drawn(LEFT, RIGHT)).json
    x = table["centroid_x_px"]
    assert [one["cells"] for one in first["totals"]] == [(x <= 300).sum(), (x >= 400).sum()]
    assert client.said == [f"discs.cellseg: {one['said']}" for one in first["totals"]]
    new = {path for path in folder.rglob("*") if path.is_file()} - before.keys()
    assert new == {folder / "drawn.geojson"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert changed_file(load_result(folder)) is None
    assert read_regions(folder / "drawn.geojson") == Regions.of([LEFT, RIGHT])
    assert client.ask("0/drawn.geojson").json == first["geojson"]
    assert post(client, drawn(LEFT), tag="old").status == 409
    again = post(client, drawn(RIGHT), tag=first["tag"]).json
    assert [one["name"] for one in again["totals"]] == ["right"]
    assert post(client, drawn(), tag=again["tag"]).json["totals"] == []
    assert not (folder / "drawn.geojson").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[", "no GeoJSON"),
        ({"features": 3}, "no GeoJSON"),
        (drawn(FAR), "outside of the slide"),
        (drawn(LEFT, FAR), "far lies outside"),
        (unchecked(*[LEFT.as_geojson()] * 2), "2 regions are call"),
        (unchecked(Region.box(0, 0, 9, 9).as_geojson()), "name"),
        (
            unchecked(*[LEFT.as_geojson() | {"properties": {"name": f"T{m} α"}} for m in ";,"]),
            "2 regions are called 'T, α'",
        ),
        ({"type": "Point", "coordinates": [1, 2]}, "name"),
        (drawn(*[Region.box(0, n, 9, n + 9, name=f"r{n}") for n in range(501)]), "at most 500"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line(client, folder, content, why):
    answer = post(client, content)
    assert answer.status == 409
    assert why in answer.body.decode()
    assert answer.body.count(b"\n") == 1
    assert not (folder / "drawn.geojson").exists()


def test_a_region_that_crosses_itself_is_what_it_encloses(client):
    ring = [[10, 10], [200, 200], [200, 10], [10, 200], [10, 10]]
    crossed = LEFT.as_geojson() | {"geometry": {"type": "Polygon", "coordinates": [ring]}}
    found = post(client, unchecked(crossed)).json
    assert found["totals"][0]["name"] == "left"
    assert len(found["geojson"]["features"][0]["geometry"]["coordinates"]) == 2


def test_other_pages_and_large_bodies_are_refused(client, counted, folder):
    good = drawn(LEFT)
    assert post(client, good, kind="text/plain").status == 403
    assert post(client, good, Origin="http://elsewhere.example").status == 403
    assert post(client, good, Host="elsewhere.example").status == 403
    large = {"Content_Type": "application/json", "Content_Length": "1000001"}
    assert client.ask("0/regions", method="POST", **large).status == 400
    assert client.ask("/wrong/0/regions", method="POST", whole=True).status == 403
    assert client.ask("0/about", method="POST", Content_Type="application/json").status == 404
    assert not (folder / "drawn.geojson").exists()
    with served.serving(counted) as other:
        assert post(other, good).status == 405
        assert other.ask("0/regions").json["edit"] is False


def test_a_link_in_place_of_the_file_leads_nowhere(client, folder, tmp_path):
    other = tmp_path / "mine.geojson"
    other.write_text("mine")
    (folder / "drawn.geojson").symlink_to(other)
    assert client.ask("0/regions").status == 409
    assert post(client, drawn(LEFT)).status == 409
    assert other.read_text() == "mine"


def test_drawn_regions_have_rows_and_exports(folder, cellseg):
    result = load_result(folder)
    keep_drawn(result, json.dumps(drawn(LEFT)).encode())
    _, _, said = cellseg("report", folder.parent, ends=0)
    assert "discs.tif: in region left: " in said
    rows = list(csv.DictReader((folder.parent / "summary.csv").read_text().splitlines()))
    assert [row["region"] for row in rows] == ["", "left"]
    assert "left" in (folder.parent / "report.html").read_text()
    (feature,) = json.loads(export(folder, "annotations.geojson").read_text())["features"]
    assert feature["properties"]["measurements"]["cells"] == int(rows[1]["cells"])
    (folder / "drawn.geojson").write_text("{")
    study = load_study(folder.parent)
    assert "no GeoJSON" in study.rows[0]["warnings"][-1]
    write_summary(study)
    write_study(study)


@contextmanager
def editing(browser, folder, said):
    """The page of a result that takes regions."""
    with served.serving(folder, on_region=said.append) as client:
        page = browser.new_context(viewport={"width": 1300, "height": 800}).new_page()
        page.set_default_timeout(120_000)
        page.goto(client.server.url)
        page.wait_for_selector(READY)
        yield page
        page.context.close()


def draw_polygon(page):
    page.click("[data-tool=polygon]")
    for x, y in [(300, 250), (560, 240), (580, 520), (320, 500)]:
        page.mouse.click(x, y)
        page.wait_for_timeout(400)  # two quick ones would be a double click
    page.keyboard.press("Enter")


def keep(page, name):
    page.fill("#region-name", name)
    page.click("#keep button:not([type])")
    page.wait_for_selector(f"#kept >> text={name}")


def test_a_region_is_drawn_in_the_page(browser, folder):
    said = []
    with editing(browser, folder, said) as page:
        draw_polygon(page)
        keep(page, "tumour")
        page.click("[data-tool=freehand]")
        page.mouse.move(620, 300)
        page.mouse.down()
        for x, y in ((760, 300), (800, 420), (700, 560), (620, 480)):
            page.mouse.move(x, y, steps=4)
        page.mouse.up()
        keep(page, "stroma")
        page.wait_for_timeout(300)
        regions = read_regions(folder / "drawn.geojson")
        assert [region.name for region in regions] == ["tumour", "stroma"]
        assert min(region.area_px for region in regions) > 5_000
        page.click("[aria-label='Delete tumour']")
        page.wait_for_selector("#kept >> text=tumour", state="detached")
        assert [region.name for region in read_regions(folder / "drawn.geojson")] == ["stroma"]
    assert "in region tumour: " in said[0]


def test_a_draft_never_takes_the_name_of_the_one_before(browser, folder):
    with editing(browser, folder, []) as page:
        name = page.locator("#region-name")
        draw_polygon(page)
        name.fill("tumour")
        name.press("Escape")
        draw_polygon(page)
        assert name.input_value() == ""
        page.keyboard.type("stroma")  # the field has the focus: Enter ended the polygon alone
        page.keyboard.press("Enter")
        page.wait_for_selector("#kept >> text=stroma")
        draw_polygon(page)
        name.fill("stroma")
        name.press("Enter")
        page.locator("#refused").get_by_text("stroma").wait_for()
        assert name.input_value() == "stroma"  # to be mended
        draw_polygon(page)
        assert page.locator("#refused").is_hidden()
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        page.click("#drop")
        assert name.input_value() == ""
        kept = read_regions(folder / "drawn.geojson")
        assert [region.name for region in kept] == ["stroma"]
