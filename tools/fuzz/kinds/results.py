"""Result folders: the record, the table, the masks, the tissue, the journal, corrections."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import types
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import click
import tifffile

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged, json_text
from ._command import GREY

_EXPORTS = (
    "labels.tif",
    "cells.geojson",
    "cells.coco.json",
    "rois.zip",
    "cells.xlsx",
    "cells.parquet",
)
_COUNT = ["count", "{here}/in/a.tif", "--output", "{here}/out", "--mpp", "0.5", "--tile", "64",
          "--protocol", "fluorescence", "--no-prefilter"]  # fmt: skip


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
def correct(result: Path) -> None:
    """What napari does with a result: look, delete a cell, count again, save."""
    from cellseg.derive.corrections import Corrections

    corrections = Corrections.open(result)
    labels = corrections.labels()
    click.echo(f"{len(labels)} cells, {len(corrections.edits)} edits")
    corrections.row(int(labels[0]))
    corrections.delete([int(labels[0])])
    corrections.undo()
    corrections.split(int(labels[-1]))
    from cellseg.run import save

    click.echo(save(corrections).path)


def offer_corrections() -> None:
    """Make ``cellseg correct`` a command of this process: errors are then told as all are."""
    import cellseg.cli as cli

    module: Any = types.ModuleType("cellseg.cli.correct")
    module.correct = correct
    sys.modules[module.__name__] = module
    cli.COMMANDS["correct"] = "Change a result as napari does."


def _child(work: Any) -> None:  # noqa: ANN401
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("no result to damage could be made")


_homes: list[Path] = []


def prepare(folder: Path) -> None:
    """Count an image whole, and one up to its last tile, to be copied for each case."""
    _homes[:] = [folder / "whole", folder / "begun"]

    def counted() -> None:
        from synthetic.threshold import ThresholdDetector

        from cellseg.counting.request import CountRequest
        from cellseg.derive.corrections import Corrections
        from cellseg.run import TileDone, run

        for home in _homes:
            (home / "in").mkdir(parents=True)
            tifffile.imwrite(home / "in" / "a.tif", GREY, photometric="minisblack")
            request = CountRequest(
                image=home / "in" / "a.tif", output=home / "out", mpp=0.5, tile_px=64,
                protocol="fluorescence", prefilter=False,
            )  # fmt: skip
            events = run(request, detector=ThresholdDetector())
            if home.name == "whole":
                list(events)
                corrections = Corrections.open(home / "out" / "a.cellseg")
                for label in corrections.labels()[:3].tolist():
                    corrections.delete([label])
                return_to = corrections.labels()[0]
                corrections.split(int(return_to))
            else:
                done = 0
                for event in events:
                    done += isinstance(event, TileDone)
                    if done == 2:
                        os._exit(0)

    for number in (0, 1):
        homes = _homes[:]
        _homes[:] = homes[number : number + 1]
        _child(counted)
        _homes[:] = homes


def _copied(folder: Path, home: Path) -> Path:
    for inner in ("in", "out"):
        shutil.copytree(home / inner, folder / inner, dirs_exist_ok=True)
    for path in (folder / "out").rglob("run.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(home.resolve()), str(folder.resolve())), encoding="utf-8")
    return next((folder / "out").iterdir())


def result_of(folder: Path) -> Path:
    """A copy of the whole result, and of its image."""
    return _copied(folder, _homes[0])


def journal(dice: Random, folder: Path) -> list[str]:
    """A count that goes on from a journal in which somebody wrote."""
    result = _copied(folder, _homes[1])
    path = next(result.rglob("journal.sqlite"))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    database.close()
    if not dice.randrange(3):
        path.write_bytes(damaged(dice, path.read_bytes()))
        return _COUNT
    # The image's place is in it, too: it must be this case's.
    with sqlite3.connect(path, isolation_level=None) as database:
        place = os.fsencode(folder / "in" / "a.tif")
        database.execute("UPDATE run SET image = ?", (place,))
        for _ in range(dice.choice((1, 1, 2))):
            with suppress(sqlite3.Error):  # the database itself may refuse
                _edit(dice, database)
    database.close()
    return _COUNT


def _edit(dice: Random, database: sqlite3.Connection) -> None:
    table, column = dice.choice(
        (("run", "key"), ("run", "image"), *(("tiles", name) for name in _columns(database)))
    )
    found = database.execute(f"SELECT {column} FROM {table}").fetchone()
    old = None if found is None else found[0]
    new: Any = dice.choice(
        (
            dice.choice(TEXTS),
            dice.choice(WHOLE) % 2**63,
            0.5,
            b"",
            b"\xff\xfe",
            float("nan"),
            float("inf"),
        )
    )
    if isinstance(old, bytes) and dice.randrange(2):
        new = damaged(dice, old)
    if isinstance(old, str) and old.startswith("{") and dice.randrange(4):
        new = json_text(dice, json.loads(old)).decode("utf-8", "replace")
    if isinstance(new, str):
        new = new.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    statements: list[tuple[str, tuple[Any, ...]]] = [
        (f"UPDATE {table} SET {column} = ?", (new,)),
        (f"UPDATE {table} SET {column} = CAST(? AS TEXT)", (b"\xff\xfe\x00",)),
        (f"DELETE FROM {table}", ()),
        (f"DROP TABLE {table}", ()),
        (f"ALTER TABLE {table} RENAME TO other", ()),
        (f"ALTER TABLE {table} ADD COLUMN more", ()),
        ("CREATE VIEW again AS SELECT * FROM again", ()),
        (f"CREATE TRIGGER t AFTER INSERT ON tiles BEGIN DELETE FROM {table}; END", ()),
        (f"PRAGMA user_version={dice.randrange(-5, 99)}", ()),
        ("INSERT INTO run SELECT * FROM run", ()),
        ("UPDATE tiles SET checksum = checksum + 1", ()),
    ]
    database.execute(*statements[0] if dice.randrange(2) else dice.choice(statements))


def _columns(database: sqlite3.Connection) -> tuple[str, ...]:
    found = tuple(row[1] for row in database.execute("PRAGMA table_info(tiles)"))
    return found or ("id",)


def _used(dice: Random) -> list[str]:
    """A command that reads a result."""
    result = "{here}/out/a.cellseg"
    return dice.choice(
        (_COUNT, ["export", result, "--to", dice.choice(_EXPORTS)], ["overlay", result],
         ["correct", result], ["classify", result, "--measure", "area_px", "--threshold",
         dice.choice(("auto", "100", "-1e300", "1,2,3"))], ["expand", result, "--by", "3"],
         ["spatial", result], ["report", "{here}/out", "--output", "{here}/out/study.html"])
    )  # fmt: skip


def record(dice: Random, folder: Path) -> list[str]:
    """A result whose ``run.json`` was edited, or whose other files were."""
    result = result_of(folder)
    path = result / "run.json"
    if dice.randrange(2):
        path.write_bytes(json_text(dice, json.loads(path.read_text(encoding="utf-8"))))
    else:
        others = (p for p in result.rglob("*") if p.is_file() and p != path)
        files = sorted(p for p in others if p.suffix != ".png")
        path = dice.choice(files)
        if path.suffix in (".json", ".geojson") or path.name.startswith(".z"):
            path.write_bytes(json_text(dice, json.loads(path.read_text(encoding="utf-8"))))
        elif dice.randrange(4):
            path.write_bytes(damaged(dice, path.read_bytes()))
        else:
            path.unlink()
        if dice.randrange(2):
            # As somebody would who knows that checksums are kept.
            about = json.loads((result / "run.json").read_text(encoding="utf-8"))
            about.pop("files", None)
            (result / "run.json").write_text(json.dumps(about))
    return _used(dice)


def strange(dice: Random, folder: Path) -> list[str]:
    """A result of which something is a link, a pipe, a device, a folder, or of any size."""
    result = result_of(folder)
    (folder / "secret").write_text("{}")
    more = ("regions.geojson", "drawn.geojson", "windows.geojson", "cells.ome.zarr",
            "tissue.geojson", "derived.parquet", "journal.sqlite", ".partial", ".partial/READY",
            ".cellseg.lock")  # fmt: skip
    paths = [*sorted(result.rglob("*")), *(result / name for name in more)]
    for path in dice.sample(paths, dice.choice((1, 1, 1, 2))):
        if path.parent.is_dir() and not path.parent.is_symlink():
            _replaced(dice, path, folder)
    return _used(dice)


def _replaced(dice: Random, path: Path, folder: Path) -> None:
    kept = folder / "secret"
    if os.path.lexists(path) and dice.randrange(2):
        kept = folder / f"elsewhere-{len([*folder.iterdir()])}-{path.name}"  # two may be called 0
        path.rename(kept)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match dice.randrange(7):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            data = kept.read_bytes() if kept.is_file() else b""
            path.write_bytes(data)
            os.truncate(path, dice.choice((0, len(data) // 2, 2**29, 2**29 + 1, 10**12)))
        case 3:
            path.symlink_to(kept)
        case _:
            path.symlink_to(dice.choice(
                ("/dev/zero", "/dev/random", "/dev/stdin", "/etc/passwd", "/", "..",
                 ".", path.name, "../../in/a.tif", "../../secret", "run.json")))  # fmt: skip


def corrections(dice: Random, folder: Path) -> list[str]:
    """A result whose corrections were edited."""
    path = result_of(folder) / "corrections.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(dice.choice((1, 1, 2, 4))):
        if tree["edits"]:
            _edited(dice, tree)
    path.write_bytes(json.dumps(tree).encode() if dice.randrange(4) else json_text(dice, tree))
    return ["correct", "{here}/out/a.cellseg"]


def _edited(dice: Random, tree: dict[str, Any]) -> None:
    """A log that is right in its form and says what cannot be, or what nobody did."""
    edit = dice.choice(tree["edits"])
    change = dice.choice(edit["changes"]) if edit["changes"] else {}
    cell = change.get(dice.choice(("before", "after"))) or {}
    match dice.randrange(9):
        case 0:
            change["label"] = dice.choice((1, 2, 5, 10**6, 2**32 - 1, *WHOLE[:30]))
        case 1:
            cell["box"] = [dice.choice((0, 5, 79, 80, 4000, 2**24, *WHOLE[:28])) for _ in range(4)]
        case 2 if "box" in cell:
            cell["box"] = [side + dice.choice((70, 1000, 10**9)) for side in cell["box"]]
        case 3:
            cell["mask"] = dice.choice(("", "0", "PPYo1", "o" * 3000, "~", *TEXTS))
        case 4:
            cell["class"] = dice.choice(TEXTS)
        case 5:
            change |= {"before": change.get("after"), "after": change.get("before")}
        case 6:
            edit["kind"] = dice.choice(("delete", "add", "redraw", "split", "merge", "class"))
        case 7:
            tree["edits"] *= dice.choice((2, 30))
        case _:
            tree["classes"] = [dice.choice(TEXTS)] * dice.choice((1, 2, 1000))


KINDS: dict[str, Make] = {
    "journal": journal, "result": record, "strange-result": strange, "corrections": corrections,
}  # fmt: skip
