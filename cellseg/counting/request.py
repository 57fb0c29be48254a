"""What a count is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cellseg.annotations.cores import CoreGrid
from cellseg.annotations.region import Regions
from cellseg.derive.recipe import Recipe
from cellseg.protocol import CountProtocol
from cellseg.storage import Location

Plane = int | Literal["max", "mean"] | None


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """One slide to count, as the user asked for it; other fields are as in :func:`cellseg.count`.

    Attributes
    ----------
    folder_name : str or None
        Name of the result folder; None: the slide's stem and ``.cellseg``.
    tile_px : int or None
        Takes the place of the protocol's.
    diameter_px : float or None
        Usual object's diameter in level-0 pixels, for slides without pixel size.
    t, series : int or None, int
        Time point, and which image of a file with several; from 0.
    cell_types : str or None
        As ``types`` there.
    prefilter : bool
        Skip tiles without tissue (if the protocol says so too).
    tma : bool
        The slide is a tissue microarray: find its cores, and count in each.
    cores : CoreGrid or None
        The cores that were found; nobody asks for them.
    skip_bad : bool
        Leave out tissue that is out of focus, folded, marked by a pen or under air bubbles.
    strict : bool
        A tile that does not decode ends the run.
    export : tuple of str
        File names of exports, for instance ``labels.tif``.
    recipe : Recipe
        What is derived from the cells; its markers are the protocol's.
    precision : {'auto', 'float32', 'bfloat16', 'float16'}
        Of the network; ``auto``: 8 bits if the model was checked in them; else half where hardware
        is made for it.
    inference : {'auto', 'torch', 'openvino'}
        What computes the network; ``auto``: the fastest that is installed and was checked for
        the model, and on a cluster torch.
    engine : {'local', 'dask'}
        Where tiles are read and detected: in this process, or on a Dask cluster. The result is
        the same.
    scheduler : str or None
        Address of the cluster, or its scheduler file; None: one that is started on this machine.
    """

    image: Location
    output: Location | None = None
    folder_name: str | None = None
    protocol: str | CountProtocol | None = None
    score: float | None = None
    tile_px: int | None = None
    model: str | Path = "default"
    mpp: float | None = None
    diameter_px: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    channel: str | None = None
    z: Plane = None
    t: int | None = None
    series: int = 0
    cell_types: str | None = None
    prefilter: bool = True
    regions: Regions | None = None
    tma: bool = False
    cores: CoreGrid | None = None
    skip_bad: bool = False
    strict: bool = False
    overwrite: bool = False
    export: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    inference: Literal["auto", "torch", "openvino"] = "auto"
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None
