"""What of ``run.json`` is used without another look at it: its parts, and their kinds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, field_validator

from cellseg.geometry import Frame
from cellseg.table.summary import Summary


class _ColumnRecord(BaseModel):
    name: str
    dtype: Literal["bool", "int64", "float32", "float64", "str"]


class _TableRecord(BaseModel):
    columns: list[_ColumnRecord]
    class_names: list[str]

    @field_validator("columns")
    @classmethod
    def _named_once(cls, columns: list[_ColumnRecord]) -> list[_ColumnRecord]:
        if len({column.name for column in columns}) < len(columns):
            raise ValueError("a column is named twice")
        return columns


class _FoundRecord(_TableRecord):
    counted: dict[str, Any] = {}
    types: list[str] = []
    doubts: list[str] = []
    warnings: list[str] = []
    interval: tuple[float, float] | None = None
    tissue_mm2: float | None = None
    tissue_mm2_in_regions: list[float] | None = None
    skipped_share: float | None = None


class _ProtocolRecord(BaseModel):
    score: float | None = None


class _SettingsRecord(BaseModel):
    channels: list[str] | None = None


class _SpatialRecord(BaseModel):
    by_class: list[str] = []
    within: float | None = None


class RunRecord(_TableRecord):
    """What of ``run.json`` is used without another look at it."""

    found: _FoundRecord
    frame: Frame
    protocol: _ProtocolRecord = _ProtocolRecord()
    settings: _SettingsRecord = _SettingsRecord()
    spatial: _SpatialRecord | None = None
    summary: Summary | None = None
