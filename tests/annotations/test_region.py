"""Regions: what lies inside, and QuPath's files."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from cellseg.annotations.region import Region, read_region
from cellseg.errors import InputError, SettingsError

L_SHAPE = ((0.0, 0.0), (0.0, 30.0), (10.0, 30.0), (10.0, 10.0), (40.0, 10.0), (40.0, 0.0))
L_SCALED = tuple((3 * y + 10, 3 * x + 10) for y, x in L_SHAPE)


def test_inside_outside_and_in_a_hole():
    hole = ((2.0, 2.0), (2.0, 6.0), (6.0, 6.0), (6.0, 2.0))
    region = Region(((L_SHAPE, hole),))
    assert region.area_px == 300 + 300 - 16
    inside = region.contains([5, 5, 20, 20, 4, 100], [8, 25, 5, 20, 4, 5])
    assert inside.tolist() == [True, True, True, False, False, False]
    assert region.bounds == (0.0, 0.0, 40.0, 30.0)


def test_overlap_is_counted_once():
    both = Region.of([[(0, 0), (0, 10), (10, 10), (10, 0)], [(5, 5), (5, 15), (15, 15), (15, 5)]])
    assert both.area_px == 200
    assert both.covered_px == pytest.approx(175, rel=1e-3)
    assert Region.of([L_SHAPE]).covered_px == pytest.approx(600, rel=1e-3)
    hole = ((2.0, 2.0), (2.0, 6.0), (6.0, 6.0), (6.0, 2.0))
    assert Region(((L_SHAPE, hole),)).covered_px == pytest.approx(584, rel=1e-3)
    apart = Region.box(1e5, 1e5, 1e5 + 3, 1e5 + 7)
    assert apart.covered_px == pytest.approx(21, rel=1e-6)


def test_shares_of_coarse_pixels_add_up_to_the_area():
    region = Region.of([np.array(L_SHAPE) * 10 + 13])
    share = region.share_of_pixels((960, 960), 16.0)
    assert share.shape == (60, 60)
    assert share.sum() * 256 == pytest.approx(region.area_px, rel=1e-3)
    assert share.max() == 1.0
    assert region.share_of_pixels((8, 8), 8.0).sum() == 0


def test_shares_are_what_points_say():
    rng = np.random.default_rng(0)
    hole = np.array([(30, 30), (30, 160), (80, 60)], float)  # runs out of the outline
    star = rng.uniform(-20, 200, (9, 2))  # crosses itself, and the slide's border
    region = Region((*Region.of([star]).polygons, ((*L_SCALED,), tuple(map(tuple, hole)))))
    extent, step = (150, 130), 8.0
    share = region.share_of_pixels(extent, step, samples=32)
    y, x = np.mgrid[0 : extent[0] : 0.25, 0 : extent[1] : 0.25]
    inside = region.contains(y.ravel() - 0.375, x.ravel() - 0.375).reshape(y.shape)
    for row in range(share.shape[0]):
        for column in range(share.shape[1]):
            block = inside[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert share[row, column] == pytest.approx(block.mean(), abs=0.04)


def test_the_last_pixels_are_whole_at_the_border():
    share = Region.box(-5, -5, 500, 500).share_of_pixels((100, 70), 16.0)
    assert share.shape == (7, 5)
    np.testing.assert_allclose(share, 1.0, atol=1e-5)


def test_pixels_off_the_edge_are_inside_or_outside_as_a_whole():
    region = Region.of([np.array(L_SHAPE) * 7 + 5])
    share, edge = region.share_of_pixels((320, 240), 16.0), region.edge_pixels((320, 240), 16.0)
    assert set(np.unique(share[~edge])) == {0.0, 1.0}
    assert 0 < edge.mean() < 0.9
    # Smaller than the distance between two lines, and seen all the same.
    speck = Region.box(100.1, 100.1, 100.2, 100.2)
    assert speck.share_of_pixels((320, 240), 16.0).sum() == 0
    assert speck.edge_pixels((320, 240), 16.0)[6, 6]


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


BOW_TIE = ((10.0, 10.0), (50.0, 50.0), (10.0, 50.0), (50.0, 10.0))


def test_an_outline_that_crosses_itself_has_the_area_of_both_halves():
    region = Region(((BOW_TIE,),))
    assert region.covered_px == pytest.approx(800, rel=1e-3)
    assert region.share_of_pixels((60, 60), 4.0).sum() * 16 == pytest.approx(800, rel=0.02)
    assert region.contains([15, 15, 45], [30, 12, 30]).tolist() == [False, True, False]


@pytest.mark.parametrize("ring", [BOW_TIE[:2] + BOW_TIE[:1], ((0, 0), (0, 9), (0, 4))])
def test_a_line_has_no_area(ring):
    with pytest.raises(SettingsError, match="needs an area"):
        Region(((ring,),))


@pytest.mark.parametrize("far", ["1e12", "1e150", "1e300", "-1e12", "9" * 400, "9" * 5000, "1e999"])
def test_points_that_lie_on_no_slide_are_refused(tmp_path, far):
    path = tmp_path / "far.geojson"
    path.write_text(f'{{"type": "Polygon", "coordinates": [[[0, 0], [{far}, 0], [5, 5]]]}}')
    with pytest.raises(InputError, match=r"far\.geojson"):
        read_region(path)


def test_edges_far_beyond_the_slide_are_not_walked_along():
    far = Region.of([[(-9e7, 50.0), (9e7, 50.0), (9e7, 9e7)]])
    seen = far.edge_pixels((100, 100), 1.0)
    tracemalloc.start()
    again = far.edge_pixels((100, 100), 1.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(seen, again)
    assert seen.any()
    assert most < 5_000_000


def test_edges_are_found_where_shares_are_neither_0_nor_1():
    rng = np.random.default_rng(3)
    for _ in range(20):
        region = Region.of([rng.uniform(-60, 160, (5, 2))])
        share = region.share_of_pixels((100, 100), 4.0, samples=64)
        assert region.edge_pixels((100, 100), 4.0)[(share > 0.02) & (share < 0.98)].all()
