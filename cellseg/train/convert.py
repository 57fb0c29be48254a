"""Outlines from QuPath and ImageJ to a folder that ``cellseg train`` learns from.

COCO JSON, and beside it in ``images/`` each picture as a TIFF. Where a person outlined regions of
class ``Region*``, each region is cut out as a picture of its own, and what in its box lies outside
of it is to be ignored (``iscrowd``): nothing is known of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.annotations.coco import UNSEEN_PX, shown_faults
from cellseg.annotations.drawn import Drawing, Drawn
from cellseg.annotations.geojson import read_geojson
from cellseg.annotations.masks import Outline, annotation, tight
from cellseg.annotations.rois import read_rois
from cellseg.errors import InputError, OutputError, SettingsError, writing
from cellseg.geometry import Box
from cellseg.slide import Slide, open_slide, slide_name
from cellseg.slide.formats import has_ending

SMALLEST_PX = 9
"""What a region's box leaves of an object, below this, is ignored and not outlined."""

MOST_MASKS_PX = 1_000_000_000
"""Of the boxes around all outlines of one input; each pixel takes a byte."""

_READERS: dict[str, Callable[[Path, bool], Drawing]] = {
    ".geojson": lambda path, whole_cells: read_geojson(path, whole_cells=whole_cells),
    ".geojson.gz": lambda path, whole_cells: read_geojson(path, whole_cells=whole_cells),
    ".json": lambda path, whole_cells: read_geojson(path, whole_cells=whole_cells),
    ".roi": lambda path, _: read_rois(path),
    ".zip": lambda path, _: read_rois(path),
}


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What is to be converted.

    Attributes
    ----------
    inputs : tuple of Path
        ``.geojson``, ``.geojson.gz``, ``.json``, ``.roi`` or ``.zip``.
    output : Path
        The COCO JSON; ``images/`` beside it gets the pictures.
    images : tuple of Path
        One picture for each input, in the same order; or one folder, in which each has its
        input's name; empty: they lie beside the inputs.
    mpp : float or None
        µm per pixel, where the pictures do not say.
    channel : str or None
        Number or name of the channel to learn from; needed where there are several.
    kind : str
        Class of what has none.
    whole_cells : bool
        Of QuPath's cells take the cell's outline in place of its nucleus's.
    overwrite : bool
        Replace ``output``.
    """

    inputs: tuple[Path, ...]
    output: Path
    images: tuple[Path, ...] = ()
    mpp: float | None = None
    channel: str | None = None
    kind: str = "cell"
    whole_cells: bool = False
    overwrite: bool = False


@dataclass
class Converted:
    """What became of it.

    Attributes
    ----------
    notes : list of str
        What was left out, one line each.
    """

    output: Path
    pictures: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)


def convert(request: ConvertRequest) -> Converted:
    """Write the COCO JSON and its pictures.

    Raises
    ------
    InputError
        With one line a fault, if anything is wrong with an input or its picture; nothing is
        written then but pictures.
    SettingsError
        If it does not say which picture or channel is meant, or a package is missing.
    OutputError
        If the JSON is there already, or the disk refuses.
    """
    if request.output.exists() and not request.overwrite:
        raise OutputError(
            f"{request.output}: is there already; take another name, or --overwrite replaces it"
        )
    pairs = list(zip(request.inputs, _pictures(request), strict=True))
    drawings = [_read(path, request) for path, _ in pairs]
    made = _Maker(request)
    for (path, picture), drawing in zip(pairs, drawings, strict=True):
        with open_slide(picture, mpp=request.mpp) as slide:
            made.add(path, drawing, slide)
    return made.written()


def _read(path: Path, request: ConvertRequest) -> Drawing:
    ending = next((e for e in sorted(_READERS, key=len)[::-1] if path.name.lower().endswith(e)), "")
    if not ending:
        raise SettingsError(f"{path}: expected a name that ends in {', '.join(_READERS)}")
    drawing = _READERS[ending](path, request.whole_cells)
    if not (drawing.objects or drawing.regions or drawing.faults):
        raise InputError(f"{path}: holds no outlines of objects")
    return drawing


def _pictures(request: ConvertRequest) -> list[Path]:
    """The picture of each input."""
    given = request.images
    folder = given[0] if len(given) == 1 and _is_plain_folder(given[0]) else None
    if given and folder is None:
        if len(given) != len(request.inputs):
            raise SettingsError(
                f"{len(request.inputs)} inputs and {len(given)} pictures: give --image once for "
                "each input, in the same order, or once with a folder"
            )
        return list(given)
    return [_beside(path, folder or path.parent) for path in request.inputs]


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not has_ending(path)


def _beside(path: Path, folder: Path) -> Path:
    """The picture whose name an input has."""
    stem = Path(path.name.removesuffix(".gz")).stem
    try:
        there = sorted(entry for entry in folder.iterdir() if has_ending(entry))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from error
    named = [entry for entry in there if stem in (entry.name, slide_name(entry))]
    if len(named) != 1:
        said = "several pictures are" if named else "no picture is"
        raise SettingsError(
            f"{path}: {said} called {stem!r} in {folder}; --image says which it belongs to"
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
        self.masks_px = 0
        self.made = Converted(request.output)

    def add(self, path: Path, drawing: Drawing, slide: Slide) -> None:
        """One input with its picture."""
        self.masks_px = 0
        left_out, extent = Counter(drawing.left_out), (slide.height, slide.width)
        faults = list(drawing.faults)

        def masks(drawn: Sequence[Drawn]) -> Iterator[tuple[Drawn, Outline]]:
            for one in drawn:
                try:
                    outline = one.mask(extent)
                except ValueError as error:
                    faults.append(f"{one.said}: {error}")
                    continue
                if outline is None:
                    left_out["outlines smaller than a pixel"] += 1
                    continue
                self.masks_px += outline[1].size
                if self.masks_px > MOST_MASKS_PX:
                    raise InputError(
                        f"{path}: the outlines together span more than {MOST_MASKS_PX:,} px: "
                        "convert fewer at a time"
                    )
                yield one, outline

        objects = [(self._class(one.kind), outline) for one, outline in masks(drawing.objects)]
        regions = [outline for _, outline in masks(drawing.regions)]
        ignored = [outline for _, outline in masks(drawing.ignored)]
        self.faults += [f"{path}: {fault}" for fault in faults]
        if not self.faults:
            places: list[tuple[Box, NDArray[np.bool_] | None]]
            places = [(Box(*box), mask) for box, mask in regions]
            places = places or [(Box(0, 0, *extent), None)]
            for place, known in places:
                self._picture(slide, place, known, objects, ignored)
            outside = sum(not any(_meet(o, r) for r in regions) for _, o in objects)
            if regions and outside:
                left_out["objects outside of the regions"] += outside
        self.made.notes += [f"{path}: left out: {what} ({n:,})" for what, n in left_out.items()]

    def _class(self, kind: str) -> int:
        return self.classes.setdefault(kind or self.request.kind, len(self.classes) + 1)

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
        own: list[tuple[int, Outline]] = []
        for kind, outline in objects:
            if known is not None and not _meet(outline, (place.corners, known)):
                continue
            inside = _inside(outline, place)
            if inside is None:
                continue
            box, mask = inside
            at = slice(box[0], box[2]), slice(box[1], box[3])
            if int(mask.sum()) < min(SMALLEST_PX, int(outline[1].sum())):
                unknown[at] |= mask
                continue
            unknown[at] &= ~mask
            own.append((kind, inside))
        crowds = [tight((0, 0), unknown), *(_inside(outline, place) for outline in ignored)]
        for kind, (box, mask) in own:
            self._row(number, kind, annotation(box, mask, extent))
        for crowd in crowds:
            if crowd is not None:
                self._row(number, 1, {**annotation(*crowd, extent), "iscrowd": 1})
        self.made.objects += len(own)
        entry = {"id": number, "file_name": self._saved(slide, place)}
        size = {"height": place.height, "width": place.width, "modality": "unknown"}
        self.images.append({**entry, **size, **({} if slide.mpp is None else {"mpp": slide.mpp})})

    def _row(self, image: int, kind: int, said: dict[str, object]) -> None:
        self.rows.append({"id": len(self.rows) + 1, "image_id": image, "category_id": kind, **said})

    def _saved(self, slide: Slide, place: Box) -> str:
        """Write the picture, and say its name."""
        if place.area > UNSEEN_PX:
            raise SettingsError(
                f"{slide.path}: {place.height:,} × {place.width:,} px are too many to learn from "
                "at once: outline the places that are done as annotations of class Region*"
            )
        part = (
            ""
            if place.shape == (slide.height, slide.width)
            else (f"-y{place.y0}-x{place.x0}-{place.height}x{place.width}")
        )
        name = f"{slide.name}{part}.tif"
        taken = {str(entry["file_name"]).lower() for entry in self.images}
        while name.lower() in taken:
            name = f"{name.removesuffix('.tif')}-{len(self.images) + 1}.tif"
        pixels = slide.read(place, channels=_channels(slide, self.request.channel))
        path = self.request.output.parent / "images" / name
        with writing(path) as temporary:
            tifffile.imwrite(
                temporary,
                pixels if pixels.shape[2] == 3 else pixels[..., 0],
                photometric="rgb" if pixels.shape[2] == 3 else "minisblack",
                compression="zlib",
                metadata=None,
            )
        self.made.pictures += 1
        return name

    def written(self) -> Converted:
        """Write the JSON.

        Raises
        ------
        InputError
            If anything was wrong.
        """
        if self.faults:
            raise InputError("\n".join(shown_faults(self.faults)))
        data = {
            "info": {"description": "converted by cellseg annotations convert"},
            "images": self.images,
            "annotations": self.rows,
            "categories": [
                {"id": number, "name": name}
                for name, number in (self.classes or {self.request.kind: 1}).items()
            ],
        }
        with writing(self.request.output) as temporary:
            temporary.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")
        return self.made


def _channels(slide: Slide, wanted: str | None) -> list[int]:
    names = list(slide.channels)
    if wanted is None:
        if slide.is_rgb or len(names) == 1:
            return list(range(len(names)))
        raise SettingsError(
            f"{slide.path}: has the channels {', '.join(names)}; --channel says which to learn from"
        )
    if wanted in names:
        return [names.index(wanted)]
    if wanted.isdecimal() and int(wanted) < len(names):
        return [int(wanted)]
    raise SettingsError(f"{slide.path}: no channel {wanted!r}; there are: {', '.join(names)}")


def _inside(outline: Outline, place: Box) -> Outline | None:
    """What of an outline lies in a box, from the box's corner on."""
    box, mask = Box(*outline[0]), outline[1]
    shared = box.intersection(place)
    return tight((shared.y0 - place.y0, shared.x0 - place.x0), mask[shared.inside(box)])


def _meet(one: Outline, other: Outline) -> bool:
    """Whether two outlines share a pixel."""
    box, mask = other
    found = _inside(one, Box(*box))
    if found is None:
        return False
    (y0, x0, y1, x1), part = found
    return bool((mask[y0:y1, x0:x1] & part).any())
