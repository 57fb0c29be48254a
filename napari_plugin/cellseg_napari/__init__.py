"""cellseg in napari: result folders and slides as lazy layers in µm."""

from cellseg import __version__
from cellseg_napari._reader import add_layers, get_reader, read_result, read_slide

__all__ = ["__version__", "add_layers", "get_reader", "read_result", "read_slide"]
