"""Looking at a result's cells, without a widget: selection, colours, filter, totals in shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from napari.utils.colormaps import Colormap, label_colormap
from numpy.typing import NDArray

from cellseg.annotations.region import Region, Regions
from cellseg.derive.derive import totals_in
from cellseg.derive.places import drawn_regions, keep_drawn
from cellseg.draw import borders
from cellseg.palette import RGB
from cellseg.table.summary import Summary, lines, summarised
from cellseg.text import visible
from cellseg_napari._opened import KEY, ROLE, Opened, camera_of, drawn_in, label_levels, refresh
from cellseg_napari._reader import CONTOUR_PX, KEPT, OUTLINED, contrast_limits, one_colour, placed
from cellseg_napari._words import measurement

ONE_COLOUR = "one colour"
BY_CLASS = "class"
BY_LABEL = "each cell"
BY_THRESHOLD = "thresholds"

SELECTION = "selected cells"

MARKED = 200
"""Selected cells that wear a frame; more are selected all the same."""

FRAME_PX = 1.5
"""Width of a frame on the screen, whatever the zoom: it hides no neighbour."""

FILLED = 0.6
"""Opacity of filled masks; the tissue is to be seen under them."""


class Inspector:
    """One result's cells: which are selected, how they are coloured, which are shown.

    ``on_select`` is called when other cells are selected.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        layer: Labels,
        opened: Opened,
        on_select: Callable[[], object] = lambda: None,
    ) -> None:
        self.viewer, self.layer, self.opened = viewer, layer, opened
        self.selected: tuple[int, ...] = ()
        self.coloured_by = ONE_COLOUR
        self.range: tuple[str, float, float] | None = None
        self._on_select = on_select
        self._marks: Points | None = None
        self._colours: Image | None = None
        self._values: NDArray[np.float32] = np.full(1, np.nan, np.float32)
        camera_of(viewer).events.zoom.connect(self._thin)

    def is_visible(self) -> bool:
        """Whether the masks, or the colours in their place, are in sight."""
        return any(layer is not None and layer.visible for layer in (self.layer, self._colours))

    def click(self, world: Sequence[float], *, more: bool = False) -> int:
        """Select the cell at a point of the world; ``more`` adds it, or takes it out again."""
        label = self.opened.label_at(world)
        before = self.selected if more else ()
        if label in before:
            self.select([one for one in before if one != label])
        else:
            self.select([*before, label] if label else before)
        return label

    def select(self, labels: Sequence[int]) -> None:
        """Mark cells, and tell the listener."""
        self.selected = tuple(dict.fromkeys(int(label) for label in labels))
        self._mark()
        if self.selected:
            self.layer.selected_label = self.selected[-1]
        self._on_select()

    def fly_to(self, label: int) -> None:
        """Bring a cell to the middle of the canvas, large enough to judge its outline."""
        (y, x), extent = self.opened.place_of(label)
        camera = camera_of(self.viewer)
        camera.center = (0.0, y, x)
        camera.zoom = max(camera.zoom, 120.0 / max(extent, 1e-6))
        self.select([label])

    def _mark(self) -> None:
        """A thin frame around each selected cell."""
        cells = self.opened.cells
        places = [self.opened.place_of(n) for n in self.selected[:MARKED] if n in cells]
        # One layer for all selections: a new one each time would cost half a second.
        marks = self._marks
        if marks is None or marks not in self.viewer.layers:
            if not places:
                return
            is_dark = self.opened.result.stain == "fluorescence"
            marks = self._marks = Points(
                ndim=2,
                name=SELECTION,
                symbol="square",
                face_color="transparent",
                border_color="white" if is_dark else "black",
                border_width_is_relative=False,
                metadata={ROLE: "selection"},
                units=self.layer.units,
                axis_labels=self.layer.axis_labels,
            )
            self._add(marks, len(self.viewer.layers))
        marks.data = np.array([place for place, _ in places]).reshape(-1, 2)
        if places:
            marks.size = [1.3 * extent for _, extent in places]
        marks.selected_data = set()
        self._thin()

    def _thin(self, _: object = None) -> None:
        """Keep the frames' width when the zoom changes."""
        if self._marks is not None and len(self._marks.data):
            self._marks.border_width = FRAME_PX / camera_of(self.viewer).zoom

    def _add(self, layer: Layer, place: int) -> None:
        """Insert a layer; the one that is active stays so."""
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(place, layer)
        if active is not None:
            self.viewer.layers.selection.active = active

    def _remove(self, layer: Layer | None) -> None:
        """Take a layer away; a person may have done so before."""
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    @property
    def outlines(self) -> bool:
        return bool(self.layer.contour)

    def show_outlines(self, outlines: bool) -> None:
        self.layer.contour = CONTOUR_PX if outlines else 0
        self.layer.opacity = OUTLINED if outlines else FILLED
        if self._colours is not None:
            self._colours.opacity = self.layer.opacity
            self._colours.refresh()

    def colour_by(self, what: str) -> None:
        """Cells all of one colour, each of its own, by class, or by a measurement."""
        if what in (ONE_COLOUR, BY_LABEL):
            one = one_colour(self.opened.result.colours(("cells",))[0])
            self.layer.colormap = one if what == ONE_COLOUR else label_colormap()
            self._uncolour()
        elif what == BY_CLASS:
            names = list(self.opened.cells.classes)
            place = {name: number for number, name in enumerate(names)}
            codes = np.array([place.get(name, 0) for name in self.opened.column("class")])
            self.show_codes(codes, self.opened.result.colours(names), "class")
        else:
            values = self.opened.column(what).astype(np.float32)
            span = contrast_limits(values, (1, 99))
            self._show_values(values, "viridis", span, measurement(what))
        self.coloured_by = what

    def show_codes(
        self, codes: NDArray[np.integer[Any]], colours: Sequence[RGB], title: str
    ) -> None:
        """Each cell in the colour of its number, in the order of the labels; -1: in none."""
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
        self, values: NDArray[Any], colormap: Colormap | str, span: tuple[float, float], title: str
    ) -> None:
        """A layer of numbers over the masks; a named colormap gets a colour bar, classes none."""
        opened, frame = self.opened, self.opened.result.frame
        self._values = opened.by_label(values, np.nan, np.float32)
        layer = self._colours
        if layer is None or layer not in self.viewer.layers:
            layer = self._colours = Image(
                label_levels(opened.cells.pyramid, self._valued, np.float32),
                multiscale=True,
                contrast_limits=span,
                blending="translucent",
                interpolation2d="nearest",
                opacity=self.layer.opacity,
                metadata={KEY: opened, ROLE: "colours"},
                **placed(frame.mpp, downsample=frame.downsample),
            )
            self._add(layer, self.viewer.layers.index(self.layer) + 1)
            self.layer.visible = False
        name = visible(f"{opened.result.path.stem}: {title}")
        if layer.name != name:
            layer.name = name
        layer.colormap, layer.contrast_limits = colormap, span
        layer.colorbar.visible = isinstance(colormap, str)
        layer.refresh()

    def _valued(self, labels: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Each cell's number in place of its label; NaN, which is transparent, elsewhere."""
        labels = self.opened.shown(labels)
        if self.outlines:
            labels = np.where(borders(labels, CONTOUR_PX), labels, np.uint32(0))
        return self._values.take(labels, mode="clip")

    def _uncolour(self) -> None:
        self._remove(self._colours)
        self._colours = None
        self.layer.visible = True

    def show_range(self, column: str | None, low: float = 0.0, high: float = 0.0) -> None:
        """Show only the cells whose measurement lies between two values; None: all of them."""
        self.range = None if column is None else (column, low, high)
        self._filter()
        refresh(self.viewer, self.opened)

    def _filter(self) -> None:
        hidden = None
        if self.range is not None:
            column, low, high = self.range
            values = self.opened.column(column)
            # A cell without a value (NaN) is not between any two.
            hidden = ~((values >= low) & (values <= high))
        self.opened.hide(hidden)

    def totals(self, shapes: Shapes | None = None) -> tuple[Summary, str]:
        """Of the cells that are shown, and what their density is of: the tissue, or the shapes.

        With ``shapes`` of those whose centre lies in one.
        """
        opened, frame, ground = self.opened, self.opened.result.frame, "tissue"
        names = ["class", "area_px", "centroid_y_px", "centroid_x_px"]
        table = opened.cells.table(names)[opened.is_shown()]
        area_mm2 = opened.result.section("summary").get("tissue_mm2")
        if drawn := drawn_in(shapes, frame.mpp or 1.0):
            region = Region(Regions.of(drawn).union)
            table = table[region.contains(table["centroid_y_px"], table["centroid_x_px"])]
            area_mm2 = region.area_px * frame.mpp**2 * 1e-6 if frame.mpp else None
            ground = "these shapes"
        found = summarised(
            table,
            opened.cells.classes,
            object=opened.result.object_name,
            mpp=frame.mpp,
            tissue_mm2=area_mm2,
        )
        return found, ground

    def keep(self, shapes: Shapes) -> list[str]:
        """Keep shapes as regions of the result, and count in them: a line each.

        Of a layer that was kept before the shapes take the place of its regions, those of another
        come to them; of one name the new one stays.
        """
        result, home = self.opened.result, str(self.opened.result.path.absolute())
        new = drawn_in(shapes, result.frame.mpp or 1.0)
        names = {region.name for region in new}
        known = () if shapes.metadata.get(KEPT) == home else drawn_regions(result) or ()
        regions = Regions.of([*(one for one in known if one.name not in names), *new])
        kept = keep_drawn(result, json.dumps(regions.as_geojson()).encode())
        shapes.metadata[KEPT] = home
        return lines(totals_in(result, kept or regions).regions, result.object_name)

    def edited(self) -> None:
        """After an edit: filter, colours and selection again."""
        self._filter()
        if self.coloured_by not in (ONE_COLOUR, BY_LABEL, BY_THRESHOLD):
            self.colour_by(self.coloured_by)
        self.select([one for one in self.selected if one in self.opened.cells])

    def close(self) -> None:
        """Take marks and colours away, show every cell again."""
        self._uncolour()
        camera_of(self.viewer).events.zoom.disconnect(self._thin)
        self._remove(self._marks)
        self.opened.hide(None)
        refresh(self.viewer, self.opened)
