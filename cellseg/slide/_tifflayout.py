"""Which page of a TIFF series holds which channel, z plane and time point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count


@dataclass(frozen=True, eq=False)
class Layout:
    """The pages of a series.

    Attributes
    ----------
    numbers : ndarray, (T, Z, C)
        Number of the page of each time point, z and channel.
    count : int
        How many pages there should be; more than those where there are further axes.
    depth : int
        z planes inside a page (volumetric TIFF).
    separate : int
        Separate sample planes in a page.
    samples : int
        Samples of a pixel in a page, separate or interleaved.
    is_interleaved : bool
        Pixels that tifffile's writer took for pages: the file's "pages" are its rows.
    """

    numbers: NDArray[np.int64]
    count: int
    depth: int
    separate: int
    samples: int
    is_interleaved: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size_t(self) -> int:
        return int(self.numbers.shape[0])

    @property
    def size_z(self) -> int:
        return int(self.numbers.shape[1]) * self.depth

    @property
    def channels(self) -> int:
        return int(self.numbers.shape[2])


def lay_out(name: str, series: Any, *, z_asked: bool) -> Layout:  # noqa: ANN401
    """Read the layout of a tifffile series.

    Parameters
    ----------
    name : str
        For messages.
    series : tifffile.TiffPageSeries
        Level 0 of it.
    z_asked : bool
        The caller asked for a z plane or a projection: a stack of pages of unknown meaning is
        then taken for z, and for time otherwise.

    Raises
    ------
    InputError
    """
    key = series.keyframe
    separate, depth, height, width, contig = key.shaped
    if 0 in key.shaped or 0 in series.shape:
        raise InputError(f"{name}: the image has no pixels ({height} × {width}); nothing to read")
    inner = len(key.axes)
    axes = series.axes[: len(series.axes) - inner]
    shape = tuple(int(n) for n in series.shape[: len(series.shape) - inner])
    if "X" not in series.axes[-inner:] and width > 1:
        raise InputError(f"{name}: axes {series.axes} are not supported; expected y and x last")
    if _is_interleaved(series, axes, shape):
        return Layout(np.zeros((1, 1, 1), np.int64), 1, 1, 1, width, is_interleaved=True, notes=(
            f"stored as {shape[0]} pages of {height} × {width} px: read as one image with "
            f"{width} channels",
        ))  # fmt: skip
    roles, notes = _roles(axes, shape, z_asked=z_asked, has_z="Z" in axes or depth > 1)
    sizes = [math.prod(n for n, one in zip(shape, roles, strict=True) if one == role)
             for role in "tzc"]  # fmt: skip
    count = math.prod(shape)
    check_count(name, "planes", count * depth, MAX_PLANES)
    check_count(name, "channels", sizes[2] * separate * contig, MAX_CHANNELS)
    # A role can own several axes; the last one varies fastest.
    order = sorted(range(len(roles)), key=lambda axis: "tzc.".index(roles[axis]))
    numbers = np.arange(count).reshape(shape).transpose(order).reshape(*sizes, -1)[..., 0]
    return Layout(numbers, count, depth, separate, separate * contig, notes=notes)


def _is_interleaved(series: Any, axes: str, shape: tuple[int, ...]) -> bool:  # noqa: ANN401
    """A (Y, X, C) array that was written without saying so: thousands of pages 2 to 5 px wide."""
    _, _, height, width, _ = series.keyframe.shaped
    return (
        axes in ("Q", "I")
        and 2 <= width <= 5
        and shape[0] >= 16
        and height >= 16
        and series.dataoffset is not None
        and series.keyframe.samplesperpixel == 1
    )


def _roles(
    axes: str, shape: tuple[int, ...], *, z_asked: bool, has_z: bool
) -> tuple[str, tuple[str, ...]]:
    """``t``, ``z``, ``c`` or ``.`` (only the first is read) for each axis, and notes."""
    roles, notes = "", []
    for axis, length in zip(axes, shape, strict=True):
        role = {"Z": "z", "T": "t", "C": "c", "S": "c"}.get(axis, ".")
        if axis in "IQ" and length > 1:
            role = "z" if z_asked and not has_z else "t"
            notes.append(f"{length} pages of unknown meaning: taken as {role}")
        elif role == "." and length > 1:
            notes.append(f"axis {axis} of {length}: the first is read")
        roles += role
    return roles, tuple(notes)
