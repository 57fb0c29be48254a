"""Looking at a result's cells, without a widget: selection, colours, filter, totals in shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Region
from cellseg.draw import colours
from cellseg.errors import CellsegError
from cellseg.text import visible
from cellseg_napari._opened import KEY, Opened, camera_of, refresh
from cellseg_napari._outlines import world_outlines
from cellseg_napari._reader import OUTLINED, placed
from cellseg_napari._shown import Values
from cellseg_napari._words import counted, measurement

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes
    from napari.utils.colormaps import Colormap

RGB = tuple[int, int, int]

BY_LABEL = "each cell"
BY_CLASS = "class"
BY_THRESHOLD = "thresholds"

SELECTION = "selected cells"

MARKED = 200
"""Selected cells that wear a box; more are selected all the same."""

FILLED = 0.6
"""Opacity of filled masks; the tissue is to be seen under them."""

_PERCENT = (1, 99)


def limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Percentiles between which colours spread; always low < high."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, _PERCENT))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


@dataclass(frozen=True)
class Totals:
    """Of the cells that are shown, in all or inside drawn shapes.

    Attributes
    ----------
    object : str
        What they are: ``nucleus`` or ``cell``.
    density_per_mm2 : float or None
        None without pixel size, or where nobody knows the area.
    per : str
        Of what the density's mm² are.
    unit : str
        Of the area: ``µm²`` or ``px²``.
    """

    cells: int
    object: str
    density_per_mm2: float | None
    per: str
    median_area: float | None
    unit: str

    def __str__(self) -> str:
        """For a person."""
        parts = [counted(self.cells, self.object)]
        if self.density_per_mm2 is not None:
            parts.append(f"{self.density_per_mm2:,.0f} per mm² of {self.per}")
        if self.median_area is not None:
            parts.append(f"median area {self.median_area:.4g} {self.unit}")
        return ", ".join(parts)


class Inspector:
    """One result's cells: which are selected, how they are coloured, which are shown.

    Parameters
    ----------
    layer : Labels
        The result's masks.
    """

    def __init__(self, viewer: ViewerModel, layer: Labels, opened: Opened) -> None:
        self.viewer, self.layer, self.opened = viewer, layer, opened
        self.selected: tuple[int, ...] = ()
        self.coloured_by = BY_LABEL
        self.column: str | None = None
        self.range: tuple[float, float] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._marks: Shapes | None = None
        self._colours: Image | None = None
        self._values = Values(np.empty(1, np.float32))

    def on_select(self, listener: Callable[[], None]) -> None:
        """Call it when other cells are selected."""
        self._listeners.append(listener)

    def is_visible(self) -> bool:
        """Whether the masks, or the colours in their place, are in sight."""
        colours = self._colours
        return bool(self.layer.visible or (colours is not None and colours.visible))

    # Selecting

    def click(self, world: Sequence[float], *, more: bool = False) -> int:
        """Select the cell at a point of the world; ``more`` adds it, or takes it out again.

        Returns
        -------
        int
            Its label; 0 where there is none.
        """
        label = self.opened.label_at(np.asarray(world, np.float64))
        if not label:
            self.select(self.selected if more else ())
        elif more and label in self.selected:
            self.select([one for one in self.selected if one != label])
        else:
            self.select([*self.selected, label] if more else [label])
        return label

    def select(self, labels: Sequence[int]) -> None:
        """Mark cells, and tell the listeners."""
        self.selected = tuple(dict.fromkeys(int(label) for label in labels))
        self._mark()
        if self.selected:
            self.layer.selected_label = self.selected[-1]
        for listener in list(self._listeners):
            listener()

    def fly_to(self, label: int) -> None:
        """Bring a cell to the middle of the canvas, large enough to judge its outline."""
        (y, x), extent = self.opened.place_of(label)
        camera = camera_of(self.viewer)
        camera.center = (0.0, y, x)
        camera.zoom = max(camera.zoom, 120.0 / max(extent, 1e-6))
        self.select([label])

    def _mark(self) -> None:
        """Yellow boxes around the selected cells."""
        boxes = []
        for label in self.selected[:MARKED]:
            try:
                (y, x), extent = self.opened.place_of(label)
            except CellsegError:
                continue
            half = 0.65 * extent
            corners = ((-half, -half), (-half, half), (half, half), (half, -half))
            boxes.append(np.array([(y + dy, x + dx) for dy, dx in corners]))
        if self._marks is None or self._marks not in self.viewer.layers:
            if not boxes:
                return
            self._marks = self._new_marks()
        # One layer for all selections: a new one each time would cost half a second.
        marks = self._marks
        marks.selected_data = set(range(len(marks.data)))
        marks.remove_selected()
        if boxes:
            width = 0.06 * float(np.median([box[2, 0] - box[0, 0] for box in boxes]))
            marks.add(
                boxes,
                shape_type="rectangle",
                face_color="transparent",
                edge_color="yellow",
                edge_width=width,
            )
            marks.selected_data = set()

    def _new_marks(self) -> Shapes:
        from napari.layers import Shapes

        active = self.viewer.layers.selection.active
        marks = Shapes(
            ndim=2,
            name=SELECTION,
            metadata={"cellseg_role": "selection"},
            units=self.layer.units,
            axis_labels=self.layer.axis_labels,
        )
        self.viewer.add_layer(marks)
        if active is not None:
            self.viewer.layers.selection.active = active
        return marks

    # Colours

    @property
    def outlines(self) -> bool:
        """Whether masks are shown as outlines, or filled."""
        return bool(self.layer.contour)

    def show_outlines(self, outlines: bool) -> None:
        """Outlines, or filled masks."""
        self.layer.contour = int(outlines)
        self.layer.opacity = OUTLINED if outlines else FILLED
        self._values.outlines = outlines
        if self._colours is not None:
            self._colours.opacity = self.layer.opacity
            self._colours.refresh()

    def colour_by(self, what: str) -> None:
        """Each cell by its label, its class, or a measurement.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        if what == BY_LABEL:
            self._uncolour()
        elif what == BY_CLASS:
            names = self.classes()
            place = {name: number for number, name in enumerate(names)}
            codes = np.array([place.get(name, 0) for name in self.opened.column("class")])
            self.show_codes(codes, colours(names, self.opened.result.stain), "class")
        else:
            values = self.opened.column(what).astype(np.float32)
            self._show_values(values, "viridis", limits(values), measurement(what))
        self.coloured_by = what

    def show_codes(
        self, codes: NDArray[np.integer[Any]], colours: Sequence[RGB], title: str
    ) -> None:
        """Each cell in the colour of its number.

        Parameters
        ----------
        codes : ndarray, int, (N,)
            In the order of :meth:`Opened.labels`; negative ones are transparent.
        colours : sequence of (int, int, int)
        title : str
            For the list of layers.
        """
        from napari.utils.colormaps import Colormap

        count = max(2, len(colours))  # a colormap of one colour is none to vispy
        colormap = Colormap(
            [tuple(c / 255 for c in colours[min(n, len(colours) - 1)]) for n in range(count)],
            name="cellseg classes",
            controls=np.linspace(0, 1, count + 1),
            interpolation="zero",
        )
        values = np.where(codes >= 0, codes, np.nan).astype(np.float32)
        self._show_values(values, colormap, (-0.5, count - 0.5), title)
        self.coloured_by = BY_THRESHOLD

    def _show_values(
        self,
        values: NDArray[np.float32],
        colormap: Colormap | str,
        span: tuple[float, float],
        title: str,
    ) -> None:
        opened, frame = self.opened, self.opened.result.frame
        self._values.by_label = opened.by_label(values)
        self._values.outlines = self.outlines
        name = visible(f"{opened.result.path.stem}: {title}")
        layer = self._colours
        if layer is not None and layer in self.viewer.layers:
            if layer.name != name:
                layer.name = name
            layer.colormap, layer.contrast_limits = colormap, span
            layer.refresh()
            return
        from napari.layers import Image

        self._colours = Image(
            opened.value_levels(self._values),
            multiscale=True,
            name=name,
            colormap=colormap,
            contrast_limits=span,
            blending="translucent",
            interpolation2d="nearest",
            opacity=self.layer.opacity,
            metadata={KEY: opened, "cellseg_role": "colours"},
            **placed(frame.mpp, downsample=frame.downsample),
        )
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(self.viewer.layers.index(self.layer) + 1, self._colours)
        self.layer.visible = False
        if active is not None:
            self.viewer.layers.selection.active = active

    def _uncolour(self) -> None:
        if self._colours is not None and self._colours in self.viewer.layers:
            self.viewer.layers.remove(self._colours)
        self._colours = None
        self.layer.visible = True

    def classes(self) -> list[str]:
        """Names of the cells' classes."""
        corrections = self.opened.corrections
        if corrections is not None:
            return list(corrections.classes)
        return self.opened.result.class_names

    # Filter and totals

    def show_range(self, column: str | None, low: float = 0.0, high: float = 0.0) -> None:
        """Show only the cells whose measurement lies between two values; None: all of them."""
        self.column, self.range = column, None if column is None else (low, high)
        self._filter()
        refresh(self.viewer, self.opened)

    def _filter(self) -> None:
        if self.column is None or self.range is None:
            self.opened.shown.hidden = None
            return
        labels, values = self.opened.labels(), self.opened.column(self.column)
        hidden = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
        low, high = self.range
        # A cell without a value (NaN) is not between any two.
        hidden[labels] = ~((values >= low) & (values <= high))
        self.opened.shown.hidden = hidden

    def shown_mask(self) -> NDArray[np.bool_]:
        """Which of :meth:`Opened.labels` are shown."""
        labels = self.opened.labels()
        hidden = self.opened.shown.hidden
        if hidden is None:
            return np.ones(len(labels), np.bool_)
        known = labels < len(hidden)
        found = np.ones(len(labels), np.bool_)
        found[known] = ~hidden[labels[known]]
        return found

    def totals(self, shapes: Shapes | None = None) -> Totals:
        """Of the cells that are shown; with ``shapes``, of those whose centre lies in one."""
        opened, mpp = self.opened, self.opened.result.frame.mpp
        names = {*opened.rows.names}
        area = "area_um2" if mpp and "area_um2" in names else "area_px"
        inside = self.shown_mask()
        area_mm2 = (opened.result.run.get("summary") or {}).get("tissue_mm2")
        outlines = [] if shapes is None else world_outlines(shapes)
        if outlines:
            region = Region.of([outline / (mpp or 1.0) for outline in outlines])
            y, x = opened.column("centroid_y_px"), opened.column("centroid_x_px")
            inside &= region.contains(y, x)
            area_mm2 = region.area_px * mpp**2 * 1e-6 if mpp else None
        areas = opened.column(area)[inside] if area in names else np.empty(0)
        cells = int(inside.sum())
        return Totals(
            cells=cells,
            object=str(opened.result.run.get("object", "cell")),
            density_per_mm2=cells / area_mm2 if area_mm2 else None,
            per="these shapes" if outlines else "tissue",
            median_area=float(np.median(areas)) if len(areas) else None,
            unit="µm²" if area == "area_um2" else "px²",
        )

    def edited(self) -> None:
        """After an edit: filter, colours and selection again."""
        self._filter()
        if self.coloured_by not in (BY_LABEL, BY_THRESHOLD):
            self.colour_by(self.coloured_by)
        corrections = self.opened.corrections
        if corrections is not None:
            self.select([label for label in self.selected if label in corrections])

    def close(self) -> None:
        """Take marks and colours away, show every cell again."""
        self._uncolour()
        self.selected = ()
        if self._marks is not None and self._marks in self.viewer.layers:
            self.viewer.layers.remove(self._marks)
        self.opened.shown.hidden = None
        refresh(self.viewer, self.opened)
