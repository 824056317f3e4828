"""Directories as timm and transformers write them, of networks that their tensors do not show."""

import json

import numpy as np
import safetensors.torch
import timm
import torch

from tests.weights.small_models import randomised, transformers_model

SIZES = dict(img_size=16, patch_size=4, embed_dim=64, depth=3, num_heads=2, num_classes=10)


def sharpened(model):
    """Random weights three times as large: attention is far from uniform."""
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor.mul_(3)
    return model


def timm_directory(path, architecture="deit_tiny_patch16_224", **options):
    """A directory as timm's `save_for_hf` writes it, and timm's model of it."""
    theirs = sharpened(randomised(timm.create_model(architecture, **SIZES | options)))
    path.mkdir(exist_ok=True)
    safetensors.torch.save_file(theirs.state_dict(), path / "model.safetensors")
    config = {
        "architecture": architecture,
        "num_classes": 10,
        "model_args": {k: v for k, v in (SIZES | options).items() if k != "num_classes"},
        "pretrained_cfg": {"input_size": [3, 16, 16]},
    }
    (path / "config.json").write_text(json.dumps(config))
    return theirs


def transformers_directory(path, kind="vit", **options):
    theirs = sharpened(transformers_model(kind, **options))
    theirs.save_pretrained(path)
    return theirs


def convnet_file(path, name, **content):
    """Tensors of the shapes of a convnet, all zeros: only what is said of them counts here."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    torch.save({"state_dict": {k: torch.zeros(v.shape) for k, v in state.items()}} | content, path)
    return path


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
