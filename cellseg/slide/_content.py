"""What every reader hands to `Slide`, and the choice of planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cellseg.errors import Notice, SettingsError
from cellseg.slide._pixelsize import PixelSize
from cellseg.slide._raster import Raster, projected, stacked
from cellseg.text import visible

ZChoice = int | Literal["max", "mean"] | None


@dataclass(frozen=True)
class Request:
    """What the caller asked for: planes and series."""

    z: ZChoice = None
    t: int | None = None
    series: int = 0


@dataclass(frozen=True)
class Content:
    """An opened file."""

    format: str
    levels: tuple[Raster, ...]  # Pyramid, largest first; the chosen plane only.
    channels: tuple[str, ...]
    is_rgb: bool
    pixel_size: PixelSize
    close: Callable[[], None]
    size_z: int = 1  # Planes of the file.
    size_t: int = 1
    notes: tuple[str, ...] = ()
    compression: str = ""  # Empty where the library that reads the file does not say.
    tiled: bool = True
    n_series: int = 1  # All that can be chosen, the pictures among them.
    pictures: tuple[tuple[int, str], ...] = ()  # Series and name: of the label, of the whole.


@dataclass(frozen=True)
class Planes:
    """The planes to read."""

    z: tuple[int, ...]  # One plane, or all of them for a projection.
    how: Literal["max", "mean"] | None
    t: int
    notes: tuple[str, ...]  # What was chosen, when there was a choice.

    def raster(self, channels: Sequence[Any], make: Callable[[int, Any], Raster]) -> Raster:
        """The chosen planes as one raster; ``make`` gives that of a z and a channel."""
        planes = [stacked([make(z, channel) for channel in channels]) for z in self.z]
        if self.how is None or len(planes) == 1:
            return planes[0]
        return projected(planes, self.how)


def choose_planes(name: str, request: Request, size_z: int, size_t: int) -> Planes:
    """Settle which planes are read: the middle of z and the first of t unless told.

    SettingsError for a plane that the file does not have.
    """
    notes: list[str] = []
    how: Literal["max", "mean"] | None = None
    if isinstance(request.z, str):
        if request.z not in ("max", "mean"):
            raise SettingsError(
                f"{name}: expected z to be a number, max or mean, got {request.z!r}"
            )
        planes, how = tuple(range(size_z)), request.z
        several = f"the {request.z} over {size_z} planes is read"
        notes.append(f"z: {several if size_z > 1 else 'there is one plane, and it is read'}")
    elif request.z is None:
        planes = (size_z // 2,)
        if size_z > 1:
            said = f"z: plane {planes[0]} of 0 … {size_z - 1}, the middle one, is read; others, or "
            notes.append(Notice(f"{said}a projection, can be chosen", hint="z"))
    else:
        planes = (_in_range(name, "plane z = ", request.z, size_z),)
    t = 0 if request.t is None else _in_range(name, "plane t = ", request.t, size_t)
    if request.t is None and size_t > 1:
        said = f"t: time point 0 of 0 … {size_t - 1}, the first, is read; others can be chosen"
        notes.append(Notice(said, hint="t"))
    return Planes(planes, how, t, tuple(notes))


def _in_range(name: str, what: str, value: int, size: int) -> int:
    if not 0 <= value < size:
        have = f"0 … {size - 1}" if size > 1 else "only 0"
        raise SettingsError(f"{name}: no {what}{value}; the file has {have}")
    return int(value)


def choose_series(name: str, series: int, count: int) -> int:
    """The number of a series; SettingsError if the file does not have it."""
    return _in_range(name, "series ", series, count)


def channel_names(
    names: Sequence[str | None], count: int, *, is_rgb: bool = False
) -> tuple[str, ...]:
    """Names of channels: those of the file where it has them, each only once; else their number."""
    if is_rgb:
        return ("red", "green", "blue")
    if not any(names) and count == 1:
        return ("grey",)
    out: dict[str, None] = {}
    for number in range(count):
        given = names[number] if number < len(names) else None
        name = visible(" ".join((given or "").split())[:60]) or f"channel {number}"
        while name in out:
            name = f"{name} ({number})"
        out[name] = None
    return tuple(out)


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Channels as people read them: the number by which one is chosen, and the name.

    >>> numbered(["DAPI", "channel 1"])
    ('0 DAPI', 'channel 1')
    """
    return tuple(
        name if name == f"channel {number}" else f"{number} {name}"
        for number, name in enumerate(names)
    )


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that reads return: native byte order, bool and float16 made wider."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    return dtype.newbyteorder("=")
