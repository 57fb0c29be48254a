"""The command ``cellseg``, and ``python -m cellseg``."""

import signal
from os import _exit

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the command listens: a traceback of libraries that are loaded says nothing.
    signal.signal(signal.SIGINT, lambda *_: _exit(130))

from cellseg.cli import main

if __name__ == "__main__":
    main()
