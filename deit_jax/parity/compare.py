"""The whole comparison: weights in, report out."""

import platform
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import torch

from deit_jax.evaluation.predict import read_view
from deit_jax.parity.activations import compare_activations, layer_names, our_activations
from deit_jax.parity.gradients import compare_gradients, labels_for, our_gradients
from deit_jax.parity.our_model import OurModel, noise_pixels, random_subject
from deit_jax.parity.report import Report
from deit_jax.parity.step import compare_steps, our_step, step_config, torch_step
from deit_jax.parity.torch_file import read_with_torch
from deit_jax.parity.torch_models import Against, build_torch_side, is_vision_transformer
from deit_jax.runs.open_weights import read_weights
from deit_jax.version import __version__
from deit_jax.weights.load import complete_model

ACTIVATIONS = 1e-5
"""Relative tolerance: float32 on both sides, some hundred sums in another order (6e-8 each)."""
GRADIENTS_OVER_ACTIVATIONS = 10
"""Gradients are sums over all tokens and images too."""
DEFAULT_MODEL = "deit_tiny_distilled_patch16_224"
_RANDOM = "random:"


def open_subject(weights: str, *, model: str = "", which: str = "model") -> OurModel:
    """Read what is to be compared.

    Args:
        weights: whatever `deit_jax.load_weights` reads, or "random:SEED".
        model: registered name; for files only where it is not recognised.
        which: of a training checkpoint, "model" or "ema".

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; or SEED is no number.
    """
    if weights.startswith(_RANDOM):
        seed = weights.removeprefix(_RANDOM)
        if not seed.isdecimal():
            raise ValueError(f"{weights!r} has no seed; write for instance {_RANDOM}0.")
        return random_subject(model or DEFAULT_MODEL, int(seed))
    found = read_weights(weights, which=which, model=model)
    function, params, batch_stats = complete_model(found)
    return OurModel(
        name=found.model_name,
        function=function,
        params=_float32(params),
        batch_stats=_float32(batch_stats),
        weights=found.source,
        tensors=read_with_torch(weights, which),
        preprocessing=found.facts.preprocessing,
        said=found.said,
        left_over=frozenset(row.name for row in found.left_over),
        assumed=found.assumed,
    )


def compare_with_torch(
    subject: OurModel,
    against: Against,
    *,
    images: Sequence[str] = (),
    gradients: bool = False,
    step: str | None = None,
    tolerance: float = ACTIVATIONS,
) -> Report:
    """Run both sides and compare, layer by layer.

    Args:
        subject: from `open_subject`.
        against: whose model PyTorch runs.
        images: files; two images of noise without.
        gradients: compare the gradients of a training loss too.
        step: compare a whole optimiser step too, with this distillation; this and gradients of
            transformers only.
        tolerance: largest relative difference of activations and losses; gradients may differ by
            ten times as much, updated parameters by `step.PARAMETERS`.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: one sentence about what is missing,
            cannot be read or cannot be compared.
    """
    if (gradients or step) and not is_vision_transformer(subject):
        raise ValueError(
            f"Gradients of {subject.name} are not compared: that of ReLU jumps at zero, so float32 "
            "rounding decides about single pixels; compare its activations only."
        )
    size = subject.module.image_size
    views = [read_view(path, size, subject.preprocessing.require().view) for path in images]
    pixels = np.stack(views) if views else noise_pixels(2, size)
    shown = subject.normalise(pixels)
    other = build_torch_side(subject, against)
    layers, labels = layer_names(subject), labels_for(subject, len(pixels))
    loose = GRADIENTS_OVER_ACTIVATIONS * tolerance
    sections = [compare_activations(our_activations(subject, shown), other, shown, tolerance)]
    if gradients:
        ours = our_gradients(subject, shown, labels)
        sections.append(compare_gradients(ours, other, shown, labels, layers, loose))
    if step:
        config = step_config(subject, step)
        stepped = our_step(subject, config, pixels, labels)
        theirs = torch_step(subject, other, config, pixels, labels)
        sections += compare_steps(stepped, theirs, layers, (tolerance, loose))
    what = ", ".join(Path(path).name for path in images) or f"{len(pixels)} images of noise"
    return Report(
        model=subject.name,
        weights=subject.weights,
        ours=f"deit_jax {__version__} (JAX {jax.__version__}, {jax.default_backend()})",
        against=f"{other.title} (PyTorch {torch.__version__}, {platform.machine()})",
        loaded=other.loaded_from,
        images=f"{what} at {size[0]}x{size[1]} pixels",
        sections=tuple(sections),
        assumed=subject.assumed,
    )


def _float32(tree: dict) -> dict:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)
