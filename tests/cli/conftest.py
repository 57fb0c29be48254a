"""The command line in this process, without the network's weights."""

from __future__ import annotations

import sys

import pytest

from cellseg.cli import main
from cellseg.network.threshold import ThresholdDetector


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    """Count without the network's weights."""
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector", lambda model, **_: ThresholdDetector()
    )


@pytest.fixture
def cellseg(monkeypatch, capsys):
    """Run ``cellseg ARGS`` in this process: (exit code, stdout, stderr)."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cellseg", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    return call
