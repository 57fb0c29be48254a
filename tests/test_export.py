"""Exports: files made from a finished result folder."""

from __future__ import annotations

import errno
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg.errors import InputError, OutputError, SettingsError
from cellseg.export import EXPORTS, check_exports, export, labels_tiff
from cellseg.instances import Instances
from cellseg.results import Frame, Report, Result, ResultFolder, load_result


@dataclass(frozen=True)
class Column:
    name: str
    dtype: str


def frame(height: int, width: int, *, downsample: float = 1.0, mpp: float | None = None) -> Frame:
    return Frame(
        height=height,
        width=width,
        lattice_height=int(np.ceil(height / downsample - 1e-6)),
        lattice_width=int(np.ceil(width / downsample - 1e-6)),
        downsample=downsample,
        mpp=mpp,
    )


def make(path: Path, where: Frame, boxes: list[tuple[int, int, int, int]]) -> Result:
    masks = [np.ones((y1 - y0, x1 - x0), bool) for y0, x0, y1, x1 in boxes]
    instances = Instances.build(boxes, [0.9] * len(boxes), [0] * len(boxes), masks)
    report = Report(
        frame=where,
        columns=[Column("label", "int64"), Column("area_px", "int64")],
        class_names=["cell"],
        object_name="cell",
        provenance={},
    )
    with ResultFolder.open(path, key="k") as folder:
        folder.add_cells(pd.DataFrame({"area_px": instances.areas}), instances)
        return folder.finish(report)


@pytest.mark.parametrize("downsample", [1.0, 2.0, 1.7, 0.5, 0.37])
def test_every_level_0_pixel_has_its_lattice_pixels_label(tmp_path, downsample):
    where = frame(1301, 777, downsample=downsample)
    boxes = [(3, 5, 40, 30), (100, 100, 103, 180), (200, 220, 380, 400)]
    result = make(tmp_path / "a.cellseg", where, boxes)
    found = tifffile.imread(export(result.path, "labels.tif"))
    assert found.dtype == np.uint32
    assert found.shape == (1301, 777)
    lattice = np.asarray(result.labels()[0])
    rows, columns = (
        np.minimum(np.floor((2 * np.arange(n) + 1) / (2 * downsample)).astype(int), size - 1)
        for n, size in zip(found.shape, lattice.shape, strict=True)
    )
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert np.array_equal(found, lattice[np.ix_(rows, columns)])


def test_the_file_is_tiled_compressed_and_knows_its_pixel_size(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(600, 1100, mpp=0.25), [(0, 0, 9, 9)])
    with tifffile.TiffFile(export(result.path, "labels.tif")) as file:
        assert len(file.pages) == 1
        page = file.pages.first
        assert (page.tilelength, page.tilewidth) == (512, 512)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        numerator, denominator = page.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(40_000)
        assert not file.is_bigtiff


def test_without_a_pixel_size_the_file_claims_none(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    with tifffile.TiffFile(export(result.path, "labels.tif")) as file:
        assert file.pages.first.tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE


def test_large_slides_become_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_tiff, "_BIGTIFF_FROM_BYTES", 60 * 60 * 4)
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    with tifffile.TiffFile(export(result.path, "labels.tif")) as file:
        assert file.is_bigtiff


BOXES = [(0, 0, 9, 9), (4000, 4000, 4096, 4096)]


def test_memory_does_not_grow_with_the_slide(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(8192, 8192, downsample=2.0), BOXES)
    tracemalloc.start()
    try:
        path = export(result.path, "labels.tif")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6, "the whole would take 268 MB"
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.asarray()[-1, -1] == 2


def test_the_export_is_listed_and_may_be_repeated(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    for _ in range(2):
        assert export(result.path, "labels.tif") == result.path / "labels.tif"
    assert load_result(result.path).run["exports"] == ["labels.tif"]
    names = sorted(entry.name for entry in result.path.iterdir())
    assert names == ["cells.csv", "labels.ome.zarr", "labels.tif", "run.json"]


def test_a_failing_export_leaves_the_older_one(tmp_path, monkeypatch):
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    before = export(result.path, "labels.tif").read_bytes()

    def full(labels, where):
        yield np.zeros((512, 512), np.uint32)
        raise OSError(errno.ENOSPC, "No space left on device")

    result = make(tmp_path / "b.cellseg", frame(1000, 1000), [(0, 0, 9, 9)])
    (result.path / "labels.tif").write_bytes(before)
    monkeypatch.setattr(labels_tiff, "_tiles", full)
    with pytest.raises(OutputError, match=r"labels\.tif: cannot be written: No space left"):
        export(result.path, "labels.tif")
    assert (result.path / "labels.tif").read_bytes() == before
    assert not list(result.path.glob(".*"))


def test_labels_of_another_size_are_refused(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    text = result.run_path.read_text().replace('"lattice_height": 60', '"lattice_height": 61')
    result.run_path.write_text(text)
    with pytest.raises(InputError, match="expected 61 × 60 px, got 60 × 60"):
        export(result.path, "labels.tif")


@pytest.mark.parametrize("name", ["labels.png", "../labels.tif", "/tmp/labels.tif", ""])
def test_unknown_exports_are_refused_before_a_run(name):
    with pytest.raises(SettingsError, match=r"labels\.tif"):
        check_exports((name,))
    check_exports(tuple(EXPORTS))


def test_an_unfinished_result_is_not_exported(tmp_path):
    with (
        ResultFolder.open(tmp_path / "a.cellseg", key="k"),
        pytest.raises(InputError, match="not finished"),
    ):
        export(tmp_path / "a.cellseg", "labels.tif")


def test_a_folder_in_use_is_not_exported_to(tmp_path):
    result = make(tmp_path / "a.cellseg", frame(60, 60), [(0, 0, 9, 9)])
    with (
        ResultFolder.open(result.path, key="k"),
        pytest.raises(OutputError, match="another run"),
    ):
        export(result.path, "labels.tif")
