"""Classes by clicking: from some cells of finished results to all of these, and of others."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from finished import IHC, changed_file, copied, counted_folder, edit
from synthetic import PyramidLayout, draw_discs, write_pyramid

import cellseg
from cellseg.cli.classify import classify
from cellseg.derive import Recipe
from cellseg.derive.clicks import read_classes, write_classes
from cellseg.derive.corrections import Corrections
from cellseg.errors import CellsegError, InputError, SettingsError
from cellseg.export import export
from cellseg.protocol import Marker
from cellseg.result import load_result
from cellseg.run import change, save
from cellseg.table.taught import Click, TaughtClasses


@pytest.fixture(scope="module")
def brown(counted_once):
    """Which cells are brown, in the order of their labels."""
    return load_result(counted_once).table.column("intensity_mean_blue").to_numpy() < 80


@pytest.fixture
def clicks(brown):
    """Six brown and six blue discs by their labels."""
    labels = [*(np.flatnonzero(brown)[:18:3] + 1), *(np.flatnonzero(~brown)[:60:10] + 1)]
    return pd.DataFrame({"label": labels, "class": ["brown"] * 6 + ["blue"] * 6})


def command(*arguments):
    """The exit code, and what was printed or is told of the error."""
    ran = CliRunner().invoke(classify, [*map(str, arguments)])
    if isinstance(ran.exception, CellsegError):
        return ran.exception.exit_code, str(ran.exception)
    return ran.exit_code, ran.output


def test_all_cells_have_the_class_of_those_that_are_like_them(folder, clicks, brown):
    before = load_result(folder).table.load()
    taught = cellseg.teach_classes(folder, clicks)
    result = change(folder, taught=taught)
    table = result.table.load()
    assert ((table["class"] == "brown") == brown).all()
    assert table.drop(columns="class").equals(before.drop(columns="class"))
    assert changed_file(result) is None
    assert result.run["class_names"] == ["brown", "blue"]
    assert Recipe.of(result).taught == taught
    assert result.run["taught"]["scores"]["brown"] == [6, 1.0, 1.0]
    counts = result.run["summary"]["corrected_per_class"]
    for name, number in (("brown", brown.sum()), ("blue", (~brown).sum())):
        expected, low, high = counts[name]
        assert low <= number <= high
        assert abs(expected - number) < 0.2 * len(brown)
    assert f"brown {counts['brown'][0]} by probability (95 %:" in str(result.summary)
    assert cellseg.load_result(folder).summary == result.summary


def test_undone_the_model_s_classes_are_back(folder, clicks):
    before = (folder / "cells.csv").read_bytes()
    change(folder, taught=cellseg.teach_classes(folder, clicks))
    assert (folder / "cells.csv").read_bytes() != before
    assert command(folder, "--undo")[0] == 0
    assert (folder / "cells.csv").read_bytes() == before
    run = load_result(folder).run
    assert not {"taught", "class_colours"} & {*run}
    assert run["summary"]["corrected_per_class"] == {}


def test_thresholds_and_taught_classes_take_each_other_s_place(folder, clicks):
    taught = cellseg.teach_classes(folder, clicks)
    markers = (Marker(measure="dab_od_mean", threshold=0.1),)
    change(folder, markers=markers)
    result = change(folder, taught=taught)
    assert "classification" not in result.run
    assert not (folder / "histogram.png").exists()
    assert Recipe.of(result).markers == ()
    result = change(folder, markers=markers)
    assert Recipe.of(result).taught is None
    assert result.run["class_names"] == ["negative", "positive"]


def test_of_all_faces_each_shows_the_chosen_colours(folder, clicks):
    given = cellseg.teach_classes(folder, clicks).model_dump()
    given["colours"] = {"brown": (1, 2, 3), "blue": (4, 5, 6)}
    result = change(folder, taught=TaughtClasses.of(**given | {"unsure": 0.7}))
    names = result.class_names
    assert names == ["brown", "blue", "unsure"]
    assert result.colours(names) == [(1, 2, 3), (4, 5, 6), (190, 190, 190)]
    features = json.loads(export(folder, "cells.geojson").read_text())["features"]
    told = {(p["classification"]["name"], tuple(p["classification"]["color"]))
            for p in (one["properties"] for one in features)}  # fmt: skip
    assert told <= {("brown", (1, 2, 3)), ("blue", (4, 5, 6)), ("unsure", (190, 190, 190))}
    assert len(told) > 1


def test_cells_without_a_likely_class_are_unsure(folder, clicks):
    taught = cellseg.teach_classes(folder, clicks, unsure=0.95)
    result = change(folder, taught=taught)
    counts = result.run["summary"]["cells_per_class"]
    assert counts["unsure"] > 0
    assert sum(counts.values()) == len(result.table)
    # The estimate is of all cells, also of these.
    expected = sum(n for n, *_ in result.run["summary"]["corrected_per_class"].values())
    assert abs(expected - len(result.table)) <= 1


def test_a_table_of_places_teaches_a_folder_of_results(tmp_path, counted_once, clicks, brown):
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
        folder = copied(counted_once, home).rename(home / f"{home.name}.cellseg")
        edit(folder, key=home.name)  # no two copies of one count
    rows = load_result(counted_once).table.load().iloc[clicks["label"] - 1]
    places = pd.DataFrame({"class": clicks["class"], "result": "a"})
    for axis in "yx":
        places[axis] = rows[f"centroid_{axis}_px"].to_numpy()
    places.to_csv(tmp_path / "clicks.csv", index=False)
    code, said = command(tmp_path, "--clicks", tmp_path / "clicks.csv", "-o", tmp_path / "c.json")
    assert code == 0, said
    assert "brown: 6 clicks, precision 1.00, recall 1.00" in said
    for home in homes:
        table = load_result(home / f"{home.name}.cellseg").table
        assert ((table.column("class") == "brown").to_numpy() == brown).all()
    with (tmp_path / "summary.csv").open() as file:
        (row, *_) = csv.DictReader(file)
    assert int(row["cells_brown"]) == brown.sum()
    assert float(row["cells_low_brown"]) <= brown.sum() <= float(row["cells_high_brown"])
    assert "brown" in (tmp_path / "report.html").read_text()
    # The file alone does the same, and further clicks come to those in it.
    _, said = command(tmp_path, "--taught", tmp_path / "c.json", "--json")
    told = json.loads(said[said.index("[") : said.rindex("]") + 1])
    assert [one["cells_per_class"]["brown"] for one in told] == [brown.sum()] * 2
    known = read_classes(tmp_path / "c.json")
    new = pd.DataFrame({"label": [clicks["label"][0], 2, 3], "class": ["brown", "pale", "pale"]})
    more = cellseg.teach_classes(homes[1] / "b.cellseg", new, more=known)
    assert [*more.colours] == ["brown", "blue", "pale"]
    assert len(more.clicks) == len(known.clicks) + 2  # a cell that was clicked counts once


def test_names_of_a_file_show_their_control_characters(folder, tmp_path, clicks):
    path = tmp_path / "classes.json"
    assert cellseg.teach_classes(folder, clicks, output=path) == read_classes(path)
    path.write_text(path.read_text().replace('"brown"', '"a\\n=1"'))
    names = read_classes(path).names
    assert names[1] == "blue"
    assert names[0].isprintable()
    assert change(folder, taught=read_classes(path)).class_names == names


def test_a_class_that_a_person_gave_to_a_cell_stays(folder, clicks, brown):
    change(folder, taught=cellseg.teach_classes(folder, clicks))
    corrections = Corrections.open(folder)
    corrections.classify([1], "mitosis")
    corrections.delete([2])
    result = save(corrections)
    table = result.table.load()
    told = np.where(brown, "brown", "blue").tolist()
    assert table["class"].tolist() == ["mitosis", *told[2:]]
    assert result.run["summary"]["cells_per_class"]["mitosis"] == 1
    assert result.class_names == ["brown", "blue", "mitosis"]


def refused(error, match, call):
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_bad_clicks_are_refused_in_a_line_and_nothing_changes(folder, tmp_path, clicks):
    before = (folder / "run.json").read_bytes()
    ways = {
        "two cells of each: 'brown' has fewer": clicks.drop(index=range(1, 6)),
        "there is one class": clicks[:6],
        "there is no cell at y 0, x 0": pd.DataFrame({"class": ["a"], "y": [0], "x": [0]}),
        "there is no cell at y -10, x -10": pd.DataFrame({"class": ["a"], "y": [-10], "x": [-10]}),
        "there is no cell at y 9e\\+06": pd.DataFrame({"class": ["a"], "y": [9e6], "x": [9e6]}),
        "has no cell 9999": pd.DataFrame({"class": ["a"], "label": [9999]}),
        "called 'other'": clicks.assign(result="other"),
        "called unsure": clicks.replace("brown", "unsure"),
    }
    for said, table in ways.items():
        refused(SettingsError, said, lambda table=table: cellseg.teach_classes(folder, table))
    for text, said in {
        "class,label\na,x\n": "row 1 names no cell",
        "class,label\n,1\n": "row 1 names no cell or no class",
        "label\n1\n": "lacks the columns class; it wants class, and label or x and y",
        "": "cannot be read",
    }.items():
        (tmp_path / "clicks.csv").write_text(text)
        file = tmp_path / "clicks.csv"
        refused(InputError, said, lambda file=file: cellseg.teach_classes(folder, file))
    assert command(folder, "--clicks", tmp_path / "clicks.csv")[0] == 4
    for options in ((), ("--undo", "--unsure", 0.5), ("--undo", "--taught", "c.json")):
        assert command(folder, *options)[0] == 2
    assert (folder / "run.json").read_bytes() == before


def test_files_that_do_not_fit_are_refused_or_told(folder, tmp_path, clicks):
    taught = cellseg.teach_classes(folder, clicks, output=tmp_path / "good.json")
    good = json.loads((tmp_path / "good.json").read_text())
    for changed in (
        {"clicks": good["clicks"][:3]},
        {"clicks": [{**good["clicks"][0], "looks": "1 2 nan"}]},
        {"colours": {"brown": [1, 2, 300]}},
        {"measurements": []},
        {"format": "other"},
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**good, **changed}))
        refused(InputError, "is damaged", lambda: read_classes(tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text("{")
    refused(InputError, "is no JSON", lambda: read_classes(tmp_path / "bad.json"))
    looks = (0.0,) * (3 * (1 + len(taught.measurements)) + 3)
    clicked = [one.model_copy(update={"looks": looks}) for one in taught.clicks]
    more = {"measurements": (*taught.measurements, "cell_dab_od_mean"), "clicks": clicked}
    write_classes(TaughtClasses.of(**taught.model_dump() | more), tmp_path / "other.json")
    before = (folder / "run.json").read_bytes()
    code, said = command(folder, "--taught", tmp_path / "other.json")
    assert code == 2
    assert "lacks 1: cell_dab_od_mean" in said
    assert (folder / "run.json").read_bytes() == before
    notes = []
    of_another = taught.model_copy(update={"made_of": {"object": "cell", "model": "mine"}})
    change(folder, taught=of_another, on_notice=notes.append)
    assert any("taught on object cell, not nucleus, model mine" in note for note in notes)


def test_results_of_no_and_of_few_cells(folder, tmp_path, clicks):
    taught = cellseg.teach_classes(folder, clicks)
    for height in (39, 60):
        path = tmp_path / f"{height}.tif"
        drawn = draw_discs((height, 60), np.random.default_rng(1), spacing_px=40)
        write_pyramid(path, drawn.image, layout=PyramidLayout(mpp=0.5, tile_px=128))
        result = change(counted_folder(path, IHC), taught=taught)
        assert result.summary.cells_per_class == {"brown": 0, "blue": drawn.count}


def test_intervals_hold_the_truth_where_plain_counts_miss_it(clicks):
    """Two overlapping kinds of cells, one in five of the second, told from twenty clicks each."""
    rng, held, missed = np.random.default_rng(3), 0, 0
    for _ in range(40):

        def looks_of(kinds):
            return np.column_stack([rng.normal(1.2 * kinds), rng.normal(size=(len(kinds), 5))])

        kinds = np.repeat([0, 1], 20)
        told = [
            Click(name="ab"[kind], result="r", label=n, window=str(n), looks=tuple(map(float, one)))
            for n, (kind, one) in enumerate(zip(kinds, looks_of(kinds), strict=True))
        ]
        taught = TaughtClasses.of(colours={"a": (0, 0, 0), "b": (1, 1, 1)}, made_of={},
                                  measurements=("area_um2",), clicks=told)  # fmt: skip
        cells = (np.arange(2000) % 5 == 0).astype(int)
        found = taught.probabilities(looks_of(cells))
        _, low, high = taught.counts(found)["b"]
        held += low <= cells.sum() <= high
        missed += abs((found.argmax(1) == 1).sum() - cells.sum()) > 100
    assert missed >= 35
    assert held >= 34


def test_a_slide_in_three_parts_is_judged_part_by_part(folder, clicks):
    """Clicks of three slides or more are left out by slide: what one shows alone is not known."""
    taught = cellseg.teach_classes(folder, clicks)
    apart = [
        click.model_copy(update={"result": "a" if click.name == "brown" else "bc"[n % 2]})
        for n, click in enumerate(taught.clicks)
    ]
    scores = taught.model_copy(update={"clicks": tuple(apart)}).scores()
    assert scores["brown"] == (6, 0.0, 0.0)
    assert scores["blue"][2] == 1.0
