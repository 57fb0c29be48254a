"""Count one slide from Python, in one call."""

from __future__ import annotations

import warnings
from pathlib import Path

from cellseg.annotations.region import Region, Regions
from cellseg.annotations.region_file import read_regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.errors import CellsegError, CountWarning
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.events import CountResult
from cellseg.pipeline.page import in_python
from cellseg.pipeline.progress import ProgressLine
from cellseg.protocol import CountProtocol
from cellseg.run import run
from cellseg.storage import Location, as_location


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
    spatial: bool = False,
    model: str | Path = "default",
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
    spatial : bool
        Measure where the cells lie: neighbours, density, distance to the border.
    model : str or path
        ``"default"`` or a file of ``cellseg train``.
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
        expand=expand,
        spatial=spatial,
        model=model,
        device=device,
        overwrite=overwrite,
    )
    try:
        cells = _drained(request, progress=progress)
    except CellsegError as error:
        error.args = (in_python(str(error)),)
        raise
    for line in cells.warnings:
        warnings.warn(in_python(line), CountWarning, stacklevel=2)
    return cells


def _drained(request: CountRequest, *, progress: bool) -> Cells:
    with ProgressLine(is_wanted=progress) as line:
        for event in run(request):
            line.show(event)
            if isinstance(event, CountResult):
                return event.cells
    raise CellsegError(f"{request.image}: the run ended without a result")


def _regions(
    given: Regions | Region | str | Path | tuple[float, float, float, float] | None,
) -> Regions | None:
    if given is None or isinstance(given, Regions):
        return given
    if isinstance(given, str | Path):
        return read_regions(given)
    return Regions.of([given if isinstance(given, Region) else Region.box(*given)])
