"""Classes that a person taught by clicking cells: a classification that follows from the clicks.

What is kept are the clicks, with what the table says of these cells; all else follows from them.
Cells are told by their measurements, by how these differ from the slide's usual cell, and by the
cells around: no pixels and no network are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from scipy.special import softmax

from cellseg.errors import SettingsError
from cellseg.text import visible

UNSURE = "unsure"
"""Class of cells that no class has with the probability that was asked."""

NEIGHBOURS = (1, 3, 8)
"""Neighbours whose distances are looked at; and measurements, the mean of all up to the last."""

STRENGTH = 0.01
"""Weight of a click against the squared coefficients; see docs/lab/teach.md."""

ALIKE = 20.0
"""Clicks of a class that count as much as the confusion that the probabilities expect."""

FOLDS, RESAMPLES, STEPS, _ROWS = 10, 300, 200, 65_536
_NOT_LOOKS = ("centroid_", "bbox_", "score", "orientation", "nearest_", "density_", "border_")

Floats = NDArray[np.float64]
Numbers = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
    BeforeValidator(lambda given: given.split() if isinstance(given, str) else given),
    PlainSerializer(lambda numbers: " ".join(f"{one:.6g}" for one in numbers)),
]
"""A row of numbers, in JSON one line of text."""

_Colour = Annotated[int, Field(ge=0, le=255)]
_Name = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(visible)]


class Click(BaseModel):
    """A cell whose class a person said.

    ``result`` is the token of its count, ``window`` names where it lies there, ``looks`` are as
    :func:`looks` gives them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    result: str
    label: int
    window: str
    looks: Numbers


class TaughtClasses(BaseModel):
    """Clicks, and the multinomial logistic regression that follows from them.

    A cell that no class has with the probability ``unsure`` becomes :data:`UNSURE`; 0: none does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["cellseg classes 1"] = "cellseg classes 1"
    # The classes, in order.
    colours: dict[_Name, tuple[_Colour, _Colour, _Colour]] = Field(max_length=12)
    unsure: float = Field(default=0.0, ge=0, lt=1)
    # Columns of the table that cells are told by.
    measurements: tuple[str, ...] = Field(min_length=1, max_length=300)
    made_of: dict[str, str]  # Object, model and protocol of the first count that was clicked in.
    clicks: tuple[Click, ...] = Field(max_length=20_000)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        wide = 3 * len(self.measurements) + len(NEIGHBOURS)
        if any(len(c.looks) != wide or c.name not in self.colours for c in self.clicks):
            raise ValueError(f"expected {wide} numbers of each click, and a class with a colour")
        if UNSURE in self.colours:
            raise ValueError(f"no class can be called {UNSURE}")
        few = [n for n in self.colours if sum(c.name == n for c in self.clicks) < 2]
        if few or len(self.colours) < 2:
            there = f"{few[0]!r} has fewer" if few else "there is one class"
            raise ValueError(f"two classes are needed, and two cells of each: {there}")
        return self

    @classmethod
    def of(cls, **content: Any) -> Self:  # noqa: ANN401 - the fields
        """The classification of these fields; a SettingsError where they give none."""
        try:
            return cls(**content)
        except ValueError as error:
            why = str(getattr(error, "errors", list)()[0]["msg"])
            raise SettingsError(why.removeprefix("Value error, "), hint="clicks") from error

    @property
    def names(self) -> list[str]:
        """Every class that it gives, the unsure ones last."""
        return [*self.colours, *[UNSURE] * (self.unsure > 0)]

    @cached_property
    def _lesson(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Looks, class and fold of each click; a fold is a slide where three were clicked in."""
        is_many = len({click.result for click in self.clicks}) > 2
        homes = [click.result + click.window * (not is_many) for click in self.clicks]
        fold = pd.factorize(np.array(homes, object))[0]
        if not fold.any():  # one window: a click at a time
            fold = np.arange(len(fold))
        kinds = np.array([[*self.colours].index(click.name) for click in self.clicks])
        return np.array([c.looks for c in self.clicks]), kinds, fold % FOLDS

    @cached_property
    def _regression(self) -> _Regression:
        return _Regression(*self._lesson[:2], len(self.colours))

    def probabilities(self, seen: NDArray[np.floating[Any]]) -> Floats:
        """Of each class, of cells with these looks: (N, F) to (N, K)."""
        return self._regression(seen)

    def codes(
        self, probabilities: Floats, labels: NDArray[np.int64], result: str
    ) -> NDArray[np.int64]:
        """Each cell's class, (N,): a place in :attr:`names`; a clicked cell's is as it was said.

        ``labels``, ascending, are those of the result with this token.
        """
        sure = probabilities.max(1, initial=0) >= self.unsure
        codes: NDArray[np.int64] = np.where(sure, probabilities.argmax(1), len(self.colours))
        said = {c.label: self.names.index(c.name) for c in self.clicks if c.result == result}
        mine = np.isin(labels, [*said])
        codes[mine] = [said[label] for label in labels[mine].tolist()]
        return codes

    @cached_property
    def confusions(self) -> NDArray[np.int64]:
        """Clicks of a class by what they are taken for with their fold left out, (folds, K, K)."""
        seen, kinds, fold = self._lesson
        number = len(self.colours)
        found = np.zeros((int(fold.max()) + 1, number, number), np.int64)
        for one, out in enumerate(fold == one for one in range(len(found))):
            said = _Regression(seen[~out], kinds[~out], number)(seen[out]).argmax(1)
            np.add.at(found[one], (kinds[out], said), 1)
        return found

    def scores(self) -> dict[str, tuple[int, float, float]]:
        """Of each class the clicks, and their precision and recall when they are left out."""
        table = self.confusions.sum(0)
        right, said, given = table.diagonal(), table.sum(0), table.sum(1)
        rows = zip(given, right / np.maximum(said, 1), right / given, strict=True)
        return {
            n: (int(k), float(p), float(r)) for n, (k, p, r) in zip(self.colours, rows, strict=True)
        }

    def counts(self, probabilities: Floats) -> dict[str, tuple[int, int, int]]:
        """Of each class the sum of probabilities, and a 95 % interval by the clicks' confusion.

        True numbers solve ``counted = confusion × true`` (Rogan and Gladen, Am. J. Epidemiol. 107
        (1978) 71), here of several classes and by maximum likelihood, so that none is negative
        (Saerens et al., Neural Comput. 14 (2002) 21). Folds are resampled. Few clicks tell little
        of the confusion, so the one that the probabilities expect is added.
        """
        number, rng = len(self.colours), np.random.default_rng(0)
        expected, said = probabilities.sum(0), probabilities.argmax(1)
        own = np.stack([probabilities[said == k].sum(0) for k in range(number)], axis=1) + 1e-9
        folds = len(self.confusions)
        times = rng.multinomial(folds, np.full(folds, 1 / folds), RESAMPLES)
        shares = [rng.dirichlet(ALIKE * row / row.sum() + 0.01, RESAMPLES) for row in own]
        table = np.tensordot(times, self.confusions, 1) + ALIKE * np.stack(shares, axis=1)
        table /= table.sum(2, keepdims=True)
        true, counted = np.tile(expected, (RESAMPLES, 1)), np.bincount(said, minlength=number)
        for _ in range(STEPS):
            joint = table * true[:, :, None]
            true = (joint / (joint.sum(1, keepdims=True) + 1e-12) * counted).sum(2)
        ends = np.percentile([*true], [2.5, 97.5], axis=0)
        low, high = np.floor(np.minimum(ends[0], expected)), np.ceil(np.maximum(ends[1], expected))
        rows = np.round([expected, low, high]).astype(int).T.tolist()
        return {name: (a, b, c) for name, (a, b, c) in zip(self.colours, rows, strict=True)}


class _Regression:
    """Multinomial logistic regression on standardised looks; squared coefficients are held small.

    scikit-learn's would do, with a dependency of 40 MB.
    """

    def __init__(self, seen: Floats, kinds: NDArray[np.int64], number: int) -> None:
        from scipy.optimize import minimize  # late: it takes a while to load

        self._middle, self._spread = seen.mean(0), np.maximum(seen.std(0), 1e-6)
        given, wanted = self._given(seen), np.eye(number)[kinds]
        held = np.r_[1e-3, np.ones(given.shape[1] - 1)][:, None]  # the constant is hardly held

        def loss(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(-1, number)
            shares = softmax(given @ weights, axis=1)
            likelihood = np.log(np.maximum((shares * wanted).sum(1), 1e-300)).sum()
            slope = STRENGTH * given.T @ (shares - wanted) + held * weights
            return (held * weights**2).sum() / 2 - STRENGTH * likelihood, slope.ravel()

        start = np.zeros(given.shape[1] * number)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", tol=1e-9)
        self._weights: Floats = found.x.reshape(-1, number)

    def _given(self, seen: NDArray[np.floating[Any]]) -> Floats:
        scaled = ((seen - self._middle) / self._spread).clip(-10, 10)
        return np.column_stack([np.ones(len(seen)), scaled])

    def __call__(self, seen: NDArray[np.floating[Any]]) -> Floats:
        parts = [seen[at : at + _ROWS] for at in range(0, max(len(seen), 1), _ROWS)]
        return np.concatenate(
            [softmax(self._given(part) @ self._weights, axis=1) for part in parts]
        )


def looks(cells: pd.DataFrame, measurements: Sequence[str]) -> NDArray[np.float32]:
    """What cells are told by, (N, 3 × measurements + 3).

    Each measurement (of lengths and areas the logarithm), its robust deviation from the median of
    these cells, its mean over the eight nearest cells, and distances to three of these. ``cells``
    are all cells of a slide, (N, …): the measurements, and their centroids.
    """
    from scipy.spatial import cKDTree  # late, as above

    if not len(cells):
        return np.zeros((0, 3 * len(measurements) + len(NEIGHBOURS)), np.float32)
    own = cells[[*measurements]].to_numpy(np.float32, copy=True)
    sized = [name.endswith(("_px", "_um", "_um2")) for name in measurements]
    own[:, sized] = np.log(np.maximum(own[:, sized], 0.1))
    own[~np.isfinite(own)] = np.nan
    middle = pd.DataFrame(own).median().fillna(0).to_numpy()
    own = np.where(np.isnan(own), middle, own)
    spread = np.maximum(1.4826 * np.median(np.abs(own - middle), 0), 1e-6)
    unit, most = "um" if "centroid_y_um" in cells else "px", min(NEIGHBOURS[-1], len(own) - 1)
    places = cells[[f"centroid_y_{unit}", f"centroid_x_{unit}"]].to_numpy(np.float64)
    distances, near = cKDTree(places).query(places, k=[*range(1, most + 2)])
    around = sum((own[near[:, k]] for k in range(1, most + 1)), np.zeros_like(own)) / max(most, 1)
    steps = np.log1p(distances[:, [min(k, most) for k in NEIGHBOURS]]).astype(np.float32)
    return np.column_stack([own, ((own - middle) / spread).clip(-5, 5), around, steps])


def measurements_of(dtypes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Columns that cells can be told by, of names and dtypes: shapes, intensities, in one unit."""
    names = [n for n, dtype in dtypes if dtype.startswith("float") and not n.startswith(_NOT_LOOKS)]
    stems = {name.rpartition("_")[0] for name in names if name.endswith(("_um", "_um2"))}
    return tuple(n for n in names if not (n.endswith("_px") and n.removesuffix("_px") in stems))
