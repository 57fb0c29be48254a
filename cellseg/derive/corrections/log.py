"""``corrections.json``: the edits of one result, written whole after each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cellseg.derive.corrections.edit import ClassName, Edit
from cellseg.errors import InputError, OutputError
from cellseg.geometry import Box
from cellseg.result import Result
from cellseg.result.files import (
    fault_of,
    output_errors,
    own_file,
    read_json,
    replacing,
    sha256_of,
)
from cellseg.result.publish import CORRECTIONS

FORMAT = "cellseg corrections"


class _LogRecord(BaseModel):
    """``corrections.json``, whoever wrote it."""

    model_config = ConfigDict(strict=True)

    format: Literal["cellseg corrections"]
    result: str
    classes: list[ClassName]
    edits: list[Edit]


class LogFile:
    """The log of one result, read once and written by one hand."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._path = own_file(result.path, CORRECTIONS)
        self._seen = self._digest()
        self._of: str | None = None  # the earlier count whose edits are there

    def read(self) -> tuple[list[Edit], list[str]]:
        """The edits made so far, and class names that a person added; none without a log.

        A damaged log is left as it is.
        """
        if not self._path.exists():
            return [], []
        earlier = read_json(self._path).get("result")
        if isinstance(earlier, str) and earlier != self._result.token:
            self._of = earlier
            return [], []
        try:
            record = _LogRecord.model_validate_json(self._path.read_bytes())
            self._check(record.edits, record.classes)
        except ValueError as error:
            why = fault_of(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(
                f"{self._path}: is damaged: {why}; mend it, or move it away to start anew"
            ) from error
        return record.edits, record.classes

    def _check(self, edits: Sequence[Edit], added: Sequence[str]) -> None:
        """Check that edits fit the slide; they may be older than its classes by measurement."""
        frame, result = self._result.frame, self._result
        extent = Box(0, 0, frame.lattice_height, frame.lattice_width)
        classes = {*result.class_names, *map(str, result.section("found")["class_names"]), *added}
        changes = [change for edit in edits for change in edit.changes]
        for cell in (c for change in changes for c in (change.before, change.after) if c):
            if cell.box.intersection(extent) != cell.box:
                raise ValueError(f"a cell outside of the slide: {cell.box}")
            if cell.name not in classes:
                raise ValueError(f"a cell of an unknown class {cell.name!r}")

    def write(self, edits: Sequence[Edit], classes: Sequence[str]) -> None:
        """Write all edits in one step; edits of an earlier count are kept under another name.

        Raises
        ------
        OutputError
            If the disk refuses, if the slide was counted again meanwhile, or if somebody else
            corrected it: then theirs stay on the disk.
        """
        self._result.check_current()
        path = self._path
        about = {"format": FORMAT, "result": self._result.token, "classes": list(classes)}
        lines = ",\n".join(edit.text for edit in edits)
        content = f'{json.dumps(about)[:-1]}, "edits": [\n{lines}\n]}}\n'.encode()
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
