"""Painting cells: a small layer around a spot, because napari's multiscale labels are read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.corrections import Edit
from cellseg.errors import SettingsError
from cellseg.geometry import Box
from cellseg_napari._opened import KEY, Opened
from cellseg_napari._reader import placed

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

SIDE_PX = 256
"""Of the window that is painted in, lattice pixels; wider around a wide cell."""

NAME = "paint here"


class Painter:
    """Lends a window of the label image to napari's brush, and takes it back as one edit."""

    def __init__(self, viewer: ViewerModel, opened: Opened) -> None:
        self.viewer, self.opened = viewer, opened
        self.layer: Labels | None = None
        self._window: Box | None = None
        self._before: NDArray[np.int32] | None = None

    def begin(self, world: tuple[float, float], *, label: int | None = None) -> Labels:
        """Open a window around a point of the world.

        Parameters
        ----------
        world : (float, float)
            (y, x).
        label : int, optional
            The cell to paint on; a new one otherwise.

        Raises
        ------
        SettingsError
            If the result cannot be corrected.
        """
        from napari.layers import Labels

        corrections = self.opened.corrections
        if corrections is None:
            raise SettingsError(self.opened.note or "this result cannot be corrected")
        self.leave()
        y, x = np.rint(self.opened.to_lattice(np.array(world))).astype(int).tolist()
        half = SIDE_PX // 2
        if label is not None:
            box = corrections.cell(label).box
            half = max(half, max(box.shape) // 2 + 32)
        extent = Box(0, 0, *corrections.pyramid.shape)
        self._window = Box(
            max(0, y - half), max(0, x - half), max(0, y + half), max(0, x + half)
        ).intersection(extent)
        if not self._window.area:
            raise SettingsError("this spot lies outside of the slide")
        pixels = corrections.pyramid.levels[0].read(self._window).astype(np.int32)
        frame = self.opened.result.frame
        where = placed(frame.mpp, downsample=frame.downsample)
        corner = np.array([self._window.y0, self._window.x0])
        where["translate"] = tuple(np.array(where["translate"]) + corner * np.array(where["scale"]))
        fresh = int(max(pixels.max(initial=0), len(corrections.rows), *corrections.touched, 0)) + 1
        self.layer = Labels(
            pixels,
            name=NAME,
            opacity=0.6,
            metadata={KEY: self.opened, "cellseg_role": "paint"},
            **where,
        )
        self._before = pixels.copy()
        self.layer.selected_label = fresh if label is None else label
        self.layer.bind_key("m", self._new_cell, overwrite=True)
        self.layer.brush_size = 6
        self.layer.mode = "paint"
        self.viewer.add_layer(self.layer)
        self.viewer.layers.selection.active = self.layer
        return self.layer

    def _new_cell(self, layer: Labels) -> None:
        """Napari's M takes the largest number in the window, which may live elsewhere."""
        corrections = self.opened.corrections
        used = [int(np.asarray(layer.data).max(initial=0))]
        if corrections is not None:
            used += [len(corrections.rows), *corrections.touched]
        layer.selected_label = max(used) + 1

    def apply(self, name: str | None = None) -> Edit | None:
        """Take what was painted as one edit; None where nothing was."""
        layer, window, corrections = self.layer, self._window, self.opened.corrections
        if layer is None or window is None or corrections is None:
            raise SettingsError("nothing is being painted")
        painted = np.asarray(layer.data)
        now = corrections.pyramid.levels[0].read(window).astype(painted.dtype)
        # Only what the brush touched: other edits made meanwhile stand.
        wanted = np.where(painted != self._before, painted, now)
        edit = corrections.redraw((window.y0, window.x0), wanted, name)
        self.leave()
        return edit

    def leave(self) -> None:
        """Take the window away; what was painted and not applied is dropped."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = self._window = self._before = None
