"""The two example slides: one generated with known cells, one real that scikit-image brings."""

import numpy as np
import skimage.data

from synthetic.fluorescence import draw_fluorescence
from synthetic.tiff import PyramidLayout, write_pyramid

EXAMPLE_SEED = 20240917

IHC_DESCRIPTION = (
    "Colonic glands, FHL2 (DAB) and haematoxylin. Acquired at the Center for Microscopy And "
    "Molecular Imaging (CMMI). No known copyright restrictions. From scikit-image."
)


def write_fluorescence_example(path, scene):
    """Nuclei in fluorescence, channel ``DAPI``, four levels."""
    drawn = draw_fluorescence(scene, np.random.default_rng(EXAMPLE_SEED))
    write_pyramid(path, drawn.image, layout=PyramidLayout(mpp=scene.mpp, levels=4, channel="DAPI"))
    return drawn


def write_ihc_example(path):
    """An immunohistochemistry field, 512 × 512 px, without pixel size."""
    pixels = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    layout = PyramidLayout(mpp=None, levels=1, description=IHC_DESCRIPTION)
    write_pyramid(path, pixels, layout=layout)
