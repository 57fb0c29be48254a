"""COCO JSON, as CVAT, LabelMe's converters and Roboflow export it, to annotated images.

Every fault of a file is collected and told at once: nobody wants to mend an annotation
project one error message at a time.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, TypeVar

import numpy as np
from imageio.v3 import improps, imread
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from tifffile import TiffFile, imwrite

from cellseg.annotations.image import AnnotatedImage
from cellseg.annotations.masks import Outline, box_outline, outline_of
from cellseg.errors import InputError, input_errors, line_of, writing
from cellseg.stain.normalise import Light
from cellseg.text import visible

FAULTS_SHOWN = 40

UNSEEN_PX = 100_000_000
"""Outlines on images that are not there, or of another size, are looked at up to this size."""

_Row = dict[str, object]
_PAGES = 64
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TRANSMITTED = ("histology", "brightfield", "bright field", "phase", "transmitted", "ihc", "h&e")


@dataclass(frozen=True, eq=False)
class DataSet:
    """Annotated images, their classes by index, and notes of what was left out, for a person."""

    images: tuple[AnnotatedImage, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def objects(self) -> int:
        """How many objects are annotated."""
        return sum(len(image.masks) for image in self.images)


def read_coco(path: str | Path, *, images: str | Path | None = None) -> DataSet:
    """Read a COCO JSON file and the images that it names.

    InputError if the file cannot be read; with one line a fault if annotations are wrong.

    Without a folder of ``images`` these are looked for beside the JSON, and in ``images`` there.
    Where the JSON lies in a folder ``annotations`` (as CVAT exports it), also in that folder's
    neighbour ``images``. Images of a JSON in a result folder may lie beside that, too. A file name
    never leads out of these folders.
    """
    return _Reader(Path(path), None if images is None else Path(images)).read()


def join(sets: list[DataSet]) -> DataSet:
    """One data set from several; classes are matched by name."""
    classes = tuple(dict.fromkeys(name for one in sets for name in one.classes))
    images = [image for one in sets for image in with_classes(one, classes)]
    return DataSet(tuple(images), classes, tuple(note for one in sets for note in one.notes))


def judgeable(data: DataSet) -> DataSet:
    """The images that are annotated whole; InputError where there are none.

    A find in a region that is ignored is neither right nor wrong, and a box is no outline.
    """
    whole = tuple(image for image in data.images if not image.known_in_part)
    left = len(data.images) - len(whole)
    if not whole:
        raise InputError("no image is annotated whole: all have regions to ignore or boxes alone")
    said = f"{left} images are annotated in part (ignored regions, boxes alone): not judged by"
    return replace(data, images=whole, notes=(*data.notes, *([said] if left else [])))


def shown_faults(faults: Sequence[str]) -> list[str]:
    """Faults of a file, one line each; of many the first ones and how many there are beside."""
    more = len(faults) - FAULTS_SHOWN
    return [*faults[:FAULTS_SHOWN], *([f"… and {more} more"] if more > 0 else [])]


def with_classes(data: DataSet, classes: tuple[str, ...]) -> list[AnnotatedImage]:
    """The images of ``data``, their class indices moved to another list of names."""
    to = np.array([classes.index(name) for name in data.classes], dtype=np.int64)
    return [replace(image, classes=to[image.classes]) for image in data.images]


class _Entry(BaseModel):
    """An image or a category."""

    model_config = ConfigDict(strict=True)

    id: int
    name: Annotated[str, Field(pattern=r"\S"), AfterValidator(visible)]


_E = TypeVar("_E", bound=_Entry)


class _ImageEntry(_Entry):
    name: str = Field(alias="file_name", min_length=1)
    height: int = Field(ge=1, lt=2**31)
    width: int = Field(ge=1, lt=2**31)
    mpp: float | None = Field(None, gt=0.01, lt=100)
    modality: str | None = None


@dataclass
class _Reader:
    path: Path
    folder: Path | None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self) -> DataSet:
        data = self._json()
        used = {_key(row.get("category_id")) for row in data["annotations"]}
        entries = self._entries("image", _ImageEntry, data["images"])
        found = self._entries("category", _Entry, data["categories"])
        # Roboflow's supercategory and LabelMe's background: id 0, nothing annotated.
        if len(found) > 1 and 0 in found and 0 not in used:
            left = found.pop(0).name
            self.notes.append(f"category {left!r} (id 0) has no objects and is left out")
        if not found:
            self.faults.append("there are no categories")
        names = {key: found[key].name for key in sorted(found)}
        by_image = self._by_image(data["annotations"], names, entries)
        images = [
            image
            for key, entry in entries.items()
            if (image := self._image(entry, by_image[key], [*names])) is not None
        ]
        boxes = sum(len(image.masks) - len(image.outlines) for image in images)
        if boxes:
            self.notes.append(f"{boxes} objects have a box and no outline: they teach no outlines")
        if self.faults:
            count = f"{len(self.faults)} fault" + "s" * (len(self.faults) > 1)
            lines = [f"  - {line}" for line in shown_faults(self.faults)]
            raise InputError("\n".join([f"{self.path}: {count}:", *lines]))
        if not images:
            raise InputError(f"{self.path}: lists no images")
        return DataSet(tuple(images), tuple(names.values()), tuple(self.notes))

    def _json(self) -> dict[str, list[_Row]]:
        with input_errors(self.path, ValueError, RecursionError, what="cannot be read as JSON"):
            data = json.loads(self.path.read_text(encoding="utf-8-sig"))
        parts = ("images", "annotations", "categories")
        for part in parts:
            rows = data.get(part) if isinstance(data, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise InputError(
                    f"{self.path}: no COCO annotations: expected a list '{part}' of objects"
                )
        return {part: data[part] for part in parts}

    def _entries(self, what: str, kind: type[_E], rows: list[_Row]) -> dict[int, _E]:
        found: dict[int, _E] = {}
        names = set()
        for row in rows:
            try:
                entry = kind.model_validate(row)
            except ValidationError as error:
                fault = error.errors()[0]
                where = ".".join(map(str, fault["loc"]))
                self.faults.append(f"{what} {row.get('id')!r}: {where}: {fault['msg']}")
                continue
            if entry.id in found:
                self.faults.append(f"{what} id {entry.id} stands twice")
            elif entry.name in names:
                self.faults.append(f"{what} {entry.name!r} stands twice")
            else:
                found[entry.id] = entry
                names.add(entry.name)
        return found

    def _by_image(
        self, rows: list[_Row], names: Mapping[int, str], entries: Mapping[int, _ImageEntry]
    ) -> dict[int, list[_Row]]:
        found: dict[int, list[_Row]] = defaultdict(list)
        seen: set[str] = set()
        for row in rows:
            label, image = f"annotation {row.get('id')!r}", _key(row.get("image_id"))
            if label in seen:
                self.faults.append(f"{label} stands twice")
            seen.add(label)
            if image is None or image not in entries:
                self.faults.append(f"{label} belongs to an unknown image {row.get('image_id')!r}")
            elif not _ignored(row) and _key(row.get("category_id")) not in names:
                self.faults.append(f"{label} has an unknown category {row.get('category_id')!r}")
            else:
                found[image].append(row)
        return found

    def _image(
        self, entry: _ImageEntry, rows: list[_Row], keys: list[object]
    ) -> AnnotatedImage | None:
        """An image with its objects; ``keys`` are the categories' ids, a class each."""
        name, extent = entry.name, (entry.height, entry.width)
        path, pixels = self._find(name), None
        try:
            pixels = None if path is None else read_pixels(path, extent)
        except Exception as error:  # decoders raise whatever they like
            said = line_of(error)
            self.faults.append(f"{name}: cannot be read as an image: {said}")
        if pixels is None and extent[0] * extent[1] > UNSEEN_PX:
            return None
        objects: list[tuple[Outline, int, bool]] = []
        ignored: list[Outline] = []
        for row in rows:
            known = not row.get("box_only") and bool(row.get("segmentation"))
            try:
                if _ignored(row):
                    ignored.append(outline_of(row.get("segmentation"), extent))
                    continue
                outline = (
                    outline_of(row["segmentation"], extent)
                    if known
                    else box_outline(row.get("bbox"), extent)
                )
                objects.append((outline, keys.index(row["category_id"]), known))
            except ValueError as error:
                self.faults.append(f"{name}: annotation {row.get('id')!r} {error}")
        if pixels is None:
            return None
        if ignored and not objects:
            self.notes.append(f"{name}: nothing is annotated but regions to ignore")
        modality = entry.modality or "unknown"
        return AnnotatedImage(
            name=name,
            pixels=pixels,
            boxes=np.array([box.corners for (box, _), _, _ in objects], np.int32).reshape(-1, 4),
            masks=[mask for (_, mask), _, _ in objects],
            classes=np.array([place for _, place, _ in objects], np.int64),
            outlined=np.array([known for _, _, known in objects], bool),
            ignored=tuple(ignored),
            light=light_of(modality, pixels),
            mpp=entry.mpp,
            group=f"{self.path.absolute().parent.name}/{modality}",
            path=path,
        )

    def _find(self, name: str) -> Path | None:
        """Where an image lies, below one of the folders that may hold it."""
        relative = PurePosixPath(name.replace("\\", "/"))
        leads_out = relative.is_absolute() or ".." in relative.parts
        if leads_out or "\0" in name or PureWindowsPath(name).drive:
            self.faults.append(f"{name!r}: file names must lie below the folder of the JSON")
            return None
        roots = self._folders()
        for root in roots:
            path = root / relative
            try:
                there = path.is_file()
            except OSError as error:  # a name that is too long for any file
                self.faults.append(f"{name[:80]}…: {error.strerror}")
                return None
            if there:
                if path.resolve().is_relative_to(root.resolve()):
                    return path
                self.faults.append(f"{name}: a link that leads out of {root}")
                return None
        self.faults.append(f"{name}: no such image in {' or '.join(map(str, roots))}")
        return None

    def _folders(self) -> list[Path]:
        if self.folder is not None:
            return [self.folder]
        here = self.path.parent
        found, home = [here, here / "images"], here.resolve().parent
        if here.resolve().name == "annotations":
            images = home / "images"
            found += [home, images, images / self.path.stem.removeprefix("instances_")]
        if here.resolve().suffix == ".cellseg":
            found.append(home)
        return found


def _ignored(row: _Row) -> bool:
    """Whether what lies there is to be left out of account: COCO's crowds, but not lone boxes."""
    return bool(row.get("iscrowd")) and not row.get("box_only")


def _key(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_pixels(path: Path, extent: tuple[int, int]) -> NDArray[np.generic]:
    """An annotated image of (H, W) as (H, W, 1 or 3): alpha goes, channels come last.

    ValueError if it has other sides, more planes, or pages that would take all memory; decoders
    raise whatever they like.
    """
    # Bytes have no folder: tifffile would follow what a document says of other files.
    data = path.read_bytes()
    if data[:4] not in _TIFF:
        # Without a plugin's name imageio tries all; one loads a library from the working folder.
        _check_claim(improps(data, plugin="pillow").shape, extent)
        pixels = np.asarray(imread(data, plugin="pillow"))
    else:
        with TiffFile(BytesIO(data), _multifile=False) as tif:
            # More pages, or smaller copies of one, than a picture has would all be read.
            copies = [len(getattr(page, "subifds", None) or ()) for page in tif.pages[:_PAGES]]
            if max(len(tif.pages), *copies) > _PAGES:
                raise ValueError(f"claims more than {_PAGES} pages, or smaller copies of one page")
            _check_claim(tif.series[0].shape, extent)
            pixels = tif.asarray()
    if pixels.dtype.kind not in "uifb":
        raise ValueError(f"pixels of type {pixels.dtype}")
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[1:] == extent and pixels.shape[0] <= 4:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise ValueError(f"expected one grey or colour plane, got an array of {pixels.shape}")
    if pixels.shape[:2] != extent:
        raise ValueError(
            f"is {pixels.shape[0]} × {pixels.shape[1]} px (height × width), "
            f"the annotations say {extent[0]} × {extent[1]}"
        )
    return np.ascontiguousarray(pixels[..., : 3 if pixels.shape[2] >= 3 else 1])


def write_pixels(path: Path, pixels: NDArray[np.generic]) -> None:
    """Write a picture to learn from, (H, W, C): as colours where C is 3, else its first channel."""
    is_rgb = pixels.shape[2] == 3
    kind = "rgb" if is_rgb else "minisblack"
    shown = pixels if is_rgb else pixels[..., 0]
    imwrite(path, shown, photometric=kind, compression="zlib", metadata=None)


def write_coco(
    path: Path, images: Sequence[_Row], rows: Sequence[_Row], classes: Sequence[str], **info: str
) -> None:
    """Write a COCO JSON of entries of images and of objects; objects and classes count from 1."""
    data = {
        "info": info,
        "images": images,
        "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
    }
    with writing(path) as temporary:
        temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")


def _check_claim(shape: Sequence[int], extent: tuple[int, int]) -> None:
    if math.prod(shape) > 4 * math.prod(extent):
        raise ValueError(f"claims an array of {shape}, more than four channels of {extent}")


def modality_of(stain: str) -> str:
    """What an image's entry says of a protocol's stain, for :func:`light_of`."""
    return {"he": "histology", "ihc": "histology ihc"}.get(stain, stain)


def light_of(modality: str, pixels: NDArray[np.generic]) -> Light:
    """How an image was lit: as it says, else by its background.

    Fluorescence has a dark background and no stain: the median lies near the darkest
    pixels. Stained tissue is bright or coloured.
    """
    said = modality.lower()
    if "fluor" in said:
        return "fluorescence"
    if any(word in said for word in _TRANSMITTED):
        return "transmitted"
    values = pixels[:: max(1, pixels.shape[0] // 256), :: max(1, pixels.shape[1] // 256)]
    brightest = np.nan_to_num(values.astype(np.float32)).max(axis=2)
    low, middle, high = (float(v) for v in np.percentile(brightest, [0.5, 50, 99.8]))
    dark = middle - min(low, middle) < 0.25 * (high - low) and middle < 0.5 * high
    return "fluorescence" if dark else "transmitted"
