"""Data-efficient image transformers (DeiT) in JAX; importing this package starts nothing."""

from typing import TYPE_CHECKING, Any

from deit_jax.version import __version__

if TYPE_CHECKING:
    from deit_jax.models.registry import create_model, list_models
    from deit_jax.weights.load import load_weights
    from deit_jax.weights.save import save_weights

__all__ = ["__version__", "create_model", "list_models", "load_weights", "save_weights"]

# Reader processes import this package too, and must not start JAX.
_LAZY = {
    "create_model": "deit_jax.models.registry",
    "list_models": "deit_jax.models.registry",
    "load_weights": "deit_jax.weights.load",
    "save_weights": "deit_jax.weights.save",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
