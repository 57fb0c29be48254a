"""The tissue network in numpy says what the one in torch says, which was taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tissue_training.network import UNet as Taught

from cellseg.network.unet import UNet


def _taught(widths: tuple[int, ...] = (4, 6, 8)) -> Taught:
    torch.manual_seed(0)
    net = Taught(3, widths)
    net(torch.rand(4, 3, 32, 32))  # statistics of its norms are other than at the start
    return net.eval()


def _net(widths: tuple[int, ...] = (4, 6, 8)) -> UNet:
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
