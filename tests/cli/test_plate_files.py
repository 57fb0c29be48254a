"""Plates as microscopes write them: a file a channel, named in each maker's way."""

import re
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
import tifffile
from synthetic.discs import draw_discs

from cellseg.errors import InputError
from cellseg.result import load_result
from cellseg.slide import open_slide

WELLS = [f"{row}0{column}" for row, column in product("AB", (1, 2, 3))]
CHANNELS = 3

MAKERS = {
    "ImageXpress": lambda well, site, channel: (
        f"screen_{well}_s{site}_w{channel}7E1C09AB-{channel}F2D-4A6B-9C3E-0123456789AB.tif"
    ),
    "Operetta": lambda well, site, channel: (
        f"r{ord(well[0]) - 64:02}c{well[1:]}f{site:02}p01-ch{channel}sk1fk1fl1.tiff"
    ),
    "Yokogawa": lambda well, site, channel: (
        f"screen_{well}_T0001F00{site}L01A0{channel}Z01C0{channel}.tif"
    ),
    "Incucyte": lambda well, site, channel: (
        f"screen_{('DAPI', 'GFP', 'Red')[channel - 1]}_{well[0]}{int(well[1:])}_{site}_"
        "00d00h00m.tif"
    ),
    "ImageJ": lambda well, site, channel: f"screen_{well}_s{site}_ch{channel - 1:02}.tif",
    "own": lambda well, site, channel: f"{channel}+{well}+{site}.tif",
}
"""Names by well, site (from 1) and channel (from 1)."""


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, pixels, photometric="minisblack", resolution=(2e4, 2e4), resolutionunit=3
    )


def write_plate(folder, maker, *, wells=WELLS, sites=(1, 2)):
    """Write a plate of discs: the first channel shows them, the others are dim; the counts."""
    counts = {}
    for number, (well, site) in enumerate(product(wells, sites)):
        columns = 2 + number % 4
        drawn = draw_discs((128, 40 * columns), np.random.default_rng(number), rgb=False)
        shown = np.pad(drawn.image, ((0, 0), (0, 240 - 40 * columns)), mode="edge")
        counts[well, site] = drawn.count
        for channel in range(1, CHANNELS + 1):
            write(folder / MAKERS[maker](well, site, channel), shown // channel)
    return counts


def count(cellseg, *args):
    return cellseg("count", *args, "--protocol", "fluorescence", "--no-prefilter", "--channel", "0")


def areas(rows):
    """The median areas of a summary's images, by well."""
    return rows["area_um2_p50"].astype(float).groupby(rows["well"])


def summary(folder):
    return pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_plate_of_each_maker_gives_the_wells_of_the_truth(cellseg, tmp_path, maker):
    truth = write_plate(tmp_path / "plate", maker)
    pattern = ["--files", "{channel}+{well}+{site}.tif"] if maker == "own" else []
    code, _, err = count(cellseg, tmp_path / "plate", *pattern, "--output", tmp_path / "out")
    assert code == 0, err
    rows = summary(tmp_path / "out")
    expected = sorted((well, str(number)) for (well, _), number in truth.items())
    assert sorted(zip(rows["well"], rows["cells"], strict=True)) == expected
    wells = pd.read_csv(tmp_path / "out" / "wells.csv", keep_default_na=False)
    assert list(wells["plate"].unique()) == [
        "screen" if maker not in ("Operetta", "own") else "plate"
    ]
    counts = pd.Series(truth).groupby(level=0)
    assert wells["well"].tolist() == WELLS
    assert (wells["sites"] == 2).all()
    assert (wells["sites_failed"] == 0).all()
    assert wells["cells"].tolist() == counts.sum().tolist()
    assert wells["cells_nucleus"].tolist() == counts.sum().tolist()
    np.testing.assert_allclose(wells["cells_mean"], counts.mean())
    np.testing.assert_allclose(wells["cells_std"], counts.std(), rtol=1e-5)
    np.testing.assert_allclose(wells["area_um2_p50_mean"], areas(rows).mean(), rtol=1e-5)
    assert not set("{}*") & set("".join(rows["image"]) + "".join(rows["result"]))
    result = load_result(tmp_path / "out" / rows["result"][0])
    assert len(result.run["image"]["files"]) == CHANNELS
    with result.slide() as slide:
        assert len(slide.channels) == CHANNELS
    means = [f"intensity_mean_{name}" for name in slide.channels]
    table = result.table.load([name.lower() for name in means])
    assert (np.diff(table.to_numpy(), axis=1) < 0).all()


def test_a_channel_that_changed_is_counted_anew(cellseg, tmp_path):
    write_plate(tmp_path, "ImageXpress", wells=["A01"], sites=[1])
    assert count(cellseg, tmp_path)[0] == 0
    assert "counted before" in count(cellseg, tmp_path)[2]
    third = next(tmp_path.glob("*_w3*"))
    write(third, tifffile.imread(third) + 1)
    code, _, err = count(cellseg, tmp_path)
    assert code != 0
    assert "another" in err or "changed" in err or "other settings" in err


def test_a_field_that_was_moved_with_its_result_is_found_again(cellseg, tmp_path):
    write_plate(tmp_path / "plate", "Yokogawa", wells=["B02"], sites=[1])
    assert count(cellseg, tmp_path / "plate")[0] == 0
    (tmp_path / "plate").rename(tmp_path / "moved")
    (folder,) = (tmp_path / "moved").glob("*.cellseg")
    with load_result(folder).slide() as slide:
        assert slide.channels == ("C01", "C02", "C03")
    assert cellseg("expand", folder, "--by", "2")[0] == 0


def test_planes_and_times_that_are_files(tmp_path):
    for z, time, channel in product((1, 2, 10), (1, 2), (1, 2)):
        pixels = np.full((16, 16), 100 * channel + 10 * z + time, np.uint16)
        write(tmp_path / f"p_B02_T000{time}F001L01A0{channel}Z{z:02}C0{channel}.tif", pixels)
    path = tmp_path / "p_{well=B02}_T{time}F{site=001}L*A*Z{z}C{channel}.tif"
    with open_slide(path) as slide:
        assert (slide.name, slide.channels) == ("p_B02F001", ("C01", "C02"))
        assert (slide.size_z, slide.size_t) == (3, 2)
        assert slide.overview()[0][0, 0].tolist() == [121, 221]
    with open_slide(path, z="max", t=1) as slide:
        assert slide.overview()[0][0, 0].tolist() == [202, 302]


def test_colour_pictures_are_channels_by_their_brightest(tmp_path):
    for channel in (0, 1):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., channel] = 50
        tifffile.imwrite(tmp_path / f"x_ch0{channel}.tif", pixels, photometric="rgb")
    with open_slide(tmp_path / "{name=x}_ch{channel}.tif") as slide:
        assert slide.channels == ("ch00", "ch01")
        assert slide.overview()[0].max(axis=(0, 1)).tolist() == [50, 50]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a_DAPI.tif", "a_GFP.tif"], "'a_{channel}.tif'"),
        (["C1-a.tif", "C2-a.tif"], "'C{channel}-a.tif'"),
        (["x1_DAPI.tif", "x2_GFP.tif", "x1_GFP.tif", "x2_DAPI.tif"], "'x{name}_{channel}.tif'"),
        (["A01_s1_d0.tif", "A01_s1_d1.tif"], "'{well}_s{site}_d{channel}.tif'"),
        (["x_B03_site1.png", "x_B03_site2.png"], "looks like a site"),
        (["x_B03_s1.png", "x_B03_s2.png"], "'x_{well}_s{site}.png'"),
        (["B03_s1_t1.png", "B03_s2_t1.png"], "'{well}_s{site}_t1.png'"),
    ],
)
def test_parts_of_an_image_are_asked_about(cellseg, tmp_path, names, said):
    for name in names:
        write(tmp_path / name, np.zeros((64, 64), np.uint8))
    code, _, err = count(cellseg, tmp_path)
    assert code == 4
    assert said in err
    assert "--files" in err
    assert len(err.splitlines()) == 1
    assert count(cellseg, tmp_path, "--files", "*")[2].count("results in") == len(names)


def test_other_folders_are_not_asked_about(cellseg, tmp_path):
    names = ["s1.tif", "s2.tif", "day_d1.tif", "day_d2.tif", "A1.tif", "A2.tif", "B 10.tif",
             "A03_DAPI.tif", "A04_DAPI.tif",
             "case 3 c.tif", "only_ch00.tif", "x_A01_wt.tif", "x_A01_wu.tif"]  # fmt: skip
    for name in names:
        write(tmp_path / name, np.zeros((64, 64), np.uint8))
    count(cellseg, tmp_path)
    assert sorted(summary(tmp_path)["image"]) == sorted(names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _, file: file.write_bytes(b"II*\0gar"), "ch2sk1fk1fl1.tiff: is no readable TIFF"),
        (lambda _, file: file.unlink(), "r01c02f01: lacks channel ch2"),
        (lambda _, file: write(file, np.zeros((9, 9), np.uint8)), "9 × 9 px of uint8, other"),
        (lambda _, file: write(file, np.zeros((128, 240), "u2")), "of uint16, other channels"),
        (lambda _, file: write(file, np.zeros((2, 128, 240), np.uint8)), ""),
        (lambda to, file: write(to / file.name.replace("fl1", "fl2"), np.zeros((9, 9), "u1")),
         "are one channel of it"),
        (lambda to, file: write(to / file.name.replace("f01", "f02"), np.zeros((9, 9), "u1")),
         "lacks channel ch1, ch3"),
    ],
)  # fmt: skip
def test_a_bad_field_is_left_out_and_told(cellseg, tmp_path, change, said):
    """Something happened to one of three fields; the others are counted."""
    write_plate(tmp_path, "Operetta", wells=WELLS[:3], sites=[1])
    change(tmp_path, next(tmp_path.glob("r01c02*ch2*")))
    code, _, err = count(cellseg, tmp_path)
    lines = [line for line in err.splitlines() if said in line]
    if not said:  # two planes in a file are planes
        assert code == 0
        return
    assert code == 3, err
    assert len(lines) == 1, err
    rows = summary(tmp_path)
    wells = pd.read_csv(tmp_path / "wells.csv", dtype={"cells": "Int64"}).set_index("well")
    assert wells["sites"].to_dict() == {
        "A01": 1,
        "A02": said.startswith("lacks channel ch1") * 1,
        "A03": 1,
    }
    assert wells["sites_failed"]["A02"] == 1
    assert "A02" in set(rows.loc[rows["status"] == "failed", "well"])
    assert {"A01", "A03"} <= set(rows.loc[rows["status"] == "complete", "well"])


def test_a_page_maps_the_wells_and_a_marker(cellseg, tmp_path):
    write_plate(tmp_path, "ImageJ", wells=WELLS[:3])
    assert count(cellseg, tmp_path, "--spatial")[0] == 0
    for folder in tmp_path.glob("*.cellseg"):
        limit = 100 if "A02" in folder.name else 20
        args = ("--name", "red", "--measure", "intensity_mean_ch02", "--threshold", limit)
        cellseg("classify", folder, *args, ends=0)
    assert cellseg("report", tmp_path)[0] == 0
    wells = pd.read_csv(tmp_path / "wells.csv").set_index("well")
    assert wells["positive_percent_red"].to_dict() == {"A01": 100, "A02": 0, "A03": 100}
    assert wells["positive_percent_red_std"].to_dict() == {"A01": 0, "A02": 0, "A03": 0}
    page = (tmp_path / "report.html").read_text()
    for title in ("screen: cells a site", "screen: red, % positive", "screen: median area, µm²"):
        assert page.count(f'aria-label="{title}"') == 1
    assert len(re.findall(r"<b>[A-Z]\d+</b>\d", page)) == 9
    assert not re.findall(r"<b>[A-Z]\d+</b>\d+[*]", page)
    shutil.rmtree(tmp_path / "screen_A02_s2.cellseg")
    (tmp_path / "screen_A02_s2_ch01.tif").write_bytes(b"II*\0gar")
    assert count(cellseg, tmp_path, "--report")[0] == 3
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"<b>([A-Z]\d+)</b>\d+[*]", page) == ["A2"] * 3


def test_a_site_that_others_have_is_missed(cellseg, tmp_path):
    write_plate(tmp_path, "ImageXpress", wells=WELLS[:2])
    for file in tmp_path.glob("*A02_s2*"):
        file.unlink()
    code, _, err = count(cellseg, tmp_path)
    assert code == 3
    assert "1 of its sites are not there: A02/2" in err


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{well}_x{channel}.png", "no image matches '{well}_x{channel}.png'; there is screen_A01"),
        ("{wel}.tif", "{wel} is unknown"),
        ("{well}{well}.tif", "there twice"),
        ("a/{well}.tif", "no /"),
    ],
)
def test_a_pattern_that_does_not_fit(cellseg, tmp_path, pattern, said):
    write_plate(tmp_path, "ImageXpress", wells=["A01"], sites=[1])
    code, _, err = count(cellseg, tmp_path, "--files", pattern)
    assert code in (2, 4)
    assert said in err
    assert len(err.splitlines()) == 1
    code, _, err = count(cellseg, next(tmp_path.glob("*_w1*")), "--files", "{well}.tif")
    assert code == 2
    assert "folder" in err


def test_two_files_for_one_channel_are_refused_when_they_are_opened(tmp_path):
    for name in ("a_1x.tif", "a_1y.tif"):
        write(tmp_path / name, np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"a_1x\.tif and a_1y\.tif are both its channel 1"):
        open_slide(tmp_path / "a_{channel}*.tif")


def test_example_human_is_one_image(cellseg, tmp_path, shared):
    for file in (shared / "slides" / "cellprofiler").glob("ExampleHuman*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    _, _, err = cellseg("count", tmp_path, "--protocol", "fluorescence", ends=0)
    assert "0 d0 is counted, as it shows nuclei" in err
    (row,) = summary(tmp_path).to_dict("records")
    assert (row["well"], row["status"]) == ("D03", "complete")
    names = load_result(tmp_path / row["result"]).table.names
    assert {f"intensity_mean_d{number}" for number in range(3)} <= {*names}


def test_positive_cells_in_the_command_that_counts(cellseg, tmp_path):
    """Nuclei, cells and marker: one command, and other thresholds without another count."""
    y, x = np.mgrid[:128, :192]
    far = np.hypot((y % 64) - 32, (x % 64) - 32)
    bright = (far < 9) * np.where(x < 64, 200, 40)
    planes = ((far < 9) * 200, bright, (far < 24) * 120)
    for channel, plane in enumerate(planes):
        write(tmp_path / "field" / f"A01_s1_d{channel}.tif", (plane + 10).astype(np.uint8))
    args = (
        "count", tmp_path / "field", "--no-prefilter", "--channel", "d0", "--cells-from", "d2",
        "--files", "{well}_s{site}_d{channel}.tif",
    )  # fmt: skip
    marker = ("--name", "pH3", "--measure", "intensity_mean_d1", "--threshold")
    _, _, err = cellseg(*args, *marker, "100", ends=0)
    (row,) = pd.read_csv(tmp_path / "field" / "summary.csv").to_dict("records")
    assert (row["cells"], row["cells_positive"], row["cells_negative"]) == (6, 2, 4)
    (folder,) = (tmp_path / "field").glob("*.cellseg")
    assert load_result(folder).is_expanded
    made = load_result(folder).run["made"]
    assert cellseg(*args, *marker, "20")[0] == 0
    found = load_result(folder)
    assert found.run["summary"]["cells_per_class"]["positive"] == 6
    assert found.run["made"] == made, "not counted again"
    assert cellseg(*args)[0] == 0
    assert load_result(folder).run["summary"]["cells_per_class"]["positive"] == 6
    code, _, err = cellseg(*args, "--measure", "intensity_mean_d1")
    assert (code, "each needs the other" in err) == (2, True)
