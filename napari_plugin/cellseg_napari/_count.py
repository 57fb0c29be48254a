"""What to count: a filled-in form as the pipeline's request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellseg.annotations.region import Region, Regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.errors import SettingsError
from cellseg_napari._layer_file import PLACED_KEY, WRITTEN, written
from cellseg_napari._outlines import drawn_in
from cellseg_napari._reader import COUNTED_KEY, SLIDE_KEY

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

Where = Literal["the whole slide", "the current view", "drawn shapes"]

REGIONS: tuple[Where, ...] = ("the whole slide", "the current view", "drawn shapes")

AUTOMATIC = "chosen from the image"

AS_SHOWN = "as shown"
"""The plane that the layer shows; of a file, the middle one."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a person filled in; 0 leaves a number to the file, the protocol or the model.

    Attributes
    ----------
    file : Path or None
        Takes the place of ``layer``.
    protocol : str
        A shipped one, a YAML file, or :data:`AUTOMATIC`.
    where : str
        One of :data:`REGIONS`.
    output : Path or None
        None: beside the slide.
    overwrite : bool
        A result of other settings may be replaced.
    model : str
        ``default``, or a model file.
    z : str or int
        A plane (from 0), ``max``, ``mean``, or :data:`AS_SHOWN`.
    min_area, max_area : float
        µm², or px² without pixel size.
    cell_types : bool
        False leaves out the types that the model tells apart.
    """

    file: Path | None = None
    layer: Image | None = None
    protocol: str = AUTOMATIC
    mpp: float = 0.0
    diameter_px: float = 0.0
    where: Where = "the whole slide"
    shapes: Shapes | None = None
    output: Path | None = None
    overwrite: bool = False
    model: str = "default"
    score: float = 0.0
    z: Plane | str = AS_SHOWN
    min_area: float = 0.0
    max_area: float = 0.0
    tissue_only: bool = True
    cell_types: bool = True
    device: str = "auto"


def offered(images: Sequence[Image], current: Image | None) -> tuple[Image, str]:
    """The layer that is filled in: of a slide's channels the one that a count takes by itself.

    Parameters
    ----------
    images : sequence of Image
        At least one.
    current : Image or None
        Whose slide it is; None: the last one's.

    Returns
    -------
    Image
    str
        Why this one; empty where there is no choice.
    """
    one = images[-1] if current is None else current
    path = one.metadata.get(SLIDE_KEY, {}).get("path")
    for layer in images:
        about = layer.metadata.get(SLIDE_KEY, {})
        if COUNTED_KEY in about and about["path"] == path:
            why = str(about[COUNTED_KEY]).partition(";")[0]
            return layer, f"{why}; choose another layer to take another channel"
    return one, ""


def request_of(form: Form) -> CountRequest:
    """What the pipeline is to do.

    Raises
    ------
    CellsegError
        With one line for the person: nothing is chosen, or the region does not fit.
    """
    about: dict[str, Any] = {}
    if form.file is not None:
        image = form.file
    elif form.layer is not None:
        about = form.layer.metadata.get(SLIDE_KEY, {})
        image = Path(about["path"]) if about else written(form.layer, form.output)
        if image.name.endswith(WRITTEN):
            about = {"given": form.layer.metadata.get(PLACED_KEY)}
    else:
        raise SettingsError("choose an image layer or a file to count")
    return CountRequest(
        image=image,
        output=form.output,
        protocol=None if form.protocol == AUTOMATIC else form.protocol,
        mpp=form.mpp or about.get("given"),
        diameter_px=form.diameter_px or None,
        regions=_regions(form),
        overwrite=form.overwrite,
        model=form.model,
        score=form.score or None,
        min_area=form.min_area or None,
        max_area=form.max_area or None,
        prefilter=form.tissue_only,
        cell_types=None if form.cell_types else False,
        device=form.device,
        channel=about.get("channel"),
        z=about.get("z") if form.z == AS_SHOWN else form.z,  # type: ignore[arg-type]
        t=about.get("t"),
        series=about.get("series", 0),
    )


def _regions(form: Form) -> Regions | None:
    if form.where == "the whole slide":
        return None
    own = None if form.layer is None else form.layer.metadata.get(SLIDE_KEY, {}).get("path")
    other = form.file is not None and (own is None or Path(own) != form.file)
    if form.layer is None or other:
        raise SettingsError(f"to count in {form.where}, choose the image as a layer")
    if form.where == "the current view":
        return Regions.of([view_of(form.layer)])
    return regions_of(form.shapes, form.layer)


def view_of(layer: Image) -> Region:
    """What of a layer is in sight, level-0 pixels."""
    factor = np.asarray(layer.downsample_factors[layer.data_level])[:2] if layer.multiscale else 1.0
    axes = slice(0, 2) if layer.rgb else slice(-2, None)
    corners = np.asarray(layer.corner_pixels, np.float64)[:, axes]
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[axes]
    (y0, x0), (y1, x1) = np.clip(corners * factor + [[0], [1]], 0, shape).tolist()
    if y1 <= y0 or x1 <= x0:
        raise SettingsError("the image is out of sight: move it into view first")
    return Region.box(y0 - 0.5, x0 - 0.5, y1 - 0.5, x1 - 0.5, name="view")


def regions_of(shapes: Shapes | None, layer: Image) -> Regions:
    """Polygons, rectangles and ellipses of a shapes layer, a region each, named as they are."""
    drawn = [] if shapes is None else drawn_in(shapes)
    if not drawn:
        raise SettingsError("draw a rectangle, an ellipse or a polygon in a shapes layer first")
    pixel = np.asarray(layer.scale, np.float64)[-2:]
    origin = np.asarray(layer.translate, np.float64)[-2:]
    return Regions.of(
        Region.of([(one.outline - origin) / pixel], name=one.name, kind=one.kind) for one in drawn
    )
