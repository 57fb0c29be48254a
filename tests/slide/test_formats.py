"""The table of formats, and who shares it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from microscopes import ome_zarr

from cellseg.errors import InputError
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

    def counted(array: zarr.Array, index: object) -> np.ndarray:
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
