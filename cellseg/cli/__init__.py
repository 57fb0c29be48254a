"""The command ``cellseg``: parse, call one library function, report.

Errors become one line and an exit code here and nowhere else. Options have their names here alone;
the library speaks of fields. Nothing here counts, derives or draws.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
from contextlib import suppress
from io import StringIO
from os import _exit
from pathlib import Path

import click

from cellseg import __version__
from cellseg.cli._shared import collect_rarely, option, say
from cellseg.errors import CellsegError, OutputError, SettingsError, hinted, unforeseen
from cellseg.text import visible_lines

COMMANDS = {
    "annotations": "Turn outlines from QuPath or ImageJ into training data.",
    "classify": "Sort cells by thresholds, or like cells that you clicked.",
    "count": "Count and measure the cells on each IMAGE.",
    "doctor": "Say what is installed, where a count would run.",
    "evaluate": "Count the annotated images of DATA, and compare.",
    "expand": "Grow a result's nuclei into cells, and measure these.",
    "export": "Write a result for QuPath, ImageJ, spreadsheets or training.",
    "info": "Say what an image is: size, channels, pixel size.",
    "overlay": "Draw a result's outlines over its slide, anywhere.",
    "report": "Summarise all results below FOLDER as a page and a table.",
    "serve": "Show results in the web browser, slide and cells.",
    "spatial": "Measure neighbours, density and distance to the border.",
    "teach": "Teach a result's model by a few corrected windows.",
    "train": "Train a model on DATA: COCO JSON, polygons or masks.",
    "view": "Show a result folder, or a slide alone, in napari.",
}
"""Each, and what it is for: known without the import of any."""

SHARED = {
    "results": ("expand", "export", "overlay", "report", "spatial"),
    "train": ("annotations", "teach", "train"),
    "view": ("info", "serve", "view"),
}
"""Commands that share a module; each other one has its own."""

INTERRUPTED = 130  # Exit code after Ctrl-C and SIGTERM, however many of them come.


class LazyGroup(click.Group):
    """Imports a command's module when it is called: most need libraries that take seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = next((one for one, names in SHARED.items() if cmd_name in names), cmd_name)
        found = importlib.import_module(f"cellseg.cli.{module}")
        command: click.Command = getattr(found, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  cellseg count slide.svs           counts, measures, leaves slide.cellseg/
  cellseg info slide.svs            what is in the file, pixel size first
  cellseg view slide.cellseg        the masks over the slide, in napari
  cellseg serve slide.cellseg       the same in the web browser
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.2
  cellseg overlay slide.cellseg     their outlines as a picture, without napari
  cellseg report results/           all results in a folder, as a page and a table
  cellseg teach slide.cellseg       a better model from a few corrected windows
  cellseg train cells.json          a model from your own annotations
  cellseg evaluate cells.json       how good a model is on them""",
)
@click.version_option(__version__, prog_name="cellseg")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0.5),
    metavar="GB",
    help="Stop in one line rather than take more memory than this; for servers.",
)
def cli(verbose: bool, max_memory: float | None) -> None:
    """Count and measure every cell on a microscope slide."""
    if max_memory is not None:
        _limit_memory(int(max_memory * 1e9))
    level = logging.INFO if verbose else logging.ERROR
    # What other libraries warn of, a damaged file for instance, is for those who ask.
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("" if verbose else "cellseg"))
    handler.setFormatter(_Shown("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)


class _Shown(logging.Formatter):
    """Quotes files with their control characters shown."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def main() -> None:
    """Entry point: run the command and turn errors into one line and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    collect_rarely()
    # Of several chunks that zarr asks for at once one error is told, not those that came after it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        try:
            code = cli(standalone_mode=False)
        except click.Abort as error:  # what click makes of Ctrl-C, and of a file that ends early
            raise error.__cause__ or KeyboardInterrupt from None
    except click.ClickException as error:
        with StringIO() as said:
            error.show(said)
            say(said.getvalue().rstrip("\n"), err=True)
        dashed = [name for name in sys.argv[1:] if name.startswith("-") and Path(name).exists()]
        if isinstance(error, click.NoSuchOption) and dashed:
            say(f"A file whose name begins with a dash is written ./{dashed[0]}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        # Whoever asks again means it: no more waiting for threads, and no traceback of theirs.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _exit(INTERRUPTED))
        say("interrupted; what is done is kept", err=True)
        # Libraries of which threads are still at work would abort at Python's own end.
        with suppress(OSError):
            sys.stdout.flush()
        _exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout went away (head, less): nothing to say, nothing to flush.
        _drop_stdout()
        code = 0
    except Exception as error:
        told = error if isinstance(error, CellsegError) else unforeseen(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _drop_stdout()
            told = OutputError(f"the output cannot be written: {error.strerror}")
        elif told is not error:
            logging.getLogger(__name__).info("unexpected", exc_info=True)
        say(f"cellseg: {hinted(told, option)}", err=True)
        code = told.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _limit_memory(n_bytes: int) -> None:
    """Have the system refuse this process, and those that it starts, more memory of their own."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(f"--max-memory: this system sets no such limit ({error})") from error


def _drop_stdout() -> None:
    """What is still to be flushed at the end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
