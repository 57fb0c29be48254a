"""Regions from GeoJSON files, as QuPath exports them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import shapely

from cellseg.annotations.features import read_features
from cellseg.annotations.region import Region, Regions, enclosed
from cellseg.errors import InputError, SettingsError, line_of


def read_regions(path: str | Path) -> Regions:
    """Regions of a GeoJSON file: (x, y) in level-0 pixels, 0 at the corner of the first pixel.

    Of QuPath's objects the annotations; where there are none, tiles and detections too.

    Raises
    ------
    InputError
        If the file cannot be read, is no GeoJSON, or holds no polygon with an area.
    """
    features = [one for one in read_features(Path(path)) if one.geometry is not None]
    drawn = [one for one in features if not one.is_found]
    left_out: Counter[str] = Counter()
    if drawn and len(drawn) < len(features):
        left_out["detections and tiles beside annotations"] = len(features) - len(drawn)
    regions, crossed = [], 0
    for number, one in enumerate(drawn or features, start=1):
        try:
            with np.errstate(invalid="ignore"):  # NaN is refused below, with a line
                shape = shapely.geometry.shape(one.geometry)
            if shapely.get_dimensions(shape) != 2:
                left_out["points and lines"] += 1
                continue
            regions.append(Region(enclosed(shape), one.name, one.kind))
            crossed += not shape.is_valid
        except SettingsError as error:
            if "area" not in str(error):
                raise InputError(f"{path}: region number {number}: {error}") from error
            left_out["regions without an area"] += 1
        except (
            ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError,
            shapely.errors.ShapelyError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{path}: region number {number} is no polygon: {line_of(error)}"
            ) from error
    said = [f"left out: {what} ({count:,})" for what, count in left_out.items()]
    if not regions:
        why = f" ({'; '.join(said)})" if said else ""
        raise InputError(f"{path}: no GeoJSON with polygons{why}")
    if crossed:
        said.append(f"{crossed:,} outlines cross or overlap: what they enclose is counted once")
    return Regions.of(regions, notes=(f"{Path(path).name}: {line}" for line in said))
