"""Windows to correct, in a real window."""

import re

import numpy as np
import psutil
import pytest
import tifffile
from cellseg_napari import _windows_box
from cellseg_napari._opened import camera_of
from finished import copied
from window import inspecting, press, pump

import cellseg
from cellseg.network.modelfile import read_card
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.train.windows import read_windows, teach_windows


@pytest.fixture
def shown(shown):
    shown.tabs.setCurrentWidget(shown.windows)
    return shown


@pytest.fixture
def found(shown):
    """Its box, once windows were found."""
    shown.windows.find()
    free = shown.windows.buttons["Find windows"].isEnabled
    assert pump(lambda: shown.windows.windows and free(), 60)
    return shown.windows


@pytest.fixture(scope="session")
def counted_once(tmp_path_factory):
    """Bright and pale discs, counted by the shipped network down to low scores."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("teach") / "slide.tif"
    y, x = np.mgrid[:300, :560]
    pixels = rng.normal(20, 3, y.shape)
    for _ in range(60):
        at, radius = rng.uniform((20, 20), (280, 540)), rng.uniform(7, 14)
        pixels += rng.choice((5, 9, 100)) * (np.hypot(y - at[0], x - at[1]) < radius)
    tifffile.imwrite(path, pixels.clip(0, 255).astype(np.uint8), resolution=(20000, 20000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    protocol = load_protocol("fluorescence").changed(score=0.1, prefilter=False)
    return cellseg.count(path, protocol=protocol, progress=False).folder


@pytest.fixture
def corrected(window, counted_once, tmp_path, monkeypatch):
    """Its panel; pale discs are deleted and two windows done, so a higher score counts better."""
    shown = inspecting(window, copied(counted_once, tmp_path)).shown
    shown.tabs.setCurrentWidget(shown.windows)
    monkeypatch.setattr(_windows_box, "MINUTES", 0.21)
    found = shown.inspector.opened
    found.corrections.delete((np.flatnonzero(found.column("score") < 0.8) + 1).tolist())
    shown.windows.find()
    free = shown.windows.buttons["Find windows"].isEnabled
    assert pump(lambda: len(shown.windows.windows) == 2 and free(), 60)
    for row in range(2):
        shown.windows.list.setCurrentRow(row)
        shown.windows.buttons["Done"].click()
    return shown


def test_windows_are_found_shown_one_by_one_and_set_done(window, shown, told, picture):
    box, result = shown.windows, shown.inspector.opened.result
    for name in ("Next", "Done"):
        box.buttons[name].click()
        assert "find windows first" in told.pop()
    box.buttons["Find windows"].click()
    assert pump(lambda: box.windows, 60)
    assert box.list.count() == len(box.windows) > 1
    assert any(layer.name.endswith("windows") for layer in window.layers)
    # It flew to the first; N flies on.
    assert box.list.currentRow() == 0
    before = camera_of(window).center
    press(window, "N")
    assert box.list.currentRow() == 1
    assert camera_of(window).center != before
    box.buttons["Done"].click()
    assert box.list.item(1).text().startswith("✓")
    assert [one.done for one in read_windows(result)] == [one.done for one in box.windows]
    picture(window, "windows")
    # What is done is not shown again by Next, and stays when others are looked for.
    for _ in range(len(box.windows)):
        box.buttons["Next"].click()
        assert box.list.currentRow() != 1
    assert [one.name for one in teach_windows(result.path, 2) if one.done] == ["2"]
    box.begin()
    assert [one.name for one in box.windows if one.done] == ["2"]
    box.list.setCurrentRow(0)
    box.buttons["Done"].click()
    assert not any(one.done for one in read_windows(result))


def test_why_nothing_is_learned_is_said(found, told, tmp_path):
    box = found
    box.learn(tmp_path / "taught.safetensors")
    assert pump(lambda: told, 120)
    assert "is not the model any more that counted discs" in told[-1]
    assert box.state.text() == told[-1]
    assert not (tmp_path / "taught.safetensors").exists()
    on = [name for name, one in box.buttons.items() if one.isEnabled()]
    assert on == ["Find windows", "Next", "Done", "Learn …"]


def test_done_is_taken_back_in_the_order_in_which_things_were_done(window, shown, found):
    box, corrections = found, shown.inspector.opened.corrections

    def now():
        windows = read_windows(shown.inspector.opened.result)
        return [one.name for one in windows if one.done], len(corrections.edits)

    corrections.delete([1])
    box.buttons["Done"].click()
    corrections.delete([2])
    box.buttons["Next"].click()
    box.buttons["Done"].click()
    assert now() == (["1", "2"], 2)
    for wanted in ((["1"], 2), (["1"], 1), ([], 1), ([], 0), ([], 0)):
        press(window, "Ctrl+Z")
        assert now() == wanted
    assert not box.list.item(0).text().startswith("✓")
    box.buttons["Done"].click()
    shown.correct.buttons["Undo"].click()
    assert now() == ([], 0)
    box.list.setCurrentRow(0)
    box.buttons["Done"].click()
    # Other windows may have these names.
    box.find()
    assert pump(box.buttons["Find windows"].isEnabled, 60)
    press(window, "Ctrl+Z")
    assert now() == (["1"], 0)


def test_a_window_fills_the_canvas_as_it_is(window, shown, found):
    for size in ((1500, 1000), (1000, 700)):
        window.window.resize(*size)
        pump(seconds=0.5)
        found.look()
        pump(seconds=0.5)
        canvas = window.screenshot(canvas_only=True, flash=False).shape[:2]
        frame = shown.inspector.opened.result.frame
        side = max(found.windows[0].box.shape) * frame.downsample * frame.mpp
        assert side * camera_of(window).zoom == pytest.approx(0.9 * min(canvas), rel=0.02)


def cells_layers(window):
    return [one for one in window.layers if one.metadata.get("cellseg_role") == "cells"]


def test_what_was_learned_counts_again(window, corrected, tmp_path, picture):
    shown, model = corrected, tmp_path / "taught.safetensors"
    box, opened = shown.windows, shown.inspector.opened
    recounts = [box.buttons[name] for name in ("Recount in sight", "Recount slide")]
    assert not any(one.isEnabled() for one in recounts)
    box.learn(model)
    assert not box.buttons["Find windows"].isEnabled()
    assert pump(box.buttons["Done"].isEnabled)
    assert "2 windows with" in box.state.text()
    card = read_card(model)
    assert card.protocol.score > 0.5
    assert [name for name, one in box.buttons.items() if not one.isEnabled()] == ["Stop"]
    # What the canvas shows, at once; the first count stays, and its panel.
    box.list.setCurrentRow(1)
    box.look()
    pump(seconds=0.5)
    first = cells_layers(window)
    edits = len(opened.corrections.edits)
    recounts[0].click()
    assert pump(box.buttons["Done"].isEnabled)
    picture(window, "recounted")
    before, now = map(int, re.findall("([0-9]+) (?:before|now)", box.state.text()))
    assert box.state.text().startswith("in sight: ")
    inside = box.windows[1].box
    y, x = (opened.column(f"centroid_{axis}_px") for axis in "yx")
    in_window = (y > inside.y0) & (y < inside.y1) & (x > inside.x0) & (x < inside.x1)
    assert in_window.sum() <= before < len(opened.cells.labels())
    layers = cells_layers(window)
    assert layers[: len(first)] == first
    new = load_result(layers[-1].metadata["cellseg"].result.path)
    assert len(layers) == 2
    assert (len(new.table), new.section("model")["name"]) == (now, "taught")
    assert abs(now - before) <= before / 2
    assert layers[0].colormap.map(1).tolist() != layers[1].colormap.map(1).tolist()
    assert shown.inspector.opened is opened
    assert shown.isVisible()
    assert len(opened.corrections.edits) == edits
    # The slide, by another click; in sight once more, in place of the first time.
    recounts[1].click()
    assert pump(box.buttons["Done"].isEnabled)
    whole = load_result(opened.result.path.with_name("slide taught.cellseg"))
    assert f"in {whole.path.name}: {len(opened.cells.labels())} before" in box.state.text()
    assert f"{len(whole.table)} now" in box.state.text()
    assert len(whole.table) > now
    recounts[0].click()
    assert pump(box.buttons["Done"].isEnabled)
    assert len(cells_layers(window)) == 3


def test_learning_is_stopped_by_its_button_and_with_its_panel(
    window, corrected, tmp_path, monkeypatch
):
    box, model = corrected.windows, tmp_path / "taught.safetensors"
    monkeypatch.setattr(_windows_box, "MINUTES", 1000)
    model.write_bytes(b"earlier")
    box.learn(model)
    assert pump(lambda: box.process.processId())
    assert [name for name, one in box.buttons.items() if one.isEnabled()] == ["Stop"]
    box.buttons["Stop"].click()
    assert pump(box.buttons["Learn …"].isEnabled, 60)
    assert box.state.text() == "stopped"
    assert not box.buttons["Recount slide"].isEnabled()
    box.learn(model)
    assert pump(lambda: box.process.processId())
    learning = box.process.processId()
    window.layers.remove(cells_layers(window)[0])
    assert pump(lambda: not psutil.pid_exists(learning), 60)
    assert model.read_bytes() == b"earlier"
