from __future__ import annotations

import pytest
import torch

from cellseg.network.unet import UNet


def _net(widths: tuple[int, ...] = (4, 6, 8)) -> UNet:
    torch.manual_seed(0)
    return UNet(3, widths).eval()


def test_one_logit_per_pixel() -> None:
    with torch.inference_mode():
        assert _net()(torch.rand(2, 3, 16, 24)).shape == (2, 16, 24)


@pytest.mark.parametrize("side", [10, 18])
def test_a_side_off_the_stride_is_named(side: int) -> None:
    with pytest.raises(ValueError, match=f"multiples of 4, got {side} × 16"):
        _net()(torch.rand(1, 3, side, 16))


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_nothing_beyond_the_reach_changes_a_pixel(widths: tuple[int, ...]) -> None:
    net = _net(widths)
    side, middle = 96, 48
    images = torch.rand(1, 3, side, side, requires_grad=True)
    net(images)[0, middle, middle].backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(0) > 0
    rows = torch.where(touched.any(1))[0]
    assert middle - net.reach <= int(rows.min())
    assert int(rows.max()) <= middle + net.reach
    assert int(rows.max()) > middle
