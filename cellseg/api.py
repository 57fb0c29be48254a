"""What Python users call: count a slide, and what came of it; a page of it in a notebook."""

from __future__ import annotations

import sys
import warnings
from base64 import b64encode
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.annotations.geojson import read_regions
from cellseg.annotations.region import Region, Regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.derive import Recipe
from cellseg.draw.page import environment
from cellseg.errors import CellsegError, CountWarning, InputError
from cellseg.events import CountResult, ProgressBar
from cellseg.export import anndata_of, outlines_of
from cellseg.protocol import CountProtocol
from cellseg.result import load_result as load_folder
from cellseg.result.files import own_file
from cellseg.result.publish import OUTLINES
from cellseg.result.upload import RemoteResult
from cellseg.storage import Location, RemotePath, as_location
from cellseg.table.summary import Summary

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

PICTURE_PX = 1000
"""Longest side of the picture in a notebook; the whole of it lies in the result folder."""


def count(
    image: str | Location,
    *,
    protocol: str | CountProtocol | None = None,
    channel: str | int | None = None,
    z: Plane = None,
    mpp: float | None = None,
    diameter: float | None = None,
    region: Regions | Region | str | Path | tuple[float, float, float, float] | None = None,
    score: float | None = None,
    min_area: float | None = None,
    max_area: float | None = None,
    expand: float | None = None,
    cells_from: str | int | None = None,
    spatial: bool = False,
    model: str | Path = "default",
    types: str | None = None,
    device: str = "auto",
    output: str | Location | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Cells:
    """Count the cells of one slide and wait for the end.

    Parameters
    ----------
    image : path or URL
        A slide or a field, in any format that :func:`cellseg.open_slide` reads.
    protocol : str or CountProtocol, optional
        Chosen from the image otherwise.
    channel : str or int, optional
        Name or number (from 0) of the channel that shows what is counted.
    z : int, 'max' or 'mean', optional
        Plane of a stack (from 0) or projection; the middle plane otherwise.
    mpp : float, optional
        µm per pixel, where the file does not say or is wrong.
    diameter : float, optional
        A usual nucleus's diameter, pixels of the image: sets the scale in place of the pixel size.
    region : Regions, Region, path or (y0, x0, y1, x1), optional
        Count only inside, and each region for itself (``summary.regions``): polygons, a GeoJSON
        file of QuPath, or a box; level-0 pixels.
    score : float, optional
        Count cells from this score on; the protocol's otherwise.
    min_area, max_area : float, optional
        Leave out smaller and larger cells: µm², or px² of an image without pixel size.
    expand : float, optional
        Grow nuclei into cells by this, µm (px of an image without a pixel size), and measure these.
    cells_from : str or int, optional
        Grow them over this channel (its name or number) to the cell's edge, by ``expand`` at most.
    spatial : bool
        Measure where the cells lie: neighbours, density, distance to the border.
    model : str or path
        ``"default"`` (the protocol's), ``"cells"``, ``"ihc"`` or a file of ``cellseg train``.
    types : {'breast', 'other', 'none'}, optional
        H&E: sort nuclei by cell type, in the tissue that they were learned from or in another;
        the protocol's choice otherwise.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    output : path or URL, optional
        Folder that gets the result folder; beside the image otherwise.
    overwrite : bool
        Replace a result of other settings, or one that was changed since; otherwise refused.
    progress : bool
        Show how far it is, in a notebook or on a terminal.

    Returns
    -------
    Cells
        The summary, and the table when it is asked for.

    Warns
    -----
    CountWarning
        For each line of ``Cells.warnings``: how the scale was chosen, tiles that do not decode, ….

    Raises
    ------
    CellsegError
        InputError, SettingsError or OutputError, each also the builtin that it resembles.

    For more settings build a :class:`cellseg.counting.request.CountRequest` and drain
    :func:`cellseg.run.run`.
    """
    if isinstance(image, np.ndarray):
        raise InputError(
            "a path or a URL is counted, not an array: write it first, for instance by "
            "tifffile.imwrite('image.tif', array)"
        )
    request = CountRequest(
        image=as_location(image),
        output=None if output is None else as_location(output),
        protocol=protocol,
        channel=None if channel is None else str(channel),
        z=z,
        mpp=mpp,
        diameter_px=diameter,
        regions=_regions(region),
        score=score,
        min_area=min_area,
        max_area=max_area,
        recipe=Recipe(
            expand=expand,
            cells_from=None if cells_from is None else str(cells_from),
            spatial=spatial,
        ),
        model=model,
        cell_types=types,
        device=device,
        overwrite=overwrite,
    )
    from cellseg.run import run

    try:
        with ProgressBar(sys.stderr, is_wanted=progress) as shown:
            for event in run(request):
                shown.show(event)
    except CellsegError as error:
        if error.hint:
            error.add_note(f"arguments: {', '.join(f'{name}=' for name in error.hint.split(','))}")
        raise
    assert isinstance(event, CountResult)  # the last one
    for line in event.warnings:
        warnings.warn(line, CountWarning, stacklevel=2)
    return Cells(event.summary, event.folder, event.uploaded, warnings=event.warnings)


def _regions(
    given: Regions | Region | str | Path | tuple[float, float, float, float] | None,
) -> Regions | None:
    if given is None or isinstance(given, Regions):
        return given
    if isinstance(given, str | Path):
        return read_regions(given)
    return Regions.of([given if isinstance(given, Region) else Region.box(*given)])


@dataclass(frozen=True, eq=False, repr=False)
class Cells:
    """What a count found.

    Attributes
    ----------
    summary : Summary
    folder : Path
        The result folder, with ``cells.csv``, ``labels.ome.zarr``, ``run.json``.
    uploaded : RemotePath or None
        Where the result is, if its place is a URL; the table is fetched when it is asked for.
    warnings : tuple of str
        What a person should know, one line each.
    """

    summary: Summary
    folder: Path
    uploaded: RemotePath | None = None
    _: KW_ONLY
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.summary.cells

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a cell; the columns are those of ``cells.csv``."""
        if self.uploaded is not None:
            return RemoteResult.at(self.uploaded).table()
        return load_folder(self.folder).table.load()

    @cached_property
    def outlines(self) -> NDArray[np.object_]:
        """One shapely Polygon or MultiPolygon for each row of :attr:`table`, as exports have them.

        (x, y) in level-0 pixels, 0 at the corner of the first pixel, finer than a pixel; an
        outline's area is that of its mask. ``geopandas.GeoDataFrame(cells.table,
        geometry=cells.outlines)`` brings both together.
        """
        return outlines_of(load_folder(self.folder))

    def to_anndata(self) -> AnnData:
        """The table as scverse has it; the same as the export ``cells.h5ad``.

        Raises
        ------
        SettingsError
            If anndata is not installed.
        """
        return anndata_of(load_folder(self.folder))

    def __repr__(self) -> str:
        return f"<Cells: {self.summary}; in {self.folder}>"

    def _repr_html_(self) -> str:
        summary = self.summary
        density = summary.density_per_mm2_per_class
        rows = [(name, n, density and density[name]) for name, n in summary.cells_per_class.items()]
        if len(rows) != 1:
            rows.append(("all", summary.cells, summary.density_per_mm2))
        page = environment(Path(__file__).parent).get_template("notebook.html")
        return page.render(
            summary=summary,
            said=str(summary),
            rows=rows,
            picture=_picture(self.folder / OUTLINES),
            warnings=self.warnings,
            folder=str(self.folder),
        )


def load_result(folder: str | Path) -> Cells:
    """A finished count again, as :func:`cellseg.count` returned it.

    Parameters
    ----------
    folder : str or Path
        ``NAME.cellseg``, or ``NAME.corrected.cellseg``.

    Raises
    ------
    InputError
        If the folder is no result, or its run is not finished.
    """
    result = load_folder(folder)
    return Cells(result.summary, result.path, warnings=result.warnings)


def _picture(path: Path) -> str:
    """The outlines, small, as an address; empty where there is no picture, or a damaged one."""
    with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with Image.open(own_file(path.parent, path.name)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        packed = BytesIO()
        small.save(packed, format="JPEG", quality=85)
        return f"data:image/jpeg;base64,{b64encode(packed.getvalue()).decode()}"
    return ""
