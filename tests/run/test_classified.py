"""Classes by measurement on finished results, and the same index by every scanner."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished import IHC, BySize, changed, changed_file, counted, counted_folder, edit, request_for
from PIL import Image
from scipy import ndimage
from synthetic import (
    DAB_THRESHOLDS,
    ImmunoScene,
    PyramidLayout,
    draw_immuno,
    write_disc_slide,
    write_pyramid,
)
from synthetic.threshold import ThresholdDetector

from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError, SettingsError
from cellseg.export import export
from cellseg.protocol import Marker, load_protocol
from cellseg.result import load_result
from cellseg.run import change, save
from cellseg.table.chamber import Chamber

RED = "intensity_mean_red"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def one(threshold, **more):
    return (Marker(measure="nucleus_dab_od_mean", threshold=threshold, **more),)


def test_positive_and_negative_everywhere(folder):
    for name in ("cells.geojson", "cells.coco.json"):
        export(folder, name)
    before = load_result(folder)
    table = before.table.load()
    outlines = pixels(before.path / "outlines.png")
    result, notes = changed(folder, markers=one("auto", name="DAB"))
    after = result.table.load()
    positive = (np.arange(1, len(table) + 1) % 5 == 0).sum()
    assert after["class"].value_counts()["positive"] == positive
    assert after.drop(columns="class").equals(table.drop(columns="class"))
    assert changed_file(result) is None
    assert result.run["class_names"] == ["negative", "positive"]
    summary = result.run["summary"]
    assert summary["cells_per_class"] == {"negative": len(table) - positive, "positive": positive}
    (scored,) = summary["labelling"]
    assert scored["index"] == positive / len(table)
    low, high = scored["index_interval"]
    assert low < 0.2 < high
    assert scored["name"] == "DAB"
    assert scored["block_um"] >= 60
    for name in ("cells.geojson", "cells.coco.json"):
        assert "positive" in (folder / name).read_text()
        assert result.has_export(name)
    assert not np.array_equal(outlines, pixels(result.path / "outlines.png"))
    assert pixels(folder / "histogram.png").shape[1] > 500
    assert any("lowest point" in note for note in notes)


def test_classified_again_and_again(folder):
    once = change(folder, markers=one((0.05, 0.1, 0.15)))
    assert once.run["class_names"] == ["negative", "1+", "2+", "3+"]
    table = once.table.load()
    for thresholds in (0.1, (0.05, 0.1, 0.15)):
        again = change(folder, markers=one(thresholds))
    assert again.table.load().equals(table)
    (first,), (second,) = (r.run["summary"]["labelling"] for r in (once, again))
    assert first == second
    assert first["h_score"] > 0
    assert first["allred"] >= 2


def test_how_a_threshold_was_proposed_stays_told(folder):
    result = change(folder, markers=one("auto"))
    proposed = result.run["classification"]["notes"]
    assert "lowest point" in proposed[0]
    assert change(folder, expand=3).run["classification"]["notes"] == proposed
    other = change(folder, markers=one(0.1))
    assert other.run["classification"]["notes"] == []


def test_combinations_of_markers_are_counted(folder):
    markers = (*one(0.1, name="DAB"), Marker(measure=RED, threshold=110.0))
    result = change(folder, markers=markers)
    counts = result.run["summary"]["cells_per_class"]
    assert list(counts) == ["DAB- red-", "DAB- red+", "DAB+ red-", "DAB+ red+"]
    assert sum(counts.values()) == len(result.table.load())
    assert [marker["name"] for marker in result.run["summary"]["labelling"]] == ["DAB", "red"]
    assert counts["DAB+ red+"] == result.run["summary"]["labelling"][0]["positive"]


@pytest.mark.parametrize("is_classified", [False, True])
def test_a_histogram_without_a_threshold_is_drawn_and_nothing_else_changes(folder, is_classified):
    if is_classified:
        change(folder, markers=one(0.1))
    before, old = load_result(folder), (folder / "cells.csv").read_bytes()
    panels = [pixels(folder / "histogram.png").shape[0]] if is_classified else []
    with pytest.raises(SettingsError, match=r"no threshold is proposed.*histogram\.png"):
        change(folder, markers=(Marker(measure="score", threshold="auto"),))
    after = load_result(folder)
    assert changed_file(after) is None
    assert (folder / "cells.csv").read_bytes() == old
    files = [run["files"] for run in (before.run, after.run)]
    assert {**files[0], "histogram.png": 0} == {**files[1], "histogram.png": 0}
    assert {**before.run, "files": 0} == {**after.run, "files": 0}
    assert all(pixels(folder / "histogram.png").shape[0] > 1.5 * rows for rows in panels)
    # The next decision draws its own.
    change(folder, markers=one(0.1))
    assert 300 < pixels(folder / "histogram.png").shape[0] < 600


def test_a_threshold_beyond_the_values_is_said(folder):
    result, notes = changed(folder, markers=one(9.0))
    assert any("above all" in note for note in notes)
    assert result.run["classification"]["notes"] == notes


def test_a_table_that_somebody_edited_is_kept_beside_the_new_one(folder):
    with pytest.raises(InputError, match="no such folder"):
        change(folder / "nothing", markers=one(0.1))
    path = folder / "cells.csv"
    for name, value in (("cells-edited.csv", 0.1), ("cells-edited2.csv", 0.2)):
        edited = path.read_text().replace("nucleus", "nukleus", 1).replace(",", ";")
        path.write_text(edited)
        result, notes = changed(folder, markers=one(value))
        assert any(name in note for note in notes)
        assert (folder / name).read_text() == edited
        assert changed_file(result) is None
        assert "nukleus" not in path.read_text()
    _, notes = changed(folder, markers=one(0.1))
    assert not any("edited" in note for note in notes)


def test_an_edited_table_is_kept_where_the_slide_is_counted_again(tmp_path):
    slide = tmp_path / "a.tif"
    write_disc_slide(slide, np.random.default_rng(0), shape=(150, 150))
    result, _ = counted(request_for(slide, output=tmp_path))
    table, rows = result.folder / "cells.csv", (result.folder / "cells.csv").read_text()
    table.write_text("mine")
    counted(request_for(slide, output=tmp_path, overwrite=False))
    assert table.read_text() == "mine", "nothing was to be done"
    _, events = counted(request_for(slide, output=tmp_path, score=0.31, overwrite=True))
    assert "cells.csv is made anew; the edited one: cells-edited.csv" in events
    assert (result.folder / "cells-edited.csv").read_text() == "mine"
    assert table.read_text() == rows
    # What a link leads to is nobody's table.
    table.unlink()
    table.symlink_to(slide)
    counted(request_for(slide, output=tmp_path, score=0.32, overwrite=True))
    assert table.read_text() == rows
    assert not (result.folder / "cells-edited2.csv").exists()
    table.unlink()
    table.symlink_to(tmp_path / "elsewhere.csv")
    counted(request_for(slide, output=tmp_path, score=0.32, overwrite=False))
    assert not (tmp_path / "elsewhere.csv").exists(), "nothing is written through a link"


def test_a_finished_count_tells_of_its_corrected_result(tmp_path):
    write_disc_slide(tmp_path / "a.tif", np.random.default_rng(0), shape=(150, 150))
    request = request_for(tmp_path / "a.tif", output=tmp_path, overwrite=False)
    corrections = Corrections(counted(request)[0].result)
    assert not [event for event in counted(request)[1] if "corrected" in str(event)]
    corrections.delete([1])
    saved = save(corrections)
    assert f"a corrected result lies beside it: {saved.path}" in counted(request)[1]


def test_a_decision_that_there_is_not_is_refused(folder):
    with pytest.raises(TypeError, match="a recipe has no expnd, marker"):
        change(folder, expnd=5, marker=1)


def test_measurements_that_were_changed_are_refused(folder):
    path = folder / "measured.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"measured\.parquet was changed"):
        change(folder, markers=one(0.1))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("derived.parquet", None),
        ("derived.parquet", "x"),
        ("recipe.json", "{"),
        ("recipe.json", None),
    ],
)
def test_a_lost_or_damaged_part_is_told_with_what_to_do(folder, name, content):
    change(folder, markers=one(0.1))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*; count the slide again, and overwrite") as told:
        change(folder, markers=one(0.2))
    assert told.value.hint == "overwrite"


def test_without_the_slide_there_are_no_outlines(folder):
    (folder.parent / "discs.tif").unlink()
    result, notes = changed(folder, markers=one(0.1))
    assert not (folder / "outlines.png").exists()
    assert any("outlines.png and overview.png were left out" in note for note in notes)
    assert changed_file(result) is None


def test_corrections_from_before_and_after(folder):
    density = load_result(folder).table.load()["dab_od_mean"]
    brown, blue = (np.flatnonzero(density > 0.1) + 1).tolist(), np.flatnonzero(density < 0.1) + 1
    corrections = Corrections.open(folder)
    corrections.delete(brown[:1])
    corrections.classify(blue[:1].tolist(), "mitosis")
    corrections.split(brown[5])
    change(folder, markers=one(0.1))
    again = Corrections.open(folder)
    again.classify(blue[1:2].tolist(), "positive")
    summary = again.recount()
    saved = save(again)
    table = saved.table.load()
    classes = table["class"].value_counts()
    automatic = load_result(folder).run["summary"]["cells_per_class"]["positive"]
    # A brown disc deleted, one split in two, one cell called positive by hand.
    assert classes["positive"] == automatic - 1 + 1 + 1
    assert classes["mitosis"] == 1
    assert summary.labelling[0]["positive"] == classes["positive"]
    assert saved.run["summary"]["labelling"][0]["positive"] == classes["positive"]
    other = change(saved.path, markers=one(9.0))
    assert set(other.table.load()["class"]) == {"negative", "positive", "mitosis"}


def test_cells_classed_by_hand_are_in_no_index(folder):
    corrections = Corrections(change(folder, markers=one(0.1)))
    corrections.classify([1, 2, 3, 4, 6, 7, 8, 9], "lymphocyte")
    (scored,) = save(corrections).run["summary"]["labelling"]
    assert scored["index"] > 0.2
    assert scored["index_nearby"] == [scored["index"]] * 2


def test_a_threshold_leaves_the_viability_of_a_chamber(slide, tmp_path):
    path = Path(shutil.copy(slide, tmp_path / "square.tif"))
    detector = BySize(40, ("living cell", "dead cell"))
    before = load_result(counted_folder(path, IHC, detector, chamber=Chamber(depth_um=100)))
    after = change(before.path, markers=one(0.1))
    assert "living cell: positive" in after.run["class_names"]
    names = ("viability", "said", "per_ml")
    kept, told = ([run["chamber"][name] for name in names] for run in (before.run, after.run))
    assert 0 < kept[0] < 1
    assert kept == told
    assert "living cell: positive" in after.run["chamber"]["per_ml_per_class"]


def test_what_the_classes_are_by_is_not_taken_away(folder):
    change(folder, spatial=True, markers=(Marker(measure="neighbours_30um", threshold=5),))
    said = "the classes are by neighbours_30um, which this would take away: classify anew, or"
    with pytest.raises(SettingsError, match=said) as told:
        change(folder, spatial=True, within=50)
    assert told.value.hint == "undo"


def test_a_protocol_classifies(slide, tmp_path):
    path = shutil.copy(slide, tmp_path / "other.tif")
    protocol = IHC.changed(classify={"measure": "dab_od_mean", "threshold": "auto"})
    result = load_result(counted_folder(path, protocol))
    assert result.run["summary"]["labelling"][0]["positive"] > 0
    assert result.run["classification"]["methods"] == ["lowest point between two humps"]


def test_a_finished_count_refuses_what_is_not_measured_and_keeps_its_classes(slide, tmp_path):
    path = Path(shutil.copy(slide, tmp_path / "other.tif"))
    brown, foo, cells = (
        Marker(measure=name, threshold=0.2) for name in ("dab_od_mean", "foo", "cell_dab_od_mean")
    )
    folder = counted_folder(path, IHC, markers=(brown,))
    before = (folder / "cells.csv").read_bytes()
    for wrong, said in ((foo, "; there are: "), (cells, ": what begins with cell_")):
        with pytest.raises(SettingsError, match=f"is no measurement of this result{said}"):
            counted_folder(path, IHC, markers=(wrong,))
    assert (folder / "cells.csv").read_bytes() == before
    with pytest.raises(SettingsError, match="no channel 'tubulin'"):
        counted_folder(path, IHC, cells_from="tubulin")
    counted_folder(path, IHC, markers=(cells,), expand=2.0)
    assert load_result(folder).run["classification"]["markers"][0]["measure"] == cells.measure


def test_one_threshold_for_all_slides_of_a_study(cellseg, counted_once, tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / f"{name}.cellseg"
        shutil.copytree(counted_once, folder)
        edit(folder, image=load_result(folder).run["image"] | {"path": f"/scans/{name}.tif"})
    code, told, _ = cellseg("classify", tmp_path, "--measure", "dab_od_mean", "--threshold", "auto")
    results = [load_result(tmp_path / f"{name}.cellseg") for name in ("a", "b")]
    first, second = (result.run["classification"] for result in results)
    assert first == second
    assert "of 2 slides together" in first["methods"][0]
    assert (code, told.count("% positive (95 %")) == (0, 2)
    (scored,) = results[0].run["summary"]["labelling"]
    assert scored["index_nearby"] == [scored["index"]] * 2  # nothing lies near the threshold
    shares = pd.read_csv(tmp_path / "summary.csv")["positive_percent_at_080_DAB"]
    assert shares.tolist() == pytest.approx([100 * scored["index"]] * 2)
    assert (tmp_path / "report.html").is_file()
    code, _, said = cellseg("classify", tmp_path, "--measure", "dab_od_maen", "--threshold", "1")
    assert code == 2
    assert "is dab_od_mean meant?" in said
    assert load_result(results[0].path).run["classification"] == first
    asked = ("--measure", "dab_od_mean", "--threshold", "0.2")
    _, _, said = cellseg("classify", results[0].path, *asked, ends=0)
    assert f"{tmp_path / 'summary.csv'} is not made anew: cellseg report {tmp_path} does so" in said
    (tmp_path / "summary.csv").unlink()
    assert "made anew" not in cellseg("classify", results[0].path, *asked, ends=0)[2]


def test_what_changes_classes_makes_the_files_of_a_study_anew(cellseg, counted_once, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(counted_once, tmp_path / f"{name}.cellseg")
        about = load_result(counted_once).run["image"] | {"path": f"/scans/{name}.tif"}
        edit(tmp_path / f"{name}.cellseg", image=about)
    cellseg("expand", tmp_path, "--by", "1", ends=0)
    cellseg("report", tmp_path, "--parquet", ends=0)

    def positive():
        shares = pd.read_csv(tmp_path / "summary.csv")["positive_percent_area_um2"]
        together = pd.read_parquet(tmp_path / "cells.parquet")["class"] == "positive"
        assert 100 * together.mean() == pytest.approx(shares.mean())
        return shares[0]

    cellseg("classify", tmp_path, "--measure", "cell_area_um2", "--threshold", "200", ends=0)
    assert positive() == 0
    _, _, said = cellseg("expand", tmp_path, "--by", "5", ends=0)
    assert positive() > 0
    assert "\na: outlines.png" in said, "each notice names its slide"
    report, one = tmp_path / "report.html", tmp_path / "a.cellseg"
    report.unlink()
    cellseg("spatial", tmp_path, ends=0)
    assert report.is_file()
    for asked in (("spatial", one), ("expand", one, "--by", "2")):
        assert f"summary.csv is not made anew: cellseg report {tmp_path} does" in cellseg(*asked)[2]


def test_what_a_slide_of_a_study_lacks_is_left_out_and_said(
    cellseg, slide, counted_once, tmp_path, monkeypatch
):
    """Another stain, a hot spot larger than a slide, a folder that nobody may read."""
    asked = ("classify", tmp_path, "--measure", "dab_od_mean", "--threshold", "0.2")
    stopped = tmp_path / "stopped.cellseg"
    shutil.copytree(counted_once, stopped)
    (stopped / "run.json").unlink()
    code, _, said = cellseg(*asked)
    assert (code, "no result there is finished" in said) == (4, True)
    shutil.rmtree(stopped)
    shutil.copytree(counted_once, tmp_path / "brown.cellseg")
    counted_folder(Path(shutil.copy(slide, tmp_path / "blue.tif")), IHC.changed(intensity=False))
    code, _, said = cellseg(*asked, "--hotspot", "50000")
    assert code == 0, said
    assert "has no such measurement, and is left as it is" in said
    assert "brown: no hot spot" in said
    assert load_result(tmp_path / "brown.cellseg").run["classification"]
    assert "classification" not in load_result(tmp_path / "blue.cellseg").run
    found = Path.exists

    def refused(path, **more):
        if path.parent.name == "blue.cellseg":
            raise PermissionError(13, "Permission denied", str(path))
        return found(path, **more)

    monkeypatch.setattr(Path, "exists", refused)
    code, _, said = cellseg("report", tmp_path)
    assert code == 3
    assert "blue.cellseg: cannot be read: Permission denied" in said


def test_a_protocol_without_a_threshold_draws_the_histogram(slide, tmp_path):
    path = shutil.copy(slide, tmp_path / "other.tif")
    protocol = IHC.changed(classify={"measure": "score", "threshold": "auto"})
    result = load_result(counted_folder(path, protocol))
    assert "classification" not in result.run
    assert pixels(result.file("histogram.png")).size


SCENE = ImmunoScene(height_px=1024, width_px=1024, nuclei=250, clustered=0.0)

CROSSTALK = np.array([[0.3, 0.6, 0.1], [0.25, 0.5, 0.25], [0.05, 0.6, 0.35]])
"""What a broad sensor's red, green and blue each take of the narrow one's; rows add up to 1."""

SCANNERS = {
    "the drawn one": (0.0, (240, 240, 240), 0.0),
    "tinted and dim": (0.0, (215, 205, 190), 0.4),
    "other colours": (0.2, (250, 246, 236), 0.7),
}
"""Share of crosstalk, white, and blur in pixels."""


def scanned(image, crosstalk, white, blur):
    """The same glass by another scanner: its sensor mixes light, and stain vectors with it."""
    light = np.clip(image / 240, 0, None) @ ((1 - crosstalk) * np.eye(3) + crosstalk * CROSSTALK).T
    seen = ndimage.gaussian_filter(light * white, (blur, blur, 0))
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scans(tmp_path_factory, no_pictures):
    """Results of the same slide by each scanner, with the dyes fixed and estimated."""
    home = tmp_path_factory.mktemp("scanners")
    drawn = draw_immuno(SCENE, np.random.default_rng(15))
    found = {}
    for number, (name, how) in enumerate(SCANNERS.items()):
        path = home / f"{number}.tif"
        write_pyramid(path, scanned(drawn.image, *how), layout=PyramidLayout(mpp=SCENE.mpp))
        for dyes in ("fixed", "macenko"):
            protocol = load_protocol("ihc").changed(mpp=SCENE.mpp, dyes=dyes)
            detector = ThresholdDetector(level=0.15)
            found[name, dyes] = counted_folder(path, protocol, detector, output=home / dyes)
    return drawn, found


def indices(folders, threshold):
    marker = Marker(measure="dab_od_mean", threshold=threshold)
    scores = [
        change(folder, markers=(marker,)).run["summary"]["labelling"][0] for folder in folders
    ]
    return [100 * score["index"] for score in scores], scores


@pytest.mark.parametrize("dyes", ["fixed", "macenko"])
def test_the_same_slide_gives_the_same_index(scans, dyes):
    drawn, folders = scans
    truth = 100 * (drawn.grades > 0).mean()
    found, _ = indices([folders[name, dyes] for name in SCANNERS], DAB_THRESHOLDS[0])
    assert max(found) - min(found) <= 2
    assert found[0] == pytest.approx(truth, abs=1)


@pytest.mark.parametrize("dyes", ["fixed", "macenko"])
def test_the_same_slide_gives_the_same_h_score(scans, dyes):
    _, folders = scans
    _, scores = indices([folders[name, dyes] for name in SCANNERS], DAB_THRESHOLDS)
    assert np.ptp([score["h_score"] for score in scores]) <= 3


def test_it_is_the_same_cells(scans):
    _, folders = scans
    numbers = [len(load_result(folder).table) for folder in folders.values()]
    assert max(numbers) - min(numbers) <= 0.02 * max(numbers)
