"""Outlines of a count as pictures: where they lie, what is chosen, what the legend says."""

import shutil
import tracemalloc
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import tifffile
from finished import BySize, changed_file, copied, counted_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.segmentation import find_boundaries
from synthetic import PyramidLayout, draw_discs, write_disc_slide, write_pyramid

from cellseg.derive.corrections import Corrections
from cellseg.draw import borders, parts_of
from cellseg.draw.outlines import Places, choose, outline_sheet
from cellseg.draw.sheet import scale_bar
from cellseg.errors import RegionError
from cellseg.geometry import Box, Frame
from cellseg.palette import PALETTE
from cellseg.protocol import load_protocol
from cellseg.result import Ground, load_result
from cellseg.run import save
from cellseg.stain.normalise import Normaliser

PROTOCOL = load_protocol("he").changed(mpp=0.5, min_area_um2=0.0, tile_px=512, largest_cell_um=20.0)
MARGIN, INK = 24, (32, 32, 36)


def counted(path, protocol=PROTOCOL):
    """Large discs are tumour, small ones stroma."""
    return counted_folder(path, protocol, BySize(250, ("tumour", "stroma")))


def panel(path):
    """The first picture of a sheet."""
    with Image.open(path) as image:
        return np.asarray(image.crop(parts_of(image)[0]))


def is_colour(picture, *colours):
    return np.logical_or.reduce([(np.asarray(picture) == colour).all(axis=2) for colour in colours])


def inside(table, y0, x0, y1, x1):
    """Cells with their centre in a box."""
    y, x = table["centroid_y_px"] + 0.5, table["centroid_x_px"] + 0.5
    return table[(y >= y0) & (y < y1) & (x >= x0) & (x < x1)]


def width_of(picture, labels):
    """How wide the lines are that lie on the borders of labels; None if they lie elsewhere."""
    lines = is_colour(picture, *PALETTE[:2])
    return next((n for n in range(1, 5) if np.array_equal(lines, borders(labels, n))), None)


def sheet_of(folder, box=None):
    result = load_result(folder)
    with result.slide() as slide:
        return outline_sheet(result, result.ground(slide), box)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    path = tmp_path_factory.mktemp("field") / "discs.tif"
    drawn = write_disc_slide(path, np.random.default_rng(7), shape=(300, 400))
    return drawn, counted(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Too large to be shown whole: no discs in the middle, most of them in the lower right."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    drawn = draw_discs((2080, 2600), np.random.default_rng(7), radius_px=(5, 7))
    row, column = np.indices(drawn.labels.shape) // 40
    middle = (abs(row - 26) < 14) & (abs(column - 32) < 14)
    sparse = (row < 26) | (column < 32)
    gone = middle | (sparse & (row % 2 + column % 2 > 0))
    image = np.where(gone[..., None], drawn.image[0, 0], drawn.image)
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=256))
    return np.where(gone, 0, drawn.labels), counted(path)


def test_borders_are_the_outermost_pixels_of_each_label():
    labels = np.kron(np.random.default_rng(1).integers(0, 3, (9, 9)), np.ones((7, 7), int))
    one, two = borders(labels, 1), borders(labels, 2)
    assert np.array_equal(one, find_boundaries(labels, mode="inner"))
    again = borders(np.where(one, 0, labels), 1)
    assert np.array_equal(two, one | again)
    assert not borders(np.full((5, 5), 3), 2).any(), "a cell that goes on beyond has no end there"


def test_outlines_lie_where_the_labels_borders_are(field):
    drawn, folder = field
    seen = panel(folder / "outlines.png")
    labels = drawn.labels.repeat(2, 0).repeat(2, 1)
    assert width_of(seen, labels) == 2
    small = np.isin(labels, np.flatnonzero(drawn.areas < 250) + 1)
    assert not (is_colour(seen, PALETTE[0]) & small).any()
    assert not (is_colour(seen, PALETTE[1]) & ~small).any()
    # Inside, the slide is as it is; the lines differ from it.
    within = (labels > 0) & ~borders(labels, 2)
    assert np.ptp(seen[within].astype(int), axis=0).max() <= 1


def test_outlines_where_the_masks_are_coarser_than_the_slide(tmp_path):
    path = tmp_path / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(1000, 1100))
    folder = counted(path, protocol=PROTOCOL.changed(mpp=1.0))
    labels = np.asarray(load_result(folder).labels()[0]).repeat(2, 0).repeat(2, 1)
    assert width_of(panel(folder / "outlines.png"), labels) in (1, 2)


def test_fluorescence_is_shown_at_the_runs_own_scale(tmp_path):
    path = tmp_path / "dapi.tif"
    image = np.full((1000, 1000), 500, np.uint16)
    image[200:220, 300:330], image[600:630, 600:630] = 3000, 8000
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=256))
    folder = counted(path, protocol=load_protocol("fluorescence").changed(min_area_um2=0.0))
    settings = load_result(folder).run["settings"]
    low, high = settings["intensity_low"], settings["intensity_high"]
    seen = panel(folder / "outlines.png")
    for y, x in ((210, 315), (615, 615), (50, 50)):
        shown = round(float(np.clip((image[y, x] - low) / (high - low), 0, 1)) * 255)
        assert seen[y, x].tolist() == [shown] * 3


@given(
    st.floats(40, 5000),
    st.floats(0.01, 50),
    st.one_of(st.none(), st.floats(0.02, 10)),
)
def test_a_scale_bar_has_a_usual_length_and_is_right_to_the_pixel(longest, pixel, mpp):
    pixels, text = scale_bar(longest, pixel=pixel, mpp=mpp)
    number, unit = text.replace(",", "").split()
    digits = f"{float(number):e}"
    assert digits[0] in "125"
    assert set(digits[1 : digits.index("e")]) <= {".", "0"}
    factor = {"px": 1 / pixel, "µm": 1 / (pixel * (mpp or 1)), "mm": 1e3 / (pixel * (mpp or 1))}
    assert abs(pixels - float(number) * factor[unit]) <= 0.5 + 1e-6
    assert longest / 2.6 - 1 <= pixels <= longest + 1
    assert (unit == "px") == (mpp is None)


def bar_in(path):
    """Length of the longest run of ink beside the left margin, above the pictures."""
    with Image.open(path) as picture:
        rows = is_colour(np.asarray(picture)[:140, MARGIN:], INK)
    return max(int(np.argmin([*row, False])) for row in rows)


def test_the_scale_bar_of_a_picture(field, tmp_path):
    drawn, folder = field
    assert bar_in(folder / "outlines.png") == 200, "50 µm of 0.25 µm a pixel"
    plain = tmp_path / "plain.tif"
    write_pyramid(plain, drawn.image, layout=PyramidLayout(mpp=None, tile_px=128))
    assert bar_in(counted(plain) / "outlines.png") == 200, "100 px, enlarged 2 times"


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000), st.integers(2, 14))
def test_the_densest_and_the_sparsest_places_are_chosen(rows, columns, seed, most):
    counts = np.random.default_rng(seed).poisson(0.8, (rows, columns))
    chosen = choose(counts, most)
    assert chosen == choose(counts, most)
    assert len(set(chosen)) == len(chosen)
    if counts.any():
        held = counts[counts > 0]
        assert len(chosen) == min(most, len(held))
        assert counts[chosen[0]] == held.max()
        assert counts[chosen[1 if len(chosen) > 1 else 0]] == held.min()
        assert all(counts[place] > 0 for place in chosen)
    else:
        assert len(chosen) == min(most, rows * columns)


def test_the_other_places_stand_for_equal_parts_of_the_cells():
    counts = np.ones((20, 30), int)
    counts[0, 0] = 99
    counts[10:, :] = 9
    densest, sparsest, *others = choose(counts, 12)
    assert (densest, sparsest) == ((0, 0), (9, 29))
    assert others == sorted(others)
    assert [y < 10 for y, _ in others].count(True) == 1, "a tenth of the cells lies in its half"
    total = counts.sum() - 100
    before = [counts.ravel()[1 : y * 30 + x].sum() for y, x in others]
    assert np.allclose(before, (np.arange(10) + 0.5) / 10 * total, atol=9)
    one_place_holds_most = np.array([[1, 50, 90, 1, 1]])
    assert choose(one_place_holds_most, 5) == [(0, 2), (0, 4), (0, 0), (0, 1), (0, 3)]
    assert choose(np.array([[1, 90, 1, 1, 1]]), 4)[2:] == [(0, 0), (0, 3)]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600), st.integers(0, 99))
def test_places_lie_on_the_slide_and_hold_what_lies_in_them(height, width, side, seed):
    places = Places.grid((height, width), side)
    assert places.tops[0] >= 0
    assert places.tops[-1] + places.height <= height
    assert places.lefts[-1] + places.width <= width
    assert (np.diff(places.tops) >= places.height).all()
    at = np.random.default_rng(seed).uniform(0, (height, width), (30, 2))
    at[:20] = np.floor(at[:20])  # on edges, too
    rows, columns = (
        (starts <= place[:, None]) & (place[:, None] < starts + side)
        for starts, side, place in zip(
            (places.tops, places.lefts), (places.height, places.width), at.T, strict=True
        )
    )
    assert np.array_equal(places.held(at), rows.astype(int).T @ columns)


def test_of_a_slide_crops_are_shown_by_the_rule(large):
    labels, folder = large
    sheet = sheet_of(folder)
    assert len(sheet.panels) == 12
    assert "12 of the 18 places of 512 × 512 px" in sheet.said
    assert "the densest, the sparsest" in sheet.said
    assert "Full scale" in sheet.said
    table = load_result(folder).table.load()
    for number, one in enumerate(sheet.panels):
        y0, x0, y1, x1 = (int(word.strip(":")) for word in one.caption.split()[1:5])
        held = inside(table, y0, x0, y1, x1)
        noun = "nucleus" if len(held) == 1 else "nuclei"
        assert f": {len(held)} {noun}" in one.caption
        assert width_of(one.image, labels[y0:y1, x0:x1]) == 1
        assert ("the densest" in one.caption) == (number == 0)
        assert ("the sparsest" in one.caption) == (number == 1)
        if number == 0:
            assert min(y0, x0) > 1000
    total = table["class"].value_counts()
    assert [text for _, text in sheet.entries] == [
        f"{name}: {total.get(name, 0):,}" for name in ("tumour", "stroma")
    ]


def test_only_the_crops_are_read():
    """A slide of 100,000 px a side: what is read and held does not grow with it."""
    side, reads, windows = 100_000, [], []

    class Labels:
        shape = (side, side)

        def __getitem__(self, key):
            y, x = np.arange(side)[key[0]], np.arange(side)[key[1]]
            windows.append((len(y), len(x)))
            return (np.add.outer(y // 20, x // 20) % 2).astype(np.uint32)

    def read(box, *, downsample, channels):
        reads.append(box)
        return np.full((*box.shape, 3), 200, np.uint8)

    slide = SimpleNamespace(read=read, lattice_shape=lambda pixel: (round(side / pixel),) * 2)
    at = np.random.default_rng(1).uniform(0, side, (20_000, 2))
    table = pd.DataFrame(at, columns=["centroid_y_px", "centroid_x_px"]).assign(**{"class": "a"})
    ground = Ground(slide=slide, channels=(0, 1, 2), normaliser=Normaliser(0, 255, "transmitted"))
    lattice = {"lattice_height": side, "lattice_width": side, "downsample": 1.0}
    result = SimpleNamespace(
        frame=Frame(height=side, width=side, mpp=0.25, **lattice),
        labels=lambda of: [Labels()],
        table=SimpleNamespace(load=lambda names: table[names]),
        class_names=["a"],
        object_name="nucleus",
        colours=lambda names: [(1, 2, 3)] * len(names),
        regions=lambda: None,
        summary=SimpleNamespace(cells=len(at)),
        run={},
    )
    tracemalloc.start()
    try:
        outline_sheet(result, ground)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [box.shape for box in reads] == windows == [(512, 512)] * 12
    assert peak < 120e6
    reads.clear()
    windows.clear()
    outline_sheet(result, ground, Box(70_000, 20_000, 70_300, 20_400))
    assert reads == [Box(140_000, 40_000, 140_600, 40_800)]
    assert windows == [(300, 400)]


def test_a_slide_that_does_not_decode_any_more_is_counted_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "discs.tif"
    drawn = write_disc_slide(path, np.random.default_rng(7), shape=(300, 400))
    monkeypatch.setattr(Ground, "read", Mock(side_effect=RegionError("the slide is gone")))
    result = load_result(counted(path))
    assert len(result.table.load()) == drawn.count
    assert not (result.path / "outlines.png").exists()
    assert changed_file(result) is None


def test_a_crop_that_does_not_decode_costs_that_crop(large, monkeypatch):
    read, seen = Ground.read, []

    def rotten(self, box, pixel):
        seen.append(box)
        if len(seen) == 3:
            raise RegionError("damaged")
        return read(self, box, pixel)

    monkeypatch.setattr(Ground, "read", rotten)
    unread = ["cannot be read" in one.caption for one in sheet_of(large[1]).panels]
    assert unread == [number == 2 for number in range(12)]


@pytest.mark.parametrize(("shape", "panels"), [((90, 80), 1), ((2100, 700), 4)])
def test_a_result_without_cells(tmp_path, shape, panels):
    path = tmp_path / "a.tif"
    image = np.full((*shape, 3), 230, np.uint8)
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    folder = counted(path)
    with Image.open(folder / "outlines.png") as picture:
        assert len(parts_of(picture)) == panels
    sheet = sheet_of(folder)
    assert ("no masks were found" in sheet.said) == (panels > 1)
    assert not any("densest" in one.caption for one in sheet.panels)


def test_a_place_larger_than_a_picture_is_drawn_smaller(large):
    sheet = sheet_of(large[1], Box(0, 0, 2080, 2600))
    assert max(sheet.panels[0].image.size) == 2048
    assert "1.27 pixels of the slide" in sheet.said


@pytest.fixture
def copy(field, tmp_path):
    """A field and its result, to be spoiled."""
    return copied(field[1], tmp_path)


def test_the_default_picture_is_part_of_the_result_and_drawn_anew(copy, cellseg):
    first = (copy / "outlines.png").read_bytes()
    (copy / "outlines.png").write_bytes(b"other")
    assert changed_file(load_result(copy)) == "outlines.png"
    (copy / "outlines.png").unlink()
    code, out, _ = cellseg("overlay", copy)
    assert (code, out.strip()) == (0, str(copy / "outlines.png"))
    assert (copy / "outlines.png").read_bytes() == first
    result = load_result(copy)
    assert changed_file(result) is None
    assert result.run["exports"] == []


def test_any_place_is_drawn(field, copy, cellseg, tmp_path):
    code, out, _ = cellseg("overlay", copy, "--box", 40, 60, 140, 260, "-o", tmp_path / "a.png")
    assert (code, out.strip()) == (0, str(tmp_path / "a.png"))
    seen = panel(tmp_path / "a.png")
    assert seen.shape == (400, 800, 3)
    labels = field[0].labels[40:140, 60:260].repeat(4, 0).repeat(4, 1)
    assert width_of(seen, labels) in (2, 3, 4)
    table = load_result(copy).table.load()
    count = len(inside(table, 40, 60, 140, 260))
    assert 0 < count < len(table)
    sheet = sheet_of(copy, Box(40, 60, 140, 260))
    assert f"{count} nuclei with their centre in it" in sheet.said
    assert sum(int(text.rpartition(" ")[2]) for _, text in sheet.entries) == count
    code, out, _ = cellseg("overlay", copy, "--box", 0, 0, 1, 1)
    assert (code, out.strip()) == (0, str(copy / "outlines-0-0-1-1.png"))
    assert load_result(copy).run["exports"] == ["outlines-0-0-1-1.png"]
    assert changed_file(load_result(copy)) is None


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((10, 10, 10, 20), "is empty"),
        ((10, 30, 20, 20), "is empty"),
        ((-1, 0, 10, 10), "beyond the slide"),
        ((0, 0, 301, 10), "0 0 300 400"),
        ((900, 900, 950, 950), "beyond the slide"),
    ],
)
def test_a_bad_box_is_one_line(copy, cellseg, box, said):
    before = {entry.name for entry in copy.iterdir()}
    code, out, err = cellseg("overlay", copy, "--box", *box)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert {entry.name for entry in copy.iterdir()} == before


def test_a_slide_that_was_moved_is_asked_for(copy, cellseg):
    slide = copy.parent / "discs.tif"
    archive = copy.parent / "archive"
    archive.mkdir()
    slide.rename(archive / "moved.tif")
    _, _, err = cellseg("overlay", copy, ends=4)
    assert len(err.strip().splitlines()) == 1
    assert "(--image)" in err
    assert cellseg("overlay", copy, "--image", archive / "moved.tif")[0] == 0
    for shape in ((200, 200), (300, 400)):  # another size, and the same
        write_disc_slide(archive / "other.tif", np.random.default_rng(8), shape=shape)
        _, _, err = cellseg("overlay", copy, "--image", archive / "other.tif", ends=4)
        assert "is not the slide" in err
    # In place of the slide it is refused too; the same pixels in another format are welcome.
    shutil.copy(archive / "other.tif", slide)
    assert "is not the slide" in cellseg("overlay", copy, ends=4)[2]
    Image.fromarray(tifffile.imread(archive / "moved.tif")).save(archive / "moved.png")
    assert cellseg("overlay", copy, "--image", archive / "moved.png")[0] == 0


def test_names_that_are_no_pictures(copy, cellseg, tmp_path):
    assert cellseg("overlay", copy, "-o", tmp_path / "a.jpg")[0] == 2
    assert cellseg("overlay", copy, "-o", tmp_path / "none" / "a.png")[0] == 5
    (copy.parent / "discs.tif").rename(copy.parent / "field.png")
    field = copy.parent / "field.png"
    before = field.read_bytes()
    _, _, err = cellseg("overlay", copy, "--image", field, "-o", field, ends=2)
    assert "is the slide itself" in err
    assert field.read_bytes() == before
    assert cellseg("overlay", tmp_path / "nothing.cellseg")[0] == 4
    assert cellseg("overlay", "s3://bucket/a.cellseg")[0] == 4


def test_a_corrected_result_has_its_own_picture(copy):
    corrections = Corrections.open(copy)
    corrections.delete([1])
    saved = save(corrections)
    assert (saved.path / "outlines.png").read_bytes() != (copy / "outlines.png").read_bytes()
    labels = np.asarray(saved.labels()[0]).repeat(2, 0).repeat(2, 1)
    assert width_of(panel(saved.path / "outlines.png"), labels) == 2
