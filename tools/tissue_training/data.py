"""Material for made overviews: textures and lone cells cut from annotated images, at 2 µm/px."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from imageio.v3 import imread
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from cellseg.annotations.coco import read_coco
from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import InputError
from cellseg.stain.normalise import Light, Normaliser

Kind = Literal["he", "ihc", "fluorescence", "brightfield"]
Split = Literal["train", "val"]

FINE_MPP = 2.0
"""µm per pixel of the material, four fine pixels an overview pixel."""

USUAL_NUCLEUS_UM = 8.0
"""Where an image has no pixel size, its median nucleus is taken to be this wide."""

SCALES = (0.75, 1.0, 2.0)
"""Each image comes smaller, as it is, and as large as if it were read with no pixel size."""


@dataclass(frozen=True, eq=False)
class Texture:
    """One field at 2 µm/px.

    Attributes
    ----------
    pixels : ndarray, float32, (h, w, 3)
        Normalised: white 1 in transmitted light, background 0 in fluorescence.
    nuclei : ndarray, bool, (h, w)
        Fine pixels that a nucleus covers, at least in part.
    centres : ndarray, uint8, (h, w)
        How many annotated cells have their centre in each fine pixel.
    kind : {'he', 'ihc', 'fluorescence', 'brightfield'}
    """

    pixels: NDArray[np.float32]
    nuclei: NDArray[np.bool_]
    centres: NDArray[np.uint8]
    kind: Kind

    @property
    def light(self) -> Light:
        return "fluorescence" if self.kind == "fluorescence" else "transmitted"


@dataclass(frozen=True, eq=False)
class LoneCell:
    """One cell cut out: a transmittance (1 around it), or light to add (0 around it).

    Attributes
    ----------
    pixels : ndarray, float32, (h, w, 3)
    """

    pixels: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Material:
    """All textures and lone cells of a split, by kind."""

    textures: dict[Kind, list[Texture]]
    cells: dict[Kind, list[LoneCell]]


def load_material(
    folders: list[Path],
    split: Split,
    *,
    rng: np.random.Generator,
    scales: tuple[float, ...] = SCALES,
    assumed_mpp: float | None = None,
) -> Material:
    """Read every folder of annotated images.

    Parameters
    ----------
    folders : list of Path
        Each with ``train.json`` and ``val.json`` (COCO), or with ``points.csv``.
    split : {'train', 'val'}
        The halves of scikit-image's stained section count as one split each.
    rng : Generator
        Chooses the lone cells and the recolouring of H&E as IHC.
    scales : tuple of float
        Versions made of each image.
    assumed_mpp : float, optional
        µm per pixel of images that do not say; otherwise it follows from their nuclei.

    Raises
    ------
    InputError
        If a folder has neither file.
    """
    textures: dict[Kind, list[Texture]] = defaultdict(list)
    cells: dict[Kind, list[LoneCell]] = defaultdict(list)
    for folder in folders:
        if (folder / f"{split}.json").is_file():
            images = list(read_coco(folder / f"{split}.json").images)
        elif (folder / "points.csv").is_file():
            images = _pointed(folder, split)
        else:
            raise InputError(f"{folder}: expected {split}.json or points.csv")
        for image in images:
            if image.mpp is None:
                image = replace(image, mpp=assumed_mpp or _mpp_by_nuclei(image))
            made = [_texture(image, scale) for scale in scales]
            textures[_kind(image)] += made
            if made[0].kind == "he" and rng.random() < 0.5:
                textures["ihc"].append(_as_ihc(made[min(1, len(made) - 1)], rng))
            cells[_kind(image)] += _lone_cells(image, rng, 4)
    textures["ihc"].append(_stained_section(split))
    return Material(dict(textures), dict(cells))


def shrink(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Resample (h, w, C) to ``1 / factor`` of its size by antialiased interpolation."""
    size = (max(2, round(image.shape[0] / factor)), max(2, round(image.shape[1] / factor)))
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    small = F.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy(), dtype=np.float32)


def _mpp_by_nuclei(image: AnnotatedImage) -> float:
    return USUAL_NUCLEUS_UM / image.median_diameter_px


def _fine_factor(image: AnnotatedImage) -> float:
    """Image pixels per fine pixel."""
    if image.mpp is None:
        raise ValueError(f"{image.name}: expected a pixel size")
    return FINE_MPP / image.mpp


def _kind(image: AnnotatedImage) -> Kind:
    if image.light == "fluorescence":
        return "fluorescence"
    return "he" if image.group.endswith("histology") else "brightfield"


def _texture(image: AnnotatedImage, scale: float) -> Texture:
    pixels = Normaliser.fit(image.pixels, image.light).apply(image.pixels)
    factor = _fine_factor(image) / scale
    small = shrink(pixels, factor) if factor != 1 else pixels
    height, width = image.pixels.shape[:2]
    covered = np.zeros((height, width, 1), dtype=np.float32)
    centres = np.zeros(small.shape[:2], dtype=np.uint8)
    for (y0, x0, y1, x1), mask in zip(image.boxes.tolist(), image.masks, strict=True):
        covered[y0:y1, x0:x1, 0] += mask
        y = min(int((y0 + y1) / 2 * small.shape[0] / height), small.shape[0] - 1)
        x = min(int((x0 + x1) / 2 * small.shape[1] / width), small.shape[1] - 1)
        centres[y, x] += 1
    nuclei = shrink(np.minimum(covered, 1), factor)[..., 0] > 0.2
    return Texture(np.clip(small, 0, 1), nuclei | (centres > 0), centres, _kind(image))


def _pointed(folder: Path, split: Split) -> list[AnnotatedImage]:
    """Images with cell centres only; each cell becomes a disc of the usual nucleus."""
    with (folder / "counts.csv").open(newline="", encoding="utf-8") as lines:
        names = [row["image"] for row in csv.DictReader(lines) if row["split"] == split]
    points: dict[str, list[tuple[int, int]]] = defaultdict(list)
    with (folder / "points.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            points[row["image"]].append((int(float(row["y"])), int(float(row["x"]))))
    images = []
    for name in names:
        pixels = np.asarray(imread(folder / "images" / name))[..., :3]
        boxes = []
        for y, x in points[name]:
            if 0 <= y < pixels.shape[0] and 0 <= x < pixels.shape[1]:
                boxes.append((max(y - 6, 0), max(x - 6, 0), y + 7, x + 7))
        array = np.array(boxes, dtype=np.int32).reshape(-1, 4)
        array[:, 2] = np.minimum(array[:, 2], pixels.shape[0])
        array[:, 3] = np.minimum(array[:, 3], pixels.shape[1])
        masks = [np.ones((y1 - y0, x1 - x0), dtype=bool) for y0, x0, y1, x1 in array.tolist()]
        images.append(
            AnnotatedImage(
                name=name,
                pixels=pixels,
                boxes=array,
                masks=masks,
                classes=np.zeros(len(masks), dtype=np.int64),
                light="transmitted",
                mpp=0.5,
                group=f"{folder.name}/histology",
            )
        )
    return images


def _lone_cells(image: AnnotatedImage, rng: np.random.Generator, count: int) -> list[LoneCell]:
    """Cut out a few objects with a soft rim; none where there are boxes but no outlines."""
    if all(mask.all() for mask in image.masks):
        return []
    pixels = Normaliser.fit(image.pixels, image.light).apply(image.pixels)
    factor = _fine_factor(image)
    if factor < 1.5 or "phase" in image.group:
        return []
    found = []
    for index in rng.choice(len(image.masks), min(count, len(image.masks)), replace=False):
        rim = int(2 * factor)
        y0, x0, y1, x1 = (int(v) for v in image.boxes[index])
        window = np.zeros((y1 - y0 + 2 * rim, x1 - x0 + 2 * rim), dtype=np.float32)
        window[rim:-rim, rim:-rim] = image.masks[index]
        alpha = np.clip(2 * ndimage.gaussian_filter(window, factor / 3), 0, 1)[..., None]
        rows = np.clip(np.arange(y0 - rim, y1 + rim), 0, pixels.shape[0] - 1)
        columns = np.clip(np.arange(x0 - rim, x1 + rim), 0, pixels.shape[1] - 1)
        cut = pixels[rows[:, None], columns[None]]
        if image.light == "fluorescence":
            patch = alpha * np.maximum(cut - np.percentile(cut, 5), 0)
            patch = patch / max(float(patch.max()), 1e-3)
        else:
            patch = 1 - alpha * (1 - cut)
        found.append(LoneCell(shrink(patch.astype(np.float32), factor)))
    return found


def _as_ihc(texture: Texture, rng: np.random.Generator) -> Texture:
    """Recolour H&E as haematoxylin and DAB: eosin goes, some nuclei or membranes turn brown."""
    from skimage.color import hed2rgb, rgb2hed

    stains = rgb2hed(np.clip(texture.pixels, 1e-3, 1))
    field = rng.random((3, 3, 1)).astype(np.float32)
    grown = shrink(field, 3 / max(stains.shape[:2]))[: stains.shape[0], : stains.shape[1], 0]
    brown = np.zeros(stains.shape[:2], dtype=np.float32)
    brown[: grown.shape[0], : grown.shape[1]] = grown
    blue = np.maximum(stains[..., 0], 0)
    source = blue if rng.random() < 0.6 else np.maximum(stains[..., 1], 0)
    share = np.clip(brown * rng.uniform(0.5, 2.0), 0, 1)
    stack = np.stack(
        [blue * (1 - 0.7 * share) * rng.uniform(0.5, 1.1), 0 * blue, 1.3 * source * share], axis=2
    )
    pixels = np.clip(hed2rgb(stack), 0, 1).astype(np.float32)
    return Texture(pixels, texture.nuclei, texture.centres, "ihc")


def _stained_section(split: Split) -> Texture:
    """Half of scikit-image's IHC section (about 0.5 µm/px); its cells are not annotated."""
    from skimage.data import immunohistochemistry

    image = immunohistochemistry()  # type: ignore[no-untyped-call]
    half = image[:, :256] if split == "train" else image[:, 256:]
    pixels = shrink(Normaliser.fit(half, "transmitted").apply(half), 4.0)
    empty = np.zeros(pixels.shape[:2], dtype=np.uint8)
    return Texture(np.clip(pixels, 0, 1), empty.astype(bool), empty, "ihc")
