"""``labels.tif``: ``labels.tiff`` with the shorter ending."""

from cellseg.export.labels_tiff import write

__all__ = ["write"]
