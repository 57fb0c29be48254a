"""The whole run with a detector that needs no network."""

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from finished import DISCS, counted, edit, request_for, table_of, told
from microscopes import ome_zarr, spoil
from PIL import Image
from synthetic import PyramidLayout, draw_discs, write_disc_slide
from synthetic.threshold import ThresholdDetector

from cellseg.annotations.region import Region, Regions
from cellseg.counting.choice import fit_grid
from cellseg.counting.plan import Plan, make_plan
from cellseg.counting.request import CountRequest
from cellseg.derive import Recipe
from cellseg.draw import parts_of
from cellseg.errors import OutputError, RegionError, SettingsError
from cellseg.geometry import Tile
from cellseg.network.detector import Detections
from cellseg.network.tissue import TissueMask
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.run import Started, TileDone, run
from cellseg.slide import ChunkCache, open_slide
from cellseg.table.chamber import Chamber


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of 48 tiles, which no test changes."""
    path = tmp_path_factory.mktemp("slide") / "discs.tif"
    return path, write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))


@pytest.fixture(scope="module")
def whole(slide):
    """Its count, and what was told of it."""
    return counted(request_for(slide[0]))


def test_every_disc_is_counted_with_its_area(slide, whole):
    _, truth = slide
    result, events = whole
    assert result.summary.cells == truth.count
    table = table_of(result)
    assert sorted(table["area_px"]) == sorted(truth.areas)
    assert np.allclose(table["area_um2"], table["area_px"] * 0.25, rtol=1e-3)
    labels = np.asarray(load_result(result.folder).labels()[0])
    assert labels.dtype == np.uint32
    assert np.array_equal(labels > 0, truth.labels > 0)
    places = np.rint(table[["centroid_y_px", "centroid_x_px"]].to_numpy()).astype(int)
    assert np.array_equal(labels[tuple(places.T)], table["label"])
    started = next(event for event in events if isinstance(event, Started))
    tiles = [event for event in events if isinstance(event, TileDone)]
    assert started.tiles == len(tiles) == 6 * 8
    assert tiles[-1].done == tiles[-1].total
    assert [event.seconds_left is None for event in tiles] == [True] * 7 + [False] * 41
    assert tiles[-1].seconds_left == 0


@pytest.mark.parametrize("tile", [64, 1024])
def test_the_table_does_not_depend_on_the_tile(slide, whole, tmp_path, tile):
    other, _ = counted(request_for(slide[0], output=tmp_path, tile_px=tile))
    first = (whole[0].folder / "cells.csv").read_bytes()
    assert (other.folder / "cells.csv").read_bytes() == first


class Near(ThresholdDetector):
    """Leaves out what it may."""

    def detect(self, tile, *, fill, near=None):
        found = super().detect(tile, fill=fill).instances
        meets = [found.box(index).intersects(near) for index in range(len(found))]
        self.spared += len(found) - sum(meets)
        return Detections(found.take(np.flatnonzero(meets)))


def test_what_lies_in_a_tiles_halo_alone_need_not_be_found(slide, whole, tmp_path):
    detector = Near()
    detector.spared = 0
    result, _ = counted(request_for(slide[0], output=tmp_path), detector)
    assert detector.spared > 20
    table = (whole[0].folder / "cells.csv").read_bytes()
    assert (result.folder / "cells.csv").read_bytes() == table


def test_no_tile_is_kept_once_all_cells_are_measured(tmp_path, monkeypatch):
    caches, keep = set(), ChunkCache.keep

    def keeping(self, key, chunk, *, pin=False):
        if isinstance(key, Tile):
            caches.add(self)
        keep(self, key, chunk, pin=pin)

    monkeypatch.setattr(ChunkCache, "keep", keeping)
    path = tmp_path / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(300, 300))
    _, events = counted(request_for(path))
    (kept,) = caches
    tiles = [event.tile for event in events if isinstance(event, TileDone)]
    assert len(tiles) == 9
    assert [kept.find(tile) for tile in tiles] == [None] * 9


def test_run_json_records_how_it_was_made(whole):
    record = json.loads((whole[0].folder / "run.json").read_text())
    assert record["model"]["checksum"] == ThresholdDetector().info.checksum
    assert record["pixel_size"]["mpp"] == pytest.approx(0.5, rel=1e-3)
    assert record["protocol"]["tile_px"] == 128
    assert record["tiles"]["all"] == 48
    assert record["versions"]["numpy"] == np.__version__
    assert {"detect", "merge", "measure", "write"} <= set(record["seconds"])


def test_no_pixel_size_means_no_um_columns(tmp_path):
    path = tmp_path / "bare.tif"
    truth = write_disc_slide(
        path, np.random.default_rng(1), shape=(256, 256), layout=PyramidLayout(mpp=None, levels=1)
    )
    result, events = counted(request_for(path))
    assert result.summary.cells == truth.count
    assert not [name for name in table_of(result).columns if name.endswith(("_um", "_um2"))]
    assert result.as_dict()["median_area_um2"] is None
    assert any(getattr(event, "hint", "") == "mpp,diameter" for event in events)
    limited = DISCS.changed(max_area_um2=25.0)
    result, _ = counted(request_for(path, protocol=limited, overwrite=True))
    (said,) = [text for text in result.warnings if "left out" in text]
    assert "smaller than 0 or larger than 100 px²: " in said


class Interrupted(ThresholdDetector):
    """Stops the run after some tiles, as Ctrl-C would."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def detect(self, tile, *, fill, near=None):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().detect(tile, fill=fill)


class Sorting(Interrupted):
    """Tells cell types; so many fields of each tile, of 3, show unlike tissue."""

    def __init__(self, after, unlike):
        super().__init__(after)
        self.unlike = (unlike, 3)
        self.info = replace(self.info, types=("a", "b"), types_from="breast")

    def detect(self, tile, *, fill, near=None):
        return replace(super().detect(tile, fill=fill), unlike=self.unlike)


@pytest.mark.parametrize(("tiles", "share"), [(12, None), (13, "27 %")])
def test_unlike_tissue_of_an_interrupted_run_is_remembered(slide, tmp_path, tiles, share):
    request = request_for(slide[0], output=tmp_path, cell_types="breast")
    with pytest.raises(KeyboardInterrupt):
        counted(request, Sorting(tiles, 3))
    result, _ = counted(request, Sorting(48 - tiles, 0))
    found = [one for one in result.warnings if "unlike the breast" in one]
    assert [one[:4] for one in found] == [share] * (share is not None)


def test_what_is_found_in_8_bits_is_not_mixed_with_other_numbers(slide):
    path, _ = slide

    def key(device, **settings):
        info = replace(ThresholdDetector().info, inference="openvino", device=device)
        with open_slide(path) as opened:
            return make_plan(opened, request_for(path, **settings), info).settings()

    assert key("cpu, int8") != key("cpu, float32")
    assert key("cpu, int8") != key("cpu, int8, no VNNI")
    assert key("cpu, bfloat16") == key("cpu, float32")  # as with torch
    # A cluster's client asks what the model is, whatever precision its workers are asked for.
    assert key("cpu, int8", precision="float32") == key("cpu, float32", precision="float32")


def test_counted_again_with_the_same_settings_there_is_nothing_to_do(slide, tmp_path):
    path, _ = slide
    request = request_for(path, output=tmp_path)
    first, _ = counted(request)
    untouched = Interrupted(after=0)
    again, events = counted(replace(request, export=("labels.tif",)), untouched)
    assert any("nothing to do" in text for text in told(events))
    assert again.as_dict() == first.as_dict() | {"seconds": again.as_dict()["seconds"]}
    assert str(again.summary) == str(first.summary)
    assert again.summary == first.summary
    assert (again.folder / "labels.tif").is_file()
    with pytest.raises(OutputError, match=r"discs\.cellseg: holds a count with other"):
        counted(replace(request, score=0.9), untouched)
    assert (again.folder / "labels.tif").is_file()
    with pytest.raises(KeyboardInterrupt):
        counted(replace(request, score=0.9, overwrite=True), untouched)
    (again.folder / "labels.tif").write_bytes(b"cut off")
    counted(replace(request, export=("labels.tif",)), untouched)
    assert (again.folder / "labels.tif").stat().st_size > 1000


def test_every_field_of_a_plan_is_in_the_resume_key(slide):
    path, _ = slide
    info = replace(ThresholdDetector().info, inference="a", notes=("said once",))
    with open_slide(path) as opened:
        plan = make_plan(opened, request_for(path), info)
    settings = plan.settings()
    assert (settings["inference"], plan.notes[0]) == ("a", "said once")
    assert set(settings) == {one.name for one in fields(Plan)} - {"notes", "doubts"}
    assert json.loads(json.dumps(settings)) == settings
    assert replace(plan, notes=("chosen by hand",)).settings() == settings
    region = replace(plan, regions=Regions.of([Region.box(0.0, 0.0, 9.0, 9.0)]))
    assert region.settings() != settings


def test_cells_per_ml_without_a_pixel_size_are_refused_before_the_scale_is_sought(tmp_path):
    path = tmp_path / "square.png"
    Image.fromarray(np.random.default_rng(1).integers(90, 200, (400, 400), np.uint8)).save(path)
    recipe, detector = Recipe(chamber=Chamber(depth_um=100)), Interrupted(after=0)
    request = CountRequest(image=path, protocol="counting_chamber", recipe=recipe)
    with open_slide(path) as slide, pytest.raises(SettingsError, match="the picture's pixel size"):
        make_plan(slide, request, detector.info, detector=detector)


def test_another_grid_is_another_count(tmp_path):
    """Tiles are fitted to the slide, those of --tile are not."""
    path = tmp_path / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(1100, 1150))
    fitted = CountRequest(image=path, protocol="he", mpp=0.25, prefilter=False)
    given = replace(fitted, tile_px=1024)
    with open_slide(path) as opened:
        plans = [make_plan(opened, one, ThresholdDetector().info) for one in (fitted, given)]
    assert plans[0].grid != plans[1].grid
    with pytest.raises(KeyboardInterrupt):
        counted(given, Interrupted(after=1))
    result, events = counted(fitted)
    assert any("starting afresh" in text for text in told(events))
    undisturbed, _ = counted(replace(fitted, output=tmp_path / "undisturbed"))
    assert table_of(result).equals(table_of(undisturbed))


def test_a_zarr_whose_chunks_are_written_anew_is_another_slide(slide, tmp_path):
    _, drawn = slide
    path = ome_zarr(tmp_path / "a.zarr", drawn.image)
    array = zarr.open_array(path / "0", mode="r+")
    request = request_for(path, output=tmp_path / "out")
    first, _ = counted(request)
    before = path.stat().st_mtime_ns
    array[:, :350] = 235  # half of the discs are gone
    os.utime(path / "0" / "0.0.0", ns=(1, 1))  # whatever the clock's grain
    assert path.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="another version of the slide"):
        counted(request)
    again, _ = counted(replace(request, overwrite=True))
    assert again.summary.cells < first.summary.cells


def test_a_refusal_says_which_settings_are_other_ones(slide, tmp_path):
    request = request_for(slide[0], output=tmp_path)
    result = counted(request)[0].result
    with pytest.raises(OutputError, match=r"other settings \(score was 0\.\d+, now 0\.77\)"):
        counted(replace(request, protocol=DISCS.changed(score=0.77)))
    with pytest.raises(OutputError, match=r"other settings \(protocol was he, now ihc\)"):
        counted(replace(request, protocol=load_protocol("ihc")))
    part = Regions.of([Region.box(0.0, 0.0, 9.0, 9.0)])
    for asked, what in (
        ({"skip_bad": True}, r"skip_bad was no, now yes"),
        ({"regions": part}, r"regions was not set, now regions.geojson"),
        ({"mpp": 0.6}, r"mpp was 0\.5, now 0\.6"),
        # Protocol and sizes may follow from the pixel size: nobody gave these.
        ({"mpp": 0.6, "protocol": load_protocol("ihc")}, r"mpp was 0\.5, now 0\.6"),
    ):
        with pytest.raises(OutputError, match=rf"other settings \({what}\)"):
            counted(replace(request, **asked))
    detector = ThresholdDetector()
    detector.info = replace(detector.info, checksum="f" * 64)
    with pytest.raises(OutputError, match=r"other settings \(another model\)"):
        counted(request, detector)
    older = {name: value for name, value in result.section("protocol").items() if name != "score"}
    edit(result.path, protocol=older)
    with pytest.raises(OutputError, match=r"other settings, or of another version of the slide"):
        counted(replace(request, protocol=DISCS.changed(score=0.77)))


def test_a_setting_without_a_bound_is_no_other_one(slide, tmp_path):
    protocol = DISCS.changed(max_area_um2=float("inf"))
    request = request_for(slide[0], output=tmp_path, protocol=protocol)
    counted(request)
    with pytest.raises(OutputError, match=r"\(skip_bad was no, now yes\)"):
        counted(replace(request, skip_bad=True))
    with pytest.raises(OutputError, match=r"\(max_area_um2 was not set, now 700\.0\)"):
        counted(replace(request, protocol=DISCS.changed(max_area_um2=700)))


def test_another_slides_result_is_never_overwritten(slide, tmp_path):
    path = Path(shutil.copy2(slide[0], tmp_path))
    first, _ = counted(request_for(path, output=tmp_path / "out"))
    other = tmp_path / "elsewhere" / path.name
    other.parent.mkdir()
    shutil.copy2(path, other)
    with pytest.raises(OutputError, match=r"holds the result of .*discs\.tif"):
        counted(request_for(other, output=tmp_path / "out"))
    replaced, _ = counted(request_for(other, output=tmp_path / "out", overwrite=True))
    assert load_result(replaced.folder).run["image"]["path"] == str(other)
    write_disc_slide(path, np.random.default_rng(3), shape=(350, 450))
    with pytest.raises(OutputError, match=r"holds the result of .*discs\.tif"):
        counted(request_for(path, output=tmp_path / "out", overwrite=True))
    other.rename(path)  # moved: the same slide at another place
    again, _ = counted(request_for(path, output=tmp_path / "out"))
    assert again.summary.cells == first.summary.cells


def test_a_file_name_that_is_no_utf8_is_counted_like_any_other(slide, tmp_path):
    path, truth = slide
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sl\xe4de.tif"))
    try:
        shutil.copy(path, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    result, _ = counted(request_for(odd))
    assert result.summary.cells == truth.count
    record = json.loads((result.folder / "run.json").read_text())
    assert record["image"]["path"].endswith("sl\\udce4de.tif")


def test_the_second_image_of_a_file_is_counted_where_it_is_asked_for(tmp_path):
    drawn = [draw_discs((200, 260 + 40 * n), np.random.default_rng(n)) for n in (0, 1)]
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        for picture in drawn:
            writer.write(picture.image, photometric="rgb", metadata=None)
    first, events = counted(request_for(path))
    assert any("first of 2 images" in text for text in told(events))
    assert first.summary.cells == drawn[0].count
    second, events = counted(request_for(path, series=1, overwrite=True))
    assert not any("images is read" in text for text in told(events))
    assert second.summary.cells == drawn[1].count
    assert load_result(second.folder).run["settings"]["series"] == 1


def test_the_overview_shows_the_tissue_where_it_is(slide, tmp_path, monkeypatch):
    left = TissueMask.everything((700, 900), 16.0)
    left.tissue[:, left.tissue.shape[1] // 2 :] = False
    monkeypatch.setattr("cellseg.counting.stages.find_tissue", lambda *_: left)
    event, _ = counted(request_for(slide[0], prefilter=True, output=tmp_path))
    with Image.open(event.folder / "overview.png") as image:
        shown = np.asarray(image.crop(parts_of(image)[0]))
    columns = np.flatnonzero((shown == (0, 150, 90)).all(axis=2).any(axis=0)) / shown.shape[1]
    assert columns.max() == pytest.approx(0.5, abs=0.02)
    assert columns.min() < 0.01


def test_a_tile_that_rotted_in_a_good_slide_costs_that_tile_alone(tmp_path):
    """One of the finest level, and one of the overview."""
    path = tmp_path / "bad.tif"
    drawn = write_disc_slide(path, np.random.default_rng(7), shape=(1024, 1024))
    spoil(path, 27)
    spoil(path, 0, page=lambda tif: tif.series[0].levels[-1].keyframe)
    result, _ = counted(request_for(path, prefilter=True))
    assert 1 <= result.tiles_failed <= 4
    assert 0.9 * drawn.count <= result.summary.cells < drawn.count
    assert (result.folder / "overview.png").is_file()
    with pytest.raises(RegionError, match="does not decode"):
        counted(request_for(path, output=tmp_path / "strict", strict=True))


def test_a_damaged_block_costs_its_own_region_and_not_the_networks_tile(tmp_path):
    """One tile of the network, four by four of the file, one of which has 400 bytes of zeros."""
    path = tmp_path / "bad.tif"
    layout = PyramidLayout(mpp=0.5, tile_px=128, levels=1, compression="jpeg")
    drawn = write_disc_slide(path, np.random.default_rng(7), shape=(512, 512), layout=layout)
    request = request_for(path, output=tmp_path, protocol=DISCS.changed(tile_px=512))
    whole, _ = counted(replace(request, output=tmp_path / "whole"))
    assert whole.summary.cells == drawn.count
    spoil(path, 6, lambda data: data[: len(data) // 2] + bytes(min(400, len(data) // 2 - 8)))
    result, _ = counted(request)
    assert result.tiles_failed == 1
    record = json.loads((result.folder / "run.json").read_text())
    assert record["complete"] is False
    (lost,) = record["tiles"]["failed"]
    y0, x0, y1, x1 = lost["box"]
    assert y0 <= 128 < 256 <= y1 < 400
    assert x0 <= 256 < 384 <= x1
    assert (y1 - y0) * (x1 - x0) < 512 * 512 / 3
    names = ["centroid_y_px", "centroid_x_px", "area_px"]
    before, now = (load_result(r.folder).table.load()[names] for r in (whole, result))
    outside = (before.centroid_y_px - 192).abs().gt(90) | (before.centroid_x_px - 320).abs().gt(90)
    there = {tuple(row) for row in now.itertuples(index=False)}
    assert {tuple(row) for row in before[outside].itertuples(index=False)} <= there
    assert len(now) < len(before)
    assert "whole or in part" in " ".join(result.warnings)


def test_a_tile_that_failed_before_the_interruption_is_read_again(slide, tmp_path):
    path, truth = Path(shutil.copy2(slide[0], tmp_path)), slide[1]
    spoil(path, 18)
    shutil.copystat(slide[0], path)
    with pytest.raises(KeyboardInterrupt):
        counted(request_for(path), Interrupted(after=40))
    shutil.copy2(slide[0], path)
    result, events = counted(request_for(path))
    assert any("going on" in text for text in told(events))
    assert result.tiles_failed == 0
    assert result.summary.cells == truth.count


def test_an_unknown_export_is_refused_before_the_run(slide):
    path, _ = slide
    with pytest.raises(SettingsError, match="export"):
        next(run(request_for(path, export=("labels.png",)), detector=ThresholdDetector()))


def test_many_outlines_beyond_the_size_limits_are_told(slide, whole, tmp_path):
    path, truth = slide
    limited = DISCS.changed(max_area_um2=float(np.median(truth.areas)) * 0.25)
    result, _ = counted(request_for(path, output=tmp_path, protocol=limited))
    left_out = truth.count - result.summary.cells
    (said,) = [text for text in result.warnings if "left out" in text]
    assert f"{left_out} outlines beside {result.summary.cells} cells" in said
    assert not any("left out" in text for text in whole[0].warnings)


@pytest.mark.parametrize(
    ("protocol", "mpp", "expected"),
    [("he", None, [25, 900, 14400]), ("he", 0.25, [900]), (load_protocol("he"), None, [900])],
)
def test_without_a_pixel_size_a_shipped_protocol_allows_half_and_twice_the_width(
    tmp_path, protocol, mpp, expected
):
    image = np.full((256, 256, 3), 240, dtype=np.uint8)
    for place, side in ((20, 5), (60, 30), (120, 120), (4, 3)):
        image[place : place + side, place : place + side] = (90, 60, 140)
    tifffile.imwrite(tmp_path / "squares.tif", image, photometric="rgb")
    result, _ = counted(request_for(tmp_path / "squares.tif", protocol=protocol, mpp=mpp))
    assert sorted(table_of(result)["area_px"]) == expected


@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        (700, 500, 1), (1040, 1040, 1), (1280, 900, 1), (1281, 900, 1), (1281, 1400, 2),
        (1040, 1388, 1), (2300, 1040, 2), (100_000, 80_000, None),
    ],
)  # fmt: skip
def test_tiles_fit_the_slide_without_slivers(height, width, tiles):
    usual = fit_grid(height, width, tile=1024, halo=128)
    fitted = fit_grid(height, width, tile=1024, halo=128, exact=False)
    assert usual.core == tuple(min(1024, -(-side // 32) * 32) for side in (height, width))
    assert tiles is None or len(fitted) == tiles
    seen = [sum(one.padded.area for one in grid) for grid in (fitted, usual)]
    assert seen[0] <= seen[1]
    assert max(one.padded.area for one in fitted) <= (1024 + 2 * 128) ** 2, (
        "memory is planned for padded tiles like that"
    )
