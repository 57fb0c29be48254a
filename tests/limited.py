"""Children that run Python; dangerous files are opened in one that may not take much."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

PROBE = """
import logging
import sys
for name in ("asyncio", "tifffile"):  # as the command line does
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.slide import open_slide
code = 0
for path in sys.argv[1:]:
    try:
        with open_slide(path) as slide:
            height, width = slide.lattice_shape(1.0)
            slide.read(Box(0, 0, min(height, 64), min(width, 64)))
            slide.overview(128)
            print("read")
    except CellsegError as error:
        print(error)
        code = error.exit_code
raise SystemExit(code)
"""
"""Opens files, reads a corner and an overview of each; what is refused is printed."""

IDLE = "import cellseg.slide, tifffile, zarr, imagecodecs, simplejpeg"

ROOT = Path(__file__).parents[1]

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def python(*arguments, **options):
    """A child that ran Python with these arguments, and what it said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = {"cwd": ROOT, "env": ENVIRONMENT, **pipes, **options}
    return subprocess.run([sys.executable, *map(str, arguments)], text=True, check=False, **given)


def peak_of(call):
    """The most memory that Python takes during a call, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Outcome:
    """What became of a child: exit code, what it said, CPU seconds, most memory in bytes."""

    code: int
    said: str
    cpu_s: float
    peak_bytes: int


def limited(*arguments, memory=6_000_000_000, wall_s=120):
    """Run Python with arguments; its address space is limited, and it is killed when it hangs."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=said, stderr=subprocess.STDOUT,
            preexec_fn=limit, cwd=ROOT, env=ENVIRONMENT,
        )  # fmt: skip
        killer = threading.Timer(wall_s, child.kill)
        killer.start()
        _, status, usage = os.wait4(child.pid, 0)
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(child.returncode, text, cpu, usage.ru_maxrss * 1024)
