"""The network in OpenVINO, on an x86 processor: numpy between graphs of three kinds.

Nothing here imports torch, which would take longer than a small image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.special import softmax

from cellseg.errors import WeightsError, line_of
from cellseg.network.architecture import QUALITY_KEYS, TYPE_BINS, TYPE_KEYS, TYPE_LEVELS, Limits
from cellseg.network.boxes import (
    Floats,
    Indices,
    anchors,
    clipped,
    mean_samples,
    proposals,
    sampled,
    shifted,
    unsuppressed,
)
from cellseg.network.graphs import LEVELS, Graphs
from cellseg.network.inference import EIGHT_BITS, Inference, NetworkOutput, Wanted, cores
from cellseg.network.modelfile import RANGE, Arrays, parameter
from cellseg.network.quiet import ops, ov
from cellseg.network.timer import Timer

BOX_SIDE, MASK_SIDE = 7, 14
BOX_SHIFTS = (10.0, 5.0)
"""Weights of torchvision's box regression: of centres, and of sides."""

BOXES_AT_ONCE, MASKS_AT_ONCE, FINE_AT_ONCE = 256, 64, 16
"""Batches of fixed size: graphs of open size are a quarter slower."""

OWN_FROM_PX = 1 << 20
"""Images from so many pixels on get a graph of their size: it is a third faster, is made in half a
second, and holds on to memory, so that there is one at a time."""

LEAST_SIDE_PX = 1.0

ROOMY_BYTES = 6 * 10**9
"""With so much memory tiles have twice the usual side, which takes some 1.5 GB in all."""

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

MOST_AT_ONCE, EACH_BYTES = 4, 3 * 10**9
"""Images in the network at once, and the machine's memory for each; one takes 0.3 GB."""

Extent = tuple[int, int]
Key = tuple[str, int, int]
Requests = dict[Key, ov.InferRequest]

ANY = (-1, -1)


class Dense(NamedTuple):
    """The graph of backbone, pyramid and proposals' head for images of an extent (H, W)."""

    extent: Extent
    graph: ov.CompiledModel
    spare: list[ov.InferRequest]  # Nobody looks at their outputs.


@cache
def _core() -> ov.Core:
    """OpenVINO itself, once in a process.

    Each one sets a signal stack. Two that end in the order in which they were made leave the
    first one's in use, unmapped: the next signal that Python handles, Ctrl-C or the end of a
    child, would end the process.
    """
    return ov.Core()


@cache
def adds_exactly() -> bool:
    """Whether sums of 8-bit products are right here: without VNNI two are added in 16 bits."""
    image, side = ops.parameter([1, 16, 4, 4], np.float32), 16
    ends = [ops.constant(np.float32(end)) for end in (0, 255)]
    kernel = ops.convert(ops.constant(np.full((side, side, 1, 1), 127, np.int8)), "f32")
    kernel = ops.multiply(kernel, ops.constant(np.ones((side, 1, 1, 1), np.float32)))
    narrow = ops.fake_quantize(image, *ends, *ends, 256)
    summed = ops.convolution(narrow, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = _core().compile_model(ov.Model([summed], [image]), "CPU", settings)
    found = model(np.full((1, 16, 4, 4), 255, np.float32))[0]
    return bool((found == side * 255 * 127).all())


class OpenVinoInference(Inference):
    """A model file's network in OpenVINO; errors name its ``origin``.

    Layers that have ranges compute in 8 bits, and the others in float32. Where none has, all are in
    the ``precision`` asked for; otherwise in bfloat16, if the processor has hardware for it.
    Without VNNI large weights lose some of their 8 bits, and cells differ a little.

    WeightsError if this OpenVINO cannot run the network, or its numbers are not finite.
    """

    name = "openvino"

    def __init__(self, arrays: Arrays, origin: str, precision: str | None = None) -> None:
        is_narrow = any(name.endswith(RANGE) for name in arrays)
        in_pairs = is_narrow and not adds_exactly()
        self._graphs = Graphs(arrays, in_pairs=in_pairs)
        if precision is None:
            is_half = _core().get_property("CPU", "INFERENCE_PRECISION_HINT") == ov.Type.bf16
            precision = "bfloat16" if is_half and not is_narrow else "float32"
        self.label = EIGHT_BITS + in_pairs * ", no VNNI" if is_narrow else f"cpu, {precision}"
        threads = os.environ.get("OMP_NUM_THREADS", "")
        self._settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": int(threads) if threads.isdigit() else 0,
        }
        memory = psutil.virtual_memory().total
        if memory >= ROOMY_BYTES:
            self.tile_px = 2 * self.tile_px
        else:
            self.notes = (f"{memory / 1e9:.1f} GB of memory: tiles of half the usual side",)
        self._has_quality = f"{QUALITY_KEYS}sampled.weight" in arrays
        self._has_types = f"{TYPE_KEYS}logits.weight" in arrays
        self._arrays = arrays
        self._made: dict[Key, ov.CompiledModel] = {}
        self._dense: Dense | None = None
        self._making, self._for_dense = threading.Lock(), threading.Lock()
        # While the dense part of one image takes all cores, the rest of others goes on.
        at_once = min(cores(), MOST_AT_ONCE, memory // EACH_BYTES)
        self.threads = 1 if threads == "1" else max(1, at_once)
        self._spare: list[Requests] = []
        try:
            # The dense part is compiled when the size of images is known: it takes half a second.
            blank = [np.zeros((1, 1, self._graphs.channels), np.float32)] * LEVELS
            logits, _ = self._boxes({}, blank, np.zeros((1, 4), np.float32))
        except RuntimeError as error:
            raise WeightsError(
                f"{origin}: OpenVINO {ov.__version__} cannot run the model: {line_of(error)}"
            ) from error
        if not np.isfinite(logits).all():
            raise WeightsError(f"{origin}: the model's weights give no finite numbers")

    def free_memory(self) -> None:
        """See :meth:`Inference.free_memory`: most of it is the graph of large tiles."""
        with self._for_dense:
            if self._dense and self._dense.extent != ANY:
                self._dense = None

    def get_ready(self, extent: tuple[int, int]) -> None:
        """See :meth:`Inference.get_ready`: the graph is compiled."""
        with self._for_dense:
            self._dense_for(extent)

    def find(self, image: NDArray[np.float32], wanted: Wanted, timer: Timer) -> NetworkOutput:
        """See :meth:`Inference.find`."""
        extent = (image.shape[0], image.shape[1])
        with self._for_dense:
            lap = timer.laps()
            dense = self._dense_for(extent)
            request = dense.spare.pop() if dense.spare else dense.graph.create_infer_request()
            seen = _asked(request, image[None])
            lap("backbone")
        own = self._spare.pop() if self._spare else {}
        found = self._rest(own, seen, extent, wanted, timer)
        self._spare.append(own)
        dense.spare.append(request)
        return found

    def _dense_for(self, extent: Extent) -> Dense:
        """The graph for an image; another one's is given up first."""
        if extent[0] * extent[1] < OWN_FROM_PX:
            extent = ANY
        if self._dense is None or self._dense.extent != extent:
            self._dense = None
            graph = _core().compile_model(self._graphs.dense(*extent), "CPU", self._settings)
            self._dense = Dense(extent, graph, [])
        return self._dense

    def _rest(
        self, own: Requests, seen: list[Floats], extent: Extent, wanted: Wanted, timer: Timer
    ) -> NetworkOutput:
        """Objects of an image, of its levels (1, h, w, C), scores (A, 1) and shifts (A, 4)."""
        levels, scores, shifts = [one[0] for one in seen[:LEVELS]], seen[-2][:, 0], seen[-1]
        lap, limits = timer.laps(), Limits.for_area(extent[0] * extent[1])
        rows, columns = levels[-1].shape[:2]
        grids = (*(level.shape[:2] for level in levels), ((rows + 1) // 2, (columns + 1) // 2))
        sites, level_of = _sites(extent, grids)
        looked_at = proposals(scores, shifts, sites, level_of, limits, extent)
        lap("proposals")
        logits, moves = self._boxes(own, levels, looked_at)
        least = replace(wanted, score=wanted.score**2) if self._has_quality else wanted
        boxes, classes, best, is_full = _selected(looked_at, logits, moves, least, limits, extent)
        lap("boxes")
        masks, quality = self._masks(own, levels, boxes, classes, MASK_SIDE)
        if self._has_quality:
            best = np.minimum(np.cbrt(best * quality), np.sqrt(best))
            order = np.argsort(-best, kind="stable")
            order = order[best[order] > wanted.score]
            boxes, classes, best, masks = (one[order] for one in (boxes, classes, best, masks))
        lap("masks")
        types, likeness = None, None
        if wanted.types and self._has_types:
            types, likeness = self._sorted(levels, boxes)
            lap("types")
        sides = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
        fine = np.flatnonzero(sides >= wanted.fine_from_px)
        again, _ = self._masks(own, levels, boxes[fine], classes[fine], 2 * MASK_SIDE)
        lap("masks")
        return NetworkOutput(
            boxes=boxes,
            classes=classes,
            scores=best,
            masks=masks,
            fine=fine,
            again=again,
            types=types,
            likeness=likeness,
            proposals=len(looked_at),
            is_full=is_full,
        )

    def _boxes(self, own: Requests, levels: list[Floats], boxes: Floats) -> tuple[Floats, Floats]:
        """Class logits (B, K) and shifts (B, 4 K)."""
        parts = [
            [np.copy(out) for out in part]
            for part in self._in_batches(own, "boxes", levels, boxes, BOX_SIDE, BOXES_AT_ONCE)
        ]
        logits, shifts = (np.concatenate(column) for column in zip(*parts, strict=True))
        return logits, shifts

    def _masks(
        self, own: Requests, levels: list[Floats], boxes: Floats, classes: Indices, side: int
    ) -> tuple[Floats, Floats]:
        """Probabilities of each box's class, (B, 2 S, 2 S), and how well masks fit, (B,)."""
        found, quality = [np.empty((0, 2 * side, 2 * side), np.float32)], [np.empty(0, np.float32)]
        start, batch = 0, MASKS_AT_ONCE if side == MASK_SIDE else FINE_AT_ONCE
        if len(boxes):
            for part, *fit in self._in_batches(own, "masks", levels, boxes, side, batch):
                found.append(part[np.arange(len(part)), classes[start : start + batch] + 1])
                quality += [one[:, 0].copy() for one in fit]
                start += batch
        return np.concatenate(found), np.concatenate(quality)

    def _in_batches(
        self, own: Requests, kind: str, levels: list[Floats], boxes: Floats, side: int, batch: int
    ) -> Iterator[list[Floats]]:
        """A graph's outputs for so many boxes at a time; the last ones are filled up."""
        for start in range(0, max(1, len(boxes)), batch):
            part = boxes[start : start + batch]
            seen = np.zeros((batch, side, side, levels[0].shape[2]), np.float32)
            seen[: len(part)] = sampled(levels, part, side)
            yield [out[: len(part)] for out in self._infer(own, (kind, batch, side), seen)]

    def _sorted(self, levels: list[Floats], boxes: Floats) -> tuple[Floats, Floats]:
        """Probabilities of cell types, (B, T), and likeness, (B, L)."""
        seen = mean_samples(levels[:TYPE_LEVELS], boxes, 2 * TYPE_BINS)
        hidden = np.maximum(self._linear("hidden", seen), 0)
        types = np.asarray(softmax(self._linear("logits", hidden), axis=1))
        return types, self._linear("likeness", seen - self._arrays[f"{TYPE_KEYS}centre"])

    def _linear(self, name: str, values: Floats) -> Floats:
        """A layer of the cell types' classifier, in float32."""
        weights = parameter(f"{TYPE_KEYS}{name}.weight", self._arrays)
        return np.asarray(values @ weights.T + self._arrays.get(f"{TYPE_KEYS}{name}.bias", 0))

    def _infer(self, own: Requests, key: Key, values: Floats) -> list[Floats]:
        """Outputs of a graph, made when it is first asked for; valid until it is asked again."""
        if key not in own:
            with self._making:
                if key not in self._made:
                    kind, *sides = key
                    graph = getattr(self._graphs, kind)(*sides)
                    self._made[key] = _core().compile_model(graph, "CPU", self._settings)
                own[key] = self._made[key].create_infer_request()
        return _asked(own[key], values)


def _asked(request: ov.InferRequest, values: Floats) -> list[Floats]:
    """A graph's outputs; valid until it is asked again."""
    request.infer([ov.Tensor(np.ascontiguousarray(values), shared_memory=True)])
    return [tensor.data for tensor in request.output_tensors]


def _selected(
    looked_at: Floats,
    logits: Floats,
    shifts: Floats,
    wanted: Wanted,
    limits: Limits,
    extent: tuple[int, int],
) -> tuple[Floats, Indices, Floats, bool]:
    """Boxes, classes, scores of the best class of each box after one suppression of all.

    Last: whether the limit on detections cut some off.
    """
    if wanted.kinds is not None:
        gone = np.ones(logits.shape[1], bool)
        gone[[0, *(kind + 1 for kind in wanted.kinds)]] = False
        logits = np.where(gone, np.float32(-np.inf), logits)
    scores = softmax(logits, axis=1)[:, 1:]
    classes, rows = scores.argmax(1), np.arange(len(scores))
    best = scores[rows, classes]
    moves = shifts.reshape(len(shifts), logits.shape[1], 4)[rows, classes + 1]
    boxes = clipped(shifted(looked_at, moves, BOX_SHIFTS), extent)
    large = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE_PX).all(1)
    keep = np.flatnonzero((best > wanted.score) & large)
    keep = keep[np.argsort(-best[keep], kind="stable")]
    keep = keep[unsuppressed(boxes[keep], wanted.nms_iou)]
    is_full = len(keep) > limits.detections
    keep = keep[: limits.detections]
    keep = keep[wanted.meets(boxes[keep])]
    return boxes[keep], classes[keep], best[keep], is_full


@lru_cache(maxsize=4)
def _sites(
    extent: tuple[int, int], grids: tuple[tuple[int, int], ...]
) -> tuple[Floats, NDArray[np.int8]]:
    """Anchors of an image, and the level of each."""
    parts = anchors(extent, grids)
    level = np.repeat(np.arange(len(parts), dtype=np.int8), [len(part) for part in parts])
    return np.concatenate(parts), level
