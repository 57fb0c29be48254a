"""The tissue network: what is skipped, what never is, and how areas are measured."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tissue_training.network import UNet as Taught

from cellseg.errors import WeightsError
from cellseg.geometry import Box
from cellseg.network import tissue
from cellseg.network.tissue import TissueFinder, TissueMask, overview_features
from cellseg.network.unet import UNet


@pytest.fixture(scope="module")
def finder():
    return TissueFinder()


def _found(finder, features):
    return finder.find(features, extent=(16 * features.shape[0], 16 * features.shape[1]))


def _mask(search, extent, step=16.0):
    array = np.array(search, dtype=bool)
    return TissueMask(array, array, step, extent)


def test_areas_count_the_partial_last_row_once():
    mask = _mask([[1, 0], [1, 1]], (20, 32))
    assert mask.area_px() == 16 * 16 + 4 * 16 + 4 * 16
    assert mask.skipped_px() == 16 * 16
    found = mask.contains([0, 19.9, 20, -1, 5], [0, 31.9, 3, 3, 20])
    assert found.tolist() == [True, True, False, False, False]
    found = TissueMask(mask.tissue, mask.search | True, 16.0, (20, 32))
    assert (found.area_px(), found.skipped_px()) == (mask.area_px(), 0.0)


def test_coverage_is_zero_only_where_nothing_is_to_be_searched():
    mask = _mask([[0, 0, 0], [0, 0, 1]], (32, 48))
    assert mask.coverage(Box(0, 0, 32, 32)) == 0
    assert mask.coverage(Box(15, 31, 17, 33)) == 0.25
    assert mask.coverage(Box(0, 0, 17, 33)) > 0
    assert mask.coverage(Box(16, 32, 300, 300)) == 1
    assert mask.coverage(Box(5, 5, 5, 9)) == 0


@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    st.sampled_from([7.5, 16.0]),
    st.data(),
)
def test_a_point_to_be_searched_is_never_in_a_tile_of_no_coverage(search, step, data):
    extent = tuple(max(1, int(side * step) - data.draw(st.integers(0, 6))) for side in search.shape)
    mask = TissueMask(search, search, step, (extent[0], extent[1]))
    y, x = (data.draw(st.integers(0, side - 1)) for side in extent)
    box = Box(y // 5 * 5, x // 5 * 5, y // 5 * 5 + 5, x // 5 * 5 + 5)
    if mask.contains(y, x):
        assert mask.coverage(box) > 0
    assert mask.area_px() + mask.skipped_px() == pytest.approx(extent[0] * extent[1])


def test_a_dim_lone_nucleus_survives_the_shrinking():
    fine = np.zeros((8, 8, 3), dtype=np.float32)
    fine[1, 1] = 0.25
    features = overview_features(fine, "fluorescence")
    assert features.shape == (2, 2, tissue.CHANNELS)
    assert features[0, 0, 4] == pytest.approx(0.5)
    assert features[0, 0, 0] == pytest.approx(0.5 / 16)
    assert features[1, 1, 4] == 0


def test_transmitted_light_is_taken_as_it_is():
    fine = np.full((4, 4, 3), 0.25, dtype=np.float32)
    assert overview_features(fine, "transmitted")[0, 0].tolist() == [0.25] * 5 + [0.0, 0.0]


@given(st.integers(1, 3), st.integers(1, 21), st.integers(1, 17), st.integers(0, 99))
def test_strips_give_what_the_whole_gives(strip, height, width, seed):
    fine = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    whole = overview_features(fine, "fluorescence")
    rows = 4 * strip
    parts = [overview_features(fine[y : y + rows], "fluorescence") for y in range(0, height, rows)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.shape == (-(-height // 4), -(-width // 4), tissue.CHANNELS)


def _glass(side):
    noise = np.random.default_rng(0).normal(0.95, 0.004, (side, side, 3))
    return noise.astype(np.float32)


def _with_tissue(side):
    """Glass with a purple, textured island in the upper left quarter."""
    fine = _glass(side)
    rng = np.random.default_rng(1)
    patch = np.array([0.8, 0.55, 0.75]) * np.ones((side // 4, side // 4, 3))
    nuclei = rng.random(patch.shape[:2]) < 0.2
    patch[nuclei] = (0.4, 0.25, 0.55)
    fine[side // 8 : side // 8 + side // 4, side // 8 : side // 8 + side // 4] = patch
    return fine


def test_glass_is_skipped_and_tissue_kept(finder):
    mask = _found(finder, overview_features(_with_tissue(512), "transmitted"))
    assert mask.search[16:48, 16:48].all()
    assert mask.tissue[20:44, 20:44].mean() > 0.95
    assert not mask.search[64:, 64:].any()
    assert mask.search.sum() > mask.tissue.sum()
    expected = (32 * 16) ** 2
    assert mask.area_px() == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("ink", [(0.1, 0.2, 0.7), (0.06, 0.06, 0.08), (0.05, 0.45, 0.25)])
def test_a_pen_stroke_is_background_but_for_its_edges(finder, ink):
    fine = _glass(512)
    fine[160:360] = ink
    mask = _found(finder, overview_features(fine, "transmitted"))
    assert not mask.search[58:72].any()
    assert not mask.search[:25].any()
    assert not mask.search[105:].any()
    assert mask.tissue.mean() < 0.04


def test_lone_nuclei_in_fluorescence_are_kept(finder):
    rng = np.random.default_rng(2)
    fine = np.abs(rng.normal(0.02, 0.01, (512, 512, 1))).astype(np.float32)
    places = [(100, 100), (300, 420), (444, 60)]
    for y, x in places:
        fine[y : y + 4, x : x + 4] += 0.4
    mask = _found(finder, overview_features(np.repeat(fine, 3, axis=2), "fluorescence"))
    assert all(mask.search[y // 4, x // 4] for y, x in places)
    assert mask.search.mean() < 0.2


def test_small_fields_are_searched_whole(finder, monkeypatch):
    features = overview_features(_glass(64), "transmitted")
    assert _found(finder, features).search.all()
    monkeypatch.setattr(tissue, "SMALL_SIDE_PX", 0)
    assert not _found(finder, features).search.all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (33, 9)])
def test_any_size_works(finder, shape):
    fine = np.ones((4 * shape[0], 4 * shape[1], 3), dtype=np.float32)
    features = overview_features(fine, "transmitted")
    assert _found(finder, features).search.shape == shape
    assert np.isfinite(finder.probabilities(features)).all()


@settings(max_examples=5, deadline=None)
@given(st.integers(33, 120), st.integers(33, 120))
def test_blocks_give_what_the_whole_gives(height, width):
    rng = np.random.default_rng(height * width)
    features = rng.random((height, width, tissue.CHANNELS), dtype=np.float32)
    finder = TissueFinder()
    whole = finder.probabilities(features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tissue, "BLOCK_PX", 32)
        parts = finder.probabilities(features)
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_the_extent_of_the_slide_is_kept(finder):
    features = overview_features(_glass(160), "transmitted")
    mask = finder.find(features, extent=(630, 640))
    assert mask.area_px() + mask.skipped_px() <= 630 * 640
    assert mask.extent == (630, 640)


def test_each_light_has_its_own_threshold(finder):
    features = np.zeros((40, 40, tissue.CHANNELS), dtype=np.float32)
    even = np.full((40, 40), 0.35, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "probabilities", lambda _: even)
        patch.setattr(finder, "search_thresholds", {"transmitted": 0.4, "fluorescence": 0.3})
        assert not _found(finder, features).search.any()
        features[..., 6] = 1.0
        assert _found(finder, features).search.all()


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    path = tmp_path / "tissue.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match="no weights of a tissue"):
        TissueFinder(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        TissueFinder(tmp_path / "absent.safetensors")
    monkeypatch.setattr(tissue, "SHIPPED_SHA256", "0" * 64)
    with pytest.raises(WeightsError, match="checksum"):
        TissueFinder()


def test_no_cell_of_a_real_section_is_skipped(finder, monkeypatch):
    monkeypatch.setattr(tissue, "SMALL_SIDE_PX", 0)
    from skimage.data import immunohistochemistry

    from cellseg.stain.normalise import Normaliser

    image = immunohistochemistry()
    fine = Normaliser.fit(image, "transmitted").apply(image)
    small = fine.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    mask = _found(finder, overview_features(small, "transmitted"))
    assert mask.search.all()


def test_training_learns_and_its_file_loads(shared, tmp_path):
    from tissue_training.data import load_material
    from tissue_training.train import Settings, card_of, make_pool, save_weights, train

    folder = shared / "data" / "nucls"
    rng = np.random.default_rng(0)
    material = load_material([folder], "train", rng=rng, scales=(1.0,))
    material.textures.setdefault("fluorescence", material.textures["he"])
    material.textures.setdefault("brightfield", material.textures["he"])
    chosen = Settings(scenes=3, side_px=32, steps=3, batch=2, widths=(4, 8))
    pool = make_pool(material, chosen, rng)
    assert pool.features.shape == (3, 7, 32, 32)
    model, outcome = train(pool, chosen, rng)
    assert outcome["steps"] == 3
    path = tmp_path / "new.safetensors"
    save_weights(model, card_of([folder], chosen, outcome), path)
    assert TissueFinder(path).card["settings"]["scenes"] == 3


def test_lone_cells_weigh_most_and_the_threshold_keeps_them_all():
    import torch
    from tissue_training.network import UNet
    from tissue_training.scenes import CELL_WEIGHT, LONE_WEIGHT, Scene
    from tissue_training.train import Pool, search_thresholds

    nuclei = np.zeros((256, 256), dtype=bool)
    nuclei[20:24, 20:24] = True
    nuclei[128:, 128:] = True
    empty = np.zeros_like(nuclei)
    fine = np.zeros((256, 256, 3), dtype=np.float32)
    scene = Scene(fine, empty, nuclei, empty.astype(np.uint8), empty, "fluorescence")
    label, weight = scene.target()
    assert (label[5, 5], weight[5, 5]) == (1, LONE_WEIGHT)
    assert (label[48, 48], weight[48, 48]) == (1, CELL_WEIGHT)
    assert (label[5, 50], weight[5, 50]) == (0, 1)

    model = UNet(7, (4,)).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(-2.0)
    held = Pool(
        torch.zeros(1, 7, 64, 64), torch.from_numpy(label)[None], torch.tensor(weight)[None]
    )
    found = search_thresholds(model, held, 1.0)
    assert found["transmitted"] == pytest.approx(0.1192 / 2, abs=1e-4)


@pytest.mark.parametrize("height", [5, 33, 150])
def test_a_slide_read_in_strips_gives_what_the_whole_gives(finder, monkeypatch, height):
    from cellseg.network.tissue import STRIP_ROWS, Strips

    monkeypatch.setattr(tissue, "BLOCK_PX", 32)
    monkeypatch.setattr(tissue, "SMALL_SIDE_PX", 0)
    features = np.random.default_rng(height).random((height, 70, tissue.CHANNELS), dtype=np.float32)
    made: list[int] = []

    def strip(number):
        made.append(number)
        return features[number * STRIP_ROWS : (number + 1) * STRIP_ROWS]

    got = _found(finder, Strips(features.shape, strip))
    expected = _found(finder, features)
    assert (got.tissue == expected.tissue).all()
    assert (got.search == expected.search).all()
    # The first is asked for the kind of light besides.
    assert sorted(made) in (sorted(set(made)), sorted([*set(made), 0]))


def _taught(widths=(4, 6, 8)):
    torch.manual_seed(0)
    net = Taught(3, widths)
    net(torch.rand(4, 3, 32, 32))  # statistics of its norms are other than at the start
    return net.eval()


def _net(widths=(4, 6, 8)):
    state = {name: value.numpy() for name, value in _taught(widths).state_dict().items()}
    return UNet(state, len(widths))


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_numpy_and_torch_agree(widths):
    image = np.random.default_rng(0).random((16, 24, 3), np.float32)
    with torch.inference_mode():
        expected = _taught(widths)(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].numpy()
    found = _net(widths)(image)
    assert found.shape == (16, 24)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_nothing_beyond_the_reach_changes_a_pixel(widths):
    net = _taught(widths)
    side, middle, reach = 96, 48, _net(widths).reach
    images = torch.rand(1, 3, side, side, requires_grad=True)
    net(images)[0, middle, middle].backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(0) > 0
    rows = torch.where(touched.any(1))[0]
    assert middle - reach <= int(rows.min())
    assert int(rows.max()) <= middle + reach
    assert int(rows.max()) > middle
