"""COCO JSON: what is read, and every fault that is told."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from imageio.v3 import imwrite
from limited import limited, peak_of
from pycocotools import mask as rle

from cellseg.annotations.coco import join, judgeable, light_of, read_coco, with_classes
from cellseg.annotations.masks import encoded, outline_of
from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.train.crops import cut
from cellseg.train.validate import split

# pycocotools' own decoder is behind NumPy 2; cellseg does not use it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [4, 5, 14, 5, 14, 12, 4, 12]


def annotation(number=1, **changed):
    return {
        "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0,
        "segmentation": [SQUARE], "bbox": [4, 5, 10, 7], "area": 70, **changed,
    }  # fmt: skip


@pytest.fixture
def project(tmp_path):
    """Writes a project; keyword arguments replace its parts."""
    imwrite(tmp_path / "a.png", np.full((32, 40), 200, np.uint8))

    def write(name="cells.json", folder=None, **changed):
        data = {
            "images": picture(),
            "categories": [{"id": 1, "name": "nucleus"}],
            "annotations": [annotation()],
            **changed,
        }
        path = (folder or tmp_path) / name
        path.write_text(json.dumps(data))
        return path

    return write


def fault(path, **kwargs):
    with pytest.raises(InputError) as caught:
        read_coco(path, **kwargs)
    return str(caught.value)


def picture(**changed):
    return [{"id": 1, "file_name": "a.png", "height": 32, "width": 40, **changed}]


CROWD = annotation(2, iscrowd=1, segmentation={"size": [32, 40], "counts": [0, 1280]})


def full(box, mask, extent):
    out = np.zeros(extent, bool)
    out[box.pixels] = mask
    return out


def test_a_plain_project(project):
    data = read_coco(project())
    (image,) = data.images
    assert data.classes == ("nucleus",)
    assert data.objects == 1
    assert image.pixels.shape == (32, 40, 1)
    assert image.boxes.tolist() == [[5, 4, 12, 14]]
    assert image.masks[0].all()
    assert image.light == "transmitted"


def test_polygons_and_both_run_lengths_agree():
    code = rle.merge(rle.frPyObjects([SQUARE], 32, 40))
    mask = rle.decode(code)
    flat = np.concatenate([[0], mask.T.ravel(), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [32 * 40]])).tolist()
    forms = [
        [SQUARE],
        {"size": [32, 40], "counts": code["counts"].decode()},
        {"size": [32, 40], "counts": counts},
    ]
    for form in forms:
        assert np.array_equal(full(*outline_of(form, (32, 40)), (32, 40)), mask.astype(bool))
    box, mask = outline_of([SQUARE, [20, 20, 30, 20, 30, 28, 20, 28]], (32, 40))
    assert (box, mask.sum()) == (Box(5, 4, 28, 30), 70 + 80)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_run_lengths_round_trip(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    seed = data.draw(st.integers(0, 2**31))
    mask = np.random.default_rng(seed).random((height, width)) < data.draw(st.floats(0.02, 1))
    if not mask.any():
        mask[0, 0] = True
    theirs = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    box, inside = outline_of(theirs, mask.shape)
    assert np.array_equal(full(box, inside, mask.shape), mask)
    assert np.array_equal(rle.decode(encoded(box, inside, mask.shape)), mask)


OUTLINES_AT_FAULT = {
    "no outline": [None, []],
    "three points": [[[4, 5, 10, 7]], [[4, 5, 10, 7, 8]], [["4", 5, 10, 7, 8, 9]]],
    "no numbers": [[[4, 5, float("nan"), 7, 8, 9]]],
    "leaves the image": [[[4, 5, 1e12, 7, 8, 9]]],
    "leaves the image by 30 px": [[[60, 5, 70, 5, 70, 12]]],
    "empty mask": [[[4, 5, 4, 5, 4, 5]], {"size": [32, 40], "counts": [1280]}],
    "size": [{"size": [32, 41], "counts": [1280]}],
    "do not add up": [{"size": [32, 40], "counts": [10, 5]}],
    "neither": [
        {"size": [32, 40], **more}
        for more in ({"counts": [10, -5, 1275]}, {"counts": [0, 10**30]}, {})
    ],
    "damaged": [
        {"size": [32, 40], "counts": text} for text in ("0o", "é", "oooooooooooooooo0", "")
    ],
}


@pytest.mark.parametrize(
    ("words", "segmentation"),
    [(words, one) for words, each in OUTLINES_AT_FAULT.items() for one in each],
)
def test_outlines_at_fault(segmentation, words):
    with pytest.raises(ValueError, match=words):
        outline_of(segmentation, (32, 40))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_run_length_string_is_refused_or_right(text):
    try:
        box, mask = outline_of({"size": [9, 7], "counts": text}, (9, 7))
    except ValueError:
        return
    assert box.area
    assert box == box.intersection(Box(0, 0, 9, 7))
    assert mask.any()


def test_every_fault_is_told_at_once(project):
    path = project(
        images=[
            *picture(height=30),
            *picture(file_name="b.png"),
            *picture(id=3, file_name="gone.png"),
            *picture(id=4, file_name="c.png", height="tall"),
        ],
        annotations=[
            annotation(1),
            annotation(1),
            annotation(3, category_id=9),
            annotation(4, image_id=77),
            annotation(5, segmentation=[], bbox=None),
        ],
    )
    text = fault(path)
    lines = text.splitlines()
    assert lines[0].startswith(f"{path}: 8 faults")
    assert len(lines) == 9
    for words in (
        "is 32 × 40 px (height × width), the annotations say 30 × 40",
        "image id 1 stands twice",
        "gone.png: no such image",
        "image 4: height: ",
        "annotation 1 stands twice",
        "unknown category 9",
        "unknown image 77",
        "annotation 5 has neither an outline nor a box",
    ):
        assert sum(words in line for line in lines) == 1, words


@pytest.mark.parametrize("side", [40_000, 100_000, 2**70, 10**400])
@pytest.mark.parametrize("outline", ["polygon", "run lengths"])
def test_a_size_that_the_image_has_not_takes_no_memory(project, side, outline):
    runs = {"size": [side, side], "counts": [0, side * side]}
    drawn = [[0, 0, side, 0, side, side, 0, side]]
    path = project(
        images=picture(height=side, width=side),
        annotations=[annotation(segmentation=drawn if outline == "polygon" else runs)],
    )
    known = side < 2**31
    said = f"annotations say {side} × {side}" if known else "image 1: height: "
    with pytest.raises(InputError, match=said):
        read_coco(path)
    assert peak_of(lambda: fault(path)) < 10_000_000


def test_names_and_points_beyond_anything_are_faults(project):
    images = [*picture(), *picture(id=2, file_name="x" * 5000 + ".png")]
    far = [annotation(segmentation=[[0, 0, 10**400, 0, 5, 5]])]
    text = fault(project(images=images, annotations=far))
    assert "xxx…: File name too long" in text
    assert "annotation 1 has a polygon with points that lie on no image" in text


def test_a_class_name_shows_its_control_characters(project):
    data = read_coco(project(categories=[{"id": 1, "name": "a\x1b[2J"}]))
    assert data.classes == ("a\\u001b[2J",)


def test_many_faults_are_cut_short(project):
    rows = [annotation(n, segmentation=[], bbox=None) for n in range(100)]
    text = fault(project(annotations=rows))
    assert "100 faults" in text
    assert text.endswith("… and 60 more")


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png", "C:a.png"]
)
def test_file_names_never_lead_out(project, tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    assert "must lie below" in fault(project(folder=inner, images=picture(file_name=name)))


def test_links_never_lead_out(project, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.png").symlink_to(tmp_path / "a.png")
    assert "leads out" in fault(project(folder=inner))
    # The user may point there, though.
    assert read_coco(project(folder=inner), images=tmp_path).objects == 1


def test_broken_image_and_broken_json(project, tmp_path):
    path = project()
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:60])
    assert "a.png: cannot be read as an image" in fault(path)
    path.write_text('{"images": [')
    assert "cannot be read as JSON" in fault(path)
    path.write_text("[" * 100_000)
    assert "cannot be read as JSON" in fault(path)
    path.write_text("[]")
    assert "no COCO annotations" in fault(path)
    assert "cannot be read" in fault(tmp_path / "nowhere.json")


def test_an_image_never_leads_out(project, tmp_path):
    """An OME-TIFF of three files, of which two lie elsewhere."""
    part = '<TiffData FirstC="{n}" IFD="0" PlaneCount="1"><UUID FileName="{name}">u:{n}</UUID></TiffData>'  # noqa: E501
    names = ("a.tif", "../secret.tif", str(tmp_path / "secret.tif"))
    parts = "".join(part.format(n=n, name=name) for n, name in enumerate(names))
    document = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="u:0"><Image ID="I:0">'
        '<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint8" SizeX="9" SizeY="8" SizeC="3" '
        f'SizeZ="1" SizeT="1">{parts}</Pixels></Image></OME>'
    )
    home = tmp_path / "home"
    home.mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", np.full((8, 9), 201, np.uint8), metadata=None)
    tifffile.imwrite(home / "a.tif", np.ones((8, 9), np.uint8), description=document, metadata=None)
    images = picture(file_name="a.tif", height=8, width=9)
    (image,) = read_coco(project(folder=home, images=images, annotations=[])).images
    assert 201 not in image.pixels


def test_no_library_is_looked_for_in_the_working_folder(project, tmp_path):
    """As imageio does, for a file that no plugin of its knows."""
    code = (
        "import sys\n"
        "from cellseg.annotations.coco import read_coco\n"
        "sys.addaudithook(lambda event, _: sys.exit(event) if event == 'ctypes.dlopen' else None)\n"
        f"read_coco({str(project())!r})"
    )
    for name, content in (("a.png", b"nothing"), ("a.xyz", b"nothing"), ("a.jxr", b"II\xbc\x01")):
        (tmp_path / name).write_bytes(content)
        project(images=picture(file_name=name))
        done = limited("-c", code)
        assert f"{name}: cannot be read as an image" in done.said, done


@pytest.mark.parametrize("error", [ZeroDivisionError("modulo by zero"), MemoryError()])
def test_whatever_a_decoder_raises_is_a_fault(project, monkeypatch, error):
    def fails(*_, **__):
        raise error

    path = project()
    monkeypatch.setattr("cellseg.annotations.coco.imread", fails)
    assert "a.png: cannot be read as an image: " in fault(path)


def test_crowds_are_regions_to_ignore_and_such_images_not_judged_by(project):
    whole = read_coco(project())
    part = read_coco(project(annotations=[annotation(), CROWD]))
    assert part.objects == 1
    ((box, mask),) = part.images[0].ignored
    assert (box, mask.all()) == (Box(0, 0, 32, 40), True)
    both = judgeable(join([whole, part]))
    assert [image.known_in_part for image in both.images] == [False]
    assert "1 images are annotated in part" in both.notes[-1]
    with pytest.raises(InputError, match="no image is annotated whole"):
        judgeable(part)
    train, held = split([*part.images, *whole.images, *part.images])
    assert [image.known_in_part for image in held] == [False]
    assert len(train) == 2
    only = read_coco(project(annotations=[CROWD]))
    assert only.objects == 0
    assert "nothing is annotated but regions to ignore" in only.notes[0]


def test_boxes_without_an_outline_are_kept_as_boxes(project):
    rows = [
        annotation(),
        annotation(2, segmentation=[], bbox=[20, 4.4, 6, 5]),
        annotation(3, iscrowd=1, box_only=True, bbox=[30, 20, 20, 20]),
    ]
    data = read_coco(project(annotations=rows))
    (image,) = data.images
    assert image.outlined.tolist() == [True, False, False]
    assert image.boxes.tolist()[1:] == [[4, 20, 9, 26], [20, 30, 32, 40]]
    assert all(mask.all() for mask in image.masks[1:])
    assert not image.ignored
    assert data.notes == ("2 objects have a box and no outline: they teach no outlines",)
    crop = cut(image, origin=(0, 0), sides=(32, 32), size=32)
    assert crop.outlined.tolist() == [True, False, False]
    assert crop.unknown.sum() == 5 * 6 + 12 * 2


@pytest.mark.parametrize(
    "bbox",
    [None, [1, 2, 3], [1, 2, "3", 4], [1, 2, float("nan"), 4], [50, 50, 4, 4], [5, 5, -4, 4]],
)
def test_boxes_that_make_no_sense(project, bbox):
    text = fault(project(annotations=[annotation(segmentation=[], bbox=bbox)]))
    assert "box without pixels" in text or "neither an outline nor a box" in text


def test_roboflow(project):
    """A supercategory with id 0 and no objects; the JSON lies among the images."""
    categories = [
        {"id": 0, "name": "cells"},
        {"id": 1, "name": "nucleus", "supercategory": "cells"},
    ]
    name = "_annotations.coco.json"
    data = read_coco(project(name=name, categories=categories))
    assert data.classes == ("nucleus",)
    assert data.images[0].classes.tolist() == [0]
    rows = [annotation(1, category_id=0), annotation(2)]
    data = read_coco(project(name=name, categories=categories, annotations=rows))
    assert data.classes == ("cells", "nucleus"), "with objects it is a class"
    assert data.images[0].classes.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("home", "images", "written"),
    [("annotations", "images", "a.png"), (".", "JPEGImages", "JPEGImages\\a.png")],
    ids=["CVAT", "LabelMe"],
)
def test_folders_of_programs(project, tmp_path, home, images, written):
    for name in (home, images):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "a.png").rename(tmp_path / images / "a.png")
    path = project(
        name="instances_default.json",
        folder=tmp_path / home,
        images=picture(file_name=written),
        annotations=[annotation(attributes={"occluded": False})],
        licenses=[{"name": "", "id": 0, "url": ""}],
    )
    assert read_coco(path).objects == 1


@pytest.mark.parametrize(
    ("shape", "dtype", "channels"),
    [
        ((32, 40, 3), "u1", 3), ((32, 40, 4), "u1", 3), ((32, 40), "u2", 1), ((32, 40), "f4", 1),
        ((3, 32, 40), "u2", 3), ((7, 32, 40), "u1", None),
    ],
)  # fmt: skip
def test_any_pixels_but_stacks(project, tmp_path, shape, dtype, channels):
    imwrite(tmp_path / "a.tif", np.zeros(shape, dtype))
    path = project(images=picture(file_name="a.tif"))
    if channels is None:
        assert f"a.tif: cannot be read as an image: claims an array of {shape}" in fault(path)
        return
    (image,) = read_coco(path).images
    assert image.pixels.shape == (32, 40, channels)
    assert image.pixels.dtype == dtype


def test_light_is_said_or_seen():
    rng = np.random.default_rng(0)
    dark = rng.poisson(4, (64, 64, 1)).astype(np.uint8)
    dark[20:40, 20:40] += 150
    bright = np.full((64, 64, 3), 230, np.uint8)
    bright[20:40, 20:40] = (120, 60, 150)
    assert light_of("unknown", dark) == "fluorescence"
    assert light_of("unknown", bright) == "transmitted"
    assert light_of("Fluorescence", bright) == "fluorescence"
    assert light_of("phase contrast", dark) == "transmitted"


def test_classes_are_matched_by_name(project):
    one = read_coco(project())
    categories = [{"id": 5, "name": "cyst"}, {"id": 7, "name": "nucleus"}]
    rows = [annotation(1, category_id=7), annotation(2, category_id=5)]
    two = read_coco(project(categories=categories, annotations=rows))
    both = join([one, two])
    assert both.classes == ("nucleus", "cyst")
    assert [image.classes.tolist() for image in both.images] == [[0], [0, 1]]
    assert with_classes(two, ("cyst", "nucleus"))[0].classes.tolist() == [1, 0]


def test_shared_data_has_no_faults(shared):
    data = read_coco(shared / "data" / "nucls" / "val.json")
    assert (len(data.images), data.objects) == (5, 182)
    assert {image.mpp for image in data.images} == {0.25}
