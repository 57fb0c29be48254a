"""Fixtures that every test file shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CELLSEG_TEST_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real images at {folder} (set CELLSEG_TEST_DATA)")
    return folder
