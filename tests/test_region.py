"""Regions: what lies inside, and QuPath's files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellseg.errors import InputError, SettingsError
from cellseg.region import Region, read_region

L_SHAPE = ((0.0, 0.0), (0.0, 30.0), (10.0, 30.0), (10.0, 10.0), (40.0, 10.0), (40.0, 0.0))


def test_inside_outside_and_in_a_hole():
    hole = ((2.0, 2.0), (2.0, 6.0), (6.0, 6.0), (6.0, 2.0))
    region = Region(((L_SHAPE, hole),))
    assert region.area_px == 300 + 300 - 16
    inside = region.contains([5, 5, 20, 20, 4, 100], [8, 25, 5, 20, 4, 5])
    assert inside.tolist() == [True, True, True, False, False, False]
    assert region.bounds == (0.0, 0.0, 40.0, 30.0)


def test_shares_of_coarse_pixels_add_up_to_the_area():
    region = Region.of([np.array(L_SHAPE) * 10 + 13])
    share = region.share_of_pixels((60, 60), 16.0, samples=8)
    assert share.sum() * 256 == pytest.approx(region.area_px, rel=0.01)
    assert share.max() == 1.0
    assert region.share_of_pixels((1, 1), 8.0).sum() == 0


def test_corners_stay_together_on_another_lattice():
    # A region of whole pixels keeps its corners: from −0.5 to 7.5 is four pixels by two.
    scaled = Region.box(-0.5, -0.5, 7.5, 7.5).scaled(2.0)
    assert scaled.bounds == (-0.5, -0.5, 3.5, 3.5)


def test_qupath_files(tmp_path):
    path = tmp_path / "annotations.geojson"
    square = [[[10, 20], [110, 20], [110, 70], [10, 70], [10, 20]]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature, point]}))
    region = read_region(path)
    assert region.bounds == (20.0, 10.0, 70.0, 110.0)
    path.write_text(json.dumps(region.as_geojson()))
    assert read_region(path).area_px == 5000
    path.write_text(json.dumps([feature, feature]))
    assert len(read_region(path).polygons) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"type": "Polygon"}', '{"type": "Polygon", "coordinates": [[[1, 2]]]}',
     '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, "x"]]]}',
     '{"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [3, 3]]]}',
     '{"type": "Point", "coordinates": [1, 2]}'],
)  # fmt: skip
def test_other_files_get_one_line(tmp_path, text):
    path = tmp_path / "wrong.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.geojson: ") as caught:
        read_region(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_region(tmp_path / "missing.geojson")


def test_nothing_is_no_region():
    with pytest.raises(SettingsError, match="at least one"):
        Region(())
    with pytest.raises(SettingsError, match="numbers"):
        Region.of([[(0, 0), (0, float("nan")), (1, 1)]])
