"""Eight virtual CPU devices for every test, so that sharding is exercised everywhere."""

import importlib.util
import os
import pathlib

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two test processes share two cores; PyTorch's threads would wait for each other in all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Wheels of torchvision that are built against another torch than the one installed cannot load
# their C++ operators. Only nms is looked up at import, and no oracle used here calls it.
_operators = pathlib.Path(importlib.util.find_spec("torchvision").origin).with_name("_C.so")
try:
    torch.ops.load_library(str(_operators))
except OSError:
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
