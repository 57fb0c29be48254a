"""The little of OME-XML that a count needs: names, colours and pixel sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cellseg.errors import InputError
from cellseg.slide._pixelsize import NO_SIZE, PixelSize, from_scale
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count


@dataclass(frozen=True)
class OmeImage:
    """One Image of an OME-XML document.

    Attributes
    ----------
    channels : tuple of (str or None)
        Names, None where there is none.
    samples : tuple of int
        SamplesPerPixel of each channel.
    """

    channels: tuple[str | None, ...]
    samples: tuple[int, ...]
    pixel_size: PixelSize


NO_IMAGE = OmeImage((), (), NO_SIZE)


def read_xml(name: str, xml: str | bytes) -> Element | None:
    """The root of an OME-XML document; None where it cannot be read.

    A document type is refused: its defaults and entities put words into the document.

    Raises
    ------
    InputError
    """
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(
            f"{name}: its OME-XML declares a document type or entities, which OME has not; not read"
        ) from error
    except (ParseError, ValueError):
        return None
    return root


def file_names(root: Element) -> set[str]:
    """The files of a set, as its document names them."""
    return {name for e in root.iter() if _tag(e) == "UUID" and (name := e.get("FileName"))}


def check_claims(name: str, root: Element, pages: int) -> None:
    """Refuse more planes than can be meant, before anything is made for each of them.

    Parameters
    ----------
    name : str
        The file's, for messages.
    pages : int
        How many the file has.

    Raises
    ------
    InputError
    """
    claimed = (
        sum(count)
        for count in (
            [
                math.prod(_whole(e, f"Size{axis}", 1) for axis in "ZCT")
                for e in _all(root, "Pixels")
            ],
            [_planes(e, pages) for e in _all(root, "TiffData")],
            [_labels(e) for e in root.iter() if e.tag[:-1].endswith("Along")],
        )
    )
    check_count(name, "planes", max(claimed), MAX_PLANES)
    samples = (_whole(e, "SamplesPerPixel", 1) for e in _all(root, "Channel"))
    check_count(name, "samples a pixel", max(samples, default=1), MAX_CHANNELS)


def _all(root: Element, tag: str) -> Iterator[Element]:
    return (element for element in root.iter() if element.tag.endswith(tag))


def _whole(element: Element, key: str, default: int) -> int:
    return abs(int(element.get(key, default)))


def _planes(data: Element, pages: int) -> int:
    count = _whole(data, "NumPlanes", 1 if "IFD" in data.attrib else 0)
    return _whole(data, "PlaneCount", count) or pages


def _labels(along: Element) -> int:
    start, end, step = (float(along.get(key, 1)) for key in ("Start", "End", "Step"))
    count = abs(end - start) / abs(step) if step else math.inf
    return int(min(count, 1e18)) if count == count else 0


def parse_ome(root: Element | None, image: int) -> OmeImage:
    """Read one image's entry; a document that cannot be read says nothing.

    Parameters
    ----------
    root : Element or None
        Of the whole document.
    image : int
        Number of the Image element.
    """
    if root is None:
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


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _count(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 1
