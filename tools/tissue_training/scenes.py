"""Made overviews with known tissue: real textures and cells on made backgrounds with debris."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.network.tissue import FINE_FACTOR, overview_features
from cellseg.stain.normalise import Light, Normaliser
from tissue_training import debris
from tissue_training.data import Kind, Material, Texture

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELL_WEIGHT = 4.0
"""Weight in the loss of overview pixels that hold a nucleus."""

LONE_WEIGHT = 16.0
"""The same where few others lie around: a lone cell has nothing but itself to be found by."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One made slide.

    Attributes
    ----------
    fine : ndarray, float32, (S, S, 3)
        At 2 µm/px, normalised.
    tissue : ndarray, bool, (S, S)
        Where tissue was put.
    nuclei : ndarray, bool, (S, S)
        Where nuclei and lone cells lie.
    centres : ndarray, uint8, (S, S)
        Annotated cells per fine pixel.
    unsure : ndarray, bool, (S, S)
        Debris that looks like cells, and debris upon tissue: carries no loss.
    kind : {'he', 'ihc', 'fluorescence', 'brightfield'}
    """

    fine: Image
    tissue: Mask
    nuclei: Mask
    centres: NDArray[np.uint8]
    unsure: Mask
    kind: Kind

    def features(self) -> NDArray[np.float32]:
        """The network's input, (S / 4, S / 4, 7)."""
        light: Light = "fluorescence" if self.kind == "fluorescence" else "transmitted"
        return overview_features(self.fine, light)

    def target(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Label (0 or 1) and weight of each overview pixel.

        Cells weigh more than tissue without cells, lone cells most. In fluorescence, what
        lies between the nuclei of a field is left open: it is neither tissue nor empty.
        """
        tissue, cells, unsure = (_pooled(m) for m in (self.tissue, self.nuclei, self.unsure))
        half = self.tissue.shape[0] // FINE_FACTOR
        blocks = self.tissue.reshape(half, FINE_FACTOR, half, FINE_FACTOR)
        mostly = blocks.mean(axis=(1, 3)) > 0.5
        if self.kind == "fluorescence":
            label = ndimage.binary_dilation(cells, iterations=1)
            weight = np.where(
                label | ~ndimage.binary_dilation(tissue | cells, iterations=3), 1.0, 0.0
            )
        else:
            label = mostly | cells
            rim = (tissue | ndimage.binary_dilation(cells, iterations=2)) & ~label
            weight = np.where(rim, 0.0, 1.0)
        weight = np.where(unsure & ~cells, 0.0, weight)
        lone = ndimage.uniform_filter(cells.astype(np.float32), 9) < 0.15
        weight = np.where(cells, np.where(lone, LONE_WEIGHT, CELL_WEIGHT), weight)
        return label.astype(np.float32), weight.astype(np.float32)


def compose(material: Material, kind: Kind, side: int, rng: np.random.Generator) -> Scene:
    """Make one scene.

    Parameters
    ----------
    material : Material
        What is put on the slide.
    kind : {'he', 'ihc', 'fluorescence', 'brightfield'}
        Which stain.
    side : int
        Fine pixels, a multiple of 4.
    rng : Generator
        Decides everything else.

    Returns
    -------
    Scene
    """
    if side % FINE_FACTOR:
        raise ValueError(f"expected a side in multiples of {FINE_FACTOR}, got {side}")
    canvas = _Canvas(kind, side, rng)
    style = rng.random()
    if style < 0.12:
        canvas.add_field(material, np.ones((side, side), dtype=bool))
    elif style < 0.85:
        for _ in range(int(rng.integers(1, 4))):
            canvas.add_field(material, _region(side, rng))
    if 0.12 < style < 0.92:
        canvas.add_cells(material, int(rng.integers(0, 1 + side // 12)))
    if kind == "fluorescence":
        canvas.add_bright_debris()
    else:
        canvas.add_dark_debris()
    return canvas.finished()


class _Canvas:
    """A scene in the making."""

    def __init__(self, kind: Kind, side: int, rng: np.random.Generator) -> None:
        self.kind, self.side, self.rng = kind, side, rng
        self.bright = kind == "fluorescence"
        ground = debris.dark(side, rng)[..., None] if self.bright else debris.glass(side, rng)
        self.image: Image = ground
        self.tissue = np.zeros((side, side), dtype=bool)
        self.nuclei = np.zeros((side, side), dtype=bool)
        self.unsure = np.zeros((side, side), dtype=bool)
        self.centres = np.zeros((side, side), dtype=np.uint8)

    def add_field(self, material: Material, region: Mask) -> None:
        """Fill a region with one mirrored texture."""
        rng = self.rng
        choices = material.textures[self.kind]
        if self.kind == "brightfield" and not region.all():
            # Phase contrast has a grey ground of its own: it comes as whole fields only.
            choices = [t for t in choices if np.median(t.pixels) > 0.7] or choices
        pixels, nuclei, centres = _spread(choices[rng.integers(len(choices))], self.side, rng)
        soft = ndimage.gaussian_filter(region.astype(np.float32), 0.7)[..., None]
        region = region & ~self.tissue
        soft = soft * (region | (soft[..., 0] < 0.99))[..., None]
        if self.bright:
            light = np.maximum(pixels[..., :1] - np.percentile(pixels[..., 0], 20), 0)
            self.image = self.image + soft * light * np.float32(10 ** rng.uniform(-0.9, 0))
        else:
            strength = rng.uniform(0.35, 1.3)
            stained = np.power(np.maximum(pixels, 0.02), strength, dtype=np.float32)
            self.image = self.image * (1 - soft * (1 - stained))
            # A gap that looks like glass may be a lumen or may be glass: left open.
            clear = ndimage.minimum_filter(stained.min(axis=2), 9) > 0.9
            self.unsure |= region & clear
        self.tissue |= region
        self.nuclei |= nuclei & region
        self.centres += np.where(region, centres, 0).astype(np.uint8)

    def add_cells(self, material: Material, count: int) -> None:
        """Strew lone cells, singly or in groups."""
        rng, choices = self.rng, material.cells.get(self.kind) or material.cells["he"]
        spread = rng.uniform(0.05, 0.5) * self.side
        middle = rng.uniform(0, self.side, 2)
        strength = 10 ** rng.uniform(-0.8, 0) if self.bright else rng.uniform(0.5, 1.2)
        for _ in range(count):
            patch = choices[rng.integers(len(choices))].pixels
            patch = np.rot90(patch, int(rng.integers(4)))
            at = rng.normal(middle, spread) if rng.random() < 0.7 else rng.uniform(0, self.side, 2)
            y, x = int(at[0]), int(at[1])
            h, w = patch.shape[:2]
            if not (y >= 0 and x >= 0 and y + h <= self.side and x + w <= self.side):
                continue
            if self.bright:
                self.image[y : y + h, x : x + w] += patch[..., :1] * np.float32(strength)
                cover = patch[..., 0] > 0.3
            else:
                self.image[y : y + h, x : x + w] *= np.power(patch, np.float32(strength))
                cover = patch.min(axis=2) < 0.85
            self.nuclei[y : y + h, x : x + w] |= cover
            if cover.any():
                self.centres[y + h // 2, x + w // 2] += 1

    def add_dark_debris(self) -> None:
        """Pen, bubbles, fibres, dust, edges; never opaque upon cells."""
        rng, side = self.rng, self.side
        if rng.random() < 0.35:
            self._cover(*debris.pen(side, rng))
        if rng.random() < 0.25:
            self._cover(np.float32(rng.uniform(0.1, 0.5)), debris.bubble(side, rng))
        for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
            mask = debris.fibre(side, rng).astype(np.float32) * np.float32(rng.uniform(0.3, 0.9))
            self._cover(np.float32(rng.uniform(0.05, 0.5)), mask)
        if rng.random() < 0.4:
            dust = debris.blobs(side, rng, count=int(rng.integers(1, 30)), size=(0.7, 2.5))
            self._cover(np.float32(rng.uniform(0, 0.3)), dust * np.float32(rng.uniform(0.5, 1)))
            self.unsure |= dust > 0.15
        if rng.random() < 0.25:
            count = int(rng.integers(1, 5))
            haze = debris.blobs(side, rng, count=count, size=(12, 60))
            self._cover(rng.uniform(0.3, 0.7, 3).astype(np.float32), 0.35 * haze)
        if rng.random() < 0.3:
            line, beyond = debris.edge(side, rng)
            self._cover(np.float32(rng.uniform(0.1, 0.6)), 0.8 * line.astype(np.float32))
            if rng.random() < 0.6:
                shade = np.float32(
                    rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0.6, 0.9), 1.0])
                )
                self._cover(shade, beyond.astype(np.float32))

    def add_bright_debris(self) -> None:
        """Fibres, glowing haze out of focus, edges; small bright dust carries no loss."""
        rng, side = self.rng, self.side
        for _ in range(int(rng.integers(1, 3)) if rng.random() < 0.25 else 0):
            mask = ndimage.gaussian_filter(debris.fibre(side, rng).astype(np.float32), 0.7)
            self.image = self.image + np.float32(rng.uniform(0.1, 1)) * mask[..., None]
        if rng.random() < 0.3:
            haze = debris.blobs(side, rng, count=int(rng.integers(1, 5)), size=(15, 70))
            self.image = self.image + np.float32(rng.uniform(0.05, 0.4)) * haze[..., None]
        if rng.random() < 0.2:
            line, beyond = debris.edge(side, rng)
            clear = ~ndimage.binary_dilation(self.tissue | self.nuclei, iterations=8)
            shade = np.float32(rng.choice([0.0, rng.uniform(0, 0.3)]))
            self.image = np.where((beyond & clear)[..., None], shade, self.image)
            self.image = self.image + 0.2 * (line & clear)[..., None].astype(np.float32)

    def finished(self) -> Scene:
        """Focus, noise and one scale for the whole slide."""
        rng = self.rng
        image = np.broadcast_to(self.image, (self.side, self.side, 3)).astype(np.float32)
        if rng.random() < 0.3:
            blur = rng.uniform(0.3, 0.9)
            image = ndimage.gaussian_filter(image, (blur, blur, 0))
        sigma = 10 ** (rng.uniform(-3, -1.5) if self.bright else rng.uniform(-3, -1.8))
        noise = rng.standard_normal(image.shape[:2] + ((1,) if self.bright else (3,)))
        image = np.clip(image + sigma * noise.astype(np.float32), 0, None)
        light: Light = "fluorescence" if self.bright else "transmitted"
        if not self.bright:
            image = np.clip(image, 0, 1)
        fine = Normaliser.fit(image[::2, ::2], light).apply(image)
        return Scene(fine, self.tissue, self.nuclei, self.centres, self.unsure, self.kind)

    def _cover(self, colour: Image | np.float32, opacity: Image) -> None:
        near = ndimage.binary_dilation(self.tissue | self.nuclei, iterations=6)
        opacity = np.where(near, np.minimum(opacity, 0.35), opacity).astype(np.float32)
        self.unsure |= near & (opacity > 0.1) & ~self.tissue
        self.image = self.image * (1 - opacity[..., None]) + colour * opacity[..., None]


def _region(side: int, rng: np.random.Generator) -> Mask:
    """A ragged island."""
    radius = side * 10 ** rng.uniform(-1.3, -0.25)
    y, x = rng.uniform(0, side, 2)
    rows, columns = np.ogrid[:side, :side]
    distance = np.hypot(rows - y, (columns - x) * rng.uniform(0.5, 1.6)) / radius
    ragged = rng.uniform(0.1, 0.5) * debris.smooth_noise(side, max(radius / 2, 4), rng)
    return np.asarray(1 - distance + ragged * (distance < 2) > 0, dtype=bool)


def _spread(
    texture: Texture, side: int, rng: np.random.Generator
) -> tuple[Image, Mask, NDArray[np.uint8]]:
    """Mirror a texture over (side, side), turned and moved at random."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turned(array: NDArray[np.generic]) -> NDArray[np.generic]:
        array = np.rot90(array, turns)
        return array[:, ::-1] if flip else array

    height, width = turned(texture.nuclei).shape
    rows = _mirror(height, side, int(rng.integers(2 * height)))
    columns = _mirror(width, side, int(rng.integers(2 * width)))
    pixels, nuclei, centres = (
        turned(a)[rows[:, None], columns[None]]
        for a in (texture.pixels, texture.nuclei, texture.centres)
    )
    return cast(Image, pixels), cast(Mask, nuclei), cast(NDArray[np.uint8], centres)


def _mirror(length: int, side: int, offset: int) -> NDArray[np.int64]:
    index = (np.arange(side) + offset) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def _pooled(mask: Mask) -> Mask:
    height, width = mask.shape[0] // FINE_FACTOR, mask.shape[1] // FINE_FACTOR
    return np.asarray(
        mask.reshape(height, FINE_FACTOR, width, FINE_FACTOR).any(axis=(1, 3)), dtype=bool
    )
