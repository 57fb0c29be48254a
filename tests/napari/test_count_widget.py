"""The panel that counts, in a real window: events go on while it counts, faults are told."""

import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from cellseg_napari._count import request_of
from cellseg_napari._opened import results_in
from synthetic.threshold import ThresholdDetector
from window import SlowDetector, counted, counter, dock, pump, start

from cellseg.result import load_result


def names(viewer):
    return [layer.name for layer in viewer.layers]


def going(viewer, slide):
    """A panel that counts a slide, and its detector."""
    widget, detector = counter(viewer, slide), SlowDetector(0.2)
    start(widget, detector)
    assert pump(lambda: widget.progress.value() >= 5)
    return widget, detector


def test_torch_is_loaded_when_a_count_starts_and_not_before():
    """Loading it takes seconds, and triton's LLVM must not meet Mesa's in one process."""
    code = (
        "import sys, cellseg_napari._count_widget, cellseg_napari._inspect_widget\n"
        "import cellseg_napari._opened\n"
        "assert 'torch' not in sys.modules\n"
        "from cellseg_napari._count import load_network\n"
        "load_network()\n"
        "assert 'torchvision' in sys.modules\n"
        "assert 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_window_lives_while_it_counts(window, discs):
    from qtpy.QtCore import QTimer

    widget = counter(window, discs)
    assert widget.form.layer.value is window.layers[0]
    ticks = []
    timer = QTimer()
    timer.setInterval(20)
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start()
    begun = time.monotonic()
    start(widget, SlowDetector())
    assert not widget.start.isEnabled()
    assert pump(lambda: "cells so far" in widget.said.text())
    while_counting = names(window)
    assert pump(lambda: widget.job is None)
    timer.stop()
    took = time.monotonic() - begun
    assert took > 48 * 0.05, "the detector was slow"
    assert while_counting == ["discs", "discs: counting"]
    # Of a window that waits for the count there would be none between its start and its end.
    assert len(ticks) > 10
    assert max(np.diff(ticks)) < took / 2, "the window never froze"
    assert "nuclei" in widget.said.text()
    assert widget.start.isEnabled()
    assert names(window) == ["discs", "discs nucleus"]


def test_fields_appear_when_they_matter(window, tmp_path, picture):
    widget = counter(window)
    form = widget.form
    assert not form.model.visible
    form.more.value = True
    assert form.model.visible
    assert form.score.native.text() == "the protocol's"
    assert not form.z.visible, "there is no stack"
    path = tmp_path / "stack.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 80)).astype(np.uint8)
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZYX"})
    counter(window, path)
    assert form.z.visible
    assert form.z.choices == (None, "max", "mean", 0, 1, 2)
    assert request_of(**form.filled()).z is None
    form.z.value = "max"
    form.score.value = 0.6
    form.model.value = str(tmp_path / "mine.safetensors")
    request = request_of(**form.filled())
    assert (request.z, request.score) == ("max", 0.6)
    assert request.model == (tmp_path / "mine.safetensors")
    assert widget.sizeHint().width() <= 380
    picture(window, "count-panel")


def test_cells_grow_over_a_channel_of_the_slide(window, tmp_path, discs, picture):
    widget = counter(window, discs)
    assert not widget.form.cells_from.visible, "one picture in colour has no second channel"
    path = tmp_path / "two.ome.tif"
    y, x = np.mgrid[:160, :160]
    far = np.hypot((y % 80) - 40, (x % 80) - 40)
    planes = np.stack([(far < 8) * 200 + 10, (far < 24) * 150 + 10]).astype(np.uint8)
    about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}, "PhysicalSizeX": 0.5}
    tifffile.imwrite(path, planes, ome=True, metadata=about)
    counter(window, path)
    form = widget.form
    form.layer.value = window.layers["two DAPI"]
    assert form.cells_from.visible
    assert form.cells_from.choices == (None, "0", "1")
    assert request_of(**form.filled()).recipe.cells_from is None
    form.cells_from.value = "1"
    form.output.value = str(tmp_path)
    widget.run(request_of(**form.filled()), ThresholdDetector())
    assert pump(lambda: widget.job is None)
    picture(window, "cells-from")
    found = load_result(next(tmp_path.glob("*.cellseg")))
    assert found.is_expanded
    assert found.table.column("cell_area_px").median() > found.table.column("area_px").median() * 3


def test_what_the_form_lacks_is_told(window, told, discs):
    widget = counter(window)
    widget.start.click()
    assert "choose an image" in told[-1]
    widget.form.file.value = str(discs.with_name("missing.tif"))
    widget.start.click()
    assert pump(lambda: widget.job is None)
    assert "missing.tif" in told[-1]
    counter(window, discs)
    widget.form.file.value = None
    widget.form.where.value = "drawn shapes"
    widget.start.click()
    assert "draw a rectangle" in told[-1]


def test_pause_and_cancel(window, discs):
    widget, detector = going(window, discs)
    widget.pause.click()
    assert widget.pause.text() == "Go on"
    pump(seconds=1.0)
    resting = detector.calls
    pump(seconds=1.0)
    assert detector.calls == resting < 48
    widget.pause.click()
    assert pump(lambda: detector.calls > resting + 3)
    widget.pause.click()
    widget.cancel.click()
    assert pump(lambda: widget.job is None), "cancelled while it rests, it ends too"
    assert detector.calls < 48
    assert "goes on" in widget.said.text()
    assert names(window) == ["discs"]
    again = SlowDetector(0.0)
    counted(widget, again)
    assert again.calls < 48, "what was done was kept"
    assert len(list(results_in(window))) == 1


def test_a_fault_is_told_and_nothing_is_lost(window, discs, told):
    widget = counter(window, discs)
    counted(widget, SlowDetector(0.0, 20, RuntimeError("CUDA error: out of memory")))
    assert any("out of memory" in text for text in told)
    assert widget.start.isEnabled()
    assert names(window) == ["discs"]
    again = SlowDetector(0.0)
    counted(widget, again)
    assert again.calls <= 48 - 15


def test_closing_the_window_while_it_counts(window, discs):
    import napari

    other = napari.Viewer()
    widget, detector = going(other, discs)
    job = widget.job
    other.close()
    assert pump(lambda: job.abort_requested, 10)
    pump(seconds=1.0)
    stopped_at = detector.calls
    pump(seconds=0.5)
    assert detector.calls == stopped_at < 48
    again = SlowDetector(0.0)
    counted(counter(window, discs), again)
    assert again.calls < 48, "the journal was closed, and nothing holds the folder's lock"
    assert load_result(discs.with_suffix(".cellseg")).is_complete


def test_closing_the_panel_while_it_counts(window, discs, told):
    widget, detector = going(window, discs)
    window.window.remove_dock_widget(widget)
    assert pump(lambda: widget.job is None, 20)
    assert detector.calls < 48
    assert any("what is done is kept" in text for text in told)
    assert names(window) == ["discs"]


@pytest.mark.slow
def test_a_sample_of_napari_in_the_window(window, told, tmp_path, picture):
    """The shipped model on a field of napari's own menu."""
    window.open_sample("napari", "immunohistochemistry")
    widget = counter(window)
    widget.form.output.value = str(tmp_path)
    widget.form.diameter_px.value = 10.0
    widget.start.click()
    assert pump(lambda: widget.job is None, 500)
    assert any("no pixel size" in text or "chosen" in text for text in told)
    panel = dock(window, "Inspect and correct cells")
    pump(seconds=0.5)
    count = len(panel.shown.inspector.opened.rows)
    assert count == pytest.approx(318, rel=0.1)
    panel.shown.inspector.fly_to(count // 2)
    assert picture(window, "counted-sample").std() > 10
