"""Finished results in a web browser: slide, outlines and measurements, read-only.

A server on this machine's own address, of Python's standard library, that draws tiles as they are
looked at. Nothing of an address leads to a file: results have numbers, and the page's own files
names that are known beforehand.
"""

from cellseg.serve._http import Server
from cellseg.serve._viewer import Viewer, read_results

__all__ = ["Server", "Viewer", "read_results"]
