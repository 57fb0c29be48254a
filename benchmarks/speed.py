"""How fast, against whom: seconds per mm², in one run, on one slide, with the same weights.

    python benchmarks/speed.py [--size tiny|small|full] [--field IMAGE --mpp 0.5] [--repeats 1]

A slide is made of real tissue (``--field``, else scikit-image's immunohistochemistry, its brown
taken out so that it looks stained by haematoxylin and eosin) at 0.5 µm/px: mirrored copies side by
side, and once more with background around. Each method counts the tissue in a process of its own,
its model loaded and warm:

- ``cellseg``: the whole of ``cellseg count`` without prefilter, from file to written result.
- ``loop``: torchvision's Mask R-CNN, float32, and its own post-processing over tiles that overlap
  by a fifth; a box counts where its centre lies in the tile's core. Pixels are in memory already.
- ``sahi``: SAHI's sliced prediction around the same network, float32 (``pip install sahi``).
- ``newcomer``: the same loop around ``maskrcnn_resnet50_fpn`` of torchvision's documentation, with
  COCO weights where torch's cache has them, else random ones, and torchvision's own limits: 100
  objects a tile. It does not know cells: its time counts, its number does not.

The network of ``loop`` and ``sahi`` is torchvision's class around the same backbone and heads, with
the same weights; what differs is how it is run. What decides on cells is the same for all: score,
size limits, overlap at which proposals and boxes suppress one another (torchvision's own 0.7 of
proposals finds a twentieth more here, and is slower). Neither of the two removes a mask that lies
in another one; cellseg does. So the masks that they leave are settled by cellseg's rule before
they are counted, and that is not timed. The counts of ``cellseg`` and ``loop`` must then agree
within a tenth. SAHI counts what its slices cut twice (its default, which joins boxes that overlap,
fuses cells instead), so its number is printed and not compared. The background is timed apart, so
that skipping it does not flatter the ratio. The table goes to stdout, everything to
``benchmarks/latest.json``.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

MPP = 0.5
PROTOCOL = "he_20x"

RIVAL_TILE_PX, RIVAL_HALO_PX = 512, 64
"""The rivals' tiles overlap by a fifth, as SAHI's do by default, and as cellseg's by area. They are
smaller, because torchvision pastes each mask over its whole tile: a thousand masks of a tile of
1,280 px take 6.5 GB."""
SIDES = {"tiny": 256, "small": 768, "full": 4096}
"""Of the tissue, px; the slide with background is twice as wide and high."""

AGREE = 0.1
"""Relative difference of counts that is still the same count: other tiles, other precision."""

PEAK_BYTES = 1 if sys.platform == "darwin" else 1024
METHODS = ("cellseg", "loop", "sahi", "newcomer")
SAME_NETWORK = ("cellseg", "loop", "sahi")
SAME_RULE = ("cellseg", "loop")
HERE = Path(__file__).parent
STAGES = (
    "tissue", "intensities", "wait for input", "read", "normalise", "preprocess", "backbone",
    "proposals", "boxes", "masks", "paste", "merge", "measure", "write",
)  # fmt: skip


# Slides


def tissue_field(image: Path | None, mpp: float) -> NDArray[np.uint8]:
    """A field of stained tissue at 0.5 µm/px, (H, W, 3)."""
    from skimage.transform import rescale

    if image is None:
        import skimage.data
        from counterstain import as_hematoxylin_eosin

        pixels = skimage.data.immunohistochemistry().astype(np.float32) / 255
        # Nuclei of 10 px, as if they were of 7 µm.
        pixels, mpp = as_hematoxylin_eosin(pixels), 0.7
    else:
        from cellseg.slide import open_slide

        with open_slide(image) as slide:
            whole, _ = slide.overview(max(slide.height, slide.width))
        pixels = whole[..., :3].astype(np.float32) / np.iinfo(whole.dtype).max
    if abs(mpp / MPP - 1) > 0.02:
        pixels = rescale(pixels, mpp / MPP, order=1, channel_axis=2)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def tissue_of(field: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A square of copies of the field, mirrored in turn."""
    copies = -(-side // min(field.shape[:2]))
    row = np.concatenate([field[:, :: 1 - 2 * (k % 2)] for k in range(copies)], axis=1)
    return np.concatenate([row[:: 1 - 2 * (k % 2)] for k in range(copies)])[:side, :side]


def write_slide(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """A pyramid of tiles; the path."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from synthetic import PyramidLayout, write_pyramid

    write_pyramid(path, pixels, layout=PyramidLayout(mpp=MPP, levels=3))
    return path


def write_slides(folder: Path, field: NDArray[np.uint8], side: int) -> tuple[Path, Path]:
    """The tissue alone, and with background around it."""
    tissue = tissue_of(field, side)
    rng = np.random.default_rng(0)
    whole = rng.normal(243, 1.5, (2 * side, 2 * side, 3)).round().clip(0, 255).astype(np.uint8)
    whole[side // 2 : side // 2 + side, side // 2 : side // 2 + side] = tissue
    return write_slide(folder / "tissue.tif", tissue), write_slide(folder / "slide.tif", whole)


# Methods, each in a process of its own


@dataclass(frozen=True)
class Task:
    """What a child counts."""

    method: str
    slide: Path
    model: str
    device: str
    prefilter: bool


def by_cellseg(task: Task) -> dict[str, object]:
    """The whole command, but for loading the model."""
    from cellseg.counting.request import CountRequest
    from cellseg.network.detect import load_detector
    from cellseg.run import CountResult, run

    detector = load_detector(task.model, device=task.device)
    detector.detect(np.ones((256, 256, 3), np.float32), fill=1.0)
    with tempfile.TemporaryDirectory(dir=task.slide.parent) as folder:
        request = CountRequest(
            image=task.slide,
            output=Path(folder),
            protocol=PROTOCOL,
            model=task.model,
            device=task.device,
            prefilter=task.prefilter,
        )
        start = time.perf_counter()
        *_, result = run(request)
        seconds = time.perf_counter() - start
        assert isinstance(result, CountResult)
        record = json.loads((result.folder / "run.json").read_text())
        return {
            "seconds": seconds,
            "cells": result.summary.cells,
            "stages": record["seconds"],
            "network": detector.info.device,
        }


def without_quality(model: str, path: Path) -> str:
    """A model without the head that tells how well masks fit, which no rival has; its file."""
    from safetensors.numpy import save_file

    from cellseg.network.architecture import QUALITY_KEYS
    from cellseg.network.modelfile import METADATA_KEY, read_arrays

    arrays, card = read_arrays(model)
    arrays = {name: one for name, one in arrays.items() if not name.startswith(QUALITY_KEYS)}
    save_file(arrays, path, {METADATA_KEY: card.model_dump_json(exclude={"checksum"})})
    return str(path)


def standard_network(model: str, tile_px: int, nms_iou: float):
    """torchvision's own Mask R-CNN around the same backbone and heads, with the same weights."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import FrozenBatchNorm2d

    from cellseg.network.architecture import (
        ANCHOR_SIZES_PX,
        ASPECT_RATIOS,
        BACKBONES,
        PROPOSAL_NMS,
        TYPE_KEYS,
        Architecture,
        Limits,
    )
    from cellseg.network.backbones import with_pyramid
    from cellseg.network.weights import read_model

    state, card = read_model(model)
    chosen = Architecture.of(state)
    classes, backbone = len(card.classes) + 1, BACKBONES[chosen.backbone]
    limits = Limits.for_area(tile_px * tile_px)
    network = MaskRCNN(
        with_pyramid(chosen.backbone, chosen.pyramid, FrozenBatchNorm2d),
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in ANCHOR_SIZES_PX), (ASPECT_RATIOS,) * len(ANCHOR_SIZES_PX)
        ),
        min_size=tile_px,
        max_size=tile_px,
        rpn_pre_nms_top_n_test=limits.pre_nms,
        rpn_post_nms_top_n_test=limits.proposals,
        rpn_nms_thresh=PROPOSAL_NMS,
        box_nms_thresh=nms_iou,
        box_detections_per_img=limits.detections,
        box_head=TwoMLPHead(chosen.pyramid * 7 * 7, chosen.box),
        box_predictor=FastRCNNPredictor(chosen.box, classes),
        mask_head=MaskRCNNHeads(chosen.pyramid, (chosen.mask,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(chosen.mask, chosen.mask, classes),
    )
    # Cell types are cellseg's own.
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith(TYPE_KEYS)})
    return network.eval()


def prepared(task: Task):
    """Settings, the rivals' grid, and the whole slide as the network sees it: not timed."""
    from cellseg.counting.plan import fit_normaliser, make_plan
    from cellseg.counting.request import CountRequest
    from cellseg.geometry import Box, TileGrid
    from cellseg.network.detect import info_of
    from cellseg.network.weights import read_model
    from cellseg.slide import open_slide

    _, card = read_model(task.model)
    with open_slide(task.slide) as slide:
        request = CountRequest(image=task.slide, protocol=PROTOCOL)
        plan = make_plan(slide, request, info_of(card))
        normaliser = fit_normaliser(slide, plan)
        # On the protocol's scale, as cellseg sees it.
        whole = Box(0, 0, plan.grid.height, plan.grid.width)
        pixels = slide.read(whole, downsample=plan.downsample, channels=plan.channels)
    grid = TileGrid(plan.grid.height, plan.grid.width, RIVAL_TILE_PX, RIVAL_HALO_PX)
    protocol = plan.protocol
    gate = tuple(area / protocol.mpp**2 for area in (protocol.min_area_um2, protocol.max_area_um2))
    return protocol, gate, grid, np.array(normaliser.apply(pixels))


def by_loop(task: Task) -> dict[str, object]:
    """Tile by tile, torchvision's post-processing, centres in the core."""
    settings = prepared(task)
    protocol, _, grid, _ = settings
    network = standard_network(task.model, grid.tile + 2 * grid.halo, protocol.nms_iou)
    return {**looped(task, network, settings), "network": f"{task.device}, float32"}


def by_newcomer(task: Task) -> dict[str, object]:
    """The loop around torchvision's best known Mask R-CNN, as its documentation makes it."""
    from pathlib import Path

    import torch
    from torchvision.models.detection import (
        MaskRCNN_ResNet50_FPN_Weights,
        maskrcnn_resnet50_fpn,
    )

    settings = prepared(task)
    _, _, grid, _ = settings
    side = grid.tile + 2 * grid.halo
    coco = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(coco.url).name
    network = maskrcnn_resnet50_fpn(
        weights=coco if cached.is_file() else None,
        weights_backbone=None,
        min_size=side,
        max_size=side,
    ).eval()
    found = looped(task, network, settings)
    weights = "COCO" if cached.is_file() else "random weights"
    return {**found, "network": f"{task.device}, float32, ResNet-50, {weights}"}


def looped(task: Task, network, settings) -> dict[str, object]:
    """A plain loop over overlapping tiles."""
    import torch

    from cellseg.instances import Instances
    from cellseg.network.paste import THRESHOLD

    protocol, gate, grid, pixels = settings
    network = network.to(task.device)
    boxes, scores, crops = [], [], []
    with torch.inference_mode():
        network([torch.ones(3, 256, 256, device=task.device)])
        start = time.perf_counter()
        for tile in grid:
            box, core = tile.padded, tile.core
            part = torch.from_numpy(pixels[box.y0 : box.y1, box.x0 : box.x1].transpose(2, 0, 1))
            # Its transform would enlarge a smaller tile at the slide's edge.
            network.transform.min_size = (min(part.shape[1:]),)
            found = network([part.contiguous().to(task.device)])[0]
            kept = found["scores"] >= protocol.score
            places = found["boxes"][kept].cpu().numpy()
            masks = (found["masks"][kept, 0] >= THRESHOLD).cpu().numpy()
            y = places[:, [1, 3]].mean(1) + box.y0
            x = places[:, [0, 2]].mean(1) + box.x0
            inside = (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
            for index in np.flatnonzero(inside & masks.any((1, 2))):
                place, crop = cropped(masks[index], box.y0, box.x0)
                boxes.append(place)
                crops.append(crop)
                scores.append(float(found["scores"][kept][index]))
        seconds = time.perf_counter() - start
    instances = Instances.build(boxes, scores, [0] * len(boxes), crops)
    return {"seconds": seconds, "cells": settled(instances, gate, pixels.shape[:2])}


def cropped(mask: NDArray[np.bool_], y: int, x: int):
    """The box of a mask on the slide's lattice, and the mask in it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return (y0 + y, x0 + x, y1 + y, x1 + x), mask[y0:y1, x0:x1]


def settled(instances, gate: tuple[float, float], shape: tuple[int, int]) -> int:
    """How many cells cellseg's rule for overlapping masks leaves; not timed."""
    from cellseg.counting.merge import SeamMerger
    from cellseg.geometry import TileGrid

    whole = TileGrid(*shape, -(-max(shape) // 32) * 32, 0)
    merger = SeamMerger(whole)
    found = [merger.add(next(iter(whole)), instances), merger.finish()]
    areas = np.concatenate([one.instances.areas for one in found])
    return int(((areas >= gate[0]) & (areas <= gate[1])).sum())


def by_sahi(task: Task) -> dict[str, object]:
    """SAHI's sliced prediction, slices as large as the loop's tiles."""
    from sahi.models.torchvision import TorchVisionDetectionModel
    from sahi.predict import get_sliced_prediction

    from cellseg.instances import Instances
    from cellseg.network.paste import THRESHOLD

    protocol, gate, grid, pixels = prepared(task)
    side = grid.tile + 2 * grid.halo
    network = standard_network(task.model, side, protocol.nms_iou)
    model = TorchVisionDetectionModel(
        model=network,
        confidence_threshold=protocol.score,
        mask_threshold=THRESHOLD,
        device=task.device,
        category_mapping={"0": "background", "1": "nucleus"},
    )
    image = np.round(255 * pixels).astype(np.uint8)
    overlap = 2 * grid.halo / side
    options = {
        "slice_height": side,
        "slice_width": side,
        "overlap_height_ratio": overlap,
        "overlap_width_ratio": overlap,
        "perform_standard_pred": False,
        "postprocess_type": "NMS",
        "postprocess_match_metric": "IOU",
        "postprocess_match_threshold": protocol.nms_iou,
        "verbose": 0,
    }
    get_sliced_prediction(np.full((256, 256, 3), 255, np.uint8), model, **options)
    start = time.perf_counter()
    found = get_sliced_prediction(image, model, **options)
    seconds = time.perf_counter() - start
    kept = [
        (one.score.value, *cropped(one.mask.bool_mask, 0, 0))
        for one in found.object_prediction_list
        if one.mask.bool_mask.any()
    ]
    scores, boxes, crops = ([one[part] for one in kept] for part in range(3))
    instances = Instances.build(boxes, scores, [0] * len(kept), crops)
    cells = settled(instances, gate, pixels.shape[:2])
    return {"seconds": seconds, "cells": cells, "network": f"{task.device}, float32"}


def child(task: Task) -> None:
    """Count once, print one line of JSON."""
    import torch

    torch.set_flush_denormal(True)
    found = {
        "cellseg": by_cellseg,
        "loop": by_loop,
        "sahi": by_sahi,
        "newcomer": by_newcomer,
    }[task.method](task)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_BYTES / 1e6
    if task.device.startswith("cuda"):
        found["device_mb"] = torch.cuda.max_memory_allocated() / 1e6
    click.echo(json.dumps({**found, "peak_mb": peak}))


# The parent


def measured(task: Task) -> dict[str, object]:
    """One method in a process of its own."""
    command = [
        sys.executable, __file__, "--one", task.method, "--slide", str(task.slide),
        "--model", task.model, "--device", task.device,
        "--prefilter" if task.prefilter else "--no-prefilter",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task.method} failed:\n{done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    click.echo(f"{task.method}: {found['seconds']:.1f} s, {found['cells']} cells", err=True)
    return found


def best(runs: list[dict[str, object]]) -> dict[str, object]:
    """The fastest run: what disturbs a machine only ever makes it slower."""
    return min(runs, key=lambda run: float(run["seconds"]))  # type: ignore[arg-type]


def machine(device: str) -> str:
    """Processor, cores and what the network ran on."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    card = f", {torch.cuda.get_device_name()}" if device.startswith("cuda") else ""
    return f"{name}, {torch.get_num_threads()} threads{card}, torch {torch.__version__}"


def report(found: dict[str, dict[str, object]], side: int) -> str:
    """The tables, as Markdown."""
    tissue, slide = (side * MPP / 1000) ** 2, (2 * side * MPP / 1000) ** 2
    mine = float(found["cellseg"]["seconds"])  # type: ignore[arg-type]
    lines = [
        "| | network | cells | s per mm² of tissue | times cellseg | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        if name not in found:
            continue
        run = found[name]
        seconds = float(run["seconds"])  # type: ignore[arg-type]
        lines.append(
            f"| {name} | {run['network']} | {run['cells'] if name in SAME_NETWORK else '–'} | "
            f"{seconds / tissue:.2f} | "
            f"{seconds / mine:.2f} | {run['peak_mb']:,.0f} MB |"
        )
    whole = found["slide"]
    lines += [
        "",
        f"cellseg with prefilter on the slide with three parts of background to one of tissue: "
        f"{float(whole['seconds']) / slide:.2f} s per mm² of slide, {whole['cells']:,} cells.",  # type: ignore[arg-type]
        "",
        "| stage of cellseg | s per mm² of tissue |",
        "|---|---|",
    ]
    stages: dict[str, float] = found["cellseg"]["stages"]  # type: ignore[assignment]
    lines += [f"| {name} | {stages[name] / tissue:.3f} |" for name in STAGES if name in stages]
    return "\n".join(lines)


@click.command()
@click.option("--size", type=click.Choice(list(SIDES)), default="small", show_default=True)
@click.option("--field", type=click.Path(exists=True, path_type=Path))
@click.option("--mpp", default=MPP, show_default=True, help="Of --field.")
@click.option("--model", default="default", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--methods", default=",".join(METHODS), show_default=True)
@click.option("--repeats", default=1, show_default=True)
@click.option("--output", default=HERE / "latest.json", type=click.Path(path_type=Path))
@click.option("--one", hidden=True)
@click.option("--slide", hidden=True, type=click.Path(path_type=Path))
@click.option("--prefilter/--no-prefilter", hidden=True, default=False)
def main(
    size: str,
    field: Path | None,
    mpp: float,
    model: str,
    device: str,
    methods: str,
    repeats: int,
    output: Path,
    one: str | None,
    slide: Path | None,
    prefilter: bool,
) -> None:
    """Print the tables, write the figures."""
    if one is not None and slide is not None:
        child(Task(one, slide, model, device, prefilter))
        return
    side = SIDES[size]
    runs: dict[str, list[dict[str, object]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tissue, whole = write_slides(Path(folder), tissue_field(field, mpp), side)
        model = without_quality(model, Path(folder, "model.safetensors"))
        for _ in range(repeats):
            for name in methods.split(","):
                task = Task(name, tissue, model, device, prefilter=False)
                runs.setdefault(name, []).append(measured(task))
            task = Task("cellseg", whole, model, device, prefilter=True)
            runs.setdefault("slide", []).append(measured(task))
    found = {name: best(several) for name, several in runs.items()}
    click.echo(f"{machine(device)}; tissue {side}² px at {MPP} µm/px\n")
    click.echo(report(found, side))
    mine = found["cellseg"]
    figures: dict[str, object] = {
        "machine": machine(device), "size": size, "side_px": side, "mpp": MPP,
        "field": "scikit-image immunohistochemistry" if field is None else field.name,
        "runs": found,
    }  # fmt: skip
    for name in METHODS[1:]:
        if name in found:
            ratio = float(found[name]["seconds"]) / float(mine["seconds"])  # type: ignore[arg-type]
            figures[f"ratio_{name}"] = round(ratio, 2)
    output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    counts = {name: int(found[name]["cells"]) for name in SAME_RULE if name in found}  # type: ignore[call-overload]
    low, high = min(counts.values()), max(counts.values())
    if high - low > AGREE * high:
        raise SystemExit(f"the counts do not agree: {counts}")


if __name__ == "__main__":
    main()
