"""Drawn slides whose truth is known: for the examples, the tests and the benchmarks.

Everything is drawn from a :class:`numpy.random.Generator` that the caller gives; nothing
here needs torch.
"""

from synthetic.discs import Drawn, draw_discs, write_disc_slide
from synthetic.examples import write_fluorescence_example, write_ihc_example
from synthetic.fluorescence import FluorescenceScene, draw_fluorescence
from synthetic.immuno import DAB_THRESHOLDS, Immuno, ImmunoScene, draw_immuno
from synthetic.nuclei import Scene, place_nuclei, touching
from synthetic.stained import draw_stained
from synthetic.tiff import PyramidLayout, write_pyramid

__all__ = [
    "DAB_THRESHOLDS", "Drawn", "FluorescenceScene", "Immuno", "ImmunoScene", "PyramidLayout",
    "Scene", "draw_discs", "draw_fluorescence", "draw_immuno", "draw_stained", "place_nuclei",
    "touching", "write_disc_slide", "write_fluorescence_example", "write_ihc_example",
    "write_pyramid",
]  # fmt: skip
