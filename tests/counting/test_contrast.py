"""Noise and bare background are no nuclei, however they are made; faint nuclei are nuclei."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import skimage
import tifffile
from finished import counted
from PIL import Image
from scipy import ndimage
from synthetic.discs import discs_at
from synthetic.nuclei import Scene
from synthetic.stained import draw_stained
from synthetic.threshold import ThresholdDetector

import cellseg
from cellseg.counting.measured import is_background, is_ringed
from cellseg.counting.request import CountRequest
from cellseg.instances import Instances
from cellseg.result import load_result
from cellseg.run import run
from cellseg.stain.contrast import look_at

SHAPE = (384, 448)
SAID = "no contrast beyond noise was found: nothing is counted"
EOSIN = np.array((226.0, 160.0, 196.0))


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
    rows, columns = (range(spacing // 2, side - radius, spacing) for side in SHAPE)
    grid = np.array([(y, x) for y in rows for x in columns])
    centres = grid + rng.uniform(-0.1, 0.1, grid.shape) * spacing
    return ndimage.gaussian_filter(discs_at(SHAPE, centres, radius).astype(float), 1)


SIZES = [(200, 10), (60, 10), (28, 10), (18, 6)]


@pytest.mark.parametrize(
    ("sigma", "snr", "spacing", "radius"),
    [
        *((0, snr, *size) for snr in (0, 2, 3, 5, 10) for size in SIZES),
        *((1, snr, 60, 10) for snr in (4, 6, 8, 10)),
    ],
)
def test_nuclei_are_seen_down_to_twice_the_noise(sigma, snr, spacing, radius):
    """Down to four times the noise where it is correlated."""
    rng = np.random.default_rng(snr)
    pixels = 300 + 20 * (blurred(rng, sigma) + snr * discs(rng, spacing=spacing, radius=radius))
    look = look_at(pixels.astype(np.uint16)[..., None], "fluorescence", stained=False)
    assert look.objects == (snr > 0)


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
    nucleus = discs_at((768, 768), [(300, 500)], 9)
    nucleus = ndimage.gaussian_filter(nucleus.astype(float), 1)
    pixels = 100 + 9 * ndimage.gaussian_filter(rng.standard_normal((768, 768)), 1) * 3.5
    tifffile.imwrite(tmp_path / "one.tif", (pixels + 400 * nucleus).astype(np.uint16))
    result = result_of(tmp_path / "one.tif")
    assert result.summary.cells == 1
    assert not any("noise may be counted" in line for line in result.warnings)
    settings = load_result(result.folder).run["settings"]
    assert settings["intensity_high"] > 220


def test_a_slide_that_is_empty_but_for_one_corner_is_not_empty(tmp_path, monkeypatch):
    """More patches than are sampled for the range are looked at before it is called empty."""
    monkeypatch.setattr("cellseg.counting.plan.SAMPLES", 4)
    rng = np.random.default_rng(8)
    pixels = (100 + 5 * rng.standard_normal((512, 512 * 8))).astype(np.uint16)
    left = 512 * int(np.random.default_rng(0).permutation(8)[-1])
    centres = [(row, column) for row in range(40, 500, 60) for column in range(40, 500, 60)]
    pixels[:, left : left + 512][discs_at((512, 512), centres, 10)] += 300
    tifffile.imwrite(tmp_path / "corner.tif", pixels)
    assert result_of(tmp_path / "corner.tif", prefilter=False).summary.cells == 64


STAINED = {
    "white glass": lambda rng: np.full((*SHAPE, 3), 244.0),
    "plain eosin": lambda rng: np.full((*SHAPE, 3), EOSIN),
    "uneven eosin": lambda rng: uneven()[..., None] * EOSIN,
    "texture out of focus": lambda rng: (
        np.array((200.0, 130.0, 180.0)) + 15 * blurred(rng, 15)[..., None]
    ),
    "tissue out of focus": lambda rng: ndimage.gaussian_filter(
        draw_stained(Scene(SHAPE[0], SHAPE[1], nuclei=60), rng).image.astype(float),
        (16, 16, 0),
    ),
}


def noisy_jpeg(make):
    def noisy(rng):
        pixels = make(rng)
        return jpeg(pixels + 2 * rng.standard_normal(pixels.shape), 80)

    return noisy


HE = {"protocol": "he", "prefilter": False}
COUNTED = {
    **{name: (EMPTY[name], {}) for name in (
        "16 bit, blurred", "JPEG 75, little noise", "few photons", "hot pixels", "channels",
    )},
    **{name: (noisy_jpeg(make), HE) for name, make in STAINED.items()},
    "glass": (lambda rng: np.full((512, 512, 3), 244, np.uint8), {"protocol": "he"}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "settings"), COUNTED.values(), ids=COUNTED)
def test_an_empty_field_counts_as_nothing_and_is_told(tmp_path, make, settings):
    pixels = make(np.random.default_rng(5))
    colours = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "empty.tif", pixels, photometric=colours)
    result = result_of(tmp_path / "empty.tif", **settings)
    assert result.summary.cells == 0
    assert is_said(result.warnings)
    assert is_said(load_result(result.folder).run["warnings"])


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


NUCLEI = Path(__file__).parents[2] / "benchmarks" / "ihc_nuclei.csv"
Y, X = np.mgrid[:40, :40]
DISC = (Y - 20) ** 2 + (X - 20) ** 2 < 8**2


def field(ground: float, cell: float, noise: float, channels: int = 3):
    """A disc on even ground, with noise."""
    rng = np.random.default_rng(0)
    pixels = np.where(DISC, cell, ground)[..., None] + rng.normal(0, noise, (40, 40, channels))
    return pixels.astype(np.float32)


@pytest.mark.parametrize(
    ("ground", "noise"),
    [(0.96, 0.005), (0.02, 0.01), (0.5, 0.02)],
    ids=["glass", "dark", "phase contrast"],
)
def test_bare_background_is_no_cell_and_a_pale_one_is(ground, noise):
    assert is_background(DISC, field(ground, ground, noise))
    assert not is_background(DISC, field(ground, ground - 0.04, noise))
    assert not is_background(DISC, field(ground, ground + 0.04, noise))


def test_structure_makes_a_cell_also_without_contrast():
    textured = field(0.5, 0.5, 0.02)
    textured[DISC] += np.where((Y + X)[DISC] % 2, 0.06, -0.06)[:, None]
    assert not is_background(DISC, textured)


def test_unknown_pixels_are_not_held_against_a_cell():
    assert not is_background(DISC, np.full((40, 40, 3), np.nan, np.float32))
    assert not is_background(np.ones((40, 40), bool), field(0.96, 0.96, 0.005))


@pytest.mark.parametrize(
    ("inside", "around", "expected"),
    [(0.1, 0.4, True), (0.6, 0.3, False), (0.1, 0.05, None)],
    ids=["membranes", "a positive nucleus", "counterstain alone"],
)
def test_brown_around_a_nucleus_is_told_from_brown_in_it(inside, around, expected):
    assert is_ringed(DISC, np.where(DISC, inside, around)) is expected


def test_nuclei_among_stained_membranes_are_found_and_doubted(tmp_path):
    """Against nuclei that were annotated by eye."""
    skimage.io.imsave(tmp_path / "membranes.png", skimage.data.immunohistochemistry())
    *_, result = run(CountRequest(image=tmp_path / "membranes.png", mpp=0.6))
    nuclei = pd.read_csv(NUCLEI)
    centres = shapely.points(nuclei["x"], nuclei["y"])
    met = shapely.STRtree(cellseg.load_result(result.folder).outlines).query(centres, "within")[0]
    found = nuclei["kind"].iloc[np.unique(met)].value_counts() / nuclei["kind"].value_counts()
    assert found["gland"] >= 0.8
    assert found["stroma"] > 0.85
    assert any("membranes or cytoplasm" in doubt for doubt in result.warnings)
    assert not any("pixel size" in doubt for doubt in result.warnings)


class Dreaming(ThresholdDetector):
    """Finds the dark discs, and one more on the glass."""

    def detect(self, tile, *, fill, near=None):
        found = super().detect(tile, fill=fill)
        dreamt = Instances.build([(300, 300, 316, 316)], [0.9], [0], [DISC[12:28, 12:28]])
        return replace(found, instances=Instances.concatenate([found.instances, dreamt]))


def test_an_outline_on_glass_is_left_out_of_a_count_and_recorded(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.normal(240, 1, (512, 512, 3))
    for y, x in [(60, 60), (60, 200), (200, 130)]:
        pixels[y - 8 : y + 9, x - 8 : x + 9] = (90, 60, 140)
    tifffile.imwrite(tmp_path / "glass.tif", pixels.astype(np.uint8), photometric="rgb")
    request = CountRequest(image=tmp_path / "glass.tif", mpp=0.25, protocol="he", prefilter=False)
    done, _ = counted(request, Dreaming())
    assert done.summary.cells == 3
    assert load_result(done.folder).run["found"]["counted"]["like_background"] == 1
