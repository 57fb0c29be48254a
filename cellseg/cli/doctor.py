"""``cellseg doctor``: whether everything that a count needs is there and sound."""

from __future__ import annotations

import json

import click

from cellseg.cli._say import say
from cellseg.errors import PartialResultError

SIGNS = {"ok": "ok  ", "note": "–   ", "fault": "FAIL"}


@click.command()
@click.option("--window/--no-window", default=True, help="Try whether napari opens a window.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one entry a check.")
def doctor(*, window: bool, as_json: bool) -> None:
    """Say what is installed, where a count would run, and what is not well.

    Exit code 3 if something is not well. Paste the whole output into a report of a fault.
    """
    from cellseg.cli._doctor import checks

    found = []
    for check in checks(window=window):
        found.append(check)
        if not as_json:
            say(f"{SIGNS[check.state]}  {check.name:<12} {check.text}")
    if as_json:
        say(json.dumps([vars(check) for check in found], indent=2, ensure_ascii=False))
    faults = [check.name for check in found if check.state == "fault"]
    if faults:
        raise PartialResultError(f"not well: {', '.join(faults)}")
