"""The overview: the slide, and how dense its cells lie."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from cellseg.annotations.region import Region
from cellseg.draw import SCALE_KEY, parts_of
from cellseg.draw.overview import Density, overview_sheet, spacing_px


def drawn(path, shape=(325, 600), cells=(), *, tissue=None, mpp=0.25, title="slide.tif"):
    """Panels of the overview of cells at (y, x, class), overview pixels of 8 px of the slide."""
    image = np.full((*shape, 3), 240, np.uint8)
    table = pd.DataFrame(cells, columns=["centroid_y_px", "centroid_x_px", "class"])
    table = table.astype({"centroid_y_px": float, "centroid_x_px": float, "class": str})
    table[["centroid_y_px", "centroid_x_px"]] *= 8
    result = SimpleNamespace(
        ground=lambda slide: SimpleNamespace(title=title, overview=lambda: (image, 8.0)),
        frame=SimpleNamespace(mpp=mpp, height=8 * shape[0], width=8 * shape[1]),
        section=lambda name: {},
        table=SimpleNamespace(load=lambda names: table[names]),
        class_names=["left", "none", "right"],
        object_name="nucleus",
        tissue=lambda: tissue,
        regions=lambda: None,
        summary=SimpleNamespace(cells=len(table)),
    )
    overview_sheet(result, None).write(path)
    with Image.open(path) as picture:
        parts = [np.asarray(picture.crop(part), float) for part in parts_of(picture)]
        return parts, str(picture.info[SCALE_KEY]), picture.size


def block(top, left, name):
    return [(y, x, name) for y in range(top, top + 20) for x in range(left, left + 20)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (500, 500)])
def test_overviews_of_any_shape_are_drawn(tmp_path, shape):
    tissue = Region.box(0, 0, 8 * shape[0], 8 * shape[1])
    parts, _, size = drawn(
        tmp_path / "a.png", shape, [(0, 0, "left")], tissue=tissue, mpp=None, title="µ" * 200 + "\n"
    )
    assert len(parts) == 2
    assert size[0] >= 500


def test_the_tissue_is_outlined_where_it_is(tmp_path):
    tissue = Region.box(640, 1920, 1280, 3200)
    (slide, _), _, _ = drawn(tmp_path / "a.png", tissue=tissue)
    rows, columns = np.nonzero((slide == (0, 150, 90)).all(axis=2))
    edges = rows.min(), rows.max(), columns.min(), columns.max()
    assert edges == pytest.approx((80, 160, 240, 400), abs=1)
    assert shapely.area(tissue.shape) == 640 * 1280


def test_each_class_has_a_map_of_its_own(tmp_path):
    """Two classes, left and right: the third panel is bright on the left, the fourth right."""
    cells = [*block(100, 20, "left"), *block(100, 250, "right")]
    maps, scale, _ = drawn(tmp_path / "a.png", (300, 300), cells)
    assert len(maps) == 4
    assert [line.split(":")[0] for line in scale.splitlines()[1:]] == ["left", "right"]
    bright = [np.abs(one - maps[0]).sum(2) for one in maps]
    at = [place.mean() for place in np.nonzero(bright[2] > 60)] / np.array(bright[2].shape)
    assert at == pytest.approx((110 / 300, 30 / 300), abs=0.013)
    for number, sides in ((1, (True, True)), (2, (True, False)), (3, (False, True))):
        halves = np.split(bright[number], 2, axis=1)
        assert tuple(half.max() > 200 for half in halves) == sides
    # One class alone is the density of all.
    assert len(drawn(tmp_path / "b.png", (300, 300), block(9, 9, "left"))[0]) == 2


@pytest.mark.parametrize("apart", [2, 5, 20, 60])
def test_the_density_of_even_cells_is_even(apart):
    counts = np.zeros((360, 600))
    counts[apart // 2 :: apart, apart // 2 :: apart] = 1
    assert spacing_px(counts) == pytest.approx(apart, rel=0.25)
    assert spacing_px(np.pad(counts, ((0, 0), (0, 600)))) == pytest.approx(apart, rel=0.25)
    found = Density.of(counts, side=2.0, in_px=False)
    assert found.kernel.endswith(" µm")
    density = found.values[60:-60, 60:-60]  # noqa: PD011 - no table
    assert density.std() < 0.1 * density.mean(), "no blob a cell"
    assert density.mean() == pytest.approx(1e6 / (2 * apart) ** 2, rel=0.2)


@pytest.mark.parametrize(("cells", "share"), [(0, 1 / 90), (1, 1 / 8), (200_000, 1 / 90)])
def test_the_densitys_kernel_fits_the_field(cells, share):
    counts = np.zeros((400, 800))
    counts.reshape(-1)[np.linspace(0, counts.size - 1, cells).astype(int)] = 1
    found = Density.of(counts, side=8.0, in_px=True)
    width, unit = found.kernel.split()
    assert float(width.replace(",", "")) == pytest.approx(8 * 800 * share, rel=0.06)
    assert unit == "px"
