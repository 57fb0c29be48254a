"""The riskiest decisions, as tables: which channel, which protocol, which scale and score."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from synthetic import FluorescenceScene, Scene, draw_discs, draw_fluorescence, draw_stained
from synthetic.discs import discs_at

from cellseg.counting.channel import choose_channels, nuclear_score, sample
from cellseg.counting.plan import choose_assay, make_plan
from cellseg.counting.request import CountRequest
from cellseg.network.detector import DetectorInfo
from cellseg.protocol import load_protocol
from cellseg.slide import open_slide
from cellseg.stain.stain import guess_stain

FLUORESCENCE, BRIGHTFIELD = (load_protocol(n).score for n in ("fluorescence", "brightfield"))
INFO = DetectorInfo("drawn", "0" * 12, ("nucleus",), "nucleus", diameter_px=16.0)

HAEMATOXYLIN, DAB = np.array([0.65, 0.70, 0.29]), np.array([0.27, 0.57, 0.78])


def rng():
    return np.random.default_rng(7)


def nuclei(side=256):
    """Bright nuclei on a dark, noisy ground, uint16."""
    scene = FluorescenceScene(side, side, mpp=0.5, nuclei=side * side // 700, debris=4)
    return draw_fluorescence(scene, rng()).image


def membranes(side=256):
    """The outlines of what :func:`nuclei` would be, brighter than they are."""
    filled = ndimage.binary_dilation(draw_discs((side, side), rng(), rgb=False).labels > 0)
    rim = filled & ~ndimage.binary_erosion(filled, iterations=2)
    light = ndimage.gaussian_filter(rim.astype(float), 0.7)
    return (150 + 9000 * light + rng().normal(0, 20, light.shape)).astype(np.uint16)


def specks(side=256):
    """Points of light, more of them than there are nuclei."""
    light = np.zeros((side, side))
    light[rng().integers(0, side, 300), rng().integers(2, side, 300)] = 1
    return (200 + 20_000 * ndimage.gaussian_filter(light, 0.8)).astype(np.uint16)


def phase(side=256, *, white=255):
    """Grey ground; cells are a bright halo around a dark rim."""
    cells = draw_discs((side, side), rng(), rgb=False).labels > 0
    inside = ndimage.distance_transform_edt(cells) - ndimage.distance_transform_edt(~cells)
    halo = np.exp(-((inside + 2) ** 2) / 3) - 0.8 * np.exp(-((inside - 1) ** 2) / 3)
    grey = 0.4 + 0.3 * halo + rng().normal(0, 0.008, cells.shape)
    return (white * np.clip(grey, 0, 1)).astype(np.uint8 if white == 255 else np.uint16)


def blood(side=384):
    """Pale red discs, paler in the middle, and one dark white cell, on clear glass."""
    y, x = np.mgrid[:side, :side]
    picture = np.full((side, side, 3), (240.0, 236, 232))
    for row in range(32, side, 64):
        for column in range(32, side, 64):
            far = np.hypot(y - row, x - column)
            pale = 0.5 + 0.5 * np.clip(far / 22, 0, 1)[..., None]
            cell = 240 - pale * (240 - np.array((195.0, 130, 140)))
            picture[far < 22] = cell[far < 22]
    picture[np.hypot(y - 160, x - 160) < 30] = (90, 60, 140)
    return ndimage.gaussian_filter(picture, (1, 1, 0)).astype(np.uint8)


def crowded_blood(side=512):
    """Red cells that touch in pairs and rows, of a dark stain."""
    starts = range(40, side - 60, 150)
    columns = [start + more for start in starts for more in (0, 37, 74)]
    centres = [(row, column) for row in range(50, side - 30, 76) for column in columns]
    cells = discs_at((side, side), centres, 19.5)
    picture = np.where(cells[..., None], (190.0, 80, 120), (178.0, 222, 200))
    return ndimage.gaussian_filter(picture, (1, 1, 0)).astype(np.uint8)


def strands(side=512):
    """Pink tissue in bands on clear glass, with round holes."""
    y, x = np.mgrid[:side, :side]
    tissue = np.sin((x + 20 * np.sin(y / 40)) / 30) > -0.3
    holes = np.hypot((y % 90) - 45, (x % 94) - 47) < 12
    picture = np.where((tissue & ~holes)[..., None], (205.0, 120, 150), (240.0, 238, 236))
    return ndimage.gaussian_filter(picture, (1, 1, 0)).astype(np.uint8)


def chamber(ground=0.4, side=220):
    """A grey ground, a line across, and cells with a bright middle in a dark rim."""
    y, x = np.mgrid[:side, :side]
    grey = ground + rng().normal(0, 0.004, (side, side))
    grey[100:104] -= 0.25
    for row, column in ((40, 50), (60, 150), (160, 60), (150, 170)):
        far = np.hypot(y - row, x - column)
        grey += 0.9 * (1 - ground) * np.exp(-((far / 4) ** 2)) - 0.3 * np.exp(
            -(((far - 8) / 3) ** 2)
        )
    return (255 * grey.clip(0, 1)).astype(np.uint8)


def culture(side=512):
    """A grey ground, and long cells with a bright rim that lie any way round."""
    y, x = np.mgrid[:side, :side]
    grey = 0.4 + rng().normal(0, 0.008, (side, side))
    for number, (row, column) in enumerate(rng().uniform(20, side - 20, (30, 2))):
        along = (y - row) * np.cos(number) + (x - column) * np.sin(number)
        across = (x - column) * np.cos(number) - (y - row) * np.sin(number)
        far = np.hypot(along / 24, across / 5)
        grey += 0.3 * np.exp(-(((far - 1.2) / 0.3) ** 2)) - 0.2 * (far < 1)
    return (255 * grey.clip(0, 1)).astype(np.uint8)


def bright(side=256):
    """Dark nuclei on a bright ground, grey."""
    labels = draw_discs((side, side), rng(), rgb=False).labels
    grey = np.where(labels > 0, 90.0, 225.0) + rng().normal(0, 3, labels.shape)
    return grey.astype(np.uint8)


def he(side=384):
    return draw_stained(Scene(side, side, mpp=0.5, nuclei=150), rng()).image


def stained(brown, *, side=512, dye=HAEMATOXYLIN, wanted=DAB):
    """Blue nuclei without eosin, and ``brown`` of the pixels in nuclei of another dye."""
    labels = draw_discs((side, side), rng(), rgb=False).labels
    density = 0.7 * (labels > 0)[..., None] * dye
    shares = np.cumsum(np.bincount(labels.ravel())[1:]) / labels.size
    density[(labels > 0) & (labels <= int((shares < brown).sum()) + (brown > 0))] = 0.9 * wanted
    density = ndimage.gaussian_filter(density, (0.8, 0.8, 0))
    light = 240 * 10**-density + rng().normal(0, 2, density.shape)
    return np.clip(light, 0, 255).astype(np.uint8)


def over(image, colour, share):
    """A blot of one colour over a share of the pixels."""
    blotted = image.copy()
    blotted[: round(image.shape[0] * share)] = colour
    return blotted


def grey_rgb(plane):
    return np.repeat(plane[..., None], 3, axis=-1)


def in_colour(plane, colour):
    scaled = plane.astype(float) / plane.max()
    return (scaled[..., None] * np.array(colour)).astype(np.uint8)


PICTURES = {
    "nuclei, 16 bit": (nuclei, "fluorescence"),
    "nuclei, 8 bit": (lambda: (nuclei() // 8).clip(0, 255).astype(np.uint8), "fluorescence"),
    "nuclei, float": (lambda: nuclei().astype(np.float32) / 65535, "fluorescence"),
    "nuclei, dense": (lambda: 100 + 40 * (bright() < 200).astype(np.uint16), "fluorescence"),
    "nuclei, grey saved as colours": (lambda: grey_rgb(nuclei() // 8), "fluorescence"),
    "nuclei, blue on black": (lambda: in_colour(nuclei(), (20, 60, 255)), "fluorescence"),
    "an empty dark field": (lambda: rng().normal(110, 4, (256, 256)).astype(np.uint16),
                            "fluorescence"),
    "nothing, black": (lambda: np.zeros((64, 64), np.uint8), "fluorescence"),
    "grey, bright ground": (bright, "brightfield"),
    "grey, bright ground, as colours": (lambda: grey_rgb(bright()), "brightfield"),
    "grey under a yellow lamp": (lambda: in_colour(bright(), (255, 235, 190)), "brightfield"),
    "light inverted": (lambda: (65535 - 10 * nuclei().clip(0, 6000)).astype(np.uint16),
                       "brightfield"),
    "nothing, white": (lambda: np.full((64, 64, 3), 245, np.uint8), "brightfield"),
    "green ink": (lambda: over(np.full((256, 256, 3), 240, np.uint8), (90, 190, 100), 0.3),
                  "brightfield"),
    "H&E": (he, "he"),
    "H&E, 16 bit": (lambda: he().astype(np.uint16) * 257, "he"),
    "H&E with blood": (lambda: over(he(), (200, 60, 70), 0.1), "he"),
    "H&E with yellow collagen": (lambda: over(he(), (225, 190, 150), 0.1), "he"),
    "H&E with pigment": (lambda: over(he(), (100, 70, 45), 0.01), "he"),
    "purple on purple": (lambda: over(np.full((256, 256, 3), (182, 163, 213), np.uint8),
                                      (80, 40, 170), 0.1), "he"),
    "IHC, one nucleus in ten brown": (lambda: stained(0.02), "ihc"),
    "IHC, brown in 0.5 % of the pixels": (lambda: stained(0.005), "ihc"),
    "IHC, purple counterstain": (lambda: stained(0.005, dye=np.array([0.6, 0.75, 0.3])), "ihc"),
    "IHC, nothing brown": (lambda: stained(0.0), "ihc"),
    "IHC, all brown": (lambda: over(stained(0.02), (120, 80, 40), 0.7), "ihc"),
    "a blood smear": (blood, "blood_smear"),
    "a blood smear, 16 bit": (lambda: blood().astype(np.uint16) * 257, "blood_smear"),
    "a blood smear, crowded": (crowded_blood, "blood_smear"),
    "bands of tissue on clear glass": (strands, "he"),
    "a counting chamber": (chamber, "counting_chamber"),
    "a counting chamber, bright": (lambda: chamber(0.8), "counting_chamber"),
    "cells in culture": (culture, "phase_contrast"),
    "cells in culture, as colours": (lambda: grey_rgb(culture()), "phase_contrast"),
    "phase contrast": (phase, None),
    "phase contrast, 16 bit": (lambda: phase(white=4095), None),
    "phase contrast, as colours": (lambda: grey_rgb(phase()), None),
    "phase contrast, green light": (lambda: in_colour(phase(), (130, 255, 120)), None),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), PICTURES.values(), ids=PICTURES.keys())
def test_protocol(make, expected):
    picture = make()
    seen = guess_stain([picture if picture.ndim == 3 else picture[..., None]])
    assert seen.protocol == expected, seen.reason


@pytest.mark.parametrize("make", [blood, he])
@pytest.mark.parametrize("mpp", [0.08, 0.17])
def test_a_smear_is_known_with_its_pixel_size(tmp_path, make, mpp):
    """Red cells are looked for at a scale of their own: that of nuclei shows them too small."""
    picture = np.kron(make(), np.ones((round(0.17 / mpp), round(0.17 / mpp), 1), np.uint8))
    tifffile.imwrite(tmp_path / "picture.tif", picture, photometric="rgb")
    with open_slide(tmp_path / "picture.tif", mpp=mpp) as slide:
        assay = choose_assay(slide, CountRequest(image=slide.path))
    assert assay.protocol.name == ("blood_smear" if make is blood else "he")


def written(path, planes, names=None, mpp=0.5):
    """An OME-TIFF of channels."""
    about = {"axes": "CYX", "Channel": {"Name": names} if names else None}
    about |= {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp} if mpp else {}
    planes = np.stack([plane.astype(np.uint16) for plane in planes])
    tifffile.imwrite(path, planes, ome=True, metadata=about, photometric="minisblack")
    return path


CHANNELS = {
    "by name, of two": ([bright, nuclei], ["Brightfield", "DAPI"], None, 1, "its name"),
    "the pixels do not matter then": ([nuclei, membranes], ["CD3", "Hoechst"], None, 1, "its name"),
    "no names, nuclei second": ([membranes, nuclei], None, None, 1, "compact"),
    "no names, nuclei first": ([nuclei, membranes], None, None, 0, "compact"),
    "names that say nothing": ([specks, membranes, nuclei], ["a", "b", "c"], None, 2, "compact"),
    "phase contrast beside": ([phase, nuclei], None, None, 1, "compact"),
    "a bright picture beside": ([bright, nuclei], None, None, 1, "compact"),
    "none of them nuclei": ([membranes, bright], None, None, 0, "neither names nor pixels"),
    "the wanted one, by number": ([nuclei, membranes], None, "1", 1, None),
    "the wanted one, as it is called": ([nuclei, membranes], None, "channel 1", 1, None),
    "the wanted one, by name": ([nuclei, membranes], ["DAPI", "CD3"], "cd3", 1, None),
    "names that are numbers": ([nuclei, membranes], ["1", "2"], "1", 1, None),
}


@pytest.mark.parametrize(
    ("makes", "names", "wanted", "expected", "reason"), CHANNELS.values(), ids=CHANNELS.keys()
)
def test_channel(tmp_path, makes, names, wanted, expected, reason):
    path = written(tmp_path / "a.ome.tif", [make() for make in makes], names)
    with open_slide(path) as slide:
        chosen, said = choose_channels(slide, lambda: sample(slide), wanted)
    assert chosen == (expected,)
    if reason is None:
        assert said == []
        return
    assert reason in said[0]
    assert f"channel {expected}" in said[0]
    assert said[0].hint == "channel"


def test_nuclei_of_a_large_slide_are_looked_at_near(tmp_path):
    """Shrunk to an overview, nuclei and membranes are specks."""
    large = [np.zeros((3072, 2048), np.uint16) + 150 for _ in range(2)]
    for plane, make in zip(large, (membranes, nuclei), strict=True):
        plane[2048:2560, 512:1024] = make(512)
    path = written(tmp_path / "a.ome.tif", large)
    with open_slide(path) as slide:
        assert all(max(patch.shape) <= 256 for patch in sample(slide))
        assert choose_channels(slide, lambda: sample(slide), None)[0] == (1,)


def test_nothing_has_no_nuclei():
    assert nuclear_score([np.zeros((50, 50))]) == 0.0
    assert nuclear_score([np.full((50, 50), np.nan)]) == 0.0


PLANS = {
    # picture or channels, names, mpp; channel wanted; model's mpp, score → the plan
    "the channel comes first": (
        [bright, nuclei], ["Brightfield", "DAPI"], 0.5, "DAPI", None, None,
        ("fluorescence", (1,), 1.0, FLUORESCENCE),
    ),
    "and the other one has its own": (
        [bright, nuclei], ["Brightfield", "DAPI"], 0.5, "0", None, None,
        ("brightfield", (0,), 1.0, BRIGHTFIELD),
    ),
    "finer pixels": (
        [nuclei], None, 0.25, None, None, None, ("fluorescence", (0,), 2.0, FLUORESCENCE),
    ),
    "no pixel size": (
        [nuclei], None, None, None, None, None, ("fluorescence", (0,), 1.0, FLUORESCENCE),
    ),
    "the model's scale and score": (
        [nuclei], None, 0.25, None, 1.0, 0.4, ("fluorescence", (0,), 4.0, 0.4),
    ),
    "H&E at 40×": (he, None, 0.25, None, None, None, ("he", (0, 1, 2), 1.0, None)),
    "H&E at 20×": (he, None, 0.5, None, None, None, ("he_20x", (0, 1, 2), 0.7, None)),
    "H&E without a pixel size": (he, None, None, None, None, None, ("he", (0, 1, 2), 1.0, None)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "names", "mpp", "channel", "model_mpp", "model_score", "expected"),
    PLANS.values(),
    ids=PLANS.keys(),
)
def test_plan(tmp_path, make, names, mpp, channel, model_mpp, model_score, expected):
    path = tmp_path / "a.ome.tif"
    if callable(make):
        tifffile.imwrite(path, make(), photometric="rgb")
    else:
        written(path, [one() for one in make], names, mpp)
    request = CountRequest(image=path, channel=channel)
    info = DetectorInfo(**{**vars(INFO), "mpp": model_mpp, "score": model_score})
    with open_slide(path, mpp=mpp) as slide:
        plan = make_plan(slide, request, info)
    name, channels, downsample, score = expected
    assert (plan.protocol.name, plan.channels) == (name, channels)
    assert plan.downsample == pytest.approx(downsample)
    assert score is None or plan.protocol.score == score
    assert any(name in note for note in plan.notes)


REAL = {
    "ki67_crop.tif": ("ihc", (0, 1, 2)),
    "skimage_ihc.png": ("ihc", (0, 1, 2)),
    "instanseg_HE_example.tif": ("he_20x", (0, 1, 2)),
    "CMU-1-Small-Region.svs": ("he_20x", (0, 1, 2)),
    "instanseg_Fluorescence_example.tif": ("fluorescence", (1,)),
    "neubias/xyc_16bit__hela-cells.tif": ("fluorescence", (2,)),
    "neubias/xyc_8bit__cyto_nuclei.tif": ("fluorescence", (1,)),
}


@pytest.mark.parametrize(("name", "expected"), REAL.items(), ids=REAL.keys())
def test_real_slides(shared, name, expected):
    path = shared / "slides" / name
    with open_slide(path) as slide:
        plan = make_plan(slide, CountRequest(image=path), INFO)
    assert (plan.protocol.name, plan.channels) == expected


@pytest.mark.parametrize(
    ("make", "protocol", "said"),
    [
        (culture, "brightfield", "the image looks like phase_contrast (a mid-grey ground"),
        (phase, "he", "the image looks (a mid-grey ground"),
        (he, "fluorescence", "the image looks like he ("),
        (blood, "he", "the image looks like blood_smear ("),
        (nuclei, "blood_smear", "the image looks like fluorescence ("),
        (blood, "blood_smear", None),
        (he, "he_breast", None),
        (he, "ihc", None),
        (lambda: stained(0.02), "he", "the image looks like ihc ("),
        (nuclei, "fluorescence", None),
        (phase, "phase_contrast", None),
        (chamber, "counting_chamber", None),
    ],
)
def test_a_protocol_that_the_picture_contradicts_is_a_doubt(tmp_path, make, protocol, said):
    picture = make()
    path = tmp_path / "picture.tif"
    colours = "rgb" if picture.ndim == 3 else "minisblack"
    tifffile.imwrite(path, picture, photometric=colours)
    with open_slide(path) as slide:
        doubts = choose_assay(slide, CountRequest(image=path, protocol=protocol)).doubts
    if said is None:
        assert doubts == ()
    else:
        (doubt,) = doubts
        assert doubt.startswith(said)
        assert doubt.endswith(f"and was counted as {protocol}")
        assert doubt.hint == "protocol"
