"""Cells around the nuclei of finished results: areas, means, labels, exports, corrections."""

import math
import shutil

import finished
import numpy as np
import pandas as pd
import pytest
import tifffile
from finished import changed, changed_file, copied, counted_folder, edit
from synthetic import PyramidLayout, write_pyramid
from synthetic.discs import discs_at

import cellseg.table.around as expanding
from cellseg.counting.request import CountRequest
from cellseg.derive import Recipe
from cellseg.derive.corrections import Corrections
from cellseg.draw.pictures import overlay
from cellseg.errors import InputError, SettingsError
from cellseg.geometry import Box
from cellseg.protocol import Marker, load_protocol
from cellseg.result import load_result
from cellseg.run import change, save

pytestmark = pytest.mark.usefixtures("no_pictures")

PROTOCOL = load_protocol("ihc").changed(
    mpp=0.5, min_area_um2=0.0, tile_px=128, largest_cell_um=30.0
)
RADIUS, BY_PX, HALO = 10, 10, 6
GLASS, BLUE = (240, 240, 240), (70, 70, 160)
SHAPE = (600, 800)
ALONE = [(y, x) for y in (60, 180, 300, 420) for x in range(70, 800, 110)]
PAIRS = [(540, x) for x in range(70, 700, 140)]


def count(path, **settings):
    return counted_folder(path, PROTOCOL, **settings)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Nuclei alone, on a grid, and in pairs; around every second alone a pink ring."""
    path = tmp_path_factory.mktemp("rings") / "rings.tif"
    image = np.full((*SHAPE, 3), GLASS, np.uint8)
    image[discs_at(SHAPE, ALONE[::2], RADIUS + HALO)] = (235, 215, 205)
    partners = [(y, x + 30) for y, x in PAIRS]
    image[discs_at(SHAPE, [*ALONE, *PAIRS, *partners], RADIUS)] = BLUE
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    folder = count(path)
    assert len(load_result(folder).table.load()) == len(ALONE) + 2 * len(PAIRS)
    return folder


@pytest.fixture
def folder(tmp_path, counted):
    return copied(counted, tmp_path)


def test_without_the_slide_the_classes_keep_what_they_are_by(folder):
    change(folder, expand=3.0, markers=(Marker(measure="cytoplasm_dab_od_mean", threshold=0.1),))
    (folder.parent / "rings.tif").unlink()
    said = "^the slide is not there: .*; the classes are by cytoplasm_dab_od_mean, which this"
    with pytest.raises(SettingsError, match=said) as told:
        change(folder, expand=4.0)
    assert told.value.hint == "image,undo"


def test_areas_means_and_labels(folder):
    before = load_result(folder)
    old_table, lines = before.table.load(), before.file("cells.csv").read_text().splitlines()
    result = change(folder, expand=BY_PX * 0.5)
    table = result.table.load()
    assert changed_file(result) is None
    pd.testing.assert_frame_equal(table[list(old_table)], old_table)
    new = result.file("cells.csv").read_text().splitlines()
    assert all(line.startswith(f"{old},") for line, old in zip(new, lines, strict=True))

    alone = table["centroid_y_px"] < 480
    truth = np.pi * (RADIUS + BY_PX) ** 2
    np.testing.assert_allclose(table.loc[alone, "cell_area_px"], truth, rtol=0.02)
    np.testing.assert_allclose(table["cell_area_um2"], table["cell_area_px"] / 4, rtol=1e-4)
    np.testing.assert_allclose(
        table["cell_area_px"] - table["cytoplasm_area_px"], table["area_px"], atol=1e-3
    )
    paired = table.loc[~alone].sort_values("centroid_x_px")["cell_area_px"].to_numpy()
    assert (paired < 0.95 * truth).all()
    np.testing.assert_allclose(paired[::2], paired[1::2], rtol=0.03)

    nuclei, cells = result.labels()[0][...], result.labels("cells")[0][...]
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    counts = np.bincount(cells.ravel(), minlength=len(table) + 1)[1:]
    np.testing.assert_array_equal(counts, table["cell_area_px"])
    with result.slide() as slide:
        pixels = slide.read(Box(0, 0, *cells.shape), downsample=result.frame.downsample)
    ring = (cells == 1) & (nuclei != 1)
    for part, where in (("cytoplasm", ring), ("cell", cells == 1)):
        means = table.loc[0, [f"{part}_{name}_mean" for name in ("red", "green", "blue")]]
        assert means.tolist() == pytest.approx(pixels[where].mean(axis=0), abs=1e-3)
    weight = table["area_px"] / table["cell_area_px"]
    np.testing.assert_allclose(
        table["cell_dab_od_mean"],
        weight * table["dab_od_mean"] + (1 - weight) * table["cytoplasm_dab_od_mean"],
        atol=2e-4,
    )


def test_with_a_count_exports_classes_and_again(folder, monkeypatch):
    slide = folder.parent / "rings.tif"
    shutil.rmtree(folder)
    marker = Marker(measure="cytoplasm_red_mean", threshold=236.5)
    settings = {"expand": 5.0, "export": ("cells.geojson",)}
    monkeypatch.setattr(f"{__name__}.PROTOCOL", PROTOCOL.changed(classify=(marker,)))
    there = count(slide, **settings)
    table = load_result(there).table.load()
    assert set(table["class"]) == {"positive"}  # glass is in every ring
    assert "cytoplasm_dab_od_mean" in (there / "cells.geojson").read_text()
    stamp = (there / "cells.csv").stat().st_mtime_ns
    assert count(slide, **settings) == there
    assert (there / "cells.csv").stat().st_mtime_ns == stamp
    # Another distance, of the same count: classes by the cytoplasm are given anew.
    assert count(slide, **{**settings, "expand": 2.0}) == there
    again = load_result(there)
    assert again.run["expansion"]["by"] == 2.0
    assert (again.table.load()["class"] == "negative").sum() == len(ALONE) / 2


def test_nuclei_that_were_not_expanded_have_no_cells_to_draw(folder):
    with pytest.raises(InputError, match="not expanded") as caught:
        overlay(load_result(folder), cells=True)
    assert not caught.value.hint, "no command but count has an option for it"
    assert overlay(change(folder, expand=5), cells=True).name == "cells.png"


def test_corrections_grow_the_cells_anew(folder):
    result = change(folder, expand=5)
    before = result.table.load()
    paired = before.index[before["centroid_y_px"] > 480]
    corrections = Corrections(result)
    corrections.delete([int(paired[0]) + 1])
    one = corrections.split(1)
    saved = save(corrections)
    after = saved.table.load()
    assert changed_file(saved) is None
    assert list(after) == list(before)
    assert after["cell_area_um2"].notna().all()
    # The partner of the one that is gone grows into its place; halves are smaller than the whole.
    assert (before["cell_area_px"] < 0.95 * before["cell_area_px"].max()).sum() == 2 * len(PAIRS)
    assert len(one.labels) == 2
    assert (after["cell_area_px"] < 0.95 * before["cell_area_px"].max()).sum() == 2 * len(PAIRS)
    assert saved.labels("cells")[0][...].max() == len(after)
    # Of the same log again: what is there is replaced.
    assert save(Corrections.open(folder)).table.load().equals(after)


def test_without_the_slide_areas_alone(folder):
    (folder.parent / "rings.tif").unlink()
    result, notes = changed(folder, expand=5)
    areas = [f"{part}_area_{unit}" for part in ("cell", "cytoplasm") for unit in ("px", "um2")]
    assert result.run["expansion"]["columns"] == areas
    assert "the slide is not there: cells have areas alone" in notes[0]


def write_channels(path, *planes, name):
    """Nuclei as DAPI, and another channel; without a pixel size."""
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", name]}}
    tifffile.imwrite(path, np.stack(planes).astype(np.uint16), metadata=metadata)
    return path


def count_channels(path, home, *, tile=320, **settings):
    protocol = load_protocol("fluorescence").changed(tile_px=tile, min_area_um2=0.0)
    request = CountRequest(
        image=path, protocol=protocol, channel="DAPI", diameter_px=2.0 * RADIUS,
        prefilter=False, output=home, **settings,
    )  # fmt: skip
    return finished.counted(request)[0].result


def test_fluorescence_without_a_pixel_size(tmp_path):
    """Two channels; around every second nucleus a bright cytoplasm in the second; all in pixels."""
    nuclei, marker = np.full((2, *SHAPE), 300, np.uint16)
    nuclei[discs_at(SHAPE, ALONE, RADIUS)] = 9000
    marker[discs_at(SHAPE, ALONE[::2], RADIUS + HALO)] = 5000
    path = write_channels(tmp_path / "two.ome.tif", nuclei, marker, name="Keratin 8")
    first, second = (
        count_channels(path, tmp_path / str(tile), tile=tile, recipe=Recipe(expand=BY_PX))
        for tile in (64, 320)
    )
    table = first.table.load()
    pd.testing.assert_frame_equal(table, second.table.load())
    assert len(table) == len(ALONE)
    assert "cell_area_um2" not in table
    assert first.run["expansion"]["unit"] == "px"
    grown = np.sqrt(table["cell_area_px"] / np.pi) - np.sqrt(table["area_px"] / np.pi)
    np.testing.assert_allclose(grown, BY_PX, atol=0.4)
    bright = table["cytoplasm_keratin_8_mean"] > 1000
    assert bright.sum() == len(ALONE[::2])
    ring, halo = ((RADIUS + more) ** 2 - RADIUS**2 for more in (BY_PX, HALO))
    truth = 300 + 4700 * halo / ring
    np.testing.assert_allclose(table.loc[bright, "cytoplasm_keratin_8_mean"], truth, rtol=0.1)
    assert (table.loc[~bright, "cytoplasm_keratin_8_mean"] < 310).all()
    assert (table["cell_keratin_8_mean"] > 299).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Large cells around some nuclei, half of them touching; a slide without a pixel size."""
    path = tmp_path_factory.mktemp("whole") / "whole.ome.tif"
    rng = np.random.default_rng(4)
    nuclei, actin = rng.normal(300, 15, (2, *SHAPE))
    nuclei[discs_at(SHAPE, WHOLE, RADIUS)] = 9000
    for number, centre in enumerate(WHOLE[:12]):
        cell = discs_at(SHAPE, [centre], CELL)
        actin[cell] = rng.normal(1500 + 1000 * (number % 2), 40, cell.sum())
    return write_channels(path, nuclei, actin, name="actin")


CELL = 22
WHOLE = [(y, x) for y in (60, 300, 500) for x in (60, 99, 250, 289, 440, 479)]


def test_cells_from_a_channel_end_where_it_ends(whole, tmp_path):
    result = count_channels(whole, tmp_path, recipe=Recipe(cells_from="actin"))
    table, record = result.table.load(), result.run["expansion"]
    assert (record["from"], record["unit"], record["by"]) == ("actin", "px", 4 * RADIUS)
    assert len(table) == len(WHOLE)
    wide = CELL + 1.25  # a sharp edge is smoothed, and dark pixels beside it are cell
    truth = np.pi * wide**2 - _lens(wide, 39) / 2
    has_cell = table["centroid_y_px"] < 400
    np.testing.assert_allclose(table.loc[has_cell, "cell_area_px"], truth, rtol=0.1)
    # Pairs of unlike brightness part at the step between them.
    actin = table.loc[has_cell].sort_values(["centroid_y_px", "centroid_x_px"])["cell_actin_mean"]
    np.testing.assert_allclose(actin, [1500, 2500] * 6, rtol=0.15)
    rim = np.sqrt(table.loc[~has_cell, "cell_area_px"] / np.pi) - RADIUS
    np.testing.assert_allclose(rim, 4, atol=1)
    rings = change(result.path, expand=12.0)
    assert rings.table.load()["cell_area_px"].std() > 0
    assert "from" in rings.run["expansion"]


def _lens(radius, apart):
    return 2 * radius**2 * math.acos(apart / 2 / radius) - apart / 2 * math.sqrt(
        4 * radius**2 - apart**2
    )


def test_cells_from_a_channel_do_not_depend_on_tiles_blocks_or_the_way(
    whole, tmp_path, monkeypatch
):
    made = [
        count_channels(whole, tmp_path / str(tile), tile=tile, recipe=Recipe(cells_from="1"))
        for tile in (64, 320)
    ]
    folder = count_channels(whole, tmp_path / "later").path
    monkeypatch.setattr(expanding, "BLOCK_PX", 96)
    made.append(change(folder, cells_from="1"))
    for other in made[1:]:
        pd.testing.assert_frame_equal(
            other.table.load().drop(columns="image"), made[0].table.load().drop(columns="image")
        )
        cells, same = (result.labels("cells")[0][...] for result in (made[0], other))
        np.testing.assert_array_equal(cells, same)
    # Once more with the same decisions: nothing is grown anew; corrections grow over the channel.
    corrections = Corrections.open(folder)
    corrections.delete([1])
    saved = save(corrections)
    assert saved.run["expansion"]["from"] == "1"
    before = made[0].table.load()["cell_area_px"].to_numpy()
    after = saved.table.load()["cell_area_px"].to_numpy()
    assert (np.abs(after[1:] - before[2:]) < 1).sum() >= len(after) - 2


def test_cells_from_what_is_no_channel(whole, folder, tmp_path):
    with pytest.raises(SettingsError, match=r"no channel 'tubulin'; there are: .*actin"):
        count_channels(whole, tmp_path / "none", recipe=Recipe(cells_from="tubulin"))
    assert not (tmp_path / "none" / "whole.cellseg" / "run.json").exists()
    before = (folder / "cells.csv").read_bytes()
    with pytest.raises(SettingsError, match="of fluorescence, this is ihc"):
        change(folder, cells_from="red")
    there = count_channels(shutil.copy(whole, tmp_path / "gone.ome.tif"), tmp_path)
    (tmp_path / "gone.ome.tif").unlink()
    with pytest.raises(SettingsError, match="on the slide, which is not there"):
        change(there.path, cells_from="actin")
    assert (folder / "cells.csv").read_bytes() == before


def test_distances_that_are_none(folder):
    before = (folder / "cells.csv").read_bytes()
    for by in (-1, 0, math.nan, math.inf, 1e9, 51, 0.1):
        with pytest.raises(SettingsError, match="µm"):
            change(folder, expand=by)
    assert (folder / "cells.csv").read_bytes() == before
    image, output = folder.parent / "rings.tif", folder / "new"
    request = CountRequest(image=image, output=output, prefilter=False, recipe=Recipe(expand=-1.0))
    with pytest.raises(SettingsError, match="cells can grow by more than 0"):
        finished.counted(request)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("columns", [1]), ("found", {"columns": []}), ("settings", {"intensity_high": "white"}),
        ("settings", {"dyes": {"white": 1}}), ("class_names", {"a": 1}), ("summary", {}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_line_and_nothing_is_changed(folder, part, value):
    edit(folder, **{part: value})
    before = [(folder / name).read_bytes() for name in ("run.json", "cells.csv")]
    with pytest.raises(InputError, match=r"run\.json: ") as caught:
        change(folder, expand=5)
    assert "\n" not in str(caught.value)
    assert [(folder / name).read_bytes() for name in ("run.json", "cells.csv")] == before


def test_rows_are_those_of_the_table(folder):
    files = load_result(folder).run["files"]
    edit(folder, files=files | {"cells.csv": files["cells.csv"] | {"rows": 10**12}})
    assert "cell_area_um2" in change(folder, expand=5).table.load()


def test_a_picture_of_one_place_stays_when_the_cells_change(folder):
    picture = overlay(load_result(folder), box=(10, 10, 100, 100))
    result, notes = changed(folder, expand=3)
    assert picture.is_file()
    assert result.has_export(picture.name)
    assert f"{picture.name} still shows the result before; draw it again" in notes
