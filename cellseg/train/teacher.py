"""Mean teacher: the average weights look at the plain crop and tell the student what they see.

The student sees the crop with its light, stain and objects changed. It learns half from the
annotations and half from the teacher's scores and masks, so one cell gets the same score however a
scanner shows it. At each step the teacher sees all crops in one of their eight positions.

Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.train.crops import Crop, turned


class Teacher:
    """A copy of the network around the average weights, for :class:`CellRoIHeads` to ask.

    Attributes
    ----------
    average : dict of Tensor
        Its arrays, to be changed in place.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.average: dict[str, Tensor] = self.model.state_dict()
        self.features: dict[str, Tensor] = {}
        self.turns, self.flip, self.size = 0, False, 0

    @torch.no_grad()
    def look(self, crops: list[Crop], memory_format: torch.memory_format) -> None:
        """See crops, which have a plain image, in a random position."""
        self.turns, self.flip = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        plain = [crop.image if crop.plain is None else crop.plain for crop in crops]
        self.size = plain[0].shape[-1]
        images = torch.stack([turned(image, self.turns, flip=self.flip) for image in plain])
        seen = self.model.transform.normalize(images).contiguous(memory_format=memory_format)
        self.features = self.model.backbone(seen)

    @torch.no_grad()
    def class_probabilities(self, boxes: list[Tensor]) -> Tensor:
        """Probability of each class, background first, of all boxes: (sum of P, classes)."""
        heads, shapes = self.model.roi_heads, [(self.size, self.size)] * len(boxes)
        pooled = heads.box_roi_pool(self.features, self._placed(boxes), shapes)
        return F.softmax(heads.box_predictor(heads.box_head(pooled))[0].float(), -1)

    @torch.no_grad()
    def mask_probabilities(self, boxes: list[Tensor]) -> Tensor:
        """Masks of each class in all boxes, (sum of P, classes, 28, 28)."""
        heads, shapes = self.model.roi_heads, [(self.size, self.size)] * len(boxes)
        pooled = heads.mask_roi_pool(self.features, self._placed(boxes), shapes)
        masks: Tensor = heads.mask_predictor(heads.mask_head(pooled)).float().sigmoid()
        return (masks.flip(-1) if self.flip else masks).rot90(-self.turns, (-2, -1))

    def _placed(self, boxes: list[Tensor]) -> list[Tensor]:
        return [turned_boxes(box, self.size, self.turns, flip=self.flip) for box in boxes]


def turned_boxes(boxes: Tensor, size: int, turns: int, *, flip: bool) -> Tensor:
    """Boxes (x1, y1, x2, y2) of a square image after :func:`~cellseg.train.crops.turned`."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    for _ in range(turns):
        x1, y1, x2, y2 = y1, size - x2, y2, size - x1
    if flip:
        x1, x2 = size - x2, size - x1
    return torch.stack([x1, y1, x2, y2], -1)
