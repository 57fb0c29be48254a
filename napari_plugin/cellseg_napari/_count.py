"""What to count: the form's fields, the request that they make, and its run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from cellseg.annotations.region import Region, Regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.errors import SettingsError
from cellseg.protocol import NO_TYPES, OTHER_TISSUE, shipped_protocols
from cellseg.slide.formats import ENDINGS
from cellseg_napari._layer_file import PLACED_KEY, WRITTEN, written
from cellseg_napari._reader import SLIDE_KEY
from cellseg_napari._shapes import drawn_in
from cellseg_napari._words import FIELDS

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from cellseg.events import Event
    from cellseg.network.detector import Detector

WHOLE, VIEW, DRAWN = "the whole slide", "the current view", "drawn shapes"

AUTOMATIC = "chosen from the image"

PROTOCOLS_TYPES = "the protocol's"
"""Cell types as the protocol says."""

AS_SHOWN = "as shown"
"""The plane that the layer shows; of a file, the middle one."""

SUFFIXES = f"Slides ({' '.join(f'*{ending}' for ending in ENDINGS)})"


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a person filled in: 0 leaves a number to the file, the protocol or the model.

    Attributes
    ----------
    file : Path or None
        Takes the place of ``layer``.
    min_area, max_area : float
        µm², or px² without pixel size.
    cell_types : str
        The tissue whose cell types are told apart.
    """

    layer: Image | None = None
    file: Path | None = None
    protocol: str = AUTOMATIC
    mpp: float = 0.0
    diameter_px: float = 0.0
    z: Plane | str = AS_SHOWN
    where: str = WHOLE
    shapes: Shapes | None = None
    output: Path | None = None
    overwrite: bool = False
    model: Path | None = None
    score: float = 0.0
    min_area: float = 0.0
    max_area: float = 0.0
    tissue_only: bool = True
    cell_types: str = PROTOCOLS_TYPES
    device: str = "auto"


# fmt: off
WIDGETS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "layer": ("ComboBox", FIELDS["channel"], "A layer to count; of several channels, the one that "
              "shows nuclei", {"nullable": True}),
    "file": ("FileEdit", "or a file", "A slide that is not open yet; takes the place of the layer",
             {"mode": "r", "filter": SUFFIXES}),
    "protocol": ("ComboBox", FIELDS["protocol"], "The assay: scale, score and size limits that "
                 "belong to it", {"choices": [AUTOMATIC, *shipped_protocols()]}),
    "mpp": ("FloatSpinBox", FIELDS["mpp"], "Pixel size at full resolution",
            {"nothing": "as the file says", "max": 100, "step": 0.05}),
    "diameter_px": ("FloatSpinBox", FIELDS["diameter"], "Where the pixel size is unknown: how many "
                    "pixels a usual nucleus measures across",
                    {"nothing": "unknown", "max": 10_000, "step": 1}),
    "z": ("ComboBox", FIELDS["z"], "Of a stack: one plane (from 0), or all of them as their "
          "maximum or mean", {"choices": [AS_SHOWN]}),
    "where": ("ComboBox", FIELDS["region"], "Everything, what is in sight, or what you drew in a "
              "shapes layer", {"choices": [WHOLE, VIEW, DRAWN]}),
    "shapes": ("ComboBox", "shapes", "The layer with the rectangles, ellipses or polygons",
               {"nullable": True}),
    "output": ("FileEdit", FIELDS["output"], "Folder for the result; beside the slide if left "
               "empty", {"mode": "d"}),
    "overwrite": ("CheckBox", FIELDS["overwrite"], "Replace a result of other settings, and "
                  "corrections of it; otherwise it is kept, and the count refused", {}),
    "more": ("CheckBox", "more settings", "Model, score, size limits, device", {}),
    "model": ("FileEdit", FIELDS["model"], "A model file that you trained; the shipped model if "
              "left empty", {"mode": "r", "filter": "Models (*.safetensors)"}),
    "score": ("FloatSpinBox", FIELDS["score"], "Confidence that a cell needs, 0 … 1: lower finds "
              "more cells, and more that are none",
              {"nothing": "the protocol's", "max": 1, "step": 0.05}),
    "min_area": ("FloatSpinBox", FIELDS["min_area"], "In µm², or in px² without pixel size: "
                 "smaller ones are left out", {"nothing": "the protocol's", "max": 1e6, "step": 5}),
    "max_area": ("FloatSpinBox", FIELDS["max_area"], "In µm², or in px² without pixel size: "
                 "larger ones are left out", {"nothing": "the protocol's", "max": 1e6, "step": 5}),
    "tissue_only": ("CheckBox", FIELDS["no_prefilter"], "Skip what a first look takes for "
                    "background", {}),
    "cell_types": ("ComboBox", FIELDS["types"], "H&E: sort nuclei by type, in the tissue that "
                   "the types were learned from or in another",
                   {"choices": [PROTOCOLS_TYPES, "breast", OTHER_TISSUE, NO_TYPES]}),
    "device": ("ComboBox", FIELDS["device"], "Where the network runs",
               {"choices": ["auto", "cpu", "cuda", "mps"]}),
}
"""Of each field, in the panel's order: its magicgui widget, label, tooltip and options.

Those after ``more`` are shown with it; ``nothing`` is what a number says at 0.
"""
# fmt: on


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
        model=str(form.model or "default"),
        score=form.score or None,
        min_area=form.min_area or None,
        max_area=form.max_area or None,
        prefilter=form.tissue_only,
        cell_types=None if form.cell_types == PROTOCOLS_TYPES else form.cell_types,
        device=form.device,
        channel=about.get("channel"),
        z=about.get("z") if form.z == AS_SHOWN else form.z,  # type: ignore[arg-type]
        t=about.get("t"),
        series=about.get("series", 0),
    )


def _regions(form: Form) -> Regions | None:
    if form.where == WHOLE:
        return None
    own = None if form.layer is None else form.layer.metadata.get(SLIDE_KEY, {}).get("path")
    other = form.file is not None and (own is None or Path(own) != form.file)
    if form.layer is None or other:
        raise SettingsError(f"to count in {form.where}, choose the image as a layer")
    if form.where == VIEW:
        return Regions.of([_view_of(form.layer)])
    drawn = [] if form.shapes is None else drawn_in(form.shapes)
    if not drawn:
        raise SettingsError("draw a rectangle, an ellipse or a polygon in a shapes layer first")
    pixel = np.asarray(form.layer.scale, np.float64)[-2:]
    origin = np.asarray(form.layer.translate, np.float64)[-2:]
    return Regions.of(
        Region.of([(one.outline - origin) / pixel], name=one.name, kind=one.kind) for one in drawn
    )


def _view_of(layer: Image) -> Region:
    """What of a layer is in sight, level-0 pixels."""
    factor = np.asarray(layer.downsample_factors[layer.data_level])[:2] if layer.multiscale else 1.0
    axes = slice(0, 2) if layer.rgb else slice(-2, None)
    corners = np.asarray(layer.corner_pixels, np.float64)[:, axes]
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[axes]
    (y0, x0), (y1, x1) = np.clip(corners * factor + [[0], [1]], 0, shape).tolist()
    if y1 <= y0 or x1 <= x0:
        raise SettingsError("the image is out of sight: move it into view first")
    return Region.box(y0 - 0.5, x0 - 0.5, y1 - 0.5, x1 - 0.5, name="view")


_loading = Lock()


def load_network() -> None:
    """Load torch, which takes seconds.

    torchvision pulls in triton, and triton brings an LLVM of its own. Where OpenGL is drawn by
    Mesa, its LLVM is in the process by then, and loading the second one crashes it. cellseg
    compiles nothing, so triton is kept out while torch is imported; who wants it later gets it.
    """
    with _loading:
        if "torchvision" in sys.modules:
            return
        kept_out = "triton" not in sys.modules
        if kept_out:
            sys.modules["triton"] = None  # type: ignore[assignment]
        try:
            import_module("torchvision")
        finally:
            if kept_out:
                sys.modules.pop("triton", None)


def count(request: CountRequest, detector: Detector | None = None) -> Iterator[Event]:
    """The events of a run; the network's libraries are loaded when the first is asked for.

    Parameters
    ----------
    detector : Detector, optional
        Takes the place of the network.
    """
    if detector is None:
        load_network()
    from cellseg.run import run

    yield from run(request, detector=detector)
