"""Counting in regions and in the cores of an array, and the hot spot of a result."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from finished import changed_file, counted, request_for, table_of, told
from PIL import Image
from synthetic import write_disc_slide
from synthetic.arrays import draw_array
from synthetic.discs import DISC_RGB, GROUND_RGB, draw_discs
from synthetic.tiff import PyramidLayout, write_pyramid

from cellseg.annotations.region import Region, Regions
from cellseg.cli._images import Reporter
from cellseg.derive import Recipe
from cellseg.derive.corrections import Corrections
from cellseg.draw.pictures import overlay
from cellseg.errors import SettingsError
from cellseg.network.tissue import TissueMask
from cellseg.protocol import Marker
from cellseg.result import load_result
from cellseg.run import Started, change, save
from cellseg.study.folder import load_study, write_summary
from cellseg.study.page import write_study
from cellseg.table.hotspot import HotSpot
from cellseg.table.summary import lines

MPP = 0.5

RING = Region(
    shapely.MultiPolygon([(((60, 40), (700, 60), (640, 560), (90, 500)), [
        ((200, 200), (300, 200), (300, 300), (200, 300))])]), "ring", "Tumor",
)  # fmt: skip
NESTED = Region.box(320, 320, 450, 600, name="nested")
APART = Region.of(
    [[(600, 10), (600, 200), (690, 200)], [(10, 750), (10, 890), (90, 890), (90, 750)]],
)
BESIDE = Region.box(2000, 2000, 2100, 2100, name="beside")
ACROSS = Region.box(600, 800, 1500, 1500, name="across")
EMPTY = Region.box(1, 1, 3, 3, name="=empty")
REGIONS = Regions.of([RING, NESTED, APART, BESIDE, ACROSS, EMPTY])


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "discs.tif"
    return path, write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))


@pytest.fixture(scope="module")
def whole(slide, tmp_path_factory):
    return counted(request_for(slide[0], output=tmp_path_factory.mktemp("whole")))[0]


@pytest.fixture(scope="module")
def part(slide, tmp_path_factory):
    home = tmp_path_factory.mktemp("part")
    return counted(request_for(slide[0], output=home, regions=REGIONS))


def centred_in(table, region):
    """One point at a time, without the index."""
    return np.array(
        [
            shapely.intersects_xy(region.shape, x + 0.5, y + 0.5)
            for y, x in table[["centroid_y_px", "centroid_x_px"]].to_numpy()
        ]
    )


def test_each_region_holds_the_cells_that_a_whole_count_finds_there(slide, whole, part):
    _, truth = slide
    result, _ = part
    everything = table_of(whole)
    assert len(everything) == truth.count
    held = np.stack([centred_in(everything, region) for region in REGIONS])
    assert (held[0] & held[1]).sum() > 5, "some cells lie in two regions"
    assert 20 < held.any(axis=0).sum() < len(everything) - 20
    columns = [name for name in everything.columns if name != "label"]
    wanted = everything.loc[held.any(axis=0), columns].reset_index(drop=True)
    table = table_of(result)
    assert table[columns].equals(wanted)
    assert table.columns[-1] == "region"
    assert "region" not in everything
    names = [region.name for region in REGIONS]
    assert table["region"].tolist() == [
        "; ".join(name for name, inside in zip(names, cell, strict=True) if inside)
        for cell in held.T[held.any(axis=0)]
    ]
    assert [region.cells for region in result.summary.regions] == held.sum(axis=1).tolist()


def test_areas_and_densities_are_those_of_the_region(part):
    result, _ = part
    regions = {region.name: region for region in result.summary.regions}
    assert list(regions) == ["ring", "nested", "region 1", "beside", "across", "=empty"]
    # The slide is 700 × 900 px; boxes are given by pixel centres.
    wanted = {"nested": 130 * 280, "beside": 0, "across": 99.5 * 99.5, "=empty": 4,
              "ring": RING.shape.area, "region 1": 190 * 90 / 2 + 80 * 140}  # fmt: skip
    for name, area in wanted.items():
        assert regions[name].region_px2 == pytest.approx(area)
        assert regions[name].area_mm2 == pytest.approx(area * (MPP / 1000) ** 2)
    nested = regions["nested"]
    assert nested.density_per_mm2 == pytest.approx(nested.cells / (130 * 280 * 0.25e-6))
    assert nested.area_um2.median == pytest.approx(nested.area_px.median * MPP**2)
    table = table_of(result)
    inside = table[table["region"].str.contains("nested")]
    assert nested.area_px.quantiles[50] == pytest.approx(inside["area_px"].median())
    assert nested.cells_per_class == {"nucleus": len(inside)}
    assert regions["ring"].kind == "Tumor"
    assert (regions["beside"].density_per_mm2, regions["beside"].area_px) == (None, None)
    assert regions["=empty"].density_per_mm2 == 0


def test_what_is_said_and_written(slide, part):
    result, events = part
    folder = result.folder
    assert folder.name == "discs.cellseg"
    started = next(event for event in events if isinstance(event, Started))
    assert "6 regions, " in started.text
    assert "skipped" not in started.text
    assert any("(beside) lies outside of the slide" in text for text in told(events))
    assert any("(across) lies in part outside" in text for text in told(events))
    record = json.loads((folder / "run.json").read_text())
    assert [one["class"] for one in record["summary"]["regions"]] == ["Tumor", *[""] * 5]
    assert record["summary"]["regions"][1]["area_um2"]["quantiles"]["50"] > 0
    assert json.loads(json.dumps(result.as_dict()))["regions"] == record["summary"]["regions"]
    assert record["settings"]["regions"] == "regions.geojson"
    assert "regions.geojson" in record["files"]
    assert load_result(folder).regions() == REGIONS
    assert load_result(folder).summary == result.summary
    with pytest.raises(SettingsError, match=r"1 region \(beside\) lies outside of the slide"):
        counted(request_for(slide[0], regions=Regions.of([BESIDE])))
    said = result.summary.regions[0].said("nucleus")
    density = result.summary.regions[0].density_per_mm2
    number = result.summary.regions[0].cells
    assert said.startswith(f"in region ring (Tumor): {number} nuclei, {density:,.0f} /mm² in 0.0")
    assert "'=empty" not in (folder / "cells.csv").read_text()


def test_tissue_of_a_region_is_measured_in_the_region():
    tissue = np.zeros((44, 57), bool)
    tissue[10:20, 5:40] = True  # lattice pixels 160 … 320, 80 … 640
    mask = TissueMask(tissue, tissue | True, 16.0, (700, 900))
    region = shapely.MultiPolygon([shapely.box(40, 100, 440, 420)])
    inside = mask.within(region)
    assert inside.looked_at_px() == 400 * 320
    assert inside.skipped_px() == 0
    assert inside.area_px() == pytest.approx(360 * 160, rel=0.02)
    assert mask.within(shapely.MultiPolygon([shapely.box(200, 200, 210, 203)])).area_px() == 30
    assert mask.within(shapely.MultiPolygon([shapely.box(0, 0, 10, 3)])).area_px() == 0
    sliver = shapely.MultiPolygon([shapely.Polygon([(100, 200), (600, 300), (600, 300.001)])])
    assert mask.within(sliver).area_px() == pytest.approx(sliver.area)
    assert mask.within(shapely.MultiPolygon()).area_px() == 0


def test_thousands_of_regions_have_their_tissue_measured_together(slide, tmp_path):
    rng = np.random.default_rng(1)
    many = [Region.box(y, x, y + 40, x + 40) for y, x in rng.uniform(0, 700, (2_000, 2))]
    result, events = counted(request_for(slide[0], output=tmp_path, regions=Regions.of(many)))
    regions = result.summary.regions
    assert len(regions) == 2_000
    assert sum(region.cells for region in regions) == sum(
        len(names.split("; ")) for names in table_of(result)["region"]
    )
    assert any("…) lie" in text for text in told(events))


def free_place(truth, region):
    """Corner of 8 × 8 px without a cell, whose middle lies in a region, or in none."""
    for y in range(0, 690, 9):
        for x in range(0, 890, 9):
            names = [one.name for one in REGIONS if one.contains([y + 3.5], [x + 3.5])[0]]
            if names == region and not truth.labels[y : y + 8, x : x + 8].any():
                return y, x
    raise AssertionError("no room")


def test_corrected_cells_get_their_regions_anew(slide, tmp_path):
    path, truth = slide
    result, _ = counted(request_for(path, output=tmp_path, regions=REGIONS))
    before = {one.name: one for one in result.summary.regions}
    corrections = Corrections.open(result.folder)
    in_ring = table_of(result).query("region == 'ring'")["label"].tolist()[:2]
    corrections.delete(in_ring)
    square = np.full((8, 8), 10**6)  # no drawn disc fills its box
    corrections.redraw(free_place(truth, ["ring", "nested"]), square)
    corrections.redraw(free_place(truth, []), square)
    after = {one.name: one for one in corrections.recount().regions}
    assert after["ring"].cells == before["ring"].cells - 1
    assert after["nested"].cells == before["nested"].cells + 1
    assert after["nested"].area_mm2 == before["nested"].area_mm2
    saved = save(corrections)
    drawn = saved.table.load().query("extent == 1")
    assert sorted(drawn["region"]) == ["", "ring; nested"]
    assert saved.regions() == REGIONS
    kept = saved.table.load().query("extent != 1")["region"].value_counts()
    wanted = table_of(result).query("label not in @in_ring")["region"].value_counts()
    assert kept.to_dict() == wanted.to_dict()
    assert [one["cells"] for one in saved.run["summary"]["regions"]] == [
        one.cells for one in after.values()
    ]


def test_pictures_show_the_borders(part):
    folder = part[0].folder
    # Of the nested box the left border, 320 … 450 px down at x = 320.5, and nothing further left.
    picture = overlay(load_result(folder), box=(360, 300, 400, 340))
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    white = (pixels == 255).all(axis=2)
    dark = (pixels == (20, 20, 24)).all(axis=2)
    assert white[-300:].any(axis=0).sum() > 0
    columns = np.flatnonzero(dark[-300:-60].sum(axis=0) > 150)
    assert 2 <= len(columns) <= 8
    assert (folder / "overview.png").stat().st_size > 10_000


def test_a_region_without_cells_has_none_of_either_class(slide, tmp_path):
    recipe = Recipe(markers=(Marker(measure="area_um2", threshold=45.0),))
    only = request_for(slide[0], output=tmp_path, regions=Regions.of([EMPTY]), recipe=recipe)
    assert counted(only)[0].summary.cells_per_class == {"negative": 0, "positive": 0}


def test_the_screen_speaks_of_regions(part, capsys):
    with Reporter() as reporter:
        for event in part[1]:
            reporter.show(event)
    said = capsys.readouterr().err
    nested = part[0].summary.regions[1]
    assert f"  in region nested: {nested.cells} nuclei, {nested.density_per_mm2:,.0f} /mm²" in said
    assert "  in region beside: 0 nuclei\n" in said
    assert "skipped" not in said
    assert len(lines([nested] * 10_000, "nucleus")) == 21


LARGE = (Marker(measure="area_um2", threshold=45.0, name="large"),)
ASKED = HotSpot(mm2=0.01)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Small discs, and two groups of large ones."""
    path = tmp_path_factory.mktemp("hot") / "discs.tif"
    rng = np.random.default_rng(4)
    image = draw_discs((720, 920), rng, radius_px=(5, 6)).image.copy()
    large = draw_discs((720, 920), rng, radius_px=(10, 12)).image
    for rows, columns in ((slice(200, 440), slice(480, 720)), (slice(600, 640), slice(40, 240))):
        image[rows, columns] = large[rows, columns]
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    return path


def result_of(grouped, home, **settings):
    result, events = counted(request_for(grouped, output=home, **settings))
    return told(events), result


def test_the_hot_spot_is_derived_and_told_everywhere(grouped, tmp_path):
    _, result = result_of(grouped, tmp_path)
    plain = np.asarray(Image.open(result.folder / "overview.png"))
    said = []
    found = change(result.folder, markers=LARGE, hotspot=ASKED, on_notice=said.append)
    record = found.section("hotspot")
    assert (record["y_px"], record["x_px"]) == pytest.approx((320, 600), abs=40)
    assert record["hot"] == record["cells"]
    assert record["slide_share"] < 0.2 < record["shuffled_share"][0] < record["shuffled_share"][1]
    assert any("its share is too high" in text and "shuffled" in text for text in said)
    (region,) = found.summary.regions
    assert (region.name, region.cells) == ("hot spot", record["cells"])
    assert region.area_mm2 == pytest.approx(0.01, rel=0.01)
    assert region.said("nucleus").startswith(f"in hot spot: {region.cells} nuclei")
    (marker,) = found.summary.labelling
    assert marker["regions"]["hot spot"]["index"] == 1.0
    assert marker["regions"]["hot spot"]["index_interval"] == record["index_interval"]
    assert "of the slide" not in str(found.summary)
    later = change(result.folder, expand=3.0)
    assert later.section("hotspot") == record
    assert Recipe.of(later).hotspot == ASKED
    marked = np.asarray(Image.open(result.folder / "overview.png"))
    assert plain.shape != marked.shape or (plain != marked).any()
    study = load_study(tmp_path)
    write_summary(study)
    whole, row = csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    assert (whole["region"], row["region"]) == ("", "hot spot")
    assert float(row["positive_percent_large"]) == 100
    write_study(study)
    assert "with the classes shuffled" in (tmp_path / "report.html").read_text()
    assert "hot spot" not in (result.folder / "cells.csv").read_text()
    gone = change(result.folder, hotspot=None)
    assert gone.section("hotspot") == {}
    assert gone.summary.regions == ()


def test_a_finished_count_gets_the_hot_spot_that_is_asked_for(grouped, tmp_path):
    result_of(grouped, tmp_path)
    said, result = result_of(grouped, tmp_path, recipe=Recipe(hotspot=HotSpot(cells=60)))
    assert any("counted before" in text and "made anew" in text for text in said)
    assert [one.cells for one in result.summary.regions] == [60]
    record = json.loads((result.folder / "run.json").read_text())["hotspot"]
    assert record["shuffled_share"] is None  # cells of one kind: nothing can be shuffled


def test_a_hot_spot_larger_than_the_tissue_is_one_line(grouped, tmp_path):
    said, result = result_of(grouped, tmp_path, recipe=Recipe(hotspot=HotSpot(mm2=5)))
    assert [text for text in said if "5 mm² are more than the tissue" in text]
    assert result.summary.regions == ()
    with pytest.raises(
        SettingsError, match=r"9 mm² are more than the tissue, .* 0\.166 mm²; .*30cells"
    ):
        change(result.folder, hotspot=HotSpot(mm2=9))
    with pytest.raises(SettingsError, match="there are no cells of class 'tumour', but of nucleus"):
        change(result.folder, hotspot=HotSpot(cells=50, of="tumour"))
    assert changed_file(load_result(result.folder)) is None
    change(result.folder, spatial=True)  # what cannot be is no fault of another decision


def test_a_slide_without_positive_cells_has_its_densest_place(grouped, tmp_path):
    none = (Marker(measure="area_um2", threshold=1e5, name="large"),)
    _, result = result_of(grouped, tmp_path)
    told = []
    found = change(result.folder, markers=none, hotspot=ASKED, on_notice=told.append)
    assert any(text.endswith("the densest place; no cell is positive") for text in told)
    record = found.section("hotspot")
    assert record["hot"] == 0 < record["cells"]
    assert record["shuffled_share"] is record["index_interval"] is None


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    home = tmp_path_factory.mktemp("array")
    rng = np.random.default_rng(3)
    drawn = draw_array(
        rng, rows=3, columns=4, diameter=260, gap=0.5, degrees=5, jitter=0.02, torn=0, specks=0,
        holes=0,
    )  # fmt: skip
    discs = draw_discs(drawn.mask.shape, rng)
    image = np.full((*drawn.mask.shape, 3), 245, np.uint8)
    image[drawn.mask] = GROUND_RGB
    image[drawn.mask & (discs.labels > 0)] = DISC_RGB
    write_pyramid(home / "array.tif", image, layout=PyramidLayout(mpp=0.5, tile_px=256))
    request = request_for(home / "array.tif", tma=True, prefilter=True)
    return drawn, counted(request)[1]


def test_each_core_holds_its_own_cells(array):
    drawn, events = array
    result = events[-1]
    assert [region.name for region in result.summary.regions] == list(drawn.centres)
    table = table_of(result)
    at = drawn.pieces[tuple(table[f"centroid_{axis}_px"].astype(int) for axis in "yx")]
    names = np.array(["", *drawn.centres])
    assert table["region"].tolist() == names[at].tolist()
    assert min(region.cells for region in result.summary.regions) > 10
    run_json = json.loads((result.folder / "run.json").read_text())
    assert {name: run_json["array"][name] for name in ("rows", "columns", "torn")} == {
        "rows": 3, "columns": 4, "torn": [],
    }  # fmt: skip
    missing = run_json["array"]["missing"]
    assert len(missing) == 12 - len(drawn.centres) > 0
    assert any(f"missing: {', '.join(missing)}" in text for text in told(events))


def test_each_core_has_a_row_and_a_field_of_the_map(array):
    drawn, events = array
    home = events[-1].folder.parent
    study = load_study(home)
    write_summary(study)
    rows = list(csv.DictReader((home / "summary.csv").read_text().splitlines()))
    assert [row["region"] for row in rows] == ["", *drawn.centres]
    write_study(study)
    page = (home / "report.html").read_text()
    shown = page[page.index('<table class="cores">') :]
    assert shown.count("<td style=") == len(drawn.centres)
    assert shown.count("<td>") == 12 - len(drawn.centres)


def test_what_is_no_array_is_counted_whole(tmp_path):
    truth = write_disc_slide(tmp_path / "discs.tif", np.random.default_rng(1), shape=(600, 700))
    request = request_for(tmp_path / "discs.tif", tma=True, prefilter=True)
    result, events = counted(request)
    assert result.summary.cells == truth.count
    assert result.summary.regions == ()
    assert any("the whole slide is counted" in str(one) for one in events)
    assert any("the whole slide is counted" in text for text in result.warnings)
    both = replace(request, regions=Regions((Region.box(0, 0, 90, 90),)))
    with pytest.raises(SettingsError, match="cores of an array are regions already"):
        counted(both)
