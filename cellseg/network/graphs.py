"""The network as OpenVINO graphs, built from a model file's own arrays.

Weights stay the int8 that the file holds: folding a batch norm changes their scales only. A layer
whose input has a range (``NAME.range``) computes in int8, another one in float32; batch norms of
EfficientNet-Lite0 are folded. Images and features are channels-last outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cellseg.network.architecture import (
    BACKBONES,
    BODY,
    DRAWN_BACKBONE,
    LITE0_EPS,
    LITE0_STAGES,
    QUALITY_KEYS,
)
from cellseg.network.modelfile import RANGE, SCALE, Arrays
from cellseg.network.quiet import Node, ops, ov

LEVELS = 4
QUALITY_SIDE = 14  # Of the samples by which it is told how well a mask fits.
LEVEL_TYPE = "f16"  # A third less memory in all than with float32.
_Norm = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A batch norm as one factor and one summand a channel."""

_View = Callable[[NDArray[Any]], NDArray[Any]]

_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Orders of axes: channels first, and last."""


class Graphs:
    """Parts of one model's network, of a model file's arrays as they are stored.

    With ``in_pairs`` weights are lowered where two products, added in 16 bits, would overflow.
    """

    def __init__(self, arrays: Arrays, *, in_pairs: bool) -> None:
        self._arrays, self._in_pairs = arrays, in_pairs
        self.channels = int(arrays["backbone.fpn.layer_blocks.0.0.weight"].shape[0])

    def dense(self, height: int, width: int) -> ov.Model:
        """Image (1, H, W, 3) to four levels (1, h, w, C), then scores (A, 1) and shifts (A, 4).

        Sides of -1 are open. Levels are of :data:`LEVEL_TYPE`.
        """
        image = ops.parameter([1, height, width, 3], np.float32)
        known = BACKBONES[DRAWN_BACKBONE]
        scale = _constant(1 / np.array(known.std, np.float32))
        x = _turned(ops.multiply(ops.subtract(image, _constant(known.mean)), scale), _FIRST)
        levels = self._pyramid(self._body(x))
        coarsest = ops.max_pool(levels[-1], [2, 2], [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
        scores: list[Node] = []
        shifts: list[Node] = []
        for level in [*levels, coarsest]:
            seen = ops.relu(self._convolution(level, "rpn.head.conv.0.0"))
            for name, width, found in (("cls_logits", 1, scores), ("bbox_pred", 4, shifts)):
                out = _turned(self._convolution(seen, f"rpn.head.{name}"), _LAST)
                found.append(ops.reshape(out, _constant([-1, width], np.int64), False))
        outputs = [ops.convert(_turned(level, _LAST), LEVEL_TYPE) for level in levels]
        outputs += [ops.concat(scores, 0), ops.concat(shifts, 0)]
        return ov.Model([ops.result(output) for output in outputs], [image], "dense")

    def boxes(self, batch: int, side: int) -> ov.Model:
        """Samples (B, S, S, C) to class logits (B, K) and shifts (B, 4 K)."""
        channels = self.channels
        seen = ops.parameter([batch, side, side, channels], np.float32)
        x = ops.reshape(seen, _constant([batch, side * side * channels], np.int64), False)

        def bins_first(rows: NDArray[Any]) -> NDArray[Any]:
            return rows.reshape(len(rows), channels, side**2).transpose(0, 2, 1)

        x = ops.relu(self._linear(x, "roi_heads.box_head.fc6", bins_first))
        x = ops.relu(self._linear(x, "roi_heads.box_head.fc7"))
        heads = [
            self._linear(x, f"roi_heads.box_predictor.{n}") for n in ("cls_score", "bbox_pred")
        ]
        return ov.Model([ops.result(head) for head in heads], [seen], "boxes")

    def masks(self, batch: int, side: int) -> ov.Model:
        """Samples (B, S, S, C) to probabilities (B, K, 2 S, 2 S); quality (B, 1) if S is 14."""
        channels = self._arrays["roi_heads.mask_head.0.0.weight"].shape[1]
        seen = ops.parameter([batch, side, side, channels], np.float32)
        first = x = _turned(seen, _FIRST)
        for layer in range(4):
            x = ops.relu(self._convolution(x, f"roi_heads.mask_head.{layer}.0"))
        name = "roi_heads.mask_predictor."
        doubled = ops.relu(self._doubled(x, f"{name}conv5_mask"))
        outputs = [ops.sigmoid(self._convolution(doubled, f"{name}mask_fcn_logits"))]
        if f"{QUALITY_KEYS}sampled.weight" in self._arrays and side == QUALITY_SIDE:
            outputs.append(self._quality(first, x))
        return ov.Model([ops.result(output) for output in outputs], [seen], "masks")

    def _quality(self, seen: Node, branch: Node) -> Node:
        """How well each mask fits, of samples and the mask branch's last features."""
        name = QUALITY_KEYS
        x = self._convolution(seen, f"{name}sampled")
        x = ops.relu(ops.add(x, self._convolution(branch, f"{name}branch")))
        for layer, stride in enumerate((1, 2, 1)):
            x = self._convolution(x, f"{name}convolutions.{layer}", stride=stride, symmetric=True)
            x = ops.relu(x)
        x = ops.reshape(x, _constant([0, -1], np.int64), True)
        x = ops.relu(self._linear(x, f"{name}hidden"))
        both = ops.sigmoid(self._linear(x, f"{name}logits"))
        return ops.reduce_prod(both, _constant([1], np.int64), True)

    def _body(self, x: Node) -> list[Node]:
        """Features at strides 4, 8, 16 and 32."""
        x = _relu6(self._normed(x, f"{BODY}stem.1", stride=2))
        stages: dict[int, Node] = {}
        blocks_of: dict[int, int] = {}
        inputs = 32
        for layer, wider, _, stride, channels, blocks in LITE0_STAGES:
            for index in range(blocks):
                number = blocks_of.get(layer, 0)
                blocks_of[layer] = number + 1
                step = stride if index == 0 else 1
                # The module's children: one that widens, one that pads, depthwise, narrowing.
                name = f"{BODY}layer{layer}.{number}."
                start, child = x, 0
                if wider > 1:
                    x, child = _relu6(self._normed(x, f"{name}0")), 1
                child += step == 2
                x = _relu6(self._normed(x, f"{name}{child}", stride=step, depthwise=True))
                x = self._normed(x, f"{name}{child + 1}")
                if step == 1 and inputs == channels:
                    x = ops.add(x, start)
                inputs = channels
            stages[layer] = x
        return [stages[layer] for layer in sorted(stages)]

    def _pyramid(self, stages: list[Node]) -> list[Node]:
        levels: list[Node] = []
        above = None
        for number in reversed(range(LEVELS)):
            x = self._convolution(stages[number], f"backbone.fpn.inner_blocks.{number}.0")
            if above is not None:
                twice = ops.interpolate(
                    above,
                    _constant([2.0, 2.0]),
                    "nearest",
                    "scales",
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                    axes=_constant([2, 3], np.int64),
                )
                x = ops.add(x, twice)
            above = x
            levels.insert(0, self._convolution(x, f"backbone.fpn.layer_blocks.{number}.0"))
        return levels

    def _normed(self, x: Node, name: str, *, stride: int = 1, depthwise: bool = False) -> Node:
        weight, bias, mean, variance = (
            self._arrays[f"{name}.1.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = weight / np.sqrt(variance + LITE0_EPS)
        norm = factor.astype(np.float32), (bias - mean * factor).astype(np.float32)
        return self._convolution(x, f"{name}.0", norm=norm, stride=stride, depthwise=depthwise)

    def _convolution(
        self,
        x: Node,
        name: str,
        *,
        norm: _Norm | None = None,
        stride: int = 1,
        depthwise: bool = False,
        symmetric: bool = False,
    ) -> Node:
        shape = self._arrays[f"{name}.weight"].shape
        kernel = shape[2]
        before = (kernel - 1) // 2 if stride == 1 or symmetric else (kernel - 2) // 2
        after = before if stride == 1 or symmetric else before + 1
        convolve = ops.group_convolution if depthwise else ops.convolution
        target = (shape[0], 1, *shape[1:]) if depthwise else shape
        factor = 1.0 if norm is None else norm[0]
        weights = self._weights(name, lambda array: array.reshape(target), factor)
        x = self._narrowed(x, name)
        x = convolve(x, weights, [stride] * 2, [before] * 2, [after] * 2, [1, 1])
        bias = self._arrays[f"{name}.bias"] if norm is None else norm[1]
        return ops.add(x, _constant(bias.reshape(1, -1, 1, 1)))

    def _doubled(self, x: Node, name: str) -> Node:
        """A transposed convolution of 2 × 2 with stride 2: four times the channels, rearranged."""
        weight = f"{name}.weight"
        kernel = self._arrays[weight].astype(np.float32)
        if weight + SCALE in self._arrays:
            kernel *= self._arrays[weight + SCALE].reshape(-1, 1, 1, 1)
        # (inputs, outputs, 2, 2); the stored scale is one of each input.
        rows = kernel.transpose(1, 2, 3, 0).reshape(-1, len(kernel), 1, 1)
        weights = self._kernel(rows, np.ones(len(rows), np.float32), weight + RANGE in self._arrays)
        x = ops.convolution(self._narrowed(x, name), weights, [1, 1], [0, 0], [0, 0], [1, 1])
        bias = np.repeat(self._arrays[f"{name}.bias"], 4)
        return ops.depth_to_space(
            ops.add(x, _constant(bias.reshape(1, -1, 1, 1))), "depth_first", 2
        )

    def _linear(self, x: Node, name: str, view: _View | None = None) -> Node:
        rows = len(self._arrays[f"{name}.weight"])
        weights = self._weights(
            name, lambda array: (view(array) if view else array).reshape(rows, -1)
        )
        x = ops.matmul(self._narrowed(x, name), weights, False, True)
        bias = self._arrays.get(f"{name}.bias")
        return x if bias is None else ops.add(x, _constant(bias[None]))

    def _weights(self, name: str, view: _View, factor: NDArray[np.float32] | float = 1.0) -> Node:
        weight = f"{name}.weight"
        values = self._arrays[weight]
        scale = self._arrays.get(weight + SCALE, np.ones(len(values), np.float32))
        return self._kernel(
            view(values), np.float32(factor) * scale, weight + RANGE in self._arrays
        )

    def _kernel(self, values: NDArray[Any], scale: NDArray[np.float32], narrow: bool) -> Node:
        """Weights in 8 bits with a factor for each output, or in float32."""
        axes = (-1, *[1] * (values.ndim - 1))
        if narrow and values.dtype != np.int8:
            largest = np.abs(values).reshape(len(values), -1).max(1).clip(1e-12)
            scale = scale * largest / 127
            values = np.round(values * (127 / largest.reshape(axes))).astype(np.int8)
        if narrow and self._in_pairs:
            share = 127 / np.maximum(_most_of_two(values), 127)
            scale = (scale / share).astype(np.float32)
            values = np.round(values * share.reshape(axes)).astype(np.int8)
        scale = scale.astype(np.float32).reshape(axes)
        if not narrow:
            return _constant(values.astype(np.float32) * scale)
        return ops.multiply(ops.convert(ops.constant(np.ascontiguousarray(values)), "f32"), scale)

    def _narrowed(self, x: Node, name: str) -> Node:
        """A layer's input in 256 steps, where its range is known."""
        ends = self._arrays.get(f"{name}.weight{RANGE}")
        if ends is None:
            return x
        low, high = (float(end) for end in ends)
        if low < 0:
            high = max(high, -low)
            low = -high * 128 / 127
        bounds = [_constant(low), _constant(high)]
        return ops.fake_quantize(x, *bounds, *bounds, 256)


def _constant(values: ArrayLike, dtype: DTypeLike = np.float32) -> Node:
    return ops.constant(np.ascontiguousarray(values, dtype))


def _most_of_two(values: NDArray[np.int8]) -> NDArray[np.int64]:
    """Of each output, the largest sum of two neighbouring inputs' weights of one sign, (O,)."""
    signed = np.stack([values, -values.astype(np.int64)]).clip(0)
    pairs = np.add.reduceat(signed, np.arange(0, values.shape[1], 2), axis=2)
    return np.asarray(pairs.max((0, *range(2, pairs.ndim))))


def _turned(x: Node, order: tuple[int, ...]) -> Node:
    return ops.transpose(x, _constant(order, np.int64))


def _relu6(x: Node) -> Node:
    return ops.clamp(x, 0, 6)
