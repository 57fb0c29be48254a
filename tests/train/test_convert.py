"""Outlines from QuPath and ImageJ to what ``cellseg train`` learns from."""

import gzip
import json

import numpy as np
import pytest
import roifile
import tifffile
from finished import frame_of, measured
from PIL import Image
from pycocotools.coco import COCO

from cellseg.annotations.coco import read_coco
from cellseg.export import export
from cellseg.instances import Instances
from cellseg.train.convert import ConvertRequest, convert

SIDE = 200


def picture(path, side=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def square(x, y, side=10):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(*rings, kind=None, name=None, of="annotation", **more):
    about = {"objectType": of}
    if kind is not None:
        about["classification"] = {"name": kind, "color": [1, 2, 3]}
    if name is not None:
        about["name"] = name
    geometry = {"type": "Polygon", "coordinates": list(rings)}
    return {"type": "Feature", "geometry": geometry, "properties": about, **more}


def drawn(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def converted(*inputs, **more):
    home = inputs[0].parent / "training"
    made = convert(ConvertRequest(inputs=inputs, output=home / "cells.json", **more))
    return made, read_coco(home / "cells.json")


@pytest.fixture
def said(cellseg):
    """Exit code and text of ``cellseg annotations convert``."""

    def run(*arguments):
        code, out, err = cellseg("annotations", "convert", *arguments)
        return code, out + err

    return run


def test_qupaths_annotations_pixel_by_pixel(tmp_path):
    path = picture(tmp_path / "slide.png")
    multi = feature(kind="b")
    parts = [[square(100, 20)], [square(120, 20, 4)]]
    multi["geometry"] = {"type": "MultiPolygon", "coordinates": parts}
    derived = feature(square(60.25, 60.25), kind="")
    derived["properties"]["classification"] = {"names": ["a", "positive"]}
    drawn(
        tmp_path / "slide.geojson",
        feature(square(10, 30, 20), square(15, 35, 5), kind="a", name="with a hole"),
        multi,
        derived,
        feature(square(-3, 190, 13), name="over the edge"),
    )
    made, data = converted(tmp_path / "slide.geojson", mpp=0.5, kind="other")
    assert (made.objects, made.pictures, made.notes) == (4, 1, [])
    assert data.classes == ("a", "b", "a: positive", "other")
    (image,) = data.images
    assert image.mpp == 0.5
    assert np.array_equal(image.pixels, np.asarray(Image.open(path)))
    assert image.classes.tolist() == [0, 1, 2, 3]
    assert image.boxes.tolist() == [
        [30, 10, 50, 30], [20, 100, 30, 124], [60, 60, 70, 70], [190, 0, 200, 10],
    ]  # fmt: skip
    assert [int(mask.sum()) for mask in image.masks] == [375, 116, 100, 100]
    assert not image.masks[0][5:10, 5:10].any()


def test_nuclei_or_whole_cells(tmp_path):
    picture(tmp_path / "slide.png")
    cell = feature(
        square(20, 20, 30), of="cell", nucleusGeometry=feature(square(30, 30))["geometry"]
    )
    around = feature(square(0, 0, 150), kind="Tumor")
    path = drawn(tmp_path / "slide.geojson", around, cell)
    made, data = converted(path)
    assert int(data.images[0].masks[0].sum()) == 100
    assert made.notes == [f"{path}: left out: annotations around detections (1)"]
    _, data = converted(path, whole_cells=True, overwrite=True)
    assert int(data.images[0].masks[0].sum()) == 900


def test_regions_are_cut_out_and_their_surroundings_ignored(tmp_path):
    path = picture(tmp_path / "slide.png")
    slanted = [[0, 0], [80, 0], [80, 10], [10, 80], [0, 80], [0, 0]]
    drawn(
        tmp_path / "slide.geojson",
        feature(slanted, kind="Region*"),
        feature(square(100, 100, 50), kind="Region*"),
        feature(square(140, 140, 10), kind="Ignore*"),
        feature(square(10, 10), kind="a"),
        feature(square(40, 40), kind="a"),
        feature(square(60, 60), kind="a"),
        feature(square(95, 110), kind="b"),
    )
    made, data = converted(tmp_path / "slide.geojson")
    assert made.pictures == 2
    assert made.notes == [
        f"{tmp_path / 'slide.geojson'}: left out: objects outside of the regions (1)"
    ]
    first, second = data.images
    pixels = np.asarray(Image.open(path))
    assert np.array_equal(first.pixels, pixels[:80, :80])
    assert np.array_equal(second.pixels, pixels[100:150, 100:150])
    assert first.boxes.tolist() == [[10, 10, 20, 20], [40, 40, 50, 50]]
    ((box, mask),) = first.ignored
    ignored = np.zeros((80, 80), bool)
    ignored[box.y0 : box.y1, box.x0 : box.x1] = mask
    y, x = np.mgrid[:80, :80] + 0.5
    outside = x + y > 90
    outside[40:50, 40:50] = False  # a cell across the edge stays whole
    assert np.mean(ignored != outside) < 0.02
    assert second.boxes.tolist() == [[10, 0, 20, 5]]
    ((box, mask),) = second.ignored
    assert (box.corners, mask.all()) == ((40, 40, 50, 50), True)
    assert data.classes[second.classes[0]] == "b"


def test_imagejs_rois(tmp_path):
    picture(tmp_path / "RoiSet.png")
    lines = [
        roifile.ImagejRoi.frompoints(np.array([[10, 20], [30, 20], [30, 40], [10, 40]])),
        roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, left=50, top=60, right=70, bottom=90),
        roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=100, top=100, right=112, bottom=105),
        roifile.ImagejRoi.frompoints(np.array([[1, 1], [9, 9]])),
    ]
    lines[1].group = 3
    lines[3].roitype = roifile.ROI_TYPE.POINT
    for number, roi in enumerate(lines):
        roi.name = f"roi {number}"
    roifile.roiwrite(tmp_path / "RoiSet.zip", lines)
    made, data = converted(tmp_path / "RoiSet.zip", kind="nucleus")
    assert made.notes == [f"{tmp_path / 'RoiSet.zip'}: left out: points and lines (1)"]
    (image,) = data.images
    areas = [int(mask.sum()) for mask in image.masks]
    assert areas == pytest.approx([400, np.pi * 10 * 15, 60], rel=0.03)
    assert image.boxes[[0, 2]].tolist() == [[20, 10, 40, 30], [100, 100, 105, 112]]
    assert [data.classes[n] for n in image.classes] == ["nucleus", "group 3", "nucleus"]


def test_imagejs_regions_by_their_names(tmp_path):
    picture(tmp_path / "a.png")
    places = {"Region*": (0, 50), "region*-1": (100, 60), "0001": (5, 10)}
    rois = [
        roifile.ImagejRoi(
            roitype=roifile.ROI_TYPE.RECT, left=x, top=0, right=x + w, bottom=w, name=name
        )
        for name, (x, w) in places.items()
    ]
    roifile.roiwrite(tmp_path / "a.zip", rois)
    made, data = converted(tmp_path / "a.zip")
    assert [image.pixels.shape[:2] for image in data.images] == [(50, 50), (60, 60)]
    assert made.objects == 1


def blobs(path, downsample):
    """A finished count of ellipses, one with a hole and one of two parts."""
    y, x = np.mgrid[-12:13, -12:13]
    rng = np.random.default_rng(3)
    masks = [(y / a) ** 2 + (x / b) ** 2 <= 1 for a, b in rng.uniform(6, 12, (60, 2))]
    masks[4] &= ~((y / 3) ** 2 + (x / 3) ** 2 <= 1)
    masks[5] = (abs(x) > 2) & masks[5]
    boxes = [
        (30 * (n // 8), 30 * (n % 8), 30 * (n // 8) + 25, 30 * (n % 8) + 25) for n in range(60)
    ]
    instances = Instances.build(boxes, [0.9] * 60, [n % 2 for n in range(60)], masks)
    side = round(250 * downsample)
    picture(path.with_suffix(".png"), side)
    frame = frame_of(side, side, downsample=downsample, mpp=0.25)
    about = {"path": str(path.with_suffix(".png"))}
    return measured(path, instances, frame, ["tumour", "=stroma"], image=about)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "downsample"),
    [("cells.geojson", 1.0), ("cells.geojson.gz", 2.0), ("rois.zip", 1.0), ("rois.zip", 2.0)],
)
def test_round_trip(tmp_path, name, downsample):
    result = blobs(tmp_path / "slide.cellseg", downsample)
    expected = COCO(export(result.path, "cells.coco.json"))
    output = tmp_path / "training" / "cells.json"
    inputs, images = (export(result.path, name),), (tmp_path / "slide.png",)
    convert(ConvertRequest(inputs=inputs, images=images, output=output))
    found = COCO(output)
    assert len(found.anns) == len(expected.anns) == 60
    total = sum(one["area"] for one in expected.anns.values())
    assert sum(one["area"] for one in found.anns.values()) == pytest.approx(total, rel=0.005)

    (mine, kinds), (theirs, their_kinds) = centres(found), centres(expected)
    away = np.linalg.norm(mine[:, None] - theirs[None], axis=2)
    assert {*away.argmin(axis=0).tolist()} == {*range(60)}
    assert away.min(axis=0).max() <= downsample
    assert [kinds[n] for n in away.argmin(axis=0)] == their_kinds
    if downsample == 1:
        mine, theirs = (sum(map(one.annToMask, one.anns.values())) for one in (found, expected))
        assert np.count_nonzero(mine != theirs) < 0.01 * total
    data = read_coco(output)
    assert {*data.classes} == {"tumour", "=stroma"}
    assert not data.images[0].known_in_part


def centres(coco):
    """Of the boxes, (60, 2), and the classes."""
    rows = list(coco.anns.values())
    boxes = np.array([one["bbox"] for one in rows])
    return boxes[:, :2] + boxes[:, 2:] / 2, [coco.cats[one["category_id"]]["name"] for one in rows]


def test_several_files_and_a_folder_of_pictures(tmp_path, said):
    for name in ("a", "b"):
        picture(tmp_path / "slides" / f"{name}.png")
        drawn(tmp_path / f"{name}.geojson", feature(square(5, 5), kind=name))
    output = tmp_path / "out" / "cells.json"
    code, text = said(
        tmp_path / "a.geojson", tmp_path / "b.geojson", "--image", tmp_path / "slides", "-o", output
    )
    assert (code, text) == (0, f"{output}: 2 objects on 2 pictures\n")
    data = read_coco(output)
    assert [image.name for image in data.images] == ["a.tif", "b.tif"]
    assert data.classes == ("a", "b")
    code, text = said(tmp_path / "a.geojson", "--image", tmp_path / "slides", "-o", output)
    assert (code, text.count("\n")) == (5, 1)
    assert "is there already" in text


def test_a_bare_geometry_on_one_channel_of_several(tmp_path, said):
    pixels = np.zeros((2, 64, 64), np.uint16)
    pixels[1] = 7
    tifffile.imwrite(
        tmp_path / "a.ome.tif", pixels, metadata={"axes": "CYX", "Channel": {"Name": ["X", "DAPI"]}}
    )
    path = tmp_path / "a.json"
    path.write_text(json.dumps(feature(square(5, 5))["geometry"]))
    code, text = said(path, "-o", tmp_path / "out.json")
    assert code == 2
    assert "has the channels X, DAPI; say which" in text
    code, text = said(path, "-o", tmp_path / "out.json", "--channel", "DAPI")
    assert code == 0
    data = read_coco(tmp_path / "out.json")
    assert data.classes == ("cell",)
    assert (data.images[0].pixels == 7).all()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x1f\x8b\x08damaged", "no GeoJSON of objects"),
        (gzip.compress(bytes(90_000_000), 1), "unpacks to more than 64 MB"),
        (gzip.compress(b"[]")[:-9], "no GeoJSON of objects"),
        (
            b'{"type": "GeometryCollection", "geometries": [' * 300 + b"]}" * 300,
            "holds no outlines",
        ),
        (b'{"type": "Topology"}', "an object of type 'Topology'"),
        (b"[]", "holds no outlines"),
        (json.dumps([feature([[1, 1], [2, 2]])]).encode(), "feature 1: no geometry: "),
        (json.dumps([feature(square(1, float("nan")))]).encode(), "feature 1: no geometry: "),
        (
            json.dumps([feature(square(300, 5), kind="a")]).encode(),
            "feature 1 (a): leaves the image",
        ),
        (json.dumps([feature([["x", "y"]] * 4)]).encode(), "feature 1: "),
        (json.dumps([feature(square(1e308, 5))]).encode(), "leaves the image"),
        (b'[{"type": "Feature", "geometry": {"type": "Blob"}}]', "feature 1: no geometry"),
        (b'[{"type": "Feature", "geometry": null}]', "feature 1: no geometry"),
    ],
)
def test_bad_geojson_is_one_line(tmp_path, said, content, word):
    picture(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_bytes(content)
    code, text = said(tmp_path / "a.geojson", "-o", tmp_path / "out.json")
    assert (code, text.count("\n")) == (4, 1), text
    assert word in text
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        ("cellseg.annotations.masks.MOST_PX", "spans 10 × 10 px, more than"),
        ("cellseg.train.convert.MOST_MASKS_PX", "together span more than 90 px"),
    ],
)
def test_outlines_that_would_take_all_memory(tmp_path, said, monkeypatch, limit, word):
    picture(tmp_path / "a.png")
    monkeypatch.setattr(limit, 90)
    code, text = said(drawn(tmp_path / "a.geojson", feature(square(5, 5))), "-o", tmp_path / "o")
    assert (code, text.count("\n")) == (4, 1), text
    assert word in text


def test_each_fault_has_its_line(tmp_path, said):
    picture(tmp_path / "a.png")
    bad = [feature([[1, 1]]), feature(square(5, 5)), feature([[2, 2]])]
    code, text = said(drawn(tmp_path / "a.geojson", *bad), "-o", tmp_path / "out.json")
    assert code == 4
    assert [line.split(": no geometry")[0][-9:] for line in text.splitlines()] == [
        "feature 1", "feature 3",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all", None])
def test_bad_rois_are_one_line(tmp_path, said, content):
    """Damaged files, and (None) outlines on two planes of a stack."""
    picture(tmp_path / "a.png")
    box = {"roitype": roifile.ROI_TYPE.RECT, "left": 1, "top": 1, "right": 9, "bottom": 9}
    rois = [roifile.ImagejRoi(**box, position=plane, name=f"{plane}") for plane in (1, 2)]
    roifile.roiwrite(tmp_path / "a.zip", rois)
    if content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    code, text = said(tmp_path / "a.zip", "-o", tmp_path / "out.json")
    assert (code, text.count("\n")) == (4, 1), text
    assert content is not None or "2 planes of a stack" in text


def test_which_picture_is_asked(tmp_path, said):
    path = drawn(tmp_path / "a.geojson", feature(square(1, 1)))
    output = tmp_path / "out.json"
    for arguments, exit_code, word in (
        ([], 2, "no picture is called 'a'"),
        (["--image", tmp_path / "nowhere.png"], 4, "nowhere.png"),
        (["--image", "x.png", "--image", "y.png"], 2, "1 inputs and 2 pictures"),
    ):
        code, text = said(path, "-o", output, *arguments)
        assert (code, text.count("\n")) == (exit_code, 1), text
        assert word in text
    code, text = said(tmp_path / "a.txt", "-o", output, "--image", picture(tmp_path / "a.png"))
    assert code == 2
    assert ".geojson" in text
    code, text = said(tmp_path / "b.geojson", "-o", output, "--image", tmp_path / "a.png")
    assert (code, text.count("\n")) == (4, 1)
