"""One palette: the same class has the same colour on every face."""

import io
import json
import re
from itertools import combinations
from zipfile import ZipFile

import numpy as np
import pytest
import roifile
from finished import counted_folder
from PIL import Image
from serve import served
from skimage.color import deltaE_ciede2000, rgb2lab
from synthetic import write_disc_slide

from cellseg.draw import parts_of
from cellseg.export import export
from cellseg.palette import OTHER, PALETTE, as_hex, colours
from cellseg.protocol import Marker, load_protocol
from cellseg.result import load_result
from cellseg.run import change
from cellseg.study.folder import load_study
from cellseg.study.page import write_study

CONE_LOSS = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
"""Machado et al. 2009, on linear RGB."""

HAEMATOXYLIN, DAB = (125, 160, 208), (60, 42, 35)


def difference(one, other):
    """CIEDE2000, of the eyes that see it least."""
    found = []
    for loss in CONE_LOSS.values():
        seen = ((np.array([one, other]) / 255) ** 2.2 @ np.array(loss).T).clip(0, 1) ** (1 / 2.2)
        found.append(float(deltaE_ciede2000(*rgb2lab(seen))))
    return min(found)


def is_blue(colour):
    return colour[2] > 1.3 * max(colour[:2])


def test_on_brown_and_blue_slides_positive_is_red_and_negative_blue_for_all_eyes():
    negative, positive = colours(["negative", "positive"], "ihc")
    assert is_blue(negative)
    assert not is_blue(positive)
    assert difference(negative, positive) > 40
    assert difference(negative, HAEMATOXYLIN) > 15
    assert difference(positive, DAB) > 15


def test_grades_ascend_and_types_have_shades():
    grades = colours(["negative", "1+", "2+", "3+"], "ihc")
    assert len({*grades}) == 4
    assert [is_blue(colour) for colour in grades] == [True, False, False, False]
    names = [f"{kind}{word}" for kind in ("", "stroma: ") for word in ("negative", "positive")]
    assert len({*colours(names, "ihc")}) == 4
    assert colours([*names, "nucleus"], "ihc")[:2] == colours(["negative", "positive"], "ihc")


@pytest.mark.parametrize("stain", ["he", "ihc", "fluorescence", "brightfield"])
def test_classes_of_other_names_have_the_palette_in_turn(stain):
    found = colours([f"type {n}" for n in range(9)], stain)
    assert sorted(found[:7]) == sorted(PALETTE)
    assert found[7:] == [OTHER] * 2
    assert all(difference(*pair) > 9 for pair in combinations(found[:4], 2))
    assert not (stain == "ihc" and any(map(is_blue, found[:5])))


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A result with negative and positive cells on a brown and blue slide."""
    path = tmp_path_factory.mktemp("faces") / "a.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(300, 400))
    protocol = load_protocol("ihc").changed(mpp=0.5, min_area_um2=0.0, tile_px=512)
    folder = counted_folder(path, protocol)
    return change(folder, markers=(Marker(measure="area_px", threshold=250.0),)).path


def test_every_face_has_its_colours(classified, tmp_path):
    result = load_result(classified)
    assert result.class_names == ["negative", "positive"]
    expected = dict(zip(result.class_names, colours(result.class_names, "ihc"), strict=True))
    with Image.open(classified / "outlines.png") as image:
        pixels = np.asarray(image.crop(parts_of(image)[0])).reshape(-1, 3)
    assert all((pixels == colour).all(axis=1).any() for colour in expected.values())
    with Image.open(classified / "histogram.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert all((pixels == colour).all(axis=1).any() for colour in expected.values())
    features = json.loads(export(classified, "cells.geojson").read_text())["features"]
    classes = [feature["properties"]["classification"] for feature in features]
    assert {one["name"]: tuple(one["color"]) for one in classes} == expected
    with ZipFile(export(classified, "rois.zip")) as archive:
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    assert {roi.properties["class"]: tuple(roi.stroke_color[1:]) for roi in rois} == expected
    hexes = {name: as_hex(colour) for name, colour in expected.items()}
    with served.serving(classified) as client:
        about = client.ask("0/about").json["classes"]
        assert {one["name"]: one["colour"] for one in about} == hexes
        with Image.open(io.BytesIO(client.ask("0/nuclei/0/0/0?shown=3").body)) as tile:
            drawn = np.asarray(tile)[..., :3].reshape(-1, 3)
        assert all((drawn == colour).all(axis=1).any() for colour in expected.values())
    page = write_study(load_study(classified.parent), tmp_path / "report.html").read_text()
    assert all(re.search(rf"{colour}[^<]*<[^<]*{name}", page) for name, colour in hexes.items())
