"""Make the example slides: ``python example_slides/make.py [FOLDER]``.

Writes a generated fluorescence slide with its truth, and a real stained image that comes
with scikit-image. Needs no network. Files that are up to date are left alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic import (
    DAB_THRESHOLDS,
    Drawn,
    FluorescenceScene,
    ImmunoScene,
    PyramidLayout,
    draw_immuno,
    touching,
    write_fluorescence_example,
    write_ihc_example,
    write_pyramid,
)
from synthetic.examples import EXAMPLE_SEED as SEED
from synthetic.examples import IHC_DESCRIPTION

RECIPE = 2
FLUORESCENCE = "fluorescence.ome.tif"
LABELS = "fluorescence.labels.tif"
STAINED = "ihc.tif"
POSITIVE = "positive.tif"
TRUTH = "truth.json"


def make(folder: Path) -> tuple[Path, ...]:
    """Write the slides and their truth into ``folder``; return the paths."""
    paths = tuple(folder / name for name in (FLUORESCENCE, LABELS, STAINED, POSITIVE, TRUTH))
    if _up_to_date(folder):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    scene = FluorescenceScene()
    drawn = write_fluorescence_example(folder / FLUORESCENCE, scene)
    write_pyramid(
        folder / LABELS, drawn.labels.astype(np.uint16), layout=PyramidLayout(scene.mpp, levels=1)
    )
    write_ihc_example(folder / STAINED)
    immuno_scene = ImmunoScene()
    immuno = draw_immuno(immuno_scene, np.random.default_rng(SEED))
    write_pyramid(folder / POSITIVE, immuno.image, layout=PyramidLayout(immuno_scene.mpp, levels=2))
    truth = {
        "recipe": RECIPE,
        "seed": SEED,
        FLUORESCENCE: _truth(drawn, scene),
        POSITIVE: {
            "count": immuno.count,
            "grades": np.bincount(immuno.grades, minlength=4).tolist(),
            "thresholds": list(DAB_THRESHOLDS),
            "mpp": immuno_scene.mpp,
        },
        STAINED: {"count": None, "mpp": None, "source": IHC_DESCRIPTION},
        "sha256": {
            name: _digest(folder / name) for name in (FLUORESCENCE, LABELS, STAINED, POSITIVE)
        },
    }
    draft = folder / f".{TRUTH}.part"
    draft.write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / TRUTH)
    return paths


def _truth(drawn: Drawn, scene: FluorescenceScene) -> dict[str, object]:
    """What lies on the fluorescence slide."""
    areas = drawn.areas * scene.mpp**2
    touch = int(np.count_nonzero(touching(drawn.labels)))
    return {
        "count": drawn.count,
        "object": "nucleus",
        "touching": touch,
        "touching_share": round(touch / drawn.count, 3),
        "mpp": scene.mpp,
        "mean_area_um2": round(float(areas.mean()), 2),
        "smallest_area_um2": round(float(areas.min()), 2),
        "largest_area_um2": round(float(areas.max()), 2),
        "specks_that_are_no_nuclei": scene.debris,
        "labels": LABELS,
    }


def _up_to_date(folder: Path) -> bool:
    """Whether all files are there, made by this recipe and not changed since."""
    try:
        truth = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
        if (truth["recipe"], truth["seed"]) != (RECIPE, SEED):
            return False
        return all(_digest(folder / name) == digest for name, digest in truth["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Make the slides and print where they are."""
    default = Path(__file__).parent / "generated"
    for path in make(Path(sys.argv[1]) if len(sys.argv) > 1 else default):
        print(path)


if __name__ == "__main__":
    main()
