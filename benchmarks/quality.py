"""Focus, folds, pen and bubbles: how often they are called on real tissue that was drawn on.

    python benchmarks/quality.py tnbc nuinsseg nucls brca_m2c_points ihc_synth dsb2018 bbbc039
    python benchmarks/quality.py --counts tnbc nuinsseg brca_m2c_points bbbc039
    python benchmarks/quality.py --drawn tnbc nuinsseg brca_m2c_points

Each argument is a folder of ``--data`` with ``images``, or an image. A row of the first table is a
set and how its images were spoiled: for each blur (standard deviation, µm) the share that is out
of focus of those units of 64 px that the sharp image shows in focus or not. The second table has,
for each blur, the cells that are counted and those of the sharp image that are found again. The
third has, for drawn folds of 40 to 70 µm in two and three layers and for drawn air bubbles of 80 to
250 µm, how many are found (half of their units, or more), and the share of the units under drawn
ink that is called so; then the share of all units of the plain images that is called any of
these. Fields are mirrored up to 360 µm for it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial import cKDTree

from cellseg import open_slide
from cellseg.counting.request import CountRequest
from cellseg.geometry import Box
from cellseg.result import load_result
from cellseg.run import CountResult, run
from cellseg.stain.normalise import Light, Normaliser
from cellseg.stain.quality import (
    BUBBLE,
    FOLDED,
    OUT_OF_FOCUS,
    PEN,
    UNIT_PX,
    UNKNOWN,
    judged,
    measured_units,
)

BLURS_UM = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
SPOILED = {"": (0.0, None), "JPEG 70": (0.0, 70), "noise 4, JPEG 75": (4.0, 75)}
"""Standard deviation of the noise, of 255 grey values, and the quality of a JPEG."""

INKS = {
    "blue": (40, 70, 170),
    "green": (20, 120, 80),
    "black": (35, 35, 40),
    "red": (200, 30, 40),
    "red ballpoint": (180, 50, 60),
}
STROKE_UM, SIDE_UM = 150.0, 360.0
MPP = {
    "brca_m2c_points": 0.5, "bbbc039": 0.656, "t98g_phase": 0.87, "OS-1-detail.ome.tif": 0.227,
    "ki67_crop.tif": 0.227, "CMU-1-Small-Region.svs": 0.499, "instanseg_HE_example.tif": 0.5,
}  # fmt: skip
Kind = tuple[Path, float, Light]
Drawn = tuple[NDArray[np.float32], NDArray[np.bool_]]


def images_of(place: Path, most: int, seed: int) -> dict[str, list[Kind]]:
    """Images of a set by its name, each with its µm per pixel and its light."""
    if place.is_file():
        return {place.name: [(place, MPP.get(place.name, 0.25), "transmitted")]}
    found = defaultdict(list)
    dark = {
        Path(image["file_name"]).name
        for path in place.glob("*.json")
        for image in json.loads(path.read_text(encoding="utf-8"))["images"]
        if image.get("modality") == "fluorescence"
    }
    for path in sorted((place / "images").iterdir()):
        light: Light = "fluorescence" if path.name in dark else "transmitted"
        usual = 0.5 if path.name in dark else 0.25
        name = f"{place.name}, fluorescence" if path.name in dark else place.name
        found[name].append((path, MPP.get(place.name, usual), light))
    order = np.random.default_rng(seed)
    return {name: [images[n] for n in order.permutation(len(images))[:most]]
            for name, images in found.items()}  # fmt: skip


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with open_slide(path) as slide:
        pixels = slide.read(Box(0, 0, min(slide.height, 1536), min(slide.width, 1536)))
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def spoiled(
    pixels: NDArray[np.uint8], sigma_px: float, noise: float = 0.0, quality: int | None = None
) -> Image.Image:
    """A field as it looks out of focus, with noise, packed as JPEG."""
    values = gaussian_filter(pixels.astype(np.float32), (sigma_px, sigma_px, 0))
    values += np.random.default_rng(0).normal(0, noise, values.shape) if noise else 0
    image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if quality is None:
        return image
    packed = BytesIO()
    image.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def codes(image: Image.Image, mpp: float, light: Light, scratch: Path) -> NDArray[np.uint8]:
    """What :func:`judged` says of a field, read at the scale at which it is counted."""
    image.save(path := scratch / "field.png")
    pixel = 0.5 if light == "fluorescence" else 0.25 if mpp < 0.35 else 0.35
    with open_slide(path, mpp=mpp) as slide:
        down = pixel / mpp
        raw = slide.read(Box(0, 0, *slide.lattice_shape(down)), downsample=down)
    seen = Normaliser.fit(raw, light).apply(raw)
    units = measured_units(seen, (0, 0, 0, 0), pixel, light)
    return judged(units, np.ones(units.shape[:2], dtype=bool), pixel, light)


def folded(
    light: NDArray[np.float32],
    um_px: float,
    width_um: float,
    layers: int,
    order: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A field with a fold, and where: a curved band of more layers, 1 µm out of focus."""
    height, width = light.shape[:2]
    stack = light.copy()
    for layer in (light[:, ::-1], light[::-1])[: layers - 1]:
        shift = order.integers(100, min(height, width) - 100, 2)
        stack *= np.roll(layer, tuple(shift.tolist()), (0, 1))
    stack = gaussian_filter(stack, (1 / um_px, 1 / um_px, 0))
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(um_px)
    bend, long = order.uniform(5, 25), order.uniform(3, 7) * width_um / 2
    for _ in range(20):  # until it lies on tissue
        angle, top, left = order.uniform(0, np.pi), *order.uniform(0.3, 0.7, 2)
        top, left = y - top * height * um_px, x - left * width * um_px
        along = left * np.cos(angle) + top * np.sin(angle)
        across = top * np.cos(angle) - left * np.sin(angle) + bend * np.sin(along / 60)
        inside = np.minimum(width_um / 2 - abs(across), long - abs(along))
        if light[inside > 0].mean() < 0.85:
            break
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    return light * (1 - cover) + stack * cover, inside > 0


def inked(
    light: NDArray[np.float32], um_px: float, colour: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A field with a broad stroke of ink from top to bottom; 0.85 of the light goes through it."""
    inside = np.zeros(light.shape[:2], bool)
    left = light.shape[1] // 4
    inside[:, left : left + round(STROKE_UM / um_px)] = True
    ink = 0.15 + 0.85 * (np.array(colour, np.float32) / 255 - 0.15)
    return np.where(inside[..., None], light * ink, light), inside


def bubble(
    light: NDArray[np.float32], um_px: float, order: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A field with an air bubble: a black rim of 6 to 15 µm, paler and 2 µm out of focus within."""
    across, rim_um, opacity = order.uniform((80, 6, 0.75), (250, 15, 0.97))
    height, width = light.shape[:2]
    y, x = np.ogrid[:height, :width]
    centre = [order.uniform(across / 2 + 20, n * um_px - across / 2 - 20) for n in (height, width)]
    stretch, (two, three) = order.uniform(0.85, 1.18), order.uniform(0, 6, 2)
    down, along = y * um_px - centre[0], x * um_px - centre[1]
    angle = np.arctan2(down, along)
    uneven = 1 + 0.03 * np.sin(2 * angle + two) + 0.02 * np.sin(3 * angle + three)
    far = np.hypot(down * stretch, along / stretch) * uneven - across / 2
    soft = gaussian_filter(light, (2 / um_px, 2 / um_px, 0)) ** 0.8
    rim = opacity * np.exp(-np.square(far / (rim_um / 2)))
    return np.where((far < 0)[..., None], soft, light) * (1 - rim[..., None]), far < 0


def drawn(pixels: NDArray[np.uint8], mpp: float) -> Iterator[tuple[str, int, Drawn]]:
    """A field with what was drawn on it: its name, its code, the image, and where it lies."""
    light, order = pixels.astype(np.float32) / 255, np.random.default_rng(len(pixels))
    for layers in (2, 3):
        for width_um in (40, 70):
            yield f"{layers} layers", FOLDED, folded(light, mpp, width_um, layers, order)
    for _ in range(4):
        yield "bubbles", BUBBLE, bubble(light, mpp, order)
    for name, colour in INKS.items():
        yield name, PEN, inked(light, mpp, colour)


def mirrored(pixels: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    """A field, mirrored at its edges where it is smaller than the surroundings of a fold."""
    lacking = [max(0, round(SIDE_UM / mpp) - side) for side in pixels.shape[:2]]
    return np.pad(pixels, [(n // 2, n - n // 2) for n in (*lacking, 0)], mode="symmetric")


def blurs(sets: dict[str, list[Kind]], scratch: Path) -> None:
    click.echo("| set | spoiled by | units judged | " + " | ".join(f"{s:g} µm" for s in BLURS_UM))
    click.echo("|" + "---|" * (3 + len(BLURS_UM)))
    for name, images in sets.items():
        for how, spoil in SPOILED.items():
            seen, called = 0, dict.fromkeys(BLURS_UM, 0)
            for path, mpp, light in images:
                pixels = pixels_of(path)
                for sigma in BLURS_UM:
                    found = codes(spoiled(pixels, sigma / mpp, *spoil), mpp, light, scratch)
                    known = found != UNKNOWN if sigma == 0 else known  # noqa: F821
                    seen += int(known.sum()) if sigma == 0 else 0
                    called[sigma] += int((known & (found == OUT_OF_FOCUS)).sum())
            shares = " | ".join(f"{100 * n / max(1, seen):.1f} %" for n in called.values())
            click.echo(f"| {name} | {how} | {seen:,} | {shares} |")


def counts(sets: dict[str, list[Kind]], scratch: Path) -> None:
    click.echo("| set | " + " | ".join(f"{s:g} µm: counted, found again" for s in BLURS_UM) + " |")
    click.echo("|" + "---|" * (1 + len(BLURS_UM)))
    for name, images in sets.items():
        total, again = dict.fromkeys(BLURS_UM, 0), dict.fromkeys(BLURS_UM, 0)
        for path, mpp, light in images:
            pixels = pixels_of(path)
            for sigma in BLURS_UM:
                spoiled(pixels, sigma / mpp).save(field := scratch / "counted.png")
                protocol = "fluorescence" if light == "fluorescence" else None
                request = CountRequest(
                    image=field, mpp=mpp, protocol=protocol, prefilter=False, overwrite=True
                )
                *_, done = run(request)
                assert isinstance(done, CountResult)
                table = load_result(done.folder).table.load(["centroid_y_px", "centroid_x_px"])
                places = table.to_numpy() * mpp
                sharp = places if sigma == 0 else sharp  # noqa: F821
                total[sigma] += len(places)
                if len(places) and len(sharp):
                    again[sigma] += int((cKDTree(places).query(sharp)[0] < 3).sum())
        every = max(1, total[0.0])
        shares = (f"{total[s] / every:.2f}, {again[s] / every:.2f}" for s in BLURS_UM)
        click.echo(f"| {name} | {' | '.join(shares)} |")


def strokes(sets: dict[str, list[Kind]], scratch: Path) -> None:
    names, codes_drawn = ("2 layers", "3 layers", "bubbles", *INKS), (FOLDED, PEN, BUBBLE)
    elsewhere = ("folded elsewhere", "pen elsewhere", "bubbles elsewhere")
    click.echo("| set | folds | " + " | ".join((*names, *elsewhere)) + " |")
    click.echo("|" + "---|" * (5 + len(names)))
    for name, images in sets.items():
        found, other, plain = defaultdict(list), defaultdict(int), 0
        for path, mpp, light in images:
            field = mirrored(pixels_of(path), mpp)
            called = codes(Image.fromarray(field), mpp, light, scratch)
            plain += int((called > UNKNOWN).sum())
            for code in codes_drawn:
                other[code] += int((called == code).sum())
            for what, code, (image, inside) in drawn(field, mpp):
                eight = Image.fromarray((image * 255).round().clip(0, 255).astype(np.uint8))
                called = codes(eight, mpp, light, scratch)
                side = UNIT_PX * (0.25 if mpp < 0.35 else 0.35) / mpp
                places = [((np.arange(n) + 0.5) * side).astype(int) for n in called.shape]
                rows, columns = (
                    np.minimum(p, m - 1) for p, m in zip(places, inside.shape, strict=True)
                )
                under = binary_erosion(inside, iterations=round(side / 3))[np.ix_(rows, columns)]
                if under.sum() >= 3:
                    found[what].append(float((called[under] == code).mean()))
        shares = [np.mean(np.array(found[w]) >= 0.5 if w not in INKS else found[w]) for w in names]
        told = " | ".join(f"{100 * share:.0f} %" for share in shares)
        false = " | ".join(f"{100 * other[code] / max(1, plain):.2f} %" for code in codes_drawn)
        click.echo(
            f"| {name} | {len(found['2 layers']) + len(found['3 layers'])} | {told} | {false} |"
        )


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--most", default=20, help="Images of each set.")
@click.option("--counts", "what", flag_value="counts")
@click.option("--drawn", "what", flag_value="drawn")
@click.option("--seed", default=0)
def main(names: tuple[str, ...], data: Path, most: int, what: str | None, seed: int) -> None:
    """Print a table."""
    sets: dict[str, list[Kind]] = {}
    for name in names:
        sets |= images_of(data / name, most, seed)
    with tempfile.TemporaryDirectory() as scratch:
        {"counts": counts, "drawn": strokes}.get(what or "", blurs)(sets, Path(scratch))


if __name__ == "__main__":
    main()
