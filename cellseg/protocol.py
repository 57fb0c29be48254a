"""CountProtocol: every setting of a run, validated, read from YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from cellseg.errors import SettingsError, line_of, writing
from cellseg.text import visible

Stain = Literal["he", "ihc", "fluorescence", "brightfield"]

ShippedModel = Literal["default", "cells", "ihc"]
SHIPPED_MODELS: tuple[str, ...] = get_args(ShippedModel)
"""Names of the models that come with cellseg: of nuclei, of whole cells, and of nuclei in IHC."""

_DYES: dict[str, tuple[str, str]] = {
    "he": ("hematoxylin", "eosin"),
    "ihc": ("hematoxylin", "dab"),
}

PHASE_PX = 64
"""Tiles and halos are multiples of this: the stride of the pyramid's coarsest map, which the
proposals for the largest cells come from. The backbone's own largest stride is 32."""

NO_TYPES, OTHER_TISSUE = "none", "other"
"""In place of the tissue that a model's cell types were learned from: nuclei are not sorted by
type; or they are, and the names say only what a nucleus looks like."""

PROTOCOL_BYTES = 100_000  # The most that a file of settings may hold.


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """What ``cellseg evaluate --calibrate`` measured: how far counts by this protocol may be off.

    It holds for the weights that it was measured with, at the protocol's own score.
    """

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


class Marker(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One measurement, and where it parts the cells into classes."""

    measure: str = Field(min_length=1, max_length=200, description="A column of cells.csv.")
    threshold: Literal["auto"] | float | tuple[float, float, float] = Field(
        description="Cells at or above it are positive; three give 1+, 2+, 3+; auto proposes one."
    )
    name: Annotated[str, AfterValidator(visible)] = Field(
        default="",
        max_length=80,
        description="In class names where there are several; else the measure's.",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Marker:
        if isinstance(self.threshold, tuple) and sorted(set(self.threshold)) != [*self.threshold]:
            raise ValueError(f"three thresholds must ascend, got {self.threshold}")
        return self


class ClassRule(BaseModel, frozen=True, extra="forbid"):
    """What is believed of one class; what is not said is the protocol's."""

    score: float | None = Field(None, ge=0.01, le=1.0)
    min_area_um2: float | None = Field(None, ge=0.0)
    max_area_um2: float | None = Field(None, gt=0.0)


MOST_MARKERS = 6  # Their combinations are 64 classes.
Markers = Annotated[
    tuple[Marker, ...],
    BeforeValidator(lambda given: given if isinstance(given, (list, tuple)) else (given,)),
    Field(max_length=MOST_MARKERS),
]


class CountProtocol(BaseModel, frozen=True, extra="forbid"):
    """The settings of a count. Lengths are in µm, so that they hold for any slide.

    A slide without pixel size is taken at its own scale, or at one that its cells tell; the µm
    settings are then turned into pixels at ``mpp``.
    """

    name: Annotated[str, AfterValidator(visible)] = Field(
        min_length=1, max_length=200, description="What the protocol is called."
    )
    about: str = Field(description="A paragraph for people: when to use it, what it does.")
    stain: Stain
    mpp: float = Field(gt=0.05, le=4.0, description="µm per pixel at which the network looks.")
    score: float = Field(ge=0.01, le=1.0, description="Cells below this score are not counted.")
    nms_iou: float = Field(0.5, gt=0.0, le=1.0, description="Box overlap that suppresses.")
    min_area_um2: float = Field(0.0, ge=0.0)
    max_area_um2: float = Field(float("inf"), gt=0.0)
    largest_cell_um: float = Field(
        32.0, gt=0.0, le=1000.0, description="Length of the largest cell."
    )
    tile_px: int | None = Field(
        None, ge=64, le=16_384, description="Side of a tile's core, model pixels; None: it fits."
    )
    context_px: int = Field(
        192, ge=0, le=4096, description="Context that the network needs around a cell."
    )
    prefilter: bool = Field(True, description="Skip tiles without tissue.")
    intensity: bool = Field(True, description="Measure intensities per channel.")
    model: ShippedModel = Field(
        "default", description="The shipped model that counts, where none is named."
    )
    classes: dict[str, ClassRule] = Field(
        {}, description="Classes of the model that are counted; all where none is named."
    )
    usual_um: float | None = Field(
        None, gt=0.0, le=1000.0, description="Diameter of the usual cell: tells an unknown scale."
    )
    cell_types: str = Field(
        NO_TYPES, description="Sort nuclei by cell type: the tissue, breast or other; or none."
    )
    calibration: Calibration | None = Field(None, description="How far counts may be off.")
    dyes: Literal["fixed", "macenko"] | dict[str, tuple[float, float, float]] = Field(
        "fixed", description="Directions of the stains' densities: published, estimated, given."
    )
    dab_share: float = Field(
        1.0, gt=0.0, le=1.0, description="Share of DAB's density that the network sees."
    )
    classify: Markers = Field((), description="Positive and negative, by measurements.")

    @model_validator(mode="after")
    def _consistent(self) -> CountProtocol:
        low, high = self.min_area_um2, self.max_area_um2
        if low >= high:
            raise ValueError(f"min_area_um2 ({low}) must lie below max_area_um2 ({high})")
        if isinstance(self.dyes, dict) and (
            set(self.dyes) != set(_DYES.get(self.stain, ()))
            or not all(any(vector) for vector in self.dyes.values())
        ):
            wanted = " and ".join(_DYES.get(self.stain, ("none",)))
            raise ValueError(f"dyes of stain {self.stain} are: {wanted}; not {list(self.dyes)}")
        if self.tile_px is not None and self.tile_px % PHASE_PX:
            raise ValueError(f"tile_px must be a multiple of {PHASE_PX}, got {self.tile_px}")
        return self

    @property
    def halo_px(self) -> int:
        """Halo: the largest cell plus 8 px, or the network's context, rounded up to 64 px."""
        wanted = max(math.ceil(self.largest_cell_um / self.mpp - 1e-9) + 8, self.context_px)
        return -(-wanted // PHASE_PX) * PHASE_PX

    @property
    def lowest_score(self) -> float:
        """The lowest score from which any class is counted."""
        rules = self.classes.values()
        scores = [self.score if one.score is None else one.score for one in rules]
        return min(scores, default=self.score)

    @property
    def usual_px(self) -> float | None:
        return None if self.usual_um is None else self.usual_um / self.mpp

    @property
    def light(self) -> Literal["transmitted", "fluorescence"]:
        return "fluorescence" if self.stain == "fluorescence" else "transmitted"

    def rules_without(self, *limits: str) -> dict[str, ClassRule]:
        """Its classes, for which the protocol's own limits hold."""
        nothing = dict.fromkeys(limits)
        return {name: rule.model_copy(update=nothing) for name, rule in self.classes.items()}

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
    names = (path.name for path in _shipped().iterdir())
    return tuple(sorted(name[:-5] for name in names if name.endswith(".yaml")))


def _shipped() -> Traversable:
    folder = files("cellseg") / "protocols"
    return folder if folder.is_dir() else Path(__file__).parent.parent / "protocols"


def load_protocol(name_or_path: str | Path) -> CountProtocol:
    """Read a shipped protocol by name, or one from a YAML file; a SettingsError if it is none."""
    if str(name_or_path) in shipped_protocols():
        text = (_shipped() / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_path)
        try:
            if not path.is_file():
                raise SettingsError(
                    f"{name_or_path}: no such protocol; give a YAML file or one of "
                    + ", ".join(shipped_protocols())
                )
            if path.stat().st_size > PROTOCOL_BYTES:
                raise SettingsError(f"{path}: is no protocol: over {PROTOCOL_BYTES:,} bytes")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: the protocol cannot be read: {error}") from error
    return _validated(_settings(text, str(name_or_path)), str(name_or_path))


def _settings(text: str, where: str) -> dict[str, object]:
    """A file's settings as plain text, lists and mappings.

    Which of them is a number and which a name is said by the protocol's fields, not by YAML.
    """
    try:
        found = yaml.load(text, yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise SettingsError(f"{where}: {line}not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise SettingsError(f"{where}: not valid YAML: {line_of(error)}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{where}: expected settings as 'name: value' lines")
    words = {"": None, "~": None, "null": None, ".inf": "inf"}
    return {
        name: words.get(value, value) if isinstance(value, str) else value
        for name, value in found.items()
    }


def save_protocol(protocol: CountProtocol, path: str | Path) -> None:
    """Write a protocol as YAML, for ``cellseg count --protocol``."""
    data = protocol.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=98)
    with writing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _validated(data: Mapping[str, object], where: str) -> CountProtocol:
    try:
        return CountProtocol.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'protocol'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise SettingsError(f"{where}: {faults}") from error
