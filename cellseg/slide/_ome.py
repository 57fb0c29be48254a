"""The little of OME-XML that a count needs: names, pixel sizes, files of a set."""

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
    """One Image of an OME-XML document: name, if any, and SamplesPerPixel of each channel."""

    channels: tuple[str | None, ...]
    samples: tuple[int, ...]
    pixel_size: PixelSize

    @property
    def sample_names(self) -> list[str | None]:
        """A name for each sample of each channel."""
        names: list[str | None] = []
        for name, count in zip(self.channels, self.samples, strict=True):
            several = [f"{name or 'sample'} {i + 1}" for i in range(count)]
            names += [name] if count == 1 else several
        return names


NO_IMAGE = OmeImage((), (), NO_SIZE)


def read_xml(name: str, xml: str | bytes) -> Element | None:
    """The root of an OME-XML document; None where it cannot be read.

    A document type is refused: its defaults and entities put words into the document.
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
    return {name for uuid in _all(root, "UUID") if (name := uuid.get("FileName"))}


def check_claims(name: str, root: Element, pages: int) -> None:
    """Refuse more planes than can be meant, before anything is made for each of them."""
    sizes = (math.prod(_whole(one, f"Size{axis}", 1) for axis in "ZCT")
             for one in _all(root, "Pixels"))  # fmt: skip
    listed = (_planes(one, pages) for one in _all(root, "TiffData"))
    labels = (_labels(one) for one in root.iter() if one.tag[:-1].endswith("Along"))
    check_count(name, "planes", max(sum(sizes), sum(listed), sum(labels)), MAX_PLANES)
    samples = (_whole(one, "SamplesPerPixel", 1) for one in _all(root, "Channel"))
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
    """The entry of one image, by the number of its element; nothing of what cannot be read."""
    images = [] if root is None else root.findall("{*}Image")
    pixels = images[image].find("{*}Pixels") if 0 <= image < len(images) else None
    if pixels is None:
        return NO_IMAGE
    channels = pixels.findall("{*}Channel")
    samples = [channel.get("SamplesPerPixel") or "" for channel in channels]
    units = pixels.get("PhysicalSizeYUnit", "µm"), pixels.get("PhysicalSizeXUnit", "µm")
    return OmeImage(
        tuple(channel.get("Name") for channel in channels),
        tuple(int(text) if text.isdecimal() else 1 for text in samples),
        from_scale(pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeX"), units, "OME-XML"),
    )
