"""How faint may nuclei be, and is an empty field counted as empty?

    python benchmarks/faint.py [--model FILE] [--device cpu] [--fields 3]

Fields of 25 nuclei of 20 px, of one brightness, in noise of three kinds; the signal-to-noise ratio
is a nucleus's brightness over the noise's standard deviation. Prints the table of
docs/lab/faint.md: nuclei counted of those there, and fields said to be empty or hardly more than
noise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.run import CountRequest, CountResult, run
from cellseg.stain.contrast import look_at

SIDE, NUCLEI, RADIUS = 512, 25, 10.0
RATIOS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)


def noise(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of standard deviation 1: ``white``, ``blurred`` by a pixel, or ``enlarged`` twice."""
    if kind == "enlarged":
        return np.kron(rng.standard_normal((SIDE // 2, SIDE // 2)), np.ones((2, 2)))
    field = rng.standard_normal((SIDE, SIDE))
    if kind == "blurred":
        field = ndimage.gaussian_filter(field, 1.0, mode="wrap")
    return np.asarray(field / field.std(), dtype=np.float64)


def nuclei(rng: np.random.Generator) -> NDArray[np.float64]:
    """Soft discs of brightness 1, one in each square of a jittered grid."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pitch = SIDE / np.sqrt(NUCLEI)
    drawn = np.zeros((SIDE, SIDE))
    for number in range(NUCLEI):
        place = (np.array(divmod(number, int(np.sqrt(NUCLEI)))) + 0.5) * pitch
        cy, cx = place + rng.uniform(-0.2, 0.2, 2) * pitch
        drawn[np.hypot(y - cy, x - cx) <= RADIUS] = 1
    return ndimage.gaussian_filter(drawn, 1.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fields", type=int, default=3)
    options = parser.parse_args()
    print("| noise | signal to noise | nuclei | counted | said to be empty | said to be faint |")
    print("|---|---|---|---|---|---|")
    for kind in ("white", "blurred", "enlarged"):
        for ratio in RATIOS:
            counted, empty, faint = [], 0, 0
            for seed in range(options.fields):
                rng = np.random.default_rng(seed)
                field = 300 + 20 * (noise(kind, rng) + ratio * nuclei(rng))
                pixels = field.round().clip(0, 65535).astype(np.uint16)
                empty += not look_at(pixels[..., None], "fluorescence", stained=False).objects
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "field.tif"
                    tifffile.imwrite(path, pixels)
                    request = CountRequest(
                        image=path,
                        protocol="fluorescence",
                        model=options.model,
                        device=options.device,
                    )
                    *_, result = run(request)
                    assert isinstance(result, CountResult)
                    counted.append(result.summary.cells)
                    faint += any("barely above the noise" in line for line in result.warnings)
            there = NUCLEI if ratio else 0
            said = ", ".join(map(str, counted))
            print(f"| {kind} | {ratio:g} | {there} | {said} | {empty} | {faint} |")


if __name__ == "__main__":
    main()
