"""One scale a slide, row by row."""

import numpy as np
import pytest

from cellseg.stain.normalise import RGB_FROM_HED, Normaliser

RAMP = np.arange(1001.0).reshape(1, 1001, 1)
NAN = np.where(RAMP == 500, np.nan, RAMP)

# What is fitted, the light, the range, values that are scaled, and what they become.
FITS = {
    "a ramp": (RAMP, "fluorescence", (10, 998), [0, 10, 504, 998, 1000], [0, 0, 0.5, 1, 1]),
    "16 bit": (
        (RAMP * 65).astype(np.uint16), "fluorescence", (650, 64870), [650, 64870], [0, 1],
    ),
    "31 bits above zero": (
        RAMP.astype(np.uint32) + np.uint32(2**31), "fluorescence",
        (2**31 + 10, 2**31 + 998), [2**31 + 10, 2**31 + 504], [0, 0.5],
    ),
    "floats far from zero": (
        RAMP + 1e12, "fluorescence", (1e12 + 10, 1e12 + 998), [1e12 + 504], [0.5],
    ),
    "huge floats": (RAMP * 1e300, "fluorescence", (1e301, 9.98e302), [5.04e302], [0.5]),
    "the brightest of two channels": (
        np.concatenate([RAMP, 0 * RAMP], axis=2), "fluorescence", (10, 998), [504], [0.5],
    ),
    "NaN is left out and dark": (NAN, "fluorescence", (9.99, 998), [np.nan], [0]),
    "NaN is white in transmitted light": (NAN, "transmitted", (0, 999), [np.nan], [1]),
    "infinities": (
        np.where(RAMP == 1000, np.inf, RAMP), "fluorescence", (9.99, 997), [np.inf, -np.inf],
        [0, 0],
    ),
    "nothing finite": (RAMP * np.nan, "fluorescence", (0, 1), [np.nan], [0]),
    "one value": (RAMP * 0 + 7, "fluorescence", (7, 8), [7], [0]),
    "zero": (RAMP * 0, "fluorescence", (0, 1), [0], [0]),
    # The next number lies further away than one.
    "one huge value": (RAMP * 0 - 9.9e29, "fluorescence", (-9.9e29, -9.8999901e29), [-9.9e29], [0]),
    "one huge value in transmitted light": (
        RAMP * 0 - 9.9e29, "transmitted", (-9.9e29, -9.8999901e29), [-9.9e29], [0],
    ),
    "one value in transmitted light": (RAMP * 0 + 7, "transmitted", (0, 7), [7], [1]),
    "black in transmitted light": (RAMP * 0, "transmitted", (0, 1), [0], [0]),
    "white": (RAMP * 0 + 255, "transmitted", (0, 255), [255], [1]),
    "transmitted light": (RAMP, "transmitted", (0, 999), [0, 999], [0, 1]),
    "light below zero": (RAMP - 2000, "transmitted", (-1999, -1001), [-1500], [0.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_fitted_and_applied(name):
    pixels, light, (low, high), values, expected = FITS[name]
    scale = Normaliser.fit(pixels, light)
    assert scale.low == pytest.approx(low, rel=1e-12, abs=0.02)
    assert scale.high == pytest.approx(high, rel=1e-12, abs=0.02)
    assert not scale.blank
    dtype = pixels.dtype if np.isfinite(values).all() else np.float64
    seen = scale.apply(np.array(values, dtype=dtype).reshape(1, -1, 1))
    assert seen.dtype == np.float32
    assert seen.shape == (1, len(values), 3)
    np.testing.assert_allclose(seen[0, :, 0], expected, atol=2e-3)
    assert (seen == seen[..., :1]).all()


def test_colours_keep_their_ratio_and_channels_their_brightest():
    pixel = np.array([[[200, 100, 50]]], dtype=np.uint8)
    stained = Normaliser(0, 200, "transmitted").apply(pixel)[0, 0]
    np.testing.assert_allclose(stained, [1, 0.5, 0.25])
    np.testing.assert_allclose(Normaliser(0, 200, "fluorescence").apply(pixel)[0, 0], 1)


def test_brown_fades_and_blue_stays():
    dyes = {"blue": RGB_FROM_HED[0], "brown": RGB_FROM_HED[2], "both": RGB_FROM_HED[[0, 2]].sum(0)}
    pixels = 255 * np.exp(-np.array(list(dyes.values())))[None]
    seen = Normaliser(0, 255, "transmitted", dab=0.6).apply(pixels)[0]
    expected = [dyes["blue"], 0.6 * dyes["brown"], dyes["blue"] + 0.6 * dyes["brown"]]
    np.testing.assert_allclose(-np.log(seen), expected, atol=1e-3)
    assert (Normaliser(0, 255, "transmitted", dab=0.6).apply(pixels * 0 + 255) == 1).all()


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(H, W, 1 or 3\)"):
        Normaliser(0, 1, "fluorescence").apply(np.zeros(shape))


@pytest.mark.parametrize("high", [0, -1, float("nan")])
def test_an_empty_range_is_refused(high):
    with pytest.raises(ValueError, match="low < high"):
        Normaliser(0, high, "fluorescence")
