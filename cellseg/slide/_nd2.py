"""Nikon ND2, through nd2: positions are series."""

from __future__ import annotations

from nd2 import ND2File

from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, choose_series
from cellseg.slide._frames import Frames, content_of
from cellseg.slide._guard import opened
from cellseg.slide._raster import Pixels
from cellseg.storage import Location


def open_content(path: Location, request: Request) -> Content:
    """Open one position of an ND2; InputError or SettingsError if it cannot be read."""
    return opened(
        path, "is no readable ND2", lambda: ND2File(str(path)),
        lambda file: content_of(path, _frames(path, file, request.series), request),
    )  # fmt: skip


def _frames(path: Location, file: ND2File, series: int) -> Frames:
    size = dict(file.sizes)
    count = size.pop("P", 1)
    choose_series(path.name, series, count)
    loops = [axis for axis in file.sizes if axis not in "CYXS"]

    def read(z: int, t: int, c: int) -> Pixels:
        at = {"Z": z, "T": t, "P": series}
        number = 0
        for axis in loops:
            number = number * file.sizes[axis] + at[axis]
        frame: Pixels = file.read_frame(number)
        if not frame.any():
            raise ValueError("it is missing, which nd2 reads as zeros")
        # Blue comes first: nd2 gives the three components 420, 515 and 590 nm.
        frame = frame[..., ::-1] if "S" in size else frame
        return frame[c] if size.get("C", 1) > 1 else frame

    side, channels = file.voxel_size(), file.metadata.channels or ()
    return Frames(
        format="Nikon ND2",
        size=size,
        dtype=file.dtype,
        names=[channel.channel.name for channel in channels],
        # Where nothing was calibrated, Nikon writes 1 µm.
        pixel_size=sizes.judged(side.x, side.y, "ND2 calibration")
        if channels and all(channels[0].volume.axesCalibrated[:2])
        else sizes.NO_SIZE,
        count=count,
        read=read,
        close=file.close,
        notes=("colour is taken as stored blue first",) if "S" in size else (),
    )
