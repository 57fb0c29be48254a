"""Windows to correct, in a real window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellseg_napari import add_layers, read_result
from cellseg_napari._opened import camera_of
from window import dock, press, pump

from cellseg.train.windows import read_windows, teach_windows


@pytest.fixture
def shown(window: Any, counted_discs: Path) -> Any:
    add_layers(window, read_result(counted_discs))
    found = dock(window, "Inspect and correct cells")
    found.shown.tabs.setCurrentWidget(found.shown.windows)
    pump(seconds=0.3)
    return found.shown


def test_windows_are_found_shown_one_by_one_and_set_done(
    window: Any, shown: Any, told: list[str], picture: Callable[..., Any]
) -> None:
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


def test_why_nothing_is_learned_is_said(shown: Any, told: list[str], tmp_path: Path) -> None:
    box = shown.windows
    box.find()
    assert pump(lambda: box.windows, 60)
    box.learn(tmp_path / "taught.safetensors")
    assert pump(lambda: told, 120)
    assert "is not the model any more that counted discs" in told[-1]
    assert box.state.text() == told[-1]
    assert not (tmp_path / "taught.safetensors").exists()
    assert all(one.isEnabled() for one in box.buttons.values())
