"""The same picture counts the same, whatever the file's format."""

from __future__ import annotations

from pathlib import Path

import pytest
from microscopes import CELLS, COLOUR, GREYS

from cellseg.counting.request import CountRequest
from cellseg.events import CountResult
from cellseg.network.threshold import ThresholdDetector
from cellseg.run import run


@pytest.mark.parametrize("form", [*COLOUR, *(f"{form}, dyes" for form in GREYS)])
def test_each_format_counts_the_same(form: str, tmp_path: Path) -> None:
    name, _, dyes = form.partition(", ")
    path = (GREYS if dyes else COLOUR)[name](tmp_path)
    request = CountRequest(
        image=path, diameter_px=20.0, prefilter=False, protocol="fluorescence" if dyes else "he"
    )
    *_, done = run(request, detector=ThresholdDetector())
    assert isinstance(done, CountResult)
    assert done.summary.cells == CELLS
