"""The command line in this process, without the network's weights."""

import pytest
from synthetic.threshold import ThresholdDetector


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    """Count without the network's weights."""
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector", lambda model, **_: ThresholdDetector()
    )
