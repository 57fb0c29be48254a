"""The data of a training: read, split, and brought to the network's scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from cellseg.annotations.coco import join, judgeable, read_coco, with_classes
from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import InputError, Notice
from cellseg.network.detector import Sizes
from cellseg.network.modelfile import DataCard
from cellseg.protocol import CountProtocol, load_protocol
from cellseg.train.request import Report, TrainRequest
from cellseg.train.validate import split

DIAMETERS_PX = (12.0, 48.0)
"""The usual object is brought into this range where the pixel size is known."""

LONGEST_PX = 512.0
"""Tiles overlap by no more than this for the sake of large objects."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images ready for training, with their zoom."""

    train: list[AnnotatedImage]
    held: list[AnnotatedImage]  # To validate on.
    classes: tuple[str, ...]
    mpp: float | None  # µm per pixel of the network.
    cards: tuple[DataCard, ...]
    digest: str  # SHA-256 over the JSON files: a resumed training must have the same.
    validated_on: str  # What ``held`` is, for the model card.

    @property
    def diameter_px(self) -> float:
        """The usual object, pixels of the network."""
        return _usual_diameter(self.train)

    @property
    def protocol(self) -> CountProtocol:
        """What a slide that no protocol fits is counted by: that of most images' light."""
        dark = sum(image.light == "fluorescence" for image in self.train)
        return load_protocol("fluorescence" if 2 * dark > len(self.train) else "brightfield")

    @property
    def sizes(self) -> Sizes:
        """Sizes that a count with the model believes: the annotated ones, with room either way."""
        images = [image for image in (*self.train, *self.held) if image.outlines]
        areas = np.concatenate(
            [[mask.sum() * image.zoom**2 for mask in image.outlines] for image in images]
        )
        sides = np.concatenate(
            [(image.boxes[:, 2:] - image.boxes[:, :2]).max(1) * image.zoom for image in images]
        )
        # Percentiles: one wrong outline must not set the gates, nor how far tiles overlap.
        smallest, largest = np.percentile(areas, [1, 99])
        longest = min(1.5 * float(np.percentile(sides, 99)), LONGEST_PX)
        return Sizes(round(smallest / 2, 1), round(2 * largest, 1), round(longest, 1))


def prepare(request: TrainRequest, tell: Report) -> Prepared:
    """Read, split and scale the data of a request.

    InputError with one line a fault.
    """
    sets = [read_coco(path, images=request.images) for path in request.data]
    whole = join(sets)
    if not any(image.outlines for image in whole.images):
        what = "objects have boxes but no outlines" if whole.objects else "are no annotated objects"
        raise InputError(f"{request.data[0]}: there {what}")
    if request.validation is not None:
        other = judgeable(read_coco(request.validation, images=request.images))
        if unknown := sorted(set(other.classes) - set(whole.classes)):
            lacking = f"classes that the training data does not have: {', '.join(unknown)}"
            raise InputError(f"{request.validation}: {lacking}")
        images, held = list(whole.images), with_classes(other, whole.classes)
        said = request.validation.name
    else:
        images, held = split(whole.images, request.held_share)
        said = f"{len(held)} images held back" if held else ""
        if not held:
            tell(Notice("only one image: nothing is held back, so there are no validation scores"))
    for note in whole.notes:
        tell(Notice(note))
    images, held = (
        [one if one.mpp is not None else replace(one, mpp=request.mpp) for one in part]
        for part in (images, held)
    )
    mpp = network_mpp(images)
    digest = sha256()
    for path in (*request.data, *([request.validation] if request.validation else [])):
        digest.update(path.read_bytes())
    data = Prepared(
        train=_zoomed(images, mpp),
        held=_zoomed(held, mpp),
        classes=whole.classes,
        mpp=mpp,
        cards=tuple(
            DataCard(
                name=name_of(path),
                images=len(one.images),
                objects=one.objects,
                licence=request.licence,
            )
            for path, one in zip(request.data, sets, strict=True)
        ),
        digest=digest.hexdigest(),
        validated_on=said,
    )
    objects = sum(len(image.masks) for image in data.train)
    scale = f"{mpp:.3g} µm/px" if mpp else "unknown pixel size"
    tell(
        Notice(
            f"{len(images)} images with {objects} objects of {len(data.classes)} "
            f"class{'es' * (len(data.classes) > 1)} ({', '.join(data.classes)}), "
            f"{len(held)} images to validate; {scale}, usual object {data.diameter_px:.0f} px"
        )
    )
    return data


def network_mpp(images: list[AnnotatedImage]) -> float | None:
    """µm per pixel for the network: the images' median, so that the usual object fits it.

    None where an image does not say its own; all images are then taken as they are.
    """
    known = [image.mpp for image in images if image.mpp is not None]
    if len(known) < len(images):
        return None
    mpp = float(np.median(known))
    diameter = _usual_diameter(_zoomed(images, mpp))
    return mpp * diameter / float(np.clip(diameter, *DIAMETERS_PX))


def _zoomed(images: list[AnnotatedImage], mpp: float | None) -> list[AnnotatedImage]:
    if mpp is None:
        return images
    return [replace(image, zoom=(image.mpp or mpp) / mpp) for image in images]


def _usual_diameter(images: list[AnnotatedImage]) -> float:
    sizes = [image.median_diameter_px * image.zoom for image in images if image.outlines]
    return float(np.median(sizes)) if sizes else 20.0


def name_of(path: Path) -> str:
    """A name for a data set or a model, from where it lies."""
    path = path.resolve()
    common = path.stem in ("train", "instances_default", "_annotations.coco", "annotations")
    return path.parent.name if common and path.suffix else path.stem or "model"
