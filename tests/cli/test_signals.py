"""Ctrl-C and SIGTERM: one exit code, however many signals come and whatever still runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")

SIGNALLED = """
import os, signal, sys, threading, time
import cellseg.slide
from cellseg.cli import main

names = sys.argv.pop(1).split()

def send():
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.3)

def open_slide(*_, **__):
    threading.Thread(target=time.sleep, args=(1.5,)).start()
    threading.Thread(target=send).start()
    time.sleep(60)

# A runner in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
cellseg.slide.open_slide = open_slide
main()
"""


@pytest.mark.parametrize(
    "signals", ["SIGINT", "SIGTERM", "SIGTERM SIGTERM", "SIGTERM SIGINT", "SIGINT SIGTERM SIGINT"]
)
def test_an_interrupted_command_ends_with_one_exit_code(signals):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, signals, "info", "a.tif"],
        check=False, capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted; what is done is kept"
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 50
