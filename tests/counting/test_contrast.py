"""Noise is no nuclei, however it is made; faint nuclei are nuclei."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from finished import counted
from PIL import Image
from scipy import ndimage
from synthetic import FluorescenceScene, draw_fluorescence
from synthetic.nuclei import Scene
from synthetic.stained import draw_stained

from cellseg.result import load_result
from cellseg.run import CountRequest
from cellseg.stain.contrast import look_at

SHAPE = (384, 448)
SAID = "no contrast beyond noise was found: nothing is counted"


def is_said(warnings):
    return any(line.startswith(SAID) for line in warnings)


def white_noise(rng, shape=SHAPE):
    return rng.standard_normal(shape)


def blurred(rng, sigma):
    noise = ndimage.gaussian_filter(white_noise(rng), sigma, mode="wrap")
    return noise / noise.std()


def enlarged(rng, times, order):
    small = white_noise(rng, tuple(-(-side // times) for side in SHAPE))
    return ndimage.zoom(small, times, order=order)[: SHAPE[0], : SHAPE[1]]


def jpeg(values, quality):
    packed = io.BytesIO()
    Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(
        packed, "JPEG", quality=quality
    )
    return np.asarray(Image.open(packed))


def uneven():
    y, x = (np.linspace(-1, 1, side) for side in SHAPE)
    return 1 - 0.3 * y[:, None] ** 2 - 0.2 * x**2


EMPTY = {
    "16 bit, white": lambda rng: (100 + 9 * white_noise(rng)).astype(np.uint16),
    "16 bit, blurred": lambda rng: (100 + 9 * blurred(rng, 1)).astype(np.uint16),
    "16 bit, blurred weakly after": lambda rng: (
        100 + ndimage.gaussian_filter(9 * white_noise(rng), 1)
    ).round().astype(np.uint16),
    "16 bit, blurred by 2.5 px": lambda rng: (100 + 9 * blurred(rng, 2.5)).astype(np.uint16),
    "16 bit, enlarged twice": lambda rng: (100 + 3 * enlarged(rng, 2, 0)).astype(np.uint16),
    "16 bit, enlarged twice, smoothly": lambda rng: (
        100 + 3 * enlarged(rng, 2, 1)
    ).astype(np.uint16),
    "16 bit, enlarged 4 times": lambda rng: (100 + 3 * enlarged(rng, 4, 3)).astype(np.uint16),
    "8 bit, 30 ± 1": lambda rng: (30 + white_noise(rng)).round().astype(np.uint8),
    "8 bit, 30 ± 0.3": lambda rng: (30.2 + 0.3 * white_noise(rng)).round().astype(np.uint8),
    "JPEG 90": lambda rng: jpeg(30 + 3 * white_noise(rng), 90),
    "JPEG 75": lambda rng: jpeg(30 + 3 * white_noise(rng), 75),
    "JPEG 75, little noise": lambda rng: jpeg(30 + white_noise(rng), 75),
    "JPEG 50": lambda rng: jpeg(30 + 8 * white_noise(rng), 50),
    "uneven light": lambda rng: (100 * uneven() + 3 * white_noise(rng)).astype(np.uint16),
    "uneven light, JPEG": lambda rng: jpeg(60 * uneven() + white_noise(rng), 75),
    "uneven light without noise": lambda rng: (60 * uneven()).astype(np.uint8),
    "few photons": lambda rng: rng.poisson(0.3, SHAPE).astype(np.uint16),
    "photons": lambda rng: rng.poisson(5, SHAPE).astype(np.uint16),
    "hot pixels": lambda rng: (
        100 + 3 * white_noise(rng) + 4000 * (rng.random(SHAPE) < 1e-4)
    ).astype(np.uint16),
    "clipped at black": lambda rng: (3 * white_noise(rng)).clip(0).astype(np.uint16),
    "floats": lambda rng: (1e12 + 9 * blurred(rng, 1)),
    "channels": lambda rng: (100 + 9 * rng.standard_normal((*SHAPE, 3))).astype(np.uint8),
}  # fmt: skip


def result_of(path, **settings):
    return counted(CountRequest(image=path, **settings))[0]


@pytest.mark.parametrize(
    "name", ["16 bit, blurred", "JPEG 75, little noise", "few photons", "hot pixels", "channels"]
)
def test_an_empty_field_counts_as_nothing_and_is_told(tmp_path, name):
    path = tmp_path / "empty.tif"
    pixels = EMPTY[name](np.random.default_rng(5))
    tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    result = result_of(path)
    assert result.summary.cells == 0
    assert is_said(result.warnings)
    assert is_said(load_result(result.folder).run["warnings"])


def test_what_cannot_be_read_of_an_empty_field_is_said(tmp_path):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, EMPTY["16 bit, white"](np.random.default_rng(5)), rowsperstrip=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    result = result_of(path)
    assert is_said(result.warnings)
    assert result.tiles_failed == 1
    assert not load_result(result.folder).is_complete


@pytest.mark.parametrize("name", EMPTY)
def test_no_noise_is_taken_for_contrast(name):
    for seed in range(3):
        pixels = EMPTY[name](np.random.default_rng(seed)).reshape(*SHAPE, -1)
        assert not look_at(pixels, "fluorescence", stained=False).objects


def discs(rng, *, spacing, radius):
    """0 … 1, soft by a pixel."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    drawn = np.zeros(SHAPE)
    for top in range(spacing // 2, SHAPE[0] - radius, spacing):
        for left in range(spacing // 2, SHAPE[1] - radius, spacing):
            off = rng.uniform(-0.1, 0.1, 2) * spacing
            drawn[np.hypot(y - top - off[0], x - left - off[1]) <= radius] = 1
    return ndimage.gaussian_filter(drawn, 1)


@pytest.mark.parametrize("snr", [0, 2, 3, 5, 10])
@pytest.mark.parametrize(("spacing", "radius"), [(200, 10), (60, 10), (28, 10), (18, 6)])
def test_nuclei_are_seen_down_to_twice_the_noise(spacing, radius, snr):
    rng = np.random.default_rng(snr)
    ground = 300 + 20 * white_noise(rng)
    pixels = ground + 20 * snr * discs(rng, spacing=spacing, radius=radius)
    look = look_at(pixels.astype(np.uint16)[..., None], "fluorescence", stained=False)
    assert look.objects == (snr > 0)


@pytest.mark.parametrize("snr", [4, 6, 8, 10])
def test_nuclei_in_correlated_noise_are_seen(snr):
    rng = np.random.default_rng(snr)
    pixels = 300 + 20 * blurred(rng, 1) + 20 * snr * discs(rng, spacing=60, radius=10)
    assert look_at(pixels.astype(np.uint16)[..., None], "fluorescence", stained=False).objects


@pytest.mark.parametrize(("snr", "told"), [(2, True), (3, True), (8, False)])
def test_a_field_that_is_hardly_more_than_noise_is_told(tmp_path, snr, told):
    rng = np.random.default_rng(snr)
    pixels = 300 + 20 * (white_noise(rng) + snr * discs(rng, spacing=60, radius=10))
    tifffile.imwrite(tmp_path / "faint.tif", pixels.astype(np.uint16))
    warnings = result_of(tmp_path / "faint.tif").warnings
    assert any("noise may be counted" in line for line in warnings) == told


def test_a_single_nucleus_is_counted_alone(tmp_path):
    """Its field is noise by its percentiles, which must not be stretched to full contrast."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:768, :768]
    nucleus = ndimage.gaussian_filter((np.hypot(y - 300, x - 500) < 9).astype(float), 1)
    pixels = 100 + 9 * ndimage.gaussian_filter(rng.standard_normal((768, 768)), 1) * 3.5
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, (pixels + 400 * nucleus).astype(np.uint16))
    result = result_of(path)
    assert result.summary.cells == 1
    assert not any("noise may be counted" in line for line in result.warnings)
    settings = load_result(result.folder).run["settings"]
    assert settings["intensity_high"] > 220


def test_a_slide_that_is_empty_but_for_one_corner_is_not_empty(tmp_path, monkeypatch):
    """More patches than are sampled for the range are looked at before it is called empty."""
    monkeypatch.setattr("cellseg.counting.plan.SAMPLES", 4)
    rng = np.random.default_rng(8)
    pixels = (100 + 5 * rng.standard_normal((512, 512 * 8))).astype(np.uint16)
    y, x = np.mgrid[:512, :512]
    order = np.random.default_rng(0).permutation(8)
    left = 512 * int(order[-1])
    for row in range(40, 500, 60):
        for column in range(40, 500, 60):
            pixels[:, left : left + 512][np.hypot(y - row, x - column) < 10] += 300
    path = tmp_path / "corner.tif"
    tifffile.imwrite(path, pixels)
    assert result_of(path, prefilter=False).summary.cells == 64


STAINED = {
    "white glass": lambda rng: np.full((*SHAPE, 3), 244.0),
    "plain eosin": lambda rng: np.full((*SHAPE, 3), (226.0, 160.0, 196.0)),
    "uneven eosin": lambda rng: uneven()[..., None] * (226.0, 160.0, 196.0),
    "texture out of focus": lambda rng: (
        np.array((200.0, 130.0, 180.0)) + 15 * blurred(rng, 15)[..., None]
    ),
    "tissue out of focus": lambda rng: ndimage.gaussian_filter(
        draw_stained(Scene(SHAPE[0], SHAPE[1], nuclei=60), rng).image.astype(float),
        (16, 16, 0),
    ),
}


@pytest.mark.parametrize("name", STAINED)
def test_stained_without_nuclei(tmp_path, name):
    rng = np.random.default_rng(2)
    pixels = STAINED[name](rng)
    pixels = jpeg(pixels + 2 * rng.standard_normal(pixels.shape), 80)
    path = tmp_path / "stained.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    result = result_of(path, protocol="he", prefilter=False)
    assert result.summary.cells == 0
    assert is_said(result.warnings)


def test_scenes_with_nuclei_are_not_empty():
    rng = np.random.default_rng(4)
    stained = draw_stained(Scene(512, 512, nuclei=40), rng).image
    assert look_at(stained, "transmitted", stained=True).objects
    faint = FluorescenceScene(512, 512, nuclei=30, photons=20)
    assert look_at(
        draw_fluorescence(faint, rng).image[..., None], "fluorescence", stained=False
    ).objects


def test_glass_without_tissue_is_told(tmp_path):
    path = tmp_path / "glass.tif"
    tifffile.imwrite(path, np.full((512, 512, 3), 244, np.uint8), photometric="rgb")
    result = result_of(path, protocol="he")
    assert result.summary.cells == 0
    assert any("nothing is counted" in text for text in result.warnings)


def test_one_large_bright_object_is_seen():
    """A plate of chromosomes fills much of its field, and hides the ground's own spread."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:45, :45]
    body = np.hypot((y - 21) / 9, (x - 24) / 18) < 1
    texture = ndimage.gaussian_filter(rng.normal(0, 1, body.shape), 2.5)
    values = body * (1 + 0.9 * texture / texture.std()).clip(0.1)
    values = rng.normal(6 + 60 * ndimage.gaussian_filter(values, 1), 0.5)
    pixels = values.round().clip(0, 255).astype(np.uint8)[..., None]
    seen = look_at(pixels, "fluorescence", stained=False)
    assert seen.objects
    assert seen.noise < 1, "the object's own texture is no noise"
    empty = rng.poisson(np.full(body.shape, 6)).astype(np.uint8)[..., None]
    assert not look_at(empty, "fluorescence", stained=False).objects
