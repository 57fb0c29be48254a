"""Dyes of a slide: estimated where two are there, and the published ones where not."""

import numpy as np
import pytest

from cellseg.errors import SettingsError
from cellseg.protocol import load_protocol
from cellseg.stain.dyes import Dyes, estimated_dyes, given_dyes

NAMES = ("hematoxylin", "dab")
BLUE, BROWN = np.array([0.78, 0.58, 0.24]), np.array([0.40, 0.58, 0.71])
"""Eleven degrees from the published directions, as another scanner and another batch have them."""

WHITE = np.array([242.0, 236.0, 228.0])


def pixels(rng, blue, brown, number=20_000):
    """Glass, and tissue with some of each dye."""
    amounts = np.stack([rng.gamma(2, blue / 2, number), rng.gamma(2, brown / 2, number)], axis=1)
    amounts[: number // 3] = 0
    amounts[number // 3 : 2 * number // 3, 1] = 0
    seen = WHITE * 10 ** -(amounts @ np.array([unit(BLUE), unit(BROWN)]))
    return np.clip(seen + rng.normal(0, 1.5, seen.shape), 0, 255)


def unit(vector):
    return vector / np.linalg.norm(vector)


def degrees(one, other):
    return np.degrees(np.arccos(np.clip(np.dot(unit(np.array(one)), unit(other)), -1, 1)))


def test_both_directions_and_the_white_are_found():
    found = estimated_dyes(pixels(np.random.default_rng(0), 0.5, 0.6), NAMES)
    assert found.method == "macenko"
    assert degrees(found.vectors["hematoxylin"], BLUE) < 5
    assert degrees(found.vectors["dab"], BROWN) < 5
    assert np.allclose(found.white, WHITE, atol=5)
    assert "Macenko" in found.note


def test_a_scanner_of_its_own_colours_gives_the_same_amounts():
    rng = np.random.default_rng(1)
    found = estimated_dyes(pixels(rng, 0.5, 0.6), NAMES)
    density = np.array([[0.3, 0.4]]) @ np.array([unit(BLUE), unit(BROWN)])
    amounts = found.unmixed(density)
    assert amounts["dab"][0] == pytest.approx(0.4, abs=0.05)
    assert amounts["hematoxylin"][0] == pytest.approx(0.3, abs=0.05)
    fixed = Dyes.from_dict({"white": (1, 1, 1), "method": "fixed",
                            "vectors": {"hematoxylin": (0.65, 0.7, 0.29),
                                        "dab": (0.27, 0.57, 0.78)}})  # fmt: skip
    off = abs(fixed.unmixed(density)["dab"][0] - 0.4)
    assert abs(amounts["dab"][0] - 0.4) < off / 2


def test_one_dye_only_leaves_the_published_ones_and_says_so():
    rng = np.random.default_rng(2)
    found = estimated_dyes(pixels(rng, 0.5, 1e-9), NAMES)
    assert found.method == "fixed"
    assert "one dye only" in found.note
    assert "too few" in estimated_dyes(np.full((5000, 3), 240.0), NAMES).note


def test_other_dyes_than_the_protocol_says_are_not_taken():
    rng = np.random.default_rng(3)
    green = WHITE * 10 ** -(rng.gamma(2, 0.3, (5000, 1)) * unit(np.array([0.9, 0.1, 0.4])))
    green[:1000] = WHITE
    found = estimated_dyes(np.concatenate([green, pixels(rng, 0.5, 1e-9, 5000)]), NAMES)
    assert found.method == "fixed"
    assert "from the published one" in found.note


def test_given_dyes_are_taken_with_the_slides_white():
    found = given_dyes({"hematoxylin": (6, 7, 3), "dab": (3, 6, 8)}, np.full((100, 3), 200.0))
    assert found.white == (200, 200, 200)
    assert np.linalg.norm(found.vectors["dab"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "dyes", [{"dab": (0, 0, 1)}, {"hematoxylin": (0, 0, 0), "dab": (0, 0, 1)}, "vahadane"]
)
def test_dyes_that_are_none_are_refused(dyes):
    with pytest.raises(SettingsError, match="dyes"):
        load_protocol("ihc").changed(dyes=dyes)
