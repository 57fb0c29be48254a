"""What a viewer shows while a count goes on, and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellseg.derive.corrections import PatchedPyramid
from cellseg.events import CountResult, Started, TileDone
from cellseg_napari._levels import label_levels
from cellseg_napari._opened import ROLE, opened_of
from cellseg_napari._reader import DRAWN_KEY, SLIDE_KEY, add_layers, placed, read_result

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from cellseg.events import Event

PLACED_KEY = "cellseg_placed"
"""Of a layer's ``metadata``: the pixel size that a count gave it; not the layer's own."""

REFRESH_SECONDS = 0.5
"""Between two drawings of the masks while it counts."""


def file_of(layer: Layer) -> Path | None:
    """What napari read it from; None where that is not there."""
    source = getattr(layer.source, "path", None)
    return Path(source) if source is not None and Path(source).exists() else None


class Preview:
    """Shows masks tile by tile, and the result in their place at the end.

    ``counted`` is the layer that is counted: it shows the slide, whoever opened it.
    """

    def __init__(self, viewer: ViewerModel, counted: Image | None = None) -> None:
        self.viewer = viewer
        self.layer: Labels | None = None
        self._counted = counted
        self._pyramid: PatchedPyramid | None = None
        self._next = 1
        self._refreshed = 0.0

    def show(self, event: Event) -> None:
        """What an event changes in the viewer."""
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, TileDone):
            self._paint(event)
        elif isinstance(event, CountResult):
            self.end()
            self.show_result(event.folder)

    def end(self) -> None:
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = self._pyramid = None

    def _start(self, event: Started) -> None:
        from napari.layers import Labels

        frame = event.frame
        if frame.mpp is not None:
            self._place_slide(Path(str(event.image)), placed(frame.mpp))
        self._pyramid = PatchedPyramid.empty((frame.lattice_height, frame.lattice_width))
        self.layer = Labels(
            label_levels(self._pyramid, lambda labels: labels, np.uint32),
            name=f"{Path(event.image.name).stem}: counting",
            multiscale=True,
            opacity=0.5,
            metadata={ROLE: "preview"},
            **placed(frame.mpp, downsample=frame.downsample),
        )
        self.viewer.add_layer(self.layer)

    def _paint(self, event: TileDone) -> None:
        """The cells whose middle lies in the tile's own pixels; they are merged at the end."""
        if self._pyramid is None or self.layer is None or not len(event.instances):
            return
        core, boxes = event.tile.core, event.instances.boxes
        middle = (boxes[:, :2] + boxes[:, 2:]) // 2
        own = ((middle >= (core.y0, core.x0)) & (middle < (core.y1, core.x1))).all(axis=1)
        window = event.tile.padded
        labels = self._pyramid.levels[0].read(window)
        for index in np.flatnonzero(own).tolist():
            part = labels[event.instances.box(index).inside(window)]
            part[event.instances.masks[index] & (part == 0)] = self._next
            self._next += 1
        self._pyramid.write(window.y0, window.x0, labels)
        if time.monotonic() - self._refreshed > REFRESH_SECONDS or event.done == event.total:
            self.layer.refresh()
            self._refreshed = time.monotonic()

    def show_result(self, folder: Path) -> None:
        """The result's layers in place of those it had, but those of a slide that is shown."""
        for layer in list(self.viewer.layers):
            opened = opened_of(layer)
            of, rings = layer.metadata.get(DRAWN_KEY, (None, None))
            is_old = opened is not None and opened.result.path.absolute() == folder.absolute()
            # Outlines that a person changed are theirs, and stay.
            is_old = is_old or (of == str(folder.absolute()) and _same(layer.data, rings))
            if is_old and layer in self.viewer.layers:  # a panel takes its own away
                self.viewer.layers.remove(layer)
        is_shown = None
        for data in read_result(folder):
            look = data[1]
            if about := look.get("metadata", {}).get(SLIDE_KEY):
                if is_shown is None:  # asked once: a slide's channels are layers of their own
                    is_shown = self._place_slide(Path(about["path"]), look, z=about.get("z"))
                if is_shown:
                    continue
            add_layers(self.viewer, [data])

    def _place_slide(self, image: Path, where: dict[str, Any], **same: object) -> bool:
        """Put the slide's own layers where its result lies: a pixel size may have been typed in.

        Returns whether any layer shows the slide, in the place where the result lies.
        """
        found = False
        for layer in self.viewer.layers:
            about = layer.metadata.get(SLIDE_KEY, {})
            if not self._shows(layer, image) or any(about.get(k, v) != v for k, v in same.items()):
                continue
            scale, shift = np.asarray(layer.scale)[-2:], np.asarray(layer.translate)[-2:]
            agrees = np.allclose((*scale, *shift), (*where["scale"], *where["translate"]), 1e-6)
            if not agrees and (about or ((scale == 1).all() and not shift.any())):
                for name in ("scale", "translate", "units"):
                    setattr(layer, name, (*getattr(layer, name)[:-2], *where[name]))
                given, key = (about, "given") if about else (layer.metadata, PLACED_KEY)
                given[key] = layer.scale[-1]
                agrees = True
            found |= agrees
        return found

    def _shows(self, layer: Layer, image: Path) -> bool:
        about = layer.metadata.get(SLIDE_KEY)
        if about is None and layer is self._counted:
            return True
        path = Path(about["path"]) if about else file_of(layer)
        return type(layer).__name__ == "Image" and path is not None and (
            path.absolute() == image.absolute()
        )  # fmt: skip


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether outlines are equal but for rounding: napari keeps them as float32."""
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-3)
        for a, b in zip(one, other, strict=True)
    )
