"""Counting from napari, without a window: the request, the preview and the result."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from cellseg_napari import read_slide
from cellseg_napari._count import Preview, count, how_to_keep, request_of, scratch
from cellseg_napari._opened import camera_of, results_in
from cellseg_napari._reader import read_result
from finished import table_of
from napari.layers import Image, Layer, Shapes
from synthetic.threshold import ThresholdDetector
from window import PROTOCOL

from cellseg.annotations.region import Region, Regions
from cellseg.errors import SettingsError
from cellseg.result import load_result
from cellseg.run import Started, TileDone
from cellseg.slide import open_slide
from cellseg.train.windows import teach_windows


def image_of(viewer, path):
    for data in read_slide(path):
        viewer.add_layer(Layer.create(*data))
    return viewer.layers[-1]


@pytest.fixture
def layer(viewer, discs):
    """The slide of discs, open."""
    return image_of(viewer, discs)


@pytest.fixture
def pixels():
    """One dark square."""
    pixels = np.full((256, 300, 3), 240, np.uint8)
    pixels[40:60, 50:70] = 80
    return pixels


def counting(form, **changes):
    request = replace(request_of(**form), protocol=PROTOCOL, prefilter=False, **changes)
    return count(request, ThresholdDetector())


def result_of(form, **changes):
    *_, result = counting(form, **changes)
    return result


def shown(preview, form, **changes):
    """The events of a count that was shown."""
    events = []
    for event in counting(form, **changes):
        preview.show(event)
        events.append(event)
    return events


def layer_named(found, name):
    """A layer of what the reader made of a result."""
    (data,) = [data for data in found if data[1]["name"] == name]
    return Layer.create(*data)


def test_masks_appear_tile_by_tile_and_the_result_takes_their_place(viewer, layer, discs):
    preview = Preview(viewer)
    seen = []
    for event in counting({"layer": layer}):
        preview.show(event)
        if isinstance(event, TileDone):
            labels = np.asarray(preview.layer.data[0])
            seen.append(len(np.unique(labels)) - 1)
            assert event.cells <= seen[-1], "settled cells were seen before"
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert [one.name for one in viewer.layers] == ["discs", "discs nucleus"], "the slide stays one"
    ((cells, opened),) = results_in(viewer)
    result = load_result(discs.with_suffix(".cellseg"))
    assert len(opened.rows) == len(result.table.load())
    assert np.array_equal(np.asarray(cells.data[0]), np.asarray(result.labels()[0]))
    np.testing.assert_allclose(cells.scale, layer.scale)
    # The preview had the same cells, but for those that seams cut.
    assert seen[-1] == pytest.approx(len(opened.rows), rel=0.02)


def test_only_drawn_shapes_are_counted(layer):
    shapes = Shapes(scale=(2.0, 2.0))
    # World: 40 … 140 µm down, 50 … 200 µm across.
    shapes.add(np.array([[20, 25], [70, 100]]), shape_type="rectangle")
    shapes.add(np.array([[0, 0], [5, 5]]), shape_type="line")
    result = result_of({"layer": layer, "where": "drawn shapes", "shapes": shapes})
    assert result.folder.name == "discs.cellseg"
    table = table_of(result)
    assert set(table["region"]) == {"region 1"}
    assert len(table) > 10
    assert table["centroid_y_um"].between(39, 141).all()
    assert table["centroid_x_um"].between(49, 201).all()
    every = table_of(result_of({"layer": layer, "overwrite": True}))
    y, x = every["centroid_y_um"], every["centroid_x_um"]
    assert len(table) >= (y.between(40.5, 139.5) & x.between(50.5, 199.5)).sum()


def test_an_ellipse_is_a_polygon_inside_its_box(layer):
    shapes = Shapes([np.array([[50, 60], [30, 20]])], shape_type="ellipse")
    (region,) = request_of(layer=layer, where="drawn shapes", shapes=shapes).regions
    # Half axes of 30 and 20 µm, 0.5 µm/px.
    assert region.area_px == pytest.approx(np.pi * 60 * 40, rel=0.01)
    assert region.shape.bounds == pytest.approx((80, 40, 160, 160), abs=1)


def test_drawn_regions_have_names(layer):
    """Of a column of the features, else of the layer, if a person named it."""
    corners = [np.array([[n, n], [n + 10, n + 20]]) for n in (10, 40, 70)]
    shapes = Shapes(
        corners,
        name="Shapes [1]",
        shape_type="rectangle",
        features={"name": ["front", " ", np.nan], "class": ["Tumor", "", np.nan]},
    )
    form = {"layer": layer, "where": "drawn shapes", "shapes": shapes}
    found = [(region.name, region.kind) for region in request_of(**form).regions]
    assert found == [("front", "Tumor"), ("region 1", ""), ("region 2", "")]
    shapes.name = "stroma"
    names = [region.name for region in request_of(**form).regions]
    assert names == ["front", "stroma", "stroma (2)"]


def test_the_regions_of_a_result_are_shown_with_their_names(layer):
    holed = shapely.box(40, 20, 240, 120) - shapely.box(100, 50, 140, 80)
    regions = Regions.of(
        [Region(shapely.MultiPolygon([holed]), "front", "Tumor"), Region.box(200, 300, 400, 500)]
    )
    done = result_of({"layer": layer}, regions=regions)
    found = read_result(done.folder)
    shapes = layer_named(found, "discs regions")
    assert shapes.features["name"].tolist() == ["front", "front", "region 1"]
    assert shapes.features["class"].tolist() == ["Tumor", "Tumor", ""]
    assert shapes.text.values.tolist() == ["front", "", "region 1"]
    world = [shapes.data_to_world(point) for point in shapes.data[0]]
    expected = np.array([20, 40, 120, 240]) * 0.5 - 0.25
    assert [*np.min(world, axis=0), *np.max(world, axis=0)] == pytest.approx(expected)
    (done.folder / "regions.geojson").write_text("{")
    assert "discs regions" not in [data[1]["name"] for data in read_result(done.folder)]


def test_windows_worth_correcting_are_shown(counted_discs):
    windows = teach_windows(counted_discs, 2)
    shapes = layer_named(read_result(counted_discs), "discs windows")
    assert shapes.features["name"].tolist() == [one.name for one in windows]
    low = shapes.data_to_world(np.min(shapes.data[0], axis=0))
    frame = load_result(counted_discs).frame
    corner = np.array([windows[0].box.y0, windows[0].box.x0]) * frame.downsample
    expected = (corner - 0.5) * (frame.mpp or 1.0)
    assert low == pytest.approx(expected)


def test_a_finished_count_shows_the_regions_it_was_made_in(viewer, layer):
    def regions_after(*names, overwrite=True):
        boxes = [
            Region.box(50.3 * n, 300.1, 50.3 * n + 40, 500.7, name=name)
            for n, name in enumerate(names)
        ]
        form = {"layer": layer, "overwrite": overwrite}
        shown(Preview(viewer), form, regions=Regions.of(boxes) if boxes else None)
        drawn = [one for one in viewer.layers if isinstance(one, Shapes)]
        return [name for one in drawn for name in one.features["name"]]

    assert regions_after("front") == ["front"]
    assert regions_after("front", overwrite=False) == ["front"]
    assert regions_after("front", "back") == ["front", "back"]
    assert regions_after() == []


def test_the_current_view_is_what_is_in_sight(viewer, layer):
    form = {"layer": layer, "where": "the current view", "viewer": viewer}
    pixel = layer.scale[0]
    camera = camera_of(viewer)
    camera.center, camera.zoom = (100 * pixel, 400 * pixel), 2 / pixel
    height, width = viewer.canvas.size
    (region,) = request_of(**form).regions
    # Of the slide, 900 px wide; y is cut at the middle of its first row.
    wanted = (400.5 - width / 4, 0.5, min(900, 400.5 + width / 4), 100.5 + height / 4)
    assert region.shape.bounds == pytest.approx(wanted)
    camera.center = (5000 * pixel, 5000 * pixel)
    with pytest.raises(SettingsError, match="out of sight"):
        request_of(**form)


def test_a_layer_without_a_file_is_written_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    layer = Image(pixels, name="my cells/1", rgb=True)
    form, images = {"layer": layer, "output": tmp_path}, set()
    for scale, unit, mpp in ((0.5, "um", 0.5), (500.0, "nm", 0.5), (5.0, "pixel", None)):
        layer.scale, layer.units = (scale,) * 2, (unit,) * 2
        image = request_of(**form).image
        assert image == request_of(**form).image, "the same pixels are the same slide"
        images.add(image.name)
        with open_slide(image) as slide:
            assert slide.mpp == (mpp and pytest.approx(mpp, rel=1e-3))
            assert slide.is_rgb
    assert len(images) == 2
    assert all(re.fullmatch(r"my_cells_1-[0-9a-f]{8}\.layer\.tif", name) for name in images)
    stack = Image(np.zeros((3, 8, 8)), name="stack")
    with pytest.raises(SettingsError, match="expected one plane"):
        request_of(layer=stack, output=tmp_path)


def test_without_a_folder_a_layer_is_counted_in_a_temporary_one(tmp_path, pixels):
    layer = Image(pixels, rgb=True, name="array")
    folder = result_of({"layer": layer, "diameter_px": 20.0}).folder
    assert folder.parent == scratch()
    assert str(scratch()) in how_to_keep(folder)
    assert "copy that folder" in how_to_keep(folder)
    assert how_to_keep(tmp_path / "array.layer.cellseg") == ""
    assert request_of(layer=layer).image.stem == folder.stem, "it goes on there"


def test_a_view_is_that_of_the_slide_itself(layer):
    for other in (None, layer):
        with pytest.raises(SettingsError, match="as a layer"):
            request_of(file=Path("a.tif"), layer=other, where="the current view")


def test_a_typed_pixel_size_places_the_slide_too(viewer, tmp_path, pixels):
    tifffile.imwrite(tmp_path / "plain.tif", pixels, photometric="rgb")
    layer = image_of(viewer, tmp_path / "plain.tif")
    assert tuple(layer.scale) == (1.0, 1.0)
    shown(Preview(viewer), {"layer": layer, "mpp": 0.5})
    ((cells, opened),) = results_in(viewer)
    assert tuple(layer.scale) == tuple(cells.scale) == (0.5, 0.5)
    assert layer.units == cells.units
    assert opened.place_of(1)[0] == pytest.approx((49.5 * 0.5, 59.5 * 0.5))


def test_every_setting_of_the_form_reaches_the_request(layer, discs):
    same = {
        "mpp": 0.3, "diameter_px": 12.0, "score": 0.4, "z": "max", "min_area": 20.0,
        "max_area": 300.0, "protocol": "ihc", "device": "cpu", "model": "mine.safetensors",
    }  # fmt: skip
    request = request_of(layer=layer, prefilter=False, **same)
    assert {name: getattr(request, name) for name in same} == same
    assert not request.prefilter
    untouched = request_of(layer=layer)
    assert untouched.model == "default"
    assert {getattr(untouched, name) for name in ("protocol", "score", "z", "min_area")} == {None}
    assert request_of(file=discs, layer=layer).image == discs


def test_a_counted_layer_is_not_opened_twice_and_an_old_result_makes_room(viewer, tmp_path, pixels):
    """Whoever opened it: here napari's own reader, or a script that holds the pixels."""
    layer = Image(pixels, rgb=True, name="by a script")
    viewer.add_layer(layer)
    for is_new in (True, False):
        form = {"layer": layer, "mpp": 0.5, "output": tmp_path}
        events = shown(Preview(viewer, layer), form)
        assert any(isinstance(event, Started) for event in events) is is_new
        assert [type(one).__name__ for one in viewer.layers] == ["Image", "Labels"]
        cells = viewer.layers[1]
        assert tuple(layer.scale) == tuple(cells.scale) == (0.5, 0.5)
        assert layer.units == cells.units
        assert cells.contour == 2, "masks open as outlines"


def test_a_layer_that_lies_elsewhere_is_left_there(viewer, tmp_path, pixels):
    layer = Image(pixels, rgb=True, name="mosaic", translate=(900.0, 0.0))
    viewer.add_layer(layer)
    shown(Preview(viewer, layer), {"layer": layer, "mpp": 0.5, "output": tmp_path})
    assert tuple(layer.translate) == (900.0, 0.0)
    slide = [one.name for one in viewer.layers][1]
    assert re.fullmatch(r"mosaic-\w{8}\.layer", slide), "the cells lie on a slide of their own"
