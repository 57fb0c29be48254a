"""A real napari window as tests drive it."""

import time
from dataclasses import replace
from types import SimpleNamespace

from finished import DISCS as PROTOCOL
from synthetic.threshold import ThresholdDetector

SETTINGS = {"protocol": PROTOCOL, "prefilter": False}


class SlowDetector(ThresholdDetector):
    """Takes its time, as a network does, or fails."""

    def __init__(self, seconds=0.05, fails_at=0, with_=None):
        super().__init__()
        self.seconds, self.fails_at, self.error, self.calls = seconds, fails_at, with_, 0

    def detect(self, tile, *, fill, near=None):
        self.calls += 1
        if self.error is not None and self.calls >= self.fails_at:
            raise self.error
        time.sleep(self.seconds)
        return super().detect(tile, fill=fill)


def pump(until=lambda: False, seconds=300.0):
    """Let Qt work until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.002)
    return until()


def dock(viewer, name):
    """As from the Plugins menu; in sight, since what a dock holds is hidden until then."""
    dock, widget = viewer.window.add_plugin_dock_widget("cellseg-slides", name)
    assert pump(dock.isVisible, 10)
    return widget


def inspecting(viewer, result):
    """The panel that shows a result's cells, its layers open beside it."""
    from cellseg_napari import add_layers, read_result

    add_layers(viewer, read_result(result))
    found = dock(viewer, "Inspect and correct cells")
    pump(seconds=0.3)
    return found


def counter(viewer, slide=None):
    """The panel that counts, a slide open beside it."""
    from cellseg_napari import read_slide
    from napari.layers import Layer

    for data in [] if slide is None else read_slide(slide):
        viewer.add_layer(Layer.create(*data))
    return dock(viewer, "Count cells")


def start(widget, detector=None, **changes):
    """Begin to count what the form says."""
    from cellseg_napari._count import request_of

    request = replace(request_of(**widget.form.filled()), **SETTINGS, **changes)
    widget.run(request, detector or ThresholdDetector())


def counted(widget, detector=None, **changes):
    """Count to the end."""
    start(widget, detector, **changes)
    assert pump(lambda: widget.job is None)


def choose(box, text):
    """As a person does in a list."""
    place = box.findText(text)
    assert place >= 0, [box.itemText(n) for n in range(box.count())]
    box.setCurrentIndex(place)


def press(viewer, key):
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


def click(viewer, world, *modifiers):
    """As napari's canvas tells a click."""
    event = SimpleNamespace(type="mouse_press", position=world, modifiers=modifiers)
    for callback in list(viewer.mouse_drag_callbacks):
        steps = callback(viewer, event)
        if steps is not None:
            next(steps, None)
            event.type = "mouse_release"
            next(steps, None)
            event.type = "mouse_press"
