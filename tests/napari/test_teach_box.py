"""Classes by clicking, in a real window."""

import numpy as np
import pytest
from window import click, press, pump

from cellseg.derive import Recipe
from cellseg.result import load_result


@pytest.fixture
def panel(panel):
    panel.shown.tabs.setCurrentWidget(panel.shown.teach)
    return panel


def teach(window, shown, name, labels):
    """Click cells of a class, as a person does."""
    shown.teach.name.setCurrentText(name)
    for label in labels.tolist():
        click(window, shown.inspector.opened.place_of(label)[0])


@pytest.fixture
def two_kinds(panel):
    """Labels of the palely and of the darkly stained discs."""
    values = panel.shown.inspector.opened.column("hematoxylin_od_mean")
    dark = values > (values.min() + values.max()) / 2
    assert 5 < dark.sum() < len(values) - 5
    return np.flatnonzero(~dark) + 1, np.flatnonzero(dark) + 1


def test_a_few_clicks_colour_all_cells(window, panel, two_kinds, told, picture):
    shown, (pale, dark) = panel.shown, two_kinds
    box, opened = shown.teach, shown.inspector.opened
    teach(window, shown, "pale", pale[:20:4])
    assert "5 pale" in box.state.text()
    assert "two classes are needed" in box.state.text()
    teach(window, shown, "dark", dark[:5])
    assert f"pale</span>: {len(pale)}" in box.state.text().replace("</span> pale", "pale</span>")
    assert "5 clicks, precision 1.00, recall 1.00" in box.state.text()
    layer = window.layers["discs: clicked classes"]
    found, labels = np.asarray(layer.data[0]), np.asarray(opened.result.labels()[0])
    for label, code in ((pale[-1], 0), (dark[-1], 1)):
        values = found[labels == label]
        assert set(values[np.isfinite(values)]) == {float(code)}
    picture(window, "taught")
    assert panel.width() <= 400
    # The next one is shown, and not clicked; N does the same.
    before = [click.label for click in box.clicks]
    press(window, "N")
    assert shown.inspector.selected[0] not in before
    assert [click.label for click in box.clicks] == before
    box.buttons["Save classes"].click()
    assert pump(lambda: any("classes saved" in text for text in told), 60)
    result = load_result(opened.result.path)
    assert result.run["summary"]["cells_per_class"] == {"pale": len(pale), "dark": len(dark)}
    again = panel.shown.teach
    assert [click.label for click in again.clicks] == before
    assert "5 clicks" in again.state.text()
    # Everything taken back and saved, the model's class is back.
    for _ in before:
        again.undo()
    panel.shown.tabs.setCurrentWidget(panel.shown.look)
    panel.shown.tabs.setCurrentWidget(again)
    assert again.clicks == []
    told.clear()
    again.save()
    assert pump(lambda: any("classes saved" in text for text in told), 60)
    assert Recipe.of(load_result(result.path)).taught is None
    assert load_result(result.path).class_names == ["nucleus"]


def test_a_file_goes_to_another_result(window, panel, two_kinds, tmp_path, told):
    shown, (pale, dark) = panel.shown, two_kinds
    box = shown.teach
    box.buttons["Next"].click()
    assert "two cells of each of two classes" in told[-1]
    click(window, shown.inspector.opened.place_of(1)[0])
    assert "type the name of a class" in told[-1]
    teach(window, shown, "pale", pale[:3])
    teach(window, shown, "dark", dark[:3])
    box.colours["dark"] = (1, 2, 3)
    box.unsure.setValue(0.75)
    assert "unsure" in box.state.text()
    box.export(tmp_path / "classes.json")
    while box.clicks:
        box.undo()
    box.buttons["Take back"].click()
    assert "nothing was clicked" in told[-1]
    box.load(tmp_path / "classes.json")
    assert (len(box.clicks), box.unsure.value()) == (6, 0.75)
    assert box.colours["dark"] == (1, 2, 3)
    shown.inspector.opened.corrections.delete([int(pale[0]), int(dark[5])])
    pump(seconds=0.2)
    assert box.taught is not None, "cells that a person deleted are left out, clicks stay"
