"""CountProtocol: every setting of a run, validated, read from YAML."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellseg.errors import OutputError, SettingsError

Stain = Literal["he", "ihc", "fluorescence", "brightfield"]

PHASE_PX = 64
"""Tiles and halos are multiples of this: the stride of the pyramid's coarsest map, which the
proposals for the largest cells come from. The backbone's own largest stride is 32."""


class Calibration(BaseModel):
    """What ``cellseg evaluate --calibrate`` measured: how far counts by this protocol may be off.

    It holds for the weights that it was measured with, at the protocol's own score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=12, description="Checksum of the weights, or its beginning.")
    images: int = Field(ge=1)
    objects: int = Field(ge=1)
    interval: tuple[float, float] = Field(description="95 % of true / counted, held-out images.")

    @model_validator(mode="after")
    def _ordered(self) -> Calibration:
        low, high = self.interval
        if not 0 <= low <= 1 <= high < float("inf"):
            raise ValueError(f"interval must hold 1, got {low} … {high}")
        return self

    def holds_for(self, checksum: str) -> bool:
        """Whether these are the weights that it was measured with."""
        return checksum.startswith(self.model)


class CountProtocol(BaseModel):
    """The settings of a count. Lengths are in µm, so that they hold for any slide.

    A slide without pixel size is taken at its own scale; the µm settings are then turned
    into pixels at ``mpp``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="What the protocol is called.")
    about: str = Field(description="A paragraph for people: when to use it, what it does.")
    stain: Stain
    mpp: float = Field(gt=0.05, le=4.0, description="µm per pixel at which the network looks.")
    score: float = Field(ge=0.01, le=1.0, description="Cells below this score are not counted.")
    nms_iou: float = Field(0.5, gt=0.0, le=1.0, description="Box overlap that suppresses.")
    min_area_um2: float = Field(0.0, ge=0.0)
    max_area_um2: float = Field(float("inf"), gt=0.0)
    largest_cell_um: float = Field(32.0, gt=0.0, description="Length of the largest cell.")
    tile_px: int = Field(1024, ge=64, description="Side of a tile's core, model pixels.")
    context_px: int = Field(128, ge=0, description="Context that the network needs around a cell.")
    prefilter: bool = Field(True, description="Skip tiles without tissue.")
    intensity: bool = Field(True, description="Measure intensities per channel.")
    calibration: Calibration | None = Field(None, description="How far counts may be off.")

    @model_validator(mode="after")
    def _consistent(self) -> CountProtocol:
        if self.min_area_um2 >= self.max_area_um2:
            raise ValueError(
                f"min_area_um2 ({self.min_area_um2}) must lie below "
                f"max_area_um2 ({self.max_area_um2})"
            )
        if self.tile_px % PHASE_PX:
            raise ValueError(f"tile_px must be a multiple of {PHASE_PX}, got {self.tile_px}")
        return self

    @property
    def halo_px(self) -> int:
        """Halo: the largest cell plus 8 px, or the network's context, rounded up to 64 px."""
        wanted = max(math.ceil(self.largest_cell_um / self.mpp - 1e-9) + 8, self.context_px)
        return -(-wanted // PHASE_PX) * PHASE_PX

    @property
    def light(self) -> Literal["transmitted", "fluorescence"]:
        """How the image was lit."""
        return "fluorescence" if self.stain == "fluorescence" else "transmitted"

    def changed(self, **settings: object) -> CountProtocol:
        """A copy with other settings, validated again.

        Raises
        ------
        SettingsError
            If a setting does not exist or is out of range.
        """
        return _validated({**self.model_dump(), **settings}, "the command's options")


def shipped_protocols() -> tuple[str, ...]:
    """Names of the protocols that come with cellseg."""
    folder = files("cellseg") / "protocols"
    if not folder.is_dir():
        folder = Path(__file__).parent.parent / "protocols"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml")))


def load_protocol(name_or_path: str | Path) -> CountProtocol:
    """Read a shipped protocol by name, or one from a YAML file.

    Raises
    ------
    SettingsError
        If there is no such protocol, or it is not valid.
    """
    if str(name_or_path) in shipped_protocols():
        folder = files("cellseg") / "protocols"
        if not folder.is_dir():
            folder = Path(__file__).parent.parent / "protocols"
        text = (folder / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise SettingsError(
                f"{name_or_path}: no such protocol; give a YAML file or one of "
                + ", ".join(shipped_protocols())
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: the protocol cannot be read: {error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise SettingsError(f"{name_or_path}: not valid YAML: {line}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{name_or_path}: expected settings as 'name: value' lines")
    return _validated(data, str(name_or_path))


def save_protocol(protocol: CountProtocol, path: str | Path) -> None:
    """Write a protocol as YAML, for ``cellseg count --protocol``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    target = Path(path)
    data = protocol.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=98)
    partial = target.with_name(target.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _validated(data: dict[str, object], where: str) -> CountProtocol:
    try:
        return CountProtocol.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'protocol'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise SettingsError(f"{where}: {faults}") from error
