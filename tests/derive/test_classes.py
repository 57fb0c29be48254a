"""Classes, scores, intervals and proposed thresholds, from plain columns."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cellseg.derive.classes import classify, measurement
from cellseg.derive.scores import Blocks, allred, h_score, share_interval, spatial_blocks
from cellseg.derive.threshold import beyond_gap, example, histogram, propose
from cellseg.errors import SettingsError
from cellseg.protocol import Marker


@pytest.mark.parametrize(
    ("threshold", "values", "classes"),
    [
        (0.2, [0.1, 0.2, 0.3, np.nan], ["negative", "positive", "positive", None]),
        ((0.1, 0.2, 0.3), [0.0, 0.1, 0.25, 9.0], ["negative", "1+", "2+", "3+"]),
    ],
)
def test_a_value_at_the_threshold_is_positive(threshold, values, classes):
    codes, names = classify({"od": values}, [Marker(measure="od", threshold=threshold)])
    assert [names[code] if code >= 0 else None for code in codes] == classes


def test_several_markers_give_combinations():
    markers = [
        Marker(measure="intensity_mean_cd3", threshold=10, name="CD3"),
        Marker(measure="intensity_mean_cd8", threshold=(5, 6, 7)),
    ]
    table = pd.DataFrame({"intensity_mean_cd3": [9, 10, 10, 1],
                          "intensity_mean_cd8": [0, 4, 6.5, np.nan]})  # fmt: skip
    codes, names = classify(table, markers)
    assert len(names) == 8
    assert [names[code] for code in codes[:3]] == ["CD3- cd8-", "CD3+ cd8-", "CD3+ cd8 2+"]
    assert codes[3] == -1


def test_a_measurement_that_is_not_there_is_named_with_those_that_are():
    columns = {"class": "str", "dab_od_mean": "float64", "area_um2": "float64"}
    assert measurement("nucleus_dab_od_mean", columns) == "dab_od_mean"
    with pytest.raises(SettingsError, match=r"'dab' .*result; is dab_od_mean meant[?]$"):
        measurement("dab", {**columns, "dab_od_std": "float64"})
    many = {f"shape_{number}": "float64" for number in range(20)}
    with pytest.raises(SettingsError, match="by the protocol ihc; there are: ") as caught:
        measurement("dab", many)
    assert str(caught.value).endswith(f"{', '.join([*many][:8])}, …")
    with pytest.raises(SettingsError, match="is dab_od_mean meant"):
        measurement("DAB_od_mean", columns)
    for name in ("cell_dab_od_mean", "cytoplasm_dab_od_mean"):
        with pytest.raises(SettingsError, match="is measured once nuclei were expanded") as caught:
            measurement(name, columns)
        assert caught.value.hint == "expand"
    with pytest.raises(SettingsError, match="is no measurement of this result; there are: "):
        measurement(name, columns | {"cytoplasm_area_px": "float64"})
    with pytest.raises(SettingsError, match="no measured numbers"):
        measurement("class", columns)


@pytest.mark.parametrize(
    ("grades", "score", "both"),
    [
        ((100, 0, 0, 0), 0, 0),
        ((0, 0, 0, 10), 300, 8),
        ((50, 20, 20, 10), 90, 6),
        ((999, 1, 0, 0), 0.1, 2),
        ((90, 10), None, None),
        ((0, 0, 0, 0), None, None),
    ],
)
def test_h_score_and_allred(grades, score, both):
    assert h_score(grades) == (None if score is None else pytest.approx(score))
    assert allred(grades) == both


def _patchy(rng, *, side_um=4000.0, cells=6000, grain_um=60.0):
    """Cells whose chance to be positive varies over the slide, 20 % on the whole."""
    grid = ndimage.gaussian_filter(rng.standard_normal((200, 200)), grain_um / 20, mode="wrap")
    chance = 0.2 + 0.12 * np.clip(grid / grid.std(), -1.6, 1.6)
    places = rng.uniform(0, side_um, (cells, 2))
    at = (places / side_um * 200).astype(int)
    return places, rng.random(cells) < chance[at[:, 0], at[:, 1]]


def test_the_interval_covers_what_it_says_and_cells_by_themselves_do_not():
    rng = np.random.default_rng(3)
    runs, held, alone = 120, 0, 0
    for _ in range(runs):
        places, positive = _patchy(rng)
        blocks = spatial_blocks(places, [50.0], mpp=1.0)
        low, high = share_interval(positive, blocks)
        held += low <= 0.2 <= high
        half = 1.96 * (positive.mean() * (1 - positive.mean()) / len(positive)) ** 0.5
        alone += abs(positive.mean() - 0.2) <= half
    assert 0.91 <= held / runs <= 0.99
    assert alone / runs < 0.85


def test_no_interval_from_a_handful_of_blocks_and_one_where_no_cell_is_positive():
    nothing = np.zeros(500, np.bool_)
    few = Blocks(np.arange(500) % 9, 9, 100.0)
    assert share_interval(nothing, few) is None
    low, high = share_interval(nothing, Blocks(np.arange(500) % 50, 50, 100.0))
    assert low == 0
    assert 0.001 < high < 0.02


def test_blocks_shrink_until_there_are_enough():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 10_000, (5000, 2))
    assert spatial_blocks(places, [50.0], mpp=1.0).side_px == 1000
    assert spatial_blocks(places, [50.0], mpp=0.25).side_px == 350 / 0.25
    assert spatial_blocks(places, [256 * np.pi], mpp=None).side_px == pytest.approx(350 / 0.25)
    assert spatial_blocks(places[:0], [], mpp=1.0).number == 0


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.8])
def test_a_threshold_is_proposed_between_two_humps(share):
    rng = np.random.default_rng(1)
    cells, positive = 4000, int(4000 * share)
    values = np.concatenate(
        [rng.normal(0.05, 0.03, cells - positive), rng.normal(0.45, 0.12, positive)]
    )
    found = propose(values)
    assert 0.1 < found.threshold < 0.25
    assert (values >= found.threshold).mean() == pytest.approx(share, abs=0.01)
    assert found.means == pytest.approx((0.05, 0.45), abs=0.05)


@pytest.mark.parametrize(
    "values",
    [
        lambda rng: rng.normal(0.2, 0.05, 5000),
        lambda rng: rng.lognormal(-2, 0.6, 5000),
        lambda rng: rng.uniform(0, 1, 5000),
        lambda rng: rng.exponential(0.1, 5000),
        lambda rng: rng.gamma(2, 0.1, 300),
        lambda rng: rng.poisson(3, 300).astype(float),
        lambda rng: np.full(5000, 0.3),
        lambda rng: np.concatenate([rng.normal(0.2, 0.05, 5000), [5.0, 6.0]]),
        lambda rng: rng.normal(0.2, 0.05, 20),
        lambda rng: np.full(300, np.nan),
    ],
)
def test_nothing_is_proposed_without_reason(values):
    for seed in range(5):
        with pytest.raises(SettingsError, match="no threshold is proposed"):
            propose(values(np.random.default_rng(seed)))


@pytest.mark.parametrize("number", [20, 300])
def test_the_example_is_not_beyond_all_cells(number):
    """Of a score or an eccentricity most values lie near the largest."""
    for seed in range(20):
        values = 1 - np.random.default_rng(seed).exponential(0.1, number)
        found = example(values)
        assert found == pytest.approx(values.max(), rel=0.006)
        assert (values >= found).any()


@pytest.mark.parametrize("share", [0.005, 0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("contrast", [12, 30, 100])
def test_rare_positive_cells_above_a_gap(share, contrast):
    """Positive cells so many deviations of the crowd above it, spread by a quarter."""
    methods = set()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cells, positive = 2000, int(2000 * share)
        crowd = rng.normal(0, 1, cells - positive)
        values = 400 + 5 * np.concatenate([crowd, contrast * rng.lognormal(0, 0.25, positive)])
        found = propose(values)
        methods.add(found.method)
        assert abs((values >= found.threshold).sum() - positive) <= max(1, 0.05 * positive)
    if share < 0.01:
        assert methods == {"gap above the crowd, for rare positive cells"}


def test_a_gap_may_hold_a_few_cells():
    rng = np.random.default_rng(0)
    crowd, positive = rng.normal(10.2, 0.3, 307), np.linspace(20, 148, 22)
    found = propose(np.concatenate([crowd, positive, [14.0]]))
    assert 11.4 < found.threshold < 20
    assert found.means == pytest.approx((10.2, 84), abs=2)


TAILS = {
    "normal": lambda rng, n: rng.normal(0.2, 0.05, n),
    "exponential": lambda rng, n: rng.exponential(1, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 1, n),
    "wide lognormal": lambda rng, n: rng.lognormal(0, 1.5, n),
    "Pareto": lambda rng, n: rng.pareto(1, n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "counts": lambda rng, n: rng.poisson(3, n).astype(float),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_is_no_gap(name):
    """No false threshold in 900 draws each; the rate over 15,000 stands in the docs."""
    for cells in (60, 300, 3000):
        for seed in range(300):
            assert beyond_gap(TAILS[name](np.random.default_rng(seed), cells)) is None


def test_a_refusal_names_a_number_to_begin_with():
    values = np.random.default_rng(0).normal(10, 1, 2000)
    with pytest.raises(SettingsError, match=r"for instance 13, well above most cells"):
        propose(values)
    with pytest.raises(SettingsError, match=r"for instance 2\.5, .*1 of 20 cells"):
        propose([2.0] * 19 + [3.0])
    with pytest.raises(SettingsError, match=r"in numbers$"):
        propose([2.0] * 300)


def test_the_histogram_holds_every_cell():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 10_000), [1e6, -1e6, np.nan, np.inf]])
    found = histogram(values)
    assert found.counts.sum() + found.beyond == len(values) - 2
    assert 2 <= found.beyond <= 10
    assert found.edges[-1] < 10
    assert histogram([]).counts.sum() == 0
    assert histogram([3.0]).counts.sum() == 1
