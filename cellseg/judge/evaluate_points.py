"""``cellseg evaluate`` where only the cells' centres are annotated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellseg.annotations.points import Centres, read_points
from cellseg.counting.plan import make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount
from cellseg.errors import InputError
from cellseg.judge.evaluate import EvaluateRequest
from cellseg.judge.judged import plain
from cellseg.judge.points import Field, PointScores
from cellseg.network.detect import load_detector
from cellseg.network.detector import Detector
from cellseg.slide import open_slide

WITHIN_UM = 3.0
"""How far a counted cell's centre may lie from an annotated one: half of a small nucleus."""


@dataclass(frozen=True, eq=False)
class FieldDone:
    """One image is counted and compared."""

    field: Field
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class PointEvaluation:
    """All of it.

    Attributes
    ----------
    names : tuple of str
        The images.
    classes : tuple of str
        Those that are annotated.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    within_px: float
    fields: tuple[Field, ...]
    scores: PointScores
    model: str

    def as_dict(self) -> dict[str, object]:
        """The object that ``--json`` prints."""
        scores = self.scores
        return {
            "model": self.model,
            "within_px": self.within_px,
            "images": scores.images,
            "annotated": scores.truth,
            "counted": scores.found,
            "bias": _share(scores.found, scores.truth),
            "error_per_image": plain(scores.error),
            "f1": plain(scores.f1),
            "classes": {
                name: {
                    "annotated": int(scores.class_truth[k]),
                    "counted": int(scores.class_found[k]),
                    "bias": _share(int(scores.class_found[k]), int(scores.class_truth[k])),
                    "f1": plain(float(scores.class_f1[k])),
                    "found_as": dict(
                        zip((*self.classes, "none"), scores.confusion[k].tolist(), strict=True)
                    ),
                }
                for k, name in enumerate(self.classes)
            },
            "mean_class_f1": plain(float(np.mean(scores.class_f1))) if self.classes else None,
            "per_image": [
                {"image": name, "annotated": len(field.truth), "counted": len(field.found)}
                for name, field in zip(self.names, self.fields, strict=True)
            ],
        }


def evaluate_points(
    request: EvaluateRequest, within_um: float = WITHIN_UM
) -> Iterator[FieldDone | PointEvaluation]:
    """Count images whose cells' centres are annotated, and compare.

    A counted cell's centre is that of its outline. Pairs are one-to-one and as many as there can
    be, of the least total distance. Where classes are annotated, centres of each are compared by
    themselves too: with the model's cell types, or its classes, of the same names.

    Parameters
    ----------
    request : EvaluateRequest
        ``data`` are tables as :func:`~cellseg.annotations.points.read_points` takes them; the
        images lie beside them, in ``images/`` there, or in ``request.images``.
    within_um : float
        In pixels of the image, where its pixel size is not known.

    Yields
    ------
    FieldDone, and one PointEvaluation at the end

    Raises
    ------
    CellsegError
    """
    data = [(path, centres) for path in request.data for centres in read_points(path)]
    names = tuple(sorted({name for _, one in data for name in one.classes if name}))
    precision = None if request.precision == "auto" else request.precision
    detector = load_detector(request.model, device=request.device, precision=precision)
    fields: list[Field] = []
    within: set[float] = set()
    for done, (table, centres) in enumerate(data, start=1):
        field, radius = _counted(_place(table, centres.name, request), centres, names, request,
                                 detector, within_um)  # fmt: skip
        fields.append(field)
        within.add(radius)
        yield FieldDone(field, done, len(data))
    if len(within) > 1:
        raise InputError("the images have several pixel sizes: evaluate those of one at a time")
    radius = within.pop()
    yield PointEvaluation(
        names=tuple(centres.name for _, centres in data),
        classes=names,
        within_px=radius,
        fields=tuple(fields),
        scores=PointScores.of(fields, len(names), radius),
        model=detector.info.name,
    )


def _place(table: Path, name: str, request: EvaluateRequest) -> Path:
    """An image by the name in its table, which leads nowhere else."""
    bare = Path(name).name
    if not bare or bare != name:
        raise InputError(f"{table}: {name!r} is no file's name")
    places = [request.images] if request.images else [table.parent, table.parent / "images"]
    for folder in places:
        if (folder / bare).is_file():
            return folder / bare
    raise InputError(f"{table}: {name} lies in none of {', '.join(map(str, places))}")


def _counted(
    path: Path,
    centres: Centres,
    names: tuple[str, ...],
    request: EvaluateRequest,
    detector: Detector,
    within_um: float,
) -> tuple[Field, float]:
    """One image's centres, and how many of its pixels are near."""
    wanted = CountRequest(
        image=path,
        protocol=request.protocol,
        score=request.score,
        mpp=request.mpp,
        precision=request.precision,
        prefilter=request.prefilter,
    )
    with open_slide(path, mpp=request.mpp) as slide:
        outside = (centres.places < 0) | (centres.places > (slide.height, slide.width))
        if outside.any():
            raise InputError(
                f"{centres.name}: {np.count_nonzero(outside.any(1))} centres lie outside of the "
                f"image ({slide.width} × {slide.height} px)"
            )
        plan = make_plan(slide, wanted, detector.info)
        plan = replace(plan, protocol=plan.protocol.changed(intensity=False))
        tables = [
            part.table for step in SlideCount(slide, plan, detector).steps() for part in step.cells
        ]
        radius = within_um / slide.mpp if slide.mpp else within_um
    found = np.concatenate(
        [table[["centroid_y_px", "centroid_x_px"]].to_numpy(float) for table in tables]
        or [np.zeros((0, 2))]
    )
    kinds = [kind for table in tables for kind in table["class"]]
    number = {name: k for k, name in enumerate(names)}
    field = Field(
        found,
        np.array([number.get(kind, -1) for kind in kinds], np.int64),
        centres.places,
        np.array([number.get(kind, -1) for kind in centres.classes], np.int64),
    )
    return field, radius


def _share(counted: int, annotated: int) -> float | None:
    return round(counted / annotated - 1, 5) if annotated else None
