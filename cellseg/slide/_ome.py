"""The little of OME-XML that a count needs: names, colours and pixel sizes."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from cellseg.slide._pixelsize import NO_SIZE, PixelSize, from_scale


@dataclass(frozen=True)
class OmeImage:
    """One Image of an OME-XML document.

    Attributes
    ----------
    channels : tuple of (str or None)
        Names, None where there is none.
    samples : tuple of int
        SamplesPerPixel of each channel.
    pixel_size : PixelSize
    """

    channels: tuple[str | None, ...]
    samples: tuple[int, ...]
    pixel_size: PixelSize


NO_IMAGE = OmeImage((), (), NO_SIZE)


def parse_ome(xml: str | bytes, image: int) -> OmeImage:
    """Read one image's entry; a document that cannot be read says nothing.

    Parameters
    ----------
    xml : str or bytes
        The whole document.
    image : int
        Number of the Image element.
    """
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return NO_IMAGE
    images = [element for element in root if _tag(element) == "Image"]
    if not 0 <= image < len(images):
        return NO_IMAGE
    pixels = next((child for child in images[image] if _tag(child) == "Pixels"), None)
    if pixels is None:
        return NO_IMAGE
    channels = [child for child in pixels if _tag(child) == "Channel"]
    samples = tuple(_count(channel.get("SamplesPerPixel")) for channel in channels)
    size = from_scale(
        pixels.get("PhysicalSizeY"),
        pixels.get("PhysicalSizeX"),
        (pixels.get("PhysicalSizeYUnit", "µm"), pixels.get("PhysicalSizeXUnit", "µm")),
        "OME-XML",
    )
    return OmeImage(tuple(channel.get("Name") for channel in channels), samples, size)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _count(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 1
