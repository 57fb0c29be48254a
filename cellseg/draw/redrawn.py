"""``overview.png`` of a finished result, drawn anew: its cells may have other classes by now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellseg.annotations.region import Region
from cellseg.draw.overview import Overview, write_overview
from cellseg.result.result import Result
from cellseg.slide import Slide
from cellseg.table.regions import counted


def recorded_overview(result: Result, slide: Slide, title: str) -> Overview:
    """What the picture is drawn on, as the run saw it.

    Raises
    ------
    InputError
        If ``run.json`` does not say what was counted.
    RegionError
        If nothing of the slide can be read.
    """
    ground = result.ground(slide)
    image, downsample = ground.overview()
    tissue = result.tissue()
    return Overview(
        image=image,
        downsample=downsample,
        mpp=result.frame.mpp,
        tissue=None if tissue is None else _mask(tissue, image.shape[:2], downsample),
        tissue_downsample=downsample,
        title=title,
    )


def redraw_overview(result: Result, slide: Slide, path: Path) -> None:
    """Draw the slide, and the density of all cells and of each class, as PNG.

    Raises
    ------
    InputError
        If ``run.json`` or the table does not say what is needed.
    RegionError
        If nothing of the slide can be read.
    """
    title = f"{result.ground(slide).title}: {counted(result.summary.cells, result.object_name)}"
    overview = recorded_overview(result, slide, title)
    table = result.table.load(["class", "centroid_y_px", "centroid_x_px"])
    shape = overview.image.shape[:2]
    at = (table[["centroid_y_px", "centroid_x_px"]].to_numpy() + 0.5) / overview.downsample
    y, x = np.clip(at.astype(np.int64), 0, np.array(shape) - 1).T
    counts = np.zeros(shape)
    np.add.at(counts, (y, x), 1.0)
    by_class: dict[str, NDArray[np.float64]] = {}
    for name in result.class_names:
        of_class = (table["class"] == name).to_numpy()
        by_class[name] = np.zeros(shape)
        np.add.at(by_class[name], (y[of_class], x[of_class]), 1.0)
    write_overview(path, overview, counts, result.regions(), by_class)


def _mask(tissue: Region, shape: tuple[int, ...], downsample: float) -> NDArray[np.bool_]:
    picture = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(picture)
    for polygon in tissue.shape.geoms:
        for ring, inside in ((polygon.exterior, 1), *((hole, 0) for hole in polygon.interiors)):
            corners = np.asarray(ring.coords)[:, :2] / downsample - 0.5
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=inside)
    return np.asarray(picture, np.bool_)
