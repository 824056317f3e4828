"""A file of weights as PyTorch reads it: none of this package's readers has a part in it."""

import argparse
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import safetensors.torch
import torch

from deit_jax.weights.formats.hub import locate_weights
from deit_jax.weights.formats.shards import files_of, find_weights
from deit_jax.weights.formats.wrappers import network_prefix, state_dict


def read_with_torch(source: str, which: str = "model") -> dict[str, np.ndarray] | None:
    """Return a file's tensors in float32, without the prefixes of training programs.

    None if there is no such file but for instance a run, or if PyTorch does not read it safely.

    Args:
        source: file, directory with a file of weights, or repository in the local cache.
        which: of a training checkpoint, "model" or "ema".
    """
    try:
        path = find_weights(locate_weights(os.path.expanduser(source), download=False))
    except FileNotFoundError:
        return None
    content: dict[str, Any] = {}
    for name in files_of(path):
        try:
            content |= _read_one(path.with_name(name), which)
        except UnpicklingError:
            return None
    prefix = network_prefix(path, content)
    return {
        name.removeprefix(prefix): (
            tensor if tensor.dtype == torch.int64 else tensor.detach().float()
        ).numpy()
        for name, tensor in content.items()
        if name.startswith(prefix)
    }


def _read_one(path: Path, which: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        return safetensors.torch.load_file(path)
    # The reference stores its arguments in training checkpoints.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return state_dict(path, content, which, torch.is_tensor)
