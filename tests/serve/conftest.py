"""A counted slide of two classes with nasty names."""

import numpy as np
import pytest
from finished import copied
from serve import served
from synthetic import write_disc_slide

from cellseg.result import load_result


@pytest.fixture(scope="session")
def counted(tmp_path_factory):
    """The result folder, beside its slide."""
    path = tmp_path_factory.mktemp("counted") / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=served.SHAPE)
    return served.count(path)


@pytest.fixture(scope="session")
def table(counted):
    return load_result(counted).table.load()


@pytest.fixture
def folder(counted, tmp_path):
    """A copy, to be changed."""
    return copied(counted, tmp_path)
