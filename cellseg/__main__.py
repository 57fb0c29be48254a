"""The command ``cellseg``, and ``python -m cellseg``."""

import atexit
import signal
import sys
from contextlib import suppress
from os import _exit


def main() -> None:
    """Run the command, and end without Python's own clean-up, which takes a third of a second."""
    code = 1

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        _exit(code)

    atexit.register(leave)  # before libraries register theirs: the first is called last
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the command handles it itself: a traceback while libraries load says nothing.
        signal.signal(signal.SIGINT, lambda *_: _exit(130))
    from cellseg.cli import main as run

    try:
        run()
    except SystemExit as end:
        code = int(end.code or 0)
        signal.signal(signal.SIGINT, lambda *_: _exit(code))
        raise


if __name__ == "__main__":
    main()
