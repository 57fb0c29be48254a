"""A network is trained, validated and used on the same pixels and cells in the same way."""

import numpy as np
import pytest
from imageio.v3 import imwrite
from skimage.data import immunohistochemistry
from squares import squares
from synthetic.threshold import ThresholdDetector
from train.annotated import annotated

from cellseg.annotations.compare import FEWEST_IMAGES
from cellseg.counting.plan import choose_assay
from cellseg.counting.request import CountRequest
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detector import Detections
from cellseg.network.weights import read_model, save_model
from cellseg.protocol import load_protocol
from cellseg.run import run
from cellseg.slide import open_slide
from cellseg.train.crops import cut_pixels
from cellseg.train.teach import counted_in
from cellseg.train.validate import scores_of


class Onlooker(ThresholdDetector):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def detect(self, tile, *, fill, near=None):
        self.seen.append(tile)
        return Detections(Instances.empty())


@pytest.mark.parametrize("named", [None, "ihc"])
def test_a_taught_model_sees_as_much_of_the_brown_as_it_was_taught(named, tmp_path):
    imwrite(tmp_path / "field.png", immunohistochemistry())
    arrays, card = read_model("default")
    carried = load_protocol("ihc").changed(dab_share=0.8)
    card = card.model_copy(update={"base": "0" * 64, "protocol": carried})
    save_model(tmp_path / "taught.safetensors", arrays, card, quantise=True)
    model = tmp_path / "taught.safetensors"
    with open_slide(tmp_path / "field.png") as slide:
        request = CountRequest(image=slide.path, protocol=named, model=model)
        assert choose_assay(slide, request).protocol.dab_share == 0.8


@pytest.mark.parametrize("protocol", ["he", "ihc", "brightfield"])
def test_training_sees_what_counting_sees(protocol, tmp_path):
    """Brown over blue: faded for one of the two, a model of one's own would count amiss."""
    pixels = immunohistochemistry()[:256, :256]
    imwrite(tmp_path / "field.png", pixels)
    save_model(tmp_path / "own.safetensors", *read_model("default"), quantise=True)
    onlooker = Onlooker()
    request = CountRequest(
        image=tmp_path / "field.png", protocol=protocol, diameter_px=20.0, prefilter=False,
        model=tmp_path / "own.safetensors",
    )  # fmt: skip
    list(run(request, detector=onlooker))
    (tile,) = onlooker.seen
    trained = cut_pixels(annotated(pixels), Box(0, 0, 256, 256), (256, 256))
    trained = trained.permute(1, 2, 0).numpy()
    seen = tile[:256, :256]
    assert seen.shape == trained.shape
    # The white level of a count is that of a sample of the field.
    assert np.abs(seen / seen.max() - trained / trained.max()).max() < 0.02


SIDE = 20
CORNERS = [(10, 10), (10, 60), (60, 10)]


def cells_at(corners, score):
    boxes = [(y, x, y + SIDE, x + SIDE) for y, x in corners]
    return squares(*boxes, scores=[score] * len(boxes))


class Doubling:
    """Finds each square, and with a lower score one that lies by six tenths on it."""

    def detect(self, tile, **_):
        beside = [(y, x + 8) for y, x in CORNERS]
        both = cells_at(CORNERS, 0.9), cells_at(beside, 0.6)
        return Detections(Instances.concatenate(both))


def test_the_score_is_not_raised_by_what_a_count_drops():
    image = annotated(np.full((96, 96, 3), 255, np.uint8), cells_at(CORNERS, 1.0))
    seen = scores_of(Doubling(), [image] * FEWEST_IMAGES, ("nucleus",))
    assert seen.f1 == 1.0
    assert seen.score < 0.55


def test_of_cells_that_a_window_cuts_those_at_two_of_its_edges_count():
    window = Box(30, 30, 130, 130)
    whole, above, left, below, right = (60, 60), (20, 60), (60, 20), (120, 60), (60, 120)
    cells = cells_at([whole, above, left, below, right, (0, 0)], 0.9)
    found = counted_in(cells, window)
    assert [found.box(index).corners for index in range(len(found))] == [
        (60, 60, 80, 80), (30, 60, 40, 80), (60, 30, 80, 40),
    ]  # fmt: skip
    assert [mask.shape for mask in found.masks] == [(20, 20), (10, 20), (20, 10)]
