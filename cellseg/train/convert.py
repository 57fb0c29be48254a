"""Outlines from QuPath and ImageJ to a folder that a training learns from.

COCO JSON, and beside it in ``images/`` each picture as a TIFF. Where a person outlined regions of
class ``Region*``, each region is cut out as a picture of its own, and what in its box lies outside
of it is to be ignored (``iscrowd``): nothing is known of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.coco import UNSEEN_PX, shown_faults, write_coco, write_pixels
from cellseg.annotations.geojson import read_geojson
from cellseg.annotations.masks import Drawing, Drawn, Outline, annotation, read_rois, tight
from cellseg.errors import InputError, OutputError, SettingsError, input_errors, writing
from cellseg.geometry import Box
from cellseg.slide import Slide, open_slide, slide_name
from cellseg.slide.formats import has_ending

SMALLEST_PX = 9
"""What a region's box leaves of an object, below this, is ignored and not outlined."""

MOST_MASKS_PX = 1_000_000_000
"""Of the boxes around all outlines of one input; each pixel takes a byte."""

ENDINGS = (".geojson.gz", ".geojson", ".json", ".roi", ".zip")


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What is to be converted: files with the endings :data:`ENDINGS`, to a COCO JSON."""

    inputs: tuple[Path, ...]
    output: Path
    images: tuple[Path, ...] = ()
    """One picture for each input, in the same order; or one folder, in which each has its input's
    name; empty: they lie beside the inputs."""

    mpp: float | None = None  # µm per pixel, where the pictures do not say.
    channel: str | None = None
    kind: str = "cell"  # Class of what has none.
    whole_cells: bool = False  # Of QuPath's cells the cell's outline, not its nucleus's.
    overwrite: bool = False


@dataclass
class Converted:
    """What became of it; the notes say what was left out, one line each."""

    output: Path
    pictures: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)


def convert(request: ConvertRequest) -> Converted:
    """Write the COCO JSON and its pictures.

    InputError, with one line a fault, if anything is wrong with an input or its picture; nothing
    is written then but pictures. SettingsError if it does not say which picture or channel is
    meant, or a package is missing. OutputError if the JSON is there already, or the disk refuses.
    """
    if request.output.exists() and not request.overwrite:
        raise OutputError(
            f"{request.output}: is there already; replace it or take another name",
            hint="overwrite,output",
        )
    pairs = list(zip(request.inputs, _pictures(request), strict=True))
    drawings = [_read(path, whole_cells=request.whole_cells) for path, _ in pairs]
    maker = _Maker(request)
    for (path, picture), drawing in zip(pairs, drawings, strict=True):
        with open_slide(picture, mpp=request.mpp) as slide:
            maker.add(path, drawing, slide)
    if maker.faults:
        raise InputError("\n".join(shown_faults(maker.faults)))
    classes = [*maker.classes] or [request.kind]
    write_coco(
        request.output, maker.images, maker.rows, classes, description="converted by cellseg"
    )
    return maker.made


def _read(path: Path, *, whole_cells: bool) -> Drawing:
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise SettingsError(f"{path}: expected a name that ends in {', '.join(ENDINGS)}")
    is_imagej = name.endswith((".roi", ".zip"))
    drawing = read_rois(path) if is_imagej else read_geojson(path, whole_cells=whole_cells)
    if not (drawing.objects or drawing.regions or drawing.faults):
        raise InputError(f"{path}: holds no outlines of objects")
    return drawing


def _pictures(request: ConvertRequest) -> list[Path]:
    given = request.images
    is_folder = len(given) == 1 and given[0].is_dir() and not has_ending(given[0])
    if not given or is_folder:
        return [_beside(path, given[0] if given else path.parent) for path in request.inputs]
    if len(given) != len(request.inputs):
        raise SettingsError(
            f"{len(request.inputs)} inputs and {len(given)} pictures: give one picture for each "
            "input, in the same order, or one folder of pictures",
            hint="image",
        )
    return list(given)


def _beside(path: Path, folder: Path) -> Path:
    """The picture in a folder whose name an input has."""
    stem = Path(path.name.removesuffix(".gz")).stem
    with input_errors(folder):
        pictures = sorted(entry for entry in folder.iterdir() if has_ending(entry))
    named = [entry for entry in pictures if stem in (entry.name, slide_name(entry))]
    if len(named) != 1:
        said = "several pictures are" if named else "no picture is"
        raise SettingsError(
            f"{path}: {said} called {stem!r} in {folder}; say which it belongs to", hint="image"
        )
    return named[0]


class _Maker:
    """Collects pictures and annotations of several inputs."""

    def __init__(self, request: ConvertRequest) -> None:
        self.request = request
        self.classes: dict[str, int] = {}
        self.images: list[dict[str, object]] = []
        self.rows: list[dict[str, object]] = []
        self.faults: list[str] = []
        self.made = Converted(request.output)

    def add(self, path: Path, drawing: Drawing, slide: Slide) -> None:
        left_out, extent = Counter(drawing.left_out), (slide.height, slide.width)
        faults, masks_px = list(drawing.faults), 0

        def masks(drawn: Sequence[Drawn]) -> Iterator[tuple[Drawn, Outline]]:
            nonlocal masks_px
            for one in drawn:
                try:
                    outline = one.mask(extent)
                except ValueError as error:
                    faults.append(f"{one.said}: {error}")
                    continue
                if outline is None:
                    left_out["outlines smaller than a pixel"] += 1
                    continue
                masks_px += outline[1].size
                if masks_px > MOST_MASKS_PX:
                    raise InputError(
                        f"{path}: the outlines together span more than {MOST_MASKS_PX:,} px: "
                        "convert fewer at a time"
                    )
                yield one, outline

        objects = [
            (self.classes.setdefault(one.kind or self.request.kind, len(self.classes) + 1), outline)
            for one, outline in masks(drawing.objects)
        ]
        regions = [outline for _, outline in masks(drawing.regions)]
        ignored = [outline for _, outline in masks(drawing.ignored)]
        self.faults += [f"{path}: {fault}" for fault in faults]
        if not self.faults:
            for place, known in regions:
                self._picture(slide, place, known, objects, ignored)
            if not regions:
                self._picture(slide, Box(0, 0, *extent), None, objects, ignored)
            outside = sum(not any(_meet(o, r) for r in regions) for _, o in objects)
            if regions and outside:
                left_out["objects outside of the regions"] += outside
        self.made.notes += [f"{path}: left out: {what} ({n:,})" for what, n in left_out.items()]

    def _picture(
        self,
        slide: Slide,
        place: Box,
        known: NDArray[np.bool_] | None,
        objects: list[tuple[int, Outline]],
        ignored: list[Outline],
    ) -> None:
        """One region, or the whole; what in its box is not ``known`` is to be ignored."""
        number, extent = len(self.images) + 1, place.shape
        unknown = np.zeros(extent, bool) if known is None else ~known
        for kind, outline in objects:
            if known is not None and not _meet(outline, (place, known)):
                continue
            if (inside := _inside(outline, place)) is None:
                continue
            box, mask = inside
            if int(mask.sum()) < min(SMALLEST_PX, int(outline[1].sum())):
                unknown[box.pixels] |= mask
                continue
            unknown[box.pixels] &= ~mask
            row = {"image_id": number, "category_id": kind, **annotation(box, mask, extent)}
            self.rows.append(row)
            self.made.objects += 1
        for crowd in (tight((0, 0), unknown), *(_inside(outline, place) for outline in ignored)):
            if crowd is not None:
                row = {"image_id": number, "category_id": 1, **annotation(*crowd, extent)}
                self.rows.append({**row, "iscrowd": 1})
        entry = {"id": number, "file_name": self._saved(slide, place)}
        size = {"height": place.height, "width": place.width, "modality": "unknown"}
        self.images.append({**entry, **size, **({} if slide.mpp is None else {"mpp": slide.mpp})})

    def _saved(self, slide: Slide, place: Box) -> str:
        """Write the picture, and say its name."""
        if place.area > UNSEEN_PX:
            raise SettingsError(
                f"{slide.path}: {place.height:,} × {place.width:,} px are too many to learn from "
                "at once: outline the places that are done as annotations of class Region*"
            )
        name = f"{slide.name}.tif"
        if place.shape != (slide.height, slide.width):
            name = f"{slide.name}-y{place.y0}-x{place.x0}-{place.height}x{place.width}.tif"
        taken = {str(entry["file_name"]).lower() for entry in self.images}
        while name.lower() in taken:
            name = f"{name.removesuffix('.tif')}-{len(self.images) + 1}.tif"
        pixels = slide.read(place, channels=_channels(slide, self.request.channel))
        with writing(self.request.output.parent / "images" / name) as temporary:
            write_pixels(temporary, pixels)
        self.made.pictures += 1
        return name


def _channels(slide: Slide, wanted: str | None) -> list[int]:
    if wanted is not None:
        return [slide.channel_number(wanted)]
    if slide.is_rgb or len(slide.channels) == 1:
        return list(range(len(slide.channels)))
    raise SettingsError(
        f"{slide.path}: has the channels {', '.join(slide.channels)}; say which to learn from",
        hint="channel",
    )


def _inside(outline: Outline, place: Box) -> Outline | None:
    """What of an outline lies in a box, from the box's corner on."""
    box, mask = outline
    shared = box.intersection(place)
    return tight((shared.y0 - place.y0, shared.x0 - place.x0), mask[shared.inside(box)])


def _meet(one: Outline, other: Outline) -> bool:
    """Whether two outlines share a pixel."""
    box, mask = other
    found = _inside(one, box)
    return found is not None and bool((mask[found[0].pixels] & found[1]).any())
