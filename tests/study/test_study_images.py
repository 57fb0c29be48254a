"""Which images a study holds, and where their results go."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from microscopes import plate

from cellseg.cli._images import home_of_study
from cellseg.errors import InputError, SettingsError
from cellseg.study.images import ImageFile, find_images, result_names


def touched(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_a_tree_is_searched_and_mirrored(tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    touched(
        scans / "b.tif", scans / "x" / "a.svs", scans / "x" / "y" / "a.svs",
        scans / "notes.txt", scans / ".hidden" / "c.tif", scans / "x" / ".a.tif",
        scans / "x" / "a.cellseg" / "outlines.png", scans / "z.ome.zarr" / "0" / "c.png",
    )  # fmt: skip
    found = find_images([scans], recursive=True).images
    places = [str(image.path.relative_to(scans)) for image in found]
    assert places == ["b.tif", "z.ome.zarr", "x/a.svs", "x/y/a.svs"]
    names = result_names(found, out)
    homes = [
        image.home(out).relative_to(out) / name for image, name in zip(found, names, strict=True)
    ]
    assert [str(home) for home in homes] == [
        "b.cellseg", "z.cellseg", "x/a.cellseg", "x/y/a.cellseg",
    ]  # fmt: skip
    assert [image.home(None) for image in found] == [image.path.parent for image in found]


def test_a_plate_gives_its_fields_beside_it_and_tells_of_holes(tmp_path):
    path = plate(tmp_path / "screens" / "one.zarr")
    found = find_images([tmp_path], recursive=True)
    assert result_names(found.images, None) == [
        "one-A01-0.cellseg", "one-A01-1.cellseg", "one-B03-0.cellseg",
    ]  # fmt: skip
    assert {image.home(None) for image in found.images} == {tmp_path / "screens"}
    assert {image.home(tmp_path / "out") for image in found.images} == {tmp_path / "out/screens"}
    ((place, error),) = found.unread
    assert place == path
    assert str(error) == "one.zarr: 2 of its wells or fields are not there: B03/1, C07"


def test_files_that_the_pattern_leaves_out_are_named(tmp_path):
    for name in ("A01_w1", "A01_w2", "exp_0", "exp_1", "exp_2", "exp_3"):
        (tmp_path / f"{name}.tif").touch()
    found = find_images([tmp_path], files="{well}_w{channel}.tif")
    left = "exp_0.tif, exp_1.tif, exp_2.tif and 1 more"
    assert found.notes == [f"{tmp_path.name}: the pattern leaves out {left}"]
    assert find_images([tmp_path], files="*.tif").notes == []


def test_masks_beside_their_images_are_not_counted(tmp_path):
    for name in ("a.tif", "a_mask.png", "b.ome.tif", "b_cp_masks.tif", "c_mask.tif", "labels.tif"):
        (tmp_path / name).touch()
    (tmp_path / "d.ome.zarr").mkdir()
    (tmp_path / "d_labels.tif").touch()
    found = find_images([tmp_path])
    there = [image.path.name for image in found.images]
    assert there == ["a.tif", "b.ome.tif", "c_mask.tif", "d.ome.zarr", "labels.tif"]
    left = "a_mask.png, b_cp_masks.tif, d_labels.tif"
    assert found.notes == [f"{tmp_path.name}: masks of other images, not counted: {left}"]
    wanted = find_images([tmp_path], files="*.png")
    assert "a_mask.png" in {image.path.name for image in wanted.images}


def test_without_recursion_only_the_folder_itself(tmp_path):
    touched(tmp_path / "a.tif", tmp_path / "x" / "b.tif")
    assert [image.path.name for image in find_images([tmp_path]).images] == ["a.tif"]
    (tmp_path / "a.tif").unlink()
    with pytest.raises(InputError, match="no images in this folder") as caught:
        find_images([tmp_path])
    assert caught.value.hint == "recursive"


def test_several_folders_have_places_of_their_own(tmp_path):
    touched(tmp_path / "one" / "x" / "a.tif", tmp_path / "two" / "x" / "a.tif")
    found = find_images([tmp_path / "one", tmp_path / "two"], recursive=True).images
    assert [str(image.below) for image in found] == ["one/x", "two/x"]


def test_a_link_that_leads_back_up_ends_nothing(tmp_path):
    touched(tmp_path / "x" / "a.tif")
    (tmp_path / "x" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_images([tmp_path], recursive=True).images) == 1


def test_a_closed_folder_is_told_and_the_others_are_searched(tmp_path, monkeypatch):
    touched(tmp_path / "a.tif", tmp_path / "closed" / "b.tif", tmp_path / "open" / "c.tif")
    whole = Path.iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return whole(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = find_images([tmp_path], recursive=True)
    assert [image.path.name for image in found.images] == ["a.tif", "c.tif"]
    ((folder, error),) = found.unread
    assert folder == tmp_path / "closed"
    assert "Permission denied" in str(error)
    with pytest.raises(InputError, match="Permission denied"):
        find_images([tmp_path / "closed"], recursive=True)


def named(*paths, output=None):
    return result_names([ImageFile(Path(path)) for path in paths], output)


def test_slides_of_one_name_get_folders_of_their_own(tmp_path):
    assert named("x/s.tif", "y/s.tif", output=tmp_path) == ["x-s.tif.cellseg", "y-s.tif.cellseg"]
    assert named("x/s.tif", "y/s.tif") == ["s.cellseg", "s.cellseg"]
    with pytest.raises(SettingsError, match="2 of the images"):
        named("x/s.tif", "x/s.tif")


def test_names_that_differ_in_capitals_or_endings_get_folders_of_their_own():
    names = named("x/s.tif", "x/S.tif", "x/t.tif")
    assert len({name.lower() for name in names}) == 3
    assert [name[:7] for name in names] == ["x-s.tif", "x-S.tif", "t.cells"]
    assert names == named("x/s.tif", "x/S.tif", "x/t.tif")
    assert named("x/s.tif", "x/s.png") == ["s.tif.cellseg", "s.png.cellseg"]
    images = [ImageFile(Path(f"{name}/s.tif"), PurePosixPath(name)) for name in ("x", "X")]
    assert len({*result_names(images, Path("out"))}) == 2, "these folders may be one"


@pytest.mark.parametrize("name", ["=1+1.tif", "-rf.tif", "a b.tif", "🙂 ü.tif", "a'b\"c.tif"])
def test_any_name_is_found(tmp_path, name):
    touched(tmp_path / name)
    (image,) = find_images([tmp_path], recursive=True).images
    assert named(image.path) == [f"{name[:-4]}.cellseg"]


@pytest.mark.parametrize(
    ("given", "options", "home"),
    [
        (["one"], {}, "one"),
        (["one"], {"recursive": True}, "one"),
        (["tree"], {"recursive": True}, "tree"),
        (["one/a.tif", "one/b.tif"], {}, "one"),
        (["one/a.tif", "tree/x/c.tif"], {}, None),
        (["one/a.tif"], {}, None),
    ],
)
def test_where_a_summary_goes_without_an_output(tmp_path, given, options, home):
    touched(tmp_path / "one" / "a.tif", tmp_path / "one" / "b.tif", tmp_path / "tree/x/c.tif")
    paths = [tmp_path / name for name in given]
    found = find_images(paths, **options).images
    found_home = home_of_study(paths, found, None, report=False, parquet=False)
    assert found_home == (None if home is None else tmp_path / home)
    assert home_of_study(paths, found, tmp_path, report=True, parquet=False) == tmp_path


def test_a_page_without_a_place_is_refused(tmp_path):
    touched(tmp_path / "one" / "a.tif", tmp_path / "two" / "b.tif")
    paths = [tmp_path / "one" / "a.tif", tmp_path / "two" / "b.tif"]
    with pytest.raises(SettingsError, match="--report: give a folder with --output"):
        home_of_study(paths, find_images(paths).images, None, report=True, parquet=False)
