"""A slide of discs, every fifth of them brown, that is counted once for all modules."""

import pytest
from finished import IHC, brown_discs, copied, counted_folder


@pytest.fixture(scope="session")
def slide(tmp_path_factory):
    return brown_discs(tmp_path_factory.mktemp("discs") / "discs.tif")


@pytest.fixture(scope="session")
def counted_once(slide):
    return counted_folder(slide, IHC)


@pytest.fixture
def folder(tmp_path, counted_once):
    """A copy of the result and its slide, which may be changed."""
    return copied(counted_once, tmp_path)
