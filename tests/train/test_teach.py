"""Teaching: where to look, what is learned from, the refusal to get worse, and the small file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from finished import copied, edit

import cellseg
from cellseg.annotations.compare import Compared
from cellseg.annotations.geojson import read_regions
from cellseg.counting.plan import choose_assay
from cellseg.counting.request import CountRequest
from cellseg.derive.corrections import Corrections, export_training
from cellseg.errors import InputError, OutputError, SettingsError, WeightsError
from cellseg.instances import Instances
from cellseg.network.architecture import QUALITY_KEYS
from cellseg.network.modelfile import ModelCard, read_arrays, read_card
from cellseg.network.weights import read_model, save_model
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.slide import open_slide
from cellseg.train import heads
from cellseg.train import teach as teaching
from cellseg.train.windows import SIDE_PX, lessons_of

HEIGHT, WIDTH = 600, 900


def draw(path, seed=0, height=HEIGHT, width=WIDTH):
    """Discs on a dark ground, of two sizes: the left half is crowded."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = rng.normal(20, 3, (height, width))
    for _ in range(90):
        at = rng.uniform((20, 20), (height - 20, width - 20))
        at[1] = at[1] / 2 if rng.random() < 0.7 else at[1]
        radius = rng.uniform(7, 14)
        pixels += rng.uniform(30, 120) * (np.hypot(y - at[0], x - at[1]) < radius)
    tifffile.imwrite(path, pixels.clip(0, 255).astype(np.uint8), resolution=(20000, 20000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    return path


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teach")
    slide = draw(folder / "slide.tif")
    return cellseg.count(slide, protocol="fluorescence", progress=False).folder


@pytest.fixture
def result(counted, tmp_path):
    """A copy of the count with three windows, beside its slide; a cell of the first is deleted."""
    copy = copied(counted, tmp_path)
    delete_in(copy, cellseg.teach_windows(copy, 3)[0].box)
    return copy


def delete_in(folder, box):
    """Delete a cell in the middle of a window."""
    corrections = Corrections(load_result(folder))
    inside = corrections.pyramid.levels[0].read(box.widened(-20))
    corrections.delete([int(inside[inside > 0][0])])


@pytest.fixture
def network():
    """The shipped one, before it learns."""
    state, _ = read_model("default")
    network = teaching.build_maskrcnn(1, architecture=teaching.Architecture.of(state))
    teaching.fill(network, state, "default")
    return network


@pytest.fixture
def quick(monkeypatch):
    """Two steps a training, of few views."""
    monkeypatch.setattr(heads, "STEPS", 2)
    monkeypatch.setattr(heads, "VIEWS", 2)


def better(monkeypatch, *, after=0.1):
    """The old heads are off by a half, the new ones by less: judged without a look."""
    errors = iter((0.5, after))
    monkeypatch.setattr(
        teaching, "_per_window", lambda *_: np.array([[next(errors)] * 3, [0.5] * 3])
    )


def test_windows_are_apart_doubtful_and_readable(counted, tmp_path):
    path = tmp_path / "windows.geojson"
    windows = cellseg.teach_windows(counted, 5, output=path)
    assert [one.name for one in windows] == ["1", "2", "3", "4", "5"]
    for one in windows:
        assert SIDE_PX // 2 < min(one.box.shape) <= max(one.box.shape) <= SIDE_PX
        assert not any(one.box.intersects(other.box) for other in windows if other is not one)
    assert "cells" in windows[0].reason
    # On the slide, in level-0 pixels, they hold what the table says.
    table, regions = cellseg.load_result(counted).table, list(read_regions(path))
    assert [one.name for one in regions] == ["1", "2", "3", "4", "5"]
    for window, region in zip(windows, regions, strict=True):
        inside = region.contains(table["centroid_y_px"], table["centroid_x_px"])
        assert window.reason.startswith(f"{inside.sum()} cells")
    # The crowded half is not all that is shown.
    assert min(one.box.x0 for one in windows) < 200 < 450 <= max(one.box.x0 for one in windows)


def test_lessons_are_the_slide_with_the_corrected_cells(result):
    corrections = Corrections(load_result(result))
    window = cellseg.teach_windows(result, 1)[0].box
    painted = np.zeros(window.shape, int)
    painted[100:120, 50:80] = 1_000_000
    corrections.redraw((window.y0, window.x0), painted)
    (lesson,) = lessons_of(load_result(result), None, ["1"], ("nucleus",))
    assert lesson.window.shape == window.shape
    boxes = lesson.image.boxes - np.tile([lesson.window.y0, lesson.window.x0], 2)
    assert [100, 50, 120, 80] in boxes.tolist()
    inside, pixels, cells = heads.seen(*lesson)
    assert len(cells) == len(boxes)
    # The same pixels and scale as in counting, with what lies around the window.
    with load_result(result).slide() as slide:
        seen = load_result(result).ground(slide).read(window, load_result(result).frame.downsample)
    part = pixels[:, *inside.pixels].permute(1, 2, 0).numpy()
    assert np.abs(part - seen / 255).max() < 0.01
    assert pixels.shape[1] > SIDE_PX
    assert pixels.shape[1] % 64 == 0


def test_features_are_those_of_counting(result, network):
    """Of a window inside a slide they hold no trace of its edge."""
    lessons = lessons_of(load_result(result), None, ["all"], ("nucleus",))
    found = heads.views_of(network, lessons)
    assert {view.window for view in found} == {0, 1, 2}
    first = next(view for view in found if view.window == 0)
    inner, pixels, _ = heads.seen(*lessons[0])
    with torch.no_grad():
        whole = network.backbone(network.transform.normalize(pixels[None]))["0"]
    y, x = (-(-end // 64) * 16 for end in (inner.y0, inner.x0))
    height, width = first.features["0"].shape[2:]
    wanted = whole[..., y : y + height, x : x + width]
    assert torch.allclose(first.features["0"].float(), wanted, atol=0.05, rtol=0.02)


def test_heads_alone_learn_and_the_loss_falls(result, network, monkeypatch):
    monkeypatch.setattr(heads, "VIEWS", 2)
    monkeypatch.setattr(heads, "STEPS", 40)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    views = heads.views_of(network, lessons_of(load_result(result), None, ["all"], ("nucleus",)))
    full = [max(views, key=lambda view: len(view.target["boxes"]))]

    def loss():
        torch.manual_seed(0)
        with torch.no_grad():
            return float(heads._loss(network.train(), full))

    with torch.random.fork_rng([]):
        before = loss()
        assert list(heads.learn(network, full, 600))[-1] == 1.0
        assert loss() < before
    changed = {name for name, value in network.state_dict().items()
               if not torch.equal(value, state[name])}  # fmt: skip
    assert changed == {name for name in state if heads.is_head(name)}


@pytest.mark.parametrize(
    ("right", "wrong", "least"),
    [  # Seven are annotated, and found by wrong outlines. The best F1 has fewer, or more.
        ([0.8] * 4, [0.4] * 3 + [0.2], 0.6),
        ([0.8] * 3 + [0.4] * 4, [0.8] * 4, 0.6),
    ],
)
def test_the_score_is_the_higher_one_of_right_counts_and_right_outlines(right, wrong, least):
    def cells(places, scores):
        masks = [np.ones((5, 5), bool)] * len(places)
        boxes = [(0, 9 * n, 5, 9 * n + 5) for n in places]
        return Instances.build(boxes, scores, [0] * len(places), masks)

    places = [*range(len(right)), *range(20, 20 + len(wrong))]
    window = Compared(cells(places, right + wrong), cells(range(7), [1.0] * 7), (5, 1000))
    assert teaching._threshold([window]) == pytest.approx(least, abs=0.011)


def test_a_taught_model_is_small_and_counts_another_slide(result, tmp_path, quick, monkeypatch):
    better(monkeypatch)
    shares = []
    told = cellseg.teach(
        result, tmp_path / "mine.safetensors", done=["all"], object="cell", report=shares.append
    )
    assert told.model == tmp_path / "mine.safetensors"
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told.model.stat().st_size < 3_000_000
    card = read_card(told.model)
    assert (card.name, card.object, card.classes) == ("mine", "cell", ("cell",))
    assert (card.base_file, card.base) == ("default", read_arrays("default")[1].checksum)
    assert card.protocol.score == told.score
    arrays = read_arrays(told.model)[0]
    known = {name for name in read_model("default")[0] if not name.startswith(QUALITY_KEYS)}
    assert set(read_model(told.model)[0]) == known
    # The heads' inputs have ranges of their own, measured in the windows: 8 bits may count.
    usual = read_arrays("default")[0]
    ranges = [name for name in usual.keys() & arrays.keys() if name.endswith(".range")]
    anew = {name for name in ranges if not np.array_equal(arrays[name], usual[name])}
    assert anew
    assert all(heads.is_head(name) for name in anew)
    other = draw(tmp_path / "other.tif", seed=1, height=300, width=600)
    cells = cellseg.count(other, model=told.model, progress=False)
    run = load_result(cells.folder).run
    assert (run["object"], run["protocol"]["stain"]) == ("cell", "fluorescence")
    assert run["protocol"]["score"] == told.score
    # A taught model is taught further, and then sits on the same one.
    delete_in(cells.folder, cellseg.teach_windows(cells.folder, 2)[0].box)
    better(monkeypatch)
    again = cellseg.teach(cells.folder, tmp_path / "more.safetensors", done=["all"])
    assert read_card(again.model).base == card.base


def test_a_models_own_pyramid_is_kept_when_it_is_taught(result, tmp_path, quick, monkeypatch):
    better(monkeypatch)
    own, card = read_model("ihc")
    model = load_result(result).section("model") | {"file": "ihc", "checksum": card.checksum}
    edit(result, model=model)
    told = cellseg.teach(result, tmp_path / "mine.safetensors", done=["all"])
    taught, base = read_model(told.model)[0], read_model("default")[0]
    pyramid = [name for name in base if "fpn" in name]
    assert pyramid
    assert all(torch.allclose(taught[name], own[name], atol=1e-3) for name in pyramid)
    assert not any(torch.equal(own[name], base[name]) for name in pyramid)


def test_time_is_left_for_the_looks_after_learning(result, tmp_path, monkeypatch):
    clock, look, given = [0.0], teaching._look, []
    monkeypatch.setattr(teaching, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow(*asked):
        clock[0] += 10
        return look(*asked)

    def learn(network, views, seconds):
        given.append(seconds)
        yield 1.0

    monkeypatch.setattr(teaching, "_look", slow)
    monkeypatch.setattr(teaching, "learn", learn)
    monkeypatch.setattr(heads, "VIEWS", 2)
    cellseg.teach(result, tmp_path / "mine.safetensors", done=["all"], minutes=3)
    assert given[0] == (180 - teaching.SAVED_S - 10 * (1 + teaching.LOOKS)) / len(given)


@pytest.mark.parametrize(("others", "agree"), [(49, True), (48, False)])
def test_8_bits_count_where_they_find_what_torch_finds(others, agree):
    def look(count):
        cells = Instances.build([(0, 9 * n, 5, 9 * n + 5) for n in range(count)], [0.9] * count,
                                [0] * count, [np.ones((5, 5), bool)] * count)  # fmt: skip
        return [Compared(cells, cells, (5, 1000))]

    assert teaching._agree([look(50), look(others)], 0.5) is agree


@pytest.mark.parametrize(
    ("after", "better"),
    [([0.4, 0.3, 0.5], True), ([0.5, 0.5, 0.5], False), ([0.1, 0.7, 0.6], False)],
)
def test_new_heads_must_be_better_by_more_than_chance(after, better):
    """Three windows whose count was off by a half; of the third case one alone gains."""
    before, f1s = [0.5] * 3, [0.6] * 3
    assert teaching._is_better(np.array([before, f1s]), np.array([after, f1s])) is better
    # A better F1 counts as much.
    shifted = np.array([before, 0.6 + (0.5 - np.array(after))])
    assert teaching._is_better(np.array([before, f1s]), shifted) is better
    # Counts that come out right by wrong outlines do not.
    assert not teaching._is_better(np.array([before, f1s]), np.array([after, [0.59] * 3]))


def test_an_interrupt_leaves_what_was_there(result, tmp_path, quick):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"earlier")

    def strike(share):
        if share > 0.4:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        cellseg.teach(result, path, done=["all"], report=strike)
    assert path.read_bytes() == b"earlier"
    assert sorted(one.name for one in tmp_path.glob("*.part")) == []
    assert torch.equal(torch.get_rng_state(), before)


def test_training_data_teaches_as_well(result, tmp_path, quick, monkeypatch):
    boxes = [one.box for one in cellseg.teach_windows(result, 2)]
    export_training(Corrections(load_result(result)), tmp_path / "coco", regions=boxes)
    better(monkeypatch)
    told = cellseg.teach(result, tmp_path / "m.safetensors", learn_from=tmp_path / "coco")
    assert (told.windows, told.model) == (2, tmp_path / "m.safetensors")


@pytest.mark.parametrize(("said", "share"), [({"dab_share": 0.6}, 0.6), ({}, 1.0)])
def test_lessons_show_as_much_of_the_brown_as_the_count_did(said, share, result, tmp_path):
    """Results of versions that knew no share were counted with all of it."""
    boxes = [one.box for one in cellseg.teach_windows(result, 2)]
    export_training(Corrections(load_result(result)), tmp_path / "coco", regions=boxes)
    protocol = load_result(result).section("protocol")
    del protocol["dab_share"]
    edit(result, protocol=protocol | said)
    for source in (None, tmp_path / "coco"):
        lessons = lessons_of(load_result(result), source, ["all"], ("nucleus",))
        assert {one.image.normaliser.dab for one in lessons} == {share}


def test_what_cannot_be_learned_from(result, tmp_path, quick):
    output, windows = tmp_path / "m.safetensors", result / "windows.geojson"

    def refused(kind, said, **given):
        with pytest.raises(kind, match=said):
            cellseg.teach(result, output, **given)

    refused(SettingsError, "no window is done")
    refused(SettingsError, "nothing can be judged", done=["1"])
    refused(SettingsError, "has no window 17", done=["1", "17"])
    refused(SettingsError, "minutes must be above 0", done=["all"], minutes=0)
    data = json.loads(windows.read_text())
    windows.write_text(json.dumps({**data, "cellseg_result": "0" * 32}))
    refused(InputError, "of another count", done=["all"])
    beside = json.loads(json.dumps(data).replace("[", "[").replace('"name": "1"', '"name": "9"'))
    ring = beside["features"][0]["geometry"]["coordinates"][0][0]
    beside["features"][0]["geometry"]["coordinates"] = [[[[x + 9000, y] for x, y in ring]]]
    windows.write_text(json.dumps(beside))
    refused(SettingsError, "window 9: less than 128 px", done=["all"])
    for one, feature in zip(("done", "done", "todo"), data["features"], strict=True):
        feature["properties"]["classification"] = {"name": one}
    windows.write_text(json.dumps(data))
    assert len(lessons_of(load_result(result), None, [], ("nucleus",))) == 2
    with pytest.raises(SettingsError, match="is of class 'nucleus'; the model knows a, b"):
        lessons_of(load_result(result), None, [], ("a", "b"))
    corrections = Corrections(load_result(result))
    corrections.delete(corrections.labels().tolist())
    refused(SettingsError, "no cell is outlined", done=["all"])
    edit(result, image={"path": "gone.tif"})
    refused(InputError, "is not there any more", done=["all"])
    while corrections.undo():
        pass
    refused(SettingsError, "no cell was corrected in the windows that are done", done=["all"])
    assert not output.exists()
    with pytest.raises(SettingsError, match="one window or more"):
        cellseg.teach_windows(result, 0)
    with pytest.raises(OutputError):
        cellseg.teach_windows(result, 1, output=tmp_path / "slide.cellseg" / "run.json" / "x")


def test_a_model_of_ones_own_must_lie_beside_what_it_is_taught(result, tmp_path, quick):
    state, card = read_model("default")
    own = tmp_path / "own" / "own.safetensors"
    save_model(own, state, card, quantise=True)
    model = load_result(result).section("model") | {"file": str(own)}
    edit(result, model=model | {"checksum": read_arrays(own)[1].checksum})
    with pytest.raises(SettingsError, match="must lie beside the model"):
        cellseg.teach(result, tmp_path / "m.safetensors", done=["all"])
    edit(result, model=model | {"checksum": "0" * 64})
    with pytest.raises(WeightsError, match="is not the model any more"):
        cellseg.teach(result, own.parent / "m.safetensors", done=["all"])


def test_a_taught_file_without_its_base(tmp_path):
    state, card = read_model("default")
    taught = {name: value for name, value in state.items() if heads.is_head(name)}
    path = tmp_path / "m.safetensors"

    def written(base, file):
        changed = card.model_copy(update={"base": base, "base_file": file})
        save_model(path, taught, changed, quantise=True)

    written(card.checksum, "default")
    assert read_arrays(path)[1].backbone == card.backbone
    written("0" * 64, "default")
    with pytest.raises(WeightsError, match="taught on the model default, which must lie beside"):
        read_arrays(path)
    written("0" * 64, path.name)  # on itself
    with pytest.raises(WeightsError, match="is another model"):
        read_arrays(path)
    written(card.checksum, "base.safetensors")
    (tmp_path / "base.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="must lie beside it"):
        read_arrays(path)
    save_model(tmp_path / "base.safetensors", state, card, quantise=True)
    with pytest.raises(WeightsError, match="is another model"):
        read_arrays(path)
    written(read_arrays(tmp_path / "base.safetensors")[1].checksum, "../base.safetensors")
    assert set(read_model(path)[0]) == {n for n in state if not n.startswith(QUALITY_KEYS)}


def test_a_trained_model_counts_what_no_protocol_fits(tmp_path):
    """A mid-grey picture: refused without a model that carries its protocol."""
    y, x = np.indices((300, 400)) % 50 - 25
    waves = 25 * np.sin(np.hypot(y, x)) * (np.hypot(y, x) < 9)
    image, own = tmp_path / "grey.tif", tmp_path / "own.safetensors"
    tifffile.imwrite(image, (100 + waves).astype(np.uint8))
    state, card = read_model("default")
    with open_slide(image) as slide:
        save_model(own, state, card, quantise=True)
        with pytest.raises(
            SettingsError, match="no protocol is plain enough to be chosen; name one of"
        ):
            choose_assay(slide, CountRequest(image=image, model=own))
        carried = load_protocol("brightfield")
        save_model(own, state, card.model_copy(update={"protocol": carried}), quantise=True)
        assay = choose_assay(slide, CountRequest(image=image, model=own))
    assert (assay.protocol, assay.model) == (carried, own)
    assert "which the model was trained for" in assay.notes[-1]
    assert ModelCard.model_validate_json(read_card(own).model_dump_json()).protocol == carried


def test_command(cellseg, result, tmp_path, quick, monkeypatch):
    code, out, err = cellseg("teach", result, "--windows", 2)
    assert code == 0
    assert out.startswith("window 1: ")
    assert str(result / "windows.geojson") in out
    assert err == ""
    code, out, err = cellseg("teach", result, "--windows", 99)
    assert code == 0
    assert err.startswith(f"{out.count('window ')} of 99 windows: no more fit")
    output = tmp_path / "m.safetensors"
    assert cellseg("teach", result)[0] == 2
    assert cellseg("teach", result, "--done", "1,2")[0] == 2
    code, _, err = cellseg("teach", result, "--done", "1", "-o", output)
    assert (code, err.count("\n")) == (2, 1)
    better(monkeypatch)
    code, out, _ = cellseg("teach", result, "--done", "1, 2", "-o", output)
    assert code == 0
    assert "before: error of the count 50.0%" in out
    assert f"cellseg count SLIDE --model {output}" in out
    better(monkeypatch, after=0.5)
    earlier = output.read_bytes()
    code, out, _ = cellseg("teach", result, "--done", "all", "-o", output)
    assert code == 0
    assert "the old heads stay" in out
    assert output.read_bytes() == earlier
