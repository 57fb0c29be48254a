"""Pictures for people: outlines by class, crops chosen by a rule, legends, scale bars."""

from cellseg.draw._borders import draw_borders
from cellseg.draw._histogram import Cutting, draw_histograms
from cellseg.draw._outlines import OTHER, PALETTE, borders, colours, line_width, outlined
from cellseg.draw._parts import SCALE_KEY, Part, keep_parts, parts_of, write_png
from cellseg.draw._places import Places, choose
from cellseg.draw._scalebar import ScaleBar, draw_bar, scale_bar
from cellseg.draw._sheet import Entry, Legend, Panel, sheet
from cellseg.draw._text import font, shortened, wrapped

__all__ = [
    "OTHER",
    "PALETTE",
    "SCALE_KEY",
    "Cutting",
    "Entry",
    "Legend",
    "Panel",
    "Part",
    "Places",
    "ScaleBar",
    "borders",
    "choose",
    "colours",
    "draw_bar",
    "draw_borders",
    "draw_histograms",
    "font",
    "keep_parts",
    "line_width",
    "outlined",
    "parts_of",
    "scale_bar",
    "sheet",
    "shortened",
    "wrapped",
    "write_png",
]
