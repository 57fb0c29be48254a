"""Which page of a TIFF series holds which channel, z plane and time point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cellseg.errors import InputError
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count

_UNKNOWN = "IQ"


@dataclass(frozen=True)
class Layout:
    """The axes of a series.

    Attributes
    ----------
    axes : tuple of str
        Roles of the leading axes, over which pages run: ``t``, ``z``, ``c`` or ``other``.
    shape : tuple of int
        Their lengths.
    depth : int
        z planes inside a page (volumetric TIFF).
    separate : int
        Separate sample planes in a page.
    samples : int
        Samples of a pixel in a page, separate or interleaved.
    interleaved : bool
        Pixels that tifffile's writer took for pages: the file's "pages" are its rows.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    depth: int
    separate: int
    samples: int
    interleaved: bool = False
    notes: tuple[str, ...] = ()

    def size(self, role: str) -> int:
        """How many there are along a role."""
        sizes = [n for axis, n in zip(self.axes, self.shape, strict=True) if axis == role]
        pages = math.prod(sizes)
        return pages * self.depth if role == "z" else pages

    @property
    def pages(self) -> int:
        """How many pages there should be."""
        return math.prod(self.shape)

    def page(self, *, z: int, t: int, c: int) -> tuple[int, int]:
        """Number of the page and the z plane inside it."""
        wanted = {"z": z // self.depth, "t": t, "c": c, "other": 0}
        index = 0
        for place, (axis, length) in enumerate(zip(self.axes, self.shape, strict=True)):
            index = index * length + self._step(wanted, axis, place)
        return index, z % self.depth

    def _step(self, wanted: dict[str, int], axis: str, place: int) -> int:
        """A role can own several axes; the last one varies fastest."""
        later = [self.shape[i] for i in range(place + 1, len(self.axes)) if self.axes[i] == axis]
        return wanted[axis] // math.prod(later) % self.shape[place]


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
    if _is_interleaved(series, axes, shape, height, width):
        return Layout((), (), 1, 1, width, interleaved=True, notes=(
            f"stored as {shape[0]} pages of {height} × {width} px: read as one image with "
            f"{width} channels",
        ))  # fmt: skip
    roles, notes = _roles(axes, shape, z_asked=z_asked, has_z="Z" in axes or depth > 1)
    layout = Layout(roles, shape, depth, separate, separate * contig, notes=notes)
    check_count(name, "planes", layout.pages * depth, MAX_PLANES)
    check_count(name, "channels", layout.size("c") * layout.samples, MAX_CHANNELS)
    return layout


def _is_interleaved(
    series: Any,  # noqa: ANN401
    axes: str,
    shape: tuple[int, ...],
    height: int,
    width: int,
) -> bool:
    """A (Y, X, C) array that was written without saying so: thousands of pages 2 to 5 px wide."""
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
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    roles: list[str] = []
    notes: list[str] = []
    for axis, length in zip(axes, shape, strict=True):
        if axis in "ZTC":
            roles.append(axis.lower())
        elif axis == "S":
            roles.append("c")
        elif axis in _UNKNOWN and length > 1:
            role = "z" if z_asked and not has_z else "t"
            roles.append(role)
            notes.append(f"{length} pages of unknown meaning: taken as {role}")
        else:
            roles.append("other")
            if length > 1:
                notes.append(f"axis {axis} of {length}: the first is read")
    return tuple(roles), tuple(notes)
