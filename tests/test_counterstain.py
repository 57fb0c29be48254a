from __future__ import annotations

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb_from_hed

from cellseg.intensity.counterstain import HEMATOXYLIN_GAIN, as_hematoxylin_eosin


def stained(amounts):
    """A picture of one colour from amounts of haematoxylin, eosin and DAB."""
    return np.exp(-(np.array(amounts) @ rgb_from_hed))[None, None].astype(np.float32)


def test_white_stays_white():
    white = np.ones((4, 5, 3), np.float32)
    assert np.allclose(as_hematoxylin_eosin(white), 1.0, atol=1e-6)


def test_hematoxylin_grows_and_keeps_its_colour():
    before, after = stained((0.4, 0, 0)), as_hematoxylin_eosin(stained((0.4, 0, 0)))
    assert np.allclose(-np.log(after), -np.log(before) * HEMATOXYLIN_GAIN, rtol=1e-3)


def test_brown_becomes_pink():
    brown = stained((0, 0, 1.0))[0, 0]
    pink = as_hematoxylin_eosin(stained((0, 0, 1.0)))[0, 0]
    assert brown[2] < brown[1]
    assert pink[2] > pink[1]
    assert pink.mean() > brown.mean()


def test_a_pixel_does_not_look_at_its_neighbours():
    image = hed2rgb(np.random.default_rng(0).uniform(0, 0.3, (8, 8, 3))).astype(np.float32)
    whole = as_hematoxylin_eosin(image)
    assert np.array_equal(as_hematoxylin_eosin(image[2:5, 3:7]), whole[2:5, 3:7])


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected"):
        as_hematoxylin_eosin(np.ones((4, 4), np.float32))
