"""What goes to a worker, and what comes back: settings there, instances here, never pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

import numpy as np

from cellseg.counting.local import Mapped
from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import Lost, TileSource
from cellseg.counting.work import TileFound
from cellseg.errors import (
    CellsegError,
    InputError,
    OutputError,
    RegionError,
    SettingsError,
    WeightsError,
)
from cellseg.geometry import Box, Tile
from cellseg.instances import Instances
from cellseg.network.detector import Detector
from cellseg.slide import Slide
from cellseg.stain.normalise import Normaliser
from cellseg.storage import Location, file_size

MOST_BYTES = 4 * 2**20
"""A recipe goes with every batch: a detector object larger than this does not belong in it."""

_KINDS: dict[str, type[CellsegError]] = {
    kind.__name__: kind
    for kind in (CellsegError, InputError, OutputError, RegionError, SettingsError, WeightsError)
}


@dataclass(frozen=True)
class Facts:
    """By which a worker sees that its slide is the one that was planned for.

    Attributes
    ----------
    height, width, size : int
        Level-0 pixels; bytes of the file.
    """

    height: int
    width: int
    size: int
    dtype: str
    channels: tuple[str, ...]

    @classmethod
    def of(cls, slide: Slide) -> Facts:
        """What an open slide says of itself."""
        size = file_size(slide.path)
        return cls(
            slide.height, slide.width, size, str(np.dtype(slide.dtype)), tuple(slide.channels)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe:
    """All that a worker needs to read tiles and find what is in them.

    Attributes
    ----------
    image : Path or RemotePath
        Must mean the same file on every machine.
    mpp, z, t, series
        As :func:`cellseg.open_slide` takes them.
    version : str
        Changes when the slide's file does, so that no worker goes on with an older one.
    model : str
        ``"default"`` or a file that every machine has.
    checksum : str
        Of the weights.
    batch : int or None
        Tiles that go through the network together; None: by the worker's device.
    detector : Detector or None
        Takes the place of the model.
    """

    image: Location
    mpp: float | None
    z: Any
    t: int | None
    series: int
    facts: Facts
    version: str
    plan: Plan
    normaliser: Normaliser
    model: str
    checksum: str
    device: str
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    batch: int | None
    detector: Detector | None

    @classmethod
    def of(
        cls,
        request: CountRequest,
        source: TileSource,
        *,
        checksum: str,
        version: str,
        detector: Detector | None,
    ) -> Recipe:
        """What a run has decided."""
        model = request.model
        return cls(
            image=request.image.absolute(),
            mpp=request.mpp,
            z=request.z,
            t=request.t,
            series=request.series,
            facts=Facts.of(source.slide),
            version=version,
            plan=replace(source.plan, regions=None),  # workers look at whole tiles
            normaliser=source.normaliser,
            model=str(model) if str(model) == "default" else _absolute(str(model)),
            checksum=checksum,
            device=request.device,
            precision=request.precision,
            batch=request.batch,
            detector=detector,
        )

    def sealed(self) -> Sealed:
        """Packed once for all batches.

        Raises
        ------
        SettingsError
            If a detector of the caller's own cannot be packed, or is too large.
        """
        import cloudpickle

        try:
            body = cloudpickle.dumps(self)
        except Exception as error:
            raise SettingsError(
                f"the detector {type(self.detector).__name__} cannot be sent to a cluster ({error})"
            ) from error
        if len(body) > MOST_BYTES:
            raise SettingsError(
                f"the detector {type(self.detector).__name__} takes {len(body) / 2**20:.0f} MB "
                f"when it is sent, at most {MOST_BYTES // 2**20} MB may be: let it load its "
                "weights from a file"
            )
        return Sealed(hashlib.sha256(body).hexdigest(), body)


def _absolute(model: str) -> str:
    from pathlib import Path

    return str(Path(model).absolute())


@dataclass(frozen=True)
class Sealed:
    """A packed recipe and its name."""

    digest: str
    body: bytes


class Answer(TypedDict, total=False):
    """What a worker sends back for a batch: builtins only.

    ``refused`` is (kind of error, text); otherwise ``tiles`` holds for each tile its place,
    packed instances, limits, damaged blocks, the box and the number of those in its core, and why
    it, or these, could not be read.
    """

    worker: str
    device: str
    wait: float
    detect: float
    refused: tuple[str, str]
    tiles: list[tuple[int, int, bytes, tuple[str, ...], int, tuple[int, ...] | None, str | None]]


def pack(mapped: Mapped[TileFound]) -> tuple[Any, ...]:
    """One tile's result, without its pixels."""
    tile, found = mapped.tile, mapped.found
    if found is None:
        return (tile.row, tile.column, b"", (), 0, None, str(mapped.error))
    data, lost, error = found.instances.to_bytes(), None, None
    if found.lost is not None:
        lost, error = (*found.lost.box.corners, found.lost.blocks), found.lost.error
    return (tile.row, tile.column, data, found.limits, found.damaged, lost, error)


def unpack(packed: tuple[Any, ...], tile: Tile) -> Mapped[TileFound]:
    """The same on the other side.

    Raises
    ------
    CellsegError
        If it is another tile's.
    """
    row, column, data, limits, damaged, gone, error = packed
    if (row, column) != (tile.row, tile.column):
        raise CellsegError(f"a worker sent tile ({row}, {column}) for ({tile.row}, {tile.column})")
    if error is not None and gone is None:
        return Mapped(tile, None, RegionError(error))
    lost = None if gone is None else Lost(Box(*gone[:4]), gone[4], str(error))
    found = TileFound(Instances.from_bytes(data), tuple(limits), int(damaged), lost=lost)
    return Mapped(tile, found)


def refusal(answer: Answer) -> CellsegError | None:
    """The error that a worker answered with."""
    if "refused" not in answer:
        return None
    kind, text = answer["refused"]
    return _KINDS.get(kind, CellsegError)(f"worker {answer.get('worker', '?')}: {text}")
