"""How a measurement is distributed over the cells, and a threshold from it, or why there is none.

The threshold is the lowest point of the smoothed histogram between two humps. A mixture of two
normal distributions (EM on a fine histogram) decides whether there are two: their means must lie
apart, the cells' own density must fall well below either hump, and there must be enough cells on
either side. The mixture itself gives no threshold: positive cells spread far wider than a normal
distribution, and its upper one reaches down among the negative cells.

A few bright cells beside a narrow crowd make no second hump. There the threshold lies in a gap
above the crowd, if the crowd's own tail does not explain that gap (:func:`beyond_gap`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from cellseg.errors import SettingsError

METHOD = "lowest point between two humps"
GAP_METHOD = "gap above the crowd, for rare positive cells"
METHODS = (METHOD, GAP_METHOD)

LEAST_CELLS, LEAST_SHARE = 50, 0.005
"""Measured cells, and the share of them on the smaller side, without which nothing is proposed."""

LEAST_APART = 2.0
"""Distance of the means in units of √((s₁² + s₂²) / 2): Ashman's D, 2 for a clear parting
(Ashman, Bird and Zepf, Astron. J. 108 (1994) 2348)."""

DEEPEST_VALLEY = 0.75
"""The cells' density in the valley, of the lower hump's: above it the humps are chance."""

CHANCE = 4.0
"""Standard deviations of the counts by which the density must fall."""

SMOOTH = 1 / 20
"""Deviation of the Gaussian that smooths the histogram, of the distance of the means."""

FEWEST_RARE, MOST_RARE = 5, 0.2
"""Cells above a gap: so many at least, and at most this share of all."""

LEAST_EVIDENCE = 9.0
"""Natural logarithm of how unlikely a gap is in the crowd's own tail. No draw of 45,000 of normal,
exponential and lognormal distributions reaches it, 1 in 1,000 of Pareto's and Cauchy's."""

WIDEST_STEP, MOST_BETWEEN, FEWEST_TAIL = 2.0, 10, 10
"""A gap is this many spreads wide, holds so few cells, and has so many of the tail below it."""

EXAMPLE_SPREADS = 5.0
"""Spreads above the crowd's centre where an example lies, if nothing is proposed."""

_QUARTILE = 0.6745  # from the centre of a normal distribution to its quartile, in deviations

_BINS, _ROUNDS, _FINE = 512, 500, 1024
_SPAN_PERCENT = (0.1, 99.9)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Cells by their value: counts, (B,), between equally spaced edges, (B + 1,)."""

    counts: NDArray[np.int64]
    edges: Floats
    beyond: int  # Cells beyond the edges, on either side.

    @property
    def centres(self) -> Floats:
        """Middle of each bin."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


def histogram(values: ArrayLike, bins: int = 256) -> Histogram:
    """Count cells by value, from the 0.1th to the 99.9th percentile and a tenth beyond."""
    known = _finite(values)
    if not known.size:
        return Histogram(np.zeros(bins, np.int64), np.linspace(0, 1, bins + 1), 0)
    low, high = np.percentile(known, _SPAN_PERCENT)
    room = 0.1 * (high - low) or max(abs(float(low)), 1.0) / 100
    low, high = max(known.min(), low - room), min(known.max(), high + room)
    if low == high:
        low, high = low - room, high + room
    counts, edges = np.histogram(known, bins, (low, high))
    return Histogram(counts.astype(np.int64), edges, known.size - int(counts.sum()))


class NoThresholdError(SettingsError):
    """A distribution gives no reason for a threshold."""


@dataclass(frozen=True)
class Proposal:
    """A threshold, how it came about, and the means of the cells on its sides, lower one first."""

    threshold: float
    method: str
    means: tuple[float, float]


def propose(values: ArrayLike, name: str = "the measurement") -> Proposal:
    """Find the threshold between two kinds of cells; values that are not finite are left out.

    A NoThresholdError if the distribution gives no reason for one; it names an example where there
    is one.
    """
    seen = histogram(_spread_ties(values), _BINS)
    counts, centres = seen.counts, seen.centres
    cells = int(counts.sum())
    known = _finite(values)
    if cells < LEAST_CELLS:
        why = f"{cells} cells have {name}, expected {LEAST_CELLS} or more"
    else:
        weights, means, deviations = _fit(centres, counts.astype(np.float64))
        apart = float(abs(means[1] - means[0]) / np.sqrt((deviations**2).mean()))
        valley = _valley(centres, counts, means, deviations)
        if min(weights) < LEAST_SHARE:
            why = f"{100 * (1 - min(weights)):.1f} % of the cells are of one kind"
        elif apart < LEAST_APART or valley > DEEPEST_VALLEY:
            why = (
                f"the values of {name} have one hump (separation {apart:.1f}, valley {valley:.2f})"
            )
        else:
            threshold = float(f"{_lowest(centres, counts, means):.4g}")
            return Proposal(threshold, METHOD, (float(means[0]), float(means[1])))
        if (rare := beyond_gap(known)) is not None:
            return rare
    instance = ""
    if (number := example(known)) is not None:
        above = int((known >= number).sum())
        instance = (
            f", for instance {number:g}, well above most cells, which {above:,} of {len(known):,} "
            f"cells ({100 * above / len(known):.1f} %) reach"
        )
    raise NoThresholdError(
        f"no threshold is proposed: {why}; give one in numbers{instance}", hint="threshold"
    )


def example(values: ArrayLike) -> float | None:
    """A number well above most cells, for a person to begin with; None where all are the same."""
    known = _finite(values)
    if not len(known) or known.min() == known.max():
        return None
    centre, quartile, top = np.quantile(known, (0.5, 0.75, 1))
    # Some measurements have an end, such as 1 of a score: the example is never beyond all cells.
    found = min(top, centre + EXAMPLE_SPREADS * (quartile - centre) / _QUARTILE)
    found = found if quartile > centre else (centre + top) / 2
    number = float(f"{found:.3g}")
    return number if number <= top else float(f"{found - abs(found) / 200:.3g}")


def _finite(values: ArrayLike) -> Floats:
    numbers = np.asarray(values, np.float64)
    return numbers[np.isfinite(numbers)]


def _spread_ties(values: ArrayLike) -> Floats:
    """Whole numbers, such as maxima of 8-bit pixels, spread evenly over their steps.

    A histogram with finer bins than these steps would have a valley between any two of them.
    """
    known = _finite(values)
    levels, first, counts = np.unique(np.sort(known), return_index=True, return_counts=True)
    if not 1 < len(levels) < len(known) / 4:
        return known
    place = np.arange(len(known)) - np.repeat(first, counts) + 0.5
    within = place / np.repeat(counts, counts) - 0.5
    return np.asarray(np.repeat(levels, counts) + within * np.diff(levels).min())


def beyond_gap(values: ArrayLike) -> Proposal | None:
    """The threshold in a gap above the crowd, where the crowd's tail cannot explain the gap.

    Notes
    -----
    The crowd's centre and quartile give its spread. In an upper tail that falls as a power of the
    distance from the centre, each step of its logarithm, times the number of cells beyond, is
    exponentially distributed (Rényi); the tail below the gap gives the scale of these (Hill's
    estimate, with the cells beyond as censored). Tails of normal, exponential and lognormal
    distributions fall faster, so the test errs on the safe side. A gap may hold a few cells: then
    the sum of its steps follows a gamma distribution. The threshold is its geometric middle.
    """
    known = np.sort(_finite(values))
    if len(known) < LEAST_CELLS:
        return None
    number, most = len(known), int(MOST_RARE * len(known))
    least = max(FEWEST_RARE, int(np.ceil(LEAST_SHARE * number)))
    centre, quartile = np.quantile(known[: number - most // 2], (0.5, 0.75))
    tail = known[known > quartile]
    if quartile <= centre or most < least:
        return None
    steps = np.diff(np.log((tail - centre) / (quartile - centre)), prepend=0.0)
    total = np.cumsum(steps * np.arange(len(tail), 0, -1))
    best, threshold = LEAST_EVIDENCE, None
    for between in range(MOST_BETWEEN + 1):
        above = np.arange(FEWEST_TAIL + between, len(tail))
        beyond = len(tail) - above
        above = above[(beyond >= max(least, 10 * between)) & (beyond <= most)]
        below = above - between - 1
        is_wide = tail[above] - tail[below] > WIDEST_STEP * (quartile - centre) / _QUARTILE
        above, below = above[is_wide], below[is_wide]
        if not len(above):
            continue
        units = (total[above] - total[below]) / (total[below] / (below + 1))
        # The upper tail of the gamma distribution, whose logarithm does not underflow.
        evidence = units - between * np.log(np.maximum(units, 1)) + gammaln(between + 1)
        at = int(np.argmax(evidence))
        if evidence[at] > best:
            best = float(evidence[at])
            edges = tail[[below[at], above[at]]] - centre
            threshold = float(f"{centre + np.sqrt(edges.prod()):.4g}")
    if threshold is None:
        return None
    is_above = known >= threshold
    means = (float(known[~is_above].mean()), float(known[is_above].mean()))
    return Proposal(threshold, GAP_METHOD, means)


def _fit(at: Floats, cells: Floats) -> Floats:
    """Weights, means and deviations, (3, 2), of two normal distributions, lower mean first."""
    best, most = np.zeros((3, 2)), -np.inf
    # From a split by rank, at several shares: rare positive cells are easily passed over.
    rank = (np.cumsum(cells) - cells / 2) / cells.sum()
    for share in (0.5, 0.75, 0.9, 0.97):
        belongs = np.stack([rank < share, rank >= share]).astype(np.float64)
        fitted, likelihood = _climb(at, cells, belongs)
        if likelihood > most:
            best, most = fitted, likelihood
    return best[:, np.argsort(best[1])]


def _climb(at: Floats, cells: Floats, belongs: Floats) -> tuple[Floats, float]:
    """Expectation and maximisation until nothing moves; the fit and its likelihood."""
    least = (at[1] - at[0]) / 2
    before = -np.inf
    for _ in range(_ROUNDS):
        mass = np.maximum(belongs @ cells, 1e-9)
        means = belongs @ (cells * at) / mass
        spread = (belongs * cells * (at - means[:, None]) ** 2).sum(axis=1) / mass
        deviations = np.sqrt(np.maximum(spread, least**2))
        weights = mass / mass.sum()
        off = (at - means[:, None]) / deviations[:, None]
        density = (weights / (deviations * np.sqrt(2 * np.pi)))[:, None] * np.exp(-(off**2) / 2)
        total = np.maximum(density.sum(axis=0), 1e-300)
        likelihood = float((cells * np.log(total)).sum())
        belongs = density / total
        if likelihood - before < 1e-7 * cells.sum():
            break
        before = likelihood
    return np.stack([weights, means, deviations]), likelihood


def _lowest(at: Floats, counts: NDArray[np.int64], means: Floats) -> float:
    """Where fewest cells lie between the means; the middle, where that is a stretch."""
    between = np.linspace(means[0], means[1], _FINE)
    width = max(SMOOTH * float(means[1] - means[0]), at[1] - at[0])
    density = np.exp(-(((between[:, None] - at) / width) ** 2) / 2) @ counts
    return float(between[density <= density.min() + 1e-6 * counts.sum()].mean())


def _valley(at: Floats, counts: NDArray[np.int64], means: Floats, deviations: Floats) -> float:
    """The fall of the cells' density between the two humps: the lowest of the lower hump's.

    For either hump cells are counted in windows as wide as its standard deviation; a fall that
    chance may make (below :data:`CHANCE` standard deviations of the two counts) is none.
    """
    first, second = (int(np.argmin(abs(at - mean))) for mean in means)
    total = np.concatenate([[0], np.cumsum(counts)])
    ends = np.arange(len(at))
    falls = []
    for below, deviation in zip((True, False), deviations.tolist(), strict=True):
        half = round(deviation / (at[1] - at[0]) / 2)
        low, high = np.maximum(ends - half, 0), np.minimum(ends + half + 1, len(at))
        seen = (total[high] - total[low]) / (high - low) * (2 * half + 1)
        bottom = first + int(np.argmin(seen[first : max(first, second) + 1]))
        least, most = seen[bottom], (seen[: bottom + 1] if below else seen[bottom:]).max()
        certain = most - least > CHANCE * np.sqrt(most + least)
        falls.append(float(least / most) if certain else 1.0)
    return max(falls)
