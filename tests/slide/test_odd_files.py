"""Real slides, and files that are broken, hostile or merely unusual."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from limited import PROBE, limited

from cellseg.errors import CellsegError, InputError
from cellseg.geometry import Box
from cellseg.slide import open_slide


def odd_file(shared: Path, name: str) -> Path:
    """One of other projects' files; not every copy of the test data has all of them."""
    path = shared / "odd" / name
    if not path.exists():
        pytest.skip(f"no {name} here")
    return path


def test_every_odd_file_reads_or_says_why_not(shared):
    read, refused = 0, 0
    files = [file for file in sorted((shared / "odd").iterdir()) if file.is_file()]
    for file in files:
        if file.name == "README.txt":
            continue
        try:
            with open_slide(file) as slide:
                height, width = slide.lattice_shape(1.0)
                region = slide.read(Box(0, 0, min(height, 64), min(width, 64)))
                overview, _ = slide.overview(128)
                assert region.dtype == overview.dtype == slide.dtype
                assert region.shape[2] == overview.shape[2] == len(slide.channels)
            read += 1
        except CellsegError as error:
            text = str(error)
            assert "\n" not in text, file.name
            assert file.name in text, file.name
            assert len(text) < 400, file.name
            refused += 1
    assert read > 120
    assert refused > 10


def test_fuzzed_files_under_limits(shared):
    files = sorted((shared / "odd" / "fuzz").iterdir())
    done = limited("-c", PROBE, *map(str, files), memory=4_000_000_000)
    assert done.code in (0, InputError.exit_code), done
    assert done.cpu_s < 60
    for file, line in zip(files, done.said.splitlines(), strict=True):
        assert line == "read" or line.startswith(file.name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("made__empty_0byte.tif", "is empty"),
        ("made__text_renamed.tif", "no image that cellseg reads"),
        ("made__header_only.tif", "cut off"),
        ("made__CMU-1_truncated_1MB.svs", "cut off"),
        ("pillow__libtiff_segfault.tif", "claims 65,535 channels"),
        ("imagetiff__libtiffpic__text.tif", "compression"),
        ("pillow__lab.tif", "CIELAB"),
        ("pillow__truncated_jpeg.jpg", "too early"),
    ],
)
def test_bad_files_say_what_is_wrong(shared, name, says):
    with pytest.raises(InputError, match=says) as caught:
        open_slide(odd_file(shared, name))
    assert str(caught.value).startswith(name)


def test_odd_files_look_right(shared):
    """The same picture in several encodings has the same pixels."""

    def read(name: str) -> np.ndarray:
        with open_slide(odd_file(shared, name)) as slide:
            return slide.read(Box(0, 0, slide.height, slide.width)).astype(int)

    depth = "imagetiff__libtiffpic__depth__flower-rgb"
    for bits in ("08", "04", "02"):
        both = [read(f"{depth}-{kind}-{bits}.tif") for kind in ("contig", "planar")]
        np.testing.assert_array_equal(*both)
    np.testing.assert_allclose(
        read(f"{depth}-contig-04.tif"), read(f"{depth}-contig-08.tif"), atol=20
    )
    planar = read("pillow__tiff_strip_planar_lzw.tiff")
    np.testing.assert_array_equal(planar, read("pillow__tiff_tiled_planar_raw.tif"))
    np.testing.assert_array_equal(planar, read("pillow__tiff_strip_raw.tif"))


def test_four_variants_of_one_slide_agree(shared):
    slides = shared / "slides"
    files = [slides / "CMU-1-Small-Region.svs", *sorted((slides / "made").iterdir())]
    assert len(files) == 4
    regions = []
    for file in files:
        with open_slide(file) as slide:
            assert (slide.height, slide.width, slide.is_rgb) == (2967, 2220, True)
            assert slide.mpp == pytest.approx(0.499)
            box = Box(300, 100, 700, 500)
            regions.append((slide.read(box), slide.read(box, downsample=2.0)))
    for native, half in regions[1:]:
        for got, expected in ((native, regions[0][0]), (half, regions[0][1])):
            assert np.abs(got.astype(int) - expected).mean() < 2.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OS-1-detail.ome.tif", ("OME-TIFF", 0.2271, True, 3)),
        ("instanseg_Fluorescence_example.tif", ("ImageJ TIFF", None, False, 2)),
        ("multi-channel-z-series.ome.tif", ("OME-TIFF", None, False, 3)),
        ("cellprofiler/ExampleFly_images_01_POS002_D.TIF", ("TIFF", None, False, 1)),
        ("neubias/xyc_16bit__hela-cells.tif", ("ImageJ TIFF", 0.0515, False, 3)),
        ("viv_bioformats-zarr", ("OME-Zarr 0.1", None, False, 3)),
        ("viv_ome-zarr/blobs_image_v05.ome.zarr", ("OME-Zarr 0.5", None, False, 3)),
        ("large_image_yb10kx5k.zstd.tiff", ("pyramidal BigTIFF", None, True, 3)),
    ],
)
def test_real_files(shared, name, expected):
    kind, mpp, is_rgb, channels = expected
    with open_slide(shared / "slides" / name) as slide:
        assert (slide.format, slide.is_rgb, len(slide.channels)) == (kind, is_rgb, channels)
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))
        assert slide.overview(200)[0].std() > 0
