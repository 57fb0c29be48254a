"""Picture of a result in a real napari window: ``python docs/napari_picture.py RESULT OUT.png``.

Needs a display: ``tools/with-display.sh .venv/bin/python docs/napari_picture.py …``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qtpy.QtWidgets import QApplication
from skimage.io import imsave

from cellseg.cli.view import open_viewer


def main(result: str, out: str) -> None:
    """Open the result, zoom in twice, save the whole window."""
    viewer = open_viewer(Path(result))
    viewer.window.resize(1400, 900)
    QApplication.processEvents()
    viewer.reset_view()
    viewer.camera.zoom *= 2.5
    for _ in range(20):
        QApplication.processEvents()
    imsave(out, viewer.screenshot(canvas_only=False, flash=False)[..., :3], check_contrast=False)
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
