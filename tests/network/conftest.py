"""Networks are loaded anew by each test."""

import pytest

from cellseg.network import detect


@pytest.fixture(autouse=True)
def _forgotten():
    detect._loaded.cache_clear()
    yield
    detect._loaded.cache_clear()
