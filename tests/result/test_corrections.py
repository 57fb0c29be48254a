"""Correcting a result: every edit round-trips, and what comes out trains."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from finished import copied, counted_folder, edit
from synthetic import write_disc_slide

from cellseg.annotations.coco import read_coco
from cellseg.derive.corrections import Corrections, PatchedPyramid, export_training
from cellseg.derive.corrections.session import joined, split_along, split_in_two
from cellseg.errors import InputError, OutputError, SettingsError
from cellseg.geometry import Box
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.run import save

pytestmark = pytest.mark.usefixtures("no_pictures")

PROTOCOL = load_protocol("he").changed(mpp=1.0, min_area_um2=0.0, tile_px=128, largest_cell_um=40.0)
"""The slide has 0.5 µm/px, so a lattice pixel is two of its pixels wide."""


@pytest.fixture(scope="module")
def counted_once(tmp_path_factory):
    home = tmp_path_factory.mktemp("counted")
    path = home / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))
    return counted_folder(path, PROTOCOL)


@pytest.mark.parametrize("below", ["results", "results/first", "a/b"])
def test_slides_and_results_may_move_together(tmp_path, below):
    project = tmp_path / "project"
    (project / "slides").mkdir(parents=True)
    path = project / "slides" / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(300, 400))
    folder = counted_folder(path, PROTOCOL, output=project / below)
    shutil.move(project, tmp_path / "archive")
    result = load_result(tmp_path / "archive" / folder.relative_to(project))
    assert result.find_slide() == tmp_path / "archive" / "slides" / "discs.tif"
    # One of the same name that lies elsewhere is not taken for it.
    shutil.copy(path := result.find_slide(), tmp_path / "archive")
    assert result.find_slide() == path
    path.unlink()
    with pytest.raises(InputError, match="is not there any more"):
        result.find_slide()


@pytest.fixture
def folder(tmp_path, counted_once):
    return copied(counted_once, tmp_path)


@pytest.fixture
def corrections(folder):
    return Corrections.open(folder)


def image(corrections):
    return np.asarray(corrections.pyramid.levels[0])


def consistent(corrections):
    """The label image, the cells and their number say the same; coarser levels follow."""
    labels = image(corrections)
    found = np.unique(labels[labels > 0]).tolist()
    assert found == corrections.labels().tolist()
    assert len(corrections) == len(found)
    for label, cell in corrections.touched.items():
        assert (label in corrections) == (cell is not None)
        if cell is not None:
            box = cell.box
            inside = labels[box.y0 : box.y1, box.x0 : box.x1] == label
            assert np.array_equal(inside, cell.mask)
            assert np.count_nonzero(labels == label) == np.count_nonzero(cell.mask)
    for number, level in enumerate(corrections.pyramid.levels):
        assert np.array_equal(np.asarray(level), labels[:: 2**number, :: 2**number])


def neighbours(corrections):
    """A drawn pair of touching cells: cell 5, and a rectangle beside it."""
    box = corrections.cell(5).box
    beside = Box(box.y0, box.x1, box.y1, box.x1 + 6)
    labels = corrections.pyramid.levels[0].read(beside).astype(np.int64)
    painted = np.where(labels, labels, 10**6)
    return 5, corrections.redraw((beside.y0, beside.x0), painted).labels[0]


def copied_around(corrections, label):
    """A copy of the label image around a cell, to paint on, and its corner."""
    window = corrections.cell(label).box.widened(8).intersection(corrections.pyramid.extent)
    return (window.y0, window.x0), corrections.pyramid.levels[0].read(window).astype(np.int64)


def test_opened_it_is_as_counted(folder, corrections):
    table = load_result(folder).table.load()
    assert len(corrections) == len(table)
    consistent(corrections)
    pd.testing.assert_series_equal(corrections.row(3), table.iloc[2], check_names=False)
    assert corrections.recount().cells == len(table)
    assert not (folder / "corrections.json").exists(), "looking writes nothing"


def test_delete_takes_a_cell_away_and_undo_brings_it_back(corrections):
    before, count = image(corrections), len(corrections)
    corrections.delete([4, 9])
    assert len(corrections) == count - 2
    assert 4 not in corrections
    consistent(corrections)
    assert corrections.undo().kind == "delete"
    assert np.array_equal(image(corrections), before)
    assert len(corrections) == count
    corrections.redo()
    assert 9 not in corrections
    consistent(corrections)
    with pytest.raises(SettingsError, match="no cell 4"):
        corrections.row(4)


def test_a_cell_that_is_painted_around_others_leaves_them_their_pixels(corrections):
    corner, painted = copied_around(corrections, 5)
    others = painted > 0
    edit = corrections.redraw(corner, np.where(others, painted, 10**6), "mitosis")
    (label,) = edit.labels
    assert edit.kind == "add"
    assert label == len(corrections.rows) + 1
    assert np.count_nonzero(corrections.cell(label).mask) == np.count_nonzero(~others)
    assert corrections.cell(label).name == "mitosis"
    assert corrections.classes == ["nucleus", "mitosis"]
    consistent(corrections)
    assert corrections.redraw((-50, -50), np.ones((20, 20), int)) is None, "beside the slide"


def test_split_keeps_every_pixel(corrections):
    whole = corrections.cell(7)
    edit = corrections.split(7)
    assert edit.labels == (7, len(corrections.rows) + 1)
    parts = [corrections.cell(label) for label in edit.labels]
    assert sum(np.count_nonzero(part.mask) for part in parts) == np.count_nonzero(whole.mask)
    consistent(corrections)
    corrections.undo()
    assert np.array_equal(corrections.cell(7).mask, whole.mask)
    # Now along a line.
    y, x = (whole.box.y0 + whole.box.y1) / 2, whole.box.x0
    line = np.array([[y, x - 3], [y, whole.box.x1 + 3]])
    edit = corrections.split(7, line=line)
    top, bottom = sorted((corrections.cell(label) for label in edit.labels), key=lambda c: c.box.y0)
    assert top.box.y1 == pytest.approx(y, abs=1.5)
    assert bottom.box.y0 == pytest.approx(y, abs=1.5)
    consistent(corrections)
    with pytest.raises(SettingsError, match="right across"):
        corrections.split(9, line=np.array([[0.0, 0.0], [1.0, 1.0]]))


def test_merge_makes_one_of_two(corrections):
    first, second = neighbours(corrections)
    area = sum(np.count_nonzero(corrections.cell(label).mask) for label in (first, second))
    kept, gone = corrections.merge([first, second]).labels
    assert {kept, gone} == {first, second}
    assert gone not in corrections
    assert np.count_nonzero(corrections.cell(kept).mask) >= area
    consistent(corrections)
    with pytest.raises(SettingsError, match="apart"):
        corrections.merge([1, len(corrections.rows)])
    with pytest.raises(SettingsError, match="two"):
        corrections.merge([kept, kept])


def test_another_class(corrections):
    before = corrections.row(2)
    corrections.classify([1, 2], "lymphocyte")
    assert corrections.classify([1], "lymphocyte") is None
    summary = corrections.recount()
    assert summary.cells_per_class == {"nucleus": len(corrections) - 2, "lymphocyte": 2}
    assert corrections.row(2)["class"] == "lymphocyte"
    after = corrections.row(2).drop("class")
    pd.testing.assert_series_equal(after, before.drop("class"), check_names=False)
    with pytest.raises(SettingsError, match="class name"):
        corrections.classify([1], " \n ")


def test_painting_adds_changes_and_erases_at_once(corrections):
    cell = corrections.cell(6)
    corner, painted = copied_around(corrections, 6)
    assert corrections.redraw(corner, painted) is None
    grown = painted.copy()
    grown[painted == 0] = 6
    assert corrections.redraw(corner, grown).kind == "redraw"
    consistent(corrections)
    fresh = np.where(grown == 6, 0, grown)
    fresh[2:6, 2:6] = 987_654
    edit = corrections.redraw(corner, fresh)
    assert 6 not in corrections
    assert edit.labels[-1] == len(corrections.rows) + 1, "the painter's number is not taken"
    consistent(corrections)
    corrections.undo()
    corrections.undo()
    assert np.array_equal(corrections.cell(6).mask, cell.mask)


def test_only_what_changed_is_measured(corrections):
    # Without the slide, cells that are measured anew have no intensity.
    corrections.result.find_slide().unlink()
    corrections.split(7)
    corrections.delete([1])
    corrections.classify([2], "other")
    assert corrections.recount().cells == len(corrections)
    table = corrections.table()
    assert table["label"].tolist() == corrections.labels().tolist()
    unknown = table["intensity_mean_red"].isna()
    assert table["label"][unknown].tolist() == [7, len(corrections.rows) + 1]
    saved = save(corrections).table.load()
    assert len(saved) == len(corrections)
    assert saved["area_px"].notna().all()
    assert saved["intensity_mean_red"].isna().sum() == 2


def test_all_of_it_saved_and_reopened(folder, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    corrections = Corrections.open(folder)
    first, second = neighbours(corrections)
    corrections.delete([1])
    corrections.merge([first, second])
    corrections.split(7)
    corrections.classify([8], "other")
    corrections.delete([9])
    corrections.undo()
    saved = save(corrections)
    assert saved.path == folder.with_name(f"{folder.stem}.corrected.cellseg")
    assert saved.path.name == "discs.corrected.cellseg"
    again = Corrections.open(folder)
    assert np.array_equal(image(again), image(corrections))
    assert [str(edit) for edit in again.edits] == [str(edit) for edit in corrections.edits]
    consistent(again)
    # The corrected folder holds the same cells, numbered anew.
    labels = np.asarray(saved.labels()[0])
    assert np.array_equal(labels > 0, image(again) > 0)
    table = saved.table.load()
    assert len(table) == len(again) == int(labels.max())
    areas = np.bincount(labels.ravel())[1:] * 4.0
    assert table["area_px"].to_numpy() == pytest.approx(areas)
    assert table["class"].value_counts().to_dict() == {"nucleus": len(table) - 1, "other": 1}
    assert not table.drop(columns="orientation_deg").isna().any(axis=None)
    assert saved.file("overview.png") is not None
    record = saved.run
    assert record["corrected_from"]["folder"] == "discs.cellseg"
    assert [entry["kind"] for entry in record["corrections"]] == [
        "add", "delete", "merge", "split", "class",
    ]  # fmt: skip
    assert {entry["who"] for entry in record["corrections"]} == {"ada"}
    assert record["summary"]["cells"] == len(table)
    # The automatic one is as it was, and the corrected one is no ground for more corrections.
    assert len(load_result(folder).table.load()) == len(again.rows)
    with pytest.raises(InputError, match="automatic result"):
        Corrections.open(saved.path)


def test_doubts_are_about_the_cells_as_corrected(folder):
    result = load_result(folder)
    table, record = result.table.load(), result.run
    # The run took half of the cells for too small; a person deletes these.
    small = table["label"][table["area_px"] <= table["area_px"].median()].tolist()
    old = "half of the nuclei are about as large as the smallest"
    assert record["expected_sizes"]["mpp"] == 0.5
    sizes = {"limits_px": [1.0, 1e6], "usual_px": 4 * 2 * 12.0}
    edit(
        folder,
        doubts=[old],
        warnings=["the middle plane", old],
        found=record["found"] | {"warnings": ["the middle plane"]},
        expected_sizes=record["expected_sizes"] | sizes,
    )
    corrections = Corrections.open(folder)
    corrections.delete(small)
    saved = save(corrections).run
    (doubt,) = saved["doubts"]
    assert "is 48 µm" in doubt
    assert saved["warnings"] == ["the middle plane", doubt]
    corrections.delete(corrections.labels().tolist())
    assert corrections.recount().cells == 0


def test_what_was_corrected_trains(corrections, tmp_path):
    corrections.classify([8], "other")
    corrections.delete([1])
    path = export_training(corrections, tmp_path / "data")
    data = read_coco(path)
    assert data.classes == ("nucleus", "other")
    (field,) = data.images
    assert field.pixels.shape[:2] == corrections.pyramid.extent.shape
    assert field.mpp == pytest.approx(1.0, rel=1e-3)
    assert field.light == "transmitted"
    assert data.objects == len(corrections)
    drawn = np.zeros(field.pixels.shape[:2], bool)
    for box, mask in zip(field.boxes.tolist(), field.masks, strict=True):
        drawn[box[0] : box[2], box[1] : box[3]] |= mask
    assert np.array_equal(drawn, image(corrections) > 0)
    # Pixels lie where the masks say: the discs are dark.
    grey = field.pixels.mean(axis=2)
    assert grey[drawn].mean() < grey[~drawn].mean() - 50


def test_a_new_count_does_not_inherit_the_old_ones_edits(folder):
    old = Corrections.open(folder)
    old.delete([1])
    other = PROTOCOL.changed(min_area_um2=1.0)
    counted_folder(folder.parent / "discs.tif", other, overwrite=True)
    with pytest.raises(OutputError, match="counted again"):
        old.delete([2])
    with pytest.raises(OutputError, match="counted again"):
        save(old)
    new = Corrections.open(folder)
    assert not new.edits
    new.delete([3])
    kept = sorted(path.name for path in folder.glob("corrections*.json"))
    assert len(kept) == 2, "the old edits are still there, under another name"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("nonsense", "is no JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "is damaged: format"),
    ],
)
def test_a_damaged_log_is_told_and_left_alone(folder, corrections, damage, said):
    corrections.delete([1])
    path = folder / "corrections.json"
    path.write_text(damage)
    with pytest.raises(InputError, match=rf"^{path}: {said}"):
        Corrections.open(folder)
    assert path.read_text() == damage
    path.unlink()
    assert not Corrections.open(folder).edits


def test_one_more_edit_does_not_write_out_the_masks_of_the_others_again(folder, monkeypatch):
    from cellseg.derive.corrections import edit

    corrections = Corrections.open(folder)
    encoded, calls = edit.encoded, []
    monkeypatch.setattr(edit, "encoded", lambda *given: calls.append(1) or encoded(*given))
    for label in range(1, 20):
        corrections.delete([label])
    corrections.undo()
    assert len(calls) == 19
    assert Corrections.open(folder).labels().tolist() == corrections.labels().tolist()


def test_measurements_that_were_changed_are_not_corrected(folder):
    path = folder / "measured.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"measured\.parquet was changed"):
        Corrections.open(folder)


def test_an_edit_that_cannot_be_kept_on_disk_is_not_lost(folder, monkeypatch):
    from cellseg.result import files

    corrections = Corrections.open(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OutputError, match="No space"):
            corrections.delete([1])
    assert 1 not in corrections
    corrections.delete([2])
    assert {1, 2}.isdisjoint(Corrections.open(folder).labels().tolist())


def test_two_discs_are_split_where_they_touch_and_one_in_its_middle():
    y, x = np.mgrid[:30, :50]
    left, right = np.hypot(y - 15, x - 14) < 12, np.hypot(y - 15, x - 34) < 12
    parts = split_in_two(left | right)
    assert len(parts) == 2
    for part in parts:
        best = max(np.count_nonzero(part & disc) for disc in (left, right))
        assert best > 0.97 * np.count_nonzero(part)
    disc = np.hypot(*(np.mgrid[:21, :21] - 10)) < 10
    sizes = [np.count_nonzero(part) for part in split_in_two(disc)]
    assert len(sizes) == 2
    assert sum(sizes) == np.count_nonzero(disc)
    assert min(sizes) > 0.5 * max(sizes)
    with pytest.raises(SettingsError, match="cannot be split"):
        split_in_two(np.ones((2, 2), bool))
    with pytest.raises(SettingsError, match="right across"):
        split_along(disc, np.array([[10.0, 0.0], [10.0, 8.0]]))


def test_a_gap_is_filled_but_not_with_others_pixels():
    left, right = np.zeros((10, 22), bool), np.zeros((10, 22), bool)
    left[:, :10], right[:, 12:] = True, True
    free = ~(left | right)
    free[5] = False
    whole = joined([left, right], free)
    assert whole[4, 10]
    assert not whole[5, 10:12].any()


def test_painting_is_seen_at_every_level_and_only_where_it_was_painted():
    rng = np.random.default_rng(2)
    base = rng.integers(0, 9, (2100, 1300)).astype(np.uint32)
    levels = [base[:: 2**n, :: 2**n] for n in range(4)]
    pyramid = PatchedPyramid(levels)
    patch = rng.integers(10, 20, (333, 571)).astype(np.uint32)
    pyramid.write(901, 517, patch)
    wanted = base.copy()
    wanted[901 : 901 + 333, 517 : 517 + 571] = patch
    for number, level in enumerate(pyramid.levels):
        assert np.array_equal(np.asarray(level), wanted[:: 2**number, :: 2**number])
    assert np.array_equal(pyramid.levels[0][1000:1200:3, -20:], wanted[1000:1200:3, -20:])
    assert pyramid.levels[0][950, 600] == wanted[950, 600]
    assert pyramid.label_at(901, 517) == patch[0, 0]
    assert pyramid.label_at(-1, 5) == 0
    assert pyramid.levels[0][5:5].shape == (0, 1300)
    empty = PatchedPyramid.empty((2100, 1300))
    empty.write(901, 517, patch)
    assert np.asarray(empty.levels[0]).sum() == patch.sum()
    assert max(empty.levels[-1].shape) <= 512


def test_what_was_painted_outlives_the_chunks_that_stay_decoded(monkeypatch):
    monkeypatch.setattr("cellseg.derive.corrections.cells.DECODED", 2)
    levels = [np.zeros((4100 // 2**n, 4100 // 2**n), np.uint32) for n in range(3)]
    pyramid = PatchedPyramid(levels)
    rng = np.random.default_rng(5)
    wanted = np.zeros((4100, 4100), np.uint32)
    for label in range(1, 40):
        y, x = rng.integers(0, 4000, 2).tolist()
        pyramid.write(y, x, np.full((90, 90), label, np.uint32))
        wanted[y : y + 90, x : x + 90] = label
    for number, level in enumerate(pyramid.levels):
        assert np.array_equal(np.asarray(level), wanted[:: 2**number, :: 2**number])
    assert not any(level.any() for level in levels)


def test_a_number_that_lives_elsewhere_is_a_new_cell_here(corrections):
    far = corrections.cell(200)
    corner, painted = copied_around(corrections, 6)
    y, x = np.argwhere(painted == 0)[0]
    painted[y, x] = 200
    edit = corrections.redraw(corner, painted)
    assert edit.kind == "add"
    assert edit.labels == (len(corrections.rows) + 1,)
    assert corrections.cell(200).box == far.box


def test_two_hands_on_one_result_lose_nothing(folder):
    first, second = Corrections.open(folder), Corrections.open(folder)
    first.delete([1])
    with pytest.raises(OutputError, match="changed elsewhere"):
        second.delete([3])
    assert [edit.labels for edit in Corrections.open(folder).edits] == [(1,)]
    first.delete([2])


def test_cells_far_apart_are_edited_without_what_lies_between(corrections, monkeypatch):
    level, areas = corrections.pyramid.levels[0], []
    read = level.read
    monkeypatch.setattr(level, "read", lambda box: areas.append(box.area) or read(box))
    edit = corrections.delete([1, len(corrections.rows)])
    whole = Box.around(change.box for change in edit.changes)
    assert whole.area > 50 * max(areas)


def test_undone_a_cell_has_its_automatic_row_again(corrections):
    corrections.result.find_slide().unlink()
    before = corrections.row(5)
    corrections.classify([5], "other")
    assert corrections.row(5)["intensity_mean_red"] == before["intensity_mean_red"]
    assert corrections.row(5)["class"] == "other"
    corrections.undo()
    corrections.delete([5])
    corrections.undo()
    assert 5 not in corrections.touched
    pd.testing.assert_series_equal(corrections.row(5), before)


def test_edits_wait_while_it_is_saved(corrections):
    corrections.delete([1])
    for act in (lambda: corrections.delete([2]), corrections.undo, lambda: save(corrections)):
        with corrections.saving(), pytest.raises(SettingsError, match="being saved"):
            act()
    assert len(save(corrections).table.load()) == len(corrections)
    corrections.delete([2])


def test_no_other_result_is_written_over(folder, corrections, tmp_path):
    with pytest.raises(OutputError, match="automatic"):
        save(corrections, folder / ".." / folder.name)
    other = shutil.copytree(folder, tmp_path / "other.cellseg")
    with pytest.raises(OutputError, match="another result"):
        save(corrections, other)
    save(corrections)
    save(corrections)


UNFIT = [
    ("label", -1), ("label", 0), ("label", 2**40), ("label", "1"), ("label", 1.5),
    ("box", [0, 0, -1, 4]), ("box", [0, 0, 1e400, 5]), ("box", [0, 99_000, 4, 99_004]),
    ("box", [0, 0, 20_000, 20_000]), ("box", "0000"), ("box", None), ("mask", 7),
    ("class", "unheard of"), ("class", "a\0b"), ("class", 7), ("score", float("nan")),
    ("score", "0.5"),
]  # fmt: skip


def test_a_log_that_does_not_fit_the_slide_is_refused(folder, corrections):
    corrections.delete([1])
    path = folder / "corrections.json"
    whole = path.read_text()
    for change, value in UNFIT:
        log = json.loads(whole)
        entry = log["edits"][0]["changes"][0]
        (entry if change == "label" else entry["before"])[change] = value
        path.write_text(json.dumps(log))
        with pytest.raises(InputError, match=rf"^{path}: is damaged: "):
            Corrections.open(folder)


def test_training_windows_hold_what_was_edited(corrections, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="nothing"):
        export_training(corrections, tmp_path / "none")
    (field,) = read_coco(
        export_training(corrections, tmp_path / "one", regions=[Box(10, 20, 110, 180)])
    ).images
    assert field.pixels.shape[:2] == (100, 160)
    monkeypatch.setattr("cellseg.derive.corrections.write.WHOLE_PX", 100)
    monkeypatch.setattr("cellseg.derive.corrections.write.WINDOW_PX", 64)
    corrections.classify([1, len(corrections.rows)], "other")
    data = read_coco(export_training(corrections, tmp_path / "data"))
    assert sum(int((image.classes == 1).sum()) for image in data.images) >= 2
    with pytest.raises(OutputError, match="already"):
        export_training(corrections, tmp_path / "data")
    twice = [Box(0, 0, 150, 101)] * 2
    data = read_coco(export_training(corrections, tmp_path / "twice", regions=twice))
    sides = [image.pixels.shape[:2] for image in data.images]
    assert len(sides) == 4
    assert all(min(side) >= 50 for side in sides)
