"""Pictures for people: outlines by class, crops chosen by a rule, legends, scale bars."""

from cellseg.picture._borders import draw_borders
from cellseg.picture._histogram import Cutting, draw_histograms
from cellseg.picture._outlines import OTHER, PALETTE, borders, colours, line_width, outlined
from cellseg.picture._parts import SCALE_KEY, Part, keep_parts, parts_of, write_png
from cellseg.picture._places import Places, choose
from cellseg.picture._scalebar import ScaleBar, draw_bar, scale_bar
from cellseg.picture._sheet import Entry, Legend, Panel, sheet
from cellseg.picture._text import font, shortened, wrapped

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
