"""What files hold, made here and real ones, and what is said about it."""

import json
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from limited import PROBE, limited
from microscopes import pixels_of, saved, whole

from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.slide import limits, open_slide

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def ramp(*columns):
    return np.stack(columns).astype(np.uint16)


STEPS = np.arange(256) * 257
LIT = np.where(GREY > 128, 255, 0).astype(np.uint8)
RGBA = np.dstack([RGB, GREY])
ALPHA = {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "zlib"}
VALUES = RNG.random((30, 20)) * 200

# Pixels, how tifffile writes them, what is read, and a word that is said.
TIFFS = {
    **{
        f"{dtype} {how}": (values, {"compression": how}, values[..., None], "")
        for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
        for values in [(VALUES - (100 if dtype[0] in "if" else 0)).astype(dtype)]
        for how in (None, "zlib")
    },
    "white is zero": (GREY, {"photometric": "miniswhite"}, 255 - GREY[..., None], "inverted"),
    "one bit": (GREY > 128, {"photometric": "minisblack"}, LIT[..., None], "1 bit"),
    "one bit, white is zero": (
        GREY > 128, {"photometric": "miniswhite"}, 255 - LIT[..., None], "inverted",
    ),
    "alpha": (RGBA, {**ALPHA, "planarconfig": "contig"}, RGB, "alpha"),
    "alpha in planes": (
        np.ascontiguousarray(RGBA.transpose(2, 0, 1)), {**ALPHA, "planarconfig": "separate"}, RGB,
        "alpha",
    ),
    "a grey palette": (GREY, {"colormap": ramp(STEPS, STEPS, STEPS)}, GREY[..., None], "palette"),
    "a green ramp on grey data": (
        GREY, {"colormap": ramp(0 * STEPS, STEPS, 0 * STEPS)}, GREY[..., None], "colour map",
    ),
    "an inverted grey palette": (
        GREY, {"colormap": ramp(*[STEPS[::-1]] * 3)}, 255 - GREY[..., None], "palette",
    ),
    "a palette of colours": (
        GREY, {"colormap": ramp(STEPS, STEPS[::-1], STEPS // 2)},
        np.stack([GREY, 255 - GREY, (STEPS // 2 >> 8)[GREY].astype(np.uint8)], -1), "palette",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIFFS)
def test_pixels_come_back(tmp_path, name):
    pixels, how, expected, said = TIFFS[name]
    if "colormap" in how:
        how = {"photometric": "palette", **how}
    with open_slide(saved(tmp_path, pixels, **how)) as slide:
        assert slide.is_rgb == (expected.shape[2] == 3)
        assert any(said in note for note in slide.notes) == bool(said)
        got = whole(slide)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_a_thumbnail_in_an_aperio_slide_has_no_pixel_size_of_its_own(tmp_path):
    said = "Aperio Image Library v11.2.1\n{}|AppMag = 20|MPP = 0.499"
    with tifffile.TiffWriter(tmp_path / "a.svs") as tif:
        for side, place in ((256, "256x256"), (64, "256x256 -> 64x64 - ")):
            pixels = np.zeros((side, side, 3), np.uint8)
            tile = (128, 128) if side == 256 else None
            tif.write(pixels, photometric="rgb", description=said.format(place), tile=tile)
    for series, mpp in ((0, 0.499), (1, None)):
        with open_slide(tmp_path / "a.svs", series=series) as slide:
            assert slide.mpp == mpp
    for mpp, said in ((0.5, False), (0.25, True)):
        with open_slide(tmp_path / "a.svs", mpp=mpp) as slide:
            assert slide.mpp == mpp
            assert ("the file says 0.499 µm/px, 0.25 is taken" in slide.notes) == said


def test_aperio_ycbcr_jpeg2000(tmp_path):
    """Compression 33003 holds YCbCr whatever the photometric tag says."""
    red = np.full((64, 64, 3), (76, 85, 255), np.uint8)  # YCbCr of pure red
    path = saved(tmp_path, red, photometric="rgb", tile=(64, 64), compression=33003,
                 compressionargs={"level": 0, "mct": False})  # fmt: skip
    np.testing.assert_allclose(pixels_of(path)[5, 5], [254, 0, 0], atol=2)


def test_memory_is_said_where_it_is_much(tmp_path, monkeypatch):
    path = saved(tmp_path, RGB, photometric="rgb", compression="zlib", rowsperstrip=len(RGB))
    with open_slide(path) as slide:
        assert not slide.notes
    monkeypatch.setattr(limits, "WHOLE_SAID_BYTES", RGB.nbytes)
    with open_slide(path) as slide:
        assert slide.notes == ("decoded whole: 0.0 GB of memory while it is open",)


TURNS = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, 1),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_applied(tmp_path, orientation):
    path = saved(tmp_path, RGB, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    with open_slide(path) as slide:
        turned = TURNS[orientation](RGB)
        np.testing.assert_array_equal(whole(slide), turned)
        np.testing.assert_array_equal(slide.read(Box(3, 5, 20, 31)), turned[3:20, 5:31])
        assert any("orientation" in note for note in slide.notes) == (orientation > 1)


STACK = RNG.integers(0, 4000, (2, 5, 3, 24, 32), dtype=np.uint16)  # T Z C Y X


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_planes_are_chosen_and_said(tmp_path, kind):
    options = {"imagej": True} if kind == "imagej" else {"ome": True}
    path = saved(tmp_path, STACK, metadata={"axes": "TZCYX"}, photometric="minisblack", **options)
    with open_slide(path) as slide:
        assert (slide.size_z, slide.size_t, len(slide.channels)) == (5, 2, 3)
        assert [note[:2] for note in slide.notes] == ["z:", "t:"]
        np.testing.assert_array_equal(whole(slide), STACK[0, 2].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels_of(path, z=4, t=1), STACK[1, 4].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels_of(path, z="max"), STACK[0].max(0).transpose(1, 2, 0))
    mean = np.rint(STACK[0].mean(0)).transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels_of(path, z="mean"), mean)


@pytest.mark.parametrize("wrong", [{"z": 5}, {"t": 2}, {"z": -1}, {"series": 1}, {"z": "min"}])
def test_missing_planes_are_refused(tmp_path, wrong):
    path = saved(tmp_path, STACK, metadata={"axes": "TZCYX"}, ome=True, photometric="minisblack")
    with pytest.raises(SettingsError, match=r"^image.tif: "):
        open_slide(path, **wrong)


def test_pages_of_unknown_meaning(tmp_path):
    path = saved(tmp_path, STACK[0, :, 0], photometric="minisblack")
    np.testing.assert_array_equal(pixels_of(path)[..., 0], STACK[0, 0, 0])
    np.testing.assert_array_equal(pixels_of(path, z="max")[..., 0], STACK[0, :, 0].max(0))


def test_a_channel_last_array_is_no_stack_of_rows(tmp_path):
    pixels = RNG.integers(0, 9, (40, 50, 2), dtype=np.uint16)
    np.testing.assert_array_equal(pixels_of(saved(tmp_path, pixels)), pixels)


def test_ome_names_sizes_and_pyramid(tmp_path):
    path = tmp_path / "named.ome.tif"
    planes = RNG.integers(0, 500, (2, 128, 96), dtype=np.uint16)
    metadata = {
        "axes": "CYX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.325, "PhysicalSizeYUnit": "µm", "Channel": {"Name": ["DAPI", "CD3"]},
    }  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (32, 32), "photometric": "minisblack"}
        writer.write(planes, subifds=1, metadata=metadata, **options)
        writer.write(planes[:, ::2, ::2], subfiletype=1, **options)
    with open_slide(path) as slide:
        assert slide.channels == ("DAPI", "CD3")
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.325), "OME-XML")
        assert [level.downsample for level in slide.levels] == [1.0, 2.0]
        assert slide.name == "named"
        got = slide.read(Box(0, 0, 64, 48), downsample=2.0)
        np.testing.assert_array_equal(got, planes[:, ::2, ::2].transpose(1, 2, 0))


@pytest.mark.parametrize("unit", ["micron", "\\u00B5m", "um", "nm", "inch", "pixel"])
def test_imagej_units(tmp_path, unit):
    um = {"nm": 1e-3, "inch": 25400.0}.get(unit, 1.0)
    path = saved(tmp_path, GREY, imagej=True, resolution=(um / 0.3, um / 0.3),
                 metadata={"unit": unit})  # fmt: skip
    with open_slide(path) as slide:
        assert slide.mpp == (None if unit == "pixel" else pytest.approx(0.3, rel=1e-3))


def with_size(x, y, x_unit, y_unit):
    size = {"PhysicalSizeX": x, "PhysicalSizeXUnit": x_unit, "PhysicalSizeY": y,
            "PhysicalSizeYUnit": y_unit}  # fmt: skip
    return {"ome": True, "metadata": {"axes": "YX", **size}}


APERIO = {"description": "Aperio Image Library|AppMag = 20|MPP = 0.4990|Left = 1"}


@pytest.mark.parametrize(
    ("how", "mpp", "note"),
    [
        ({"resolution": (72, 72), "resolutionunit": 2}, None, "72 dpi"),
        ({"resolution": (4800, 4800), "resolutionunit": 2}, None, "4800 dpi"),
        ({"resolution": (20000, 20000), "resolutionunit": 3}, 0.5, ""),
        ({"resolution": (20000, 20000), "resolutionunit": 1}, None, ""),
        ({"resolution": (20000, 21000), "resolutionunit": 3}, None, "not square"),
        (APERIO, 0.499, ""),
        ({"description": "Aperio Image Library|AppMag = 20"}, None, ""),
        (with_size(0.5, 0.502, "µm", "µm"), 0.501, ""),
        (with_size(5e-5, 5e-5, "mm", "mm"), 0.05, ""),
        (with_size(325, 0.325, "nm", "µm"), 0.325, ""),
        (with_size(0.5, 0.5, "pixel", "pixel"), None, "no unit"),
        (with_size(1, 1, "pixel", "pixel"), None, ""),
    ],
)
def test_pixel_sizes(tmp_path, how, mpp, note):
    how = {"metadata": None, **how} if "description" in how else how
    with open_slide(saved(tmp_path, GREY, **how)) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert [note in text and text.hint == "mpp" for text in slide.notes] == [True] * bool(note)
        assert (slide.mpp_source == "none") == (mpp is None)


def write_ndpi(path, pixels):
    """The smallest NDPI: a TIFF with 8-byte offsets and the high halves after the tags."""
    height, width, samples = pixels.shape
    header = 12
    extra = header + pixels.nbytes
    blocks = struct.pack("<HHHHIIII", 8, 8, 8, 0, 43920, 1, 43920, 1) + b"Hamamatsu\0"
    first = extra + len(blocks)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, extra), (259, 3, 1, 1),
        (262, 3, 1, 2), (271, 2, 10, extra + 24), (273, 4, 1, header), (277, 3, 1, samples),
        (278, 4, 1, height), (279, 4, 1, pixels.nbytes), (282, 5, 1, extra + 8),
        (283, 5, 1, extra + 16), (284, 3, 1, 1), (296, 3, 1, 3), (65420, 4, 1, 1),
        (65421, 11, 1, struct.unpack("<I", struct.pack("<f", 20.0))[0]),
    ]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    ifd += struct.pack("<Q", 0) + bytes(4 * len(tags))
    path.write_bytes(b"II*\0" + struct.pack("<Q", first) + pixels.tobytes() + blocks + ifd)


def test_ndpi(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, RGB)
    with open_slide(path) as slide:
        assert slide.format == "Hamamatsu NDPI"
        np.testing.assert_array_equal(whole(slide), RGB)
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.2277, rel=1e-3), "NDPI tags")


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path, version):
    path = tmp_path / "cells.ome.zarr"
    names = ["t", "c", "z", "y", "x"]
    axes = [{"name": n, **({"type": "space", "unit": "micrometer"} if n in "zyx" else {})}
            for n in names]  # fmt: skip
    data = STACK.transpose(0, 2, 1, 3, 4)
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    datasets = []
    for number, level in enumerate((data, data[..., ::2, ::2])):
        group.create_array(str(number), data=level, chunks=(1, 1, 1, 8, 8))
        scale = [1, 1, 1, 0.4 * 2**number, 0.4 * 2**number]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscales = {"version": "0.4", "axes": axes, "datasets": datasets}
    omero = {"channels": [{"label": "DAPI"}, {"label": "a"}, {"label": "a"}]}
    entries = {"multiscales": [multiscales], "omero": omero}
    group.attrs.update(entries if version == 2 else {"ome": {"version": "0.5", **entries}})
    with open_slide(path) as slide:
        assert slide.format == f"OME-Zarr 0.{version + 2}"
        assert slide.channels == ("DAPI", "a", "a (2)")
        assert (slide.mpp, slide.size_z, slide.size_t) == (pytest.approx(0.4), 5, 2)
        np.testing.assert_array_equal(whole(slide), STACK[0, 2].transpose(1, 2, 0))
        half = slide.read(Box(0, 0, 12, 16), downsample=2.0)
        np.testing.assert_array_equal(half, STACK[0, 2, :, ::2, ::2].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels_of(path, z=1, t=1), STACK[1, 1].transpose(1, 2, 0))
    for file in (path / "0").rglob("*"):
        if file.is_file() and file.name not in (".zarray", ".zattrs", "zarr.json"):
            file.write_bytes(b"no chunk")
    with open_slide(path) as slide, pytest.raises(RegionError, match="of level 0 does not decode"):
        whole(slide)


def test_a_folder_without_an_image(tmp_path):
    with pytest.raises(InputError, match="without an OME-Zarr image"):
        open_slide(tmp_path)


def test_zarr_metadata_cannot_point_outside(tmp_path):
    path = tmp_path / "evil.zarr"
    path.mkdir()
    entry = {"multiscales": [{"version": "0.4", "datasets": [{"path": "../other"}]}]}
    (path / ".zattrs").write_text(json.dumps(entry))
    with pytest.raises(InputError, match="outside"):
        open_slide(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_png_and_jpeg(tmp_path, bits):
    pixels = np.dstack([RGB, GREY]).astype(f"u{bits // 8}") * (257 if bits == 16 else 1)
    path = tmp_path / "field.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), pixels[..., :3])
        assert any("alpha" in note for note in slide.notes)
    smooth = np.full((30, 40, 3), (200, 60, 90), np.uint8)
    jpeg = tmp_path / "field.jpg"
    jpeg.write_bytes(imagecodecs.jpeg_encode(smooth, level=95))
    np.testing.assert_allclose(pixels_of(jpeg).astype(int), smooth, atol=4)
    jpeg.write_bytes(jpeg.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"^field.jpg: .*ends too early"):
        open_slide(jpeg)


def test_info_for_people_and_machines(cellseg, tmp_path):
    path = saved(tmp_path, STACK, metadata={"axes": "TZCYX"}, ome=True, photometric="minisblack")
    _, out, _ = cellseg("info", path, "--mpp", "0.5", "--z", "max", ends=0)
    assert "32 × 24 px" in out
    assert "0.5 µm (given)" in out
    assert "the max over 5 planes" in out
    (entry,) = json.loads(cellseg("info", path, "--json")[1])
    assert (entry["height_px"], entry["size_z"], entry["mpp"]) == (24, 5, None)
    cellseg("info", path, "--z", "some", ends=2)
    cellseg("info", tmp_path / "absent.tif", ends=InputError.exit_code)


def odd_file(shared, name):
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
        ("made__header_only.tif", "cut off"),
        ("made__CMU-1_truncated_1MB.svs", "cut off"),
        ("imagetiff__libtiffpic__text.tif", "compression"),
        ("pillow__lab.tif", "CIELAB"),
    ],
)
def test_bad_files_say_what_is_wrong(shared, name, says):
    with pytest.raises(InputError, match=says) as caught:
        open_slide(odd_file(shared, name))
    assert str(caught.value).startswith(name)


def test_odd_files_look_right(shared):
    """The same picture in several encodings has the same pixels."""

    def read(name):
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
