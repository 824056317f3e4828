"""Every model by name, with the facts that are known of it before it is built."""

import difflib
import fnmatch
from typing import Any

import jax.numpy as jnp
from flax import nnx

from deit_jax.models import deit, efficientnet, regnet, resnet
from deit_jax.models.attention import AttentionForm
from deit_jax.models.functional import Builder
from deit_jax.models.layer_norm import LAYER_NORM_EPSILON
from deit_jax.models.spec import ModelSpec
from deit_jax.schema import RULES
from deit_jax.schema.declare import conform
from deit_jax.trees import TreePath

_REGISTRY = {
    spec.name: spec
    for models in (deit.MODELS, regnet.MODELS, resnet.MODELS, efficientnet.MODELS)
    for spec in models
}
_ELSEWHERE = {other: spec.name for spec in _REGISTRY.values() for other in spec.elsewhere}
_MODULES = tuple(dict.fromkeys(spec.module for spec in _REGISTRY.values()))
HEADS = tuple(path for module in _MODULES for path in module.HEADS)
"""Where heads lie in the parameters, of all families."""
CLASS_HEADS = tuple(module.HEADS[0] for module in _MODULES)
"""Those of the class alone."""
STEMS = tuple(module.STEM for module in _MODULES)
"""Where first convolutions lie."""
_NOT_OF_CONVNETS = {
    "epsilon": LAYER_NORM_EPSILON,
    "residual_dtype": jnp.dtype("float32"),
    "remat": False,
    "fused_kernels": "none",
}
"""Options that they do not have, as they are where nobody sets them."""


def is_head(path: TreePath) -> bool:
    """Whether a parameter belongs to a head."""
    return any(path[: len(head)] == head for head in HEADS)


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, in registration order."""
    return fnmatch.filter(_REGISTRY, pattern)


def model_spec(name: str) -> ModelSpec:
    """Look a model up by name. Raises ValueError with the nearest names if there is none."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see deit_jax.list_models()."
        raise ValueError(f"There is no model named {name!r}; {hint}")
    return _REGISTRY[name]


def find_model(name: str) -> ModelSpec | None:
    """Look a model up by its name here, in timm or in torchvision; None if there is none."""
    return _REGISTRY.get(_ELSEWHERE.get(name, name))


def model_builder(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dtype: Any = jnp.float32,
    attention: AttentionForm = "auto",
    num_heads: int = 0,
    epsilon: float = LAYER_NORM_EPSILON,
    residual_dtype: Any = jnp.float32,
    remat: bool = False,
    fused_kernels: str = "none",
) -> Builder:
    """Return a function from `nnx.Rngs` to the named model, for `functional.abstract` and jit.

    Args:
        name: one of `list_models()`.
        num_classes: classes of each head; the model's own default if None.
        image_size: (height, width) or one number for both, in pixels; default if None.
        drop_rate: dropout probability.
        drop_path_rate: stochastic depth probability of the last block; rises linearly from 0 (of
            DeiT III: of every block).
        dtype: type of the operands of matrix products and convolutions. Parameters, softmax,
            normalisation statistics and logits are float32 whatever it is.
        attention: how a transformer computes attention; convnets have none.
        num_heads: of a transformer's attention; the model's own if 0.
        epsilon: of a transformer's layer normalisation.
        residual_dtype: type of a transformer's residual stream.
        remat: whether a transformer computes its blocks again in the backward pass.
        fused_kernels: kernels of our own that a transformer uses where the device has any: "none",
            "norm" or "all", see `models.fused.encoder`.

    Raises:
        ValueError: there is no such model, or it is a convnet and has no such option.
    """
    spec = model_spec(name)
    options = _checked(
        num_classes=spec.num_classes if num_classes is None else num_classes,
        image_size=spec.image_size if image_size is None else image_size,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    heads, kernels = _checked(num_heads=num_heads, fused_kernels=fused_kernels).values()
    further = {
        "epsilon": epsilon,
        "residual_dtype": residual_dtype,
        "remat": remat,
        "fused_kernels": kernels,
    }
    if spec.transformer:
        options |= further | {"attention": attention}
        spec = spec.resized(num_heads=heads) if heads else spec
    elif heads or further != _NOT_OF_CONVNETS:
        *names, last = "num_heads", *_NOT_OF_CONVNETS
        raise ValueError(f"{name} is a convnet, which takes no {', '.join(names)} or {last}.")

    def build(rngs: nnx.Rngs) -> Any:
        model = spec.build(dtype=dtype, rngs=rngs, **options)
        # Tensors do not tell tf_efficientnet from efficientnet: what is written needs the name.
        model.model_name = name
        return model

    return build


def _checked(**given: Any) -> dict[str, Any]:
    """Return options as the configuration takes them: one rule for a value, wherever it is given.

    Raises:
        ValueError: one breaks its rule, or there are no classes.
    """
    checked = {key: conform(key, value, RULES[f"model.{key}"]) for key, value in given.items()}
    if checked.get("num_classes") == 0:
        # Which a configuration may leave to the data: they are counted before a model is built.
        raise ValueError("num_classes is 0; it must be positive.")
    return checked
