"""Focus, folds and pen: how often they are called on real tissue that was blurred or drawn on.

    python benchmarks/quality.py tnbc nuinsseg nucls brca_m2c_points ihc_synth dsb2018 bbbc039
    python benchmarks/quality.py --counts tnbc nuinsseg brca_m2c_points bbbc039
    python benchmarks/quality.py --drawn tnbc nuinsseg brca_m2c_points

Each argument is a folder of ``--data`` with ``images``, or an image. A row of the first table is a
set and how its images were spoiled: for each blur (standard deviation, µm) the share that is out
of focus of those units of 64 px that the sharp image shows in focus or not. The second table has,
for each blur, the cells that are counted and those of the sharp image that are found again. The
third has the share of units under a drawn fold of three layers or ink that is called so, and the
share of all other units that is.
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
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from cellseg import open_slide
from cellseg.counting.request import CountRequest
from cellseg.geometry import Box
from cellseg.result import load_result
from cellseg.run import CountResult, run
from cellseg.stain.normalise import Light, Normaliser
from cellseg.stain.quality import (
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

INKS = {"blue": (40, 70, 170), "green": (20, 120, 80), "black": (35, 35, 40)}
STROKE_UM = 150.0
MPP = {"brca_m2c_points": 0.5, "bbbc039": 0.656, "t98g_phase": 0.87}
Kind = tuple[Path, float, Light]


def images_of(place: Path, most: int, seed: int) -> dict[str, list[Kind]]:
    """Images of a set by its name, each with its µm per pixel and its light."""
    if place.is_file():
        return {place.name: [(place, 0.25, "transmitted")]}
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


def drawn(pixels: NDArray[np.uint8], mpp: float) -> Iterator[tuple[str, int, Image.Image, slice]]:
    """A field with a broad stroke from top to bottom: what it is, its code, and its columns."""
    width = min(pixels.shape[1] // 2, round(STROKE_UM / mpp))
    place = slice(pixels.shape[1] // 4, pixels.shape[1] // 4 + width)
    light = pixels / 255
    layers = {"fold": (FOLDED, light * light[:, ::-1] * light[::-1])}
    for name, ink in INKS.items():  # 0.85 of the light goes through the ink
        layers[name] = (PEN, light * (0.15 + 0.85 * (np.array(ink) / 255 - 0.15)))
    for name, (code, layer) in layers.items():
        mixed = light.copy()
        mixed[:, place] = layer[:, place]
        yield (
            name,
            code,
            Image.fromarray((mixed * 255).round().clip(0, 255).astype(np.uint8)),
            place,
        )


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
    detectors: dict[object, object] = {}
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
                *_, done = run(request, detectors=detectors)
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
    click.echo("| set | " + " | ".join(["fold", *INKS, "folded or pen elsewhere"]) + " |")
    click.echo("|" + "---|" * (3 + len(INKS)))
    for name, images in sets.items():
        hit, under, false, other = defaultdict(int), defaultdict(int), 0, 0
        for path, mpp, light in images:
            pixels = pixels_of(path)
            plain = codes(Image.fromarray(pixels), mpp, light, scratch)
            false += int((plain >= FOLDED).sum())
            other += plain.size
            for what, code, image, place in drawn(pixels, mpp):
                found = codes(image, mpp, light, scratch)
                unit = UNIT_PX * (0.25 if mpp < 0.35 else 0.35) / mpp
                first, last = int(-(-place.start // unit)), int(place.stop // unit)
                hit[what] += int((found[:, first:last] == code).sum())
                under[what] += found[:, first:last].size
        shares = [100 * hit[what] / max(1, under[what]) for what in ("fold", *INKS)]
        told = " | ".join(f"{share:.0f} %" for share in shares)
        click.echo(f"| {name} | {told} | {100 * false / max(1, other):.1f} % |")


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
