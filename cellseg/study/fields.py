"""Files of a folder that are one field together, by a pattern or as makers name them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from os.path import commonprefix

from cellseg.errors import InputError
from cellseg.pattern import AXES, FilePattern, natural
from cellseg.slide.formats import slide_name
from cellseg.storage import Location, RemotePath
from cellseg.text import visible

LAYOUTS = (
    "r{row}c{column}f{site}p{z}-ch{channel}sk{time}*",  # Operetta, Opera: Harmony
    "{plate}_{well}_T{time}F{site}L*A*Z{z}C{channel}",  # Yokogawa CellVoyager
    "{plate}_{well}_s{site}_w{channel}*",  # ImageXpress, MetaXpress
    "{well}_s{site}_w{channel}*",
    "{plate}_{channel}_{well}_{site}_{time}m",  # Incucyte
    "{plate}_{well}_{site}_{time}m",
    "{plate}_{well}f{site}d{channel}",  # Cellomics ArrayScan
    "{plate}_{well}_s{site}_ch{channel}",
    "{well}_s{site}_ch{channel}",
    "{name}_ch{channel}",  # ImageJ, Leica LAS
)
"""How makers name the files of a plate, without the ending; the first that fits counts."""

_WELL = re.compile(r"(?<![A-Za-z0-9])[A-P](?:0[1-9]|[12]\d|[1-9])(?![A-Za-z0-9])")
_SITE = re.compile(
    r"(?<=[-_ ])(?:site|field|pos|[sf])[-_ ]?(\d{1,3})(?![A-Za-z0-9])", re.IGNORECASE
)
_CHANNEL = re.compile(
    r"(?<![A-Za-z0-9])(?:ch|channel|wavelength|[cw])[-_ ]?(\d{1,2})(?![A-Za-z0-9])|"
    r"(?<![A-Za-z])(dapi|hoechst|e?gfp|yfp|rfp|cfp|mcherry|fitc|tritc|texasred|cy[2357]|alexa\d*|"
    r"actin|phalloidin|brightfield|phase)(?![A-Za-z])",
    re.IGNORECASE,
)
_CHANNEL_OF_WELL = re.compile(r"(?<=[-_ ])[a-eg-ru-y](\d{1,2})(?=\.\w+$)", re.IGNORECASE)
"""A channel only where a well stands before it: elsewhere ``d1`` may be a day. Sites (f, s), times
and planes (t, z) are none."""

Files = dict[tuple[str, ...], list[Location]]
"""The files of a field by channel, z and time."""

Unread = list[tuple[Location, InputError]]


def group_files(
    files: Sequence[Location], wanted: FilePattern | None
) -> tuple[list[Location], Unread, list[Location]]:
    """Put the image files of each field of one folder together.

    What does not match ``wanted`` is left out; None: as makers name files, the rest are images.
    An InputError then if files differ only in what looks like a channel or a site.

    Returned are images, fields of several files among them; and fields that lack a channel or have
    one twice, and wells that lack a site, each with its error; and what was left out.
    """
    images: list[Location] = []
    unread: Unread = []
    rest: list[Location] = []
    plates: dict[FilePattern, dict[str, Files]] = defaultdict(lambda: defaultdict(dict))
    for file in files:
        pattern = _layout(file) if wanted is None else wanted
        values = None if pattern is None else pattern.match(file.name)
        if pattern is None or values is None:
            rest.append(file)
        elif not pattern.names:
            images.append(file)
        else:
            key = tuple(values.get(axis, "") for axis in AXES)
            plates[pattern][pattern.field(values)].setdefault(key, []).append(file)
    for pattern, fields in plates.items():
        found, missing = _fields(pattern, fields, is_wanted=wanted is not None)
        images += found
        unread += missing
    if wanted is None:
        has_plate = any("site" in pattern.names for pattern in plates)
        rest = [file for file in rest if not (has_plate and "thumb" in file.name.lower())]
        _refuse_parts(rest)
        return images + rest, unread, []
    return images, unread, rest


def _layout(file: Location) -> FilePattern | None:
    stem, dot, ending = file.name.rpartition(".")
    for layout in LAYOUTS:
        values = FilePattern(layout).match(stem)
        if values is None:
            continue
        # Makers number channels; only Incucyte names them.
        if "{time}m" in layout or values["channel"].isdecimal():
            return FilePattern(f"{layout}{dot}{ending}")
    return None


def _fields(
    pattern: FilePattern, fields: dict[str, Files], *, is_wanted: bool
) -> tuple[list[Location], Unread]:
    """The fields that are whole, and what those of a plate lack."""
    images: list[Location] = []
    unread: Unread = []
    is_plate = bool({"well", "row"} & {*pattern.names})
    channels = {key[0] for files in fields.values() for key in files}
    sites: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, files in fields.items():
        first, *others = [file for each in files.values() for file in each]
        folder, one = first.parent, FilePattern(name)
        place = folder.child(name) if isinstance(folder, RemotePath) else folder / name
        double = next((each for each in files.values() if len(each) > 1), None)
        lacking = sorted(channels - {key[0] for key in files}, key=natural)
        sites[one.values.get("plate", ""), one.well].add(one.values.get("site", ""))
        if double is not None:
            said = f"{double[0].name} and {double[1].name} are one channel of it"
        elif lacking and (is_plate or is_wanted):
            names = ", ".join(map(pattern.channel_name, lacking))
            said = f"lacks channel {names}, which others of its folder have"
        else:
            # A file that is alone, and of no plate, keeps its own name.
            images.append(place if others or is_plate or is_wanted else first)
            continue
        unread.append((place, InputError(visible(f"{slide_name(place)}: {said}"), hint="files")))
    every = set[str]().union(*sites.values()) if is_plate else set[str]()
    holes = [f"{w}/{s}" for (_, w), own in sites.items() for s in sorted(every - own, key=natural)]
    if holes:
        listed = ", ".join(holes[:5]) + (", …" if len(holes) > 5 else "")
        said = f"{len(holes)} of its sites are not there: {visible(listed)}"
        unread.append((folder, InputError(f"{folder.name}: {said}")))
    return images, unread


def _refuse_parts(files: Sequence[Location]) -> None:
    """Ask, by an InputError, about files that look like parts of one image."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in files:
        if (key := _proposed(file.name)) is not None:
            groups[key].append(file.name)
    asked = {key: names for key, names in groups.items() if len(names) > 1}
    if not asked:
        return
    (pattern, _), names = next(iter(asked.items()))
    what = "channel" if "{channel}" in pattern else "site"
    before, after = (
        commonprefix([key[::step] for key, _ in asked])  # noqa: RUF071 - of characters
        for step in (1, -1)
    )
    wider = f"{before}{{name}}{after[::-1]}"
    if len({key for key, _ in asked}) > 1 and wider.count("{") == pattern.count("{") + 1:
        pattern = wider
    raise InputError(
        f"{files[0].parent}: {visible(names[0])} and {visible(names[1])} differ only in what "
        f"looks like a {what}: say how they belong together with a pattern of their names, "
        f"such as '{visible(pattern)}', or '*' if each is an image of its own",
        hint="files",
    )


def _proposed(name: str) -> tuple[str, str] | None:
    """A pattern and the well of a name that has a channel, or a well and a site; else None."""
    well = _WELL.search(name)
    found = {"channel": _CHANNEL.search(name)}
    if well is not None:
        found["site"] = _SITE.search(name, well.end())
        found["channel"] = found["channel"] or _CHANNEL_OF_WELL.search(name, well.end())
    spans = {part: one.span(one.lastindex or 0) for part, one in found.items() if one}
    if not spans or "{" in name:
        return None
    if well is not None and well.end() not in {end for _, end in spans.values()}:
        spans["well"] = well.span()
    pattern = name
    for part, (start, end) in sorted(spans.items(), key=lambda one: one[1], reverse=True):
        pattern = f"{pattern[:start]}{{{part}}}{pattern[end:]}"
    return pattern, name[slice(*spans.get("well", (0, 0)))]
