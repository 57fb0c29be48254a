"""Measuring: known shapes, scikit-image as the second opinion, the contract; grown cells."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished import frame_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra.numpy import arrays
from skimage.color import rgb_from_hed
from skimage.measure import regionprops

from cellseg.instances import Instances
from cellseg.table import channel_slugs, columns, measure
from cellseg.table.around import OUTLINE_PX, around_columns, grow, grown_blocks
from cellseg.table.neighbours import Neighbours

UNIT = frame_of(99, 99)
RGB = ("red", "green", "blue")


def instances_of(*masks, at=(0, 0)):
    boxes = [(at[0], at[1], at[0] + m.shape[0], at[1] + m.shape[1]) for m in masks]
    return Instances.build(boxes, [0.5] * len(masks), [0] * len(masks), masks)


def shape_of(*masks, frame=UNIT, at=(0, 0)):
    cells = instances_of(*masks, at=at)
    found = measure(cells, None, (0, 0), frame=frame, channels=(), stain="brightfield")
    return pd.DataFrame(found)


def ellipse(a, b, degrees=0.0, shift=(0.3, 0.2)):
    """Half axes a (towards ``degrees`` from down, counter-clockwise) and b, pixels.

    The centre lies off the pixels' centres, as a cell's does: on them, ends become one pixel wide.
    """
    reach = int(max(a, b)) + 3
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    y, x = y - shift[0], x - shift[1]
    angle = np.radians(degrees)
    along = y * np.cos(angle) + x * np.sin(angle)
    across = -y * np.sin(angle) + x * np.cos(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


@pytest.mark.parametrize("radius", [5, 8, 12.5, 20, 40])
def test_disc(radius):
    """What scikit-image does not measure as we do; the rest is compared with it below."""
    row = shape_of(ellipse(radius, radius)).iloc[0]
    assert row.feret_diameter_max_px == pytest.approx(2 * radius, abs=1.05)
    assert row.circularity > 0.95


def test_rectangle_is_exact():
    height, width = 30, 12
    loose = np.zeros((40, 20), bool)
    loose[4 : 4 + height, 3 : 3 + width] = True
    row = shape_of(loose).iloc[0]
    assert row.area_px == height * width
    assert (row.centroid_y_px, row.centroid_x_px) == (4 + 14.5, 3 + 5.5)
    assert row[[f"bbox_{edge}_px" for edge in ("y0", "x0", "y1", "x1")]].tolist() == [4, 3, 34, 15]
    assert row.axis_major_length_px == pytest.approx(4 * np.sqrt((height**2 - 1) / 12))
    assert row.axis_minor_length_px == pytest.approx(4 * np.sqrt((width**2 - 1) / 12))
    assert (row.solidity, row.extent, row.orientation_deg) == (1, 1, 0)
    assert row.feret_diameter_max_px == pytest.approx(np.hypot(height, width - 1))
    diagonals = 2 * (height + width - 1) / np.sqrt(2)
    assert row.perimeter_px == pytest.approx(np.pi / 4 * (height + width + diagonals))
    assert row.perimeter_px == pytest.approx(2 * (height + width), rel=0.07)


def test_one_pixel_and_lines():
    dot, down, across = (np.ones(shape, bool) for shape in ((1, 1), (9, 1), (1, 9)))
    table = shape_of(dot, down, across, np.eye(9, dtype=bool))
    assert table.axis_minor_length_px.tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert table.eccentricity.tolist() == pytest.approx([0, 1, 1, 1])
    assert table.orientation_deg[1:].tolist() == pytest.approx([0, 90, 45])
    assert np.isnan(table.orientation_deg[0])
    assert table.feret_diameter_max_px[:3].tolist() == [1, 9, 9]
    assert table.feret_diameter_max_px[3] == pytest.approx(np.hypot(8, 9))
    assert table.circularity[0] == 1
    assert table.circularity[1:].max() < 0.6


def blobs():
    """Masks of any form: noise, some of it in pieces or with holes."""
    shape = st.tuples(st.integers(1, 14), st.integers(1, 14))
    return hnp.arrays(bool, shape, elements=st.booleans()).filter(lambda mask: mask.any())


@settings(deadline=None, max_examples=40)
@given(st.lists(blobs(), min_size=1, max_size=4))
def test_agrees_with_scikit_image_on_any_mask(masks):
    table = shape_of(*masks)
    for mask, row in zip(masks, table.itertuples(), strict=True):
        (other,) = regionprops(mask.astype(np.uint8))
        assert (row.centroid_y_px, row.centroid_x_px) == pytest.approx(other.centroid)
        box = (row.bbox_y0_px, row.bbox_x0_px, row.bbox_y1_px, row.bbox_x1_px)
        assert box == other.bbox
        assert row.area_px == other.area
        assert row.perimeter_px == pytest.approx(other.perimeter_crofton)
        assert row.axis_major_length_px == pytest.approx(other.axis_major_length, abs=1e-5)
        assert row.axis_minor_length_px == pytest.approx(other.axis_minor_length, abs=1e-5)
        assert row.eccentricity == pytest.approx(other.eccentricity, abs=1e-5)
        assert row.equivalent_diameter_area_px == pytest.approx(other.equivalent_diameter_area)
        assert row.extent == pytest.approx(other.extent)
        assert -90 < row.orientation_deg <= 90 or np.isnan(row.orientation_deg)
        if not np.isnan(row.orientation_deg):
            turn = np.radians(row.orientation_deg) - other.orientation
            assert abs(np.sin(turn)) < 1e-6
        assert row.solidity == pytest.approx(other.solidity)
        assert row.feret_diameter_max_px <= other.feret_diameter_max + 1e-6
        assert row.feret_diameter_max_px >= other.feret_diameter_max - 1


@settings(deadline=None, max_examples=25)
@given(blobs())
def test_turning_a_mask_changes_no_shape(mask):
    names = ["area_px", "perimeter_px", "axis_major_length_px", "feret_diameter_max_px", "solidity"]
    table = shape_of(mask, mask[::-1], mask[:, ::-1], mask.T)
    for name in names:
        assert table[name].to_numpy() == pytest.approx(table[name][0])


def test_masks_are_measured_alike_alone_and_with_others():
    large = ellipse(520, 400, 20)  # more pixels than are measured at once
    masks = [ellipse(9, 6), large, ellipse(5, 5), ellipse(8, 3, 40), large]
    alone = pd.concat([shape_of(mask) for mask in masks], ignore_index=True)
    assert shape_of(*masks).equals(alone)


def test_level0_pixels_and_micrometres():
    mask = ellipse(9, 6, 20)
    lattice, row = (
        shape_of(mask, frame=frame, at=(100, 40)).iloc[0]
        for frame in (UNIT, frame_of(99, 99, downsample=2.0, mpp=0.25))
    )
    assert row.area_px == mask.sum() * 4
    assert row.area_um2 == pytest.approx(mask.sum() * 0.25)
    assert row.perimeter_px == pytest.approx(lattice.perimeter_px * 2)
    assert row.perimeter_um == pytest.approx(lattice.perimeter_px * 0.5)
    assert row.feret_diameter_max_um == pytest.approx(lattice.feret_diameter_max_px * 0.5)
    assert row.solidity == lattice.solidity
    assert row.centroid_y_px == pytest.approx((lattice.centroid_y_px + 0.5) * 2 - 0.5)
    assert row.centroid_x_um == pytest.approx(row.centroid_x_px * 0.25)
    assert row.bbox_y0_px == lattice.bbox_y0_px * 2
    assert row.bbox_x1_px == lattice.bbox_x1_px * 2


def test_box_is_rounded_outwards_but_not_by_rounding_noise():
    def box(step):
        table = shape_of(np.ones((3, 3), bool), frame=frame_of(99, 99, downsample=step), at=(3, 1))
        return table.filter(like="bbox").iloc[0].tolist()

    assert box(2 - 1e-9) == box(2.0) == [6, 2, 12, 8]
    assert box(1.9) == [5, 1, 12, 8]


def measured(pixels, mask, channels, stain="fluorescence", at=(50, 60), **options):
    found = measure(
        instances_of(mask, at=at), pixels, (45, 52), frame=UNIT, channels=channels, stain=stain,
        **options,
    )  # fmt: skip
    return pd.DataFrame(found).iloc[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "bool"])
def test_intensities_agree_with_numpy(dtype):
    pixels = np.random.default_rng(1).integers(0, 120, (40, 45, 2)).astype(dtype)
    mask = ellipse(8, 5, 30)
    row = measured(pixels, mask, ("DAPI", "Ki-67"))
    inside = pixels[5 : 5 + mask.shape[0], 8 : 8 + mask.shape[1]][mask].astype(float)
    for index, slug in enumerate(("dapi", "ki_67")):
        values = inside[:, index]
        assert row[f"intensity_mean_{slug}"] == pytest.approx(values.mean())
        assert row[f"intensity_std_{slug}"] == pytest.approx(values.std())
        assert row[f"intensity_min_{slug}"] == values.min()
        assert row[f"intensity_max_{slug}"] == values.max()


def test_nan_and_infinite_pixels_are_left_out():
    pixels = np.full((40, 45, 2), 3.0, np.float32)
    pixels[10, 13] = np.nan
    pixels[11, 13] = np.inf
    pixels[12, 13, 0] = 7.0
    pixels[..., 1] = np.nan
    row = measured(pixels, np.ones((10, 10), bool), ("a", "b"))
    assert row.intensity_mean_a == pytest.approx((97 * 3 + 7) / 98)
    assert (row.intensity_min_a, row.intensity_max_a) == (3, 7)
    assert row.intensity_std_a == pytest.approx(np.std([3.0] * 97 + [7.0]))
    assert row[["intensity_mean_b", "intensity_std_b", "intensity_min_b"]].isna().all()


@pytest.mark.parametrize(("stain", "second", "index"), [("he", "eosin", 1), ("ihc", "dab", 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_optical_densities_are_what_was_mixed(stain, second, index, dtype):
    amounts = np.zeros(3)
    amounts[0], amounts[index] = 0.4, 0.3
    white = 1.0 if dtype == "float64" else np.iinfo(dtype).max
    colour = 10 ** -(amounts @ rgb_from_hed) * white
    colour = (colour if dtype == "float64" else colour.round()).astype(dtype)
    pixels = np.broadcast_to(colour, (40, 45, 3))
    row = measured(pixels, np.ones((5, 5), bool), RGB, stain)
    assert row.hematoxylin_od_mean == pytest.approx(0.4, abs=0.01)
    assert row[f"{second}_od_mean"] == pytest.approx(0.3, abs=0.01)


def test_white_paper_has_no_density_and_black_has_a_limit():
    mask = np.ones((5, 5), bool)
    white, black = np.full((40, 45, 3), 255, np.uint8), np.zeros((40, 45, 3), np.uint8)
    assert measured(white, mask, RGB, "ihc").dab_od_mean == 0
    assert 0 < measured(black, mask, RGB, "ihc").hematoxylin_od_mean < 3
    dim = np.full((40, 45, 3), 4095, np.uint16)
    assert measured(dim, mask, RGB, "he").hematoxylin_od_mean > 0.3
    assert measured(dim, mask, RGB, "he", white=4095).hematoxylin_od_mean == 0
    with pytest.raises(ValueError, match="white"):
        measured(dim, mask, RGB, "he", white=0)

    gap = np.full((40, 45, 3), 0.5)
    gap[6, 9] = np.nan
    whole = measured(np.full((40, 45, 3), 0.5), mask, RGB, "he")
    assert measured(gap, mask, RGB, "he").eosin_od_mean == pytest.approx(whole.eosin_od_mean)


def test_a_mask_has_a_pixel():
    empty = Instances.build([(0, 0, 2, 2)], [1], [0], [np.zeros((2, 2), bool)])
    with pytest.raises(ValueError, match="no pixel set"):
        measure(empty, None, (0, 0), frame=UNIT, channels=(), stain="he")


ADDED = {"label", "image", "class", "object", "touches_border", "stitched"}


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("stain", ["he", "ihc", "fluorescence", "brightfield"])
@pytest.mark.parametrize("mpp", [None, 0.25])
def test_table_has_the_columns_of_the_contract(count, stain, mpp):
    at = instances_of(*[np.ones((4, 4), bool)] * count)
    pixels = np.zeros((4, 4, 3), np.uint8)
    frame = frame_of(99, 99, downsample=2.0, mpp=mpp)
    found = measure(at, pixels, (0, 0), frame=frame, channels=RGB, stain=stain)
    table = pd.DataFrame(found)
    wanted = [
        column
        for column in columns(RGB, stain=stain, has_mpp=mpp is not None)
        if column.name not in ADDED
    ]
    assert list(table.columns) == [column.name for column in wanted]
    assert [str(dtype) for dtype in table.dtypes] == [column.dtype for column in wanted]
    assert len(table) == count
    assert (mpp is None) == (not any(re.search("_um2?$", name) for name in table.columns))


def test_golden_columns():
    names = [column.name for column in columns(("DAPI",), stain="fluorescence", has_mpp=True)]
    assert " ".join(names) == (
        "label image class object score centroid_y_px centroid_x_px centroid_y_um centroid_x_um "
        "bbox_y0_px bbox_x0_px bbox_y1_px bbox_x1_px area_px area_um2 perimeter_px perimeter_um "
        "axis_major_length_px axis_major_length_um axis_minor_length_px axis_minor_length_um "
        "feret_diameter_max_px feret_diameter_max_um equivalent_diameter_area_px "
        "equivalent_diameter_area_um eccentricity solidity extent circularity orientation_deg "
        "intensity_mean_dapi intensity_std_dapi intensity_min_dapi intensity_max_dapi "
        "touches_border stitched"
    )
    he = [column.name for column in columns(RGB, stain="he", has_mpp=True)]
    assert he[-4:] == ["hematoxylin_od_mean", "eosin_od_mean", "touches_border", "stitched"]
    assert not any("_od_" in column.name for column in columns(("gray",), stain="he", has_mpp=True))
    assert not any("intensity" in column.name for column in columns((), stain="he", has_mpp=True))


def test_documentation_says_what_the_code_does():
    page = (Path(__file__).parents[2] / "docs" / "cells-csv.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `(\S+)` \| (.*?) \| (\S+) \| (.+) \|$", page, flags=re.MULTILINE)
    he = columns((*RGB,), stain="he", has_mpp=True)
    ihc = columns((*RGB,), stain="ihc", has_mpp=True)
    one = columns(("channel",), stain="fluorescence", has_mpp=True, has_regions=True, has_t=True)
    densities = {c.name: c for c in (*he, *ihc) if "_od_" in c.name}
    around = [
        *around_columns(("channel",), stain="fluorescence", has_mpp=True),
        *around_columns(RGB, stain="he", has_mpp=True),
        *around_columns(RGB, stain="ihc", has_mpp=True),
    ]
    cells = {c.name: c for c in around if "_channel" in c.name or "_area_" in c.name}
    cells |= {c.name: c for c in around if "_od_" in c.name}
    lie = Neighbours(0.5, classes=("class", "other")).columns[:-1]
    wanted = [*one[:-3], *densities.values(), *one[-3:], *cells.values(), *lie]
    assert written == [
        (
            re.sub("_(channel|class)(_mean|_um)?$", r"_<\1>\2", column.name),
            column.unit,
            column.dtype,
            re.sub("`(channel|class)`", r"`<\1>`", column.meaning),
        )
        for column in wanted
    ]


def test_channel_names():
    assert channel_slugs(["DAPI", "Alexa Fluor 488", "dapi", "é!", "µ", ""]) == (
        "dapi", "alexa_fluor_488", "dapi_2", "e", "channel_4", "channel_5",
    )  # fmt: skip


@given(st.lists(st.text(max_size=6), max_size=6))
def test_channel_slugs_are_safe_and_unique(names):
    slugs = channel_slugs(names)
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch("[a-z0-9_]+", slug) for slug in slugs)


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
SPARSE = st.sampled_from([0] * 12 + [1, 2, 3, 7, 2**32 - 1])


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: arrays(np.uint32, shape, elements=SPARSE)), st.floats(1, 9))  # fmt: skip
def test_every_pixel_within_the_distance_gets_a_nearest_label(labels, distance):
    grown, (ys, xs) = grow(labels, distance), np.nonzero(labels)
    for y, x in np.ndindex(labels.shape):
        squared = (ys - y) ** 2 + (xs - x) ** 2
        near = labels[ys, xs][squared == squared.min(initial=10**6)]
        is_near = squared.min(initial=10**6) <= (distance + OUTLINE_PX) ** 2
        assert grown[y, x] in (near if is_near else [0])


@settings(max_examples=30, deadline=None)
@given(
    SHAPES.flatmap(lambda shape: arrays(np.uint32, shape, elements=SPARSE)),
    st.floats(1, 12),
    st.integers(1, 45),
)
def test_blocks_of_any_size_give_the_same(labels, distance, block):
    whole = np.zeros_like(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellseg.table.around.BLOCK_PX", block)
        for box, before, grown in grown_blocks(labels, distance):
            part = np.s_[box.y0 : box.y1, box.x0 : box.x1]
            np.testing.assert_array_equal(before, labels[part])
            whole[part] = grown
    np.testing.assert_array_equal(whole, grow(labels, distance))


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize(("radius", "distance"), [(8, 10), (10, 10), (12, 20), (20, 10)])
def test_a_disc_grows_by_the_distance(radius, distance):
    rng = np.random.default_rng(radius)
    areas = []
    for _ in range(10):
        labels = disc((90, 90), 45 + rng.random(2), radius).astype(np.uint32)
        areas.append(np.count_nonzero(grow(labels, distance)))
    truth = np.pi * (radius + distance) ** 2
    assert np.mean(areas) == pytest.approx(truth, rel=0.01)
    assert areas == pytest.approx([truth] * 10, rel=0.025)
