"""One result as the viewer holds it: its cells as corrected and filtered, and their places."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cellseg.derive.corrections import Corrections, Edit
from cellseg.derive.corrections.cells import CorrectedCells
from cellseg.errors import CellsegError, SettingsError
from cellseg.geometry import LazyArray
from cellseg.result import Result
from cellseg_napari._levels import label_levels

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Layer

KEY = "cellseg"
"""Of a layer's ``metadata``: what belongs to it."""

ROLE = "cellseg_role"
"""Of the ``metadata`` of layers that are not a person's own: what they show."""

FEATURES_LIMIT = 50_000
"""Tables longer than this stay on the disk; napari's Features table shows the shorter ones."""


class Opened:
    """A result in a viewer.

    Attributes
    ----------
    cells : CorrectedCells
        The cells as corrected; those of a result that cannot be corrected as they are.
    note : CellsegError or None
        Why the result cannot be corrected; None where it can.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        self.note: CellsegError | None = None
        self.taught: Path | None = None  # the model that learned from its windows last
        try:
            self.cells: CorrectedCells = Corrections(result)
        except CellsegError as error:
            self.note = error
            self.cells = CorrectedCells(result, result.class_names)
        self.rows = self.cells.rows
        self.hide(None)

    @property
    def corrections(self) -> Corrections:
        """What a person changed; an error where the result cannot be corrected."""
        if not isinstance(self.cells, Corrections):
            raise self.note or SettingsError("this result cannot be corrected")
        return self.cells

    # Where things are

    def to_lattice(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, 2) world (y, x) to lattice pixels, centres at integers."""
        downsample, pixel = self.result.frame.downsample, self.result.frame.mpp or 1.0
        shift = (downsample - 1.0) / 2 * pixel
        return (np.asarray(world, np.float64)[..., -2:] - shift) / (downsample * pixel)

    def label_at(self, world: Sequence[float]) -> int:
        """The cell that is shown at a point of the world; 0 where there is none."""
        y, x = np.rint(self.to_lattice(np.array(world))).astype(int).tolist()
        label = np.array([self.cells.pyramid.label_at(y, x)], np.uint32)
        return int(self.shown(label)[0])

    def place_of(self, label: int) -> tuple[tuple[float, float], float]:
        """World (y, x) of a cell's centre, and its extent."""
        row, mpp = self.cells.row(label), self.result.frame.mpp or 1.0
        y, x = (float(row[f"centroid_{axis}_px"]) for axis in "yx")
        extent = max(float(row[f"bbox_{axis}1_px"] - row[f"bbox_{axis}0_px"]) for axis in "yx")
        return (y * mpp, x * mpp), extent * mpp

    # The table

    def column(self, name: str) -> NDArray[Any]:
        """One column of all cells as corrected, in the order of their labels."""
        kept = None if self.cells.touched else self.rows.column(name)
        return (self.cells.table([name])[name] if kept is None else kept).to_numpy()

    def features(self) -> pd.DataFrame | None:
        """The whole table for napari's own views; None where it is too long."""
        if len(self.rows) > FEATURES_LIMIT:
            return None
        return self.cells.table().rename(columns={"label": "index"})

    # What napari shows

    def label_levels(self) -> list[LazyArray]:
        """The label image as corrected and filtered, finest level first."""
        return label_levels(self.cells.pyramid, self.shown, np.uint32)

    def shown(self, labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Hidden cells become background."""
        if not self._hidden.any():
            return labels
        return np.where(self._hidden.take(labels, mode="clip"), np.uint32(0), labels)

    def hide(self, hidden: NDArray[np.bool_] | None) -> None:
        """Hide cells, in the order of their labels; None: show all of them."""
        none = np.zeros(1, np.bool_)
        self._hidden = none if hidden is None else self.by_label(hidden, False, np.bool_)

    def by_label(self, values: NDArray[Any], other: float, dtype: DTypeLike) -> NDArray[Any]:
        """Values of the cells, in the order of their labels, as an array indexed by label.

        Its last element is for all labels beyond.
        """
        labels = self.cells.labels()
        found = np.full(int(labels.max(initial=0)) + 2, other, dtype)
        found[labels] = values
        return found

    def is_shown(self) -> NDArray[np.bool_]:
        """Which cells are not hidden, in the order of their labels."""
        return ~self._hidden.take(self.cells.labels(), mode="clip")


_alive: weakref.WeakValueDictionary[str, Opened] = weakref.WeakValueDictionary()


def opened_result(result: Result) -> Opened:
    """One for each result, however often it is shown: two would write over each other's edits."""
    key = str(result.path.resolve())
    found = _alive.get(key)
    if found is None or found.note is not None or found.result.run != result.run:
        found = _alive[key] = Opened(result)
    return found


def opened_of(layer: Layer | None) -> Opened | None:
    """What belongs to a layer; None where it is not cellseg's."""
    found = None if layer is None else layer.metadata.get(KEY)
    return found if isinstance(found, Opened) else None


def results_in(viewer: ViewerModel) -> Iterator[tuple[Layer, Opened]]:
    """The layers with the cells of results, in the viewer's order."""
    for layer in viewer.layers:
        opened = opened_of(layer)
        if opened is not None and layer.metadata.get(ROLE) == "cells":
            yield layer, opened


def refresh(viewer: ViewerModel, opened: Opened, edit: Edit | None = None) -> None:
    """Show edits and filters: slice the layers of a result again, and renew its features."""
    for layer in viewer.layers:
        role = layer.metadata.get(ROLE)
        if opened_of(layer) is not opened or role == "paint":
            continue
        if edit is not None and role == "cells" and (table := opened.features()) is not None:
            layer.features = table
        layer.refresh()


def camera_of(viewer: ViewerModel) -> Any:  # noqa: ANN401 - napari's
    """The viewer's camera, which moved in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def canvas_of(viewer: ViewerModel) -> NDArray[np.int64]:
    """Height and width of the viewer's canvas, pixels; it moved in napari 0.9."""
    return np.array(viewer.canvas.size if hasattr(viewer, "canvas") else viewer._canvas_size)
