"""One case in a forked child under limits, and what became of it; what is kept of it."""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from .watch import watch

GOOD_CODES = (0, 2, 3, 4, 5, 130)
MOST_BYTES, MOST_SECONDS = 2_000_000_000, 30
"""Of resident memory, the libraries included; of processor time."""

_HARD_BYTES = 4_000_000_000
"""Private memory beyond which nothing is given, so that the machine stays whole; of it pyarrow
reserves one GB, which it does not use, and the idle program one more."""

_PATIENCE = 10
"""Seconds on the clock for each of processor time: the machine may have other work."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BAD_WORDS = (
    "Traceback (most recent call last)",
    "unexpected error",
    "not enough memory",
    "Warning: ",
)

Make = Callable[[Random, Path], list[str]]
"""Fills ``in/`` and ``out/`` of a folder; the arguments of ``cellseg``."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    code : int
        Exit code, below 0 when a signal ended it.
    said : str
    cpu_s, wall_s : float
    peak_bytes : int
    faults : tuple of str
        Nothing where all is well.
    """

    code: int
    said: str
    cpu_s: float
    wall_s: float
    peak_bytes: int
    arguments: tuple[str, ...] = ()
    faults: tuple[str, ...] = field(default=())


def run_case(make: Make, name: str, folder: Path) -> Outcome:
    """Make a case and run it, in a child each.

    Parameters
    ----------
    make : callable
    name : str
        The seed: the same gives the same files.
    folder : Path
        Empty; it gets ``in``, ``out`` and ``tmp``.
    """
    for inner in ("in", "out", "tmp"):
        (folder / inner).mkdir(parents=True)
    notes = folder / "notes.json"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(make, Random(name), folder, notes)
    deadline = start + _PATIENCE * MOST_SECONDS
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += 60
        time.sleep(0.005)
    wall = time.monotonic() - start
    said = (folder / "said.txt").read_text(encoding="utf-8", errors="replace")
    about = json.loads(notes.read_text()) if notes.exists() else {}
    outcome = Outcome(
        code=os.waitstatus_to_exitcode(status), said=said, cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=wall, peak_bytes=usage.ru_maxrss * 1024, arguments=tuple(about.get("arguments", ())),
    )  # fmt: skip
    faults = (*_judged(outcome), *about.get("trespasses", ()))
    return Outcome(**{**outcome.__dict__, "faults": faults})


def _judged(outcome: Outcome) -> list[str]:
    faults = []
    if outcome.code < 0:
        faults.append(f"crashed: ended by {signal.Signals(-outcome.code).name}")
    elif outcome.code not in GOOD_CODES:
        faults.append(f"exit code {outcome.code}")
    faults += [f"says {word!r}" for word in _BAD_WORDS if word in outcome.said]
    if found := _CONTROLS.search(outcome.said):
        faults.append(f"prints the control character {found[0]!r}")
    if outcome.peak_bytes > MOST_BYTES:
        faults.append(f"takes {outcome.peak_bytes / 1e9:.1f} GB")
    if outcome.cpu_s > MOST_SECONDS or outcome.wall_s > _PATIENCE * MOST_SECONDS:
        faults.append(
            f"takes {outcome.cpu_s:.0f} s of the processor, {outcome.wall_s:.0f} s in all"
        )
    return faults


def _child(make: Make, dice: Random, folder: Path, notes: Path) -> None:
    """Never returns."""
    code, trespasses, arguments = 99, [], []
    try:
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        faulthandler.enable(2)
        sys.dont_write_bytecode = True  # of what is imported late, it would be a file elsewhere
        atexit._clear()  # what is left to do at the end is the parent's
        arguments = make(dice, folder)
        notes.write_text(json.dumps({"arguments": arguments}))  # it may end by a signal
        code = _command(arguments, folder, trespasses)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        notes.write_text(json.dumps({"arguments": arguments, "trespasses": trespasses[:5]}))
        os._exit(code)


def _command(arguments: list[str], folder: Path, trespasses: list[str]) -> int:
    from cellseg.cli import main

    real = Path(os.path.realpath(folder))
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        os.environ[name] = str(real / "tmp")
    tempfile.tempdir = str(real / "tmp")
    os.chdir(real / "tmp")
    written = [str(real / name) for name in ("out", "tmp", "notes.json")]
    is_served = arguments[:1] == ["besiege"]
    watch([str(real / "in")], written, trespasses, may_connect=is_served)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_HARD_BYTES, _HARD_BYTES))
    used = int(sum(os.times()[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + MOST_SECONDS + 2, used + MOST_SECONDS + 7))
    sys.argv = ["cellseg", *(text.replace("{here}", str(real)) for text in arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def keep(make: Make, name: str, folder: Path, outcome: Outcome) -> None:
    """The case once more, as it was before it ran, with what was said."""
    shutil.rmtree(folder, ignore_errors=True)
    for inner in ("in", "out", "tmp"):
        (folder / inner).mkdir(parents=True)
    child = os.fork()
    if child == 0:
        try:
            make(Random(name), folder)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    shutil.rmtree(folder / "tmp")
    for path in folder.rglob("*.json"):
        path.write_bytes(path.read_bytes().replace(os.fsencode(folder), b"{here}"))
    (folder / "arguments.json").write_text(json.dumps(outcome.arguments) + "\n", encoding="utf-8")
    text = "\n".join((*outcome.faults, "", outcome.said))
    (folder / "what-happened.txt").write_text(text, encoding="utf-8")


def kept(home: Path) -> Make:
    """A case that was kept once: a copy of its files, and its arguments."""

    def make(dice: Random, folder: Path) -> list[str]:
        for inner in ("in", "out"):
            if (home / inner).is_dir():
                shutil.copytree(home / inner, folder / inner, symlinks=True, dirs_exist_ok=True)
        for path in folder.rglob("*.json"):
            path.write_bytes(path.read_bytes().replace(b"{here}", os.fsencode(folder)))
        arguments: list[str] = json.loads((home / "arguments.json").read_text(encoding="utf-8"))
        return arguments

    return make
