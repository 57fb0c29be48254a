"""The panel that shows and corrects cells, in a real window."""

import json

import numpy as np
import pytest
from cellseg_napari._opened import camera_of
from cellseg_napari._words import ACTIONS
from window import choose, click, counted, counter, dock, inspecting, press, pump

from cellseg.result import load_result

INSPECT = "Inspect and correct cells"


def test_masks_that_are_not_cellsegs_are_told_apart(window):
    window.add_labels(np.ones((20, 20), int), name="mine")
    panel = dock(window, INSPECT)
    assert "mine is no result of cellseg" in panel.nothing.text()
    assert panel.shown is None
    click(window, (5.0, 5.0))


def test_doubts_stand_above_the_cells(window, counted_discs):
    from qtpy.QtCore import Qt

    path = counted_discs / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**run, "doubts": ["<b>half</b> of it is out of focus"]}))
    shown = inspecting(window, counted_discs).shown
    assert shown.doubts.isVisible()
    assert shown.doubts.text() == "! <b>half</b> of it is out of focus"
    assert shown.doubts.textFormat() == Qt.TextFormat.PlainText


def test_a_click_shows_the_row_and_a_row_flies_to_its_cell(window, shown):
    inspector, cells = shown.inspector, shown.table.cells
    click(window, inspector.opened.place_of(12)[0])
    (row,) = shown.table.selectionModel().selectedRows()
    assert cells.labels[row.row()] == 12
    click(window, inspector.opened.place_of(14)[0], "Shift")
    assert shown.correct.selected == [12, 14]
    shown.table.selectRow(cells.row_of(40))
    pump(seconds=0.2)
    assert inspector.selected == (40,)
    assert camera_of(window).center[-2:] == pytest.approx(inspector.opened.place_of(40)[0])
    texts = [cells.data(cells.index(39, column)) for column in range(cells.columnCount())]
    assert cells.columns[0] == "area_um2"
    assert dict(zip(cells.columns, texts, strict=True))["label"] == "40"


def test_several_rows_are_several_cells(window, shown):
    from qtpy.QtCore import QItemSelection, QItemSelectionModel

    model, selection = shown.table.cells, shown.table.selectionModel()
    rows = QItemSelection(model.index(3, 0), model.index(6, model.columnCount() - 1))
    selection.select(rows, QItemSelectionModel.SelectionFlag.ClearAndSelect)
    assert shown.correct.selected == [4, 5, 6, 7]
    assert len(window.layers["selected cells"].data) == 4


def test_sorting_filtering_and_colours(window, panel, shown):
    model, look = shown.table.cells, shown.look
    column = model.columns.index("area_um2")
    areas = shown.inspector.opened.column("area_um2")
    shown.table.sort(column)
    assert areas[model.labels[0] - 1] == areas.min()
    shown.table.sort(column)
    assert areas[model.labels[0] - 1] == areas.max()
    low, high = look.histogram.bounds
    assert (low, high) == pytest.approx((areas.min(), areas.max()))
    look.histogram.slider.setValue(((low + high) / 2, high))
    assert pump(lambda: shown.inspector.range is not None, 5)
    left = int((areas >= look.histogram.slider.value()[0]).sum())
    assert shown.totals.text().startswith(f"{left} nuclei")
    assert model.rowCount() == left
    choose(look.colour, "eccentricity")
    assert window.layers["discs: eccentricity"].colorbar.visible
    choose(look.colour, "class")
    assert "nucleus" in look.legend.text()
    assert not window.layers["discs: class"].colorbar.visible
    assert panel.width() <= 400, "the picture keeps its place"
    cells = window.layers["discs nucleus"]
    assert cells.contour == 2
    assert look.outlines.isChecked()
    look.outlines.click()
    assert cells.contour == 0


def test_totals_follow_the_shapes(window, shown):
    shapes = window.add_shapes([np.array([[50, 50], [150, 250]])], shape_type="rectangle")
    assert pump(lambda: "per mm²" in shown.totals.text(), 10)
    before = shown.totals.text()
    shapes.data = [np.array([[50, 50], [250, 300]])]
    assert pump(lambda: shown.totals.text() != before, 10)


def test_correcting_in_the_window(window, shown, told, tmp_path, picture):
    buttons, corrections = shown.correct.buttons, shown.correct.corrections
    inspector = shown.inspector
    count = len(corrections)
    buttons["Delete"].click()
    assert "no cell is selected" in told[-1]
    inspector.select([3])
    buttons["Delete"].click()
    assert shown.table.cells.row_of(3) is None
    inspector.select([8])
    shown.correct.classes.setCurrentText("mitosis")
    buttons["Set class"].click()
    assert corrections.row(8)["class"] == "mitosis"
    buttons["Measure again"].click()
    assert pump(lambda: "median area" in shown.correct.state.text(), 20)
    assert "1 mitosis" in shown.correct.state.text()
    buttons["Save"].click()
    assert pump(lambda: "saved in" in shown.correct.state.text(), 60)
    saved = load_result(corrections.result.path.with_name("discs.corrected.cellseg"))
    assert len(saved.table.load()) == len(corrections) == count - 1
    shown.correct.export(tmp_path / "data")
    assert (tmp_path / "data" / "annotations.json").is_file()
    assert "training data: " in told[-1]
    picture(window, "corrected")


def test_keys_do_what_their_tooltip_says(window, panel, shown):
    from qtpy.QtWidgets import QLabel

    said = next(one.toolTip() for one in panel.findChildren(QLabel) if one.text() == "keys")
    assert all(f"{key}: {what}" in said for key, what in ACTIONS.values() if key)
    assert "(Shift+D)" in shown.correct.buttons["Delete"].toolTip()
    inspector, corrections = shown.inspector, shown.correct.corrections
    press(window, "N")
    assert inspector.selected == (1,)
    press(window, "N")
    press(window, "N")
    press(window, "Shift+N")
    assert inspector.selected == (2,)
    press(window, "Shift+D")
    assert 2 not in corrections
    press(window, "Ctrl+Z")
    assert 2 in corrections
    press(window, "Ctrl+Shift+Z")
    assert 2 not in corrections
    inspector.select([5])
    press(window, "Shift+S")
    parts = corrections.edits[-1].labels
    assert len(parts) == 2
    inspector.select(list(parts))
    press(window, "Shift+M")
    assert corrections.edits[-1].kind == "merge"
    inspector.select([20])
    press(window, "Shift+B")
    paint = window.layers["paint here"]
    paint.data[paint.data == 20] = 0
    press(window, "Shift+B")
    assert 20 not in corrections


def test_masks_that_napari_itself_opens_are_outlines(window, counted_discs):
    window.open(counted_discs, plugin="cellseg-slides")
    assert window.layers["discs nucleus"].contour == 2


def test_order_and_shapes_stay_as_they_were_chosen(window, panel, shown):
    cells = shown.table.cells
    shown.table.sort(cells.columns.index("area_um2"))
    first, second = cells.labels[:2].tolist()
    shown.inspector.select([first])
    shown.correct.buttons["Delete"].click()
    assert cells.labels[0] == second
    window.add_shapes([np.array([[50, 50], [150, 250]])], shape_type="rectangle")
    assert panel.shapes.currentIndex() == 1, "what was just drawn is what is asked about"
    panel.shapes.setCurrentIndex(0)
    choose(shown.look.colour, "eccentricity")
    assert panel.shapes.currentIndex() == 0
    choose(shown.look.measure, "eccentricity")
    low, high = shown.look.histogram.bounds
    assert 0 <= low < high <= 1
    shown.correct.classes.setCurrentText("mitosis")
    shown.correct.buttons["Undo"].click()
    assert shown.correct.classes.currentText() == "mitosis"


def test_a_closed_panel_leaves_nothing_behind(window, panel, shown):
    choose(shown.look.colour, "eccentricity")
    shown.inspector.select([4])
    shown.inspector.show_range("area_um2", 60.0, np.inf)
    window.window.remove_dock_widget(panel)
    assert pump(lambda: panel.closed, 10)
    assert [layer.name for layer in window.layers] == ["discs", "discs nucleus"]
    assert window.layers["discs nucleus"].visible
    again = dock(window, INSPECT).shown
    assert again.table.cells.rowCount() == len(again.correct.corrections)
    again.inspector.select([4])
    again.correct.buttons["Delete"].click()
    assert again.table.cells.row_of(4) is None


def test_the_panel_follows_a_result_that_is_counted_again(window, panel, discs):
    copy = discs.with_name("other.tif")
    copy.write_bytes(discs.read_bytes())
    counts = counter(window, copy)
    counts.form.layer.value = window.layers["other"]
    counted(counts)
    names = [panel.results.itemText(n) for n in range(panel.results.count())]
    assert names == ["discs nucleus", "other nucleus"]
    panel.results.setCurrentIndex(0)
    before = panel.shown.inspector.opened
    counts.form.layer.value = window.layers["discs"]
    counts.form.overwrite.value = True
    counted(counts, score=0.9)
    pump(seconds=0.3)
    opened = panel.shown.inspector.opened
    assert opened is not before
    assert opened.result.path.name == "discs.cellseg"
    assert opened.result.run["result"] == load_result(opened.result.path).run["result"]
    assert panel.results.currentText() == "discs nucleus"


def test_a_class_that_cannot_be_keeps_what_was_painted(window, shown, told):
    paint, classes = shown.correct.buttons["Paint"], shown.correct.classes
    choose(shown.look.colour, "class")
    paint.click()
    layer = window.layers["paint here"]
    layer.data[5:15, 5:15] = layer.selected_label
    classes.setCurrentText("two \x07 bells")
    paint.click()
    assert told
    assert "paint here" in window.layers
    assert paint.text() == "Apply"
    classes.setCurrentText("mitosis")
    paint.click()
    assert "paint here" not in window.layers
    assert "mitosis" in shown.look.legend.text()


def test_a_dragged_threshold_colours_and_counts_at_once(window, shown, picture):
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    box, opened = shown.classify, shown.inspector.opened
    shown.tabs.setCurrentWidget(box)
    assert box.measure.currentText() == "hematoxylin od mean"
    values = opened.column("hematoxylin_od_mean")
    assert len(np.unique(values.round(2))) == 2, "two stainings"
    box.histogram.slider.setValue((float(values.min() + values.max()) / 2,))
    threshold = box.marker.threshold
    positive = values >= threshold
    assert 0 < positive.sum() < len(values)
    assert f"{positive.sum():,} positive" in box.state.text()
    colours = window.layers["discs: hematoxylin od mean, classes"]
    found, labels = np.asarray(colours.data[0]), np.asarray(opened.result.labels()[0])
    for label in (1, int(np.flatnonzero(positive)[0]) + 1, int(np.flatnonzero(~positive)[0]) + 1):
        values_of = found[labels == label]
        assert set(values_of[np.isfinite(values_of)]) == {float(positive[label - 1])}
    picture(window, "positive")
    at = QPoint(box.histogram.width() // 4, 5)
    QTest.mouseClick(box.histogram, Qt.MouseButton.LeftButton, pos=at)
    low, high = box.histogram.bounds
    assert box.marker.threshold == pytest.approx(low + (high - low) / 4, abs=(high - low) / 20)
    shown.tabs.setCurrentWidget(shown.look)
    assert "discs: hematoxylin od mean, classes" not in window.layers
    assert window.layers["discs nucleus"].visible


def test_cells_that_a_person_classed_are_neither_positive_nor_negative(shown):
    box, corrections = shown.classify, shown.correct.corrections
    shown.tabs.setCurrentWidget(box)
    values = shown.inspector.opened.column("hematoxylin_od_mean")
    middle = (float(values.min() + values.max()) / 2,)
    box.histogram.slider.setValue(middle)
    corrections.classify([1, 2, 3], "mitosis")
    box.edited()
    assert corrections.by_hand().tolist() == [True] * 3 + [False] * (len(values) - 3)
    positive = int((values[3:] >= box.marker.threshold).sum())
    assert f"{len(values) - 3 - positive:,} negative, {positive:,} positive" in box.state.text()


def test_classes_are_saved_with_the_result(window, panel, shown, told):
    box, folder = shown.classify, shown.inspector.opened.result.path
    shown.tabs.setCurrentWidget(box)
    box.kind.setCurrentIndex(1)
    thresholds, counts = box.marker.threshold, box.state.text()
    assert len(thresholds) == 3
    box.buttons["Save classes"].click()
    assert pump(lambda: any("classes saved" in text for text in told), 60)
    result = load_result(folder)
    classes = result.table.load()["class"]
    assert all(f"{(classes == name).sum()} {name}" in counts for name in ("1+", "2+", "3+"))
    after = panel.shown
    opened = after.inspector.opened
    assert opened.result.run["classification"]["markers"][0]["threshold"] == list(thresholds)
    assert opened.column("class").tolist() == classes.tolist(), "the panel shows what was saved"
    assert [layer.name for layer in window.layers if "nucleus" in layer.name] == ["discs nucleus"]
    assert after.tabs.currentWidget() is after.classify
    assert after.classify.buttons["Save classes"].isEnabled()
    after.tabs.setCurrentWidget(after.look)
    choose(after.look.colour, "class")
    assert "3+" in after.look.legend.text()


def test_a_threshold_is_proposed_or_the_reason_told(shown, told):
    box = shown.classify
    shown.tabs.setCurrentWidget(box)
    choose(box.measure, "solidity")
    before = box.marker
    box.buttons["Propose"].click()
    assert "no threshold is proposed" in told[-1]
    assert "--" not in told[-1]
    assert box.marker == before
