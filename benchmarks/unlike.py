"""How many fields of a tissue are doubted as unlike what the cell types were learned from.

    python benchmarks/unlike.py IMAGES... [--mpp 0.25] [--halved] [--fields 6]

IMAGES are COCO files, whose images go by ``organ`` where they have one, or single images. Each
field is counted with ``--types breast`` by the protocol ``he_breast``; ``--halved`` makes a field
of half the size of it, as a scan at 20×, for ``he_breast_20x``. Fields in which too few nuclei are
found to tell are left out.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from skimage.io import imread, imsave
from skimage.transform import rescale

from cellseg.counting.stages import SlideCount
from cellseg.counting.tally import UNLIKE_SHARE
from cellseg.judge.evaluate import EvaluateRequest, planned


def grouped(paths: tuple[Path, ...], fields: int) -> dict[str, list[Path]]:
    """Images by organ or place, the first ``fields`` of each."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix != ".json":
            groups[str(path.parent)].append(path)
            continue
        for image in json.loads(path.read_text())["images"]:
            groups[image.get("organ", str(path.parent))].append(path.parent / image["file_name"])
    return {name: images[:fields] for name, images in groups.items()}


@click.command()
@click.argument("images", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--mpp", default=0.25, show_default=True)
@click.option("--halved", is_flag=True)
@click.option("--fields", default=6, show_default=True, help="Of each group.")
def main(images: tuple[Path, ...], mpp: float, halved: bool, fields: int) -> None:
    """Print a row a group: fields that could be told, and doubted ones."""
    scale = 2 * mpp if halved else mpp
    protocol = "he_breast" if scale < 0.4 else "he_breast_20x"
    request = EvaluateRequest(data=(), protocol=protocol)
    detector = request.detector()
    for name, group in grouped(images, fields).items():
        shares = []
        for field in group:
            with tempfile.TemporaryDirectory() as folder:
                if halved:
                    small = rescale(imread(field)[..., :3], 0.5, order=1, channel_axis=2)
                    field = Path(folder) / "halved.png"
                    imsave(field, (255 * small).round().astype(np.uint8), check_contrast=False)
                with planned(field, request, detector, mpp=scale, cell_types="breast") as found:
                    count = SlideCount(*found)
                    for _ in count.steps():
                        pass
            if count.tally.fields:
                shares.append(count.tally.unlike / count.tally.fields)
        doubted = sum(share > UNLIKE_SHARE for share in shares)
        click.echo(f"{name}: {doubted} of {len(shares)} fields doubted")


if __name__ == "__main__":
    main()
