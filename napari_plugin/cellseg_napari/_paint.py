"""Painting cells: a small layer around a spot, because napari's multiscale labels are read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.corrections import Edit
from cellseg.errors import SettingsError
from cellseg.geometry import Box
from cellseg_napari._opened import KEY, ROLE, Opened
from cellseg_napari._reader import placed

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

SIDE_PX = 256
"""Of the window that is painted in, lattice pixels; wider around a wide cell."""

NAME = "paint here"


class Painter:
    """Lends a window of the label image to napari's brush, and takes it back as one edit."""

    def __init__(self, viewer: ViewerModel, opened: Opened) -> None:
        self.viewer, self.opened = viewer, opened
        self.layer: Labels | None = None
        self._active: Layer | None = None
        self._window = Box(0, 0, 0, 0)
        self._before: NDArray[np.int32] = np.empty(0, np.int32)

    @property
    def is_painting(self) -> bool:
        """Whether the window is there; a person may have deleted its layer."""
        return self.layer is not None and self.layer in self.viewer.layers

    def begin(self, world: tuple[float, float], *, label: int | None = None) -> Labels:
        """Open a window around a point of the world, (y, x), to paint on a cell or on a new one."""
        from napari.layers import Labels

        corrections, frame = self.opened.corrections, self.opened.result.frame
        self.leave()
        self._active = self.viewer.layers.selection.active
        y, x = np.rint(self.opened.to_lattice(np.array(world))).astype(int).tolist()
        half = SIDE_PX // 2
        if label is not None:
            half = max(half, max(corrections.cell(label).box.shape) // 2 + 32)
        extent = Box(0, 0, *corrections.pyramid.shape)
        self._window = Box(y, x, y, x).widened(half).intersection(extent)
        if not self._window.area:
            raise SettingsError("this spot lies outside of the slide")
        pixels = corrections.pyramid.levels[0].read(self._window).astype(np.int32)
        where = placed(frame.mpp, downsample=frame.downsample)
        corner = np.array([self._window.y0, self._window.x0])
        where["translate"] = tuple(np.array(where["translate"]) + corner * np.array(where["scale"]))
        about = {KEY: self.opened, ROLE: "paint"}
        self.layer = layer = Labels(pixels, name=NAME, opacity=0.4, metadata=about, **where)
        self._before = pixels.copy()
        self._new_cell(layer)
        if label is not None:
            layer.selected_label = label
        layer.bind_key("m", self._new_cell, overwrite=True)
        layer.brush_size = 6
        layer.mode = "paint"
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = layer
        return layer

    def _new_cell(self, layer: Labels) -> None:
        """Napari's M takes the largest number in the window, which may live elsewhere."""
        corrections = self.opened.corrections
        used = (int(np.asarray(layer.data).max(initial=0)), len(corrections.rows))
        layer.selected_label = max(*used, *corrections.touched) + 1

    def apply(self, name: str | None = None) -> Edit | None:
        """Take what was painted as one edit; None where nothing was."""
        if self.layer is None:
            raise SettingsError("nothing is being painted")
        corrections, window = self.opened.corrections, self._window
        painted = np.asarray(self.layer.data)
        now = corrections.pyramid.levels[0].read(window).astype(painted.dtype)
        # Only what the brush touched: other edits made meanwhile stand.
        wanted = np.where(painted != self._before, painted, now)
        edit = corrections.redraw((window.y0, window.x0), wanted, name)
        self.leave()
        return edit

    def leave(self) -> None:
        """Take the window away; what was painted and not applied is dropped."""
        if self.is_painting:
            self.viewer.layers.remove(self.layer)
            if self._active in self.viewer.layers:
                self.viewer.layers.selection.active = self._active
        self.layer = None
