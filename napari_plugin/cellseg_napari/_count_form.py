"""The fields of the panel that counts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import napari
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, FloatSpinBox
from napari.layers import Image, Shapes

from cellseg.errors import CellsegError
from cellseg.protocol import shipped_protocols
from cellseg.slide import open_slide
from cellseg.slide.formats import ENDINGS
from cellseg_napari._count import AS_SHOWN, AUTOMATIC, REGIONS, Form, offered
from cellseg_napari._opened import opened_of
from cellseg_napari._reader import SLIDE_KEY
from cellseg_napari._words import FIELDS

DEVICES = ("auto", "cpu", "cuda", "mps")

SUFFIXES = f"Slides ({' '.join(f'*{ending}' for ending in ENDINGS)})"


class CountForm(Container):  # type: ignore[misc]
    """What to count, and how.

    Parameters
    ----------
    viewer : napari.Viewer
        Its layers are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self.viewer = viewer
        self._offered: Image | None = None
        self.layer: Any = ComboBox(
            label=FIELDS["channel"], nullable=True, choices=self._images,
            tooltip="A layer to count; of several channels, the one that shows nuclei",
        )  # fmt: skip
        self.file: Any = FileEdit(
            label="or a file", mode=FileDialogMode.EXISTING_FILE, filter=SUFFIXES, nullable=True,
            tooltip="A slide that is not open yet; takes the place of the layer",
        )  # fmt: skip
        self.protocol: Any = ComboBox(
            label=FIELDS["protocol"], choices=[AUTOMATIC, *shipped_protocols()],
            tooltip="The assay: scale, score and size limits that belong to it",
        )  # fmt: skip
        self.mpp = _number(
            FIELDS["mpp"], "as the file says", 100, 0.05, "Pixel size at full resolution"
        )
        self.diameter_px = _number(
            FIELDS["diameter"], "unknown", 10_000, 1,
            "Where the pixel size is unknown: how many pixels a usual nucleus measures across",
        )  # fmt: skip
        self.where: Any = ComboBox(
            label=FIELDS["region"], choices=list(REGIONS),
            tooltip="Everything, what is in sight, or what you drew in a shapes layer",
        )  # fmt: skip
        self.shapes: Any = ComboBox(
            label="shapes", nullable=True, choices=self._shapes, visible=False,
            tooltip="The layer with the rectangles, ellipses or polygons",
        )  # fmt: skip
        self.output: Any = FileEdit(
            label=FIELDS["output"], mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True,
            tooltip="Folder for the result; beside the slide if left empty",
        )  # fmt: skip
        self.overwrite: Any = CheckBox(
            text=FIELDS["overwrite"], value=False,
            tooltip="Replace a result of other settings, and corrections of it; otherwise it is "
            "kept, and the count refused",
        )  # fmt: skip
        self.more: Any = CheckBox(
            text="more settings", value=False, tooltip="Model, score, size limits, planes, device"
        )
        self.model: Any = FileEdit(
            label=FIELDS["model"], mode=FileDialogMode.EXISTING_FILE, nullable=True,
            filter="Models (*.safetensors)",
            tooltip="A model file, made by cellseg train; the shipped model if left empty",
        )  # fmt: skip
        self.score = _number(
            FIELDS["score"], "the protocol's", 1, 0.05,
            "Confidence that a cell needs, 0 … 1: lower finds more cells, and more that are none",
        )  # fmt: skip
        gates = "In µm², or in px² without pixel size: {} ones are left out"
        self.min_area = _number(
            FIELDS["min_area"], "the protocol's", 1e6, 5, gates.format("smaller")
        )
        self.max_area = _number(
            FIELDS["max_area"], "the protocol's", 1e6, 5, gates.format("larger")
        )
        self.z: Any = ComboBox(
            label=FIELDS["z"], choices=self._planes,
            tooltip="Of a stack: one plane (from 0), or all of them as their maximum or mean",
        )  # fmt: skip
        self.tissue_only: Any = CheckBox(
            text=FIELDS["no_prefilter"], value=True,
            tooltip="Skip what a first look takes for background",
        )  # fmt: skip
        self.cell_types: Any = CheckBox(
            text=FIELDS["types"], value=True,
            tooltip="Tell types apart (lymphocyte, tumour, …) where the model has learned them",
        )  # fmt: skip
        self.device: Any = ComboBox(
            label=FIELDS["device"], choices=list(DEVICES), tooltip="Where the network runs"
        )
        self._further = [
            self.model, self.score, self.min_area, self.max_area, self.tissue_only,
            self.cell_types, self.device,
        ]  # fmt: skip
        super().__init__(
            widgets=[
                self.layer, self.file, self.protocol, self.mpp, self.diameter_px, self.z,
                self.where, self.shapes, self.output, self.overwrite, self.more, *self._further,
            ]
        )  # fmt: skip
        for field in (self.where, self.more):
            field.changed.connect(self._show_fields)
        for field in (self.layer, self.file):
            field.changed.connect(self._another_image)
        self._show_fields()

    def _images(self, _: object) -> list[Image]:
        layers = self.viewer.layers
        return [layer for layer in layers if isinstance(layer, Image) and not opened_of(layer)]

    def _shapes(self, _: object) -> list[Shapes]:
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Shapes) and not layer.metadata.get("cellseg_role")
        ]

    def offer(self) -> str:
        """Choices as the viewer's layers are now; says why a layer was filled in."""
        self.layer.reset_choices()
        self.shapes.reset_choices()
        if self.shapes.value is None and (drawn := self._shapes(None)):
            self.shapes.value = drawn[-1]
        images = self._images(None)
        if not images or self.layer.value not in (None, self._offered):
            return ""  # what a person chose stays
        # A slide's channels come one by one.
        self._offered, why = offered(images, self.layer.value)
        self.layer.value = self._offered
        return why

    def _planes(self, _: object) -> list[tuple[str, object]]:
        about = self.layer.value.metadata.get(SLIDE_KEY, {}) if self.layer.value else {}
        planes = about.get("planes", 1)
        if (file := _path(self.file.value)) is not None:
            with suppress(CellsegError), open_slide(file) as slide:
                planes = slide.size_z
        every = [] if planes == 1 else ["max", "mean", *range(planes)]
        return [(str(plane), plane) for plane in (AS_SHOWN, *every)]

    def _another_image(self, _: object = None) -> None:
        self.z.reset_choices()
        self._show_fields()

    def _show_fields(self, _: object = None) -> None:
        """Those that matter for what is chosen."""
        self.shapes.visible = self.where.value == "drawn shapes"
        self.z.visible = len(self.z.choices) > 1
        for field in self._further:
            field.visible = self.more.value

    def form(self) -> Form:
        """What is filled in."""
        given = {one.name: getattr(self, one.name).value for one in fields(Form)}
        paths = {name: _path(given[name]) for name in ("file", "output", "model")}
        return Form(**{**given, **paths, "model": str(paths["model"] or "default")})


def _number(label: str, nothing: str, most: float, step: float, tooltip: str) -> Any:  # noqa: ANN401
    """A number that may be left open: at 0 it says what holds then."""
    field = FloatSpinBox(label=label, min=0.0, max=most, step=step, value=0.0, tooltip=tooltip)
    field.native.setSpecialValueText(nothing)
    field.native.setDecimals(4 if step < 1 else 0)  # pixel sizes have four digits
    return field


def _path(value: object) -> Path | None:
    """A file edit's value; an empty one is the current folder, or None."""
    text = str(value) if value is not None else ""
    return Path(text) if text not in ("", ".") else None
