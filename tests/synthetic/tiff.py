"""Writing tiled pyramids, whole and the same for the same picture."""

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from cellseg.errors import writing


@dataclass(frozen=True)
class PyramidLayout:
    """How a picture lies in its file; each level is half of the one before.

    The name of a channel makes it an OME-TIFF of that one channel.
    """

    mpp: float | None = 0.25
    tile_px: int = 256
    levels: int = 3
    compression: str = "zlib"
    channel: str | None = None
    description: str = ""

    def tags(self):
        """What every level of the file has, as tifffile's write() takes it."""
        lossless = {"predictor": True, "compressionargs": {"level": 4}}
        return {
            "tile": (self.tile_px, self.tile_px),
            "software": "cellseg",
            "compression": self.compression,
            **(lossless if self.compression == "zlib" else {}),
        }

    def resolution(self, downsample):
        """Resolution tags of one level."""
        if self.mpp is None:
            return {}
        per_cm = 1e4 / (self.mpp * downsample)
        return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}


def write_pyramid(path, image, *, layout):
    """Write a picture of integers with its pyramid; its folder is made where there is none."""
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    common = {**layout.tags(), "photometric": photometric}
    with new_tiff(path, ome=layout.channel is not None) as tif:
        tif.write(
            image,
            subifds=layout.levels - 1,
            metadata=_ome(path, layout, image.ndim),
            description=layout.description or None,
            **common,
            **layout.resolution(1),
        )
        for level in range(1, layout.levels):
            image = _halved(image)
            tif.write(image, subfiletype=1, metadata=None, **common, **layout.resolution(2**level))


@contextmanager
def new_tiff(path, *, ome=False, big=False):
    """A TIFF under a temporary name that becomes ``path`` when all went well."""
    with writing(path) as temporary, tifffile.TiffWriter(temporary, ome=ome, bigtiff=big) as tif:
        yield tif


def _ome(path, layout, ndim):
    """OME metadata; the file's identifier follows its name, so that files repeat exactly."""
    if layout.channel is None:
        return None
    metadata: dict[str, Any] = {
        "axes": "YX" if ndim == 2 else "YXS",
        "Name": path.name.split(".")[0],
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"cellseg/{path.name}")),
        "Channel": {"Name": [layout.channel]},
    }
    if layout.mpp is not None:
        for axis in "XY":
            metadata[f"PhysicalSize{axis}"] = layout.mpp
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    return metadata


def _halved(image):
    """Mean over 2 × 2 pixels, rounded; an odd last row or column is repeated."""
    pad = [(0, side % 2) for side in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    even = np.pad(image, pad, mode="edge").astype(np.float32)
    quarter = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return np.rint(quarter / 4).astype(image.dtype)
