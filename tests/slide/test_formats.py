"""Formats: the table of them, and the same picture in each."""

import builtins
import re
import sys
from pathlib import Path

import fsspec
import microscopes
import numpy as np
import pytest
import zarr
from limited import PROBE, limited
from microscopes import (
    COLOUR,
    DYES,
    GREYS,
    MPP,
    PICTURE,
    ome_zarr,
    pixels_of,
    whole,
    wsidicom_pyramid,
)

from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.slide import open_slide, slide_name
from cellseg.slide.formats import ENDINGS, FORMATS
from cellseg.study.images import find_images


def test_a_folder_gives_files_of_every_ending(tmp_path):
    for ending in ENDINGS:
        (tmp_path / f"a{ending}").touch()
    (tmp_path / "a.txt").touch()
    assert {image.path.suffix for image in find_images([tmp_path]).images} == set(ENDINGS)


@pytest.mark.parametrize("ending", [e for one in FORMATS for e in one.endings])
def test_endings_are_no_part_of_a_slide_s_name(ending):
    assert slide_name(Path(f"S21.12{ending.upper()}")) == "S21.12"


def test_what_is_no_image_is_told_what_would_be(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"hello")
    with pytest.raises(InputError, match=", ".join(one.name for one in FORMATS)):
        open_slide(tmp_path / "a.tif")
    with pytest.raises(InputError, match="no such file"):
        open_slide(tmp_path / "nowhere" / "at-all.tif")


@pytest.mark.parametrize(("chunk", "decoded"), [(1, 1), (3, 3)])
def test_one_channel_of_an_ome_zarr_decodes_one(tmp_path, chunk, decoded, monkeypatch):
    values = 0
    whole = zarr.Array.__getitem__

    def counted(array, index):
        nonlocal values
        found = whole(array, index)
        values += found.size
        return found

    channels = np.arange(3 * 64 * 64, dtype=np.uint16).reshape(3, 64, 64)
    path = ome_zarr(tmp_path / "a.zarr", channels.transpose(1, 2, 0), (chunk, 32, 32))
    with open_slide(path) as slide:
        monkeypatch.setattr(zarr.Array, "__getitem__", counted)
        pixels = slide.read(Box(0, 0, 64, 64), channels=[1])
        assert values == decoded * 64 * 64
        np.testing.assert_array_equal(pixels[..., 0], channels[1])
        assert slide.read(Box(10, 10, 12, 12), channels=[2, 0])[0, 0].tolist() == [8842, 650]


@pytest.mark.parametrize("form", COLOUR)
def test_colour_is_the_same_in_each_format(form, tmp_path):
    path = COLOUR[form](tmp_path)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), PICTURE)
        assert slide.mpp == pytest.approx(MPP)
        assert slide.is_rgb
        overview, _ = slide.overview(200)
        np.testing.assert_allclose(overview.mean((0, 1)), PICTURE.mean((0, 1)), atol=3)


@pytest.mark.parametrize("form", GREYS)
def test_dyes_are_the_same_in_each_format(form, tmp_path):
    path = GREYS[form](tmp_path)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), DYES.transpose(1, 2, 0))
        assert slide.mpp == pytest.approx(MPP)
        assert slide.channels[1] == {"czi": "dye 1", "nd2": "dye 1"}.get(form, "channel 1")


def test_openslide_and_tifffile_agree_on_a_philips_tiff(tmp_path):
    # By this ending it is read through OpenSlide.
    path = microscopes.philips(tmp_path / "a.bif", PICTURE)
    with open_slide(path) as slide:
        assert slide.format == "Philips TIFF"
        assert slide.mpp == pytest.approx(MPP)
        np.testing.assert_array_equal(whole(slide), PICTURE)


@pytest.mark.parametrize("form", [one for one in FORMATS if one.extra], ids=lambda one: one.extra)
def test_without_the_extra_the_error_names_it(form, tmp_path, monkeypatch):
    library = {"openslide": "openslide", "dicom": "wsidicom", "czi": "pylibCZIrw", "nd2": "nd2",
               "lif": "liffile"}[form.extra]  # fmt: skip
    path = tmp_path / f"a{form.endings[0]}"
    path.write_bytes(bytes(form.at) + (form.starts or (b"a",))[0] + bytes(200))
    found = builtins.__import__

    def without(name, *rest, **named):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *rest, **named)

    monkeypatch.delitem(sys.modules, f"cellseg.slide.{form.reader}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=rf"{library}.*cellseg-slides\[{form.extra}\]") as told:
        open_slide(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("form", [one for one in FORMATS if one.extra], ids=lambda one: one.extra)
def test_a_remote_file_of_such_a_format_is_told_in_a_line(form):
    place = f"memory://formats/a{form.endings[0]}"
    head = bytes(form.at) + (form.starts or (b"a",))[0] + bytes(200)
    fsspec.filesystem("memory").pipe(place.removeprefix("memory:/"), head)
    with pytest.raises(InputError, match="copy it"):
        open_slide(place)


@pytest.mark.parametrize("form", ["dicom", "czi", "trestle", "nd2", "lif"])
@pytest.mark.parametrize("kept", [0.02, 0.4, 0.999])
def test_a_file_that_is_cut_off_is_told_in_a_line(form, kept, tmp_path):
    path = {**COLOUR, **GREYS}[form](tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CellsegError) as told:
        pixels_of(path)
    assert str(told.value).startswith(path.name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("form", ["tiff", "jpeg 2000", "jpeg xl", "trestle"])
def test_a_damaged_tile_costs_itself(form, tmp_path):
    path = COLOUR[form](tmp_path)
    microscopes.spoil(path, 6, lambda data: bytes(len(data)))
    with open_slide(path) as slide:
        at = None if form == "trestle" else "the tile at y 128, x 128 of level 0"
        with pytest.raises(RegionError, match=at):
            slide.read(Box(130, 130, 140, 140))
        np.testing.assert_array_equal(slide.read(Box(0, 0, 128, 530)), PICTURE[:128])
        np.testing.assert_array_equal(slide.read(Box(256, 0, 400, 530)), PICTURE[256:])


def test_what_a_library_warns_of_is_not_printed(tmp_path):
    path = microscopes.dicom(tmp_path / "a.dcm", PICTURE)
    data = path.read_bytes()
    at = data.rindex(b"1.2.840.10008.5.1.4.1.1.77.1.6")
    path.write_bytes(data[:at] + b"1.2.840\x1b[2J" + data[at + 11 :])
    done = limited("-m", "cellseg", "info", str(path))
    assert done.code == 4, done
    assert done.said.startswith("cellseg: a.dcm: is no readable DICOM slide"), done
    assert len(done.said.splitlines()) == 1
    loud = limited("-m", "cellseg", "--verbose", "info", str(path))
    assert "WARNING" in loud.said
    assert "\x1b" not in loud.said


def test_a_dicom_file_brings_its_series_along(tmp_path):
    folder = wsidicom_pyramid(tmp_path)
    files = sorted(folder.iterdir())
    assert len(files) > 1
    for file in files:
        with open_slide(file) as slide:
            assert (slide.height, slide.width) == (400, 530)
            assert len(slide.levels) == len(files)


def test_a_folder_with_two_dicom_slides_is_refused(tmp_path):
    microscopes.dicom(tmp_path / "a.dcm", PICTURE)
    microscopes.dicom(tmp_path / "b.dcm", PICTURE[:200], series="1.2.3.5")
    with pytest.raises(InputError, match=r"holds 2 DICOM series; .*\(a.dcm, b.dcm"):
        open_slide(tmp_path)
    assert [image.path for image in find_images([tmp_path]).images] == [tmp_path]
    with open_slide(tmp_path / "b.dcm") as slide:
        assert slide.height == 200


def test_scenes_of_a_czi_are_series(tmp_path):
    path = microscopes.czi(tmp_path / "a.czi", PICTURE, corners=((0, 0), (1000, -700)))
    with open_slide(path) as slide:
        assert any("the first of 2 images" in note for note in slide.notes)
    np.testing.assert_array_equal(pixels_of(path, series=1), PICTURE)
    with pytest.raises(SettingsError, match="no series 2; the file has 0 … 1"):
        open_slide(path, series=2)


def test_images_of_a_lif_are_series(tmp_path):
    path = microscopes.lif(tmp_path / "a.lif", {"first": DYES, "second": DYES[:, :100] + 1})
    second = (DYES[:, :100] + 1).transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels_of(path, series=1), second)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("czi/RGB-8bit.czi", "924 × 624 px"),
        ("czi/mosaic_test.czi", "EGFP"),
        ("czi/s_1_t_1_c_1_z_1.czi", "1.083"),
        ("dicom/boxes_0.dcm", "0.499 µm (DICOM pixel spacing)"),
        ("dicom", "16 × 16 px"),
    ],
)
def test_files_of_microscopes(shared, cellseg, name, said):
    _, out, _ = cellseg("info", shared / "slides" / name, ends=0)
    assert said in out


@pytest.mark.parametrize(
    ("layers", "claimed"), [("1000", "1,000,000,000,000"), ("0.5", "1,000,000,000")]
)
def test_a_mosaic_of_too_many_pictures_is_refused(tmp_path, layers, claimed):
    pytest.importorskip("openslide")
    text = f"[Virtual Microscope Specimen]\nNoLayers={layers}\n"
    text += "NoJpegColumns=1000000\nNoJpegRows=1000\n"
    (tmp_path / "a.vms").write_text(text + "ImageFile=b.jpg\nMapFile=b.jpg\n")
    with pytest.raises(InputError, match=rf"a\.vms: .*\(claims {claimed} pictures\)"):
        open_slide(tmp_path / "a.vms")


def test_a_mirax_is_read(tmp_path):
    with open_slide(microscopes.mirax(tmp_path / "a.mrxs", PICTURE)) as slide:
        assert (slide.format, slide.mpp, len(slide.levels)) == ("MIRAX", 0.5, 2)
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 530)), PICTURE)


CLAIMS = {
    "IMAGENUMBER_X": (65_535_000, "claims 6.5535e+07 for IMAGENUMBER_X"),
    "IMAGENUMBER_[XY]": (40_000, "claims 40,000 × 40,000 pictures"),
    "CameraImageDivisionsPerSide": (64, "4 × 4 pictures, 64 a shot's side"),
    "HIER_0_COUNT": (2**31 - 1, "claims 2.14748e+09 for HIER_0_COUNT"),
    "FILE_COUNT": (-1, "claims -1 for FILE_COUNT"),
    "DIGITIZER_WIDTH": (65_536, "claims 65,536 for DIGITIZER_WIDTH"),
    "OVERLAP_X": ("nan", "claims nan for OVERLAP_X"),
    "OVERLAP_Y": (63.999999, "pictures of 64 px that overlap by 64 px"),
    "IMAGE_CONCAT_FACTOR": (31, "claims 31 for IMAGE_CONCAT_FACTOR"),
}


def test_a_mirax_that_claims_too_much_or_is_cut_off_is_refused(tmp_path):
    """In a child: OpenSlide ends the program at some, and works for hours at others."""
    pytest.importorskip("openslide")
    paths = []
    for number, (key, (value, _)) in enumerate(CLAIMS.items()):
        paths.append(microscopes.mirax(tmp_path / f"{number}.mrxs", PICTURE[:150, :150]))
        text = tmp_path / str(number) / "Slidedat.ini"
        text.write_text(re.sub(f"({key}) = .*", rf"\1 = {value}", text.read_text()))
    for name in ("Slidedat.ini", "Index.dat", "Data0000.dat"):
        paths.append(microscopes.mirax(tmp_path / f"{name}.mrxs", PICTURE))
        file = tmp_path / name / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = limited("-c", PROBE, *map(str, paths))
    assert done.code == 4, done
    said = done.said.splitlines()
    assert [line.partition(":")[0] for line in said] == [path.name for path in paths]
    for line, (_, why) in zip(said, CLAIMS.values(), strict=False):
        assert why in line
