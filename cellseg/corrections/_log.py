"""``corrections.json``: the edits of one result, written whole after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg._results.files import output_errors, read_json, write_json
from cellseg.corrections._edit import Edit
from cellseg.errors import InputError, OutputError
from cellseg.results import Result

LOG_NAME = "corrections.json"
FORMAT = "cellseg corrections"


def token_of(result: Result) -> str:
    """What names the result that edits belong to: a new count has another."""
    return str(result.run.get("result", ""))


def read_log(result: Result) -> tuple[list[Edit], list[str]]:
    """The edits made so far, and class names that a person added; none where there is no log.

    Raises
    ------
    InputError
        If the log is damaged. It is left as it is.
    """
    path = result.path / LOG_NAME
    if not path.exists():
        return [], []
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: holds no corrections of cellseg")
    if found.get("result") != token_of(result):
        return [], []
    try:
        edits = [Edit.from_dict(entry) for entry in found["edits"]]
        classes = [str(name) for name in found["classes"]]
    except (LookupError, TypeError, ValueError, UnicodeError) as error:
        raise InputError(f"{path}: is damaged: {error}") from error
    return edits, classes


def is_outdated(result: Result) -> bool:
    """Whether the folder holds edits of an earlier count."""
    path = result.path / LOG_NAME
    return path.exists() and read_json(path).get("result") != token_of(result)


def write_log(result: Result, edits: Sequence[Edit], classes: Sequence[str]) -> Path:
    """Write all edits in one step; edits of an earlier count are kept under another name.

    Raises
    ------
    OutputError
        If the disk refuses, or if the slide was counted again meanwhile.
    """
    path = result.path / LOG_NAME
    try:
        current = read_json(result.run_path).get("result")
    except InputError as error:
        raise OutputError(f"{result.path}: the result is not there any more: {error}") from error
    if current != token_of(result):
        raise OutputError(
            f"{result.path}: the slide was counted again meanwhile; open the new result to correct"
        )
    with output_errors(path):
        if is_outdated(result):
            earlier = str(read_json(path).get("result"))[:8]
            safe = "".join(letter for letter in earlier if letter.isalnum()) or "earlier"
            path.rename(path.with_name(f"corrections-{safe}.json"))
        write_json(
            path,
            {
                "format": FORMAT,
                "result": token_of(result),
                "classes": list(classes),
                "edits": [edit.as_dict() for edit in edits],
            },
        )
    return path
