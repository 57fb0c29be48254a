"""A network is trained, validated and used on the same pixels, whatever the protocol."""

from __future__ import annotations

import numpy as np
import pytest
from imageio.v3 import imwrite
from skimage.data import immunohistochemistry
from synthetic.threshold import ThresholdDetector

from cellseg.annotations.image import AnnotatedImage
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


class Onlooker(ThresholdDetector):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def detect(self, tiles, *, fill):
        self.seen += tiles
        return [Detections(Instances.empty())] * len(tiles)


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
    image = AnnotatedImage(
        "field", pixels, np.zeros((0, 4), np.int32), [], np.zeros(0, np.int64), "transmitted",
        None, "set",
    )  # fmt: skip
    trained = cut_pixels(image, Box(0, 0, 256, 256), (256, 256)).permute(1, 2, 0).numpy()
    seen = tile[:256, :256]
    assert seen.shape == trained.shape
    # The white level of a count is that of a sample of the field.
    assert np.abs(seen / seen.max() - trained / trained.max()).max() < 0.02
