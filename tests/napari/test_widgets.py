"""The dock widgets in a real window: events go on while it counts, faults are told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("napari", reason='napari is not installed: pip install ".[napari]"')
pytest.importorskip("cellseg_napari", reason="the plugin is not installed")

from cellseg_napari import read_slide
from cellseg_napari._count import request_of
from cellseg_napari._opened import results_in
from synthetic import PyramidLayout, draw_discs, write_pyramid

from cellseg.cli.view import require_display
from cellseg.errors import SettingsError
from cellseg.network.threshold import ThresholdDetector
from cellseg.protocol import load_protocol
from cellseg.result import load_result

if TYPE_CHECKING:
    import napari

pytestmark = [
    pytest.mark.window,
    # Whatever napari, Qt and vispy say about themselves while a window opens is theirs.
    pytest.mark.filterwarnings("ignore"),
]

PROTOCOL = load_protocol("he").changed(mpp=0.5, min_area_um2=0.0, tile_px=128, largest_cell_um=20.0)


class SlowDetector(ThresholdDetector):
    """Takes its time, as a network does, or fails."""

    def __init__(self, seconds: float = 0.05, fails_at: int = 0, with_: Exception | None = None):
        super().__init__()
        self.seconds, self.fails_at, self.error, self.calls = seconds, fails_at, with_, 0

    def detect(self, tiles: Sequence[Any], *, fill: float) -> Any:
        self.calls += 1
        if self.error is not None and self.calls >= self.fails_at:
            raise self.error
        time.sleep(self.seconds)
        return super().detect(tiles, fill=fill)


@pytest.fixture(scope="module", autouse=True)
def display() -> None:
    if sys.platform == "linux":
        try:
            require_display()
        except SettingsError as error:
            pytest.skip(f"{error} (tools/with-display.sh starts one)")


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[napari.Viewer]:
    import napari

    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    window = napari.Viewer()
    window.window._qt_window.resize(1500, 1000)
    yield window
    window.close()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What went to napari's notification area."""
    from napari.utils.notifications import notification_manager

    found: list[str] = []

    def hear(notification: Any) -> None:
        found.append(str(notification.message))

    notification_manager.notification_ready.connect(hear)
    yield found
    notification_manager.notification_ready.disconnect(hear)


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """374 of them, every other one more strongly stained."""
    path = tmp_path / "discs.tif"
    drawn = draw_discs((700, 900), np.random.default_rng(7))
    drawn.image[drawn.labels % 2 == 1] = (72, 45, 105)
    write_pyramid(path, drawn.image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    return path


def pump(until: Callable[[], bool] = lambda: False, seconds: float = 300.0) -> bool:
    """Let Qt work until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.002)
    return until()


def dock(viewer: napari.Viewer, name: str) -> Any:
    """As from the Plugins menu; in sight, since what a dock holds is hidden until then."""
    dock, widget = viewer.window.add_plugin_dock_widget("cellseg-slides", name)
    assert pump(dock.isVisible, 10)
    return widget


def shown(viewer: napari.Viewer, path: Path) -> None:
    from napari.layers import Layer

    for data in read_slide(path):
        viewer.add_layer(Layer.create(*data))


def picture(viewer: napari.Viewer, name: str) -> np.ndarray:
    """The window; kept where CELLSEG_SCREENSHOTS says, for people to look at."""
    pump(seconds=0.6)
    pixels = np.asarray(viewer.screenshot(canvas_only=False, flash=False))
    if folder := os.environ.get("CELLSEG_SCREENSHOTS"):
        from skimage.io import imsave

        Path(folder).mkdir(parents=True, exist_ok=True)
        imsave(Path(folder) / f"{name}.png", pixels[..., :3], check_contrast=False)
    return pixels


def start(widget: Any, detector: ThresholdDetector) -> None:
    request = replace(request_of(widget.form()), protocol=PROTOCOL, prefilter=False, batch=1)
    widget.run(request, detector=detector)


def test_torch_is_loaded_when_a_count_starts_and_not_before() -> None:
    """Loading it takes seconds, and triton's LLVM must not meet Mesa's in one process."""
    code = (
        "import sys, cellseg_napari._count_widget, cellseg_napari._inspect_widget\n"
        "import cellseg_napari._samples, cellseg_napari._writer\n"
        "assert 'torch' not in sys.modules\n"
        "from cellseg_napari._pipeline import pipeline\n"
        "pipeline()\n"
        "assert 'torchvision' in sys.modules\n"
        "assert 'triton' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_window_lives_while_it_counts(viewer: napari.Viewer, discs: Path) -> None:
    from qtpy.QtCore import QTimer

    shown(viewer, discs)
    widget = dock(viewer, "Count cells")
    assert widget.layer.value is viewer.layers[0]
    ticks: list[float] = []
    timer = QTimer()
    timer.setInterval(20)
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start()
    begun = time.monotonic()
    start(widget, SlowDetector())
    assert not widget.start.enabled
    assert pump(lambda: "cells so far" in widget.said.value)
    while_counting = [layer.name for layer in viewer.layers]
    assert pump(lambda: widget.counting is None)
    timer.stop()
    took = time.monotonic() - begun
    assert took > 48 * 0.05, "the detector was slow"
    assert while_counting == ["discs", "discs: counting"]
    # Of a window that waits for the count there would be none between its start and its end.
    assert len(ticks) > 10
    assert max(np.diff(ticks)) < took / 2, "the window never froze"
    assert "nuclei" in widget.said.value
    assert widget.start.enabled
    assert [layer.name for layer in viewer.layers] == ["discs", "discs nucleus"]


def test_fields_appear_when_they_matter(viewer: napari.Viewer, tmp_path: Path) -> None:
    import tifffile

    widget = dock(viewer, "Count cells")
    assert not widget.model.visible
    widget.more.value = True
    assert widget.model.visible
    assert widget.score.native.text() == "the protocol's"
    assert not widget.z.visible, "there is no stack"
    path = tmp_path / "stack.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 80)).astype(np.uint8)
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZYX"})
    shown(viewer, path)
    assert widget.z.visible
    assert widget.z.choices == ("as shown", "max", "mean", 0, 1, 2)
    assert request_of(widget.form()).z is None
    widget.z.value = "max"
    widget.score.value = 0.6
    widget.model.value = str(tmp_path / "mine.safetensors")
    request = request_of(widget.form())
    assert (request.z, request.score) == ("max", 0.6)
    assert request.model == str(tmp_path / "mine.safetensors")
    picture(viewer, "count-panel")


def test_messages_speak_of_fields(viewer: napari.Viewer, discs: Path, told: list[str]) -> None:
    shown(viewer, discs)
    widget = dock(viewer, "Count cells")
    start(widget, ThresholdDetector())
    assert pump(lambda: widget.counting is None)
    request = replace(
        request_of(widget.form()), protocol=PROTOCOL, prefilter=False, batch=1, score=0.9
    )
    widget.run(request, ThresholdDetector())
    assert pump(lambda: widget.counting is None)
    assert "the box “overwrite” replaces it" in told[-1]
    assert widget.said.value == told[-1]
    assert not any("--" in text for text in told)


def test_pause_and_cancel(viewer: napari.Viewer, discs: Path) -> None:
    shown(viewer, discs)
    widget = dock(viewer, "Count cells")
    detector = SlowDetector()
    start(widget, detector)
    assert pump(lambda: widget.progress.value >= 5)
    widget.pause.native.click()
    assert widget.pause.text == "Go on"
    pump(seconds=1.0)
    resting = detector.calls
    pump(seconds=1.0)
    assert detector.calls == resting < 48
    widget.pause.native.click()
    assert pump(lambda: detector.calls > resting + 3)
    widget.pause.native.click()
    widget.cancel.native.click()
    assert pump(lambda: widget.counting is None), "cancelled while it rests, it ends too"
    assert detector.calls < 48
    assert "goes on" in widget.said.value
    assert [layer.name for layer in viewer.layers] == ["discs"]
    again = SlowDetector(0.0)
    start(widget, again)
    assert pump(lambda: widget.counting is None)
    assert again.calls < 48, "what was done was kept"
    assert len(list(results_in(viewer))) == 1


def test_a_fault_is_told_and_nothing_is_lost(
    viewer: napari.Viewer, discs: Path, told: list[str]
) -> None:
    shown(viewer, discs)
    widget = dock(viewer, "Count cells")
    start(widget, SlowDetector(0.0, 20, RuntimeError("CUDA error: out of memory")))
    assert pump(lambda: widget.counting is None)
    assert any("out of memory" in text for text in told)
    assert widget.start.enabled
    assert [layer.name for layer in viewer.layers] == ["discs"]
    again = SlowDetector(0.0)
    start(widget, again)
    assert pump(lambda: widget.counting is None)
    assert again.calls <= 48 - 15


def test_closing_the_window_while_it_counts(tmp_path: Path, discs: Path) -> None:
    import napari

    window = napari.Viewer()
    shown(window, discs)
    widget = dock(window, "Count cells")
    detector = SlowDetector()
    start(widget, detector)
    assert pump(lambda: widget.progress.value >= 5)
    counting = widget.counting
    window.close()
    assert pump(lambda: counting.is_stopped, 10)
    pump(seconds=1.0)
    stopped_at = detector.calls
    pump(seconds=0.5)
    assert detector.calls == stopped_at < 48
    second = napari.Viewer()
    try:
        shown(second, discs)
        widget = dock(second, "Count cells")
        again = SlowDetector(0.0)
        start(widget, again)
        assert pump(lambda: widget.counting is None)
        assert again.calls < 48
        assert load_result(discs.with_suffix(".cellseg")).is_complete
    finally:
        second.close()


def test_closing_the_panel_while_it_counts(
    viewer: napari.Viewer, discs: Path, told: list[str]
) -> None:
    shown(viewer, discs)
    widget = dock(viewer, "Count cells")
    detector = SlowDetector()
    start(widget, detector)
    assert pump(lambda: widget.progress.value >= 5)
    viewer.window.remove_dock_widget(widget.native)
    assert pump(lambda: widget.counting is None, 20)
    assert detector.calls < 48
    assert any("what is done is kept" in text for text in told)
    assert [layer.name for layer in viewer.layers] == ["discs"]
    again = dock(viewer, "Count cells")
    second = SlowDetector(0.0)
    start(again, second)
    assert pump(lambda: again.counting is None)
    assert second.calls < 48, "what was done was kept"


def test_what_the_form_lacks_is_told(viewer: napari.Viewer, told: list[str], discs: Path) -> None:
    widget = dock(viewer, "Count cells")
    widget.start.native.click()
    assert "choose an image" in told[-1]
    widget.file.value = str(discs.with_name("missing.tif"))
    widget.start.native.click()
    assert pump(lambda: widget.counting is None)
    assert "missing.tif" in told[-1]
    shown(viewer, discs)
    widget.file.value = None
    widget.where.value = "drawn shapes"
    widget.start.native.click()
    assert "draw a rectangle" in told[-1]


def test_masks_that_are_not_cellsegs_are_told_apart(viewer: napari.Viewer) -> None:
    viewer.add_labels(np.ones((20, 20), int), name="mine")
    widget = dock(viewer, "Inspect and correct cells")
    assert "mine is no result of cellseg" in widget.totals.text()
    assert not widget.correct.buttons["Delete"].isEnabled()
    click(viewer, (5.0, 5.0))


@pytest.fixture
def inspected(viewer: napari.Viewer, discs: Path) -> Any:
    """A counted slide with the second widget open."""
    shown(viewer, discs)
    counter = dock(viewer, "Count cells")
    start(counter, ThresholdDetector())
    assert pump(lambda: counter.counting is None)
    widget = dock(viewer, "Inspect and correct cells")
    pump(seconds=0.3)
    return widget


def choose(box: Any, text: str) -> None:
    """As a person does in a list."""
    place = box.findText(text)
    assert place >= 0, [box.itemText(n) for n in range(box.count())]
    box.setCurrentIndex(place)


def press(viewer: napari.Viewer, key: str) -> None:
    """A key, while the canvas has the focus; only the active window's keys are heard."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    window = viewer.window._qt_window
    window.activateWindow()
    assert pump(window.isActiveWindow, 10)
    canvas = window._qt_viewer.canvas.native
    canvas.setFocus()
    *modifiers, letter = key.split("+")
    held = Qt.KeyboardModifier.NoModifier
    for name in modifiers:
        one = {"Shift": "ShiftModifier", "Ctrl": "ControlModifier"}[name]
        held |= getattr(Qt.KeyboardModifier, one)
    QTest.keyClick(canvas, getattr(Qt.Key, f"Key_{letter}"), held)
    pump(seconds=0.05)


def click(viewer: napari.Viewer, world: tuple[float, float], *modifiers: str) -> None:
    """As napari's canvas tells a click."""
    from types import SimpleNamespace

    event = SimpleNamespace(type="mouse_press", position=world, modifiers=modifiers)
    for callback in list(viewer.mouse_drag_callbacks):
        steps = callback(viewer, event)
        if steps is not None:
            next(steps, None)
            event.type = "mouse_release"
            next(steps, None)
            event.type = "mouse_press"


def test_a_click_shows_the_row_and_a_row_flies_to_its_cell(
    viewer: napari.Viewer, inspected: Any
) -> None:
    from cellseg_napari._opened import camera_of

    inspector = inspected.inspector
    click(viewer, inspector.opened.place_of(12)[0])
    (row,) = inspected.table.selectionModel().selectedRows()
    assert inspected.table.cells.labels[row.row()] == 12
    click(viewer, inspector.opened.place_of(14)[0], "Shift")
    assert inspected.correct.selected == [12, 14]
    inspected.table.selectRow(inspected.table.cells.place_of(40))
    pump(seconds=0.2)
    assert inspector.selected == (40,)
    assert camera_of(viewer).center[-2:] == pytest.approx(inspector.opened.place_of(40)[0])
    text = [
        inspected.table.cells.data(inspected.table.cells.index(39, column))
        for column in range(inspected.table.cells.columnCount())
    ]
    assert text[:2] == ["40", "nucleus"]


def test_sorting_filtering_and_colours(viewer: napari.Viewer, inspected: Any) -> None:
    model = inspected.table.cells
    column = model.columns.index("area_um2")
    areas = inspected.inspector.opened.column("area_um2")
    inspected.table.sort(column)
    assert areas[model.labels[0] - 1] == areas.min()
    inspected.table.sort(column)
    assert areas[model.labels[0] - 1] == areas.max()
    low, high = inspected.look.histogram.bounds
    assert (low, high) == pytest.approx((areas.min(), areas.max()))
    inspected.look.histogram.slider.setValue(((low + high) / 2, high))
    assert pump(lambda: inspected.inspector.range is not None, 5)
    left = int((areas >= inspected.look.histogram.slider.value()[0]).sum())
    assert inspected.totals.text().startswith(f"{left} nuclei")
    assert model.rowCount() == left
    choose(inspected.look.colour, "eccentricity")
    assert "discs: eccentricity" in viewer.layers
    shown_at = [number.text() for number in inspected.look.bar.numbers]
    assert [float(text) for text in shown_at] == sorted(float(text) for text in shown_at)
    choose(inspected.look.colour, "class")
    assert "nucleus" in inspected.look.bar.classes.text()


def test_totals_follow_the_shapes(viewer: napari.Viewer, inspected: Any) -> None:
    shapes = viewer.add_shapes([np.array([[50, 50], [150, 250]])], shape_type="rectangle")
    assert pump(lambda: "per mm²" in inspected.totals.text(), 10)
    before = inspected.totals.text()
    shapes.data = [np.array([[50, 50], [250, 300]])]
    assert pump(lambda: inspected.totals.text() != before, 10)


def test_correcting_in_the_window(
    viewer: napari.Viewer, inspected: Any, told: list[str], tmp_path: Path
) -> None:
    buttons = inspected.correct.buttons
    corrections = inspected.correct.corrections
    count = len(corrections)
    buttons["Delete"].click()
    assert "no cell is selected" in told[-1]
    inspected.inspector.select([3])
    buttons["Delete"].click()
    assert 3 not in corrections
    assert inspected.table.cells.place_of(3) is None
    inspected.inspector.select([5])
    buttons["Split"].click()
    assert len(corrections) == count
    parts = corrections.edits[-1].labels
    inspected.inspector.select(list(parts))
    buttons["Merge"].click()
    buttons["Undo"].click()
    buttons["Undo"].click()
    buttons["Redo"].click()
    assert [edit.kind for edit in corrections.edits] == ["delete", "split"]
    inspected.inspector.select([8])
    inspected.correct.classes.setCurrentText("mitosis")
    buttons["Set class"].click()
    assert corrections.row(8)["class"] == "mitosis"
    inspected.inspector.select([20])
    buttons["Paint"].click()
    paint = viewer.layers["paint here"]
    paint.data[paint.data == 20] = 0
    buttons["Paint"].click()
    assert 20 not in corrections
    buttons["Measure again"].click()
    assert pump(lambda: "median area" in inspected.correct.state.text(), 20)
    assert "1 mitosis" in inspected.correct.state.text()
    buttons["Save"].click()
    assert pump(lambda: "saved in" in inspected.correct.state.text(), 60)
    saved = load_result(corrections.result.path.with_name("discs.corrected.cellseg"))
    assert len(saved.table.load()) == len(corrections) == count - 1
    inspected.correct.export(tmp_path / "data")
    assert (tmp_path / "data" / "annotations.json").is_file()
    assert "cellseg train" in told[-1]
    picture(viewer, "corrected")


def test_keys_do_what_their_tooltip_says(viewer: napari.Viewer, inspected: Any) -> None:
    from cellseg_napari._shortcuts import KEYS

    said = inspected.keys.toolTip()
    assert all(f"{key}: {what}" in said for key, what in KEYS.values())
    assert "(Shift+D)" in inspected.correct.buttons["Delete"].toolTip()
    inspector, corrections = inspected.inspector, inspected.correct.corrections
    press(viewer, "N")
    assert inspector.selected == (1,)
    press(viewer, "N")
    press(viewer, "N")
    press(viewer, "Shift+N")
    assert inspector.selected == (2,)
    press(viewer, "Shift+D")
    assert 2 not in corrections
    press(viewer, "Ctrl+Z")
    assert 2 in corrections
    press(viewer, "Ctrl+Shift+Z")
    assert 2 not in corrections
    inspector.select([5])
    press(viewer, "Shift+S")
    parts = corrections.edits[-1].labels
    assert len(parts) == 2
    inspector.select(list(parts))
    press(viewer, "Shift+M")
    assert corrections.edits[-1].kind == "merge"
    inspector.select([20])
    press(viewer, "Shift+B")
    paint = viewer.layers["paint here"]
    paint.data[paint.data == 20] = 0
    press(viewer, "Shift+B")
    assert 20 not in corrections


def test_measurements_are_named_for_people(inspected: Any) -> None:
    look = inspected.look
    names = [look.measure.itemText(n) for n in range(look.measure.count())]
    assert names[:2] == ["", "area (µm²)"]
    assert look.measure.currentText() == "area (µm²)"
    assert not any("_" in name for name in names)
    assert not any(name.endswith("px²)") for name in names), "one unit is enough"


def test_masks_open_as_outlines_with_a_switch(viewer: napari.Viewer, inspected: Any) -> None:
    cells = viewer.layers["discs nucleus"]
    assert cells.contour == 1
    assert inspected.look.outlines.isChecked()
    inspected.look.outlines.click()
    assert cells.contour == 0


def test_masks_that_napari_itself_opens_are_outlines(viewer: napari.Viewer, discs: Path) -> None:
    shown(viewer, discs)
    counter = dock(viewer, "Count cells")
    start(counter, ThresholdDetector())
    assert pump(lambda: counter.counting is None)
    viewer.layers.clear()
    viewer.open(discs.with_suffix(".cellseg"), plugin="cellseg-slides")
    assert viewer.layers["discs nucleus"].contour == 1


def test_several_rows_are_several_cells(viewer: napari.Viewer, inspected: Any) -> None:
    from qtpy.QtCore import QItemSelection, QItemSelectionModel

    model, selection = inspected.table.cells, inspected.table.selectionModel()
    rows = QItemSelection(model.index(3, 0), model.index(6, model.columnCount() - 1))
    selection.select(rows, QItemSelectionModel.SelectionFlag.ClearAndSelect)
    assert inspected.correct.selected == [4, 5, 6, 7]
    assert len(viewer.layers["selected cells"].data) == 4
    inspected.table.selectAll()
    assert len(inspected.correct.selected) == model.rowCount()
    inspected.inspector.select([9])
    assert [row.row() for row in selection.selectedRows()] == [8]


def test_order_and_shapes_stay_as_they_were_chosen(viewer: napari.Viewer, inspected: Any) -> None:
    inspected.table.sort(inspected.table.cells.columns.index("area_um2"))
    second = int(inspected.table.cells.labels[1])
    inspected.inspector.select([int(inspected.table.cells.labels[0])])
    inspected.correct.buttons["Delete"].click()
    assert inspected.table.cells.labels[0] == second
    viewer.add_shapes([np.array([[50, 50], [150, 250]])], shape_type="rectangle")
    assert inspected.look.shapes.currentIndex() == 1, "what was just drawn is what is asked about"
    inspected.look.shapes.setCurrentIndex(0)
    choose(inspected.look.colour, "eccentricity")
    assert inspected.look.shapes.currentIndex() == 0
    inspected.correct.classes.setCurrentText("mitosis")
    inspected.correct.buttons["Undo"].click()
    assert inspected.correct.classes.currentText() == "mitosis"


def test_a_closed_panel_leaves_nothing_behind(viewer: napari.Viewer, inspected: Any) -> None:
    choose(inspected.look.colour, "eccentricity")
    inspected.inspector.select([4])
    inspected.inspector.show_range("area_um2", 60.0, np.inf)
    viewer.window.remove_dock_widget(inspected)
    assert pump(lambda: inspected._closed, 10)
    assert [layer.name for layer in viewer.layers] == ["discs", "discs nucleus"]
    assert viewer.layers["discs nucleus"].visible
    again = dock(viewer, "Inspect and correct cells")
    assert again.table.cells.rowCount() == len(again.correct.corrections)
    again.inspector.select([4])
    again.correct.buttons["Delete"].click()
    assert again.table.cells.place_of(4) is None


def test_the_panel_follows_a_result_that_is_counted_again(
    viewer: napari.Viewer, inspected: Any, discs: Path
) -> None:
    copy = discs.with_name("other.tif")
    copy.write_bytes(discs.read_bytes())
    shown(viewer, copy)
    counter = dock(viewer, "Count cells")
    counter.layer.value = viewer.layers["other"]
    start(counter, ThresholdDetector())
    assert pump(lambda: counter.counting is None)
    names = [inspected.results.itemText(n) for n in range(inspected.results.count())]
    assert names == ["discs nucleus", "other nucleus"]
    inspected.results.setCurrentIndex(0)
    counter.layer.value = viewer.layers["discs"]
    request = replace(
        request_of(counter.form()), protocol=PROTOCOL, prefilter=False, batch=1, score=0.9
    )
    counter.run(request, detector=ThresholdDetector())
    assert pump(lambda: counter.counting is None)
    pump(seconds=0.3)
    opened = inspected.inspector.opened
    assert opened.result.path.name == "discs.cellseg"
    assert opened.result.run["result"] == load_result(opened.result.path).run["result"]
    assert inspected.results.currentText() == "discs nucleus"


def test_a_class_that_cannot_be_keeps_what_was_painted(
    viewer: napari.Viewer, inspected: Any, told: list[str]
) -> None:
    choose(inspected.look.colour, "class")
    inspected.correct.buttons["Paint"].click()
    layer = viewer.layers["paint here"]
    layer.data[5:15, 5:15] = layer.selected_label
    inspected.correct.classes.setCurrentText("two \x07 bells")
    inspected.correct.buttons["Paint"].click()
    assert told
    assert "paint here" in viewer.layers
    assert inspected.correct.buttons["Paint"].text() == "Apply"
    inspected.correct.classes.setCurrentText("mitosis")
    inspected.correct.buttons["Paint"].click()
    assert "paint here" not in viewer.layers
    assert "mitosis" in inspected.look.bar.classes.text()


def test_deleted_then_reopened(viewer: napari.Viewer, inspected: Any, told: list[str]) -> None:
    inspected.inspector.select([4])
    inspected.correct.buttons["Delete"].click()
    choose(inspected.look.measure, "eccentricity")
    assert not told
    low, high = inspected.look.histogram.bounds
    assert 0 <= low < high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("example", ["ihc", "fluorescence"])
def test_the_example_slides_in_the_window(
    viewer: napari.Viewer, told: list[str], example: str, tmp_path: Path
) -> None:
    """The shipped model on the sample data of napari's own menu."""
    viewer.open_sample("cellseg-slides", example)
    widget = dock(viewer, "Count cells")
    widget.output.value = str(tmp_path)
    if example == "ihc":
        widget.diameter_px.value = 10.0
    widget.start.native.click()
    assert pump(lambda: widget.counting is None, 500)
    if example == "ihc":
        assert any("no pixel size" in text or "chosen" in text for text in told)
    inspect = dock(viewer, "Inspect and correct cells")
    pump(seconds=0.5)
    count = len(inspect.inspector.opened.rows)
    assert count == pytest.approx({"ihc": 228, "fluorescence": 2500}[example], rel=0.1)
    inspect.inspector.fly_to(count // 2)
    assert picture(viewer, f"counted-{example}").std() > 10


def test_a_dragged_threshold_colours_and_counts_at_once(
    viewer: napari.Viewer, inspected: Any
) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    box, opened = inspected.classify, inspected.inspector.opened
    inspected.tabs.setCurrentWidget(box)
    assert box.measure.currentText() == "haematoxylin, optical density"
    values = opened.column("hematoxylin_od_mean")
    assert len(np.unique(values.round(2))) == 2, "two stainings"
    first = box.parted.thresholds
    box.histogram.slider.setValue((float(values.min() + values.max()) / 2,))
    (threshold,) = box.parted.thresholds
    positive = values >= threshold
    assert 0 < positive.sum() < len(values)
    assert f"{positive.sum():,} positive" in box.counts.text()
    colours = viewer.layers["discs: haematoxylin, optical density, classes"]
    shown_, labels = np.asarray(colours.data[0]), np.asarray(opened.result.labels()[0])
    for label in (1, int(np.flatnonzero(positive)[0]) + 1, int(np.flatnonzero(~positive)[0]) + 1):
        found = shown_[labels == label]
        assert set(found[np.isfinite(found)]) == {float(positive[label - 1])}
    picture(viewer, "positive")
    pump(seconds=0.3)
    box.buttons["Back"].click()
    assert box.parted.thresholds == first
    press(viewer, "Ctrl+Shift+Z")
    assert box.parted.thresholds == (threshold,)
    bars = box.histogram.layout().itemAt(0).widget()
    QTest.mouseClick(bars, Qt.MouseButton.LeftButton, pos=QPoint(bars.width() // 4, 5))
    low, high = box.histogram.bounds
    assert box.parted.thresholds[0] == pytest.approx(low + (high - low) / 4, abs=(high - low) / 20)
    inspected.tabs.setCurrentWidget(inspected.look)
    assert "discs: haematoxylin, optical density, classes" not in viewer.layers
    assert viewer.layers["discs nucleus"].visible


def test_classes_are_saved_with_the_result(
    viewer: napari.Viewer, inspected: Any, told: list[str]
) -> None:
    box, folder = inspected.classify, inspected.inspector.opened.result.path
    inspected.tabs.setCurrentWidget(box)
    box.kind.setCurrentIndex(1)
    assert len(box.parted.thresholds) == 3
    thresholds, grades = box.parted.thresholds, box.parted.scored.grades
    box.buttons["Save classes"].click()
    assert pump(lambda: any("classes saved" in text for text in told), 60)
    result = load_result(folder)
    classes = result.table.load()["class"]
    assert tuple((classes == name).sum() for name in ("negative", "1+", "2+", "3+")) == grades
    opened = inspected.inspector.opened
    assert opened.result.run["classification"]["markers"][0]["threshold"] == list(thresholds)
    assert opened.column("class").tolist() == classes.tolist(), "the panel shows what was saved"
    assert [layer.name for layer in viewer.layers if "nucleus" in layer.name] == ["discs nucleus"]
    assert box.buttons["Save classes"].isEnabled()
    inspected.tabs.setCurrentWidget(inspected.look)
    choose(inspected.look.colour, "class")
    assert "3+" in inspected.look.bar.classes.text()


def test_a_threshold_is_proposed_or_the_reason_told(
    viewer: napari.Viewer, inspected: Any, told: list[str]
) -> None:
    box = inspected.classify
    inspected.tabs.setCurrentWidget(box)
    choose(box.measure, "solidity")
    before = box.parted.thresholds
    box.buttons["Propose"].click()
    assert "no threshold is proposed" in told[-1]
    assert "--" not in told[-1]
    assert box.parted.thresholds == before
