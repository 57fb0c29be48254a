"""What a count came across beside its cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cellseg.counting.tiles import TileFound
from cellseg.errors import Notice
from cellseg.geometry import Box, Frame
from cellseg.protocol import OTHER_TISSUE, CountProtocol

GATED_SHARE, GATED_AT_LEAST = 0.05, 10
"""More outlines than this beyond the protocol's size limits are worth a warning."""

SATURATED_SHARE = 0.005
"""Of the pixels in immunohistochemistry: more at the sensor's limit are worth a warning."""

RINGED_SHARE = 0.05
"""Of the cells: more in a ring that is browner than they are tell of stained membranes."""

BACKGROUND_SHARE = 0.02
"""Of all outlines: more of them on bare background are worth a doubt."""

UNLIKE_SHARE = 0.25
"""Of the fields that cell types were told in: more of them unlike those that types were learned
from are worth a doubt. Of those themselves one in twenty is unlike the others."""


@dataclass(eq=False)
class Tally:
    """What a run came across that its table of cells does not tell.

    ``unlike`` and ``fields`` are as in :class:`~cellseg.network.detector.Detections`, over tiles.
    """

    skipped: int = 0  # Tiles without tissue.
    failures: list[dict[str, object]] = field(default_factory=list)
    """Of each tile that did not decode, whole or in part, the box, and why."""

    damaged: int = 0  # Blocks beside counted tiles that did not decode.
    limits: Counter[str] = field(default_factory=Counter)
    """Tiles in which a limit of the detector was reached, by its name."""

    unlike: int = 0
    fields: int = 0
    kept: int = 0  # Merged outlines that were counted.
    gated: int = 0  # Merged outlines beyond the size limits.
    outside: int = 0  # Merged outlines outside of the tissue.
    background: int = 0  # Merged outlines that look like the background around them.
    unmeasured: int = 0  # Cells whose pixels could not be read again.
    pixels: int = 0  # All of measured cells in immunohistochemistry.
    at_limit: int = 0  # Those of them that are as dark as the sensor can tell.
    asked: int = 0  # Cells in immunohistochemistry that were looked around.
    brown: int = 0  # Those in a brown ring.
    ringed: int = 0  # Those whose ring is browner than they are.

    def found(self, found: TileFound) -> None:
        self.limits.update(found.limits)
        self.unlike += found.unlike[0]
        self.fields += found.unlike[1]
        core = found.tile.core
        lost = [block for block in found.damaged if block.intersects(core)]
        self.damaged += len(found.damaged) - len(lost)
        if found.error:
            self.failure(Box.around(lost) if lost else core, found.error)

    def failure(self, box: Box, error: str) -> None:
        """A tile's core, or what of it did not decode."""
        self.failures.append({"box": list(box.corners), "error": error[:300]})

    def warnings(self, protocol: CountProtocol, frame: Frame) -> list[str]:
        """What a person should know, one line each."""
        found = [
            f"the limit on {name} was reached in {tiles:,} tiles: cells may be missing there"
            for name, tiles in sorted(self.limits.items())
        ]
        if self.gated > max(GATED_AT_LEAST, GATED_SHARE * (self.gated + self.kept)):
            found.append(self._gated(protocol, frame))
        if self.failures:
            found.append(
                f"{len(self.failures):,} tiles did not decode, whole or in part: they are left out"
            )
        if self.damaged:
            found.append(
                f"{self.damaged:,} damaged blocks beside counted tiles were taken as background"
            )
        if self.unmeasured:
            found.append(
                f"{self.unmeasured:,} cells have no intensities: the slide could not be read "
                "again there"
            )
        if self.pixels and self.at_limit >= SATURATED_SHARE * self.pixels:
            found.append(
                f"{100 * self.at_limit / self.pixels:.1f} % of the counted objects' pixels are at "
                "the sensor's limit: there is more DAB than the values say"
            )
        return found

    def doubts(self, protocol: CountProtocol) -> list[str]:
        """Why the count may be wrong, one line each."""
        found: list[str] = []
        share, tissue = self.unlike / max(1, self.fields), protocol.cell_types
        if share > UNLIKE_SHARE and tissue != OTHER_TISSUE:
            said = (
                f"{100 * share:.0f} % of the tissue looks unlike the {tissue} that cell types were "
                f"learned from: types are a guess there; for other tissue choose '{OTHER_TISSUE}'"
            )
            found.append(Notice(said, hint="types"))
        if self.ringed > max(RINGED_SHARE * self.asked, self.brown / 2):
            found.append(
                f"around {100 * self.ringed / self.asked:.0f} % of the counted objects the brown "
                "stain is stronger than inside: it marks membranes or cytoplasm, and nuclei "
                "beneath it are missed"
            )
        everything = self.background + self.kept
        if self.background > max(GATED_AT_LEAST, BACKGROUND_SHARE * everything):
            found.append(
                f"{self.background:,} of {everything:,} outlines lay on bare background and were "
                "left out: is the image in focus, and is it the right protocol?"
            )
        return found

    def _gated(self, protocol: CountProtocol, frame: Frame) -> str:
        if frame.mpp is None:
            unit_um2 = (protocol.mpp / frame.downsample) ** 2
            unit, right, hint = "px²", "is the scale missing?", "diameter,mpp"
        else:
            unit_um2, unit, hint = 1.0, "µm²", "mpp,protocol"
            right = "are the pixel size and the protocol right?"
        low, high = protocol.min_area_um2 / unit_um2, protocol.max_area_um2 / unit_um2
        return Notice(
            f"{self.gated:,} outlines beside {self.kept:,} cells were left out as smaller "
            f"than {low:.3g} or larger than {high:,.0f} {unit}: {right}",
            hint=f"min_area,max_area,{hint}",
        )
