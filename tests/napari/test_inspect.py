"""Inspecting and correcting, without a window."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from cellseg_napari import read_result
from cellseg_napari._correct_box import NAME, Painter
from cellseg_napari._inspect import BY_CLASS, BY_LABEL, ONE_COLOUR, SELECTION, Inspector
from cellseg_napari._opened import camera_of, refresh, results_in, write_labels
from cellseg_napari._reader import KEPT
from finished import copied, counted_folder
from napari.layers import Layer, Shapes
from synthetic import write_disc_slide

from cellseg.errors import InputError, SettingsError
from cellseg.palette import colours as colours_of
from cellseg.protocol import load_protocol
from cellseg.run import change, save

PROTOCOL = load_protocol("he").changed(mpp=1.0, min_area_um2=0.0, tile_px=256, largest_cell_um=40.0)
"""The slide has 0.5 µm/px: a lattice pixel is two of its pixels, 1 µm, wide."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))
    return counted_folder(path, PROTOCOL)


@pytest.fixture
def folder(tmp_path, counted):
    return copied(counted, tmp_path)


@pytest.fixture
def inspector(viewer, folder):
    for data in read_result(folder):
        viewer.add_layer(Layer.create(*data))
    ((layer, opened),) = results_in(viewer)
    found = Inspector(viewer, layer, opened)
    opened.corrections.on_change(lambda edit: refresh(viewer, opened, edit))
    opened.corrections.on_change(lambda edit: found.edited())
    return found


def centre(inspector, label):
    return inspector.opened.place_of(label)[0]


CORNERS = np.array([[50, 50], [150, 250]])


def rectangles(*corners, **options):
    return Shapes(list(corners), shape_type="rectangle", **options)


def shown(inspector, name):
    """A layer of colours, its pixels, and whose pixels they are."""
    colours = inspector.viewer.layers[name]
    return colours, np.asarray(colours.data[0]), np.asarray(inspector.opened.result.labels()[0])


def test_a_click_selects_the_cell_under_it(inspector):
    table = inspector.opened.rows.take(range(20))
    for row in table.itertuples():
        world = (row.centroid_y_um, row.centroid_x_um)
        assert inspector.click(world) == row.label
        assert inspector.selected == (row.label,)
        assert inspector.layer.selected_label == row.label
    inspector.click(centre(inspector, 3), more=True)
    assert inspector.selected == (20, 3)
    inspector.click(centre(inspector, 20), more=True)
    assert inspector.selected == (3,)
    assert inspector.click((-50.0, -50.0)) == 0
    assert inspector.selected == ()


def test_selected_cells_wear_a_box(inspector):
    inspector.select([5, 6])
    marks = inspector.viewer.layers[SELECTION]
    assert len(marks.data) == 2
    row = inspector.opened.cells.row(5)
    assert marks.data[0] == pytest.approx([row["centroid_y_um"], row["centroid_x_um"]])
    box = (row["bbox_y1_px"] - row["bbox_y0_px"]) * 0.5
    assert box < marks.size[0] < 1.6 * box
    inspector.fly_to(9)
    assert camera_of(inspector.viewer).center[-2:] == pytest.approx(centre(inspector, 9))
    for zoom in (2.0, 40.0):
        camera_of(inspector.viewer).zoom = zoom
        assert marks.border_width * zoom == pytest.approx(1.5), "thin, however near one looks"
    inspector.select([])
    assert len(inspector.viewer.layers[SELECTION].data) == 0
    inspector.close()
    assert SELECTION not in inspector.viewer.layers


def test_masks_are_of_one_colour_until_each_has_its_own(inspector):
    layer, labels = inspector.layer, np.array([1, 2, 3])
    one = np.array([*colours_of(["nucleus"], "he")[0], 255]) / 255
    np.testing.assert_allclose(layer.colormap.map(labels), [one] * 3, atol=0.01)
    inspector.colour_by(BY_LABEL)
    assert len(np.unique(layer.colormap.map(labels), axis=0)) == 3
    inspector.colour_by(ONE_COLOUR)
    np.testing.assert_allclose(layer.colormap.map(labels), [one] * 3, atol=0.01)


def test_colours_follow_the_measurement(inspector):
    inspector.colour_by("area_um2")
    assert not inspector.layer.visible
    colours, values, labels = shown(inspector, "discs: area (µm²)")
    assert np.isnan(values[labels == 0]).all()
    for label in (1, 17, 60):
        area = inspector.opened.cells.row(label)["area_um2"]
        assert np.unique(values[labels == label]) == pytest.approx(area, rel=1e-5)
    low, high = colours.contrast_limits
    areas = inspector.opened.column("area_um2")
    assert areas.min() <= low < high <= areas.max()
    inspector.colour_by(BY_LABEL)
    assert inspector.layer.visible
    assert "discs: area (µm²)" not in inspector.viewer.layers


def test_colours_follow_the_class(inspector):
    inspector.opened.corrections.classify([3, 4], "mitosis")
    inspector.colour_by(BY_CLASS)
    colours, values, labels = shown(inspector, "discs: class")
    assert set(values[labels == 3]) == {1.0}
    assert set(values[labels == 7]) == {0.0}
    palette = np.array(colours_of(["nucleus", "mitosis"], "he")) / 255
    assert np.allclose(colours.colormap.map(np.array([0.25, 0.75]))[:, :3], palette, atol=0.01)
    inspector.opened.corrections.undo()
    assert set(shown(inspector, "discs: class")[1][labels == 3]) == {0.0}


def test_colours_are_outlines_or_filled(inspector):
    inspector.show_outlines(True)
    inspector.colour_by("area_um2")
    colours, values, labels = shown(inspector, "discs: area (µm²)")
    outlined = np.isfinite(values)
    assert not outlined[labels == 0].any()
    assert 0.2 < outlined[labels > 0].mean() < 0.8, "their borders, not their middles"
    middle = tuple(np.rint(inspector.opened.to_lattice(np.array(centre(inspector, 9)))).astype(int))
    assert not outlined[middle]
    inspector.show_outlines(False)
    assert np.isfinite(np.asarray(colours.data[0]))[labels > 0].all()
    assert inspector.layer.contour == 0


def test_totals_tell_the_density_of_the_tissue(inspector):
    assert inspector.totals()[0].density_per_mm2 is None, "nobody looked for tissue"
    inspector.opened.result.run["summary"] |= {"tissue_mm2": 0.1}
    totals, ground = inspector.totals()
    assert totals.density_per_mm2 == pytest.approx(totals.cells / 0.1)
    assert totals.said(ground).startswith(f"{totals.cells} nuclei, median area ")
    assert f"{totals.cells * 10:,} per mm² in 0.1 mm² of tissue" in totals.said(ground)


def test_the_filter_hides_cells_and_counts_the_rest(inspector):
    areas = inspector.opened.column("area_um2")
    middle = float(np.median(areas))
    inspector.show_range("area_um2", middle, np.inf)
    labels = np.asarray(inspector.layer.data[0])
    left = np.flatnonzero(areas >= middle) + 1
    assert np.array_equal(np.unique(labels[labels > 0]), left)
    coarse = np.asarray(inspector.layer.data[1])
    assert set(np.unique(coarse[coarse > 0])) <= set(left.tolist())
    totals, _ = inspector.totals()
    assert totals.cells == len(left)
    assert totals.area_um2.median == pytest.approx(np.median(areas[areas >= middle]))
    hidden = int(np.flatnonzero(areas < middle)[0]) + 1
    assert inspector.click(centre(inspector, hidden)) == 0, "what is hidden cannot be picked"
    inspector.show_range(None)
    assert inspector.totals()[0].cells == len(areas)


def test_totals_in_shapes(inspector):
    shapes = rectangles(CORNERS)
    totals, ground = inspector.totals(shapes)
    y, x = inspector.opened.column("centroid_y_um"), inspector.opened.column("centroid_x_um")
    inside = (y > 50) & (y < 150) & (x > 50) & (x < 250)
    assert totals.cells == inside.sum() > 10
    assert totals.density_per_mm2 == pytest.approx(inside.sum() / 0.02, rel=1e-3)
    assert "per mm² in 0.02 mm² of these shapes" in totals.said(ground)
    assert inspector.totals(rectangles(CORNERS, CORNERS))[0].density_per_mm2 == pytest.approx(
        totals.density_per_mm2
    )
    assert inspector.totals(rectangles(CORNERS, CORNERS + 160))[0].cells > totals.cells
    empty, _ = inspector.totals(rectangles(CORNERS + 9000))
    assert (empty.cells, empty.area_um2) == (0, None)


def test_shapes_are_kept_as_regions_and_come_back(inspector, folder, viewer):
    shapes = rectangles(CORNERS, CORNERS + 100, name="front")
    shapes.features = pd.DataFrame({"name": ["tumour", ""]})
    told = inspector.keep(shapes)
    inside = inspector.totals(rectangles(CORNERS))[0].cells
    assert told[0].startswith(f"in region tumour: {inside} nuclei, ")
    assert told[1].startswith("in region front: ")
    other = rectangles(CORNERS + 50, name="tumour")
    assert len(inspector.keep(other)) == 2  # of one name the new one stays
    with pytest.raises(SettingsError, match="outside"):
        inspector.keep(rectangles(CORNERS + 9000, name="far"))
    with pytest.raises(SettingsError, match="at least one"):
        inspector.keep(Shapes(name="none", metadata=dict(other.metadata)))
    layers = [Layer.create(*data) for data in read_result(folder)]
    (kept,) = [layer for layer in layers if KEPT in layer.metadata]
    assert sorted(kept.features["name"]) == ["front", "tumour"]
    kept.selected_data = {0}
    kept.remove_selected()
    assert len(inspector.keep(kept)) == 1


def test_edits_are_seen_in_masks_features_and_totals(inspector):
    inspector.show_range("area_um2", 0, np.inf)
    corrections = inspector.opened.corrections
    count = inspector.totals()[0].cells
    inspector.select([2, 3])
    corrections.delete([2])
    assert inspector.selected == (3,)
    assert 2 not in np.asarray(inspector.layer.data[0])
    assert 2 not in inspector.layer.features["index"].to_numpy()
    corrections.split(3)
    assert inspector.totals()[0].cells == count
    new = len(inspector.opened.rows) + 1
    assert new in inspector.layer.features["index"].to_numpy()
    assert inspector.click(centre(inspector, new)) == new
    corrections.undo()
    corrections.undo()
    assert inspector.totals()[0].cells == count
    labels = np.asarray(inspector.opened.result.labels()[0])
    assert np.array_equal(np.asarray(inspector.layer.data[0]), labels)


def test_painting_around_a_spot(inspector, viewer):
    painter = Painter(viewer, inspector.opened)
    layer = painter.begin(centre(inspector, 30))
    assert layer.name == NAME
    assert layer.data.shape[0] <= 256
    assert layer.mode == "paint"
    # The window lies where its cells lie.
    where = layer.world_to_data(centre(inspector, 30))
    assert layer.data[tuple(np.rint(where).astype(int))] == 30
    fresh = layer.selected_label
    assert fresh > len(inspector.opened.rows)
    free = np.argwhere(layer.data == 0)
    y, x = free[len(free) // 2]
    layer.data[y : y + 3, x : x + 3][layer.data[y : y + 3, x : x + 3] == 0] = fresh
    layer.data[layer.data == 30] = 0
    edit = painter.apply("drawn")
    assert edit.kind == "redraw"
    assert NAME not in viewer.layers
    corrections = inspector.opened.corrections
    assert 30 not in corrections
    assert corrections.row(fresh)["class"] == "drawn"
    painter.begin(centre(inspector, 31), label=31)
    assert viewer.layers[NAME].selected_label == 31
    assert painter.apply() is None


def test_saved_from_naparis_dialog(inspector, tmp_path):
    corrections = inspector.opened.corrections
    corrections.delete([1])
    corrections.split(5)
    corrections.classify([2], "=1+1")
    data, meta, _ = inspector.layer.as_layer_data_tuple()
    csv = tmp_path / "out.csv"
    assert write_labels(str(csv), data, meta) == [str(csv)]
    table = pd.read_csv(csv)
    assert len(table) == len(corrections)
    assert sorted(table["label"]) == corrections.labels().tolist()
    assert set(table["class"]) == {"nucleus", "'=1+1"}
    tif = tmp_path / "out.tif"
    assert write_labels(str(tif), data, meta) == [str(tif)]
    masks = tifffile.imread(tif)
    assert masks.shape == (700, 900)
    assert np.array_equal(masks[::2, ::2], np.asarray(inspector.layer.data[0]))


def test_a_corrected_table_is_written_as_cells_csv_is(viewer, folder, tmp_path):
    change(folder, spatial=True)
    for data in read_result(folder):
        viewer.add_layer(Layer.create(*data))
    ((layer, opened),) = results_in(viewer)
    opened.corrections.split(5)
    data, meta, _ = layer.as_layer_data_tuple()
    written = tmp_path / "out.csv"
    assert write_labels(str(written), data, meta) == [str(written)]
    before = (folder / "cells.csv").read_text(encoding="utf-8").splitlines()
    now = written.read_text(encoding="utf-8").splitlines()
    # A new cell's neighbours are not known: the other rows stay as they are, whole numbers too.
    assert [row for row in now if row in before] == [row for row in before if row[:2] != "5,"]
    assert len(now) == len(before) + 1


def test_a_layer_that_is_not_ours_is_refused(tmp_path, told):
    from napari.layers import Labels

    data, meta, _ = Labels(np.zeros((4, 4), int)).as_layer_data_tuple()
    assert write_labels(str(tmp_path / "out.csv"), data, meta) == []
    assert "no result of cellseg" in told[0]


def test_a_corrected_result_opens_and_says_where_to_go_on(inspector, viewer, told):
    corrections = inspector.opened.corrections
    corrections.delete([1])
    *_, (levels, look, _) = read_result(inspector.opened.result.path)
    assert 1 not in np.asarray(levels[0]), "read again, its corrections are back"
    assert look["metadata"]["cellseg"].corrections.edits[0].labels == (1,)
    saved = save(corrections)
    *_, (levels, look, _) = read_result(saved.path)
    opened = look["metadata"]["cellseg"]
    assert "automatic result" in str(opened.note)
    with pytest.raises(InputError, match="automatic result"):
        _ = opened.corrections
    assert len(np.unique(np.asarray(levels[0]))) == len(corrections) + 1
    assert opened.cells.row(1)["label"] == 1
    assert told == []


def test_a_damaged_log_does_not_hide_the_result(folder, told):
    (folder / "corrections.json").write_text("nonsense")
    *_, (_, look, kind) = read_result(folder)
    assert kind == "labels"
    assert "corrections.json" in str(look["metadata"]["cellseg"].note)
    assert "corrections.json" in told[0]
    assert (folder / "corrections.json").read_text() == "nonsense"
