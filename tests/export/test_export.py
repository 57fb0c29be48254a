"""Exports: files made from a finished result folder."""

import errno
import gzip
import importlib
import json
import shutil
import sys
from collections import Counter
from functools import partial
from importlib.util import find_spec
from zipfile import ZipFile

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
import roifile
import shapely
import tifffile
import zarr
from finished import edit, frame_of, measured
from limited import peak_of, python
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import toBbox
from scipy.ndimage import find_objects, gaussian_filter
from scipy.ndimage import label as label_image

from cellseg.annotations.coco import read_coco
from cellseg.errors import InputError, OutputError, SettingsError
from cellseg.export import EXPORTS, check_exports, export, outlines_of, write_export
from cellseg.instances import Instances
from cellseg.result.folder import ResultFolder
from cellseg.result.result import load_result

SCVERSE = {"cells.h5ad": "anndata", "spatialdata.zarr": "spatialdata"}
"""Exports whose packages may want an older pandas than the rest: tested where they are."""

HERE = [name for name in EXPORTS if name not in SCVERSE or find_spec(SCVERSE[name])]


def make(path, where, boxes):
    """A result of rectangles."""
    masks = [(y0, x0, np.ones((y1 - y0, x1 - x0), bool)) for y0, x0, y1, x1 in boxes]
    return counted(path, masks, where=where, classes=["cell"])


@pytest.mark.parametrize("downsample", [1.0, 2.0, 1.7, 0.5, 0.37])
def test_every_level_0_pixel_has_its_lattice_pixels_label(tmp_path, downsample):
    where = frame_of(1301, 777, downsample=downsample)
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


@pytest.mark.parametrize(("mpp", "unit"), [(0.25, "CENTIMETER"), (None, "NONE")])
def test_the_file_is_tiled_compressed_and_knows_its_pixel_size(tmp_path, monkeypatch, mpp, unit):
    result = make(tmp_path / "a.cellseg", frame_of(600, 1100, mpp=mpp), [(0, 0, 9, 9)])
    with tifffile.TiffFile(export(result.path, "labels.tif")) as file:
        (page,) = file.pages
        assert (page.tilelength, page.tilewidth) == (512, 512)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tags["ResolutionUnit"].value.name == unit
        if mpp:
            numerator, denominator = page.tags["XResolution"].value
            assert numerator / denominator == pytest.approx(40_000)
        assert not file.is_bigtiff
    monkeypatch.setattr("cellseg.export.labels_tif._BIGTIFF_FROM_BYTES", 600 * 1100 * 4)
    with tifffile.TiffFile(export(result.path, "labels.tif")) as file:
        assert file.is_bigtiff


FILES = ["cells.csv", "labels.ome.zarr", "measured.parquet", "recipe.json", "run.json"]


def test_memory_does_not_grow_with_the_slide(tmp_path):
    boxes = [(0, 0, 9, 9), (4000, 4000, 4096, 4096)]
    result = make(tmp_path / "a.cellseg", frame_of(8192, 8192, downsample=2.0), boxes)
    peak = peak_of(lambda: export(result.path, "labels.tif"))
    assert peak < 100e6, "the whole would take 268 MB"
    with tifffile.TiffFile(result.file("labels.tif")) as file:
        assert file.pages.first.asarray()[-1, -1] == 2


def test_a_failing_export_leaves_the_older_one(tmp_path, monkeypatch):
    def full(labels, where):
        yield np.zeros((512, 512), np.uint32)
        raise OSError(errno.ENOSPC, "No space left on device")

    result = make(tmp_path / "a.cellseg", frame_of(1000, 1000), [(0, 0, 9, 9)])
    (result.path / "labels.tif").write_bytes(b"older")
    monkeypatch.setattr("cellseg.export.labels_tif.tiles", full)
    with pytest.raises(OutputError, match=r"labels\.tif: cannot be written: No space left"):
        export(result.path, "labels.tif")
    assert (result.path / "labels.tif").read_bytes() == b"older"
    assert not list(result.path.glob(".*"))


def test_a_name_that_is_no_utf8_is_exported_like_any_other(not_utf8):
    home = not_utf8
    make(home, frame_of(60, 60), [(0, 0, 9, 9)])
    for name in HERE:
        assert export(home, name).exists()
    readable = "sl\\udcffide.cellseg"
    with (home / "cells.parquet").open("rb") as file:
        assert pq.read_schema(file).metadata[b"result"].decode() == readable
    about = json.loads((home / "cells.coco.json").read_text())["info"]
    assert about["description"] == f"{readable}, counted by cellseg"


def test_labels_of_another_size_are_refused(tmp_path):
    result = make(tmp_path / "a.cellseg", frame_of(60, 60), [(0, 0, 9, 9)])
    edit(result.path, frame=result.run["frame"] | {"lattice_height": 61})
    for name in ("labels.tif", "cells.geojson"):
        with pytest.raises(InputError, match=r"not as large as run\.json says"):
            export(result.path, name)


@pytest.mark.parametrize("name", ["labels.png", "../labels.tif", "/tmp/labels.tif", ""])
def test_unknown_exports_are_refused_before_a_run(name):
    with pytest.raises(SettingsError, match=r"labels\.tif"):
        check_exports((name,))
    check_exports(tuple(HERE))


@pytest.mark.parametrize(
    ("finished", "error", "said"),
    [(False, InputError, "not finished"), (True, OutputError, "another run")],
)
def test_a_folder_in_use_is_not_exported_to(tmp_path, finished, error, said):
    path = tmp_path / "a.cellseg"
    if finished:
        make(path, frame_of(60, 60), [(0, 0, 9, 9)])
    with ResultFolder.open(path, key="k"), pytest.raises(error, match=said):
        export(path, "labels.tif")


# Every export is read back by its own ecosystem's package.

CLASSES = ["tumour", "=HYPERLINK(1)", "näiv/../\U0001f600"]


def blob(radius_y, radius_x):
    side_y, side_x = int(np.ceil(radius_y)), int(np.ceil(radius_x))
    y, x = np.mgrid[-side_y : side_y + 1, -side_x : side_x + 1]
    return (y / radius_y) ** 2 + (x / radius_x) ** 2 <= 1


def masks_of_all_kinds():
    """(y, x, mask): plain ones, one with a hole, one of two parts with a part in a hole's place."""
    ring = blob(12, 14)
    ring[8:15, 9:16] = False
    target = ring.copy()
    target[10:13, 11:14] = True
    apart = np.zeros((20, 60), bool)
    apart[2:18, 0:20] = apart[5:9, 40:60] = True
    plain = [
        (41 * row, 43 * column, blob(9 + row, 14 - column))
        for row in range(5)
        for column in range(6)
    ]
    return [
        *plain,
        (1000, 1010, ring),
        (1015, 1050, target),
        (1100, 900, apart),
        (1250, 1295, np.ones((6, 5), bool)),
        (1200, 20, np.ones((1, 1), bool)),
        (1203, 40, np.eye(5, dtype=bool)),
    ]


def counted(path, masks=None, *, downsample=1.0, mpp=0.25, classes=None, where=None):
    """A result as a run leaves it, of drawn masks, on a lattice of 1300 × 1300 px unless said."""
    masks = masks_of_all_kinds() if masks is None else masks
    classes = CLASSES if classes is None else classes
    side = round(1300 * downsample)
    where = where or frame_of(side, side, downsample=downsample, mpp=mpp)
    boxes = [(y, x, y + mask.shape[0], x + mask.shape[1]) for y, x, mask in masks]
    numbers = [number % len(classes) for number in range(len(masks))]
    instances = Instances.build(boxes, [0.9] * len(boxes), numbers, [mask for *_, mask in masks])
    about = {"image": {"path": "/slides/slide.png"}}
    about["settings"] = {"channels": ["red", "green", "blue"]}
    return measured(path, instances, where, classes, **about)


@pytest.fixture(scope="module", params=[1.0, 2.0, 0.6])
def cells(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(f"at-{request.param}") / "slide.cellseg"
    return counted(path, downsample=request.param)


def areas_of(result):
    """Level-0 area of each cell, from the label image."""
    labels = np.asarray(result.labels()[0])
    pixel = result.frame.downsample**2
    return {
        label: count * pixel for label, count in enumerate(np.bincount(labels.ravel())) if label
    }


def classes_of(result):
    table = result.table.load()
    return dict(zip(table["label"].tolist(), table["class"].tolist(), strict=True))


def test_every_file_in_the_folder_is_an_export_by_its_name():
    assert EXPORTS["cells.geojson.gz"] == "cells_geojson_gz"
    assert {"labels.tif", "cells.coco.json", "cells.parquet", "rois.zip"} <= {*EXPORTS}
    for name in HERE:
        assert callable(importlib.import_module(f"cellseg.export.{EXPORTS[name]}").write), name
    assert not [name for name in EXPORTS if name.startswith(".")]


@pytest.mark.parametrize("name", ["cells.geojson", "cells.geojson.gz"])
def test_geojson_for_qupath(cells, name):
    path = export(cells.path, name)
    data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    collection = json.loads(data)
    assert collection["type"] == "FeatureCollection"
    areas, classes = areas_of(cells), classes_of(cells)
    table = cells.table.load().set_index("label")
    assert sorted(int(f["properties"]["name"]) for f in collection["features"]) == sorted(areas)
    colours = {}
    for feature in collection["features"]:
        properties = feature["properties"]
        label = int(properties["name"])
        outline = shapely.geometry.shape(feature["geometry"])
        assert outline.is_valid
        assert outline.area == pytest.approx(areas[label], rel=0.005)
        first = outline if outline.geom_type == "Polygon" else outline.geoms[0]
        assert first.exterior.is_ccw
        assert properties["objectType"] == "detection"
        assert properties["classification"]["name"] == classes[label]
        colours[classes[label]] = tuple(properties["classification"]["color"])
        assert properties["measurements"]["area_um2"] == table.loc[label, "area_um2"]
        assert properties["measurements"]["score"] == 0.9
        assert properties["measurements"]["stitched"] == 0
        assert all(type(v) in (int, float) for v in properties["measurements"].values())
        y, x = outline.centroid.y - 0.5, outline.centroid.x - 0.5
        assert (y, x) == pytest.approx(
            tuple(table.loc[label, ["centroid_y_px", "centroid_x_px"]]), abs=0.3
        )
    assert len({*colours.values()}) == 3
    kinds = Counter(f["geometry"]["type"] for f in collection["features"])
    assert kinds["MultiPolygon"] == 3, "two parts, a part in a hole, pixels that touch at corners"
    assert len(data.splitlines()) == len(areas) + 2, "feature by feature, a line each"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_json_by_pycocotools(cells):
    coco = COCO(export(cells.path, "cells.coco.json"))
    assert coco.imgs[1]["file_name"] == "slide.png"
    assert (coco.imgs[1]["height"], coco.imgs[1]["width"]) == (
        cells.frame.height,
        cells.frame.width,
    )
    assert coco.imgs[1]["mpp"] == 0.25
    areas, classes = areas_of(cells), classes_of(cells)
    assert {*coco.anns} == {*areas}
    drawn = {label: coco.annToMask(one) for label, one in coco.anns.items()}
    total = sum(int(mask.sum()) for mask in drawn.values())
    assert total == pytest.approx(sum(areas.values()), rel=0.005)
    with tifffile.TiffFile(export(cells.path, "labels.tif")) as file:
        labels = file.asarray()
    for label, one in coco.anns.items():
        if (labels == label).any():  # a lattice pixel may lie between the slide's pixels
            assert np.array_equal(drawn[label].astype(bool), labels == label)
        assert one["area"] == drawn[label].sum() >= 1
        assert one["bbox"] == pytest.approx(toBbox(one["segmentation"]).tolist())
        assert coco.cats[one["category_id"]]["name"] == classes[label]


@pytest.mark.parametrize("beside", [False, True])
def test_coco_json_trains_as_it_is(tmp_path, beside):
    side = 1300
    Image.fromarray(np.full((side, side, 3), 200, np.uint8)).save(tmp_path / "slide.png")
    result = counted(tmp_path / "slide.cellseg", classes=["tumour", "stroma"])
    data = read_coco(export(result.path, "cells.coco.json"), images=None if beside else tmp_path)
    (image,) = data.images
    assert len(image.masks) == len(result.table)
    assert data.classes == ("tumour", "stroma")
    assert image.mpp == 0.25
    assert image.light == "transmitted"
    assert image.outlined.all()
    assert sum(int(mask.sum()) for mask in image.masks) == sum(areas_of(result).values())


def test_a_slide_beyond_cocos_run_lengths_is_told_of(tmp_path):
    result = counted(tmp_path / "a.cellseg")
    edit(result.path, frame=result.run["frame"] | {"height": 70_000, "width": 70_000})
    with pytest.raises(SettingsError, match=r"at most 4,294,967,295 px.*cells\.geojson"):
        export(result.path, "cells.coco.json")
    assert not list(result.path.glob("*coco*"))


def test_rois_by_roifile(cells):
    path = export(cells.path, "rois.zip")
    areas, classes = areas_of(cells), classes_of(cells)
    rois = roifile.roiread(path)
    assert len(rois) == len(areas)
    total = 0.0
    for roi in rois:
        label = int(roi.name.split("-")[0])
        area = shapely.Polygon()
        for ring in roi.coordinates(multi=True):  # ImageJ: even-odd
            area = area.symmetric_difference(shapely.Polygon(ring))
        assert area.area == pytest.approx(areas[label], rel=0.005)
        total += area.area
        assert roi.properties["class"] == classes[label].replace("\U0001f600", "_")
        assert roi.group == CLASSES.index(classes[label]) + 1
        assert roi.composite == (len(roi.coordinates(multi=True)) > 1)
    assert total == pytest.approx(sum(areas.values()), rel=0.005)
    names = ZipFile(path).namelist()
    assert len({*names}) == len(names)
    assert not [name for name in names if "/" in name or "\\" in name or ":" in name]


def test_parquet_by_pyarrow(cells):
    file = pq.ParquetFile(export(cells.path, "cells.parquet"))
    units = {f.name: f.metadata[b"unit"].decode() for f in file.schema_arrow}
    assert (units["area_um2"], units["perimeter_px"], units["class"]) == ("µm²", "px", "")
    expected = cells.table.load()
    found = file.read().to_pandas()
    assert list(found.columns) == list(expected.columns)
    assert found["class"].tolist() == expected["class"].tolist()
    numbers = expected.select_dtypes(["number", "bool"])
    pd.testing.assert_frame_equal(found[numbers.columns], numbers)
    file.close()


def test_parquet_is_written_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.result.table.GROUP_ROWS", 10)
    result = counted(tmp_path / "a.cellseg")
    with pq.ParquetFile(export(result.path, "cells.parquet")) as file:
        assert file.num_row_groups == 4
        assert file.read()["label"].to_pylist() == list(range(1, 37))


def test_xlsx_by_openpyxl(cells, monkeypatch):
    monkeypatch.setattr("cellseg.export.cells_xlsx.SHEET_ROWS", 21)
    book = openpyxl.load_workbook(export(cells.path, "cells.xlsx"), read_only=True)
    assert book.sheetnames == ["cells", "cells 2", "columns"]
    rows = [
        dict(zip(names, row, strict=True))
        for sheet in ("cells", "cells 2")
        for names, *values in [list(book[sheet].values)]
        for row in values
    ]
    expected = cells.table.load()
    assert [row["label"] for row in rows] == expected["label"].tolist()
    assert sum(row["area_px"] for row in rows) == pytest.approx(
        sum(areas_of(cells).values()), rel=1e-6
    )
    assert {row["class"] for row in rows} == {"tumour", "'=HYPERLINK(1)", CLASSES[2]}
    assert rows[0]["stitched"] is False
    assert ("area_um2", "µm²", "Area of the mask, holes left out.") in list(book["columns"].values)
    book.close()


@pytest.mark.parametrize("downsample", [1.0, 0.6])
def test_ome_tiff_by_tifffile(tmp_path, downsample):
    result = counted(tmp_path / "a.cellseg", downsample=downsample)
    flat = tifffile.imread(export(result.path, "labels.tif"))
    with tifffile.TiffFile(export(result.path, "labels.ome.tif")) as file:
        assert file.is_ome
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
        (series,) = file.series
        sides = [level.shape[0] for level in series.levels]
        assert sides == [1300, 650, 325] if downsample == 1 else sides == [780, 390]
        assert np.array_equal(series.levels[0].asarray(), flat)
        assert np.isin(series.levels[-1].asarray(), flat).all()
        half = series.levels[1].asarray() > 0
        assert half.sum() == pytest.approx((flat > 0).sum() / 4, rel=0.03)


@pytest.mark.filterwarnings("default")  # of spatialdata and what it is built on
@pytest.mark.parametrize("mpp", [0.25, None])
def test_spatialdata_by_spatialdata(tmp_path, mpp):
    spatialdata = pytest.importorskip("spatialdata")
    result = counted(tmp_path / "slide #3.cellseg", downsample=2.0, mpp=mpp)
    for _ in range(2):  # a folder takes the place of the one before
        path = export(result.path, "spatialdata.zarr")
    assert load_result(result.path).has_export("spatialdata.zarr")
    found = spatialdata.read_zarr(path)
    labels = np.asarray(found.labels["cells"])
    assert np.array_equal(labels, np.asarray(result.labels()[0]))
    table = found.tables["table"]
    assert table.obs["label"].tolist() == result.table.load()["label"].tolist()
    assert table.obs["class"].astype(str).tolist() == result.table.load()["class"].tolist()
    systems = {"global": 1.0} if mpp is None else {"global": 1.0, "um": mpp}
    assert {*found.coordinate_systems} == {*systems}
    for system, pixel in systems.items():
        extent = spatialdata.get_extent(found, coordinate_system=system)
        assert extent["x"] == pytest.approx((0, 2600 * pixel))
        scale = spatialdata.transformations.get_transformation(found.labels["cells"], system)
        (one,) = {*np.diag(scale.to_affine_matrix(("x", "y"), ("x", "y")))[:2].tolist()}
        areas = np.bincount(labels.ravel())[1:] * one**2
        assert areas.tolist() == pytest.approx([a * pixel**2 for a in areas_of(result).values()])


@pytest.mark.parametrize("mpp", [0.25, None])
def test_h5ad_by_anndata(tmp_path, mpp):
    anndata = pytest.importorskip("anndata")
    result = counted(tmp_path / "a.cellseg", downsample=2.0, mpp=mpp)
    found = anndata.read_h5ad(export(result.path, "cells.h5ad"))
    table = result.table.load()
    assert found.obs["label"].tolist() == table["label"].tolist()
    assert found.obs["class"].astype(str).tolist() == table["class"].tolist()
    areas = found[:, "area_px"].X[:, 0]
    assert areas.tolist() == pytest.approx([*areas_of(result).values()], rel=1e-5)
    assert found.var.loc["area_px", "unit"] == "px²"
    assert found.uns["cellseg"]["spatial_unit"] == ("px" if mpp is None else "µm")
    centres = (table[["centroid_x_px", "centroid_y_px"]].to_numpy() + 0.5) * (mpp or 1)
    assert found.obsm["spatial"] == pytest.approx(centres)
    assert "score" in found.obs
    assert "score" not in found.var_names


@pytest.mark.filterwarnings("default")  # of spatialdata and what it is built on
@pytest.mark.parametrize("name", HERE)
def test_a_result_without_cells_is_exported(tmp_path, name):
    result = counted(tmp_path / "a.cellseg", [])
    assert export(result.path, name).stat().st_size > 0


@pytest.mark.parametrize(
    "name", [name for name in HERE if not name.startswith(("labels", "spatialdata"))]
)
def test_without_a_pixel_size(tmp_path, name):
    result = counted(tmp_path / "a.cellseg", mpp=None)
    text = export(result.path, name).read_bytes()
    assert b"area_um2" not in text
    assert name != "cells.coco.json" or b'"mpp"' not in text


def drawn(result):
    """Of each cell its corner (y, x) and mask, with a pixel around it, and its outline."""
    labels = np.pad(np.asarray(result.labels()[0]), 1)
    places = find_objects(labels)
    for number, outline in enumerate(outlines_of(result)):
        rows, columns = places[number]
        box = np.s_[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1]
        yield (rows.start - 2, columns.start - 2), labels[box] == number + 1, outline


@pytest.mark.parametrize("downsample", [1.0, 2.5, 0.37])
def test_outlines_keep_area_and_pixels(tmp_path, downsample):
    rng = np.random.default_rng(0)
    masks = []
    for place in range(200):
        mask = rng.random(rng.integers(1, 15, 2)) < rng.uniform(0.2, 1.0)
        mask[0, 0] = True
        masks.append((60 * (place // 20) + 1, 60 * (place % 20), mask))
    result = counted(tmp_path / "a.cellseg", masks, downsample=downsample)
    for (top, left), mask, outline in drawn(result):
        assert outline.is_valid
        assert outline.area == pytest.approx(mask.sum() * downsample**2, rel=0.005)
        y, x = np.indices(mask.shape) + 0.5
        again = shapely.contains_xy(outline, (x + left) * downsample, (y + top) * downsample)
        assert np.mean(again != mask) <= 0.04
        assert all(part.exterior.is_ccw for part in getattr(outline, "geoms", [outline]))


def test_outlines_of_smooth_cells_are_the_mask_again_and_short(tmp_path):
    """Simplified: half the points and fewer, and still every pixel on its side."""
    rng = np.random.default_rng(0)
    masks = []
    for place in range(30):
        labels, _ = label_image(gaussian_filter(rng.normal(size=(60, 60)), 4) > 0.05)
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        masks.append((65 * (place // 6), 200 * (place % 6), labels == largest))
    for (top, left), mask, outline in drawn(counted(tmp_path / "a.cellseg", masks)):
        y, x = np.indices(mask.shape) + 0.5
        wrong = np.count_nonzero(shapely.contains_xy(outline, x + left, y + top) != mask)
        assert wrong <= 0.01 * mask.sum() + 1
        edges = sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in (0, 1))
        assert mask.sum() > 100
        assert len(shapely.get_coordinates(outline)) < edges / 2


def test_memory_does_not_grow_with_the_cells(tmp_path, monkeypatch):
    """Six times the slide and the cells, the same peak but for some tens of bytes a cell.

    Now and then two chunks of 4 MB are decoded at once: the least peak of five counts.
    """
    monkeypatch.setattr("cellseg.result.table.CHUNK_PX", 200)
    monkeypatch.setattr("cellseg.result.table.GROUP_ROWS", 100)
    peaks = {}
    for rows in (3, 18):
        masks = [(22 * i, 22 * j, blob(8, 8)) for i in range(rows) for j in range(58)]
        result = counted(tmp_path / f"{rows}.cellseg", masks)
        for name in ("cells.geojson", "cells.parquet"):
            write = partial(export, result.path, name)
            write()  # once before: imports
            with zarr.config.set({"async.concurrency": 1}):
                peaks[name, rows] = min(peak_of(write) for _ in range(5))
    for name in ("cells.geojson", "cells.parquet"):
        assert peaks[name, 18] - peaks[name, 3] < 500 * 15 * 58, peaks


def test_the_command(tmp_path, cellseg):
    result = counted(tmp_path / "a.cellseg")
    code, out, _ = cellseg("export", result.path, "--to", "cells.parquet", "--to", "cells.geojson")
    assert code == 0
    assert out.splitlines() == [str(result.path / n) for n in ("cells.parquet", "cells.geojson")]
    assert load_result(result.path).run["exports"] == ["cells.geojson", "cells.parquet"]
    names = sorted(entry.name for entry in result.path.iterdir())
    assert names == sorted([*FILES, "cells.geojson", "cells.parquet"])
    code, _, text = cellseg("export", result.path, "--to", "cells.parquet", "--to", "cells.doc")
    assert code == 2
    assert text.count("\n") == 1
    assert all(name in text for name in EXPORTS)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        code, _, text = cellseg("export", path, "--to", "cells.parquet")
        assert (code, text.count("\n")) == (4, 1)
    _, text, _ = cellseg("export", "--help")
    assert [name for name in EXPORTS if name not in text] == []


@pytest.mark.parametrize(
    "name",
    sorted({"cells.geojson", "cells.h5ad", "cells.parquet", "cells.xlsx", "rois.zip"} & {*HERE}),
)
def test_a_full_disk_is_one_line_and_no_partial_file(tmp_path, name):
    """RLIMIT_FSIZE: writing further fails, as on a full disk."""
    result = counted(
        tmp_path / "a.cellseg", [(22 * i, 22 * j, blob(8, 8)) for i in range(39) for j in range(39)]
    )
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        f"import sys; sys.argv = ['cellseg', 'export', {str(result.path)!r}, '--to', {name!r}]; "
        "from cellseg.cli import main; main()"
    )
    # -B: else Python keeps modules compiled in part, and whoever imports them next fails.
    done = python("-B", "-c", code)
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"{name}: cannot be written" in done.stderr
    assert sorted(entry.name for entry in result.path.iterdir()) == FILES
    assert load_result(result.path).run["exports"] == []


def test_a_missing_package_is_told_with_its_extra_before_a_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    for name in ("_anndata", "cells_h5ad"):
        monkeypatch.delitem(sys.modules, f"cellseg.export.{name}", raising=False)
    with pytest.raises(SettingsError) as caught:
        check_exports(("cells.h5ad",))
    assert str(caught.value) == 'cells.h5ad needs anndata: pip install ".[scverse]"'


def test_a_label_image_that_lacks_a_cell_is_told(tmp_path):
    result = counted(tmp_path / "a.cellseg")
    shutil.rmtree(result.file("labels.ome.zarr") / "0" / "1")
    with pytest.raises(InputError, match=r"labels\.ome\.zarr was changed"):
        export(result.path, "cells.geojson")
    with pytest.raises(InputError, match=r"masks lack cell"):
        write_export(result, "cells.geojson", tmp_path / "cells.geojson")
    assert sorted(entry.name for entry in result.path.iterdir()) == FILES


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 9 * 10**9, 9), (9999, 9999, 10010, 10010)])
def test_a_table_with_impossible_boxes_is_an_input_error(tmp_path, box):
    result = counted(tmp_path / "a.cellseg")
    path = result.file("measured.parquet")
    table = pq.read_table(path)
    for name, value in zip(["y0", "x0", "y1", "x1"], box, strict=True):
        place = table.column_names.index(f"bbox_{name}_px")
        values = [value, *table.column(place).to_pylist()[1:]]
        table = table.set_column(place, table.column_names[place], [values])
    pq.write_table(table, path)
    with pytest.raises(InputError, match="row 1 is none on this slide"):
        write_export(load_result(result.path), "cells.geojson", tmp_path / "cells.geojson")
