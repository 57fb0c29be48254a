"""Patterns of file names, which tell the files that are one field of view together.

``{well}_s{site}_w{channel}.tif`` names the files of a plate. With its places filled in,
``{well=B02}_s{site=1}_w{channel}.tif``, it is the name of one field: an image whose channels,
planes and time points are files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cellseg.errors import SettingsError

AXES = ("channel", "z", "time")  # What differs between the files of one field.
PLACES = {
    "plate": ".+?",
    "name": ".+?",
    "well": r"(?:A[A-F]|[A-P])(?:0?[1-9]|[1-4]\d)",
    "row": r"A[A-F]|[A-P]|\d{1,2}",
    "column": r"\d{1,2}",
    "site": "[A-Za-z0-9]+?",
}
"""What tells fields apart, and how each is written."""

_SHAPES = {
    **PLACES,
    "channel": "[A-Za-z0-9]+?(?:[ .+-][A-Za-z0-9]+?)*?",
    "z": r"\d+",
    "time": r"\d[\dydhms_]*?",
}
_ANYTHING = "(?:(?!thumb).)*?"  # An asterisk; microscopes put thumbnails beside their images.
_PART = re.compile(r"\{(\w+)(?:=([^{}]*))?\}|\*")
_AXIS = re.compile(r"[-_ .+]*(?:(?<![A-Za-z])[A-Za-z]{1,3})?\{(?:channel|z|time)\}|[A-Za-z]?\*")


@dataclass(frozen=True)
class FilePattern:
    """A pattern of file names.

    Placeholders are those of :data:`PLACES` and :data:`AXES`, each at most once; an asterisk stands
    for any text. Others raise a SettingsError.
    """

    text: str

    def __post_init__(self) -> None:
        names = self.names
        wrong = [name for name in names if name not in _SHAPES or names.count(name) > 1]
        if wrong:
            raise SettingsError(
                f"{self.text}: {{{wrong[0]}}} is unknown or there twice; a pattern has "
                f"{', '.join(f'{{{name}}}' for name in _SHAPES)}, each once",
                hint="files",
            )
        if "/" in self.text:
            raise SettingsError(f"{self.text}: names files of one folder, so no /", hint="files")

    @property
    def names(self) -> list[str]:
        return [found[1] for found in _PART.finditer(self.text) if found[1]]

    @property
    def values(self) -> dict[str, str]:
        found = _PART.finditer(self.text)
        return {one[1]: one[2] for one in found if one[1] and one[2] is not None}

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        end, parts = 0, []
        for found in _PART.finditer(self.text):
            parts.append(re.escape(self.text[end : found.start()]))
            name, value = found.groups()
            shape = _SHAPES.get(name, "") if value is None else re.escape(value)
            parts.append(f"(?P<{name}>{shape})" if name else _ANYTHING)
            end = found.end()
        return re.compile("".join(parts) + re.escape(self.text[end:]), re.IGNORECASE)

    def match(self, name: str) -> dict[str, str] | None:
        """The texts that placeholders stand for in a file's name; None where it does not match."""
        found = self._regex.fullmatch(name)
        return None if found is None else found.groupdict()

    def field(self, values: Mapping[str, str]) -> str:
        """The name of the field that a file belongs to: its places are filled in."""

        def fill(found: re.Match[str]) -> str:
            name = found[1]
            return f"{{{name}={values[name]}}}" if name in PLACES else found[0]

        return _PART.sub(fill, self.text)

    @property
    def title(self) -> str:
        """A field's name for people and folders, without what differs between its files."""
        short = _AXIS.sub("", self.text)
        return _PART.sub(lambda found: found[2] or "", short).strip("-_ .+")

    @property
    def well(self) -> str:
        """Row and column of a field, such as ``B02``; empty where they are not known."""
        values = self.values
        row, column = values.get("row", ""), values.get("column", "")
        if "well" in values:
            row = values["well"].rstrip("0123456789")
            column = values["well"][len(row) :]
        if not (row and column.isdecimal()):
            return ""
        if row.isdecimal():
            tens, ones = divmod(max(int(row) - 1, 0), 26)
            row = "A" * (tens > 0) + chr(ord("A") + ones)
        return f"{row.upper()}{int(column):02d}"

    def channel_name(self, channel: str) -> str:
        """A channel's text; of a number, with the letters before it: ``w1``, ``ch00``."""
        letters = re.search(r"([A-Za-z]*)\{channel\}", self.text)
        return (letters[1] if letters and channel.isdecimal() else "") + channel


def field_pattern(name: str) -> FilePattern | None:
    """The pattern that a field's name is; None of any other name, and of a pattern with blanks."""
    try:
        pattern = FilePattern(name)
    except SettingsError:
        return None
    blank = {*pattern.names} - {*pattern.values} - {*AXES}
    return pattern if pattern.names and not blank else None


def natural(text: str) -> list[tuple[int, str]]:
    """Key by which names are sorted as people do: 2 comes before 10.

    >>> sorted(["w10", "w2"], key=natural)
    ['w2', 'w10']
    """
    parts = re.split(r"(\d+)", text.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
