"""Finished results in a web browser: slide, outlines and measurements.

Here belong the server on this machine's own address, what each address of it answers, and the
page's own files. What a result holds is asked of :class:`cellseg.result.Result`, colours and
borders of :mod:`cellseg.draw`. Nothing is written but regions that people draw, where that was
asked for. No address leads to a file: results have numbers, and the page's files have names that
are known beforehand.
"""

from cellseg.serve.server import Server
from cellseg.serve.viewer import Viewer

__all__ = ["Server", "Viewer"]
