"""Regions: what lies inside, their names, QuPath's files; outlines to masks of their areas."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.annotations.geojson import read_regions
from cellseg.annotations.masks import enclosed_pixels
from cellseg.annotations.region import NAME_LENGTH, Region, Regions, enclosed
from cellseg.errors import InputError, SettingsError

SQUARE = [[10, 20], [110, 20], [110, 70], [10, 70], [10, 20]]
L_SHAPE = [(0, 0), (0, 30), (10, 30), (10, 10), (40, 10), (40, 0)]
BOW_TIE = [(10, 10), (50, 50), (10, 50), (50, 10)]


def feature(coordinates, kind="Polygon", **about):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": about}


def written(tmp_path, *features):
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_inside_outside_and_in_a_hole(tmp_path):
    ring = [[x, y] for y, x in L_SHAPE]
    hole = [[2, 2], [6, 2], [6, 6], [2, 6], [2, 2]]
    (region,) = read_regions(written(tmp_path, feature([ring, hole])))
    assert region.area_px == 300 + 300 - 16
    # Of points in pixels whose centres are integers: the first pixel's centre is (0.5, 0.5) here.
    inside = region.contains([5, 5, 20, 20, 4, 100, -0.5, -0.6], [8, 25, 5, 20, 4, 5, 5, 5])
    assert inside.tolist() == [True, True, True, False, False, False, True, False]


def test_overlap_is_counted_once_and_both_halves_of_an_8():
    both = Region.of([[(0, 0), (0, 10), (10, 10), (10, 0)], [(5, 5), (5, 15), (15, 15), (15, 5)]])
    assert both.area_px == pytest.approx(175)
    tie = Region.of([BOW_TIE])
    assert tie.area_px == pytest.approx(800)
    assert tie.contains([15, 15, 45], [30, 12, 30]).tolist() == [False, True, False]


def test_a_hole_that_leaves_its_outline_is_cut_there_and_one_without_points_is_none(tmp_path):
    hole = [[100, 30], [130, 30], [130, 40], [100, 40], [100, 30]]
    (region,) = read_regions(written(tmp_path, feature([SQUARE, hole])))
    assert region.area_px == pytest.approx(5000 - 100)
    regions = read_regions(written(tmp_path, feature([SQUARE, []])))
    (region,) = regions.on(1000, 1000)
    assert region.area_px == 5000
    assert len(region.shape.geoms[0].interiors) == 0


def test_points_find_their_regions_as_each_region_says():
    rng = np.random.default_rng(0)
    regions = Regions.of([Region.of([rng.uniform(-20, 200, (7, 2))]) for _ in range(30)])
    y, x = rng.uniform(-30, 210, (2, 500))
    points, held = regions.holding(y, x)
    found = np.zeros((500, 30), bool)
    found[points, held] = True
    assert np.array_equal(found, np.stack([region.contains(y, x) for region in regions], axis=1))
    names = regions.names_at(y, x)
    busiest = int(found.sum(axis=1).argmax())
    assert names[busiest] == "; ".join(f"region {n + 1}" for n in np.flatnonzero(found[busiest]))
    assert names[int(found.sum(axis=1).argmin())] == ""
    assert regions.names_at([], []) == []
    beside = Regions.of([Region.box(0, 0, 9, 9), Region.box(0, 9, 9, 19)])
    assert beside.names_at([5], [9]) == ["region 1; region 2"], "on a border that they share"


def test_what_qupath_writes(tmp_path):
    drawn = feature(
        [SQUARE],
        objectType="annotation",
        name="left lobe",
        classification={"name": "Tumor", "color": [200, 0, 0]},
        isLocked=True,
    )
    derived = feature([SQUARE], objectType="annotation", classification={"names": ["A", "B"]})
    two = [[SQUARE], [[[x + 200, y] for x, y in SQUARE]]]
    plain = feature(two, "MultiPolygon", objectType="annotation")
    cell = feature([SQUARE], objectType="cell")
    point = feature([1, 2], "Point", objectType="annotation", name="here")
    line = feature([[1, 2], [3, 4]], "LineString")
    regions = read_regions(written(tmp_path, drawn, derived, cell, plain, point, line))
    assert [region.name for region in regions] == ["left lobe", "region 1", "region 2"]
    assert [region.kind for region in regions] == ["Tumor", "A: B", ""]
    assert [region.area_px for region in regions] == [5000, 5000, 10000]
    assert regions.union.area == 10000
    assert regions.notes == (
        "drawn.geojson: left out: detections and tiles beside annotations (1)",
        "drawn.geojson: left out: points and lines (2)",
    )
    path = tmp_path / "again.geojson"
    path.write_text(json.dumps(regions.as_geojson()))
    assert read_regions(path) == regions


def test_detections_are_regions_where_there_is_nothing_else(tmp_path):
    assert len(read_regions(written(tmp_path, feature([SQUARE], objectType="tile")))) == 1
    path = tmp_path / "bare.geojson"
    path.write_text(json.dumps([{"type": "Polygon", "coordinates": [SQUARE]}] * 2))
    assert [region.name for region in read_regions(path)] == ["region 1", "region 2"]


def test_names_are_told_apart_and_fit_in_a_table(tmp_path):
    long = "x" * 5000
    given = ["a", "", "a", "region 1", "a (2)", "a", long, long, "=1+1", "b;c\nd\x1b[2J"]
    regions = read_regions(written(tmp_path, *(feature([SQUARE], name=name) for name in given)))
    names = [region.name for region in regions]
    assert names[:6] == ["a", "region 2", "a (3)", "region 1", "a (2)", "a (4)"]
    assert [len(name) for name in names[6:8]] == [NAME_LENGTH, NAME_LENGTH + 4]
    assert names[8:] == ["=1+1", r"b,c d\u001b[2J"]
    assert len(set(names)) == len(names)
    assert regions.notes == (f"2 names of regions were cut to {NAME_LENGTH} characters",)
    box = Region.box(0, 0, 9, 9, name="a").shape
    names = [region.name for region in Regions.of([Region(box, "a")] * 10_000)]
    assert names[:2] == ["a", "a (2)"]
    assert names[-1] == "a (10000)"


def test_at_the_slides_edge_they_are_cut():
    beside, across = Region.box(500, 0, 600, 9, name="off"), Region.box(-50, -0.5, 49.5, 9.5)
    whole = Region.box(0, 0, 9, 9, name="on")
    cut = Regions.of([beside, across, whole]).on(100, 200)
    assert [region.area_px for region in cut] == [0, 50 * 10, 81]
    assert [region.name for region in cut] == ["off", "region 1", "on"]
    size = "outside of the slide, which is 200 × 100 px"
    assert cut.notes == (
        f"1 region (off) lies {size}: nothing is counted there",
        f"1 region (region 1) lies in part {size}: cut at its edges",
    )
    assert cut.names_at([5], [5]) == ["region 1; on"]
    with pytest.raises(
        SettingsError, match=r"2 regions \(off, off \(2\)\) lie outside of the slide"
    ):
        Regions.of([beside, beside]).on(100, 200)


def test_a_region_without_an_area_is_left_out_beside_others(tmp_path):
    flat = feature([[[1, 1], [2, 2], [3, 3], [1, 1]]], name="flat")
    regions = read_regions(written(tmp_path, flat, feature([[[x, y] for y, x in BOW_TIE]])))
    assert [region.area_px for region in regions] == [800]
    assert regions.notes == (
        "drawn.geojson: left out: regions without an area (1)",
        "drawn.geojson: 1 outlines cross or overlap: what they enclose is counted once",
    )


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "[3]", '{"type": "Polygon"}', '{"features": 1, "type": "FeatureCollection"}',
     '{"type": "Polygon", "coordinates": [[[1, 2]]]}',
     '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, "x"]]]}',
     '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, NaN]]]}',
     '{"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [3, 3]]]}',
     '{"type": "Polygon", "coordinates": "abc"}', '{"type": "Feature"}',
     '{"type": "Feature", "geometry": {"type": "Ball", "coordinates": []}}',
     '{"type": "Point", "coordinates": [1, 2]}', "[" * 100_000],
)  # fmt: skip
def test_other_files_get_one_line(tmp_path, text):
    path = tmp_path / "wrong.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.geojson: ") as caught:
        read_regions(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"II*\x00\x93\xff", "no GeoJSON of objects: it is no text"),
        (b"{}", "no GeoJSON of objects: expected features or geometries, got an object without a "
         "type"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, said):
    path = tmp_path / "wrong.geojson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_regions(path)
    assert str(caught.value) == f"{path}: {said}"


def test_nothing_is_no_region():
    with pytest.raises(SettingsError, match="at least one"):
        Regions.of([])
    with pytest.raises(SettingsError, match="numbers"):
        Region.of([[(0, 0), (0, float("nan")), (1, 1)]])
    with pytest.raises(SettingsError, match="three points"):
        Region.of([[(0, 0), (0, 1)]])
    with pytest.raises(SettingsError, match="needs an area"):
        Region.of([[(0, 0), (0, 9), (0, 4)]])


@pytest.mark.parametrize("kind", [shapely.MultiPolygon, shapely.GeometryCollection])
def test_a_tangle_is_refused_before_it_fills_the_memory(kind):
    places = np.random.default_rng(0).uniform(0, 1000, (3000, 2))
    with pytest.raises(SettingsError, match="crosses itself too often"):
        enclosed(kind([shapely.Polygon(places)]))
    assert enclosed(kind([shapely.Polygon(places[:100])])).is_valid


@pytest.mark.parametrize("far", ["1e12", "1e150", "1e300", "-1e12", "9" * 400, "9" * 5000, "1e999"])
def test_points_that_lie_on_no_slide_are_refused(tmp_path, far):
    path = tmp_path / "far.geojson"
    path.write_text(f'{{"type": "Polygon", "coordinates": [[[0, 0], [{far}, 0], [5, 5]]]}}')
    with pytest.raises(InputError, match=r"far\.geojson"):
        read_regions(path)


def test_outlines_are_those_that_were_given():
    ring = np.array([*L_SHAPE, L_SHAPE[0]], float)
    (outline,) = Region.of([ring]).outlines
    np.testing.assert_array_equal(outline, ring)
    hole = shapely.Polygon([(0, 0), (9, 0), (9, 9)], [[(5, 1), (6, 1), (6, 2)]])
    assert len(Region(shapely.MultiPolygon([hole])).outlines) == 2


def filled(rings, shape, corner=(0, 0)):
    mask = np.zeros((80, 80), bool)
    if (found := enclosed_pixels(rings, corner, shape)) is not None:
        mask[found[0].pixels] = found[1]
    return mask


def ellipse(y, x, radii):
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([x + radii[1] * np.cos(angles), y + radii[0] * np.sin(angles)], axis=1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.95))
def test_borders_of_pixels_give_these_pixels(seed, share):
    wanted = np.random.default_rng(seed).random((12, 15)) < share
    shape = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(wanted)])
    rings = [
        shapely.get_coordinates(ring)
        for part in shapely.get_parts(shape)
        for ring in (part.exterior, *part.interiors)
    ]
    assert np.array_equal(filled(rings, (12, 15))[:12, :15], wanted)
    part = filled(rings, (6, 7), corner=(3, 4))
    assert np.array_equal(part[3:9, 4:11], wanted[3:9, 4:11])
    assert part.sum() == wanted[3:9, 4:11].sum()


@settings(deadline=None)
@given(
    centre=st.tuples(st.floats(15, 25), st.floats(15, 25)),
    radii=st.tuples(st.floats(2, 14), st.floats(2, 14)),
)
def test_area_and_place_are_kept(centre, radii):
    ring = ellipse(*centre, radii)
    mask = filled([ring], (40, 40))
    assert mask.sum() == pytest.approx(shapely.Polygon(ring).area, abs=3)
    assert np.argwhere(mask).mean(axis=0) + 0.5 == pytest.approx(np.array(centre), abs=0.6)


def test_diagonals_through_pixel_centres_gain_nothing():
    """As outlines around pixels twice as wide have them; centres alone would give 5 % more."""
    ring = np.array([[20, 0], [40, 20], [20, 40], [0, 20]], float)
    y, x = np.mgrid[:40, :40] + 0.5
    assert (np.abs(x - 20) + np.abs(y - 20) <= 20).sum() > 1.04 * 800
    assert filled([ring], (40, 40)).sum() == 800


def test_crossing_and_beyond():
    eight = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    assert filled([eight], (10, 10)).sum() == pytest.approx(50, abs=1)
    mask = filled([ellipse(0, 0, (10, 10))], (40, 40))
    assert mask.sum() == pytest.approx(np.pi * 25, rel=0.03)
    assert mask[:2, :2].all()
    assert enclosed_pixels([eight], (20, 20), (5, 5)) is None
