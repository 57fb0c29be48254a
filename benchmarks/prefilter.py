"""How many cell-bearing tiles does the tissue prefilter keep, and how much glass does it skip?

``PYTHONPATH=tools python benchmarks/prefilter.py DATA_DIR`` where DATA_DIR holds dsb2018, tnbc,
nucls, brca_m2c_points and t98g_phase. Only images of the validation splits are used.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from scipy.stats import beta
from tissue_training.data import Material, Texture, load_material
from tissue_training.scenes import Scene, compose

from cellseg.geometry import Box
from cellseg.network import tissue
from cellseg.network.tissue import (
    FINE_FACTOR,
    OVERVIEW_STEP,
    TissueFinder,
    TissueMask,
    overview_features,
)

FOLDERS = ("dsb2018", "tnbc", "nucls", "brca_m2c_points", "t98g_phase")
NAMES = {"he": "H&E", "ihc": "IHC", "fluorescence": "fluorescence", "brightfield": "brightfield"}
FIELD_KINDS = ("he", "fluorescence", "brightfield")
SCENE_SIDE = 1024
"""Fine pixels of a composite's side, 2 mm."""
STEP = OVERVIEW_STEP // FINE_FACTOR
"""Lattice pixels per fine pixel."""


@dataclass
class Tally:
    kept: int = 0
    bearing: int = 0
    cells: int = 0
    lost: int = 0
    empty: int = 0
    skipped: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def interval(kept: int, total: int) -> tuple[float, float]:
    """Clopper–Pearson, 95 %."""
    low = beta.ppf(0.025, kept, total - kept + 1) if kept else 0.0
    high = beta.ppf(0.975, kept + 1, total - kept) if kept < total else 1.0
    return float(low), float(high)


def score(mask: TissueMask, centres: np.ndarray, occupied: np.ndarray, tile: int) -> Tally:
    """Count one image. ``centres`` and ``occupied`` are fine arrays; ``tile`` is in lattice px."""
    tally, side = Tally(), tile // STEP
    ys, xs = np.nonzero(centres)
    counts = centres[ys, xs].astype(int)
    tally.cells = int(counts.sum())
    found = mask.contains(ys * STEP + STEP / 2, xs * STEP + STEP / 2)
    tally.lost = int(counts[~found].sum())
    height, width = centres.shape
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = (slice(y, min(y + side, height)), slice(x, min(x + side, width)))
            box = Box(y * STEP, x * STEP, part[0].stop * STEP, part[1].stop * STEP)
            looked_at = mask.coverage(box) > 0
            if centres[part].any():
                tally.bearing += 1
                tally.kept += looked_at
            elif not occupied[part].any():
                tally.empty += 1
                tally.skipped += not looked_at
    return tally


def run_finder(finder: TissueFinder, fine: np.ndarray, light: str) -> TissueMask:
    """The network alone."""
    extent = (fine.shape[0] * STEP, fine.shape[1] * STEP)
    return finder.find(overview_features(fine, light), extent=extent)


def on_field(finder: TissueFinder, field: Texture, tile: int) -> Tally:
    centres, occupied = field.centres, np.ones(field.nuclei.shape, dtype=bool)
    if not centres.any() and field.kind == "ihc":
        centres = centres.copy()
        centres[tile // STEP // 2 :: tile // STEP, tile // STEP // 2 :: tile // STEP] = 1
    return score(run_finder(finder, field.pixels, field.light), centres, occupied, tile)


def on_scene(finder: TissueFinder, scene: Scene, tile: int) -> tuple[Tally, TissueMask]:
    light = "fluorescence" if scene.kind == "fluorescence" else "transmitted"
    mask = run_finder(finder, scene.fine, light)
    return score(mask, scene.centres, scene.tissue | scene.nuclei, tile), mask


def picture(scene: Scene, mask: TissueMask, path: Path) -> None:
    """Search area outlined in green, tissue in yellow, missed cells in red."""
    image = (scene.fine * 255).astype(np.uint8)
    for area, colour in ((mask.search, (0, 200, 0)), (mask.tissue, (230, 200, 0))):
        large = np.kron(area, np.ones((FINE_FACTOR, FINE_FACTOR), dtype=bool))
        inner = large.copy()
        inner[2:-2, 2:-2] &= large[4:, 2:-2] & large[:-4, 2:-2] & large[2:-2, 4:] & large[2:-2, :-4]
        image[large & ~inner] = colour
    ys, xs = np.nonzero(scene.centres)
    lost = ~mask.contains(ys * STEP + STEP / 2, xs * STEP + STEP / 2)
    for y, x in zip(ys[lost], xs[lost], strict=True):
        image[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7] = (255, 0, 0)
    Image.fromarray(image).save(path)


def report(tallies: dict[tuple[str, str], Tally]) -> None:
    click.echo(
        "| images | stain | cell-bearing tiles kept | 95 % interval | cells lost "
        "| empty tiles skipped |"
    )
    click.echo("|---|---|---|---|---|---|")
    totals: dict[str, Tally] = defaultdict(Tally)
    for (source, _), tally in tallies.items():
        totals[source] += tally
    rows = list(tallies.items()) + [((source, "all"), t) for source, t in totals.items()]
    for (source, kind), t in rows:
        if not t.bearing:
            continue
        low, high = interval(t.kept, t.bearing)
        glass = f"{t.skipped} / {t.empty} ({100 * t.skipped / t.empty:.1f} %)" if t.empty else "–"
        click.echo(
            f"| {source} | {NAMES.get(kind, kind)} "
            f"| {t.kept} / {t.bearing} ({100 * t.kept / t.bearing:.2f} %)"
            f" | {100 * low:.2f} – {100 * high:.2f} % | {t.lost} / {t.cells} | {glass} |"
        )


def fields_of(folder: Path) -> list[Texture]:
    """Real fields at the scale at which a count takes them: no pixel size means 0.5 µm/px."""
    folders = [folder / name for name in FOLDERS]
    material = load_material(
        folders, "val", rng=np.random.default_rng(0), scales=(1.0,), assumed_mpp=0.5
    )
    real = [t for kind in FIELD_KINDS for t in material.textures[kind]]
    return real + material.textures["ihc"][-1:]


@click.command()
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--scenes", default=30, show_default=True, help="Composites of each stain.")
@click.option("--tile", default=256, show_default=True, help="Side of a tile, px of 0.5 µm.")
@click.option("--seed", default=20_000, show_default=True)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for overlays.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    data_dir: Path,
    scenes: int,
    tile: int,
    seed: int,
    weights: Path | None,
    pictures: Path | None,
    json_path: Path | None,
) -> None:
    """Measure the shipped prefilter on held-out images in DATA_DIR."""
    torch.set_num_threads(1)
    tissue.SMALL_SIDE_PX = 0  # images too small to be filtered are filtered all the same
    finder = TissueFinder(weights)
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for field in fields_of(data_dir):
        tallies["real field", field.kind] += on_field(finder, field, tile)
    material: Material = load_material(
        [data_dir / name for name in FOLDERS], "val", rng=np.random.default_rng(seed)
    )
    seconds = 0.0
    for kind in NAMES:
        for index in range(scenes):
            scene = compose(
                material, kind, SCENE_SIDE, np.random.default_rng([seed, index, len(kind)])
            )
            start = time.perf_counter()
            tally, mask = on_scene(finder, scene, tile)
            seconds += time.perf_counter() - start
            tallies["composite", kind] += tally
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                picture(scene, mask, pictures / f"{kind}_{index:03d}_lost{tally.lost}.png")
    report(tallies)
    each = seconds / (scenes * len(NAMES))
    click.echo(f"\nOne composite of 2 × 2 mm takes {each:.2f} s on one thread.")
    if json_path is not None:
        rows = [{"images": s, "stain": k, **vars(t)} for (s, k), t in tallies.items()]
        json_path.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
