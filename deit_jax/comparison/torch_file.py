"""A file of weights as PyTorch reads it: none of this package's readers has a part in it."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from deit_jax.weights.files import WEIGHT_NAMES
from deit_jax.weights.hub import locate

_WRAPPERS = {"model": ("model", "state_dict"), "ema": ("model_ema", "state_dict_ema")}
# Left by DistributedDataParallel and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def read_with_torch(source: str, which: str = "model") -> dict[str, np.ndarray] | None:
    """Return a file's tensors in float32, or None if there is no such file but for instance a run.

    Args:
        source: file, directory with a file of weights, or repository in the local cache.
        which: of a training checkpoint, "model" or "ema".
    """
    path: Path = locate(source, download=False)
    if path.is_dir():
        path = next((path / name for name in WEIGHT_NAMES if (path / name).is_file()), path)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    content: Any
    if is_safetensors:
        content = safetensors.torch.load_file(path)
    else:
        # The reference stores its arguments in training checkpoints.
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        content = next((content[key] for key in _WRAPPERS[which] if key in content), content)
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in content)), "")
    return {
        name.removeprefix(prefix): tensor.numpy()
        if tensor.dtype == torch.int64
        else tensor.float().numpy()
        for name, tensor in content.items()
    }
