"""Which protocol each annotated image is taken for, where none is named.

    python benchmarks/assays.py blood_smears/val.json tnbc/val.json dsb2018/val.json

A row of the table is a set, its source or kind where it has several, and a protocol. Images are
read as a count reads them; nothing is counted. With ``--red-cells`` images of blood are given the
pixel size at which their laboratory's red cells have 7.5 µm.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from cellseg.counting.plan import choose_assay
from cellseg.counting.request import CountRequest
from cellseg.errors import SettingsError
from cellseg.slide import open_slide

RED_CELLS_PX = {"BCCD": 95, "PBC": 69, "Aslan 2020": 49}


def chosen(path: Path, mpp: float | None) -> str:
    """The protocol; ``asked for`` where the count would ask."""
    with open_slide(path, mpp=mpp) as slide:
        try:
            return choose_assay(slide, CountRequest(image=path, mpp=mpp)).protocol.name
        except SettingsError:
            return "asked for"


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--red-cells", is_flag=True, help="Give smears their pixel size.")
def main(data: tuple[Path, ...], red_cells: bool) -> None:
    """Print the table."""
    click.echo("| set | of | taken for | images |\n|---|---|---|---|")
    for path in data:
        found: Counter[tuple[str, str]] = Counter()
        for entry in json.loads(path.read_text(encoding="utf-8"))["images"]:
            kind, mpp = entry.get("source") or entry.get("modality") or "", entry.get("mpp")
            if red_cells and kind in RED_CELLS_PX:
                mpp = 7.5 / RED_CELLS_PX[kind]
            found[kind, chosen(path.parent / entry["file_name"], mpp)] += 1
        for (kind, protocol), images in sorted(found.items()):
            click.echo(f"| {path.parent.name} | {kind} | {protocol} | {images} |")


if __name__ == "__main__":
    main()
