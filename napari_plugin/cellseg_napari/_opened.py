"""One result as the viewer holds it: its cells, its layers, and how they follow edits."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.corrections import Corrections, Edit, PatchedPyramid
from cellseg.errors import CellsegError, InputError
from cellseg.result import Result
from cellseg_napari._array_like import ArrayLike
from cellseg_napari._shown import CellFilter, ShownLabels, ShownValues, Values, multiscale

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Layer

KEY = "cellseg"
"""Of a layer's ``metadata``: what belongs to it."""

ROWS_KEPT = 1024

FEATURES_LIMIT = 50_000
"""Tables longer than this stay on the disk; napari's Features table shows the shorter ones."""


class Opened:
    """A result in a viewer.

    Attributes
    ----------
    corrections : Corrections or None
        None where the result cannot be corrected: it holds corrected cells already.
    note : CellsegError or None
        Why.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        self.shown = CellFilter()
        self.corrections: Corrections | None = None
        self.note: CellsegError | None = None
        self._table: pd.DataFrame | None = None
        self._rows: dict[int, pd.Series[Any]] = {}
        try:
            self.corrections = Corrections(result)
            self.pyramid = self.corrections.pyramid
        except CellsegError as error:
            self.note = error
            self.pyramid = PatchedPyramid(result.labels())
        self.rows = result.table if self.corrections is None else self.corrections.rows

    # Where things are

    @property
    def pixel(self) -> float:
        """Side of a lattice pixel in the viewer's unit: µm, or level-0 pixels."""
        return self.result.frame.downsample * (self.result.frame.mpp or 1.0)

    @property
    def shift(self) -> float:
        """World coordinate of the centre of lattice pixel 0."""
        frame = self.result.frame
        return (frame.downsample - 1.0) / 2 * (frame.mpp or 1.0)

    def to_lattice(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, 2) world (y, x) to lattice pixels, centres at integers."""
        return (np.asarray(world, np.float64)[..., -2:] - self.shift) / self.pixel

    def label_at(self, world: NDArray[np.float64]) -> int:
        """The cell that is shown at a point of the world; 0 where there is none."""
        y, x = np.rint(self.to_lattice(world)).astype(int).tolist()
        label = self.pyramid.label_at(y, x)
        return int(self.shown.apply(np.array([label], np.uint32))[0])

    def place_of(self, label: int) -> tuple[tuple[float, float], float]:
        """World (y, x) of a cell's centre, and its extent."""
        row = self.row(label)
        mpp = self.result.frame.mpp or 1.0
        if "centroid_y_px" in row.index:
            centre = (float(row["centroid_y_px"]) * mpp, float(row["centroid_x_px"]) * mpp)
            extent = max(
                float(row["bbox_y1_px"]) - float(row["bbox_y0_px"]),
                float(row["bbox_x1_px"]) - float(row["bbox_x0_px"]),
            )
            return centre, extent * mpp
        if self.corrections is None:
            raise InputError(f"{self.result.path}: the table does not say where cell {label} is")
        box = self.corrections.cell(label).box
        y = ((box.y0 + box.y1 - 1) / 2) * self.pixel + self.shift
        x = ((box.x0 + box.x1 - 1) / 2) * self.pixel + self.shift
        return (y, x), max(box.shape) * self.pixel

    # The table

    def row(self, label: int) -> pd.Series[Any]:
        """A cell's row."""
        corrections = self.corrections
        if corrections is not None and (label in corrections.touched or label not in corrections):
            return corrections.row(label)
        if label not in self._rows:
            if len(self._rows) >= ROWS_KEPT:
                self._rows.clear()
            self._rows[label] = self._automatic(label)
        return self._rows[label]

    def _automatic(self, label: int) -> pd.Series[Any]:
        if not 1 <= label <= len(self.rows):
            raise InputError(f"there is no cell {label}")
        return self.rows.take([label - 1]).iloc[0]

    def labels(self) -> NDArray[np.int64]:
        """All labels, ascending."""
        if self.corrections is not None:
            return self.corrections.labels()
        return np.arange(1, len(self.rows) + 1)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all cells as corrected, in the order of :meth:`labels`."""
        if self.corrections is None or not self.corrections.touched:
            return self.rows.column(name).to_numpy()
        return self.corrections.table([name])[name].to_numpy()

    def features(self) -> pd.DataFrame | None:
        """The whole table for napari's own views; None where it is too long."""
        if len(self.rows) > FEATURES_LIMIT:
            return None
        if self.corrections is not None and self.corrections.touched:
            table = self.corrections.table()
        else:
            table = self._table = self.rows.load() if self._table is None else self._table
        return table.rename(columns={"label": "index"})

    # What napari shows

    def label_levels(self) -> list[ArrayLike]:
        """The pyramid as corrected and filtered, finest first."""
        return multiscale([ShownLabels(level, self.shown) for level in self.pyramid.levels])

    def around_levels(self) -> list[ArrayLike]:
        """The cells around the nuclei, as expanded before any correction; none of other results.

        Raises
        ------
        InputError
            If they do not belong to the result.
        """
        if not self.result.is_expanded:
            return []
        levels = PatchedPyramid(self.result.labels("cells")).levels
        return multiscale([ShownLabels(level, self.shown) for level in levels])

    def value_levels(self, values: Values) -> list[ArrayLike]:
        """The same with a number for each cell."""
        return multiscale([ShownValues(level, self.shown, values) for level in self.pyramid.levels])

    def by_label(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values in the order of :meth:`labels` as an array that is indexed by label."""
        labels = self.labels()
        found = np.full(int(labels.max(initial=0)) + 1, np.nan, np.float32)
        found[labels] = values
        return found


_alive: weakref.WeakValueDictionary[str, Opened] = weakref.WeakValueDictionary()


def opened_result(result: Result) -> Opened:
    """One for each result, however often it is shown: two would write over each other's edits."""
    key = str(result.path.resolve())
    found = _alive.get(key)
    if found is None or found.corrections is None or found.result.run != result.run:
        found = _alive[key] = Opened(result)
    return found


def opened_of(layer: Layer | None) -> Opened | None:
    """What belongs to a layer; None where it is not cellseg's."""
    found = None if layer is None else layer.metadata.get(KEY)
    return found if isinstance(found, Opened) else None


def results_in(viewer: ViewerModel) -> Iterator[tuple[Layer, Opened]]:
    """The mask layers of results, in the viewer's order."""
    from napari.layers import Labels

    for layer in viewer.layers:
        opened = opened_of(layer)
        if opened is not None and isinstance(layer, Labels):
            yield layer, opened


def refresh(viewer: ViewerModel, opened: Opened, edit: Edit | None = None) -> None:
    """Show edits and filters: slice the layers of a result again, and renew its features."""
    for layer in viewer.layers:
        if opened_of(layer) is not opened or layer.metadata.get("cellseg_role") == "paint":
            continue
        if edit is not None and layer.metadata.get("cellseg_role") == "cells":
            table = opened.features()
            if table is not None:
                layer.features = table
        layer.refresh()


def camera_of(viewer: ViewerModel) -> Any:  # noqa: ANN401 - napari's
    """The viewer's camera, which moved in napari 0.9."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera
