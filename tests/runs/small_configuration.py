"""A configuration of a few keys, changes to it, and what a directory holds."""

import json

CONFIG = {
    "seed": 0,
    "optimizer": {"learning_rate": 5e-4, "betas": (0.9, 0.999)},
    "log": {"every_steps": 50},
    "data": {"workers": 0, "directory": "/data"},
    "evaluation": {"every_epochs": 1.0, "weights": "raw"},
    "checkpoint": {"every_steps": 100},
    "model": {"name": "deit_micro_patch4_16", "num_classes": 10, "image_size": (16, 16)},
    "augment": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
}


def with_changes(**changes):
    """CONFIG with other values: `a__b=1` for a.b."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (config[group] if group else config)[name] = value
    return config


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
