"""``--max-memory``, and what is said when memory runs out."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from limited import limited
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux enforces the limit")


def _refused_by_numpy() -> MemoryError:
    with pytest.raises(MemoryError) as refused:
        np.empty(1 << 60, np.uint8)
    return refused.value


def test_what_does_not_fit_is_refused_before_it_is_decoded(tmp_path):
    picture = tmp_path / "flat.png"
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(picture)
    probe = ("-m", "cellseg", "--max-memory", "0.7", "info", str(picture))
    refused = limited(*probe)
    assert refused.code == 4, refused.said
    assert "more than the 0.3 GB that may be used" in refused.said
    assert limited("-m", "cellseg", "info", str(picture)).code == 0


def test_the_system_holds_the_limit(tmp_path):
    """Whatever else takes memory: no more is given, and one line says so."""
    code = (
        "import sys, cellseg.cli, cellseg.cli.view, numpy as np\n"
        "cellseg.cli.view.PLACE.convert = lambda *given: np.ones(10**9).sum()\n"
        "sys.argv = ['cellseg', '--max-memory', '1', 'info', 'x']\n"
        "cellseg.cli.main()"
    )
    found = limited("-c", code, memory=40_000_000_000)
    assert found.code == 4, found.said
    assert re.fullmatch(r"cellseg: not enough memory; .*\(--max-memory.*\n", found.said)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        _refused_by_numpy(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_lack_of_memory_is_told_as_such(cellseg, tmp_path, monkeypatch, error):
    picture = tmp_path / "a.png"
    Image.new("L", (9, 9)).save(picture)

    def run(request: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("cellseg.run.run", run)
    code, _, said = cellseg("count", picture)
    assert code == 4
    assert "not enough memory" in said
    assert "unexpected" not in said


def test_less_than_any_run_needs_is_a_mistake(cellseg):
    assert cellseg("--max-memory", "0.1", "info", "x")[0] == 2
