"""Positive cells of one slide as other scanners would show it, at one threshold.

    python benchmarks/scanners.py ../shared/slides/ki67_crop.tif
    python benchmarks/scanners.py --dyes macenko ../shared/slides/ki67_crop.tif

A rendering changes the white, a gamma, the dyes' directions (turned about grey), the sharpness or
the packing, or all of them. Each is counted. A row has the nuclei, the percentage of them at or
above each threshold, and the percentage at the threshold that ``auto`` finds for it alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cellseg import open_slide
from cellseg.counting.request import CountRequest
from cellseg.derive.threshold import propose
from cellseg.errors import SettingsError
from cellseg.geometry import Box
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.run import CountResult, run

THRESHOLDS = (0.2, 0.3, 0.419)


@dataclass(frozen=True)
class Scanner:
    """How a scanner shows a slide; None is as it is."""

    white: tuple[float, float, float] | None = None
    gamma: float = 1.0
    turned_deg: float = 0.0
    blur_um: float = 0.0
    jpeg: int | None = None

    def shows(self, pixels: NDArray[np.uint8], um_px: float) -> Image.Image:
        """The pixels (H, W, 3) as this scanner shows them."""
        white = np.percentile(pixels, 99.5, axis=(0, 1))
        density = -np.log10(np.maximum(pixels / white, 1 / 255))
        grey = np.radians(self.turned_deg) / np.sqrt(3) * np.ones(3)
        light = 10 ** -(density @ Rotation.from_rotvec(grey).as_matrix().T)
        light = np.clip(light * (white / 255 if self.white is None else self.white), 0, 1)
        sigma = self.blur_um / um_px
        values = gaussian_filter(255 * light**self.gamma, (sigma, sigma, 0))
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
        if self.jpeg is None:
            return image
        packed = BytesIO()
        image.save(packed, "JPEG", quality=self.jpeg)
        return Image.open(packed).convert("RGB")


WARM, COLD = (0.95, 0.92, 0.86), (0.88, 0.93, 0.96)
SCANNERS = {
    "as it is": Scanner(),
    "white 0.97": Scanner(white=(0.97, 0.97, 0.97)),
    "white 0.92": Scanner(white=(0.92, 0.92, 0.92)),
    "warm white": Scanner(white=WARM),
    "cold white": Scanner(white=COLD),
    "gamma 0.85": Scanner(gamma=0.85),
    "gamma 1.2": Scanner(gamma=1.2),
    "dyes turned by 5°": Scanner(turned_deg=5),
    "dyes turned by -5°": Scanner(turned_deg=-5),
    "blur of 0.5 µm": Scanner(blur_um=0.5),
    "JPEG 60": Scanner(jpeg=60),
    "warm, 0.85, 5°, blur, JPEG": Scanner(WARM, 0.85, 5, 0.5, 60),
    "cold, 1.2, -5°, blur, JPEG": Scanner(COLD, 1.2, -5, 0.5, 60),
}


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--dyes", default="fixed", type=click.Choice(["fixed", "macenko"]))
def main(image: Path, dyes: str) -> None:
    """Print a table."""
    with open_slide(image) as slide:
        pixels, um_px = slide.read(Box(0, 0, slide.height, slide.width))[..., :3], slide.mpp or 0.25
    click.echo("| scanner | nuclei | " + " | ".join(map(str, THRESHOLDS)) + " | auto |")
    click.echo("|" + "---|" * (3 + len(THRESHOLDS)))
    protocol = load_protocol("ihc").changed(dyes=dyes)
    with tempfile.TemporaryDirectory() as scratch:
        for name, scanner in SCANNERS.items():
            scanner.shows(pixels, um_px).save(path := Path(scratch) / "shown.png")
            request = CountRequest(image=path, mpp=um_px, protocol=protocol, overwrite=True)
            *_, done = run(request)
            assert isinstance(done, CountResult)
            dab = load_result(done.folder).table.load(["dab_od_mean"])["dab_od_mean"].to_numpy()
            shares = [f"{100 * (dab >= limit).mean():.1f} %" for limit in THRESHOLDS]
            try:
                found = propose(dab).threshold
                shares.append(f"{100 * (dab >= found).mean():.1f} % ({found:.2f})")
            except SettingsError:
                shares.append("none")
            click.echo(f"| {name} | {len(dab)} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
