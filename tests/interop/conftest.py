"""deepinv imports torchvision, whose PyPI build does not fit the CPU build of PyTorch: declare what it looks for."""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")  # kept alive
for name in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
             "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):  # fmt: skip
    LIBRARY.define(name)
