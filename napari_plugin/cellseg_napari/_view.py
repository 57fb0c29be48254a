"""A window of its own for a result or a slide: what the command line opens."""

from __future__ import annotations

from pathlib import Path

import napari

from cellseg.errors import CellsegError
from cellseg_napari._reader import add_layers, read_result, read_slide


def open_viewer(path: Path) -> napari.Viewer:
    """A napari window with a result folder's or a slide's layers, and the panel that fits.

    Raises
    ------
    InputError
        If it is neither.
    """
    is_result = path.is_dir() and path.suffix.lower() == ".cellseg"
    # Shown before the layers are read, so that it can show what reading them has to say.
    viewer = napari.Viewer(title=path.name)
    try:
        add_layers(viewer, read_result(path) if is_result else read_slide(path))
    except CellsegError:
        viewer.close()
        raise
    widget = "Inspect and correct cells" if is_result else "Count cells"
    viewer.window.add_plugin_dock_widget("cellseg-slides", widget)
    canvas = getattr(viewer, "canvas", None)  # since napari 0.9
    scale_bar = viewer.scale_bar if canvas is None else canvas.overlays.scale_bar
    scale_bar.visible = True
    viewer.reset_view()
    return viewer
