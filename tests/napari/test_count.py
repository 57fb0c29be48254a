"""Counting from napari, without a window: the request, the preview and the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

pytest.importorskip("napari", reason='napari is not installed: pip install ".[napari]"')
pytest.importorskip("cellseg_napari", reason="the plugin is not installed")

from cellseg_napari import read_slide
from cellseg_napari._count import Form, request_of
from cellseg_napari._opened import results_in
from cellseg_napari._pipeline import Counting
from cellseg_napari._preview import Preview
from cellseg_napari._reader import read_result
from cellseg_napari._samples import fluorescence, ihc
from finished import table_of
from napari.components import ViewerModel
from napari.layers import Image, Layer, Shapes
from synthetic import write_disc_slide

from cellseg.annotations.region import Region, Regions
from cellseg.errors import SettingsError
from cellseg.network.threshold import ThresholdDetector
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.run import CountResult, Started, TileDone
from cellseg.slide import open_slide

PROTOCOL = load_protocol("he").changed(mpp=0.5, min_area_um2=0.0, tile_px=128, largest_cell_um=20.0)


@pytest.fixture
def viewer() -> Iterator[ViewerModel]:
    model = ViewerModel()
    yield model
    model.layers.clear()


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    path = tmp_path / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))
    return path


def image_of(viewer: ViewerModel, path: Path) -> Image:
    for data in read_slide(path):
        viewer.add_layer(Layer.create(*data))
    layer = viewer.layers[-1]
    assert isinstance(layer, Image)
    return layer


def counting(form: Form) -> Counting:
    request = replace(request_of(form), protocol=PROTOCOL, prefilter=False)
    return Counting(request, detector=ThresholdDetector())


def test_masks_appear_tile_by_tile_and_the_result_takes_their_place(
    viewer: ViewerModel, discs: Path
) -> None:
    layer = image_of(viewer, discs)
    run, preview = counting(Form(layer=layer)), Preview(viewer)
    seen = []
    for event in run.events():
        preview.show(event)
        if isinstance(event, TileDone):
            assert preview.layer is not None
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


def test_stopped_it_goes_on_from_the_journal(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    run, preview = counting(Form(layer=layer)), Preview(viewer)
    for event in run.events():
        preview.show(event)
        if isinstance(event, TileDone) and event.done == 20:
            run.stop()
    preview.end()
    assert [one.name for one in viewer.layers] == ["discs"]
    again = counting(Form(layer=layer))
    events = list(again.events())
    assert "going on" in str(events)
    fresh = [event for event in events if isinstance(event, TileDone)]
    assert len(fresh) == 48
    assert isinstance(events[-1], CountResult)


def test_only_drawn_shapes_are_counted(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    shapes = Shapes(scale=(2.0, 2.0))
    # World: 40 … 140 µm down, 50 … 200 µm across.
    shapes.add(np.array([[20, 25], [70, 100]]), shape_type="rectangle")
    shapes.add(np.array([[0, 0], [5, 5]]), shape_type="line")
    form = Form(layer=layer, where="drawn shapes", shapes=shapes)
    (result,) = [e for e in counting(form).events() if isinstance(e, CountResult)]
    assert result.folder.name == "discs.cellseg"
    assert set(table_of(result)["region"]) == {"region 1"}
    table = table_of(result)
    assert len(table) > 10
    assert table["centroid_y_um"].between(39, 141).all()
    assert table["centroid_x_um"].between(49, 201).all()
    form = Form(layer=layer, overwrite=True)
    whole = [e for e in counting(form).events() if isinstance(e, CountResult)]
    every = table_of(whole[0])
    inside = every["centroid_y_um"].between(40.5, 139.5) & every["centroid_x_um"].between(
        50.5, 199.5
    )
    assert len(table) >= inside.sum()


def test_an_ellipse_is_a_polygon_inside_its_box(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    shapes = Shapes()
    shapes.add(np.array([[50, 60], [30, 20]]), shape_type="ellipse")
    regions = request_of(Form(layer=layer, where="drawn shapes", shapes=shapes)).regions
    assert regions is not None
    (region,) = regions
    # Half axes of 30 and 20 µm, 0.5 µm/px.
    assert region.area_px == pytest.approx(np.pi * 60 * 40, rel=0.01)
    assert region.shape.bounds == pytest.approx((80, 40, 160, 160), abs=1)


def test_drawn_regions_have_names(viewer: ViewerModel, discs: Path) -> None:
    """Of a column of the features, else of the layer, if a person named it."""
    corners = [np.array([[n, n], [n + 10, n + 20]]) for n in (10, 40, 70)]
    shapes = Shapes(
        corners,
        name="Shapes [1]",
        shape_type="rectangle",
        features={"name": ["front", " ", np.nan], "class": ["Tumor", "", np.nan]},
    )
    form = Form(layer=image_of(viewer, discs), where="drawn shapes", shapes=shapes)
    regions = request_of(form).regions
    assert regions is not None
    found = [(region.name, region.kind) for region in regions]
    assert found == [("front", "Tumor"), ("region 1", ""), ("region 2", "")]
    shapes.name = "stroma"
    regions = request_of(form).regions
    assert regions is not None
    assert [region.name for region in regions] == ["front", "stroma", "stroma (2)"]


def test_the_regions_of_a_result_are_shown_with_their_names(
    viewer: ViewerModel, discs: Path
) -> None:
    holed = shapely.box(40, 20, 240, 120) - shapely.box(100, 50, 140, 80)
    regions = Regions.of(
        [Region(shapely.MultiPolygon([holed]), "front", "Tumor"), Region.box(200, 300, 400, 500)]
    )
    request = request_of(Form(layer=image_of(viewer, discs)))
    request = replace(request, protocol=PROTOCOL, prefilter=False, regions=regions)
    run = Counting(request, detector=ThresholdDetector())
    (done,) = [e for e in run.events() if isinstance(e, CountResult)]
    layers = [Layer.create(*data) for data in read_result(done.folder)]
    (layer,) = [layer for layer in layers if layer.name == "discs regions"]
    assert isinstance(layer, Shapes)
    assert layer.features["name"].tolist() == ["front", "front", "region 1"]
    assert layer.features["class"].tolist() == ["Tumor", "Tumor", ""]
    assert layer.text.values.tolist() == ["front", "", "region 1"]
    world = [layer.data_to_world(point) for point in layer.data[0]]
    expected = np.array([20, 40, 120, 240]) * 0.5 - 0.25
    assert [*np.min(world, axis=0), *np.max(world, axis=0)] == pytest.approx(expected)
    (done.folder / "regions.geojson").write_text("{")
    assert "discs regions" not in [data[1]["name"] for data in read_result(done.folder)]


def test_a_finished_count_shows_the_regions_it_was_made_in(
    viewer: ViewerModel, discs: Path
) -> None:
    layer = image_of(viewer, discs)

    def regions_after(*names: str, overwrite: bool = True) -> list[str]:
        boxes = [
            Region.box(50.3 * n, 300.1, 50.3 * n + 40, 500.7, name=name)
            for n, name in enumerate(names)
        ]
        form = Form(layer=layer, overwrite=overwrite)
        request = replace(
            request_of(form),
            protocol=PROTOCOL,
            prefilter=False,
            regions=Regions.of(boxes) if boxes else None,
        )
        preview = Preview(viewer)
        for event in Counting(request, detector=ThresholdDetector()).events():
            preview.show(event)
        shown = [one for one in viewer.layers if isinstance(one, Shapes)]
        return [name for one in shown for name in one.features["name"]]

    assert regions_after("front") == ["front"]
    drawn = viewer.layers["discs regions"]
    assert regions_after("front", overwrite=False) == ["front"]
    assert viewer.layers["discs regions"] is drawn, "what is the same stays"
    assert regions_after("front", "back") == ["front", "back"]
    assert regions_after() == []


def test_the_current_view_is_what_is_in_sight(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    layer.corner_pixels = np.array([[100, 200], [300, 500]])
    layer._data_level = 0
    regions = request_of(Form(layer=layer, where="the current view")).regions
    assert regions is not None
    assert regions.union.bounds == pytest.approx((200, 100, 501, 301))
    layer.corner_pixels = np.array([[5000, 5000], [6000, 6000]])
    with pytest.raises(SettingsError, match="out of sight"):
        request_of(Form(layer=layer, where="the current view"))


def test_a_layer_without_a_file_is_written_first(viewer: ViewerModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    layer = Image(pixels, name="my cells/1", rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    with pytest.raises(SettingsError, match="choose a folder"):
        request_of(Form(layer=layer))
    request = request_of(Form(layer=layer, output=tmp_path))
    assert request.image == tmp_path / "my_cells_1.layer.tif"
    with open_slide(request.image) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        assert slide.is_rgb
    layer.scale, layer.units = (500.0, 500.0), ("nm", "nm")
    with open_slide(request_of(Form(layer=layer, output=tmp_path)).image) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
    layer.units = ("pixel", "pixel")
    with open_slide(request_of(Form(layer=layer, output=tmp_path)).image) as slide:
        assert slide.mpp is None
    assert request_of(Form(layer=layer, output=tmp_path)).image == request.image
    (tmp_path / "mine.layer.tif").write_bytes(b"somebody's own")
    layer.name = "mine"
    with pytest.raises(SettingsError, match="is there already"):
        request_of(Form(layer=layer, output=tmp_path))
    stack = Image(np.zeros((3, 8, 8)), name="stack")
    with pytest.raises(SettingsError, match="expected one plane"):
        request_of(Form(layer=stack, output=tmp_path))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(SettingsError, match="choose an image"):
        request_of(Form())
    with pytest.raises(SettingsError, match="as a layer"):
        request_of(Form(file=Path("a.tif"), where="the current view"))


def test_a_region_of_one_slide_is_not_counted_on_another(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    with pytest.raises(SettingsError, match="as a layer"):
        request_of(Form(file=Path("other.tif"), layer=layer, where="the current view"))


def test_a_typed_pixel_size_places_the_slide_too(viewer: ViewerModel, tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "plain.tif"
    pixels = np.full((256, 300, 3), 240, np.uint8)
    pixels[40:60, 50:70] = 80
    tifffile.imwrite(path, pixels, photometric="rgb")
    layer = image_of(viewer, path)
    assert tuple(layer.scale) == (1.0, 1.0)
    preview = Preview(viewer)
    for event in counting(Form(layer=layer, mpp=0.5)).events():
        preview.show(event)
    ((cells, opened),) = results_in(viewer)
    assert tuple(layer.scale) == tuple(cells.scale) == (0.5, 0.5)
    assert layer.units == cells.units
    assert opened.place_of(1)[0] == pytest.approx((49.5 * 0.5, 59.5 * 0.5))


def test_settings_reach_the_pipeline(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    request = request_of(Form(layer=layer, protocol="ihc", mpp=0.3, diameter_px=12.0, device="cpu"))
    assert (request.protocol, request.mpp, request.diameter_px) == ("ihc", 0.3, 12.0)
    assert request_of(Form(layer=layer)).protocol is None
    assert request_of(Form(file=discs, layer=layer)).image == discs


def test_a_channel_layer_is_counted_as_that_channel(viewer: ViewerModel, tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "two.ome.tif"
    pixels = np.random.default_rng(1).integers(100, 300, (2, 90, 80)).astype(np.uint16)
    names = {"axes": "CYX", "Channel": {"Name": ["CD3", "DAPI"]}}
    tifffile.imwrite(path, pixels, ome=True, metadata=names)
    layer = image_of(viewer, path)
    assert layer.name == "two DAPI"
    assert request_of(Form(layer=layer)).channel == "1"


def test_every_setting_of_the_form_reaches_the_request(viewer: ViewerModel, discs: Path) -> None:
    form = Form(
        layer=image_of(viewer, discs), model="mine.safetensors", score=0.4, z="max",
        min_area=20.0, max_area=300.0, tissue_only=False,
    )  # fmt: skip
    request = request_of(form)
    assert (request.model, request.score, request.z) == ("mine.safetensors", 0.4, "max")
    assert (request.min_area, request.max_area, request.prefilter) == (20.0, 300.0, False)
    plain = request_of(Form(layer=image_of(viewer, discs)))
    assert (plain.model, plain.score, plain.z, plain.min_area) == ("default", None, None, None)


def test_a_counted_layer_is_not_opened_twice(viewer: ViewerModel, tmp_path: Path) -> None:
    """Whoever opened it: here napari's own reader, or a script that holds the pixels."""
    import tifffile

    path = tmp_path / "plain.tif"
    pixels = np.full((256, 300, 3), 240, np.uint8)
    pixels[40:60, 50:70] = 80
    tifffile.imwrite(path, pixels, photometric="rgb")
    layer = Image(pixels, rgb=True, name="by a script")
    viewer.add_layer(layer)
    for _ in range(2):
        preview = Preview(viewer, layer)
        for event in counting(Form(layer=layer, mpp=0.5, output=tmp_path)).events():
            preview.show(event)
        assert [type(one).__name__ for one in viewer.layers] == ["Image", "Labels"]
        cells = viewer.layers[1]
        assert tuple(layer.scale) == tuple(cells.scale) == (0.5, 0.5)
        assert layer.units == cells.units
        assert cells.contour == 1, "masks open as outlines"


def test_a_layer_that_lies_elsewhere_is_left_there(viewer: ViewerModel, tmp_path: Path) -> None:
    pixels = np.full((256, 300, 3), 240, np.uint8)
    pixels[40:60, 50:70] = 80
    layer = Image(pixels, rgb=True, name="mosaic", translate=(900.0, 0.0))
    viewer.add_layer(layer)
    preview = Preview(viewer, layer)
    for event in counting(Form(layer=layer, mpp=0.5, output=tmp_path)).events():
        preview.show(event)
    assert tuple(layer.translate) == (900.0, 0.0)
    assert [one.name for one in viewer.layers][1] == "mosaic.layer", "the cells lie on a slide"


def test_an_already_counted_slide_opens_its_result(viewer: ViewerModel, discs: Path) -> None:
    layer = image_of(viewer, discs)
    for _ in range(2):
        preview = Preview(viewer)
        events = []
        for event in counting(Form(layer=layer)).events():
            preview.show(event)
            events.append(event)
    assert not any(isinstance(event, Started) for event in events)
    assert len(list(results_in(viewer))) == 1, "the old layer makes room for the new one"


def test_samples_open(viewer: ViewerModel) -> None:
    (stained,) = ihc()
    assert stained[0][0].shape == (512, 512, 3)
    (nuclei,) = fluorescence()
    assert nuclei[0][0].shape == (1024, 1024)
    assert nuclei[1]["units"] == ("um", "um")
