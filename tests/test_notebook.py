"""The notebook of the docs runs from top to bottom, on the example slide, as its reader runs it."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import write_ihc_example

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The executed notebook."""
    home = tmp_path_factory.mktemp("checkout")
    (home / "docs").mkdir()
    generated = home / "example_slides" / "generated"
    generated.mkdir(parents=True)
    write_ihc_example(generated / "ihc.tif")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(home / "docs")}}
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    client.execute(env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    return notebook


def outputs(notebook, kind: str) -> list[str]:
    return [
        str(output.data[kind])
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def test_it_shows_numbers_pictures_and_no_errors(ran):
    html = "\n".join(outputs(ran, "text/html"))
    assert "nuclei" in html
    assert "data:image/jpeg;base64," in html
    shown = outputs(ran, "text/plain")
    assert {"'1.000'", "'1.001'", "'0.999'"} & {*shown}, "outlines have the masks' areas"
    pictures = outputs(ran, "image/png")
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert np.asarray(image.convert("L")).std() > 5
    said = "".join(
        output.get("text", "") for cell in ran.cells for output in cell.get("outputs", ())
    )
    assert "CountWarning" in said


def test_it_is_stored_without_outputs():
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in stored.cells)
    assert NOTEBOOK.stat().st_size < 20_000
