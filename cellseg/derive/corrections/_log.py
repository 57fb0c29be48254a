"""``corrections.json``: the edits of one result, written whole after each of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from hashlib import sha256

from pydantic import ValidationError

from cellseg.derive.corrections._edit import Edit, LogRecord
from cellseg.errors import InputError, OutputError
from cellseg.result import Result
from cellseg.result.files import output_errors, own_file, read_json, replacing, sha256_of
from cellseg.result.publish import CORRECTIONS, RUN

LOG_NAME = CORRECTIONS
FORMAT = "cellseg corrections"


def check_token(result: Result) -> None:
    """That the folder still holds this result.

    Raises
    ------
    OutputError
        If the slide was counted again meanwhile.
    """
    try:
        current = read_json(own_file(result.path, RUN)).get("result")
    except InputError as error:
        raise OutputError(f"{result.path}: the result is not there any more: {error}") from error
    if current != result.token:
        raise OutputError(
            f"{result.path}: the slide was counted again meanwhile; open the new result to correct"
        )


class LogFile:
    """The log of one result, read once and written by one hand.

    Parameters
    ----------
    keep : bool
        Keep a copy of a log that is damaged.
    """

    def __init__(self, result: Result, *, keep: bool = True) -> None:
        self._result, self._keep = result, keep
        self._path = own_file(result.path, LOG_NAME)
        self._seen = self._digest()
        self._of: str | None = None  # the earlier count whose edits are there

    def read(self) -> tuple[list[Edit], list[str]]:
        """The edits made so far, and class names that a person added; none without a log.

        Raises
        ------
        InputError
            If the log is damaged. It is left as it is, and a copy of it is kept.
        """
        if not self._path.exists():
            return [], []
        try:
            found = read_json(self._path)
            if found.get("format") != FORMAT:
                raise ValueError("no corrections of cellseg")
            if found.get("result") != self._result.token:
                self._of = str(found.get("result"))
                return [], []
            record = LogRecord.model_validate(found)
            edits = [Edit.from_dict(entry) for entry in found["edits"]]
            self._check(edits, {*self._known_classes(), *record.classes})
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise self._damaged(f"{where}: {fault['msg']}") from error
        except (InputError, ValueError) as error:
            raise self._damaged(str(error).removeprefix(f"{self._path}: ")) from error
        return edits, record.classes

    def _known_classes(self) -> list[str]:
        """Those that the result has or had: edits may be older than its classes by measurement."""
        return [*self._result.class_names, *map(str, self._result.section("found")["class_names"])]

    def _damaged(self, why: str) -> InputError:
        if not self._keep:
            return InputError(f"{self._path}: is damaged: {why}")
        kept = f"corrections-damaged-{(self._seen or '')[:8]}.json"
        try:
            shutil.copyfile(self._path, self._path.with_name(kept))
        except OSError:
            return InputError(f"{self._path}: is damaged: {why}")
        return InputError(
            f"{self._path}: is damaged: {why}; a copy is kept as {kept}: mend the file, or move it "
            "away to start anew"
        )

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
        about = {"format": FORMAT, "result": self._result.token, "classes": list(classes)}
        lines = ",\n".join(edit.text for edit in edits)
        content = f'{json.dumps(about)[:-1]}, "edits": [\n{lines}\n]}}\n'.encode("ascii")
        with output_errors(path):
            if self._digest() != self._seen:
                raise OutputError(
                    f"{path}: was changed elsewhere, in another window or by somebody else; "
                    "open the result again to go on"
                )
            if self._of is not None:
                safe = "".join(letter for letter in self._of[:8] if letter.isalnum()) or "earlier"
                path.rename(path.with_name(f"corrections-{safe}.json"))
                self._of, self._seen = None, None
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            self._seen = sha256(content).hexdigest()

    def _digest(self) -> str | None:
        try:
            return sha256_of(self._path)
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
                for cell in (change.before, change.after):
                    if cell is None:
                        continue
                    box = cell.box
                    if box.y1 > frame.lattice_height or box.x1 > frame.lattice_width:
                        raise ValueError(f"a cell outside of the slide: {box}")
                    if cell.name not in classes:
                        raise ValueError(f"a cell of an unknown class {cell.name!r}")
