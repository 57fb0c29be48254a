"""``corrections.json``: the edits of one result, written whole after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from cellseg._results.files import output_errors, read_json, write_json
from cellseg.corrections._edit import Edit
from cellseg.errors import InputError, OutputError
from cellseg.results import CORRECTIONS, Result

LOG_NAME = CORRECTIONS
FORMAT = "cellseg corrections"


def token_of(result: Result) -> str:
    """What names the result that edits belong to: a new count has another."""
    return str(result.run.get("result", ""))


def check_token(result: Result) -> None:
    """That the folder still holds this result.

    Raises
    ------
    OutputError
        If the slide was counted again meanwhile.
    """
    try:
        current = read_json(result.run_path).get("result")
    except InputError as error:
        raise OutputError(f"{result.path}: the result is not there any more: {error}") from error
    if current != token_of(result):
        raise OutputError(
            f"{result.path}: the slide was counted again meanwhile; open the new result to correct"
        )


class LogFile:
    """The log of one result, read once and written by one hand.

    Parameters
    ----------
    result : Result
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._path = result.path / LOG_NAME
        self._seen = self._digest()

    def read(self) -> tuple[list[Edit], list[str]]:
        """The edits made so far, and class names that a person added; none without a log.

        Raises
        ------
        InputError
            If the log is damaged. It is left as it is.
        """
        if not self._path.exists():
            return [], []
        found = read_json(self._path)
        if found.get("format") != FORMAT:
            raise InputError(f"{self._path}: holds no corrections of cellseg")
        if found.get("result") != token_of(self._result):
            return [], []
        try:
            classes = [str(name) for name in found["classes"]]
            edits = [Edit.from_dict(entry) for entry in found["edits"]]
            self._check(edits, {*map(str, self._result.run.get("class_names", ())), *classes})
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{self._path}: is damaged: {error}") from error
        return edits, classes

    def write(self, edits: Sequence[Edit], classes: Sequence[str]) -> None:
        """Write all edits in one step; edits of an earlier count are kept under another name.

        Raises
        ------
        OutputError
            If the disk refuses, if the slide was counted again meanwhile, or if somebody else
            corrected it: then theirs stay on the disk.
        """
        check_token(self._result)
        path = self._path
        with output_errors(path):
            if self._digest() != self._seen:
                raise OutputError(
                    f"{path}: was changed elsewhere, in another window or by somebody else; "
                    "open the result again to go on"
                )
            if path.exists() and read_json(path).get("result") != token_of(self._result):
                earlier = str(read_json(path).get("result"))[:8]
                safe = "".join(letter for letter in earlier if letter.isalnum()) or "earlier"
                path.rename(path.with_name(f"corrections-{safe}.json"))
            write_json(
                path,
                {
                    "format": FORMAT,
                    "result": token_of(self._result),
                    "classes": list(classes),
                    "edits": [edit.as_dict() for edit in edits],
                },
            )
            self._seen = self._digest()

    def _digest(self) -> str | None:
        try:
            return sha256(self._path.read_bytes()).hexdigest()
        except OSError:
            return None

    def _check(self, edits: Sequence[Edit], classes: set[str]) -> None:
        """That edits fit the slide, whoever wrote the file.

        Raises
        ------
        ValueError
        """
        frame = self._result.frame
        for edit in edits:
            if len(set(edit.labels)) < len(edit.labels):
                raise ValueError("an edit that changes a cell twice")
            for change in edit.changes:
                if not 1 <= change.label < 2**32:
                    raise ValueError(f"a cell with the number {change.label}")
                for cell in (change.before, change.after):
                    if cell is None:
                        continue
                    box = cell.box
                    if box.y1 > frame.lattice_height or box.x1 > frame.lattice_width:
                        raise ValueError(f"a cell outside of the slide: {box}")
                    if cell.name not in classes:
                        raise ValueError(f"a cell of an unknown class {cell.name!r}")
